//! However a body arrives, it is cut the same way. The first byte chooses the format, the second how it is split.
#![no_main]

use forebay_fuzz::cut;
use forebay_pipeline::codec::{Dialect, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [format, step, body @ ..] = input else { return };
    let format = match format % 4 {
        0 => Format::Ndjson,
        1 => Format::Json,
        2 => Format::Csv(Dialect::COMMA),
        _ => Format::Csv(Dialect::TAB),
    };
    let whole = cut(&format, std::iter::once(body));
    let split = cut(&format, body.chunks(usize::from(*step).max(1)));
    assert_eq!(format!("{whole:?}"), format!("{split:?}"));
});
