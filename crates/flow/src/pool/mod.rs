//! Worker pools on a bounded queue: [`ThreadPool`] on threads of its own for CPU work, [`TaskPool`] on tasks for async work.
//!
//! Owns its workers, its queue and its counts. Every job handed in ends in exactly one count: done, failed, panicked, timed
//! out, cancelled, dropped or abandoned; [`PoolStats`] adds up. It never interrupts a job but at an await, and never lets
//! one job's end, however it ends, take another with it.
//!
//! ```text
//! submit ─► queue (bound) ─► worker ─► counted ─► result
//!    │         └─ dropped while queued: cancelled     └─ dropped while running: finishes, its result is dropped
//!    └─ full: waits (in a line that is bounded, too), is refused, or drops a job and counts it
//! ```
//!
//! Four ways in: [`run`](TaskPool::run) waits for room and result, [`try_run`](TaskPool::try_run) never waits and gives a
//! [`JoinHandle`], [`run_within`](TaskPool::run_within) waits until a deadline, and [`submit`](TaskPool::submit) wants no
//! result.
//!
//! # Choosing a bound
//!
//! Workers: for CPU work on threads as many as cores. For waiting on tasks, by Little's law, jobs a second times seconds a
//! job takes: 2,000 requests a second of 50 ms each keep 100 workers busy. The queue: for threads twice the workers, so
//! that none idles between jobs and none waits long; else what the workers finish within the wait a caller accepts. The
//! line before a full queue: [`Builder::max_waiting`]. Stuck threads: [`Builder::max_stuck`].
//!
//! # Cancel safety
//!
//! A dropped `run` or [`JoinHandle`] cancels a job that is still queued; a running one finishes and its result is dropped.
//! A dropped `submit` has handed the job in or drops it with itself. Nothing is half done, and the counts say which it was.
//!
//! # Panics
//!
//! A panic in a job is that job's result, [`PoolError::Panicked`], with its text, payload and stack ([`Panic`]); the worker
//! lives on (unless asked to end, see [`Builder::panic_ends_worker`]), a worker that dies is restarted after a backoff and
//! counted. The first pool of a process puts a panic hook before the one that is there, to keep the stacks.
//!
//! # Jobs that hang
//!
//! With a [`Builder::job_timeout`] a task pool drops a job at its next await. On threads, where nothing can be dropped, the
//! caller is answered, the job counted, and another thread takes the place of the stuck one. A loop without an await or a
//! blocking call in a *task* pool holds a thread of the runtime, and with it the jobs that worker took along (64 at most,
//! and only if those before were short): such work belongs on threads.
//!
//! # The books
//!
//! A job is, at each moment, in one place: the queue, the jobs given back, a worker's hands, or a count. Each step from one to
//! the next is one operation on one word or under one lock, so exactly one party sees itself as the one who took it:
//!
//! | step | by | in one operation |
//! |---|---|---|
//! | handed in, or dropped by the policy | submitter | the queue's lock |
//! | taken | worker | the queue's lock, and entered in what the worker holds before it is looked at |
//! | given back | worker | the lock of those given back, which knows whether the pool has stopped: then abandoned |
//! | ended | worker | a subtraction from what it holds: after the body is gone, before the caller is told |
//! | timed out on a thread, left behind | watch, drain | a bit in the same word: if it comes first its setter counts and the worker does not, and the other way round |
//! | dropped with its worker | the worker's place | the same bit; its counts go over to the pool's under the roster's lock |
//! | dropped by a stop | whoever takes it out | the queue's lock, after the close |
//!
//! So the sum is exact, whatever races. A task pool's counts are also what the bodies themselves saw: a drain aborts what runs
//! and waits before it counts the rest, so a job that comes to its end all the same is counted by its end. Two kinds of jobs
//! are counted while they run, and may run on to an end that nobody counts: on threads, those past their timeout or left by a
//! drain; on tasks, those that reach no await within a second after a drain has aborted them.
//!
//! # What a job costs
//!
//! `cargo bench -p forebay-flow --bench pool` measures it. A worker takes several short jobs at once, counts them without
//! sharing a line, and one wake serves a burst. Of what a short job through [`TaskPool::submit`] costs on one thread, by
//! `perf record`, four tenths are the queue (a lock to put a job in, a share of one to take it out, and the moves), a sixth
//! is its memory (a queue holds jobs of any type, so each is a box), a seventh is its poll and its count. On two threads it
//! costs half as much again: the box and the queue's lines go from one core's cache to the other's, and every 80 jobs a
//! thread goes to sleep and is woken. A pool of Go stays below because it does neither: a plain value goes through its
//! channel, without a box, and its scheduler runs the receiver next on the sender's core.
//!
//! A job that sleeps should sleep on a fine [`Timer`](crate::timer::Timer): Tokio's is exact to a millisecond and rounds
//! up, so that a sleep of 1 ms takes 2.

