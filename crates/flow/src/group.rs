//! Many tasks that stand or fall together: [`Group`], and [`fan_out`] for an answer by a deadline.
//!
//! Owns its tasks and their results until it is finished; dropped before, it aborts them. The first error cancels the
//! group's context with that cause: what runs is dropped at its next await, what waits for a place never starts. It never
//! runs more at once than its limit.
//!
//! ```text
//! spawn ─► place free? ─yes─► runs ─► result, in the order of spawning
//!   │           └─no─► waits ─► refused when the group failed
//!   └─ limit 0, or failed: refused, the future comes back
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Instant;
use crate::ctx::{Cause, Ctx, Stopped};
use crate::panic::{self, Panic};
use crate::spawn::Unowned;
use crate::tasks::Name;

/// Why a task of a group did not give what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupError<E> {
    /// The task returned this error.
    Failed(E),
    /// The task panicked.
    Panicked(Panic),
    /// The context above was cancelled, or its deadline passed.
    Stopped(Stopped),
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "a task of the group failed: {error}"),
            Self::Panicked(panic) => write!(f, "a task of the group panicked: {panic}"),
            Self::Stopped(stopped) => write!(f, "the group was stopped: {stopped}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for GroupError<E> {}

/// A future the group did not take; it comes back inside.
pub enum Refused<F> {
    /// As many run as may. A later try may succeed, unless the limit is zero.
    Full(F),
    /// The group has failed or was cancelled: for good.
    Stopped(F),
}

impl<F> Refused<F> {
    /// The future that was not started.
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(fut) | Self::Stopped(fut) => fut,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => "the group runs as many tasks as it may",
            Self::Stopped(_) => "the group has failed or was cancelled",
        }
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Stopped(_) => "Stopped(..)",
        })
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<F> std::error::Error for Refused<F> {}

/// Tasks that stand or fall together, as Go's `errgroup`: the first error cancels the rest.
///
/// Its results are kept until [`Group::finish`], so a group is for as many tasks as their results fit in memory.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, Group, GroupError};
/// let mut group = Group::new(&Ctx::root("app"), "pages", 2);
/// for page in [3, 1, 2] {
///     group.spawn(async move { Ok::<_, String>(page * 10) }).await.unwrap();
/// }
/// assert_eq!(group.finish().await, Ok(vec![30, 10, 20])); // in the order of spawning
///
/// let mut group = Group::<u32, _>::new(&Ctx::root("app"), "pages", 2);
/// group.spawn(std::future::pending()).await.unwrap();
/// group.spawn(async { Err("gone") }).await.unwrap();
/// assert_eq!(group.finish().await, Err(GroupError::Failed("gone"))); // the first is cancelled, not waited for
/// # }
/// ```
#[must_use = "dropping a group aborts its tasks"]
pub struct Group<T, E> {
    ctx: Ctx,
    name: Name,
    limit: usize,
    places: Arc<Semaphore>,
    tasks: VecDeque<Unowned<Option<T>>>,
    failed: Arc<parking_lot::Mutex<Option<GroupError<E>>>>,
}

impl<T: Send + 'static, E: Send + 'static> Group<T, E> {
    /// A group below `ctx`, of whose tasks at most `limit` run at once.
    ///
    /// # Choosing a bound
    /// What the tasks share decides: connections to one peer, files open, memory each holds. For CPU work use a
    /// [`pool`](crate::pool). Zero refuses every task, which turns a feature off; more than 2^29 means no limit.
    pub fn new(ctx: &Ctx, name: impl Into<Name>, limit: usize) -> Self {
        panic::keep_stacks();
        let name = name.into();
        Self {
            ctx: ctx.child(name.clone()),
            name,
            limit,
            places: places(limit),
            tasks: VecDeque::new(),
            failed: Arc::default(),
        }
    }

