//! The lock of the inbox: the machine's, or the model checker's under `--cfg shuttle`.

#[cfg(not(shuttle))]
pub(super) use parking_lot::Mutex;

#[cfg(shuttle)]
pub(super) use self::modelled::Mutex;

#[cfg(shuttle)]
mod modelled {
    use std::sync::PoisonError;

    /// Shuttle's lock with the shape of ours.
    #[derive(Default)]
    pub(in crate::supervise) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::supervise) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in crate::supervise) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
