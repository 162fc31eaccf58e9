//! What can go wrong, as the caller sees it: whose fault it is and whether a retry makes sense.

use std::io;
use std::path::{Path, PathBuf};

use crate::Lsn;

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The journal's bound is reached. Nothing was written; retry once a checkpoint has freed room.
    #[error("the journal is full: {backlog} of {max} bytes wait for the sink")]
    Full {
        /// Bytes between the checkpoint and the head.
        backlog: u64,
        /// The bound.
        max: u64,
    },
    /// The idempotency key was used for other bytes. The client's fault; a retry cannot help.
    #[error("the idempotency key was used with another payload")]
    Conflict,
    /// The device or the quota is full. Nothing was written; retry later.
    #[error("no space left for the journal: {0}")]
    DiskFull(String),
    /// A write or a sync failed: whether the record is durable is unknown until a restart.
    #[error("outcome unknown, the journal is poisoned: {0}")]
    Poisoned(String),
    /// The payload can never be taken. The client's fault.
    #[error("a payload of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// Bytes of the payload.
        len: u64,
        /// The most that is taken.
        max: u64,
    },
    /// The journal is closing or closed. Nothing was written.
    #[error("the journal is closed")]
    Closed,
}

impl AppendError {
    /// Whether the same append may succeed later, and has certainly not been written now.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::DiskFull(_))
    }
}

/// Why a reader has no next record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The journal was closed and everything in it was read.
    #[error("the journal is closed")]
    Closed,
    /// The journal was poisoned and everything durable was read.
    #[error("the journal is poisoned: {0}")]
    Poisoned(String),
    /// The position was trimmed away.
    #[error("position {at} was trimmed; the journal begins at {first}")]
    Trimmed {
        /// Where the reader stood.
        at: Lsn,
        /// The first position retained.
        first: Lsn,
    },
    /// What was read back is not what was written.
    #[error("the block at {at} is rotten: {reason}")]
    Corrupt {
        /// The position of the block.
        at: Lsn,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk refused.
    #[error("reading at {at}: {source}")]
    Io {
        /// Where.
        at: Lsn,
        /// What the disk said.
        source: io::Error,
    },
}

/// Damage that recovery must not paper over: something acknowledged is not readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The first position that cannot be read.
    pub at: Lsn,
    /// The next readable position, if there is one.
    pub next: Option<Lsn>,
    /// The file in question.
    pub file: String,
    /// The row of the decision table that said so.
    pub reason: &'static str,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at LSN {} ({})", self.reason, self.at, self.file)?;
        match self.next {
            Some(next) => write!(f, "; readable again from LSN {next}"),
            None => write!(f, "; nothing readable after it"),
        }
    }
}

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another journal of this one, holds `LOCK`.
    #[error("{0} is locked: another process uses this journal")]
    Locked(PathBuf),
    /// Acknowledged data are damaged or missing. `forebay journal verify` shows what, `repair` quarantines it.
    #[error("the journal is corrupt: {0}; see `forebay journal verify`")]
    Corrupt(Corruption),
    /// A file belongs to another journal.
    #[error("{0} belongs to another journal")]
    Foreign(PathBuf),
    /// The disk refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
