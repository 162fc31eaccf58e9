//! What is run: futures on tasks, closures on threads, with a caller who waits for the result or without.
//!
//! Owns the job until it ends. A job knows nothing of who runs it: the worker catches its panics, counts its end, and
//! only then lets it answer, so that who has a result sees it in the figures.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::slot::{Ran, Seen};
use super::{PoolError, panic};

/// What a job without a caller may return: it is counted as done or failed.
///
/// ```
/// use forebay_flow::pool::Outcome;
/// assert!(!().failed());
/// assert!(Err::<(), _>("refused").failed());
/// ```
pub trait Outcome {
    /// Whether the job failed: counted in [`PoolStats::failed`](super::PoolStats::failed).
    fn failed(&self) -> bool;
}

impl Outcome for () {
    fn failed(&self) -> bool {
        false
    }
}

impl<T, E> Outcome for Result<T, E> {
    fn failed(&self) -> bool {
        self.is_err()
    }
}

fn ran(outcome: &impl Outcome) -> Ran {
    if outcome.failed() { Ran::Failed } else { Ran::Done }
}

/// A job under way: await it for the result.
///
/// # Cancel safety
/// Dropping it cancels the job if it is still queued; one that runs finishes and its result is dropped. To wait for it
/// with a limit and keep it, await `&mut handle`.
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
    /// Waits for the result.
    ///
    /// # Errors
    /// As [`ThreadPool::run`](super::ThreadPool::run).
    ///
    /// # Cancel safety
    /// Dropped, it drops the handle, which cancels the job if it is still queued.
    pub async fn join(self) -> Result<T, PoolError> {
        self.await
    }

    /// Waits for the result on a thread that is no task. In a task it would hold its runtime's thread, perhaps the one the
    /// job needs.
    ///
    /// # Errors
    /// As [`ThreadPool::run`](super::ThreadPool::run).
    pub fn join_blocking(self) -> Result<T, PoolError> {
        crate::thread::block_on(self)
    }
}

/// The way back to the caller. Whoever takes it answers.
struct Line<T>(Mutex<Option<oneshot::Sender<Result<T, PoolError>>>>);

impl<T> Line<T> {
    fn new() -> (Arc<Self>, JoinHandle<T>) {
        let (tell, result) = oneshot::channel();
        (Arc::new(Self(Mutex::new(Some(tell)))), JoinHandle { result })
    }

    fn gone(&self) -> bool {
        self.0.lock().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn tell(&self, result: Result<T, PoolError>) {
        let line = self.0.lock().take();
        if let Some(line) = line {
            // A caller that went away meanwhile does not want it.
            drop(line.send(result));
        }
    }
}

/// Answers a caller in the place of a worker that does not come back.
pub(super) trait Answer: Send + Sync {
    fn answer(&self, error: PoolError);
}

impl<T: Send> Answer for Line<T> {
    fn answer(&self, error: PoolError) {
        self.tell(Err(error));
    }
}

/// What a thread runs: since when (real time), and who waits for it.
pub(super) struct Current {
    pub(super) began_nanos: u64,
    pub(super) seen: Seen,
    pub(super) caller: Option<Arc<dyn Answer>>,
}

/// A job on a task.
pub(super) trait TaskWork: Send {
    /// Whether somebody still wants it.
    fn wanted(&self) -> bool {
        true
    }

    /// Goes on with it; the result stays inside.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ran>;

    /// Hands the result, or why there is none, to the caller.
    fn answer(self: Pin<&mut Self>, _error: Option<PoolError>) {}
}

pub(super) type TaskJob = Pin<Box<dyn TaskWork>>;

pin_project! {
    pub(super) struct Untold<F> {
        #[pin]
        fut: Option<F>,
    }
}

pub(super) fn untold<F>(fut: F) -> TaskJob
where
    F: Future<Output: Outcome> + Send + 'static,
{
    Box::pin(Untold { fut: Some(fut) })
}

impl<F: Future<Output: Outcome> + Send> TaskWork for Untold<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ran> {
        let mut fut = self.project().fut;
        let Some(running) = fut.as_mut().as_pin_mut() else {
            return Poll::Ready(Ran::Done);
        };
        let outcome = std::task::ready!(running.poll(cx));
        // Dropped in here, where a panic is caught.
        fut.set(None);
        Poll::Ready(ran(&outcome))
    }
}

pin_project! {
    pub(super) struct Told<F: Future> {
        #[pin]
        fut: Option<F>,
        result: Option<F::Output>,
        tell: Option<oneshot::Sender<Result<F::Output, PoolError>>>,
    }
}

pub(super) fn told<F>(fut: F) -> (TaskJob, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let (tell, result) = oneshot::channel();
    (Box::pin(Told { fut: Some(fut), result: None, tell: Some(tell) }), JoinHandle { result })
}

impl<F: Future<Output: Send> + Send> TaskWork for Told<F> {
    fn wanted(&self) -> bool {
        self.tell.as_ref().is_some_and(|tell| !tell.is_closed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ran> {
        let mut this = self.project();
        if let Some(running) = this.fut.as_mut().as_pin_mut() {
            *this.result = Some(std::task::ready!(running.poll(cx)));
            this.fut.set(None);
        }
        Poll::Ready(Ran::Done)
    }

    fn answer(self: Pin<&mut Self>, error: Option<PoolError>) {
        let this = self.project();
        let result = match (error, this.result.take()) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(result),
            (None, None) => Err(PoolError::Cancelled),
        };
        if let Some(tell) = this.tell.take() {
            drop(tell.send(result));
        }
    }
}

/// A job on a thread.
pub(super) trait ThreadWork: Send {
    fn caller(&self) -> Option<Arc<dyn Answer>>;

    /// Runs it, has its end counted once, and then answers. It panics only after that, when nobody takes the result and
    /// that panics as it is dropped.
    fn run(self: Box<Self>, count: &mut dyn FnMut(Ran));
}

pub(super) type ThreadJob = Box<dyn ThreadWork>;

struct Loose<F>(F);

pub(super) fn loose<O, F>(f: F) -> ThreadJob
where
    F: FnOnce() -> O + Send + 'static,
    O: Outcome,
{
    Box::new(Loose(f))
}

impl<O: Outcome, F: FnOnce() -> O + Send> ThreadWork for Loose<F> {
    fn caller(&self) -> Option<Arc<dyn Answer>> {
        None
    }

    fn run(self: Box<Self>, count: &mut dyn FnMut(Ran)) {
        count(panic::catch(|| ran(&(self.0)())).unwrap_or(Ran::Panicked));
    }
}

struct Called<T, F> {
    f: F,
    line: Arc<Line<T>>,
}

pub(super) fn called<T, F>(f: F) -> (ThreadJob, JoinHandle<T>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (line, handle) = Line::new();
    (Box::new(Called { f, line }), handle)
}

impl<T: Send + 'static, F: FnOnce() -> T + Send> ThreadWork for Called<T, F> {
    fn caller(&self) -> Option<Arc<dyn Answer>> {
        Some(Arc::clone(&self.line) as Arc<dyn Answer>)
    }

    fn run(self: Box<Self>, count: &mut dyn FnMut(Ran)) {
        let Self { f, line } = *self;
        if line.gone() {
            return count(Ran::Cancelled);
        }
        let result = panic::catch(f);
        count(if result.is_ok() { Ran::Done } else { Ran::Panicked });
        line.tell(result.map_err(PoolError::Panicked));
    }
}
