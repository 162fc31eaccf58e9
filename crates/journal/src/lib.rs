//! The durable bounded log: group commit, recovery, checkpoints, idempotency keys. Knows bytes, not records' meaning.
//!
//! ```text
//!  append ─► queue ─► gather ─► block ─► write ─► fdatasync ─► acknowledge ─► readers
//!            (commit: one turn of a shared writer thread, one block, one sync)
//! ```
//!
//! A [`Journal`] owns the files of one directory: `LOCK`, `seg-<base lsn>.log`, `ckpt.a`, `ckpt.b`, `idem-<from>-<end>`,
//! `attempts`. [`Writers`] are the few threads that write for every journal of the process; a quiet journal costs
//! none. The layout of the files is in `format.rs`, the decisions of recovery in `recovery.rs`.
//!
//! Never here: what a payload means, schemas, rows, networks, retries of a failed sync.

mod append;
mod attempts;
mod cache;
mod checkpoint;
mod commit;
pub mod disk;
mod error;
mod format;
mod inspect;
mod journal;
mod keys;
mod open;
mod reader;
mod recovery;
mod scan;
mod writer;
mod writers;

use std::fmt;

pub use append::{Append, Appended, Key};
pub use attempts::Attempts;
pub use checkpoint::Checkpoint;
pub use error::{AppendError, Corruption, OpenError, ReadError};
pub use format::{BLOCK_ALIGN, MAX_PAYLOAD};
pub use inspect::{Lost, Report, SegmentReport, cat, repair, verify};
pub use journal::{Clock, Journal, KeyBounds, Observer, Options, Recovered, Torn};
pub use keys::{KeyRoom, KeyState};
pub use reader::{Reader, Record};
pub use writers::{READ_WHY, READS_WAITING, Writers};

/// A position in a journal: a logical byte offset that only grows. Zero is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