    /// The group's own context, which the first error cancels: hand it to the tasks, cancel it to end the group.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Starts `fut` as a task, waiting for a place.
    ///
    /// # Errors
    /// [`Refused::Stopped`] once the group failed or its context is over, even while waiting: then `fut` never runs.
    /// [`Refused::Full`] when the limit is zero. Both hand `fut` back.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it drops `fut` with it, unstarted.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&mut self, fut: F) -> impl Future<Output = Result<(), Refused<F>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let location = Location::caller();
        async move {
            if self.limit == 0 {
                return Err(Refused::Full(fut));
            }
            let place = Arc::clone(&self.places).acquire_owned();
            match self.ctx.run(place).await {
                Ok(Ok(place)) => {
                    self.start(fut, place, location);
                    Ok(())
                }
                Ok(Err(_)) | Err(_) => Err(Refused::Stopped(fut)),
            }
        }
    }

    /// Starts `fut` as a task if there is a place now.
    ///
    /// # Errors
    /// [`Refused`], with `fut`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[track_caller]
    pub fn try_spawn<F>(&mut self, fut: F) -> Result<(), Refused<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        if self.ctx.is_cancelled() {
            return Err(Refused::Stopped(fut));
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Refused::Full(fut));
        };
        self.start(fut, place, Location::caller());
        Ok(())
    }

    fn start<F>(
        &mut self,
        fut: F,
        place: OwnedSemaphorePermit,
        location: &'static Location<'static>,
    ) where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (ctx, failed) = (self.ctx.clone(), Arc::clone(&self.failed));
        let task = async move {
            let result = match ctx.run(panic::catch_async(fut)).await {
                Ok(Ok(Ok(value))) => Ok(value),
                Ok(Ok(Err(error))) => Err((GroupError::Failed(error), "a task failed")),
                Ok(Err(panic)) => Err((GroupError::Panicked(panic), "a task panicked")),
                Err(stopped) => Err((GroupError::Stopped(stopped), "the deadline passed")),
            };
            let value = result.map_err(|(error, why)| {
                // The first stays; what it cancels fails after it.
                failed.lock().get_or_insert(error);
                ctx.cancel(Cause::Failed(Arc::from(why)));
            });
            drop(place);
            value.ok()
        };
        let handle = self.ctx.spawn_unowned(self.name.clone(), location, task);
        self.tasks.push_back(handle);
    }

    /// How many tasks it took so far, ended or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it took none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for every task; gives the results in the order of spawning.
    ///
    /// # Errors
    /// The first error of any task; the others were cancelled, and have ended when this returns.
    ///
    /// # Cancel safety
    /// Dropped, it drops the group and aborts what still runs.
    pub async fn finish(mut self) -> Result<Vec<T>, GroupError<E>> {
        let taken = self.tasks.len();
        let mut results = Vec::with_capacity(taken);
        while let Some(task) = self.tasks.front_mut() {
            // Stays in the group until it has ended, so that dropping this future aborts it.
            let ended = task.await;
            self.tasks.pop_front();
            // A task is aborted only from outside, by a kill of the context above.
            results.extend(ended.flatten());
        }
        if let Some(error) = self.failed.lock().take() {
            return Err(error);
        }
        match self.ctx.cause() {
            // Killed from above before any task could tell.
            Some(cause) if results.len() < taken => {
                Err(GroupError::Stopped(Stopped::Cancelled(cause)))
            }
            _ => Ok(results),
        }
    }
}

impl<T, E> Drop for Group<T, E> {
    fn drop(&mut self) {
        if !self.tasks.is_empty() {
            self.ctx.kill(Cause::Dropped);
        }
    }
}

impl<T, E> fmt::Debug for Group<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("ctx", &self.ctx)
            .field("limit", &self.limit)
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

/// What became of a part of a fan-out that gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// It ran when the deadline passed, or the context was cancelled, and was dropped at its next await.
    Unfinished,
    /// Its turn did not come before that.
    NotStarted,
    /// It panicked.
    Panicked(Panic),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("not finished in time"),
            Self::NotStarted => f.write_str("not started in time"),
            Self::Panicked(panic) => write!(f, "panicked: {panic}"),
        }
    }
}

