//! Threads of one's own, registered like tasks.
//!
//! Owns the wrapper around every thread the toolkit starts. A thread cannot be aborted: it gets a context and must look
//! at it. Nothing here detaches silently: a dropped handle cancels the thread's context.

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;

use crate::clock;
use crate::ctx::{Cause, Ctx};
use crate::panic::{self, Panic};
use crate::spawn::TaskError;
use crate::tasks::{self, Kind, Name, Registered};

/// A running thread. Dropping the handle cancels the thread's context and does not wait.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, thread};
/// let sum = thread::spawn(&Ctx::root("app"), "sum", |ctx| {
///     (1..=10).take_while(|_| !ctx.is_cancelled()).sum::<u32>() // it looks, for nobody can stop it
/// });
/// assert_eq!(sum.unwrap().join().await, Ok(55));
/// # }
/// ```
#[must_use = "dropping the handle cancels the thread's context"]
#[derive(Debug)]
pub struct Thread<T> {
    ctx: Ctx,
    result: oneshot::Receiver<Result<T, Panic>>,
    handle: Option<thread::JoinHandle<()>>,
}

impl<T> Thread<T> {
    /// The thread's own context: cancel it to ask the thread to end.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Waits for the thread's result without blocking the runtime. It waits without limit, for a thread cannot be stopped.
    ///
    /// # Errors
    /// [`TaskError::Panicked`] when the thread panicked.
    ///
    /// # Cancel safety
    /// Dropped, it drops the handle, which cancels the thread's context; the result is lost.
    pub async fn join(mut self) -> Result<T, TaskError> {
        let result = (&mut self.result).await;
        settle(result)
    }

    /// Waits for the thread's result, blocking the caller: only from another thread, never from a task.
    ///
    /// # Errors
    /// [`TaskError::Panicked`] when the thread panicked.
    pub fn join_blocking(mut self) -> Result<T, TaskError> {
        let result = block_on(&mut self.result);
        if let Some(handle) = self.handle.take() {
            // The body's panic is in `result`; the wrapper itself does not panic.
            drop(handle.join());
        }
        settle(result)
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        self.ctx.cancel(Cause::Dropped);
    }
}

fn settle<T>(result: Result<Result<T, Panic>, oneshot::error::RecvError>) -> Result<T, TaskError> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => Err(TaskError::Panicked(panic)),
        Err(_) => Err(TaskError::Cancelled(Cause::Terminated)),
    }
}

/// Starts a thread named `name` under `ctx`; `f` gets a context of its own, a child of `ctx`, and should look at it often: it
/// cannot be stopped otherwise. For many short jobs use a [`pool`](crate::pool::ThreadPool).
///
/// # Errors
/// When the system refuses a thread.
#[track_caller]
pub fn spawn<T, F>(ctx: &Ctx, name: impl Into<Name>, f: F) -> io::Result<Thread<T>>
where
    F: FnOnce(Ctx) -> T + Send + 'static,
    T: Send + 'static,
{
    spawn_at(ctx, name.into(), Location::caller(), f)
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub(crate) fn spawn_at<T, F>(
    ctx: &Ctx,
    name: Name,
    location: &'static Location<'static>,
    f: F,
) -> io::Result<Thread<T>>
where
    F: FnOnce(Ctx) -> T + Send + 'static,
    T: Send + 'static,
{
    let own = ctx.child(name.clone());
    let inner = own.clone();
    let (tell, result) = oneshot::channel();
    let os_name = name.to_string();
    let (mut registered, _) = Registered::new(name, Kind::Thread, Arc::clone(ctx.node()), location);
    let handle = thread::Builder::new().name(os_name).spawn(move || {
        let outcome = {
            let _run = registered.enter();
            panic::catch(move || f(inner))
        };
        drop(registered);
        // Nobody may be waiting any more; then the result is dropped.
        drop(tell.send(outcome));
    })?;
    Ok(Thread { ctx: own, result, handle: Some(handle) })
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Polls `fut` on this thread, parking between polls. Only for futures that need no runtime.
pub(crate) fn block_on<F: Future>(fut: F) -> F::Output {
    let mut fut = pin!(fut);
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(value) = fut.as_mut().poll(&mut cx) {
                return value;
            }
            tasks::mark_thread_waiting();
            thread::park();
            tasks::clear_thread_wait();
        }
    })
}

/// As [`block_on`], for `limit` of real time at most.
pub(crate) fn block_on_for<F: Future>(fut: F, limit: Duration) -> Option<F::Output> {
    let mut fut = pin!(fut);
    let end =
        clock::real_nanos().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(value) = fut.as_mut().poll(&mut cx) {
                return Some(value);
            }
            let left = end.saturating_sub(clock::real_nanos());
            if left == 0 {
                return None;
            }
            thread::park_timeout(Duration::from_nanos(left));
        }
    })
}
