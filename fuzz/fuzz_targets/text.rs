//! Lines of text: the first byte chooses a built-in pattern, the rest is the body.
#![no_main]

use forebay_pipeline::codec::{Format, Pattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choice, body @ ..] = input else { return };
    let name = Pattern::BUILT_IN[usize::from(*choice) % Pattern::BUILT_IN.len()];
    let Ok(pattern) = Pattern::parse(name) else { panic!("a built-in pattern is one") };
    forebay_fuzz::judge(&Format::Text(pattern), body);
});
