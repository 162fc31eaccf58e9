//! Whether the other side is well: closed, open, half-open.
//!
//! Owns the outcomes of the last while, in buckets that slide with time, and the state. It refuses at once and never
//! waits. Every decision is one synchronous step that is handed the time; every change of state is a [`Transition`].
//!
//! ```text
//!              enough samples, too many failed; or the peer says "retry after"
//!   closed ───────────────────────────────────────────────────────────────────► open
//!     ▲                                                                        │   ▲
//!     │ every probe succeeded                          its time is over        │   │ a probe failed
//!     └──────────────────────────────── half-open ◄────────────────────────────┘   │
//!                                           └──────────────────────────────────────┘
//! ```
//!
//! A call that began before the last change of state has no say in the new one, except for what the peer asked for: a
//! "retry after" holds whenever it comes.
//!
//! # Choosing a bound
//! A window of some tens of calls at the usual rate, `min_samples` large enough that two failures at night open nothing,
//! `open_for` as long as a restart of the peer takes, few probes.
//!
//! # Cancel safety
//! A [`Pass`] that is dropped unreported counts as neither; a probe's place is free again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Instant};
use crate::tasks::Name;

/// When to open, for how long, and how to close again. How to choose: [module](self#choosing-a-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How far back outcomes count.
    pub window: Duration,
    /// In how many buckets the window slides; zero counts as one.
    pub buckets: u32,
    /// Fewer outcomes than this in the window never open it.
    pub min_samples: u64,
    /// The share of failures, in percent of the outcomes, from which on it opens.
    pub failure_percent: u32,
    /// How long it stays open, unless the peer says otherwise.
    pub open_for: Duration,
    /// How many calls are let through to see whether the peer is well; zero counts as one.
    pub probes: u32,
    /// The longest "retry after" that is honoured; a longer one counts as this.
    pub max_retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            buckets: 10,
            min_samples: 20,
            failure_percent: 50,
            open_for: Duration::from_secs(5),
            probes: 3,
            max_retry_after: Duration::from_secs(300),
        }
    }
}

/// The three states, in the picture of the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass, outcomes are counted.
    Closed,
    /// Calls are refused.
    Open,
    /// As many calls pass as there are probes.
    HalfOpen,
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// So many of so many calls failed.
    Ratio {
        /// Failures in the window.
        failures: u64,
        /// Outcomes in the window.
        samples: u64,
    },
    /// The peer asked for a pause.
    RetryAfter(Duration),
    /// The time of being open is over.
    Elapsed,
    /// A probe failed.
    ProbeFailed,
    /// Every probe succeeded.
    ProbesPassed,
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// Counts the changes of this breaker, from 1: hooks of concurrent changes may run in another order.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// The call was refused: the breaker is open, or every probe is out. A later retry may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// After how long a call may pass; `None` while the probes decide.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Tripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(after) => write!(f, "the breaker is open; retry after {after:?}"),
            None => f.write_str("the breaker is half-open and its probes are out"),
        }
    }
}

impl std::error::Error for Tripped {}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Success,
    Failure,
    RetryAfter(Duration),
    Abandoned,
}

#[derive(Debug)]
enum Stage {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { admitted: u32, succeeded: u32 },
}

