//! The lock that many may read at once, and whose guards may be held across an await.
//!
//! Owns the value and the line of waiters (see [`super::rwcore`]); what is known of it lives in its [`Head`]. It never
//! spins, and it never lets a newcomer pass one who waits.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::holders::Access;
use super::place::{FREE, Head, Kind, Reader};
use super::rwcore::{Core, Got, Shared, Taken};
use super::waiting::{Asking, owner};
use super::{LockError, Patience};
use crate::clock::Instant;

/// A value that many read at once, or one writes; its guards may be held across an await. Readers and writers are served
/// in the order they came: a reader that comes while a writer waits, waits behind it.
///
/// So a task that reads and asks to read again may wait for itself, once a writer came between the two: hand the guard
/// down instead. A debug build tells of it ([`Report::Reread`](super::Report::Reread)), writer or not.
///
/// # Choosing a lock
/// Where readers keep their guards across awaits, and writers are few. Otherwise a [`Mutex`](super::Mutex) costs less, and
/// [`latest`](crate::latest) lets readers have a value without waiting for anybody.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::lock::RwLock;
/// let routes = RwLock::new("routes", vec!["/"]);
/// let (one, two) = (routes.read().await, routes.read().await);
/// assert_eq!((one.len(), two.len()), (1, 1));
/// assert!(routes.try_write().is_none());
/// drop((one, two));
/// routes.write().await.push("/health");
/// assert_eq!(routes.read().await.len(), 2);
/// # }
/// ```
pub struct RwLock<T> {
    core: Core<T>,
    head: Arc<Head>,
}

/// The right to read. Dropping it gives it back. A guard that is forgotten keeps writers out for ever.
#[must_use = "dropping the guard lets the lock go"]
pub struct ReadGuard<'a, T> {
    /// Gone only while it drops.
    value: Option<Shared<T>>,
    lock: &'a RwLock<T>,
    reader: Reader,
}

/// The right to write. Dropping it lets the next in line have the lock. A guard that is forgotten keeps it for ever.
#[must_use = "dropping the guard lets the lock go"]
pub struct WriteGuard<'a, T> {
    /// Gone only while it drops.
    value: Option<Taken<T>>,
    lock: &'a RwLock<T>,
}

impl<T> RwLock<T> {
    /// A free lock. Its figures in [`snapshot`](super::snapshot) are kept under `name` and the place of this call.
    #[must_use]
    #[track_caller]
    pub fn new(name: &'static str, value: T) -> Self {
        Self { core: Core::new(value), head: Head::new(name, Kind::RwLock, Location::caller()) }
    }