/// What a fan-out brought in by its deadline. Each part is in one of the two, both in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial<K, T> {
    /// The parts that ended in time, each with its result.
    pub finished: Vec<(K, T)>,
    /// The others, each with the reason.
    pub missing: Vec<(K, Missing)>,
}

impl<K, T> Partial<K, T> {
    /// Whether every part ended in time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Ends what is left of a fan-out, whichever way it is left.
struct Ends(Ctx);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill(Cause::Dropped);
    }
}

/// Runs `part` for each key as a task, at most `limit` at once, and returns at `deadline` (or at the context's, if that is
/// earlier) with what is there. The rest is cancelled and named. Each part gets a context that ends with the fan-out, so
/// that what it calls cannot take longer. `name` is that of the context and of the tasks.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use forebay_flow::{Ctx, clock, fan_out};
/// let deadline = clock::now() + Duration::from_millis(20);
/// let partial = fan_out(&Ctx::root("app"), "ask", deadline, 8, ["near", "far"], |peer, _ctx| async move {
///     if peer == "far" {
///         std::future::pending::<()>().await;
///     }
///     peer.len()
/// })
/// .await;
/// assert_eq!(partial.finished, [("near", 4)]);
/// assert_eq!(partial.missing[0].0, "far");
/// # }
/// ```
///
/// # Choosing a bound
/// `limit`: how much at once the parts' peers take from one caller. The number of keys bounds the memory for results. A
/// limit of zero starts nothing: every key comes back [`Missing::NotStarted`] at once.
///
/// # Cancel safety
/// Dropped, it aborts what runs. Results already there are lost.
///
/// # Panics
/// Outside of a Tokio runtime. A panic in a part is that part's [`Missing::Panicked`].
#[track_caller]
pub fn fan_out<K, F, T>(
    ctx: &Ctx,
    name: impl Into<Name>,
    deadline: Instant,
    limit: usize,
    keys: impl IntoIterator<Item = K>,
    mut part: impl FnMut(K, Ctx) -> F,
) -> impl Future<Output = Partial<K, T>>
where
    K: Clone,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    panic::keep_stacks();
    let (location, name) = (Location::caller(), name.into());
    let ends = Ends(ctx.with_deadline(deadline).child(name.clone()));
    async move {
        let ctx = &ends.0;
        let places = places(limit);
        let mut parts = Vec::new();
        for key in keys {
            let place = match limit {
                0 => None,
                _ => ctx.run(Arc::clone(&places).acquire_owned()).await.ok().and_then(Result::ok),
            };
            let handle = place.map(|place| {
                let (own, fut) = (ctx.clone(), part(key.clone(), ctx.clone()));
                let task = async move {
                    let ended = own.run(panic::catch_async(fut)).await;
                    drop(place);
                    ended
                };
                ctx.spawn_unowned(name.clone(), location, task)
            });
            parts.push((key, handle));
        }
        gather(ctx, parts).await
    }
}

type Ended<T> = Result<Result<T, Panic>, Stopped>;

/// Waits for the parts while there is time, and then takes what is there.
async fn gather<K, T>(ctx: &Ctx, parts: Vec<(K, Option<Unowned<Ended<T>>>)>) -> Partial<K, T> {
    let mut partial = Partial { finished: Vec::new(), missing: Vec::new() };
    for (key, handle) in parts {
        let Some(mut handle) = handle else {
            partial.missing.push((key, Missing::NotStarted));
            continue;
        };
        let ended = match ctx.run(&mut handle).await {
            Ok(ended) => ended,
            Err(_) if handle.is_finished() => handle.await,
            // It may be between two awaits: nobody waits for that.
            Err(_) => None,
        };
        match ended {
            Some(Ok(Ok(value))) => partial.finished.push((key, value)),
            Some(Ok(Err(panic))) => partial.missing.push((key, Missing::Panicked(panic))),
            Some(Err(_)) | None => partial.missing.push((key, Missing::Unfinished)),
        }
    }
    partial
}

#[expect(
    clippy::disallowed_methods,
    reason = "each place belongs to a task that is seen by its own name"
)]
fn places(limit: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))
}
