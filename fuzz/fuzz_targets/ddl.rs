//! DDL and transforms: any text is a schema or an error with a place; a schema is the same after writing it down.
//! What follows the first line break is a transform over it.
#![no_main]

use forebay_pipeline::codec::Limits;
use forebay_pipeline::schema::Schema;
use forebay_pipeline::stream::{Plan, StreamConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (ddl, transform) = text.split_once('\n').unwrap_or((text, ""));
    match Schema::parse(ddl) {
        Err(error) => assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty()),
        Ok(schema) => {
            assert_eq!(
                Schema::parse(&schema.to_ddl()).as_ref(),
                Ok(&schema),
                "{}",
                schema.to_ddl()
            );
            let transform = (!transform.is_empty()).then(|| transform.to_owned());
            let settings = StreamConfig { transform, ..StreamConfig::default() };
            drop(Plan::new("s", settings.definition_with(schema), Limits::default()));
        }
    }
});
