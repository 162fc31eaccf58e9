//! What a client asks of the door, and what it is answered.

use std::time::Duration;

use forebay_flow::Instant;

use super::Standing;
use crate::codec::Format;
use crate::codec::unpack::{Packing, UnpackError};
use crate::record::Code;

/// When a request is answered. The answer states which level was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ack {
    /// Decoded and handed to the journal; lost if the process dies now.
    Received,
    /// Fsynced in the journal (F1).
    #[default]
    Durable,
    /// Committed in the sink.
    Stored,
}

impl Ack {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Ack::Received => "received",
            Ack::Durable => "durable",
            Ack::Stored => "stored",
        }
    }

    /// The level of a word.
    pub fn parse(text: &str) -> Option<Ack> {
        [Ack::Received, Ack::Durable, Ack::Stored].into_iter().find(|ack| ack.as_str() == text)
    }
}

/// An upload's terms, known before its body is read.
#[derive(Debug, Clone)]
pub struct Request {
    /// The stream's name, as the client wrote it; checked here.
    pub stream: String,
    /// The body's format.
    pub format: Format,
    /// How the body is packed: its coding and its charset.
    pub packing: Packing,
    /// When to answer.
    pub ack: Ack,
    /// The client's `Idempotency-Key`, at most 256 bytes.
    pub key: Option<String>,
    /// Whose request it is: the token's name, or the peer's address. Keys are told apart by it.
    pub tenant: String,
    /// The peer's address, for dead letters.
    pub client: String,
    /// The request's id, for dead letters and logs.
    pub request_id: String,
    /// How long to wait for room before the body is read; at most the configured admission wait.
    pub wait: Option<Duration>,
    /// The body's length, where the client declared it and it is not compressed.
    pub content_length: Option<u64>,
}

/// One refused row, in the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The data row within the request, from 1.
    pub row: u64,
    /// The column at fault.
    pub column: Option<String>,
    /// Why, for machines.
    pub code: Code,
    /// Why, for people.
    pub message: String,
}

/// The most row errors that a reply holds.
pub const REPLY_ERRORS: usize = 100;

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The stream.
    pub stream: String,
    /// The level reached.
    pub ack: Ack,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows refused.
    pub rejected: u64,
    /// The first refused rows, at most [`REPLY_ERRORS`].
    pub errors: Vec<RowError>,
    /// The end of the last entry in the journal.
    pub position: u64,
    /// True when every chunk had been stored before under the same key.
    pub duplicate: bool,
}

/// What is already durable of an upload that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Partial {
    /// Rows accepted and durable.
    pub accepted: u64,
    /// Rows refused and durable as dead letters.
    pub rejected: u64,
    /// Bytes of the body that need not be sent again under the same key; counted after
    /// decompression and charset, so of the UTF-8 text.
    pub offset: u64,
}

/// Why an upload was not taken, or not taken whole.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The name breaks the rules for stream names, or is reserved.
    #[error("{0}")]
    InvalidName(String),
    /// No such stream, and streams are not created by themselves here.
    #[error("no stream named `{0}`")]
    UnknownStream(String),
    /// The most streams are already there.
    #[error("{limit} streams exist, which is the limit")]
    TooManyStreams {
        /// `limits.streams`
        limit: usize,
    },
    /// The stream cannot be made from these rows: a table of its name is there, and they do not fit it.
    #[error("{0}")]
    Incompatible(String),
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
    /// The body cannot be cut or decoded from here on.
    #[error("{malformed}")]
    Malformed {
        /// What and where.
        malformed: crate::codec::Malformed,
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// The body cannot be unpacked from here on, or only into too much.
    #[error("{error}")]
    Unpack {
        /// What and where.
        error: UnpackError,
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// Every row was refused; they are dead letters, and the reply counts them.
    #[error("no row was valid")]
    NoValidRow(Box<Reply>),
    /// `on_invalid = "reject"`: a row was refused, so nothing was kept.
    #[error("a row was refused, and this stream takes all or nothing")]
    Invalid(Box<Reply>),
    /// `on_invalid = "reject"` holds only for bodies up to the spool limit.
    #[error(
        "the body is larger than {limit} bytes, the most that can be taken or refused as a whole"
    )]
    TooLargeToReject {
        /// The spool limit in bytes.
        limit: u64,
    },
    /// The key was used for other bytes.
    #[error("this Idempotency-Key was used with another body")]
    KeyConflict {
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// The upload under this key does not go on where the request says.
    #[error("{}", describe(.0))]
    Offset(Standing),
    /// No room in memory within the wait.
    #[error("no room: {reason}")]
    Overloaded {
        /// Which bound was met: a metric label.
        reason: Refusal,
        /// When it is worth coming back.
        retry_after: Duration,
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull {
        /// When it is worth coming back.
        retry_after: Duration,
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// The request's deadline passed.
    #[error("the request's deadline passed")]
    DeadlineExceeded {
        /// What is durable nevertheless.
        partial: Partial,
    },
    /// The journal failed: whether the last chunk is durable is unknown. The process is about to exit.
    #[error("the journal failed, the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// A fault of our own; the request was not kept.
    #[error("internal error: {0}")]
    Internal(String),
}

fn describe(standing: &Standing) -> String {
    let Standing { offset, prefix, complete, .. } = standing;
    match (complete, offset) {
        (true, _) => {
            format!("the upload under this key is complete: all {offset} bytes are durable")
        }
        (false, 0) => "nothing is known under this key: send the body from its start".to_owned(),
        (false, _) => format!(
            "the upload under this key goes on at byte {offset}: send the first {prefix} bytes, then \
             those from byte {offset} on"
        ),
    }
}

/// The bound that refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The intake share of the memory budget.
    Memory,
    /// The stream's journal.
    JournalFull,
    /// The server drains.
    Draining,
    /// The most connections or requests at once.
    Connections,
}

impl Refusal {
    /// Every reason, for metrics that must exist from the start.
    pub const ALL: [Refusal; 4] =
        [Refusal::Memory, Refusal::JournalFull, Refusal::Draining, Refusal::Connections];

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Memory => "memory",
            Refusal::JournalFull => "journal_full",
            Refusal::Draining => "draining",
            Refusal::Connections => "connections",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Memory => "the intake share of the memory budget is in use",
            Refusal::JournalFull => "the stream's journal is full; its sink is behind",
            Refusal::Draining => "the server is shutting down",
            Refusal::Connections => "too many requests at once",
        })
    }
}

/// When the answer to an upload is due: the request's deadline, counted from the last byte read.
#[derive(Debug, Clone, Copy)]
pub struct Due(pub Instant);
