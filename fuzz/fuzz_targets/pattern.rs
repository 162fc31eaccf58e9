//! Patterns: any text is a pattern or an error that says why. What follows the first line break is read by it.
#![no_main]

use forebay_pipeline::codec::{Format, Pattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (pattern, body) = text.split_once('\n').unwrap_or((text, ""));
    match Pattern::parse(pattern) {
        Ok(pattern) => forebay_fuzz::judge(&Format::Text(pattern), body.as_bytes()),
        Err(why) => assert!(!why.is_empty()),
    }
});
