//! Locks that block their thread: for short work on memory.
//!
//! Owns the values, over `parking_lot`. Their guards cannot be held across an await of a spawned task, for they are not
//! `Send`. A panic under a lock does not poison it.

mod mutex;
mod rwlock;

pub use mutex::{Guard, Mutex};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
