//! The queue's locks: the machine's, or the model checker's under `--cfg shuttle`.
//!
//! Owns the padding that keeps what senders write apart from what receivers write.

use super::pace::Pace;
use super::spin::Spin;

#[cfg(shuttle)]
pub(super) use modelled::Mutex;
#[cfg(not(shuttle))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(super) use shuttle::sync::MutexGuard;

/// What one side of a queue works on, on cache lines of its own (two, since they are fetched in pairs).
#[repr(align(128))]
pub(super) struct Side<S> {
    pub(super) pace: Pace,
    pub(super) spin: Spin,
    state: Mutex<S>,
}

impl<S> Side<S> {
    pub(super) fn new(state: S) -> Self {
        Self { pace: Pace::default(), spin: Spin::new(), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock()
    }
}

#[cfg(shuttle)]
mod modelled {
    use std::sync::PoisonError;

    /// Shuttle's lock with the shape of ours.
    pub(in crate::queue) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::queue) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in crate::queue) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
