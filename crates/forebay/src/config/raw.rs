//! What may be written: the shape of `forebay.toml`, of the environment and of a stream's JSON.
//! No defaults and no judgement; both live in `super::validate`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forebay_pipeline::codec::FormatName;
use serde::Deserialize;

use super::units::{Size, Span};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Address and port to listen on.
    pub listen: Option<String>,
    /// The directory that holds everything.
    pub data_dir: Option<PathBuf>,
    /// Serve beyond loopback without tokens.
    pub insecure: Option<bool>,
    /// Create a stream when its first row comes.
    pub auto_create: Option<bool>,
    /// `[memory]`
    pub memory: Option<Memory>,
    /// `[http]`
    pub http: Option<Http>,
    /// `[admission]`
    pub admission: Option<Admission>,
    /// `[limits]`
    pub limits: Option<Limits>,
    /// `[journal]`
    pub journal: Option<Journal>,
    /// `[flush]`
    pub flush: Option<Flush>,
    /// `[workers]`
    pub workers: Option<Workers>,
    /// `[keys]`
    pub keys: Option<Keys>,
    /// `[query]`
    pub query: Option<Query>,
    /// `[drain]`
    pub drain: Option<Drain>,
    /// `[[tokens]]`
    pub tokens: Option<Vec<Token>>,
    /// `[streams.NAME]`
    pub streams: Option<BTreeMap<String, Stream>>,
    /// `[faults]`, only with `FOREBAY_FAULTS=1`.
    pub faults: Option<Faults>,
}

/// `[memory]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The sum of the intake, lanes and query shares.
    pub budget: Option<Size>,
}

/// `[http]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// From the last byte read to the answer.
    pub deadline: Option<Span>,
    /// From the first moment a head may come to its last byte.
    pub header_deadline: Option<Span>,
    /// The longest request head.
    pub max_header: Option<Size>,
    /// The longest body.
    pub max_body: Option<Size>,
    /// The most connections at once.
    pub max_connections: Option<usize>,
    /// The least bytes a second of a body.
    pub min_rate: Option<Size>,
    /// Over which time `min_rate` is judged.
    pub rate_window: Option<Span>,
    /// How long a body may be slow at first.
    pub rate_grace: Option<Span>,
    /// Origins of web pages that may call.
    pub origins: Option<Vec<String>>,
}

/// `[admission]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// How long a request waits for room.
    pub wait: Option<Span>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most streams.
    pub streams: Option<usize>,
    /// The most columns of a record.
    pub columns: Option<usize>,
    /// The longest record.
    pub row: Option<Size>,
    /// The deepest nesting of a JSON value.
    pub depth: Option<usize>,
    /// A chunk ends at the first record boundary after this.
    pub chunk: Option<Size>,
    /// The longest body of a stream that takes all or nothing.
    pub spool: Option<Size>,
    /// Bytes that each byte of a compressed body may become.
    pub expansion: Option<u64>,
}

/// `[journal]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The most bytes of one stream's journal.
    pub max: Option<Size>,
}

/// `[flush]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flush {
    /// A flush is committed at this size.
    pub bytes: Option<Size>,
    /// A flush is committed at this age.
    pub interval: Option<Span>,
}

/// `[workers]` and a stream's `workers`.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    /// Decode and check.
    pub validate: Option<usize>,
    /// The stream's SQL.
    pub transform: Option<usize>,
    /// Flushes to sinks.
    pub persist: Option<usize>,
}

/// `[keys]`: how long and how many idempotency keys are remembered.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// For how long.
    pub window: Option<Span>,
    /// How many of a stream.
    pub count: Option<usize>,
}

/// `[query]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The longest time a query may take.
    pub timeout: Option<Span>,
}

/// `[drain]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// From SIGTERM to the exit.
    pub deadline: Option<Span>,
}

/// `[[tokens]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it.
    pub name: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub hash: Option<String>,
    /// The streams it may write; none named means every one, and everything else too.
    pub streams: Option<Vec<String>>,
}

/// `[streams.NAME]`, and the body of `PUT /api/v1/streams/NAME`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Columns as in `CREATE TABLE`.
    pub schema: Option<String>,
    /// What happens to a column that the schema does not have.
    pub unknown: Option<Unknown>,
    /// What happens to a row that is not valid.
    pub on_invalid: Option<OnInvalid>,
    /// One SELECT over the stream's own rows.
    pub transform: Option<String>,
    /// What a body is, where its head does not say: csv, tsv, ndjson, json or text.
    pub format: Option<FormatName>,
    /// How lines of text are read: a built-in's name, or an expression with named groups.
    pub pattern: Option<String>,
    /// The stream's journal.
    pub journal: Option<StreamJournal>,
    /// The stream's share of the workers.
    pub workers: Option<Workers>,
    /// The order in which load is shed.
    pub class: Option<Class>,
    /// Where the rows go.
    pub sink: Option<Sink>,
    /// Whether the column `_received_at` is added.
    pub received_at: Option<bool>,
}

/// A stream's `journal`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamJournal {
    /// The most bytes.
    pub max: Option<Size>,
}

/// A stream's `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The row becomes a dead letter.
    DeadLetter,
    /// The value is left out.
    Drop,
    /// The value goes to `_extra`.
    Keep,
}

/// A stream's `on_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// The row becomes a dead letter.
    DeadLetter,
    /// The whole request is refused.
    Reject,
}

/// A stream's `class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Shed last.
    Critical,
    /// Shed after bulk.
    Normal,
    /// Shed first.
    Bulk,
}

/// A stream's `sink`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: SinkKind,
}

/// The sinks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// A Delta Lake table.
    Delta,
}

/// `[faults]`: faults on purpose.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Throttles the journal's disk.
    pub disk_bytes_per_second: Option<u64>,
    /// Fails the journal's disk after so many bytes.
    pub disk_error_after_bytes: Option<u64>,
    /// The journal's disk is full after so many bytes.
    pub disk_full_after_bytes: Option<u64>,
    /// Sinks of these streams never finish a commit.
    pub stall_sinks: Option<Vec<String>>,
    /// A transform worker panics on a row that holds this text.
    pub panic_on: Option<String>,
}
