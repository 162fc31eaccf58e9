//! The pool on its own threads.
//!
//! Owns the threads. Each thread's outer frame is its supervisor: the worker inside it may die and is started again after
//! a backoff. A job cannot be interrupted; what still runs when a drain ends is left behind and counted.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{Builder, Drained, End, PoolError, PoolStats, Ran, Running, Shared, next_job};
use crate::clock::{self, Instant};
use crate::ctx::{Cause, Ctx};
use crate::panics;
use crate::queue::{Bound, Receiver, Sender};
use crate::tasks::Name;
use crate::thread::{self, Thread};

type Job = Box<dyn FnOnce() -> Ran + Send>;

/// A pool of threads. Clones share it; when the last is dropped, queued jobs are abandoned and the threads end.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    /// For draining: takes out what no worker will.
    rest: Receiver<Job>,
    /// Held so that the threads' contexts live as long as the pool.
    _threads: Vec<Thread<()>>,
}

/// A job under way. Dropping it cancels the job if it is still queued; one that runs finishes and its result is dropped.
#[derive(Debug)]
#[must_use = "dropping the handle cancels a queued job"]
pub struct JoinHandle<T> {
    result: oneshot::Receiver<Result<T, PoolError>>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = std::task::ready!(Pin::new(&mut self.result).poll(cx));
        Poll::Ready(result.unwrap_or(Err(PoolError::Cancelled)))
    }
}

impl<T> JoinHandle<T> {
    pub(super) fn new(result: oneshot::Receiver<Result<T, PoolError>>) -> Self {
        Self { result }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub async fn join(self) -> Result<T, PoolError> {
        self.await
    }

    /// Waits for the result on a thread that is no task.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub fn join_blocking(self) -> Result<T, PoolError> {
        thread::block_on(self)
    }
}

impl Builder {
    /// Starts the pool on threads of its own.
    ///
    /// # Errors
    /// When the system refuses a thread; those already started end.
    #[track_caller]
    pub fn threads(self) -> io::Result<Pool> {
        let location = Location::caller();
        let (jobs, rest) = self.queue::<Job>();
        let shared = self.shared();
        let mut threads = Vec::with_capacity(shared.workers);
        for n in 0..shared.workers {
            let (worker, queue) = (Arc::clone(&shared), rest.clone());
            let name = Name::Owned(format!("{}-{n}", shared.name));
            match thread::spawn_at(&shared.ctx, name, location, move |ctx| {
                supervise(&worker, &queue, &ctx)
            }) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop(&rest, Cause::Dropped);
                    return Err(error);
                }
            }
        }
        Ok(Pool { inner: Arc::new(Inner { shared, jobs, rest, _threads: threads }) })
    }
}

/// The outer frame of a worker's thread: starts the worker again, after a pause, for as long as it dies.
fn supervise(shared: &Shared, queue: &Receiver<Job>, ctx: &Ctx) {
    let mut failures = 0;
    loop {
        let born = clock::now();
        match panics::catch(|| work(shared, queue, ctx)) {
            Ok(End::Finished) => break,
            Ok(End::Died) => {}
            Err(message) => {
                tracing::error!(pool = %shared.name, %message, "a worker panicked outside of a job")
            }
        }
        let pause = shared.worker_died(&mut failures, born);
        thread::block_on_for(shared.hurry.cancelled(), pause);
    }
    if ctx.is_cancelled() {
        // Nobody else may be left to answer the queued jobs' callers.
        shared.stop(queue, Cause::Shutdown);
    }
}

fn work(shared: &Shared, queue: &Receiver<Job>, ctx: &Ctx) -> End {
    while let Some(job) = thread::block_on(next_job(ctx, queue)) {
        if job() == Ran::Panicked && shared.panic_ends_worker {
            return End::Died;
        }
    }
    End::Finished
}

impl Pool {
    /// A pool of `workers` threads whose queue holds `bound`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[track_caller]
    pub fn threads(name: impl Into<Name>, workers: usize, bound: Bound) -> io::Result<Self> {
        Builder::new(name.into(), workers, bound).threads()
    }