    /// Waits until this caller may read. It waits without limit: where a holder may be stuck, prefer
    /// [`RwLock::read_within`].
    ///
    /// A task that waits for a lock of which it holds a guard that keeps it out waits for ever, unless the guard is in
    /// another branch of a `join!`. A debug build tells of it once the wait is long
    /// ([`Checks::long_wait`](super::Checks::long_wait)), and [`crate::deadlock`] does in every build;
    /// [`RwLock::read_within`] gives it back as an error.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up; a turn it had not seen yet goes to the next.
    ///
    /// # Panics
    /// In debug builds, when it must wait inside a Tokio runtime that has no timer.
    #[track_caller]
    pub fn read(&self) -> ReadLock<'_, T> {
        self.read_at(Patience::Endless, Location::caller())
    }

    /// Waits until this caller may write, alone. Otherwise as [`RwLock::read`].
    ///
    /// # Cancel safety
    /// As [`RwLock::read`].
    ///
    /// # Panics
    /// As [`RwLock::read`].
    #[track_caller]
    pub fn write(&self) -> WriteLock<'_, T> {
        self.write_at(Patience::Endless, Location::caller())
    }

    fn read_at(&self, patience: Patience, at: &'static Location<'static>) -> ReadLock<'_, T> {
        ReadLock { lock: self, asking: Asking::new(&self.head, Access::Read, patience, at) }
    }

    fn write_at(&self, patience: Patience, at: &'static Location<'static>) -> WriteLock<'_, T> {
        WriteLock { lock: self, asking: Asking::new(&self.head, Access::Write, patience, at) }
    }

    /// As [`RwLock::read`], until `deadline`. A lock that is free to read is taken even when that has passed.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], or [`LockError::Relocked`] when the calling task holds the lock itself.
    ///
    /// # Cancel safety
    /// As [`RwLock::read`].
    ///
    /// # Panics
    /// When it must wait outside of a Tokio runtime with a timer.
    #[track_caller]
    pub fn read_within(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<ReadGuard<'_, T>, LockError>> {
        let mut read = self.read_at(Patience::Deadline, Location::caller());
        async move {
            if let Some(guard) = read.try_first() {
                return Ok(guard);
            }
            match tokio::time::timeout_at(deadline, &mut read).await {
                Ok(guard) => Ok(guard),
                Err(_) => Err(read.asking.too_late()),
            }
        }
    }

    /// As [`RwLock::write`], until `deadline`. A free lock is taken even when that has passed.
    ///
    /// # Errors
    /// As [`RwLock::read_within`].
    ///
    /// # Cancel safety
    /// As [`RwLock::read`]. Readers that waited behind a writer that gives up are let in.
    ///
    /// # Panics
    /// When it must wait outside of a Tokio runtime with a timer.
    #[track_caller]
    pub fn write_within(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<WriteGuard<'_, T>, LockError>> {
        let mut write = self.write_at(Patience::Deadline, Location::caller());
        async move {
            if let Some(guard) = write.try_first() {
                return Ok(guard);
            }
            match tokio::time::timeout_at(deadline, &mut write).await {
                Ok(guard) => Ok(guard),
                Err(_) => Err(write.asking.too_late()),
            }
        }
    }

    /// The right to read, if no writer has the lock and nobody waits for it.
    #[must_use]
    #[track_caller]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let got = self.core.take(Access::Read)?;
        self.read_guard(got, Location::caller())
    }

    /// The right to write, if the lock is free and nobody waits for it.
    #[must_use]
    #[track_caller]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let got = self.core.take(Access::Write)?;
        self.write_guard(got, Location::caller())
    }

    /// The value. `None` when a writer's guard was forgotten, and the value with it, or a reader's.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        self.core.into_value()
    }

    #[inline]
    fn read_guard(&self, got: Got<T>, at: &'static Location<'static>) -> Option<ReadGuard<'_, T>> {
        let Got::Read(value) = got else { return None };
        let reader = self.head.reads(owner(), at);
        Some(ReadGuard { value: Some(value), lock: self, reader })
    }

    #[inline]
    fn write_guard(
        &self,
        got: Got<T>,
        at: &'static Location<'static>,
    ) -> Option<WriteGuard<'_, T>> {
        let Got::Write(value) = got else { return None };
        self.head.taken(owner(), at);
        Some(WriteGuard { value: Some(value), lock: self })
    }

    /// The value to `asking`, or a place in line.
    #[cold]
    fn poll_wait(&self, asking: &mut Asking<'_>, cx: &mut Context<'_>) -> Option<Got<T>> {
        let access = asking.access;
        let got = match asking.ticket() {
            Some(ticket) => self.core.poll(ticket, access, cx.waker()),
            None => match self.core.take_or_join(access, cx.waker()) {
                Ok(got) => Some(got),
                Err(ticket) => {
                    asking.joined(ticket);
                    None
                }
            },
        };
        match got {
            Some(got) => {
                asking.over();
                Some(got)
            }
            None => {
                asking.pends(cx);
                None
            }
        }
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock")
            .field("name", &self.head.place.name)
            .field("made_at", &format_args!("{}", self.head.place.made_at))
            .field("written", &(self.head.holder() != FREE))
            .finish_non_exhaustive()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self.value.as_deref() {
            Some(Some(value)) => value,
            _ => unreachable!("a reader's guard has the value until it drops"),
        }
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.value {
            Some(taken) => &taken.value,
            None => unreachable!("a writer's guard has the value until it drops"),
        }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(taken) => &mut taken.value,
            None => unreachable!("a writer's guard has the value until it drops"),
        }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.lock.head.read(&self.reader);
            self.lock.core.put_back_shared(value);
        }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(taken) = self.value.take() {
            self.lock.head.released();
            self.lock.core.put_back(taken);
        }
    }
}

shows_its_value!(ReadGuard);

shows_its_value!(WriteGuard);

/// A wait for a [`RwLock`] to read, as a future.
#[must_use = "a lock is not taken until this is awaited"]
pub struct ReadLock<'a, T> {
    lock: &'a RwLock<T>,
    asking: Asking<'a>,
}

/// A wait for a [`RwLock`] to write, as a future.
#[must_use = "a lock is not taken until this is awaited"]
pub struct WriteLock<'a, T> {
    lock: &'a RwLock<T>,
    asking: Asking<'a>,
}

/// What both waits are but for their guard.
macro_rules! wait {
    ($wait:ident, $guard:ident, $make:ident) => {
        impl<'a, T> $wait<'a, T> {
            /// The guard, when this has not waited yet and need not.
            #[inline]
            fn try_first(&mut self) -> Option<$guard<'a, T>> {
                if !self.asking.is_first() {
                    return None;
                }
                let got = self.lock.core.take(self.asking.access)?;
                self.lock.$make(got, self.asking.at)
            }
        }

        impl<'a, T> Future for $wait<'a, T> {
            type Output = $guard<'a, T>;

            #[inline]
            fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                let this = self.get_mut();
                if let Some(guard) = this.try_first() {
                    return Poll::Ready(guard);
                }
                let lock = this.lock;
                let got = lock.poll_wait(&mut this.asking, cx);
                match got.and_then(|got| lock.$make(got, this.asking.at)) {
                    Some(guard) => Poll::Ready(guard),
                    None => Poll::Pending,
                }
            }
        }

        impl<T> Drop for $wait<'_, T> {
            #[inline]
            fn drop(&mut self) {
                if let Some(ticket) = self.asking.gone() {
                    self.lock.core.leave(ticket, self.asking.access);
                }
            }
        }

        impl<T> fmt::Debug for $wait<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($wait))
                    .field("lock", &self.lock.head.place.name)
                    .field("waits", &self.asking.ticket().is_some())
                    .finish()
            }
        }
    };
}

wait!(ReadLock, ReadGuard, read_guard);
wait!(WriteLock, WriteGuard, write_guard);
