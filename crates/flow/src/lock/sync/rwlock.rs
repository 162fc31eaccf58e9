//! The lock that blocks its thread and lets many read.
//!
//! Owns the value, over `parking_lot`. It never blocks where the thread or task that asks keeps itself out.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::holders::Access;
use crate::lock::place::{Head, Kind, Reader};
use crate::lock::{LockError, Patience, checks, waits};
use crate::tasks;

/// A value that many read at once, or one writes; waiting blocks the thread. A reader that comes while a writer waits for
/// other readers, waits behind it, so readers without end do not starve it.
///
/// So who reads and asks to read again may wait for himself, once a writer came between the two: hand the guard down
/// instead. Debug builds tell of it ([`Report::Reread`](crate::lock::Report::Reread)), writer or not.
///
/// A panic under the lock does not poison it.
///
/// # Choosing a lock
/// Worth it where readers stay for long: to look up one value, a [`Mutex`](super::Mutex) is as fast.
///
/// ```
/// use forebay_flow::lock::sync::RwLock;
/// let limits = RwLock::new("limits", vec![1, 2]);
/// let (one, two) = (limits.read(), limits.try_read().unwrap());
/// assert_eq!(one.len() + two.len(), 4);
/// drop((one, two));
/// limits.write().push(3);
/// assert_eq!(limits.into_inner(), [1, 2, 3]);
/// ```
pub struct RwLock<T> {
    inner: parking_lot::RwLock<T>,
    head: Arc<Head>,
}

/// The right to read. Dropping it gives it back.
#[must_use = "dropping the guard lets the lock go"]
pub struct ReadGuard<'a, T> {
    inner: parking_lot::RwLockReadGuard<'a, T>,
    head: &'a Head,
    reader: Reader,
}

/// The right to write. Dropping it lets the lock go.
#[must_use = "dropping the guard lets the lock go"]
pub struct WriteGuard<'a, T> {
    inner: parking_lot::RwLockWriteGuard<'a, T>,
    head: &'a Head,
}

impl<T> RwLock<T> {
    /// A free lock. Its figures in [`snapshot`](crate::lock::snapshot) are kept under `name` and the place of this call.
    #[must_use]
    #[track_caller]
    pub fn new(name: &'static str, value: T) -> Self {
        let head = Head::new(name, Kind::SyncRwLock, Location::caller());
        Self { inner: parking_lot::RwLock::new(value), head }
    }

