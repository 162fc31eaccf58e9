//! A supervisor in the making: its strategy, its limits, its children. Plain settings: nothing here runs.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::engine::{self, Ended};
use super::handle::Handle;
use super::intensity::{CoolDown, Limit};
use super::report::{Directive, ExitReport, GaveUp, StuckReport};
use super::shared::Shared;
use super::spec::{BoxError, Child, Factory, Running, Significant, Spec};
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

/// When a supervisor ends by itself, cleanly, because its work is done.
///
/// An end counts when a [`Significant`] child ends by itself and is not restarted. Ends by request, and those of a group
/// restart, do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoShutdown {
    /// At the first such end.
    AnySignificant,
    /// At the last such end, when no other significant child is up or will be.
    AllSignificant,
}

/// The supervisor runs until it is told to stop, or gives up. It takes no significant children.
#[derive(Debug)]
pub enum Stays {}

/// The supervisor has an auto-shutdown rule.
#[derive(Debug)]
pub enum EndsItself {}

pub(super) type OnExit = Arc<dyn Fn(&ExitReport) + Send + Sync>;
pub(super) type OnStuck = Arc<dyn Fn(&StuckReport) + Send + Sync>;

/// What decisions are taken by.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) strategy: Strategy,
    pub(super) limit: Limit,
    pub(super) backoff: Backoff,
    pub(super) auto_shutdown: Option<AutoShutdown>,
}

/// What a [`Supervisor`] holds. One that is rebuilt starts from a copy of it.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) name: Name,
    pub(super) settings: Settings,
    pub(super) children: Vec<Spec>,
    pub(super) init: Option<Arc<Factory>>,
    pub(super) on_exit: Option<OnExit>,
    pub(super) on_stuck: Option<OnStuck>,
}

/// Where a plan is kept for the next build; a reconfiguration replaces it.
pub(super) type PlanCell = Arc<Mutex<Plan>>;

