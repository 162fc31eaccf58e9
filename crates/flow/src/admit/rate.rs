//! How much per second: a token bucket, exact in integers.
//!
//! Owns the level of the bucket and the line of those who wait. It starts full, refills with time up to its burst, and
//! never lends: tokens are taken at the moment they are granted, so a wait that is dropped has taken nothing that it would
//! have to return, and the next in line moves up. Waiters are served in order, so a large one is not starved.
//!
//! The level counts in tokens times nanoseconds of the quota's period. In this unit a nanosecond refills exactly the
//! quota's number of tokens, so three per second are three per second for ever, with no fraction lost.
//!
//! The `governor` crate is not used beneath: its waits race for the bucket instead of standing in line, its refill is
//! rounded to whole nanoseconds per token, and its clock is another source of time than [`crate::clock`].
//!
//! # Choosing a bound
//! The quota is what the other side allows, less what others use of it. The burst is what it bears at once: the quota of a
//! second or less. Waiters are bounded by the callers.
//!
//! # Cancel safety
//! [`Rate::acquire`] may be dropped at any time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Sleep;

use crate::clock::{self, Instant};
use crate::tasks::{self, Name};
use crate::wait::WaitList;

/// So many tokens per period, and at most so many at once. How to choose: [module](self#choosing-a-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tokens that come in each period. With zero nothing ever comes after the burst.
    pub tokens: u32,
    /// The period; zero counts as a nanosecond.
    pub per: Duration,
    /// The most the bucket holds: what may be taken at once after a rest.
    pub burst: u32,
}

impl Quota {
    /// `tokens` per second, with a burst of as many.
    #[must_use]
    pub const fn per_second(tokens: u32) -> Self {
        Self { tokens, per: Duration::from_secs(1), burst: tokens }
    }

    fn period(self) -> u128 {
        self.per.as_nanos().max(1)
    }
}

/// The bucket alone, without a clock and without waiters: every step is handed the time.
#[derive(Clone, Debug)]
pub struct Bucket {
    quota: Quota,
    /// In tokens times nanoseconds of the period. Below `burst * period`, so at most 32 bits more than a duration has.
    level: u128,
    at: Instant,
}

/// More tokens than the bucket will ever hold: a retry makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverEnough;

impl fmt::Display for NeverEnough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more tokens than the bucket will ever hold")
    }
}

impl std::error::Error for NeverEnough {}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(quota: Quota, now: Instant) -> Self {
        Self { quota, level: u128::from(quota.burst) * quota.period(), at: now }
    }

    /// Takes `tokens`, or says how long to wait until they will be there if nobody else takes any.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forebay_flow::admit::rate::{Bucket, NeverEnough, Quota};
    /// let now = forebay_flow::clock::now();
    /// let mut bucket = Bucket::full(Quota { burst: 2, ..Quota::per_second(3) }, now);
    /// assert_eq!(bucket.take(now, 2), Ok(None));
    /// assert_eq!(bucket.take(now, 1), Ok(Some(Duration::from_nanos(333_333_334))));
    /// assert_eq!(bucket.take(now, 3), Err(NeverEnough));
    /// ```
    ///
    /// # Errors
    /// [`NeverEnough`] when no wait would do.
    pub fn take(&mut self, now: Instant, tokens: u32) -> Result<Option<Duration>, NeverEnough> {
        self.refill(now);
        let need = u128::from(tokens) * self.quota.period();
        if let Some(level) = self.level.checked_sub(need) {
            self.level = level;
            return Ok(None);
        }
        if tokens > self.quota.burst || self.quota.tokens == 0 {
            return Err(NeverEnough);
        }
        let nanos = (need - self.level).div_ceil(u128::from(self.quota.tokens));
        Ok(Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    /// Whole tokens there now.
    #[must_use]
    pub fn available(&mut self, now: Instant) -> u32 {
        self.refill(now);
        u32::try_from(self.level / self.quota.period()).unwrap_or(u32::MAX)
    }

    /// A time before the last one adds nothing and takes nothing.
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        let cap = u128::from(self.quota.burst) * self.quota.period();
        let more = elapsed.saturating_mul(u128::from(self.quota.tokens));
        self.level = self.level.saturating_add(more).min(cap);
    }
}

