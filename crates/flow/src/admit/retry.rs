//! Trying again: with full jitter, and within a budget that all callers of a peer share.
//!
//! Owns the balance of the budget and the seed of the jitter. It never retries what its judge calls final, never past the
//! deadline of the context, and never beyond the budget's share of requests: when everything fails, the load on the peer
//! grows by that share and no more.
//!
//! Full jitter draws each pause from zero to a ceiling that doubles: callers that failed together come back apart.
//!
//! The `backon` crate is not used beneath: it knows no budget and no context, and what would be left of it is the line
//! that doubles a ceiling.
//!
//! # Choosing a bound
//! A budget of 10 percent with a reserve of a few retries for quiet hours. Three attempts. A `base` of about the peer's
//! usual answer time, a `cap` below the callers' deadline.
//!
//! # Cancel safety
//! [`Retry::run`] may be dropped at any time; a retry that was paid for and not made is not returned, to the safe side.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock;
use crate::ctx::{Ctx, Stopped};

/// How often and how soon. How to choose: [module](self#choosing-a-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The ceiling of the first pause; it doubles with each failure.
    pub base: Duration,
    /// The highest ceiling, and the longest pause that a peer may ask for.
    pub cap: Duration,
    /// Attempts in all, the first included; zero counts as one.
    pub attempts: u32,
}

impl Config {
    /// The ceiling of the pause after so many failures in a row (from 1): the draw goes from zero to this.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        self.base.saturating_mul(1 << failures.saturating_sub(1).min(31)).min(self.cap)
    }
}

/// The source of chance; the same seed draws the same pauses.
#[derive(Clone, Debug)]
pub struct Jitter {
    rng: fastrand::Rng,
}

impl Jitter {
    /// A seed of its own each time.
    #[must_use]
    pub fn new() -> Self {
        Self { rng: fastrand::Rng::new() }
    }

    /// For tests and simulations.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed) }
    }

    /// A pause from zero to `ceiling`, both included, each as likely (in nanoseconds; at most 584 years).
    pub fn up_to(&mut self, ceiling: Duration) -> Duration {
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.u64(0..=nanos))
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self::new()
    }
}

/// How many retries there may be for so many requests: one budget for all callers of a peer. Cloning shares it.
///
/// [`Retry`] keeps its books by itself; a loop of one's own says [`Budget::request`] once a request and asks
/// [`Budget::try_retry`] before each further attempt.
///
/// ```
/// use forebay_flow::admit::retry::Budget;
/// let budget = Budget::new(10, 0);
/// for _ in 0..20 {
///     budget.request();
/// }
/// assert!(budget.try_retry() && budget.try_retry());
/// assert!(!budget.try_retry()); // 10 percent of 20
/// ```
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Balance>,
}

struct Balance {
    percent: u64,
    /// In hundredths of a retry.
    cap: u64,
    hundredths: Mutex<u64>,
}

/// What one retry costs, in what a request earns per percent.
const RETRY: u64 = 100;

impl Budget {
    /// `percent` of the requests may be retries, and `reserve` more once. Unused ones are kept, up to the reserve and
    /// those of the last thousand requests, so that a quiet day does not pay for a storm.
    #[must_use]
    pub fn new(percent: u32, reserve: u32) -> Self {
        let (percent, reserve) = (u64::from(percent), u64::from(reserve) * RETRY);
        let cap = reserve + percent * 1000;
        Self { inner: Arc::new(Balance { percent, cap, hundredths: Mutex::new(reserve) }) }
    }

    /// A request was made for the first time: it earns its share of a retry.
    pub fn request(&self) {
        let mut hundredths = self.inner.hundredths.lock();
        *hundredths = (*hundredths + self.inner.percent).min(self.inner.cap);
    }

    /// Pays for one retry, if the balance allows one.
    #[must_use]
    pub fn try_retry(&self) -> bool {
        let mut hundredths = self.inner.hundredths.lock();
        let rest = hundredths.checked_sub(RETRY);
        *hundredths = rest.unwrap_or(*hundredths);
        rest.is_some()
    }

    /// Whole retries it allows now.
    #[must_use]
    pub fn available(&self) -> u64 {
        *self.inner.hundredths.lock() / RETRY
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("percent", &self.inner.percent)
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

/// What a judge says of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt may succeed.
    Again,
    /// Another attempt may succeed after so long: the peer said so. The jitter is added.
    After(Duration),
    /// No attempt will.
    Final,
}

/// Why there was no further attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The judge called the error final.
    Final,
    /// Every attempt was made.
    Attempts,
    /// The budget is spent.
    Budget,
    /// The pause would have passed the context's deadline, or the peer asked for more than the cap.
    TooLong,
    /// The context ended, before or meanwhile.
    Stopped(Stopped),
}

