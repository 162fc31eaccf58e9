//! The context: cancellation with a cause, a deadline, a name, a parent.
//!
//! Owns the tree of contexts: each node knows its parent strongly, its children weakly and its own tasks, and how many live
//! in it and below.
//! It is handed down as an argument and never ambient. Cancelling is polite: a future sees it through [`Ctx::run`] or
//! [`Ctx::cancelled`]. Killing (the supervisor's last word, and the end of a scope) aborts every task below.
//!
//! ```text
//! root ── child ── child        cancel: reaches every descendant, except below a supervisor,
//!           └── task            which passes it on itself, in its stop order
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::members::Members;
use crate::clock::Instant;
use crate::orphans;
use crate::tasks::{self, Name, Record};

mod members;
#[cfg(all(test, loom))]
mod members_model;
mod tree;

pub(crate) use self::members::members;
pub use self::tree::{Branch, tree};

/// Why a context was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The program, or the part this belongs to, is stopping.
    Shutdown,
    /// A supervisor stops this child to restart it together with a sibling that failed.
    Restart,
    /// Someone asked for this one to end.
    Terminated,
    /// The owner dropped the handle.
    Dropped,
    /// A sibling or the peer failed; the text says how.
    Failed(Arc<str>),
    /// Any other reason, in words.
    Other(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("shutdown"),
            Self::Restart => f.write_str("restart"),
            Self::Terminated => f.write_str("terminated"),
            Self::Dropped => f.write_str("dropped by its owner"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Why [`Ctx::run`] ended before its future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The context was cancelled.
    Cancelled(Cause),
    /// The context's deadline passed.
    DeadlineExceeded,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cause) => write!(f, "cancelled: {cause}"),
            Self::DeadlineExceeded => f.write_str("deadline exceeded"),
        }
    }
}

impl std::error::Error for Stopped {}

/// A place in the tree of lifetimes. Cloning gives another handle to the same place.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Cause, Ctx, Stopped};
/// let ctx = Ctx::root("app");
/// let task = { let ctx = ctx.child("worker"); ctx.clone().spawn("loop", async move { ctx.cancelled().await }) };
/// ctx.cancel(Cause::Shutdown);
/// assert_eq!(task.join().await, Ok(Cause::Shutdown));
/// assert_eq!(ctx.run(std::future::pending::<()>()).await, Err(Stopped::Cancelled(Cause::Shutdown)));
/// # }
/// ```
#[derive(Clone)]
pub struct Ctx {
    node: Arc<Node>,
    supervisor: Option<Arc<Listener>>,
}

/// What a child says to its supervisor while it lives.
pub(crate) enum Sign {
    Ready(Option<StartInfo>),
    Beat,
}

pub(crate) type Listener = dyn Fn(Sign) + Send + Sync;

/// What a child hands to whoever started it, with [`Ctx::ready_with`]. Cloning shares it; two are equal when they share.
#[derive(Clone)]
pub struct StartInfo(Arc<dyn Any + Send + Sync>);

impl StartInfo {
    /// The information, when it is a `T`.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for StartInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartInfo").finish_non_exhaustive()
    }
}

impl PartialEq for StartInfo {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StartInfo {}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("path", &self.path())
            .field("cause", &self.cause())
            .finish_non_exhaustive()
    }
}

impl Ctx {
    /// A context without parent, deadline or cause. One per program, one per test.
    #[must_use]
    pub fn root(name: impl Into<Name>) -> Self {
        let node = Node::new(name.into(), None, None, Link::Plain);
        ROOTS.lock().insert(node.id, Arc::downgrade(&node));
        Self { node, supervisor: None }
    }

    /// A context below this one: cancelled with it, with its deadline, or alone.
    #[must_use]
    pub fn child(&self, name: impl Into<Name>) -> Self {
        Self {
            node: Node::new(name.into(), Some(&self.node), self.node.deadline, Link::Plain),
            supervisor: self.supervisor.clone(),
        }
    }

