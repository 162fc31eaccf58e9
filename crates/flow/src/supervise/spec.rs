//! What is to be supervised, and by which rules. Plain settings: nothing here runs.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::engine;
use super::handle::Handle;
use super::report::{ExitReport, GaveUp};
use super::shared::{NodeKind, Shared};
use crate::backoff::Backoff;
use crate::ctx::Ctx;
use crate::tasks::Name;

/// Who is restarted when a child must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// That child alone: children that do not need each other.
    OneForOne,
    /// All: children that share state which must be rebuilt together.
    OneForAll,
    /// That child and those started after it: each needs the ones before it.
    RestForOne,
}

impl Strategy {
    /// `one_for_one`, `one_for_all` or `rest_for_one`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
}

/// When a child is restarted after it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always, also after a clean end.
    Permanent,
    /// After a failure. After a clean end it stays, stopped.
    Transient,
    /// Never; once ended it is forgotten.
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

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Factory = dyn Fn(Ctx) -> Running + Send + Sync;

/// One child: a name, how to start it, and its rules. By default permanent, up as soon as spawned, 5 s to stop.
///
/// It cannot be cloned: two children of one name have no place in one supervisor, and a supervisor has one life at a time.
pub struct Child {
    pub(super) spec: Spec,
}

/// What a [`Child`] holds. A supervisor that is rebuilt starts from copies of it.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) name: Name,
    pub(super) start: Arc<Factory>,
    pub(super) nested: Option<Arc<Shared>>,
    pub(super) location: &'static Location<'static>,
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
    pub(super) waits_for_ready: bool,
    pub(super) ready_within: Duration,
}

impl Child {
    /// A child that runs `start(ctx)`, once for each life. `ctx` is cancelled when the child shall end.
    #[track_caller]
    #[must_use]
    pub fn new<F, Fut, E>(name: impl Into<Name>, start: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let spec = Spec {
            name: name.into(),
            start: Arc::new(move |ctx| {
                let running = start(ctx);
                Box::pin(async move { running.await.map_err(Into::into) })
            }),
            nested: None,
            location: Location::caller(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Deadline(Duration::from_secs(5)),
            waits_for_ready: false,
            ready_within: Duration::from_secs(60),
        };
        Self { spec }
    }

    /// A supervisor as a child: ready when its own children are, waited for without limit, rebuilt from its static
    /// children when it gives up.
    #[track_caller]
    #[must_use]
    pub fn supervisor(supervisor: Supervisor) -> Self {
        let Supervisor { plan, claim } = supervisor;
        let name = plan.name.clone();
        let nested = Arc::clone(&plan.shared);
        let mut child =
            Self::new(name, move |ctx| engine::run(plan.clone(), Arc::clone(&claim), ctx))
                .shutdown(Shutdown::Forever)
                .waits_for_ready(true);
        child.spec.nested = Some(nested);
        child
    }

    /// When it is restarted. Permanent by default.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.spec.restart = restart;
        self
    }

    /// How it is stopped. 5 s by default.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.spec.shutdown = shutdown;
        self
    }

    /// Whether it counts as started only when it calls [`Ctx::ready`]; the next child waits for that. Off by default.
    #[must_use]
    pub fn waits_for_ready(mut self, waits: bool) -> Self {
        self.spec.waits_for_ready = waits;
        self
    }

    /// How long it may take to report ready before its start has failed. 60 s by default.
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.spec.ready_within = limit;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl Spec {
    pub(super) fn kind(&self) -> NodeKind {
        if self.nested.is_some() { NodeKind::Supervisor } else { NodeKind::Worker }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.spec.name)
            .field("restart", &self.spec.restart)
            .finish_non_exhaustive()
    }
}

pub(super) type OnExit = Arc<dyn Fn(&ExitReport) + Send + Sync>;

/// A supervisor in the making; [`Supervisor::run`] makes it live. Five restarts in ten seconds by default.
///
/// It cannot be cloned: its handles lead to one inbox, which one run at a time serves. Dropping it without a run refuses
/// what was asked of it.
pub struct Supervisor {
    pub(super) plan: Plan,
    claim: Arc<Claim>,
}

/// The right to run. When the last is gone without a run under way, nobody will ever serve the inbox.
pub(super) struct Claim(Arc<Shared>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a [`Supervisor`] holds. One that is rebuilt starts from a copy of it.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) name: Name,
    pub(super) strategy: Strategy,
    pub(super) max_restarts: usize,
    pub(super) period: Duration,
    pub(super) backoff: Backoff,
    pub(super) children: Vec<Spec>,
    pub(super) on_exit: Option<OnExit>,
    pub(super) shared: Arc<Shared>,
}

impl Supervisor {
    /// A supervisor without children.
    #[must_use]
    pub fn new(name: impl Into<Name>, strategy: Strategy) -> Self {
        let name = name.into();
        let shared = Shared::new(name.clone(), strategy);
        let claim = Arc::new(Claim(Arc::clone(&shared)));
        let plan = Plan {
            shared,
            name,
            strategy,
            max_restarts: 5,
            period: Duration::from_secs(10),
            backoff: Backoff::default(),
            children: Vec::new(),
            on_exit: None,
        };
        Self { plan, claim }
    }

    /// It gives up at more than `max` restarts (attempts count) within `period`.
    #[must_use]
    pub fn intensity(mut self, max: usize, period: Duration) -> Self {
        self.plan.max_restarts = max;
        self.plan.period = period;
        self
    }

    /// The pause before a restart, by the child's failures in a row.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.plan.backoff = backoff;
        self
    }

    /// Adds a child, started after those before it.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.plan.children.push(child.spec);
        self
    }

    /// Is called with each exit, on the supervisor's own task: count or log, and return soon. A panic in it is swallowed.
    #[must_use]
    pub fn on_exit(mut self, hook: impl Fn(&ExitReport) + Send + Sync + 'static) -> Self {
        self.plan.on_exit = Some(Arc::new(hook));
        self
    }

    /// A handle to it, good before, during and after its run.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.plan.shared))
    }

    /// Starts the children in order and supervises them until `ctx` is cancelled; then stops them in reverse order.
    ///
    /// Dropping this future kills every child at once, without order.
    ///
    /// # Errors
    /// [`GaveUp`] when the settings make no sense, the first start failed, or restarts passed the intensity. Every child
    /// is stopped by then.
    pub async fn run(self, ctx: Ctx) -> Result<(), GaveUp> {
        let Self { plan, claim } = self;
        let ctx = ctx.child(plan.name.clone());
        plan.shared.enter_roots();
        engine::run(plan, claim, ctx).await
    }
}

impl Plan {
    /// The field that makes no sense, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if self.name.is_empty() {
            return Some(("name", "is empty".to_owned()));
        }
        if self.period.is_zero() {
            return Some(("intensity.period", "is zero".to_owned()));
        }
        if let Some(field) = self.backoff.fault() {
            return Some((field, "is out of range".to_owned()));
        }
        let mut names = HashSet::new();
        self.children.iter().find_map(|child| {
            if child.name.is_empty() {
                Some(("child.name", "is empty".to_owned()))
            } else if !names.insert(child.name.as_ref()) {
                Some(("child.name", format!("`{}` occurs twice", child.name)))
            } else {
                None
            }
        })
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.plan.name)
            .field("children", &self.plan.children.len())
            .finish_non_exhaustive()
    }
}
