//! Locks that say who holds them, since when, and what goes wrong with them.
//!
//! Owns the figures of every lock, by the place that made it, and in debug builds the order in which locks are taken. A
//! lock that nobody waits for costs a store more than a bare one. It never spins, and never polls or blocks on behalf of
//! someone else.
//!
//! | | every build | debug builds |
//! |---|---|---|
//! | [`snapshot`] | waits, seconds waited, the longest, who holds or reads | and since when, taken where |
//! | [`Checks`] | | orders that can deadlock, locks taken again, waits too long: each told once, as a [`Report`] |
//! | [`crate::deadlock`] | tasks and threads that wait for each other | and where they took what they hold |
//!
//! Readers are written down without the cost of a lock: of two that come to one lock within the same nanoseconds one may
//! be missing in what every build sees. Debug builds have their own record, which misses nobody.
//!
//! What debug builds keep is bounded: 65,536 orders in all, 256 of one lock, rings of up to eight locks, 1,024 findings of
//! one sink. Orders beyond that are not recorded. An order goes when either of its locks does.
//!
//! # Which lock
//! [`sync::Mutex`] for memory: touched and let go, no await between. [`Mutex`] where an await lies between. [`RwLock`] and
//! [`sync::RwLock`] where many read for long and few write: a reader that only looks a value up is served as fast by a
//! mutex, for both have to write down that they came. Nothing at all where one task can own the value and others ask it
//! through a [`crate::queue`], or where readers can do with the [`latest`](crate::latest) value.

/// A guard shows as what it guards.
macro_rules! shows_its_value {
    ($guard:ident) => {
        impl<T: std::fmt::Debug> std::fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&**self, f)
            }
        }

        impl<T: std::fmt::Display> std::fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&**self, f)
            }
        }
    };
}

mod checks;
mod core;
mod holders;
#[cfg(all(test, loom))]
mod model;
mod mutex;
mod order;
mod place;
mod report;
mod rwcore;
mod rwlock;
pub mod sync;
mod waiting;

use std::fmt;

pub use checks::{Checked, Checks};
pub use holders::Access;
pub use mutex::{Guard, Lock, Mutex};
pub(crate) use place::{HeldLock, Holding, held};
pub use place::{Holder, Kind, LockInfo, snapshot};
pub use report::{Order, Report, Taken};
pub use rwlock::{ReadGuard, ReadLock, RwLock, WriteGuard, WriteLock};

/// For how long one waits.
#[derive(Clone, Copy)]
enum Patience {
    Endless,
    Deadline,
}

impl Access {
    /// What a task notes that waits for such access for ever if need be; also what its holder is said to hold.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Read => "read lock",
            Self::Write => "write lock",
        }
    }
}

fn waits(access: Access, patience: Patience) -> &'static str {
    match (patience, access) {
        (Patience::Endless, access) => access.words(),
        (Patience::Deadline, Access::Lock) => "lock, until a deadline,",
        (Patience::Deadline, Access::Read) => "read lock, until a deadline,",
        (Patience::Deadline, Access::Write) => "write lock, until a deadline,",
    }
}

/// Why a lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
