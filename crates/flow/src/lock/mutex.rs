//! The lock whose guard may be held across an await.
//!
//! Owns the value and the line of waiters (see [`super::core`]); what is known of it lives in its [`Head`]. It never
//! spins, and nobody who waits is passed without end.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::core::Core;
use super::holders::Access;
use super::place::{FREE, Head, Kind};
use super::waiting::{Asking, owner};
use super::{LockError, Patience};
use crate::clock::Instant;

/// For so long one in line lets itself be passed. Longer than a switch of tasks takes, shorter than anybody notices.
const PATIENCE: Duration = Duration::from_micros(500);

/// A mutual exclusion whose guard may be held across an await.
///
/// Those who wait are served in the order they came. A task that runs and finds the lock free may pass them: to hand it from
/// one to the next would take a switch of tasks for each turn. But only some times: when 32 have passed the first in line
/// since it was woken, or when that one finds itself passed and has waited for half a millisecond, the lock is kept for it.
///
/// The value is kept in a box of its own, so that any size of it is as cheap to lock.
///
/// # Choosing a lock
/// For memory that is touched and let go, [`sync::Mutex`](super::sync::Mutex) is cheaper. This one is for what takes an
/// await: a connection, a file, a step that must not be done twice at once. A [`crate::queue`] to one task that owns the
/// value is often simpler than either.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::lock::Mutex;
/// let connection = Mutex::new("connection", String::new());
/// let mut guard = connection.lock().await;
/// guard.push_str("hello");
/// tokio::task::yield_now().await; // held meanwhile
/// assert!(connection.try_lock().is_none());
/// drop(guard);
/// assert_eq!(*connection.lock().await, "hello");
/// # }
/// ```
pub struct Mutex<T> {
    core: Core<T>,
    head: Arc<Head>,
}

/// The right to the value. Dropping it lets the next in line have it. A guard that is forgotten keeps it for ever.
#[must_use = "dropping the guard lets the lock go"]
pub struct Guard<'a, T> {
    /// Gone only while it drops.
    value: Option<Box<T>>,
    lock: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// A free lock. Its figures in [`snapshot`](super::snapshot) are kept under `name` and the place of this call.
    #[must_use]
    #[track_caller]
    pub fn new(name: &'static str, value: T) -> Self {
        Self { core: Core::new(value), head: Head::new(name, Kind::Mutex, Location::caller()) }
    }

    /// Waits for the lock. It waits without limit: where the holder may be stuck, prefer
    /// [`Mutex::lock_within`].
    ///
    /// A task that waits for a lock of which it holds the guard waits for ever, unless the guard is in another branch of
    /// a `join!`. A debug build tells of it once the wait is long ([`Checks::long_wait`](super::Checks::long_wait)), and
    /// [`crate::deadlock`] does in every build; [`Mutex::lock_within`] gives it back as an error.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up; a turn it had not seen yet goes to the next.
    ///
    /// # Panics
    /// In debug builds, when it must wait inside a Tokio runtime that has no timer.
    #[track_caller]
    pub fn lock(&self) -> Lock<'_, T> {
        self.lock_at(Patience::Endless, Location::caller())
    }

    fn lock_at(&self, patience: Patience, at: &'static Location<'static>) -> Lock<'_, T> {
        Lock { lock: self, asking: Asking::new(&self.head, Access::Lock, patience, at) }
    }

    /// As [`Mutex::lock`], until `deadline`. A free lock is taken even when that has passed.
    ///
    /// # Errors
    /// [`LockError::TimedOut`], or [`LockError::Relocked`] when the calling task holds the lock itself.
    ///
    /// # Cancel safety
    /// As [`Mutex::lock`].
    ///
    /// # Panics
    /// When it must wait outside of a Tokio runtime with a timer.
    #[track_caller]
    pub fn lock_within(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Guard<'_, T>, LockError>> {
        let mut lock = self.lock_at(Patience::Deadline, Location::caller());
        async move {
            if let Some(guard) = lock.try_first() {
                return Ok(guard);
            }
            match tokio::time::timeout_at(deadline, &mut lock).await {
                Ok(guard) => Ok(guard),
                Err(_) => Err(lock.asking.too_late()),
            }
        }
    }

    /// The guard, if the lock is free and not kept for one who has waited for long.
    #[must_use]
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let value = self.core.take()?;
        Some(self.guard(value, Location::caller()))
    }

    /// The value. `None` when a guard was forgotten, and the value with it.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        self.core.into_value()
    }

    #[inline]
    fn guard(&self, value: Box<T>, at: &'static Location<'static>) -> Guard<'_, T> {
        self.head.taken(owner(), at);
        Guard { value: Some(value), lock: self }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("name", &self.head.place.name)
            .field("made_at", &format_args!("{}", self.head.place.made_at))
            .field("held", &(self.head.holder() != FREE))
            .finish_non_exhaustive()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.value {
            Some(value) => value,
            None => unreachable!("a guard has the value until it drops"),
        }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(value) => value,
            None => unreachable!("a guard has the value until it drops"),
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.lock.head.released();
            self.lock.core.put_back(value);
        }
    }
}

shows_its_value!(Guard);

/// A wait for a [`Mutex`], as a future.
#[must_use = "a lock is not taken until this is awaited"]
pub struct Lock<'a, T> {
    lock: &'a Mutex<T>,
    asking: Asking<'a>,
}

impl<'a, T> Lock<'a, T> {
    /// The guard, when this has not waited yet and need not.
    #[inline]
    fn try_first(&mut self) -> Option<Guard<'a, T>> {
        if !self.asking.is_first() {
            return None;
        }
        let value = self.lock.core.take()?;
        Some(self.lock.guard(value, self.asking.at))
    }

    #[cold]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Guard<'a, T>> {
        let core = &self.lock.core;
        let value = match self.asking.ticket() {
            Some(ticket) => core.poll(ticket, cx.waker(), || self.asking.has_waited(PATIENCE)),
            None => match core.take_or_join(cx.waker()) {
                Ok(value) => Some(value),
                Err(ticket) => {
                    self.asking.joined(ticket);
                    None
                }
            },
        };
        match value {
            Some(value) => {
                self.asking.over();
                Poll::Ready(self.lock.guard(value, self.asking.at))
            }
            None => {
                self.asking.pends(cx);
                Poll::Pending
            }
        }
    }
}

impl<'a, T> Future for Lock<'a, T> {
    type Output = Guard<'a, T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.try_first() {
            Some(guard) => Poll::Ready(guard),
            None => this.poll_wait(cx),
        }
    }
}

impl<T> Drop for Lock<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.asking.gone() {
            self.lock.core.leave(ticket);
        }
    }
}

impl<T> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("lock", &self.lock.head.place.name)
            .field("waits", &self.asking.ticket().is_some())
            .finish()
    }
}
