//! The atomics and locks of the pool, and how its threads wait: the machine's, or a model checker's under `--cfg shuttle`
//! or `--cfg loom`.

#[cfg(not(any(loom, shuttle)))]
pub(super) use parking_lot::Mutex;
#[cfg(not(any(loom, shuttle)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(not(shuttle))]
pub(super) use crate::thread::block_on;
#[cfg(shuttle)]
pub(super) use shuttle::future::block_on;

#[cfg(loom)]
use loom as checker;
#[cfg(all(shuttle, not(loom)))]
use shuttle as checker;

#[cfg(any(loom, shuttle))]
pub(super) use checker::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(any(loom, shuttle))]
pub(super) use modelled::Mutex;

#[cfg(any(loom, shuttle))]
mod modelled {
    use std::sync::PoisonError;

    use super::checker::sync;

    /// The checker's lock with the shape of ours.
    #[derive(Default)]
    pub(in crate::pool) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::pool) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(in crate::pool) fn lock(&self) -> sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