/// The right to run. When the last is gone without a run under way, nobody will ever serve the inbox.
pub(super) struct Claim(pub(super) Arc<Shared>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A supervisor in the making; [`Supervisor::run`] makes it live. Five restarts in ten seconds by default.
///
/// It cannot be cloned: its handles lead to one inbox, which one run at a time serves. Dropping it without a run refuses
/// what was asked of it. Its type says whether it may end by itself: [`Stays`] or [`EndsItself`].
pub struct Supervisor<A = Stays> {
    plan: Plan,
    claim: Arc<Claim>,
    ends: PhantomData<fn() -> A>,
}

impl Supervisor {
    /// A supervisor without children.
    #[must_use]
    pub fn new(name: impl Into<Name>, strategy: Strategy) -> Self {
        let name = name.into();
        let claim = Arc::new(Claim(Shared::new(name.clone(), strategy)));
        let settings = Settings {
            strategy,
            limit: Limit::GiveUp { max: 5, period: Duration::from_secs(10) },
            backoff: Backoff::default(),
            auto_shutdown: None,
        };
        let plan = Plan {
            name,
            settings,
            children: Vec::new(),
            init: None,
            on_exit: None,
            on_stuck: None,
        };
        Self { plan, claim, ends: PhantomData }
    }

    /// Lets it end by itself when significant children do; only then it takes such children.
    #[must_use]
    pub fn auto_shutdown(mut self, rule: AutoShutdown) -> Supervisor<EndsItself> {
        self.plan.settings.auto_shutdown = Some(rule);
        Supervisor { plan: self.plan, claim: self.claim, ends: PhantomData }
    }
}

impl Supervisor<EndsItself> {
    /// Adds a significant child, started after those before it.
    #[must_use]
    pub fn significant(mut self, child: Significant) -> Self {
        self.plan.children.push(child.into_spec());
        self
    }
}

impl<A> Supervisor<A> {
    /// It gives up at more than `max` restarts (attempts count) within `period`. Replaces a cool-down.
    ///
    /// # Choosing a bound
    /// `max` is what a passing trouble may cost; `period` must be longer than `max` restarts with their pauses take, or it
    /// is never passed. Giving up is not the end: the supervisor above rebuilds this one from clean state.
    #[must_use]
    pub fn intensity(mut self, max: usize, period: Duration) -> Self {
        self.plan.settings.limit = Limit::GiveUp { max, period };
        self
    }

    /// It never gives up over restarts: when they come too often it makes none for a while. Replaces an intensity.
    ///
    /// For a supervisor whose children are worth keeping whatever one of them does, and that has nobody above who could do
    /// better than wait.
    #[must_use]
    pub fn cool_down(mut self, cool_down: CoolDown) -> Self {
        self.plan.settings.limit = Limit::CoolDown(cool_down);
        self
    }

    /// The pause before a restart, by the child's failures in a row. [`Backoff::default`] unless said.
    ///
    /// # Choosing a bound
    /// Together with the intensity: see the [module](super#when-and-how-often-backoff-intensity-cool-down).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.plan.settings.backoff = backoff;
        self
    }

    /// Runs `init` before the first child of each build starts. An error ends the run with
    /// [`GiveUpReason::Init`](super::GiveUpReason::Init); [`Directive::Ignore`] ends it cleanly, with nothing started. What
    /// `init` spawned in its context ends with it.
    #[must_use]
    pub fn init<F, Fut, E>(mut self, init: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.plan.init = Some(Arc::new(move |ctx| {
            let running = init(ctx);
            Box::pin(async move { running.await.map_err(Into::into) })
        }));
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

    /// Is called with each heartbeat that was missed, like [`Supervisor::on_exit`].
    #[must_use]
    pub fn on_stuck(mut self, hook: impl Fn(&StuckReport) + Send + Sync + 'static) -> Self {
        self.plan.on_stuck = Some(Arc::new(hook));
        self
    }

    /// A handle to it, good before, during and after its run.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.claim.0))
    }

    /// Starts the children in order and supervises them until `ctx` is cancelled, or its auto-shutdown rule says that the
    /// work is done; then stops them in reverse order.
    ///
    /// # Cancel safety
    /// Dropping this future kills every child at once, without order.
    ///
    /// # Errors
    /// [`GaveUp`] when the settings make no sense, its init or a first start failed, a child asked for it, or restarts passed
    /// the intensity. Every child is stopped by then.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn run(self, ctx: Ctx) -> Result<(), GaveUp> {
        let Self { plan, claim, .. } = self;
        let ctx = ctx.child(plan.name.clone());
        claim.0.enter_roots();
        engine::run(plan, None, claim, ctx).await.map(|_| ())
    }

    /// The same as a child: name, picture, and how each build is started.
    pub(super) fn into_start(
        self,
    ) -> (Name, Arc<Shared>, impl Fn(Ctx) -> Running + Send + Sync + 'static) {
        let Self { plan, claim, .. } = self;
        let (name, shared) = (plan.name.clone(), Arc::clone(&claim.0));
        let plan = Arc::new(Mutex::new(plan));
        let start = move |ctx| -> Running {
            let (now, next) = (plan.lock().clone(), Arc::clone(&plan));
            let running = engine::run(now, Some(next), Arc::clone(&claim), ctx);
            Box::pin(async move {
                match running.await {
                    Ok(Ended::Stopped) => Ok(()),
                    Ok(Ended::Ignored) => Err(Directive::Ignore.into()),
                    Err(gave_up) => Err(gave_up.into()),
                }
            })
        };
        (name, shared, start)
    }

    pub(super) fn into_plan(self) -> Plan {
        self.plan
    }
}

impl Plan {
    /// The field that makes no sense, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if self.name.is_empty() {
            return Some(("name", "is empty".to_owned()));
        }
        if let Some((field, problem)) = self.settings.limit.fault() {
            return Some((field, problem.to_owned()));
        }
        if let Some(field) = self.settings.backoff.fault() {
            return Some((field, "is out of range".to_owned()));
        }
        let mut names = HashSet::new();
        self.children.iter().find_map(|Spec { rules, .. }| match rules.fault() {
            Some((field, problem)) => Some((field, format!("{problem} (child `{}`)", rules.name))),
            None if names.insert(rules.name.as_ref()) => None,
            None => Some(("child.name", format!("`{}` occurs twice", rules.name))),
        })
    }
}

impl<A> fmt::Debug for Supervisor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.plan.name)
            .field("settings", &self.plan.settings)
            .field("children", &self.plan.children.len())
            .finish_non_exhaustive()
    }
}