    /// A context below this one that ends at `deadline`, or at this one's if that is earlier: deadlines never grow.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        let deadline = self.node.deadline.map_or(deadline, |own| own.min(deadline));
        Self {
            node: Node::new(Name::Borrowed(""), Some(&self.node), Some(deadline), Link::Plain),
            supervisor: self.supervisor.clone(),
        }
    }

    /// A context that is part of this one's tree (path, liveness, killing) but that a polite cancel passes by, because a
    /// supervisor hands the cancel on in its own order.
    pub(crate) fn shielded(&self, name: impl Into<Name>, supervisor: Arc<Listener>) -> Self {
        let node = Node::new(name.into(), Some(&self.node), None, Link::Shielded);
        Self { node, supervisor: Some(supervisor) }
    }

    /// A context below this one whose [`Ctx::ready`] and [`Ctx::beat`] nobody hears.
    pub(crate) fn unheard_child(&self, name: impl Into<Name>) -> Self {
        Self { supervisor: None, ..self.child(name) }
    }

    /// The moment at which [`Ctx::run`] gives up, if any.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline
    }

    /// The name given to this context (or the nearest one above it that has one).
    #[must_use]
    pub fn name(&self) -> &str {
        let mut node = &self.node;
        loop {
            match &node.parent {
                Some(parent) if node.name.is_empty() => node = parent,
                _ => return &node.name,
            }
        }
    }

    /// The names from the root to here, joined by `/`.
    #[must_use]
    pub fn path(&self) -> String {
        self.node.path()
    }

    /// Cancels this context and every one below it. The first cause stays.
    pub fn cancel(&self, cause: Cause) {
        self.node.cancel(&cause);
    }

    /// Whether it was cancelled. Costs one atomic load.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.node.is_cancelled()
    }

    /// The cause, once cancelled.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.node.cause()
    }

    /// Waits until cancelled. A passed deadline does not end it: see [`Ctx::run`]. A dump shows who waits here, and for
    /// which context.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn cancelled(&self) -> Cause {
        let mut cancelled = pin!(self.until_cancelled());
        poll_fn(|cx| {
            let polled = cancelled.as_mut().poll(cx);
            if polled.is_pending() {
                tasks::note_wait("context", self.node.label());
            }
            polled
        })
        .await
    }

    async fn until_cancelled(&self) -> Cause {
        loop {
            let mut notified = pin!(self.node.on_cancel.notified());
            notified.as_mut().enable();
            if let Some(cause) = self.cause() {
                return cause;
            }
            notified.await;
        }
    }

    /// Runs `fut` until it ends, this context is cancelled, or its deadline passes. A context that is already over never
    /// polls `fut`. When it stops early `fut` is dropped: pass only cancel-safe futures whose loss is acceptable.
    ///
    /// # Errors
    /// [`Stopped`] says which of the two ended it.
    ///
    /// # Cancel safety
    /// Dropped, it drops `fut`.
    ///
    /// # Panics
    /// When it has a deadline and is awaited outside of a Tokio runtime with a timer.
    pub async fn run<F: Future>(&self, fut: F) -> Result<F::Output, Stopped> {
        let mut cancelled = pin!(self.until_cancelled());
        let mut deadline = pin!(self.node.deadline.map(tokio::time::sleep_until));
        let mut fut = pin!(fut);
        poll_fn(|cx| {
            if let Poll::Ready(cause) = cancelled.as_mut().poll(cx) {
                return Poll::Ready(Err(Stopped::Cancelled(cause)));
            }
            if let Some(deadline) = deadline.as_mut().as_pin_mut()
                && deadline.poll(cx).is_ready()
            {
                return Poll::Ready(Err(Stopped::DeadlineExceeded));
            }
            fut.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Tells the supervisor that the child this context was made for is up. Does nothing elsewhere, or the second time.
    pub fn ready(&self) {
        self.tell(Sign::Ready(None));
    }

    /// As [`Ctx::ready`], with something for whoever asked for the start: the port that was bound, a handle to the child.
    /// It arrives when the start waits for ready ([`Child::ready_within`](crate::supervise::Child::ready_within)).
    pub fn ready_with<T: Any + Send + Sync>(&self, info: T) {
        self.tell(Sign::Ready(Some(StartInfo(Arc::new(info)))));
    }

    /// A child's heartbeat: tells its supervisor that it makes progress. Costs one reading of the clock and one store; does
    /// nothing elsewhere. See [`Heartbeat`](crate::supervise::Heartbeat).
    pub fn beat(&self) {
        self.tell(Sign::Beat);
    }

    fn tell(&self, sign: Sign) {
        if let Some(supervisor) = &self.supervisor {
            supervisor(sign);
        }
    }

    /// How many tasks and threads live in this context and below.
    #[must_use]
    pub fn live(&self) -> usize {
        self.node.members.live()
    }

    /// Waits until no task or thread lives here or below. It waits without limit: give it a deadline.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn idle(&self) {
        loop {
            let mut notified = pin!(self.node.on_idle.notified());
            notified.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Cancels, then ends every task here and below at its next await. Threads only see the cancel.
    pub(crate) fn kill(&self, cause: Cause) {
        self.node.cancel(&cause);
        self.node.kill();
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Plain,
    Shielded,
}

/// The live contexts without parent, for [`tree()`].
static ROOTS: Mutex<BTreeMap<u64, Weak<Node>>> = Mutex::new(BTreeMap::new());

/// One context in the tree. Lock order: a parent's `tree` is never held while a child's is taken, nor the reverse.
pub(crate) struct Node {
    id: u64,
    name: Name,
    parent: Option<Arc<Node>>,
    deadline: Option<Instant>,
    link: Link,
    cancelled: AtomicBool,
    killed: AtomicBool,
    members: Members,
    on_cancel: Notify,
    on_idle: Notify,
    tree: Mutex<Tree>,
    /// Its path, once someone waits for its end.
    label: OnceLock<Arc<str>>,
}

#[derive(Default)]
struct Tree {
    cause: Option<Cause>,
    killed: bool,
    children: BTreeMap<u64, Weak<Node>>,
}

impl Node {
    fn new(
        name: Name,
        parent: Option<&Arc<Node>>,
        deadline: Option<Instant>,
        link: Link,
    ) -> Arc<Self> {
        let node = Arc::new(Self {
            id: tasks::next_id(),
            name,
            parent: parent.cloned(),
            deadline,
            link,
            cancelled: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            members: Members::new(),
            on_cancel: Notify::new(),
            on_idle: Notify::new(),
            tree: Mutex::new(Tree::default()),
            label: OnceLock::new(),
        });
        if let Some(parent) = parent {
            let mut tree = parent.tree.lock();
            tree.children.insert(node.id, Arc::downgrade(&node));
            let killed = tree.killed;
            let cause = tree.cause.clone().filter(|_| link == Link::Plain || killed);
            drop(tree);
            if let Some(cause) = cause {
                node.cancel(&cause);
            }
            if killed {
                node.kill();
            }
        }
        node
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn label(&self) -> &Arc<str> {
        self.label.get_or_init(|| Arc::from(self.path()))
    }

    pub(crate) fn path(&self) -> String {
        let mut names = Vec::new();
        let mut node = Some(self);
        while let Some(at) = node {
            if !at.name.is_empty() {
                names.push(at.name.as_ref());
            }
            node = at.parent.as_deref();
        }
        names.reverse();
        names.join("/")
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn descends_from(&self, id: u64) -> bool {
        let mut node = Some(self);
        while let Some(at) = node {
            if at.id == id {
                return true;
            }
            node = at.parent.as_deref();
        }
        false
    }

    fn cancel(self: &Arc<Self>, cause: &Cause) {
        orphans::cancelled(self);
        let mut todo = vec![Arc::clone(self)];
        while let Some(node) = todo.pop() {
            let mut tree = node.tree.lock();
            if tree.cause.is_some() {
                continue; // whoever cancelled it reaches what is below
            }
            tree.cause = Some(cause.clone());
            node.cancelled.store(true, Ordering::Release);
            let below: Vec<_> = tree.children.values().filter_map(Weak::upgrade).collect();
            drop(tree);
            node.on_cancel.notify_waiters();
            todo.extend(below.into_iter().filter(|child| child.link == Link::Plain));
        }
    }

    fn kill(self: &Arc<Self>) {
        let mut todo = vec![Arc::clone(self)];
        let mut killed = Vec::new();
        while let Some(node) = todo.pop() {
            let mut tree = node.tree.lock();
            tree.killed = true;
            node.killed.store(true, Ordering::Relaxed);
            let cause = tree.cause.clone();
            let below: Vec<_> = tree.children.values().filter_map(Weak::upgrade).collect();
            drop(tree);
            killed.push(Arc::clone(&node));
            for child in below {
                child.cancel(cause.as_ref().unwrap_or(&Cause::Terminated));
                todo.push(child);
            }
        }
        for node in killed {
            members::of(node).flatten().for_each(|record| record.kill());
        }
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
        self.tree.lock().cause.clone()
    }

    /// Counts a task or thread here and in every context above, and lists it here. Tells it when this context was killed.
    pub(crate) fn admit(&self, record: &Arc<Record>) {
        self.line().for_each(|node| node.members.one_more());
        self.members.enter(Arc::clone(record));
        // Who kills takes the list's lock after saying so: either it finds the record, or this sees what it said.
        if self.killed.load(Ordering::Relaxed) {
            record.kill();
        }
    }

    /// One that was admitted here has ended, and is marked so.
    pub(crate) fn dismiss(&self) {
        if self.members.leave() {
            self.on_idle.notify_waiters();
        }
        for above in self.line().skip(1) {
            if above.members.one_less() {
                above.on_idle.notify_waiters();
            }
        }
    }

    /// This one and those above it.
    fn line(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |node| node.parent.as_deref())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        match &self.parent {
            Some(parent) => drop(parent.tree.lock().children.remove(&self.id)),
            None => drop(ROOTS.lock().remove(&self.id)),
        }
    }
}