/// A token bucket with waiters. Cloning shares it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
/// use forebay_flow::admit::rate::{Quota, Rate};
/// use forebay_flow::{Ctx, Stopped, clock};
/// let (app, rate) = (Ctx::root("app"), Rate::new("mails", Quota::per_second(2)));
/// let began = clock::now();
/// for _ in 0..4 {
///     rate.acquire(1).await.unwrap(); // two at once, then one every half second
/// }
/// assert_eq!(clock::now() - began, Duration::from_secs(1));
/// let soon = app.with_deadline(clock::now() + Duration::from_millis(100)); // whose patience ends earlier
/// assert_eq!(soon.run(rate.acquire(1)).await, Err(Stopped::DeadlineExceeded));
/// # }
/// ```
#[derive(Clone)]
pub struct Rate {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    state: Mutex<State>,
}

struct State {
    bucket: Bucket,
    /// Everyone who waits; only the first has a timer.
    line: WaitList,
}

impl Rate {
    /// A full bucket of `quota`.
    #[must_use]
    pub fn new(name: impl Into<Name>, quota: Quota) -> Self {
        let state = State { bucket: Bucket::full(quota, clock::now()), line: WaitList::default() };
        let name = Arc::from(name.into().as_ref());
        Self { inner: Arc::new(Inner { name, state: Mutex::new(state) }) }
    }

    /// Takes `tokens` if they are there and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, tokens: u32) -> bool {
        let mut state = self.inner.state.lock();
        state.line.is_empty() && state.bucket.take(clock::now(), tokens) == Ok(None)
    }

    /// Waits in line until `tokens` are there, and takes them. It waits without limit: run it in a [`Ctx`](crate::Ctx) with a
    /// deadline where somebody's patience ends.
    ///
    /// # Errors
    /// [`NeverEnough`] at once when they are more than the burst.
    ///
    /// # Cancel safety
    /// Tokens are taken only when this returns; a dropped wait leaves the bucket and the line as if it had not come.
    ///
    /// # Panics
    /// When it has to wait outside of a Tokio runtime with a timer.
    pub async fn acquire(&self, tokens: u32) -> Result<(), NeverEnough> {
        Acquire { inner: &self.inner, tokens, ticket: None, timer: None }.await
    }

    /// Whole tokens there now.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.inner.state.lock().bucket.available(clock::now())
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.inner.state.lock().line.len()
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate")
            .field("name", &self.inner.name)
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

/// Wakes the first in line without the lock, so that it sets its timer.
fn wake_first(state: MutexGuard<'_, State>) {
    let first = state.line.first_waker();
    drop(state);
    if let Some(first) = first {
        first.wake();
    }
}

struct Acquire<'a> {
    inner: &'a Inner,
    tokens: u32,
    ticket: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Future for Acquire<'_> {
    type Output = Result<(), NeverEnough>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.inner;
        loop {
            let mut state = inner.state.lock();
            let ticket = match self.ticket {
                Some(ticket) => {
                    state.line.still_waits(ticket, cx.waker());
                    ticket
                }
                None if self.tokens > state.bucket.quota.burst => {
                    return Poll::Ready(Err(NeverEnough));
                }
                None => {
                    let ticket = state.line.join(u64::from(self.tokens), cx.waker().clone());
                    self.ticket = Some(ticket);
                    ticket
                }
            };
            let first = state.line.first_ticket() == Some(ticket);
            let now = clock::now();
            let wait = if first { state.bucket.take(now, self.tokens) } else { Ok(None) };
            if !first {
                drop(state);
                tasks::note_wait("rate", &inner.name);
                return Poll::Pending;
            }
            match wait {
                Ok(None) | Err(NeverEnough) => {
                    state.line.leave(ticket);
                    self.ticket = None;
                    wake_first(state);
                    return Poll::Ready(wait.map(drop));
                }
                Ok(Some(wait)) => {
                    drop(state);
                    let until = now + wait;
                    let timer = match &mut self.timer {
                        Some(timer) => {
                            timer.as_mut().reset(until);
                            timer
                        }
                        none => none.insert(Box::pin(tokio::time::sleep_until(until))),
                    };
                    if timer.as_mut().poll(cx).is_pending() {
                        tasks::note_wait("rate", &inner.name);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.inner.state.lock();
        state.line.leave(ticket);
        wake_first(state);
    }
}
