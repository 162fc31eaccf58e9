//! The lock that blocks its thread and lets one in.
//!
//! Owns the value, over `parking_lot`. It never blocks where the thread or task that asks has the lock itself.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::holders::Access;
use crate::lock::place::{Head, Kind};
use crate::lock::{LockError, Patience, checks, waits};
use crate::tasks;

/// A mutual exclusion that blocks the thread. Not fair: a newcomer may pass one who waits, but not for long.
///
/// A panic under the lock does not poison it.
///
/// ```
/// use forebay_flow::lock::sync::Mutex;
/// let sessions = Mutex::new("sessions", Vec::new());
/// sessions.lock().push(7);
/// assert_eq!(sessions.into_inner(), [7]);
/// ```
pub struct Mutex<T> {
    inner: parking_lot::Mutex<T>,
    head: Arc<Head>,
}

/// The right to the value. Dropping it lets the lock go.
#[must_use = "dropping the guard lets the lock go"]
pub struct Guard<'a, T> {
    inner: parking_lot::MutexGuard<'a, T>,
    head: &'a Head,
}

impl<T> Mutex<T> {
    /// A free lock. Its figures in [`snapshot`](crate::lock::snapshot) are kept under `name` and the place of this call.
    #[must_use]
    #[track_caller]
    pub fn new(name: &'static str, value: T) -> Self {
        let head = Head::new(name, Kind::SyncMutex, Location::caller());
        Self { inner: parking_lot::Mutex::new(value), head }
    }

    /// Waits for the lock, blocking the thread.
    ///
    /// # Panics
    /// When the calling task or thread holds it already: the other outcome would be to wait for ever. See
    /// [`Mutex::lock_for`] for an error instead.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T> {
        let (me, at) = (tasks::current_or_thread_id(), Location::caller());
        if checks::ON {
            checks::asks(&self.head, me, Access::Lock, at);
        }
        match self.inner.try_lock() {
            Some(inner) => self.guard(inner, me, at),
            None => self.lock_slow(me, at),
        }
    }

    /// Waits for the lock, blocking the thread for `limit` of real time at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], or at once [`LockError::Relocked`] when the calling task or thread holds it already.
    #[track_caller]
    pub fn lock_for(&self, limit: Duration) -> Result<Guard<'_, T>, LockError> {
        let (me, at) = (tasks::current_or_thread_id(), Location::caller());
        if checks::ON {
            checks::asks(&self.head, me, Access::Lock, at);
        }
        if let Some(inner) = self.inner.try_lock() {
            return Ok(self.guard(inner, me, at));
        }
        if self.head.holder() == me {
            checks::relocked(&self.head, me, Access::Lock, at);
            return Err(LockError::Relocked);
        }
        let waiting = self.head.wait(me, Access::Lock, Patience::Deadline);
        let what = waits(Access::Lock, Patience::Deadline);
        let inner = tasks::blocked(what, self.head.name(), || self.inner.try_lock_for(limit));
        drop(waiting);
        inner.map(|inner| self.guard(inner, me, at)).ok_or(LockError::TimedOut)
    }

    /// The guard, if the lock is free.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let at = Location::caller();
        let inner = self.inner.try_lock()?;
        Some(self.guard(inner, tasks::current_or_thread_id(), at))
    }

    /// The value, without locking: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The value.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }

    #[inline]
    fn guard<'a>(
        &'a self,
        inner: parking_lot::MutexGuard<'a, T>,
        me: u64,
        at: &'static Location<'static>,
    ) -> Guard<'a, T> {
        self.head.taken(me, at);
        Guard { inner, head: &self.head }
    }

    #[cold]
    fn lock_slow(&self, me: u64, at: &'static Location<'static>) -> Guard<'_, T> {
        // Only this task or thread writes its own id, so what it reads of itself is true.
        if self.head.holder() == me {
            let name = self.head.place.name;
            match checks::relocked(&self.head, me, Access::Lock, at) {
                Some(report) => panic!("{report}"),
                None => panic!("lock `{name}` is asked for at {at} by who holds it already"),
            }
        }
        let waiting = self.head.wait(me, Access::Lock, Patience::Endless);
        let inner = tasks::blocked(Access::Lock.words(), self.head.name(), || {
            let limit = if checks::ON { checks::long_wait() } else { None };
            let Some(limit) = limit else { return self.inner.lock() };
            loop {
                if let Some(inner) = self.inner.try_lock_for(limit) {
                    return inner;
                }
                if checks::waited(&self.head, me, Access::Lock, at, waiting.since) {
                    return self.inner.lock();
                }
            }
        });
        drop(waiting);
        self.guard(inner, me, at)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("name", &self.head.place.name)
            .field("made_at", &format_args!("{}", self.head.place.made_at))
            .field("held", &self.inner.is_locked())
            .finish_non_exhaustive()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Before `inner` drops, and so before anyone else can have the lock.
        self.head.released();
    }
}

shows_its_value!(Guard);
