//! The atomics and locks of the pool's synchronous core: the machine's, or the model checker's under `--cfg shuttle`.

#[cfg(not(shuttle))]
pub(super) use parking_lot::Mutex;
#[cfg(not(shuttle))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(shuttle)]
pub(super) use modelled::Mutex;
#[cfg(shuttle)]
pub(super) use shuttle::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(shuttle)]
mod modelled {
    use std::sync::PoisonError;

    /// Shuttle's lock with the shape of ours.
    #[derive(Default)]
    pub(in crate::pool) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::pool) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
