//! From bytes to rows: cutting a body into chunks by content, and decoding a chunk by schema.
//! Sans-I/O: nothing here reads, waits or spawns.
//!
//! ```text
//! pieces ─► Unpacker ─► Cutter ─► Chunk ─► Decoder ─► Decoding ─► Batch (good rows, refused rows)
//!                                   └────► infer, widen ─► Schema
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`unpack`] | decompression and charset: what was sent into UTF-8 |
//! | `cut` | where chunks end; one scanner a format |
//! | `decode` | rows of a chunk into batches: the loop that all formats share |
//! | `target` | where rows are written, and what becomes of values without a column |
//! | `json`, `json_rows` | the strict JSON reader; objects into columns |
//! | `dialect` | how separated values are written |
//! | `csv_fields`, `csv_rows` | where separated values begin and end; records into columns |
//! | `csv_index`, `csv_columns` | the same for many plain records at once, column by column |
//! | `mask` | bytes found sixty-four at a time |
//! | `columns` | column buffers that can take back a half-written row |
//! | `pattern`, `text_rows` | how lines of text are read; into columns |
//! | `number`, `datetime`, `log_time` | text into exact values |
//! | `fault` | why rows are refused |
//! | `infer` | a schema from a chunk |
//! | `reread` | a refused row, tried again |
//!
//! A format is an arm of [`Format`], a scanner under `cut` and a row reader beside `json_rows`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

mod columns;
mod csv_columns;
mod csv_fields;
mod csv_index;
mod csv_rows;
mod cut;
mod datetime;
mod decode;
mod dialect;
mod fault;
mod infer;
mod json;
mod json_rows;
mod log_time;
mod mask;
mod number;
mod pattern;
pub mod reread;
mod target;
mod text_rows;
pub mod unpack;

pub use crate::record::EXTRA;
pub use cut::Cutter;
pub use datetime::{parse_date, parse_timestamp};
pub use decode::{Decoder, Decoding};
pub use dialect::{Dialect, Header, Layout, Marks, Quote};
pub use infer::{infer, widen};
pub use number::parse_decimal;
pub use pattern::Pattern;

use fault::{Fallible, Fault, shorten, shorten_bytes, type_name};

/// The formats of a body. A new one is a file beside this one and an arm here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// One JSON object, or an array of objects; streamed, never held whole.
    Json,
    /// Separated values.
    Csv(Dialect),
    /// Lines of text.
    Text(Pattern),
}

/// The name of a format, as settings and clients write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// Comma-separated values; the delimiter is found where it is not said.
    Csv,
    /// Values separated by tabs.
    Tsv,
    /// One JSON object a line.
    Ndjson,
    /// A JSON object, or an array of them.
    Json,
    /// Lines of text.
    Text,
}

impl FormatName {
    /// The format of a word; `jsonl` is NDJSON too.
    pub fn parse(word: &str) -> Option<FormatName> {
        match word {
            "csv" => Some(FormatName::Csv),
            "tsv" => Some(FormatName::Tsv),
            "ndjson" | "jsonl" => Some(FormatName::Ndjson),
            "json" => Some(FormatName::Json),
            "text" => Some(FormatName::Text),
            _ => None,
        }
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            FormatName::Csv => "csv",
            FormatName::Tsv => "tsv",
            FormatName::Ndjson => "ndjson",
            FormatName::Json => "json",
            FormatName::Text => "text",
        }
    }
}

/// Bounds on what a body may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A chunk ends at the first record boundary at or after this many bytes.
    pub chunk_bytes: usize,
    /// A chunk ends after this many records, however short: it bounds what rejected rows cost.
    pub chunk_records: usize,
    /// The longest record, in bytes.
    pub record_bytes: usize,
    /// The most columns of a record or a header.
    pub columns: usize,
    /// The deepest nesting of a JSON value.
    pub depth: usize,
    /// The most cells (rows × columns) of one batch.
    pub cells: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            chunk_bytes: 1 << 20,
            chunk_records: 32 << 10,
            record_bytes: 1 << 20,
            columns: 4096,
            depth: 64,
            cells: 4 << 20,
        }
    }
}

/// A part of a body, cut at record boundaries: the unit of admission and of idempotency.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The records, whole.
    pub bytes: Bytes,
    /// Where the chunk begins in the decompressed body, in bytes.
    pub offset: u64,
    /// Where it ends there. More than `offset + bytes.len()` if records were left out as too long.
    pub end: u64,
    /// Records in the chunk, the ones left out included.
    pub records: u64,
    /// Records that were too long to hold. They are rows: decoding refuses each.
    pub oversized: Vec<Oversized>,
    /// The line of the body on which the chunk begins, from 1.
    pub line: u64,
    /// The column (byte) of that line, from 1: other than 1 only if a JSON array has no line ends.
    pub column: u64,
    /// True for the chunk that ends the body.
    pub last: bool,
    /// How the separated values of the body are written and named; worked out once an upload.
    pub header: Option<Arc<Layout>>,
}

/// A record that was longer than [`Limits::record_bytes`] and was skipped without being held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oversized {
    /// Where it stood: an offset into [`Chunk::bytes`].
    pub at: usize,
    /// How it began: at most [`OVERSIZED_KEPT`] bytes.
    pub raw: Bytes,
    /// Its whole length, in bytes.
    pub length: u64,
    /// Line ends inside it, its own included.
    pub lines: u64,
}

/// How many bytes of a record that is too long are kept, for its dead letter.
pub const OVERSIZED_KEPT: usize = 4096;

/// The body cannot be cut or decoded any further: what, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Malformed {
    /// Line of the body, from 1.
    pub line: u64,
    /// Column (byte) of the line, from 1.
    pub column: u64,
    /// What was found and what was expected.
    pub message: String,
}
