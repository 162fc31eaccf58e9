//! Worker pools on a bounded queue: [`Pool`] on threads of its own for CPU work, [`TaskPool`] on tasks for async work.
//!
//! Owns its workers, its queue and its counts. A panic in a job is that job's result and the worker lives on (unless
//! asked to end, see [`Builder::panic_ends_worker`]); a worker that dies is restarted after a backoff and counted. Every
//! job that was accepted ends in exactly one count: done, panicked, timed out, cancelled or abandoned.
//!
//! ```text
//! run ─► queue (bound) ─► worker ─► result
//!   └─ dropped while queued: cancelled     └─ dropped while running: finishes, its result is dropped
//! ```
//!
//! Choosing the numbers: threads for CPU work, as many as cores; the queue twice the workers, so that none idles between
//! jobs and none waits long.

mod tasks;
mod threads;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

pub use self::tasks::TaskPool;
pub use self::threads::{JoinHandle, Pool};
use crate::backoff::Backoff;
use crate::clock::{self, Instant};
use crate::ctx::{Cause, Ctx};
use crate::queue::{self, Bound, Full, QueueInfo, Receiver, Sender, SubmitError};
use crate::tasks::Name;

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// No room in the queue: nothing ran. A later retry may succeed.
    Full,
    /// The pool is stopping: nothing ran.
    Stopped,
    /// The job panicked.
    Panicked {
        /// What the panic carried.
        message: String,
    },
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
            Self::Panicked { message } => write!(f, "the job panicked: {message}"),
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
pub struct Drained {
    /// Jobs that ended while draining.
    pub finished: u64,
    /// Jobs left behind: those never started and those still running.
    pub abandoned: u64,
}

/// A pool's figures. `submitted = done + panicked + timed_out + cancelled + abandoned + queued + busy` at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// The pool's name.
    pub name: String,
    /// Workers configured.
    pub workers: usize,
    /// Jobs running now.
    pub busy: usize,
    /// Jobs accepted and not started.
    pub queued: usize,
    /// Jobs accepted so far.
    pub submitted: u64,
    /// Jobs that returned.
    pub done: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs stopped at the pool's own job deadline (task pools only).
    pub timed_out: u64,
    /// Jobs whose caller went away before they started.
    pub cancelled: u64,
    /// Jobs left behind by a drain or a drop.
    pub abandoned: u64,
    /// Workers restarted.
    pub restarts: u64,
}

/// A pool in the making.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, pool::Pool, queue::Bound};
/// let ctx = Ctx::root("app");
/// let pool = Pool::builder("transform", 2, Bound::items(4)).under(&ctx).panic_ends_worker(true).threads().unwrap();
/// assert_eq!(pool.run(|| 1 + 1).await, Ok(2));
/// assert!(pool.run(|| panic!("guilty row")).await.is_err());
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
    why: &'static str,
}

impl Builder {
    fn new(name: Name, workers: usize, bound: Bound) -> Self {
        Self {
            name,
            workers,
            bound,
            ctx: None,
            panic_ends_worker: false,
            backoff: Backoff::default(),
            job_timeout: None,
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

    /// A panic in a job also ends the worker it ran on, which restarts after the backoff, counted. Off by default.
    #[must_use]
    pub fn panic_ends_worker(mut self, ends: bool) -> Self {
        self.panic_ends_worker = ends;
        self
    }

    /// The pause before a dead worker restarts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest a job may run. A task pool stops it there; a thread pool cannot, and only answers `TimedOut`.
    #[must_use]
    pub fn job_timeout(mut self, timeout: Duration) -> Self {
        self.job_timeout = Some(timeout);
        self
    }

    /// Why this bound, in a sentence for the queue table.
    #[must_use]
    pub fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    fn shared(&self) -> Arc<Shared> {
        // A pool without a context of its own is its own root: its workers end when its last handle goes.
        let ctx = self
            .ctx
            .as_ref()
            .map_or_else(|| Ctx::root(self.name.clone()), |ctx| ctx.child(self.name.clone()));
        Arc::new(Shared {
            name: self.name.clone(),
            hurry: ctx.child(""),
            ctx,
            workers: self.workers.max(1),
            panic_ends_worker: self.panic_ends_worker,
            backoff: self.backoff,
            job_timeout: self.job_timeout,
            counts: Counts::default(),
        })
    }

    fn queue<J: Send + 'static>(&self) -> (Sender<J>, Receiver<J>) {
        queue::Options::new(self.name.clone(), self.bound, Full::Block).why(self.why).build()
    }
}

/// What became of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ran {
    Done,
    Panicked,
    TimedOut,
    Cancelled,
}

