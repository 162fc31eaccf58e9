//! The pool on tasks of the runtime.
//!
//! Owns the worker tasks. Each worker's outer loop starts it again when it dies. A job past its deadline is dropped at its
//! next await; one that never awaits holds its runtime thread, so CPU work belongs on a thread pool.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{
    Builder, Drained, End, JoinHandle, PoolError, PoolStats, Ran, Running, Shared, next_job,
};
use crate::clock::{self, Instant};
use crate::ctx::Cause;
use crate::panics;
use crate::queue::{Receiver, Sender};
use crate::spawn::ABORT_GRACE;
use crate::tasks::Name;

type Job = Pin<Box<dyn Future<Output = Ran> + Send>>;

/// A pool of tasks. Clones share it; when the last is dropped, queued jobs are abandoned and the workers aborted.
#[derive(Clone)]
pub struct TaskPool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    rest: Receiver<Job>,
}

impl Builder {
    /// Starts the pool on tasks.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    #[must_use]
    pub fn tasks(self) -> TaskPool {
        let location = Location::caller();
        let (jobs, rest) = self.queue::<Job>();
        let shared = self.shared();
        for n in 0..shared.workers {
            let name = Name::Owned(format!("{}-{n}", shared.name));
            let worker = supervise(Arc::clone(&shared), rest.clone());
            drop(shared.ctx.spawn_unowned(name, location, worker));
        }
        TaskPool { inner: Arc::new(Inner { shared, jobs, rest }) }
    }
}

async fn supervise(shared: Arc<Shared>, queue: Receiver<Job>) {
    let mut failures = 0;
    loop {
        let born = clock::now();
        match panics::catch_async(work(&shared, &queue)).await {
            Ok(End::Finished) => break,
            Ok(End::Died) => {}
            Err(message) => {
                tracing::error!(pool = %shared.name, %message, "a worker panicked outside of a job")
            }
        }
        let pause = shared.worker_died(&mut failures, born);
        let _cut_short = tokio::time::timeout(pause, shared.hurry.cancelled()).await;
    }
    if shared.ctx.is_cancelled() {
        shared.stop(&queue, Cause::Shutdown);
    }
}

async fn work(shared: &Shared, queue: &Receiver<Job>) -> End {
    while let Some(job) = next_job(&shared.ctx, queue).await {
        if job.await == Ran::Panicked && shared.panic_ends_worker {
            return End::Died;
        }
    }
    End::Finished
}

impl TaskPool {
    /// Runs `fut` on a worker, waiting for room. Dropping this future cancels the job unless it runs already; then it
    /// finishes and its result is dropped. It waits without limit: prefer [`TaskPool::run_within`].
    ///
    /// # Errors
    /// `Stopped`, `Panicked`, `Cancelled`; `TimedOut` past the pool's job timeout, which starts with the job.
    pub async fn run<F>(&self, fut: F) -> Result<F::Output, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (job, handle) = self.job(fut);
        self.inner.jobs.submit(job).await.map_err(|error| PoolError::refused(&error))?;
        handle.await
    }

    /// Hands `fut` to a worker if there is room now.
    ///
    /// # Errors
    /// `Full` or `Stopped`; nothing ran.
    pub fn try_run<F>(&self, fut: F) -> Result<JoinHandle<F::Output>, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (job, handle) = self.job(fut);
        self.inner.jobs.try_submit(job).map_err(|error| PoolError::refused(&error))?;
        Ok(handle)
    }

    /// Runs `fut`, waiting for room and result until `deadline`. Past it a queued job is cancelled, a running one finishes
    /// and its result is dropped.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`TaskPool::run`].
    pub async fn run_within<F>(&self, deadline: Instant, fut: F) -> Result<F::Output, PoolError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::time::timeout_at(deadline, self.run(fut)).await.unwrap_or(Err(PoolError::TimedOut))
    }

    fn job<F>(&self, fut: F) -> (Job, JoinHandle<F::Output>)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (tell, result) = oneshot::channel();
        let shared = Arc::clone(&self.inner.shared);
        let job = Box::pin(async move {
            let running = Running::start(&shared);
            if tell.is_closed() {
                running.end(Ran::Cancelled);
                return Ran::Cancelled;
            }
            let fut = panics::catch_async(fut);
            let outcome = match shared.job_timeout {
                None => Some(fut.await),
                Some(limit) => tokio::time::timeout(limit, fut).await.ok(),
            };
            let (ran, result) = match outcome {
                Some(Ok(value)) => (Ran::Done, Ok(value)),
                Some(Err(message)) => (Ran::Panicked, Err(PoolError::Panicked { message })),
                None => (Ran::TimedOut, Err(PoolError::TimedOut)),
            };
            running.end(ran);
            drop(tell.send(result));
            ran
        });
        (job, JoinHandle::new(result))
    }

    /// Takes no more jobs, finishes the accepted ones until `deadline`, then abandons the rest: those queued are answered
    /// `Cancelled`, those running are aborted. Cancel safe: dropped, it leaves the pool closed and draining.
    pub async fn drain(&self, deadline: Instant) -> Drained {
        let Inner { shared, rest, .. } = &*self.inner;
        let before = shared.ended();
        rest.close();
        shared.hurry.cancel(Cause::Shutdown);
        if !shared.workers_end(deadline).await {
            shared.counts.leave_running_behind();
            shared.stop(rest, Cause::Shutdown);
            shared.ctx.kill(Cause::Shutdown);
            let _ended = shared.workers_end(clock::now() + ABORT_GRACE).await;
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
        self.shared.ctx.kill(Cause::Dropped);
    }
}

impl fmt::Debug for TaskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("stats", &self.stats()).finish()
    }
}
