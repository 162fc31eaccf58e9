//! The pool on its own threads.
//!
//! Owns the threads. Each thread's outer frame is its supervisor: the worker inside it may die and is started again after
//! a backoff. A job cannot be interrupted. One that passes the pool's job timeout is answered and counted by the pool's
//! watch, which starts another thread in the place of the stuck one; that one ends when its job returns. What still runs
//! when a drain ends is left behind and counted.
//!
//! ```text
//! working ─timeout─► stuck, replaced ─job returns─► ended
//!              └───► stuck, too many are already ─job returns─► working
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::crew::{Cancelled, Crew};
use super::job::{self, Answer, Current, JoinHandle, Outcome, ThreadJob};
use super::roster::{Place, Roster, Seat};
use super::slot::Ran;
use super::sync::{Ordering, block_on};
use super::{Builder, Drained, End, PoolError, PoolStats, panic};
use crate::clock::{self, Instant};
use crate::ctx::Cause;
use crate::queue::{Bound, Sender};
use crate::tasks::Name;
use crate::thread;

/// A pool of threads. Clones share it; when the last is dropped, queued jobs are abandoned and the threads end.
#[derive(Clone)]
pub struct ThreadPool {
    inner: Arc<Inner>,
}

struct Inner {
    crew: Arc<Crew<ThreadJob>>,
    jobs: Sender<ThreadJob>,
    location: &'static Location<'static>,
}

impl Builder {
    /// Starts the pool on threads of its own, and one more to watch them when there is a [`Builder::job_timeout`].
    ///
    /// # Errors
    /// When the system refuses a thread; those already started end.
    #[track_caller]
    pub fn threads(self) -> io::Result<ThreadPool> {
        let location = Location::caller();
        let (crew, jobs) = self.crew::<ThreadJob>();
        // Dropped on the way out, it ends the threads that did start.
        let pool = ThreadPool { inner: Arc::new(Inner { crew, jobs, location }) };
        pool.hire()?;
        pool.watch()?;
        Ok(pool)
    }
}

/// Starts the thread of a worker. It looks at the pool's context and not at its own, so its handle may go.
fn start(
    seat: Seat<ThreadJob>,
    number: usize,
    location: &'static Location<'static>,
) -> io::Result<()> {
    let ctx = seat.crew.ctx.clone();
    let name = Name::Owned(format!("{}-{number}", seat.crew.set.name));
    thread::spawn_at(&ctx, name, location, move |_| supervise(&seat)).map(drop)
}

/// The outer frame of a worker's thread: starts the worker again, after a pause, for as long as it dies.
pub(super) fn supervise(seat: &Seat<ThreadJob>) {
    let Seat { crew, place } = seat;
    let mut failures = 0;
    loop {
        let born = clock::now();
        let panicked = match panic::catch(|| work(crew, place)) {
            Ok(End::Replaced) => return,
            Ok(End::Finished) if crew.retires(place) => break,
            Ok(End::Finished) => continue,
            Ok(End::Died) => None,
            Err(panic) => Some(panic),
        };
        let pause = crew.died(place, &mut failures, born, panicked.as_ref());
        thread::block_on_for(crew.hurry.cancelled(), pause);
    }
}

fn work(crew: &Crew<ThreadJob>, place: &Arc<Place>) -> End {
    let mut cancelled = pin!(Cancelled::new(crew.ctx.cancelled()));
    let mut batch = VecDeque::new();
    // One at a time: a job may take long, and nobody could take from this thread what it holds.
    while block_on(crew.next(place, cancelled.as_mut(), 1, &mut batch)) {
        let Some(job) = batch.pop_front() else { continue };
        let ran = run(crew, place, job);
        if crew.is_replaced(place) {
            return End::Replaced;
        }
        if ran == Ran::Panicked && crew.set.panic_ends_worker {
            return End::Died;
        }
    }
    End::Finished
}

