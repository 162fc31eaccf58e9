//! A child: its name, how it is started, and its rules. Plain settings: nothing here runs.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::plan::Supervisor;
use super::shared::{NodeKind, Shared};
use crate::ctx::Ctx;
use crate::tasks::Name;

/// When a child is restarted after it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always, also after a clean end.
    Permanent,
    /// After a failure. After a clean end it stays, stopped.
    Transient,
    /// Never; once ended it is forgotten, and what it was started with is dropped as soon as it is started.
    Temporary,
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Aborted at once.
    Brutal,
    /// Cancelled; aborted when it has not ended after this long.
    Deadline(Duration),
    /// Cancelled, and waited for without limit: for supervisors, whose children have limits of their own.
    Forever,
}

/// A promise to call [`Ctx::beat`] at least once in `within`, from the moment the child is up.
///
/// An abort reaches a child only at its next await, a deadline only the work that has one: a heartbeat is what notices a
/// child that waits for something that will never come.
///
/// # Choosing a bound
/// `within` is the longest time a healthy child may need for one round of its loop, on the worst day, times two or three:
/// a false alarm restarts a child that was only slow, and so makes it slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The longest silence.
    pub within: Duration,
    /// What happens when it is passed.
    pub missed: Missed,
}

/// What a supervisor does about a child that missed its heartbeat. It is reported in any case, once per silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nothing more.
    Report,
    /// It is stopped by its shutdown rule, and its end counts as a failure.
    Restart,
}

/// How long a nested supervisor's children may take to come up, all of them.
const BUILD_WITHIN: Duration = Duration::from_secs(60);

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
pub(super) type Factory = dyn Fn(Ctx) -> Running + Send + Sync;

/// What decisions about a child are taken by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) name: Name,
    pub(super) kind: NodeKind,
    pub(super) restart: Restart,
    pub(super) significant: bool,
    pub(super) shutdown: Shutdown,
    /// It counts as up only when it says so, which must be within this.
    pub(super) ready_within: Option<Duration>,
    pub(super) heartbeat: Option<Heartbeat>,
}

impl Rules {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            kind: NodeKind::Worker,
            restart: Restart::Permanent,
            significant: false,
            shutdown: Shutdown::Deadline(Duration::from_secs(5)),
            ready_within: None,
            heartbeat: None,
        }
    }

    /// The field that makes no sense, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.name.is_empty() {
            return Some(("child.name", "is empty"));
        }
        if self.ready_within.is_some_and(|limit| limit.is_zero()) {
            return Some(("child.ready_within", "is zero"));
        }
        let heartbeat = self.heartbeat?;
        if heartbeat.within.is_zero() {
            Some(("child.heartbeat", "is zero"))
        } else if self.kind == NodeKind::Supervisor {
            Some(("child.heartbeat", "is promised by a supervisor, which has none"))
        } else if heartbeat.missed == Missed::Restart && self.shutdown == Shutdown::Forever {
            Some(("child.shutdown", "waits for ever for a child that may be stuck"))
        } else {
            None
        }
    }
}

/// What a child is started from.
#[derive(Clone)]
pub(super) struct Body {
    /// Gone once a temporary child is started.
    pub(super) start: Option<Arc<Factory>>,
    pub(super) nested: Option<Arc<Shared>>,
    pub(super) location: &'static Location<'static>,
}

/// What a [`Child`] holds. A supervisor that is rebuilt starts from copies of it.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) rules: Rules,
    pub(super) body: Body,
}

/// One child: a name, how to start it, and its rules. By default permanent, up as soon as spawned, 5 s to stop.
///
/// It cannot be cloned: two children of one name have no place in one supervisor, and a supervisor has one life at a time.
pub struct Child {
    pub(super) spec: Spec,
}

impl Child {
    /// A child that runs `start(ctx)`, once for each life. `ctx` is cancelled when the child shall end.
    ///
    /// What it returns decides, with its [`Restart`], what comes next; an error may be a
    /// [`Directive`](super::Directive) or [`Elsewhere`](super::Elsewhere).
    #[track_caller]
    #[must_use]
    pub fn new<F, Fut, E>(name: impl Into<Name>, start: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let start: Arc<Factory> = Arc::new(move |ctx| {
            let running = start(ctx);
            Box::pin(async move { running.await.map_err(Into::into) })
        });
        let body = Body { start: Some(start), nested: None, location: Location::caller() };
        Self { spec: Spec { rules: Rules::new(name.into()), body } }
    }

    /// A supervisor as a child: ready when its own children are, within a minute unless [`Child::ready_within`] says
    /// otherwise; at its end waited for without limit; rebuilt from its static children when it gives up.
    #[track_caller]
    #[must_use]
    pub fn supervisor<A>(supervisor: Supervisor<A>) -> Self {
        let (name, nested, start) = supervisor.into_start();
        let mut child =
            Self::new(name, start).shutdown(Shutdown::Forever).ready_within(BUILD_WITHIN);
        child.spec.rules.kind = NodeKind::Supervisor;
        child.spec.body.nested = Some(nested);
        child
    }

    /// When it is restarted. Permanent by default.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.spec.rules.restart = restart;
        self
    }

    /// How it is stopped. 5 s by default.
    ///
    /// # Choosing a bound
    /// As long as a clean end may take: flush what is buffered, answer what is in flight. A supervisor stops its static
    /// children one after the other, so their limits add up.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.spec.rules.shutdown = shutdown;
        self
    }

    /// It counts as started only when it calls [`Ctx::ready`], and the next child waits for that; after `limit` without it
    /// its start has failed. Without this a child is up as soon as it is spawned.
    ///
    /// # Choosing a bound
    /// Longer than the slowest start that may yet succeed: nothing after it in the plan is started meanwhile.
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.spec.rules.ready_within = Some(limit);
        self
    }

    /// Promises a heartbeat. None by default. How to choose it: [`Heartbeat`].
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.spec.rules.heartbeat = Some(heartbeat);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.rules.name
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.spec.rules.name)
            .field("restart", &self.spec.rules.restart)
            .finish_non_exhaustive()
    }
}

/// A child whose end can be the end of its supervisor: see [`AutoShutdown`](super::AutoShutdown).
///
/// It is transient or temporary by construction; a permanent child never ends for good, so it cannot be significant. Only
/// a supervisor with an auto-shutdown rule takes one.
#[derive(Debug)]
pub struct Significant(Child);

impl Significant {
    /// Its clean end counts; after a failure it is restarted.
    #[must_use]
    pub fn transient(child: Child) -> Self {
        Self::with(child, Restart::Transient)
    }

    /// Each of its ends counts; it is never restarted.
    #[must_use]
    pub fn temporary(child: Child) -> Self {
        Self::with(child, Restart::Temporary)
    }

    fn with(child: Child, restart: Restart) -> Self {
        let mut child = child.restart(restart);
        child.spec.rules.significant = true;
        Self(child)
    }

    pub(super) fn into_spec(self) -> Spec {
        self.0.spec
    }
}