mod bed;
#[cfg(all(test, loom))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod bed_model;
#[cfg(all(test, shuttle))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod books_model;
mod crew;
mod job;
#[cfg(all(test, shuttle))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod model;
mod roster;
mod slot;
mod sync;
mod tasks;
mod threads;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::crew::{Crew, Losses, Source};
pub use self::job::{JoinHandle, Outcome};
pub use self::tasks::TaskPool;
pub use self::threads::ThreadPool;
use crate::backoff::Backoff;
use crate::ctx::Ctx;
use crate::panic::{self, Panic};
use crate::queue::{self, Bound, Full, Sender, SubmitError};
use crate::tasks::Name;

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// No room in the queue: nothing ran. A later retry may succeed.
    Full,
    /// The pool is stopping: nothing ran.
    Stopped,
    /// The job panicked: its text, payload and stack.
    Panicked(Panic),
    /// Not finished by the deadline. It may have run.
    TimedOut,
    /// The pool was stopped before the job could finish, or even start.
    Cancelled,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the pool's queue is full"),
            Self::Stopped => f.write_str("the pool is stopped"),
            Self::Panicked(panic) => write!(f, "the job panicked: {panic}"),
            Self::TimedOut => f.write_str("the job did not finish by its deadline"),
            Self::Cancelled => f.write_str("the job was cancelled"),
        }
    }
}

impl std::error::Error for PoolError {}

impl PoolError {
    fn refused<T>(error: &SubmitError<T>) -> Self {
        match error {
            SubmitError::Full(_) | SubmitError::TooHeavy(_) | SubmitError::Shed(_) => Self::Full,
            SubmitError::Closed(_) => Self::Stopped,
            SubmitError::TimedOut(_) => Self::TimedOut,
        }
    }
}

/// What a drain achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Jobs that ended while draining.
    pub finished: u64,
    /// Jobs left behind: those never started and those still running.
    pub abandoned: u64,
}

/// A pool's figures. At rest, and with `queued` and `busy` at any time but for a moment:
/// `submitted = done + failed + panicked + timed_out + cancelled + dropped + abandoned + queued + busy`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool's name.
    pub name: String,
    /// Workers configured.
    pub workers: usize,
    /// Workers there are: more than configured while surplus ones finish their jobs, none once the pool has stopped.
    pub live: usize,
    /// Workers with a job now.
    pub busy: usize,
    /// Jobs accepted and not started.
    pub queued: usize,
    /// Submitters waiting for room now.
    pub waiters: usize,
    /// Jobs handed in so far, those included that the queue's policy dropped; not those refused.
    pub submitted: u64,
    /// Jobs that returned.
    pub done: u64,
    /// Jobs without a caller that returned an error ([`Outcome::failed`]).
    pub failed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs that passed the pool's job timeout. On a thread such a job may still run.
    pub timed_out: u64,
    /// Jobs whose caller went away before they started.
    pub cancelled: u64,
    /// Jobs the queue dropped, by its policy.
    pub dropped: u64,
    /// Jobs left behind by a drain or a drop: never started, cut short, or on a thread perhaps still running.
    pub abandoned: u64,
    /// Workers restarted.
    pub restarts: u64,
    /// Threads replaced and still stuck in a job.
    pub stuck: usize,
    /// Threads replaced so far.
    pub replaced: u64,
}

/// A pool in the making.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, pool::Builder, queue::Bound};
/// let ctx = Ctx::root("app");
/// let pool = Builder::new("resize", 2, Bound::items(4)).under(&ctx).panic_ends_worker(true).threads().unwrap();
/// assert_eq!(pool.run(|| 1 + 1).await, Ok(2));
/// assert!(pool.run(|| panic!("a broken picture")).await.is_err());
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    name: Name,
    workers: usize,
    bound: Bound,
    ctx: Option<Ctx>,
    panic_ends_worker: bool,
    backoff: Backoff,
    job_timeout: Option<Duration>,
    full: Full,
    max_waiting: usize,
    max_stuck: Option<usize>,
    why: &'static str,
}

/// How many may wait for room in a pool's queue unless its maker says otherwise.
const MAX_WAITING: usize = 1 << 16;

impl Builder {
    /// A pool of `workers`, one at least, whose queue holds `bound`. [`Builder::threads`] or [`Builder::tasks`] starts it.
    ///
    /// # Choosing a bound
    /// See the [module](self#choosing-a-bound).
    #[must_use]
    pub fn new(name: impl Into<Name>, workers: usize, bound: Bound) -> Self {
        Self {
            name: name.into(),
            workers,
            bound,
            ctx: None,
            panic_ends_worker: false,
            backoff: Backoff::default(),
            job_timeout: None,
            full: Full::Block,
            max_waiting: MAX_WAITING,
            max_stuck: None,
            why: "two jobs a worker: none idles between jobs, none waits long",
        }
    }