/// What workers and handles share.
struct Shared {
    name: Name,
    ctx: Ctx,
    /// Cancelled when the pool stops or drains: it cuts a backoff short.
    hurry: Ctx,
    workers: usize,
    panic_ends_worker: bool,
    backoff: Backoff,
    job_timeout: Option<Duration>,
    counts: Counts,
}

/// Set in `Counts::busy` once the running jobs were counted as abandoned, so that none is counted twice.
const LEFT_BEHIND: u64 = 1 << 63;

#[derive(Default)]
struct Counts {
    busy: AtomicU64,
    done: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
    restarts: AtomicU64,
}

impl Counts {
    fn abandon(&self, jobs: u64) {
        self.abandoned.fetch_add(jobs, Ordering::AcqRel);
    }

    /// Counts the jobs running now as abandoned; says how many.
    fn leave_running_behind(&self) -> u64 {
        let running = self.busy.fetch_or(LEFT_BEHIND, Ordering::AcqRel);
        let left = if running & LEFT_BEHIND == 0 { running } else { 0 };
        self.abandon(left);
        left
    }
}

/// A job that runs. It is counted by [`Running::end`], or as abandoned when dropped before.
struct Running {
    shared: Arc<Shared>,
    ran: Option<Ran>,
}

impl Running {
    fn start(shared: &Arc<Shared>) -> Self {
        shared.counts.busy.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(shared), ran: None }
    }

    fn end(mut self, ran: Ran) {
        self.ran = Some(ran);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let counts = &self.shared.counts;
        if counts.busy.fetch_sub(1, Ordering::AcqRel) & LEFT_BEHIND != 0 {
            return; // counted as abandoned already
        }
        let count = match self.ran {
            Some(Ran::Done) => &counts.done,
            Some(Ran::Panicked) => &counts.panicked,
            Some(Ran::TimedOut) => &counts.timed_out,
            Some(Ran::Cancelled) => &counts.cancelled,
            None => &counts.abandoned,
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
}

impl Shared {
    fn stats(&self, queue: &QueueInfo) -> PoolStats {
        let counts = &self.counts;
        let busy = counts.busy.load(Ordering::Acquire) & !LEFT_BEHIND;
        PoolStats {
            name: self.name.to_string(),
            workers: self.workers,
            busy: usize::try_from(busy).unwrap_or(usize::MAX),
            queued: queue.items,
            submitted: queue.sent,
            done: counts.done.load(Ordering::Acquire),
            panicked: counts.panicked.load(Ordering::Acquire),
            timed_out: counts.timed_out.load(Ordering::Acquire),
            cancelled: counts.cancelled.load(Ordering::Acquire),
            abandoned: counts.abandoned.load(Ordering::Acquire),
            restarts: counts.restarts.load(Ordering::Acquire),
        }
    }

    fn ended(&self) -> u64 {
        let counts = &self.counts;
        [&counts.done, &counts.panicked, &counts.timed_out, &counts.cancelled]
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .sum()
    }

    /// Waits for the workers to end, until `deadline`; true when they did.
    async fn workers_end(&self, deadline: Instant) -> bool {
        tokio::time::timeout_at(deadline, self.ctx.idle()).await.is_ok()
    }

    /// Takes what is queued and drops it: its callers are answered `Cancelled`.
    fn abandon_queued<J>(&self, queue: &Receiver<J>) -> u64 {
        let mut abandoned = 0;
        while let Some(job) = queue.try_recv() {
            drop(job);
            abandoned += 1;
        }
        self.counts.abandon(abandoned);
        abandoned
    }

    /// Takes no more jobs and drops the queued ones.
    fn stop<J>(&self, queue: &Receiver<J>, cause: Cause) {
        queue.close();
        self.ctx.cancel(cause);
        self.abandon_queued(queue);
    }

    /// Remembers that a worker died and says how long to pause before its next life.
    fn worker_died(&self, failures: &mut u32, born: Instant) -> Duration {
        self.counts.restarts.fetch_add(1, Ordering::AcqRel);
        if clock::now().saturating_duration_since(born) >= self.backoff.stable_after {
            *failures = 0;
        }
        *failures = failures.saturating_add(1);
        let pause = self.backoff.pause(*failures);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(pool = %self.name, pause_ms, "worker ended, restarts after a pause");
        pause
    }
}

/// How a worker's life ended.
enum End {
    Finished,
    Died,
}

/// The next job; `None` when the queue is drained or the pool was told to stop.
async fn next_job<J>(ctx: &Ctx, queue: &Receiver<J>) -> Option<J> {
    let mut cancelled = pin!(ctx.cancelled());
    let mut next = queue.recv();
    poll_fn(|cx| {
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut next).poll(cx)
    })
    .await
}