impl Stage {
    fn kind(&self) -> State {
        match self {
            Self::Closed(_) => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

/// The state machine, without clock, lock or hook.
#[derive(Debug)]
struct Machine {
    config: Config,
    state: Stage,
    /// How many changes there were: a pass of an earlier one has no say.
    changes: u64,
}

impl Machine {
    fn new(config: Config, now: Instant) -> Self {
        Self { config, state: Stage::Closed(Window::new(&config, now)), changes: 0 }
    }

    fn change(&mut self, now: Instant, to: Stage, reason: Reason) -> Transition {
        self.changes += 1;
        let from = std::mem::replace(&mut self.state, to).kind();
        Transition { number: self.changes, at: now, from, to: self.state.kind(), reason }
    }

    /// A call wants to pass: the number of the state it passes in, or how long to wait.
    fn admit(&mut self, now: Instant) -> (Result<u64, Tripped>, Option<Transition>) {
        let mut change = None;
        if let Stage::Open { until } = self.state {
            if now < until {
                return (Err(Tripped { retry_after: Some(until - now) }), None);
            }
            let half = Stage::HalfOpen { admitted: 0, succeeded: 0 };
            change = Some(self.change(now, half, Reason::Elapsed));
        }
        if let Stage::HalfOpen { admitted, .. } = &mut self.state {
            if *admitted == self.config.probes.max(1) {
                return (Err(Tripped { retry_after: None }), change);
            }
            *admitted += 1;
        }
        (Ok(self.changes), change)
    }

    /// A call that passed in state number `pass` ended.
    fn report(&mut self, now: Instant, pass: u64, outcome: Outcome) -> Option<Transition> {
        if let Outcome::RetryAfter(after) = outcome {
            let after = after.min(self.config.max_retry_after);
            let asked = now + after;
            if let Stage::Open { until } = &mut self.state {
                *until = asked.max(*until);
                return None;
            }
            return Some(self.change(now, Stage::Open { until: asked }, Reason::RetryAfter(after)));
        }
        if pass != self.changes {
            return None;
        }
        let config = self.config;
        match (&mut self.state, outcome) {
            (Stage::Closed(window), Outcome::Success | Outcome::Failure) => {
                window.record(now, matches!(outcome, Outcome::Failure));
                let (failures, samples) = window.sums();
                let enough = samples >= config.min_samples && failures > 0;
                let bad = failures.saturating_mul(100)
                    >= samples.saturating_mul(u64::from(config.failure_percent));
                (enough && bad).then(|| {
                    let until = now + config.open_for;
                    self.change(now, Stage::Open { until }, Reason::Ratio { failures, samples })
                })
            }
            (Stage::HalfOpen { succeeded, .. }, Outcome::Success) => {
                *succeeded += 1;
                (*succeeded == config.probes.max(1)).then(|| {
                    let closed = Stage::Closed(Window::new(&config, now));
                    self.change(now, closed, Reason::ProbesPassed)
                })
            }
            (Stage::HalfOpen { .. }, Outcome::Failure) => {
                let until = now + config.open_for;
                Some(self.change(now, Stage::Open { until }, Reason::ProbeFailed))
            }
            (Stage::HalfOpen { admitted, .. }, Outcome::Abandoned) => {
                *admitted -= 1;
                None
            }
            _ => None,
        }
    }
}

/// Outcomes in buckets; what is older than the window has been emptied.
#[derive(Debug)]
struct Window {
    began: Instant,
    bucket: Duration,
    /// The number of the bucket that was written last, counted from `began`.
    newest: u64,
    /// Successes and failures.
    buckets: Box<[(u64, u64)]>,
}

impl Window {
    fn new(config: &Config, now: Instant) -> Self {
        let count = config.buckets.max(1);
        let bucket = (config.window / count).max(Duration::from_nanos(1));
        Self { began: now, bucket, newest: 0, buckets: vec![(0, 0); count as usize].into() }
    }

    fn record(&mut self, now: Instant, failed: bool) {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        let number = u64::try_from(elapsed / self.bucket.as_nanos()).unwrap_or(u64::MAX);
        let count = self.buckets.len() as u64;
        let number = number.max(self.newest);
        for stale in self.newest + 1..=number.min(self.newest.saturating_add(count)) {
            self.buckets[(stale % count) as usize] = (0, 0);
        }
        self.newest = number;
        let (successes, failures) = &mut self.buckets[(number % count) as usize];
        *if failed { failures } else { successes } += 1;
    }

    /// Failures, and outcomes in all.
    fn sums(&self) -> (u64, u64) {
        let failures = self.buckets.iter().map(|(_, failures)| failures).sum();
        let successes: u64 = self.buckets.iter().map(|(successes, _)| successes).sum();
        (failures, failures + successes)
    }
}

type Hook = dyn Fn(&Transition) + Send + Sync;

/// A breaker before one peer. Cloning shares it.
///
/// ```
/// use forebay_flow::admit::breaker::{Breaker, Config, State};
/// let config = Config { min_samples: 2, ..Config::default() };
/// let breaker = Breaker::new("billing", config).on_transition(|change| println!("{change:?}"));
/// for _ in 0..2 {
///     breaker.admit().unwrap().failure();
/// }
/// assert_eq!(breaker.state(), State::Open);
/// assert!(breaker.admit().unwrap_err().retry_after.is_some());
/// ```
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

struct Inner {
    name: Name,
    machine: Mutex<Machine>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Inner {
    fn tell(&self, change: Option<Transition>) {
        let Some(change) = change else { return };
        tracing::info!(breaker = %self.name, from = ?change.from, to = ?change.to, reason = ?change.reason, "breaker changed");
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook(&change);
        }
    }

    fn report(&self, pass: u64, outcome: Outcome) {
        let change = self.machine.lock().report(clock::now(), pass, outcome);
        self.tell(change);
    }
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(name: impl Into<Name>, config: Config) -> Self {
        let machine = Mutex::new(Machine::new(config, clock::now()));
        Self { inner: Arc::new(Inner { name: name.into(), machine, hook: Mutex::new(None) }) }
    }

    /// Calls `hook` after each change of state, on the thread that caused it and without a lock. There is one hook for all
    /// clones: it replaces an earlier one.
    #[must_use]
    pub fn on_transition(self, hook: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        *self.inner.hook.lock() = Some(Arc::new(hook));
        self
    }

    /// Asks to pass. The state changes from open to half-open here, when the first call comes after its time.
    ///
    /// # Errors
    /// [`Tripped`] says after how long to ask again.
    pub fn admit(&self) -> Result<Pass, Tripped> {
        let (verdict, change) = self.inner.machine.lock().admit(clock::now());
        self.inner.tell(change);
        verdict.map(|number| Pass { inner: Some(Arc::clone(&self.inner)), number })
    }

    /// Runs `call` if it may pass, and counts an error as a failure. For a peer's "retry after" use [`Breaker::admit`].
    ///
    /// # Errors
    /// [`CallError`] says whether it was refused or failed.
    ///
    /// # Cancel safety
    /// A call that is dropped counts as neither.
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let pass = self.admit().map_err(CallError::Tripped)?;
        match call.await {
            Ok(value) => {
                pass.success();
                Ok(value)
            }
            Err(error) => {
                pass.failure();
                Err(CallError::Failed(error))
            }
        }
    }

    /// The state now. An open one whose time is over is open until somebody asks to pass.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.machine.lock().state.kind()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.inner.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Why [`Breaker::call`] has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// It was not made.
    Tripped(Tripped),
    /// It was made and failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tripped(tripped) => tripped.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// It reads as what it holds, so its source is that one's.
impl<E: std::error::Error> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tripped(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

/// The right to make one call. Say how it ended; dropped unsaid it counts as neither.
#[must_use = "say how the call ended"]
pub struct Pass {
    inner: Option<Arc<Inner>>,
    number: u64,
}

impl Pass {
    /// The peer answered as it should.
    pub fn success(self) {
        self.end(Outcome::Success);
    }

    /// It did not.
    pub fn failure(self) {
        self.end(Outcome::Failure);
    }

    /// It asked to be left alone for `after`: the breaker opens for so long, at most for `max_retry_after`.
    pub fn retry_after(self, after: Duration) {
        self.end(Outcome::RetryAfter(after));
    }

    fn end(mut self, outcome: Outcome) {
        if let Some(inner) = self.inner.take() {
            inner.report(self.number, outcome);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.report(self.number, Outcome::Abandoned);
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("number", &self.number).finish_non_exhaustive()
    }
}
