//! CSV of any dialect: the first line of the input sets it, the rest is the body.
#![no_main]

use forebay_pipeline::codec::{Dialect, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (settings, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&b""[..], input),
    };
    let mut dialect = Dialect::COMMA;
    for setting in String::from_utf8_lossy(settings).split('&') {
        if let Some((name, value)) = setting.split_once('=') {
            drop(dialect.set(name, value));
        }
    }
    if dialect.check().is_ok() {
        forebay_fuzz::judge(&Format::Csv(dialect), body);
    }
});