fn run(crew: &Crew<ThreadJob>, place: &Place, job: ThreadJob) -> Ran {
    let watched = crew.set.job_timeout.is_some();
    if watched {
        *place.job.lock() = Some(Current {
            began_nanos: clock::real_nanos(),
            seen: place.slot.seen(),
            caller: job.caller(),
        });
    }
    let mut ended = Ran::Panicked;
    let told = panic::catch(|| {
        job.run(&mut |ran| {
            ended = ran;
            if watched {
                *place.job.lock() = None;
            }
            // Counted before it is told: who has the result sees it in the figures.
            place.slot.end(ran);
        });
    });
    if told.is_err() {
        tracing::error!(pool = %crew.what, "a result that nobody took panicked while it was dropped");
    }
    ended
}

/// Looks after the jobs' timeouts until no worker is left.
fn watch(crew: &Arc<Crew<ThreadJob>>, limit: Duration, location: &'static Location<'static>) {
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let now = clock::real_nanos();
        let Watched { next, late, hired } = look(crew, now, limit);
        for caller in late {
            caller.answer(PoolError::TimedOut);
        }
        for (number, seat) in hired {
            tracing::warn!(pool = %crew.set.name, "a thread is stuck in its job and was replaced");
            if let Err(error) = start(seat, number, location) {
                tracing::error!(pool = %crew.set.name, %error, "no thread in place of a stuck one");
            }
        }
        let pause = Duration::from_nanos(next.saturating_sub(now));
        if thread::block_on_for(crew.deserted(), pause).is_some() {
            return;
        }
    }
}

/// What the watch saw at one look.
pub(super) struct Watched {
    /// When the next job may be due.
    next: u64,
    /// The callers of jobs that passed their timeout.
    pub(super) late: Vec<Arc<dyn Answer>>,
    /// Who shall stand in the place of the stuck.
    pub(super) hired: Vec<(usize, Seat<ThreadJob>)>,
}

/// Counts the jobs that passed their timeout by `now`, and replaces their threads.
pub(super) fn look(crew: &Arc<Crew<ThreadJob>>, now: u64, limit: u64) -> Watched {
    // A job that starts from now on is not due before this.
    let mut seen = Watched { next: now.saturating_add(limit), late: Vec::new(), hired: Vec::new() };
    let mut roster = crew.roster.lock();
    for place in roster.workers.clone() {
        // Held until it is decided: as long as the job stands there, its worker has not come to count it.
        let job = place.job.lock();
        let Some(current) = &*job else { continue };
        let due = current.began_nanos.saturating_add(limit);
        if due > now {
            seen.next = seen.next.min(due);
            continue;
        }
        seen.late.extend(expire(crew, &place, current));
        seen.hired.extend(replace(crew, &mut roster, &place));
    }
    seen
}

/// Counts the job as timed out, unless it was counted already; gives who waits for it.
fn expire(crew: &Crew<ThreadJob>, place: &Place, current: &Current) -> Option<Arc<dyn Answer>> {
    let jobs = place.slot.leave_if(current.seen);
    crew.timed_out(jobs);
    current.caller.clone().filter(|_| jobs > 0)
}

/// Takes a stuck thread off the roster and enters another, unless as many are stuck as may be.
fn replace(
    crew: &Arc<Crew<ThreadJob>>,
    roster: &mut Roster,
    place: &Arc<Place>,
) -> Option<(usize, Seat<ThreadJob>)> {
    if !place.slot.is_left() || roster.stuck >= crew.set.max_stuck {
        return None;
    }
    place.replaced.store(true, Ordering::Relaxed);
    roster.stuck += 1;
    roster.replaced += 1;
    crew.cross_out(roster, place);
    (!crew.ctx.is_cancelled()).then(|| crew.hire_into(roster))
}

impl ThreadPool {
    /// A pool of `workers` threads, one at least, whose queue holds `bound`. [`Builder`] has more to say about it.
    ///
    /// # Errors
    /// When the system refuses a thread.
    ///
    /// # Choosing a bound
    /// As many workers as cores, and a queue of twice that: see the [module](super#choosing-a-bound).
    #[track_caller]
    pub fn new(name: impl Into<Name>, workers: usize, bound: Bound) -> io::Result<Self> {
        Builder::new(name, workers, bound).threads()
    }

    fn hire(&self) -> io::Result<()> {
        let Inner { crew, location, .. } = &*self.inner;
        // A seat that finds no thread is dropped, and with it its place on the roster.
        crew.hire().into_iter().try_for_each(|(number, seat)| start(seat, number, location))
    }

