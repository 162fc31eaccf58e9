//! Settings: what was written (raw) becomes what the program needs ([`Config`]), once, at start.
//!
//! ```text
//! flags > environment > file > defaults ─► Raw ─► validate ─► Config
//! ```
//!
//! Each bound of the program that can be set has its name here, with its unit and consequence.
//! Nothing else reads the environment or the file.

pub mod load;
pub mod memory;
mod places;
pub mod raw;
mod sql;
pub mod tokens;
pub mod units;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use forebay_pipeline::codec::{FormatName, Pattern};
pub use forebay_pipeline::stream::check_stream_name;
pub use load::{ConfigError, ConfigErrors, Flags, Loaded, Sources};
pub use raw::{OnInvalid, Unknown};
pub use tokens::{Token, Tokens};

/// The validated settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Beyond loopback: only with tokens, or `insecure`.
    pub listen: SocketAddr,
    /// The directory that holds journals, tables and the lock. One process at a time.
    pub data_dir: PathBuf,
    /// Serve beyond loopback to anyone.
    pub insecure: bool,
    /// Create a stream, with an inferred schema, when its first row comes.
    pub auto_create: bool,
    /// The sum of the engine's shares, in bytes: intake, decode, lanes, query.
    pub memory_budget: u64,
    /// Bounds of the HTTP side.
    pub http: Http,
    /// How long a request waits for room before 503.
    pub admission_wait: Duration,
    /// Bounds of streams and records.
    pub limits: Limits,
    /// The most bytes of one stream's journal on disk; then its uploads get 503.
    pub journal_max: u64,
    /// When a lane commits.
    pub flush: Flush,
    /// Threads of each stage.
    pub workers: Workers,
    /// How long idempotency keys are remembered.
    pub key_window: Duration,
    /// How many idempotency keys a stream remembers, and all streams together beyond the first 1000 of each.
    /// Then a stream forgets its own oldest.
    pub key_count: usize,
    /// The longest time a query may take.
    pub query_timeout: Duration,
    /// From SIGTERM to the exit.
    pub drain_deadline: Duration,
    /// Who may call.
    pub tokens: Tokens,
    /// Declared streams.
    pub streams: BTreeMap<String, Stream>,
    /// Faults on purpose; `None` outside of tests.
    pub faults: Option<raw::Faults>,
}

/// Bounds of the HTTP side.
#[derive(Debug, Clone)]
pub struct Http {
    /// From the last byte read to the answer; then 504.
    pub deadline: Duration,
    /// From the first moment a head may come to its last byte; then the connection is closed.
    pub header_deadline: Duration,
    /// The longest request head in bytes; then 431.
    pub max_header: usize,
    /// The longest body in bytes; then 413. `None`: a body is a stream, and bounded by time alone.
    pub max_body: Option<u64>,
    /// The most connections at once; beyond it, control routes alone are answered.
    pub max_connections: usize,
    /// The least bytes a second of a body, counted while the server reads; then 408.
    pub min_rate: u64,
    /// Over which time `min_rate` is judged.
    pub rate_window: Duration,
    /// How long a body may be slow at first.
    pub rate_grace: Duration,
    /// Origins of web pages that may call, beside the server's own.
    pub origins: Vec<String>,
}

/// Bounds of streams and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most streams.
    pub streams: usize,
    /// The most columns of a record.
    pub columns: usize,
    /// The longest record in bytes; a longer one is a dead letter.
    pub row: usize,
    /// The deepest nesting of a JSON value.
    pub depth: usize,
    /// A chunk ends at the first record boundary after so many bytes.
    pub chunk: usize,
    /// The longest body, in bytes, that is taken or refused as a whole.
    pub spool: u64,
    /// Bytes that each byte of a compressed body may become, beyond the first 64 MiB.
    pub expansion: u64,
}

/// When a lane commits: at the first of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    /// Bytes of Arrow gathered.
    pub bytes: u64,
    /// Age of the oldest row gathered.
    pub interval: Duration,
}

/// Threads of each stage, for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Decode and check.
    pub validate: usize,
    /// The streams' SQL.
    pub transform: usize,
    /// Flushes to sinks.
    pub persist: usize,
}

/// A declared stream.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The DDL as written; `None`: inferred from the first rows.
    pub schema: Option<String>,
    /// What happens to a column that the schema does not have.
    pub unknown: Unknown,
    /// What happens to a row that is not valid.
    pub on_invalid: OnInvalid,
    /// The SQL as written; `None`: rows pass as they are.
    pub transform: Option<String>,
    /// What a body is, where its head does not say.
    pub format: Option<FormatName>,
    /// How lines of text are read, where the request does not say; `None`: a line is a column.
    pub pattern: Option<Pattern>,
    /// The most bytes of its journal; `None`: `[journal] max`.
    pub journal_max: Option<u64>,
    /// Whether the column `_received_at` is added.
    pub received_at: bool,
}
