//! Starting tasks: each is registered, has an owner, and its panic is a result.
//!
//! Owns the wrapper around every future the toolkit runs. It never leaves a task without an owner: a [`Task`] belongs to
//! whoever holds the handle, a task of a [`Scope`] to the scope. A wrapper adds a few atomic stores and one clock reading
//! to each poll.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::{JoinError, JoinHandle};

use crate::clock::Instant;
use crate::ctx::{Cause, Ctx};
use crate::orphans;
use crate::panic::{self, Panic};
use crate::stacks;
use crate::tasks::{self, Kind, Name, Orders, Record, Registered};

/// How long an aborted task gets to reach its next await before it is left behind.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Why a task or thread has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// It panicked.
    Panicked(Panic),
    /// It was aborted: by its handle's drop, by its scope, or by a supervisor's last word.
    Cancelled(Cause),
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => write!(f, "panicked: {panic}"),
            Self::Cancelled(cause) => write!(f, "cancelled: {cause}"),
        }
    }
}

impl std::error::Error for TaskError {}

/// A running task. Dropping the handle aborts the task at its next await.
///
/// Await it (or call [`Task::join`]) for the result. Dropping the join future drops the handle with it.
#[must_use = "dropping the handle aborts the task"]
pub struct Task<T> {
    /// Of `None`: its context was killed.
    handle: JoinHandle<Option<T>>,
    id: u64,
    /// Until it is dropped.
    record: Option<Arc<Record>>,
}

impl<T> Task<T> {
    /// Waits for the task's result.
    ///
    /// # Errors
    /// [`TaskError::Panicked`] when it panicked, [`TaskError::Cancelled`] when it was aborted.
    ///
    /// # Cancel safety
    /// Dropped, it drops the handle and so aborts the task. To wait and keep it, await `&mut task`.
    pub async fn join(self) -> Result<T, TaskError> {
        self.await
    }

    /// Aborts the task at its next await; [`Task::join`] then tells so.
    pub fn abort(&self) {
        self.let_go();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    fn let_go(&self) {
        let finished = self.handle.is_finished();
        orphans::let_go(self.id(), finished);
        if !finished {
            self.handle.abort();
        }
    }

    /// Its id in the registry.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = std::task::ready!(Pin::new(&mut self.handle).poll(cx));
        let killed = match joined.map_err(JoinError::try_into_panic) {
            Ok(Some(value)) => return Poll::Ready(Ok(value)),
            Err(Ok(payload)) => {
                return Poll::Ready(Err(TaskError::Panicked(Panic::caught_elsewhere(payload))));
            }
            Ok(None) | Err(Err(_)) => {
                let owner = self.record.as_ref().and_then(|record| record.owner());
                owner.and_then(|owner| owner.cause()).unwrap_or(Cause::Dropped)
            }
        };
        Poll::Ready(Err(TaskError::Cancelled(killed)))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.let_go();
        if let Some(record) = self.record.take() {
            tasks::give_back(record);
        }
    }
}

impl Ctx {
    /// Starts `fut` as a task owned by the returned handle and registered under this context.
    ///
    /// The task sees this context's cancellation only where it looks ([`Ctx::run`], [`Ctx::cancelled`]); dropping the
    /// handle, or a kill from above, aborts it at its next await.
    ///
    /// # Choosing a bound
    /// A context bounds no number of tasks: bound what starts them, with [`admit::Slots`](crate::admit::Slots).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&self, name: impl Into<Name>, fut: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (record, handle) = self.start(name.into(), Location::caller(), fut);
        Task { handle, id: record.id(), record: Some(record) }
    }

    /// Starts a task whose owner is this context alone: it ends by itself or when the context is killed.
    pub(crate) fn spawn_unowned<F>(
        &self,
        name: Name,
        location: &'static Location<'static>,
        fut: F,
    ) -> Unowned<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (record, handle) = self.start(name, location, fut);
        tasks::give_back(record);
        Unowned { handle }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
    fn start<F>(
        &self,
        name: Name,
        location: &'static Location<'static>,
        fut: F,
    ) -> (Arc<Record>, JoinHandle<Option<F::Output>>)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let owner = Arc::clone(self.node());
        let (registered, record) = Registered::new(name, Kind::Task, owner, location);
        (record, tokio::spawn(Tracked { fut: Some(fut), registered }))
    }
}

