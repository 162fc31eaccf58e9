//! NDJSON: any bytes are cut and decoded; every record is a row or a refusal.
#![no_main]

use forebay_pipeline::codec::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| forebay_fuzz::judge(&Format::Ndjson, body));