    /// Whose workers they are: they are registered below `ctx`, and stop when it is cancelled, answering queued jobs
    /// `Cancelled`. For an orderly end give it a context that outlives its users, and drain the pool before cancelling.
    #[must_use]
    pub fn under(mut self, ctx: &Ctx) -> Self {
        self.ctx = Some(ctx.clone());
        self
    }

    /// A panic in a job also ends the worker it ran on, which restarts after the backoff, counted. Off by default: turn it
    /// on where a worker keeps something between jobs (a thread's locals, a connection) that a panic may have broken.
    #[must_use]
    pub fn panic_ends_worker(mut self, ends: bool) -> Self {
        self.panic_ends_worker = ends;
        self
    }

    /// The pause before a dead worker restarts.
    ///
    /// # Choosing a bound
    /// Long enough that a job which kills its worker each time does not keep a core busy with restarts; short beside the
    /// time the queue's jobs can wait.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest a job may run, from its start. Its caller is answered `TimedOut` and the job is counted so. A task pool
    /// drops it at its next await. A thread pool cannot stop it: another thread takes the place of the stuck one, which
    /// ends when its job returns (see [`Builder::max_stuck`]); it reads real time, not a paused clock.
    ///
    /// # Choosing a bound
    /// Several times the slowest honest job. Too short and slow machines replace healthy threads.
    #[must_use]
    pub fn job_timeout(mut self, timeout: Duration) -> Self {
        self.job_timeout = Some(timeout);
        self
    }

    /// How many threads may be stuck in jobs past their timeout, replaced and still running; as many as workers unless
    /// said. Past that a stuck thread is not replaced, and the pool has a worker less until its job returns.
    ///
    /// # Choosing a bound
    /// A stuck thread keeps its stack (2 MiB of addresses, what it touched of memory) and perhaps a core. With this bound
    /// the pool has `workers + max_stuck` threads at most.
    #[must_use]
    pub fn max_stuck(mut self, threads: usize) -> Self {
        self.max_stuck = Some(threads);
        self
    }

    /// What happens to a job when the queue is full; [`Full::Block`] unless said. Under a policy that drops, the caller of
    /// a dropped job is answered `Cancelled`, and the job is counted in [`PoolStats::dropped`].
    #[must_use]
    pub fn full(mut self, full: Full) -> Self {
        self.full = full;
        self
    }

    /// How many may wait for room under [`Full::Block`]; 65,536 unless said. One more is answered `Full` at once.
    ///
    /// # Choosing a bound
    /// Each waits with its job in hand, so this is the second half of the queue's bound: `bound + max_waiting` jobs are
    /// in memory. Choose what the pool can work off within its callers' patience. Zero: nobody waits.
    #[must_use]
    pub fn max_waiting(mut self, submitters: usize) -> Self {
        self.max_waiting = submitters;
        self
    }

    /// Why this bound, in a sentence for the queue table: which sum it came from, or what it was seen to need.
    #[must_use]
    pub fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    fn crew<J: Send + 'static>(self) -> (Arc<Crew<J>>, Sender<J>) {
        // A pool without a context of its own is its own root: its workers end when its last handle goes.
        let ctx = match &self.ctx {
            Some(ctx) => ctx.child(self.name.clone()),
            None => Ctx::root(self.name.clone()),
        };
        let lost = Arc::new(Losses::default());
        let count = Arc::clone(&lost);
        let (jobs, queue) = queue::Builder::new(self.name.clone(), self.bound, self.full)
            .max_waiting(self.max_waiting)
            .dead_letter(move |job, lost| {
                count.count(lost);
                // Whoever submitted the job in whose favour it goes is no party to its panic.
                drop(panic::catch(move || drop(job)));
            })
            .why(self.why)
            .build();
        let workers = self.workers.max(1);
        let settings = Settings {
            name: self.name,
            workers,
            panic_ends_worker: self.panic_ends_worker,
            backoff: self.backoff,
            job_timeout: self.job_timeout,
            max_stuck: self.max_stuck.unwrap_or(workers),
        };
        let source = Source { queue, rendezvous: self.bound.limit() == 0, lost };
        (Crew::new(settings, ctx, source), jobs)
    }
}

/// What a pool was told when it was made.
#[derive(Debug)]
struct Settings {
    name: Name,
    workers: usize,
    panic_ends_worker: bool,
    backoff: Backoff,
    job_timeout: Option<Duration>,
    max_stuck: usize,
}

/// How a worker's life ended.
enum End {
    Finished,
    Died,
    /// Another stands in its place.
    Replaced,
}