/// The result of a task that its context owns: nothing when that was killed first, or when it panicked. Dropping this does
/// not end the task.
pub(crate) struct Unowned<T> {
    handle: JoinHandle<Option<T>>,
}

impl<T> Unowned<T> {
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Unowned<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.handle).poll(cx).map(|joined| joined.ok().flatten())
    }
}

pin_project! {
    /// A registered future. Not an `async fn`, which would keep room for the future twice.
    struct Tracked<F> {
        // In this order: the future is gone when the record goes.
        #[pin]
        fut: Option<F>,
        registered: Registered,
    }
}

impl<F: Future> Future for Tracked<F> {
    /// None when it was killed.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let orders = this.registered.orders();
        let polled = {
            let _poll = this.registered.enter();
            match (this.fut.as_mut().as_pin_mut(), orders) {
                (Some(fut), None) => fut.poll(cx).map(Some),
                (Some(fut), Some(Orders::Capture(asker))) => {
                    let (polled, captured) = stacks::poll_capturing(fut, cx);
                    // Who asked may be gone.
                    drop(asker.send(captured));
                    polled.map(Some)
                }
                (Some(_), Some(Orders::Die)) => {
                    this.fut.set(None);
                    Poll::Ready(None)
                }
                (None, _) => Poll::Ready(None),
            }
        };
        match polled {
            Poll::Ready(_) => this.registered.finish(),
            Poll::Pending => this.registered.keep(cx.waker()),
        }
        polled
    }
}

/// How many tasks of a scope did not end by themselves in time.
#[must_use = "tasks may have been aborted"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned(pub usize);

/// Many tasks with one owner: connections, requests, fan-out. Dropping the scope aborts what still runs.
///
/// Results are not kept, so a task should hand on what it makes; panics are counted. The scope does not bound how many
/// tasks run: take a permit before [`Scope::spawn`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, Scope, clock};
/// let scope = Scope::new(&Ctx::root("app"), "conns");
/// scope.spawn("conn", async {});
/// let abandoned = scope.finish(clock::now() + std::time::Duration::from_secs(1)).await;
/// assert_eq!(abandoned.0, 0);
/// # }
/// ```
#[derive(Debug)]
pub struct Scope {
    ctx: Ctx,
    panicked: Arc<AtomicUsize>,
}

impl Scope {
    /// A scope below `ctx`.
    #[must_use]
    pub fn new(ctx: &Ctx, name: impl Into<Name>) -> Self {
        Self { ctx: ctx.child(name), panicked: Arc::default() }
    }

    /// The scope's own context: hand children of it to the tasks, cancel it to ask them to end.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Starts a task in this scope.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&self, name: impl Into<Name>, fut: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let name = name.into();
        let (panicked, ctx, label) = (Arc::clone(&self.panicked), self.ctx.clone(), name.clone());
        let guarded = async move {
            if let Err(panic) = panic::catch_async(fut).await {
                panicked.fetch_add(1, Ordering::Relaxed);
                tracing::error!(scope = %ctx.path(), task = %label, %panic, "task panicked");
            }
        };
        drop(self.ctx.spawn_unowned(name, Location::caller(), guarded));
    }

    /// How many tasks run in it (and below it).
    #[must_use]
    pub fn len(&self) -> usize {
        self.ctx.live()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its tasks panicked so far.
    #[must_use]
    pub fn panicked(&self) -> usize {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Waits for the tasks to end by themselves, until `deadline`; aborts the rest and says how many they were. It does
    /// not cancel first: call `scope.ctx().cancel(…)` to ask politely. An aborted task that never reaches an await is
    /// left behind after one second.
    ///
    /// # Cancel safety
    /// Dropped, it aborts everything at once.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn finish(self, deadline: Instant) -> Abandoned {
        if tokio::time::timeout_at(deadline, self.ctx.idle()).await.is_ok() {
            return Abandoned(0);
        }
        let rest = self.ctx.live();
        self.ctx.kill(Cause::Terminated);
        let _left_behind = tokio::time::timeout(ABORT_GRACE, self.ctx.idle()).await.is_err();
        Abandoned(rest)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.ctx.kill(Cause::Dropped);
    }
}