    /// Waits until this caller may read, blocking the thread.
    ///
    /// # Panics
    /// When it would wait for itself: the calling task or thread writes, or it reads and a writer waits. See
    /// [`RwLock::read_for`] for an error instead.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let (me, at) = self.asks(Access::Read, Location::caller());
        match self.inner.try_read() {
            Some(inner) => self.read_guard(inner, me, at),
            None => self.read_slow(me, at),
        }
    }

    /// Waits until this caller may write, alone, blocking the thread.
    ///
    /// # Panics
    /// When it would wait for itself: the calling task or thread reads or writes. See [`RwLock::write_for`] for an
    /// error instead.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let (me, at) = self.asks(Access::Write, Location::caller());
        match self.inner.try_write() {
            Some(inner) => self.write_guard(inner, me, at),
            None => self.write_slow(me, at),
        }
    }

    /// Waits until this caller may read, blocking the thread for `limit` of real time at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], or at once [`LockError::Relocked`] when it would wait for itself.
    #[track_caller]
    pub fn read_for(&self, limit: Duration) -> Result<ReadGuard<'_, T>, LockError> {
        let (me, at) = self.asks(Access::Read, Location::caller());
        let inner = self.within(Access::Read, (me, at), limit, |limit| match limit {
            Duration::ZERO => self.inner.try_read(),
            limit => self.inner.try_read_for(limit),
        })?;
        Ok(self.read_guard(inner, me, at))
    }

    /// Waits until this caller may write, blocking the thread for `limit` of real time at most.
    ///
    /// # Errors
    /// As [`RwLock::read_for`].
    #[track_caller]
    pub fn write_for(&self, limit: Duration) -> Result<WriteGuard<'_, T>, LockError> {
        let (me, at) = self.asks(Access::Write, Location::caller());
        let inner = self.within(Access::Write, (me, at), limit, |limit| match limit {
            Duration::ZERO => self.inner.try_write(),
            limit => self.inner.try_write_for(limit),
        })?;
        Ok(self.write_guard(inner, me, at))
    }

    /// The right to read, if no writer has the lock or waits for its readers.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let at = Location::caller();
        let inner = self.inner.try_read()?;
        Some(self.read_guard(inner, tasks::current_or_thread_id(), at))
    }

    /// The right to write, if the lock is free.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let at = Location::caller();
        let inner = self.inner.try_write()?;
        Some(self.write_guard(inner, tasks::current_or_thread_id(), at))
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

    /// Before each call that waits: who calls.
    #[inline]
    fn asks(&self, access: Access, at: &'static Location<'static>) -> Caller {
        let me = tasks::current_or_thread_id();
        if checks::ON {
            checks::asks(&self.head, me, access, at);
        }
        (me, at)
    }

    #[inline]
    fn read_guard<'a>(
        &'a self,
        inner: parking_lot::RwLockReadGuard<'a, T>,
        me: u64,
        at: &'static Location<'static>,
    ) -> ReadGuard<'a, T> {
        let reader = self.head.reads(me, at);
        ReadGuard { inner, head: &self.head, reader }
    }

    #[inline]
    fn write_guard<'a>(
        &'a self,
        inner: parking_lot::RwLockWriteGuard<'a, T>,
        me: u64,
        at: &'static Location<'static>,
    ) -> WriteGuard<'a, T> {
        self.head.taken(me, at);
        WriteGuard { inner, head: &self.head }
    }

    #[cold]
    fn read_slow(&self, me: u64, at: &'static Location<'static>) -> ReadGuard<'_, T> {
        let inner = self.slow(
            Access::Read,
            (me, at),
            |limit| self.inner.try_read_for(limit),
            || self.inner.read(),
        );
        self.read_guard(inner, me, at)
    }

    #[cold]
    fn write_slow(&self, me: u64, at: &'static Location<'static>) -> WriteGuard<'_, T> {
        let inner = self.slow(
            Access::Write,
            (me, at),
            |limit| self.inner.try_write_for(limit),
            || self.inner.write(),
        );
        self.write_guard(inner, me, at)
    }

    /// Waits until `take` has what it wants, for ever: in debug builds for so long by `within` that a long wait is told.
    fn slow<G>(
        &self,
        access: Access,
        (me, at): Caller,
        within: impl Fn(Duration) -> Option<G>,
        take: impl Fn() -> G,
    ) -> G {
        if self.head.held_by_self(me) {
            let name = self.head.place.name;
            match checks::relocked(&self.head, me, access, at) {
                Some(report) => panic!("{report}"),
                None => panic!("lock `{name}` is asked for at {at} by who keeps itself out of it"),
            }
        }
        let waiting = self.head.wait(me, access, Patience::Endless);
        tasks::blocked(access.words(), self.head.name(), || {
            let limit = if checks::ON { checks::long_wait() } else { None };
            let Some(limit) = limit else { return take() };
            loop {
                if let Some(inner) = within(limit) {
                    return inner;
                }
                if checks::waited(&self.head, me, access, at, waiting.since) {
                    return take();
                }
            }
        })
    }

    /// What `take` gives at once, or within `limit`.
    fn within<G>(
        &self,
        access: Access,
        (me, at): Caller,
        limit: Duration,
        take: impl Fn(Duration) -> Option<G>,
    ) -> Result<G, LockError> {
        if let Some(inner) = take(Duration::ZERO) {
            return Ok(inner);
        }
        if self.head.held_by_self(me) {
            checks::relocked(&self.head, me, access, at);
            return Err(LockError::Relocked);
        }
        let waiting = self.head.wait(me, access, Patience::Deadline);
        let what = waits(access, Patience::Deadline);
        let inner = tasks::blocked(what, self.head.name(), || take(limit));
        drop(waiting);
        inner.ok_or(LockError::TimedOut)
    }
}

/// Who calls, and where.
type Caller = (u64, &'static Location<'static>);

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock")
            .field("name", &self.head.place.name)
            .field("made_at", &format_args!("{}", self.head.place.made_at))
            .field("held", &self.inner.is_locked())
            .field("written", &self.inner.is_locked_exclusive())
            .finish_non_exhaustive()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Before `inner` drops: until then this is among those a writer waits for.
        self.head.read(&self.reader);
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Before `inner` drops, and so before anyone else can have the lock.
        self.head.released();
    }
}

shows_its_value!(ReadGuard);

shows_its_value!(WriteGuard);
