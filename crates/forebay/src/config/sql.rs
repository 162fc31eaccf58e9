//! A stream's settings as the engine takes them: its DDL parsed, its transform planned.
//! The one place where config meets SQL; says where in the text a fault stands, and runs nothing.

use forebay_pipeline::codec;
use forebay_pipeline::schema::{self, Schema};
use forebay_pipeline::sql::SqlError;
use forebay_pipeline::stream::catalog::OnInvalid;
use forebay_pipeline::stream::{Plan, StreamConfig};

use super::raw;
use super::validate::Fault;
use super::{Config, Stream};

impl Config {
    /// The bounds on bodies and records, as the codecs take them.
    pub fn codec_limits(&self) -> codec::Limits {
        codec::Limits {
            chunk_bytes: self.limits.chunk,
            record_bytes: self.limits.row,
            columns: self.limits.columns,
            depth: self.limits.depth,
            ..codec::Limits::default()
        }
    }
}

impl Stream {
    /// The stream as the engine takes it. Its transform is not planned here.
    ///
    /// # Errors
    /// The fault in the DDL with its place there.
    pub fn to_engine(&self) -> Result<StreamConfig, SqlError> {
        Ok(StreamConfig {
            schema: self.schema.as_deref().map(Schema::parse).transpose()?,
            unknown: match self.unknown {
                raw::Unknown::DeadLetter => schema::Unknown::DeadLetter,
                raw::Unknown::Drop => schema::Unknown::Drop,
                raw::Unknown::Keep => schema::Unknown::Keep,
            },
            on_invalid: match self.on_invalid {
                raw::OnInvalid::DeadLetter => OnInvalid::DeadLetter,
                raw::OnInvalid::Reject => OnInvalid::Reject,
            },
            transform: self.transform.clone(),
            format: self.format,
            pattern: self.pattern.clone(),
            journal_max: self.journal_max,
            received_at: self.received_at,
        })
    }
}

/// Every declared stream's SQL, judged: the DDL and, where it holds, the transform over it.
pub(super) fn judge(config: &Config) -> Vec<Fault> {
    let limits = config.codec_limits();
    let judged = config.streams.iter().filter_map(|(name, stream)| {
        let fault = |setting: &str, error: SqlError| Fault {
            path: vec!["streams".to_owned(), name.clone(), setting.to_owned()],
            within: Some((error.line, error.column)),
            message: error.message,
        };
        let settings = match stream.to_engine() {
            Ok(settings) => settings,
            Err(error) => return Some(fault("schema", error)),
        };
        // Without a schema there are no columns yet to plan over.
        let planned = Plan::new(name, settings.definition()?, limits);
        planned.err().map(|error| fault("transform", error))
    });
    judged.collect()
}