    fn watch(&self) -> io::Result<()> {
        let Some(limit) = self.inner.crew.set.job_timeout else { return Ok(()) };
        let (crew, location) = (Arc::clone(&self.inner.crew), self.inner.location);
        let (ctx, name) = (crew.ctx.clone(), Name::Owned(format!("{}-watch", crew.set.name)));
        thread::spawn_at(&ctx, name, location, move |_| watch(&crew, limit, location)).map(drop)
    }

    /// Runs `f` on a worker, waiting for room.
    ///
    /// # Errors
    /// `Stopped`, `Panicked`, `Cancelled`; `Full` when as many wait for room as may ([`Builder::max_waiting`]);
    /// `TimedOut` past the pool's job timeout, which starts with the job.
    ///
    /// # Cancel safety
    /// Dropping this future cancels the job unless it runs already; then it finishes and its result is dropped. It waits
    /// without limit: prefer [`ThreadPool::run_within`].
    pub async fn run<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = job::called(f);
        self.inner.crew.submit(&self.inner.jobs, job).await?;
        handle.await
    }

    /// Hands `f` in if there is room now. The handle is told as [`ThreadPool::run`] would be.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_run<T, F>(&self, f: F) -> Result<JoinHandle<T>, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = job::called(f);
        self.inner.crew.try_submit(&self.inner.jobs, job)?;
        Ok(handle)
    }

    /// Runs `f`, waiting for room and result until `deadline`.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`ThreadPool::run`].
    ///
    /// # Cancel safety
    /// Past the deadline, or when dropped, a queued job is cancelled; a running one finishes and its result is dropped.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn run_within<T, F>(&self, deadline: Instant, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        tokio::time::timeout_at(deadline, self.run(f)).await.unwrap_or(Err(PoolError::TimedOut))
    }

    /// Runs `f`, blocking the calling thread, without limit. Never call it from a task, which would hold its runtime's
    /// thread, nor from a job of the same pool, which would wait for itself when all workers do so.
    ///
    /// # Errors
    /// As [`ThreadPool::run`].
    pub fn run_blocking<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = job::called(f);
        thread::block_on(self.inner.crew.submit(&self.inner.jobs, job))?;
        handle.join_blocking()
    }

    /// Hands `f` in and does not wait for its result, which only the figures show. When the queue is full it does what
    /// the pool's policy says: waits, refuses, or drops a job and counts it.
    ///
    /// # Errors
    /// `Stopped`; `Full` under a policy that rejects, or when as many wait for room as may.
    ///
    /// # Cancel safety
    /// Dropped, it has handed the job in, counted, or drops it with itself, uncounted.
    pub async fn submit<O, F>(&self, f: F) -> Result<(), PoolError>
    where
        F: FnOnce() -> O + Send + 'static,
        O: Outcome + 'static,
    {
        self.inner.crew.submit(&self.inner.jobs, job::loose(f)).await
    }

    /// As [`ThreadPool::submit`], without waiting.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_submit<O, F>(&self, f: F) -> Result<(), PoolError>
    where
        F: FnOnce() -> O + Send + 'static,
        O: Outcome + 'static,
    {
        self.inner.crew.try_submit(&self.inner.jobs, job::loose(f))
    }

    /// Sets the number of workers, one at least. New ones start at once and take what waits; surplus ones end when they
    /// are between jobs. Does nothing once the pool stops.
    ///
    /// # Choosing a bound
    /// As when it is made: as many as cores. The queue's bound stays as it is.
    ///
    /// # Errors
    /// When the system refuses a thread: the pool then has fewer workers than asked for; a later resize tries again.
    pub fn resize(&self, workers: usize) -> io::Result<()> {
        self.inner.crew.want(workers);
        self.hire()
    }

    /// Takes no more jobs, finishes the accepted ones until `deadline`, then abandons the rest: those queued are answered
    /// `Cancelled`, those running are left to themselves.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the pool closed and draining, without the deadline: call it again, or [`ThreadPool::stop`].
    ///
    /// # Choosing a bound
    /// The queue's bound over the rate at which the workers finish, plus the longest job.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn drain(&self, deadline: Instant) -> Drained {
        self.inner.crew.drain(deadline, None).await
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
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("stats", &self.stats()).finish()
    }
}
