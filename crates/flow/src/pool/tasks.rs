//! The pool on tasks of the runtime.
//!
//! Owns the worker tasks. Each worker's outer loop starts it again when it dies. A job past its deadline is dropped at its
//! next await; one that never awaits holds its runtime thread, so CPU work belongs on a thread pool.
//!
//! A worker takes several jobs at once while they end without waiting, which is what makes a short job cheap, and gives
//! back those it has not started as soon as one waits or takes long.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Handle;

use super::crew::{Cancelled, Crew};
use super::job::{self, JoinHandle, Outcome, TaskJob};
use super::roster::{Place, Seat};
use super::slot::Ran;
use super::{Builder, Drained, End, PoolError, PoolStats, panic};
use crate::clock::{self, Instant};
use crate::ctx::Cause;
use crate::queue::{Bound, Sender};
use crate::spawn::ABORT_GRACE;
use crate::tasks::Name;

/// The most jobs a worker takes at once.
const MOST: usize = 64;
/// A batch that takes longer than this is cut: its jobs are not short.
const SHORT_NANOS: u64 = 50_000;
/// Jobs a worker runs before it lets the runtime's other tasks run.
const TURN: usize = 256;

/// A pool of tasks. Clones share it; when the last is dropped, queued jobs are abandoned and the workers aborted.
#[derive(Clone)]
pub struct TaskPool {
    inner: Arc<Inner>,
}

struct Inner {
    crew: Arc<Crew<TaskJob>>,
    jobs: Sender<TaskJob>,
    runtime: Handle,
    location: &'static Location<'static>,
}

impl Builder {
    /// Starts the pool on tasks.
    ///
    /// # Panics
    /// Outside of a Tokio runtime. With a [`Builder::job_timeout`] that runtime must have a timer: without one the worker of
    /// a job that waits dies, and the job is abandoned.
    #[track_caller]
    #[must_use]
    pub fn tasks(self) -> TaskPool {
        let location = Location::caller();
        let (crew, jobs) = self.crew::<TaskJob>();
        let pool = TaskPool {
            inner: Arc::new(Inner { crew, jobs, runtime: Handle::current(), location }),
        };
        pool.hire();
        pool
    }
}

pub(super) async fn supervise(seat: Seat<TaskJob>) {
    let Seat { crew, place } = &seat;
    let mut failures = 0;
    loop {
        let born = clock::now();
        let panicked = match panic::catch_async(work(crew, place)).await {
            Ok(End::Finished | End::Replaced) if crew.retires(place) => break,
            Ok(End::Finished | End::Replaced) => continue,
            Ok(End::Died) => None,
            Err(panic) => Some(panic),
        };
        let pause = crew.died(place, &mut failures, born, panicked.as_ref());
        let _cut_short = tokio::time::timeout(pause, crew.hurry.cancelled()).await;
    }
}

