//! Locks that say who holds them, since when, and what goes wrong with them.
//!
//! Owns the figures of every lock, by the place that made it, and in debug builds the order in which locks are taken. A
//! lock that nobody waits for costs a store more than a bare one. It never spins, and never polls or blocks on behalf of
//! someone else.
//!
//! | | every build | debug builds |
//! |---|---|---|
//! | [`registry`] | waits, seconds waited, the longest, who holds | and since when, taken where |
//! | [`Checks`] | | orders that can deadlock, locks taken again, waits too long: each told once, as a [`Report`] |
//! | [`crate::deadlock`] | tasks and threads that wait for each other | and where they took what they hold |
//!
//! What debug builds keep is bounded: 65,536 orders in all, 256 of one lock, rings of up to eight locks, 1,024 findings of
//! one sink. Orders beyond that are not recorded. An order goes when either of its locks does.
//!
//! # Which lock
//! [`sync::Mutex`] for memory: touched and let go, no await between. [`Mutex`] where an await lies between. Nothing at
//! all where one task can own the value and others ask it through a [`crate::queue`].

mod checks;
mod core;
#[cfg(all(test, loom))]
mod model;
mod mutex;
mod order;
mod place;
mod report;
pub mod sync;

use std::fmt;

pub use checks::{Checked, Checks};
pub use mutex::{Guard, Lock, Mutex};
pub(crate) use place::held;
pub use place::{Holder, Kind, LockInfo, registry};
pub use report::{Order, Report, Taken};

/// What a task notes that waits for a lock, for ever if need be.
pub(crate) const WAITS: &str = "lock";
/// As [`WAITS`], but not for ever.
const WAITS_UNTIL: &str = "lock, until a deadline,";

/// Why a lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockError {
    /// It was held until the deadline. A later try may succeed.
    TimedOut,
    /// The caller holds it: no try succeeds before it lets go.
    Relocked,
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "the lock was held until the deadline",
            Self::Relocked => "the caller holds the lock already",
        })
    }
}

impl std::error::Error for LockError {}