/// The last error, and why there was no further attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaveUp<E> {
    /// The error of the last attempt that ended; none did when the context ended first.
    pub error: Option<E>,
    /// Attempts begun.
    pub attempts: u32,
    /// Why not one more.
    pub reason: GiveUpReason,
}

impl<E: fmt::Display> fmt::Display for GaveUp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match &self.reason {
            GiveUpReason::Final => "it is final",
            GiveUpReason::Attempts => "every attempt failed",
            GiveUpReason::Budget => "the retry budget is spent",
            GiveUpReason::TooLong => "the pause would have been too long",
            GiveUpReason::Stopped(_) => "the context ended",
        };
        write!(f, "gave up after {} attempts: {reason}", self.attempts)?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for GaveUp<E> {}

/// The rule for calls of one peer: its settings, its budget, its jitter.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
/// use forebay_flow::Ctx;
/// use forebay_flow::admit::retry::{Budget, Config, Jitter, Retry, Verdict};
/// let config = Config {
///     base: Duration::from_millis(50),
///     cap: Duration::from_secs(1),
///     attempts: 3,
/// };
/// let retry = Retry::new(config, Budget::new(10, 5), Jitter::new());
/// let answer = retry
///     .run(
///         &Ctx::root("app"),
///         |attempt| async move { if attempt < 3 { Err("busy") } else { Ok(attempt) } },
///         |_error| Verdict::Again,
///     )
///     .await;
/// assert_eq!(answer, Ok(3));
/// # }
/// ```
#[derive(Debug)]
pub struct Retry {
    config: Config,
    budget: Budget,
    jitter: Mutex<Jitter>,
}

impl Retry {
    /// Calls within `budget`, which other rules for the same peer share.
    #[must_use]
    pub fn new(config: Config, budget: Budget, jitter: Jitter) -> Self {
        Self { config, budget, jitter: Mutex::new(jitter) }
    }

    /// Makes the first attempt and, as long as `judge`, budget and context allow, further ones. `attempt` gets its number,
    /// from 1; it must be one that may be made twice.
    ///
    /// # Errors
    /// [`GaveUp`] with the last error and the reason.
    ///
    /// # Cancel safety
    /// That of `attempt`: the one under way is dropped. A retry that was paid for and not made is not returned.
    ///
    /// # Panics
    /// When it has to pause outside of a Tokio runtime with a timer.
    pub async fn run<T, E, F>(
        &self,
        ctx: &Ctx,
        mut attempt: impl FnMut(u32) -> F,
        judge: impl Fn(&E) -> Verdict,
    ) -> Result<T, GaveUp<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.budget.request();
        let mut last = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match ctx.run(attempt(attempts)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(stopped) => {
                    let reason = GiveUpReason::Stopped(stopped);
                    return Err(GaveUp { error: last, attempts, reason });
                }
            };
            let pause = match self.next(ctx, attempts, judge(&error)) {
                Ok(pause) => pause,
                Err(reason) => return Err(GaveUp { error: Some(error), attempts, reason }),
            };
            if let Err(stopped) = ctx.run(tokio::time::sleep(pause)).await {
                let reason = GiveUpReason::Stopped(stopped);
                return Err(GaveUp { error: Some(error), attempts, reason });
            }
            last = Some(error);
        }
    }

    /// The pause before the next attempt, paid for; or why there is none.
    fn next(&self, ctx: &Ctx, failures: u32, verdict: Verdict) -> Result<Duration, GiveUpReason> {
        let asked = match verdict {
            Verdict::Final => return Err(GiveUpReason::Final),
            Verdict::Again => Duration::ZERO,
            Verdict::After(asked) => asked,
        };
        if failures >= self.config.attempts.max(1) {
            return Err(GiveUpReason::Attempts);
        }
        let jitter = self.jitter.lock().up_to(self.config.ceiling(failures));
        let pause = asked.saturating_add(jitter);
        let too_late = ctx
            .deadline()
            .is_some_and(|deadline| deadline.saturating_duration_since(clock::now()) <= pause);
        if asked > self.config.cap || too_late {
            return Err(GiveUpReason::TooLong);
        }
        if !self.budget.try_retry() {
            return Err(GiveUpReason::Budget);
        }
        Ok(pause)
    }
}