async fn work(crew: &Crew<TaskJob>, place: &Arc<Place>) -> End {
    let mut cancelled = pin!(Cancelled::new(crew.ctx.cancelled()));
    let mut batch = VecDeque::new();
    let mut appetite = 1;
    let mut turn = 0;
    while crew.next(place, cancelled.as_mut(), appetite, &mut batch).await {
        let size = batch.len();
        let began = if size > 1 { clock::real_nanos() } else { 0 };
        let mut short = true;
        let mut started: usize = 0;
        while let Some(job) = batch.pop_front() {
            started += 1;
            let (ran, waited) = run(crew, place, job, &mut batch, cancelled.as_mut()).await;
            if ran == Ran::Panicked && crew.set.panic_ends_worker {
                crew.give_back(place, &mut batch);
                return End::Died;
            }
            if crew.ctx.is_cancelled() {
                crew.abandon_batch(place, &mut batch);
            }
            short &= !waited;
            // Looks at the clock after the first job, the second, the fourth, …: seldom, and soon enough.
            if started.is_power_of_two()
                && !batch.is_empty()
                && clock::real_nanos().saturating_sub(began) > SHORT_NANOS
            {
                short = false;
                crew.give_back(place, &mut batch);
            }
        }
        if crew.is_replaced(place) {
            return End::Replaced;
        }
        match short {
            true if size == appetite => appetite = (appetite * 2).min(MOST),
            true => {}
            false => appetite = 1,
        }
        turn = if short { turn + size } else { 0 };
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    End::Finished
}

/// Runs one job to its end; says how it ended and whether it ever waited. When it waits, the rest of the batch goes back.
async fn run(
    crew: &Crew<TaskJob>,
    place: &Place,
    mut job: TaskJob,
    batch: &mut VecDeque<TaskJob>,
    mut cancelled: Pin<&mut Cancelled<impl Future<Output = Cause>>>,
) -> (Ran, bool) {
    if !job.wanted() {
        place.slot.end(Ran::Cancelled);
        crew.let_go([job]);
        return (Ran::Cancelled, false);
    }
    let limit = crew.set.job_timeout.map(|limit| clock::now() + limit);
    let mut timer = pin!(None);
    let (mut waited, mut stopped) = (false, false);
    let ended = poll_fn(|cx| {
        match panic::catch_again(|| job.as_mut().poll(cx)) {
            Ok(Poll::Ready(ran)) => return Poll::Ready((ran, None)),
            Ok(Poll::Pending) => {}
            Err(message) => {
                return Poll::Ready((Ran::Panicked, Some(PoolError::Panicked(message))));
            }
        }
        if !waited {
            waited = true;
            crew.give_back(place, batch);
            timer.set(limit.map(tokio::time::sleep_until));
        }
        if let Some(timer) = timer.as_mut().as_pin_mut()
            && timer.poll(cx).is_ready()
        {
            return Poll::Ready((Ran::TimedOut, Some(PoolError::TimedOut)));
        }
        if !stopped && (crew.ctx.is_cancelled() || cancelled.as_mut().watch(cx)) {
            // Every worker may be busy for long: the queued jobs' callers are answered now.
            stopped = true;
            crew.stop(Cause::Shutdown);
        }
        Poll::Pending
    })
    .await;
    let (ran, error) = ended;
    // Counted before it is told: who has the result sees it in the figures.
    place.slot.end(ran);
    let told = panic::catch_again(move || {
        job.as_mut().answer(error);
        drop(job);
    });
    if told.is_err() {
        tracing::error!(pool = %crew.what, "a job, or a result that nobody took, panicked while it was dropped");
    }
    (ran, waited)
}

impl TaskPool {
    /// A pool of `workers` tasks, one at least, whose queue holds `bound`. [`Builder`] has more to say about it.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    ///
    /// # Choosing a bound
    /// As many workers as jobs are under way at once, by Little's law: see the [module](super#choosing-a-bound).
    #[track_caller]
    #[must_use]
    pub fn new(name: impl Into<Name>, workers: usize, bound: Bound) -> Self {
        Builder::new(name, workers, bound).tasks()
    }

    fn hire(&self) {
        let Inner { crew, runtime, location, .. } = &*self.inner;
        let _runtime = runtime.enter();
        for (number, seat) in crew.hire() {
            let name = Name::Owned(format!("{}-{number}", crew.set.name));
            drop(crew.ctx.spawn_unowned(name, location, supervise(seat)));
        }
    }

    /// Runs `fut` on a worker, waiting for room.
    ///
    /// # Errors
    /// `Stopped`, `Panicked`, `Cancelled`; `Full` when as many wait for room as may
    /// ([`Builder::max_waiting`]); `TimedOut` past the pool's job timeout, which starts with the job.
    ///
    /// # Cancel safety
    /// Dropping this future cancels the job unless it runs already; then it finishes and its result is dropped. It waits
    /// without limit: prefer [`TaskPool::run_within`].
    pub async fn run<F>(&self, fut: F) -> Result<F::Output, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (job, handle) = job::told(fut);
        self.inner.crew.submit(&self.inner.jobs, job).await?;
        handle.await
    }

    /// Hands `fut` in if there is room now. The handle is told as [`TaskPool::run`] would be.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_run<F>(&self, fut: F) -> Result<JoinHandle<F::Output>, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (job, handle) = job::told(fut);
        self.inner.crew.try_submit(&self.inner.jobs, job)?;
        Ok(handle)
    }

    /// Runs `fut`, waiting for room and result until `deadline`.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`TaskPool::run`].
    ///
    /// # Cancel safety
    /// Past the deadline, or when dropped, a queued job is cancelled; a running one finishes and its result is dropped.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn run_within<F>(&self, deadline: Instant, fut: F) -> Result<F::Output, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::time::timeout_at(deadline, self.run(fut)).await.unwrap_or(Err(PoolError::TimedOut))
    }

    /// Hands `fut` in and does not wait for its result, which only the figures show. Cheaper than [`TaskPool::run`]. When
    /// the queue is full it does what the pool's policy says: waits, refuses, or drops a job and counts it.
    ///
    /// # Errors
    /// `Stopped`; `Full` under a policy that rejects, or when as many wait for room as may.
    ///
    /// # Cancel safety
    /// Dropped, it has handed the job in, counted, or drops it with itself, uncounted.
    pub async fn submit<F>(&self, fut: F) -> Result<(), PoolError>
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.inner.crew.submit(&self.inner.jobs, job::untold(fut)).await
    }

    /// As [`TaskPool::submit`], without waiting.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_submit<F>(&self, fut: F) -> Result<(), PoolError>
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.inner.crew.try_submit(&self.inner.jobs, job::untold(fut))
    }

    /// Sets the number of workers, one at least. New ones start at once and take what waits; surplus ones end when they
    /// are between jobs, so nothing is interrupted. Does nothing once the pool stops.
    ///
    /// # Choosing a bound
    /// As when it is made: jobs a second times seconds a job. The queue's bound stays as it is.
    pub fn resize(&self, workers: usize) {
        self.inner.crew.want(workers);
        self.hire();
    }

    /// Takes no more jobs, finishes the accepted ones until `deadline`, then abandons the rest: those queued are answered
    /// `Cancelled`, those running are aborted. One that ends all the same, in the poll it is in, counts as what it was. One
    /// that reaches no await is left behind after one second.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the pool closed and draining, without the deadline: call it again, or [`TaskPool::stop`].
    ///
    /// # Choosing a bound
    /// The queue's bound over the rate at which the workers finish, plus the longest job.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn drain(&self, deadline: Instant) -> Drained {
        self.inner.crew.drain(deadline, Some(ABORT_GRACE)).await
    }

    /// Takes no more jobs; queued ones are answered `Cancelled`, running ones finish. Returns at once.
    pub fn stop(&self) {
        self.inner.crew.stop(Cause::Shutdown);
    }

    /// The pool's figures now. Takes a lock and looks at each worker: for metrics and tests, not for each job.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.crew.stats(&self.inner.jobs.info())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.crew.stop(Cause::Dropped);
        self.crew.ctx.kill(Cause::Dropped);
    }
}

impl fmt::Debug for TaskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("stats", &self.stats()).finish()
    }
}