    /// A pool of `workers` tasks whose queue holds `bound`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    #[must_use]
    pub fn tasks(name: impl Into<Name>, workers: usize, bound: Bound) -> super::TaskPool {
        Builder::new(name.into(), workers, bound).tasks()
    }

    /// A pool with more to say about it.
    #[must_use]
    pub fn builder(name: impl Into<Name>, workers: usize, bound: Bound) -> Builder {
        Builder::new(name.into(), workers, bound)
    }

    /// Runs `f` on a worker, waiting for room. Dropping this future cancels the job unless it runs already; then it
    /// finishes and its result is dropped. It waits without limit: prefer [`Pool::run_within`].
    ///
    /// # Errors
    /// `Stopped`, `Panicked`, `Cancelled`; `TimedOut` past the pool's job timeout.
    pub async fn run<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = self.job(f);
        self.inner.jobs.submit(job).await.map_err(|error| PoolError::refused(&error))?;
        match self.inner.shared.job_timeout {
            None => handle.await,
            Some(limit) => {
                tokio::time::timeout(limit, handle).await.unwrap_or(Err(PoolError::TimedOut))
            }
        }
    }

    /// Hands `f` to a worker if there is room now.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_run<T, F>(&self, f: F) -> Result<JoinHandle<T>, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = self.job(f);
        self.inner.jobs.try_submit(job).map_err(|error| PoolError::refused(&error))?;
        Ok(handle)
    }

    /// Runs `f`, waiting for room and result until `deadline`. Past it a queued job is cancelled, a running one finishes
    /// and its result is dropped.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`Pool::run`].
    pub async fn run_within<T, F>(&self, deadline: Instant, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        tokio::time::timeout_at(deadline, self.run(f)).await.unwrap_or(Err(PoolError::TimedOut))
    }

    /// Runs `f`, blocking the calling thread. Never call it from a task.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub fn run_blocking<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, handle) = self.job(f);
        self.inner.jobs.submit_blocking(job).map_err(|error| PoolError::refused(&error))?;
        handle.join_blocking()
    }

    fn job<T, F>(&self, f: F) -> (Job, JoinHandle<T>)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (tell, result) = oneshot::channel();
        let shared = Arc::clone(&self.inner.shared);
        let job = Box::new(move || {
            let running = Running::start(&shared);
            if tell.is_closed() {
                running.end(Ran::Cancelled);
                return Ran::Cancelled;
            }
            let outcome = panics::catch(f);
            let ran = if outcome.is_ok() { Ran::Done } else { Ran::Panicked };
            // Counted before it is told: who has the result sees it in the figures.
            running.end(ran);
            // A caller that went away meanwhile does not want it.
            drop(tell.send(outcome.map_err(|message| PoolError::Panicked { message })));
            ran
        });
        (job, JoinHandle::new(result))
    }

    /// Takes no more jobs, finishes the accepted ones until `deadline`, then abandons the rest: those queued are answered
    /// `Cancelled`, those running are left to themselves. Cancel safe: dropped, it leaves the pool closed and draining.
    pub async fn drain(&self, deadline: Instant) -> Drained {
        let Inner { shared, rest, .. } = &*self.inner;
        let before = shared.ended();
        rest.close();
        shared.hurry.cancel(Cause::Shutdown);
        if !shared.workers_end(deadline).await {
            shared.counts.leave_running_behind();
            shared.stop(rest, Cause::Shutdown);
        }
        let abandoned = shared.counts.abandoned.load(Ordering::Acquire);
        Drained { finished: shared.ended() - before, abandoned }
    }

    /// Takes no more jobs; queued ones are answered `Cancelled`, running ones finish. Returns at once.
    pub fn stop(&self) {
        self.inner.shared.stop(&self.inner.rest, Cause::Shutdown);
    }

    /// The pool's figures now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.shared.stats(&self.inner.jobs.info())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop(&self.rest, Cause::Dropped);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish()
    }
}
