//! From bytes to rows: cutting a body into chunks by content, and decoding a chunk by schema.
//! Sans-I/O: nothing here reads, waits or spawns.

use std::sync::Arc;

use bytes::Bytes;

/// The formats of a body. A new one is a file beside this one and an arm here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// One JSON object, or an array of objects; streamed, never held whole.
    Json,
    /// Separated values with a header line.
    Csv {
        /// The field separator: `,` or a tab.
        delimiter: u8,
    },
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
    /// The line of the body on which the chunk begins, from 1.
    pub line: u64,
    /// True for the chunk that ends the body.
    pub last: bool,
    /// The columns of a CSV body, parsed once an upload.
    pub header: Option<Arc<Vec<String>>>,
}

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
