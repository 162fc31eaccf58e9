//! The handle: reading a supervisor's state, and asking it to start, stop, restart, forget or reconfigure.
//!
//! Owns nothing. Reading never waits; asking waits until the supervisor has done it. A thousand requests may lie in the
//! inbox; who asks then waits for room. Nobody waits past the supervisor's end.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::machine::Answer;
use super::plan::Supervisor;
use super::report::ExitReason;
use super::shared::{Node, Request, Shared, What};
use super::spec::{Child, Significant, Spec};
use crate::clock::Instant;
use crate::ctx::StartInfo;

/// A cheap handle to a supervisor, good before, during and after its run.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// One child of one supervisor: not whoever has its name later. It keeps nothing alive.
#[derive(Clone)]
pub struct ChildRef {
    shared: Weak<Shared>,
    seq: u64,
    name: String,
}

impl ChildRef {
    /// The child's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ChildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildRef").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What came of a start that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// The child is up; what it handed over with [`Ctx::ready_with`](crate::Ctx::ready_with).
    Up(Option<StartInfo>),
    /// The child said [`Directive::Ignore`](super::Directive::Ignore): there is nothing for it to do.
    Ignored,
}

/// Why a child was not started. No spec is kept then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A child of that name runs, or is about to.
    AlreadyStarted {
        /// Which of its lives it is in; 0 while its first start is to come.
        life: u64,
    },
    /// A child of that name exists, stopped: restart or delete it.
    AlreadyPresent,
    /// What it would be runs already somewhere else: its own words for where.
    Elsewhere(String),
    /// It started and ended before it was ready.
    Failed(ExitReason),
    /// The supervisor is stopped, stopping, or will never run.
    NotRunning,
    /// The spec makes no sense.
    BadSpec {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted { life } => {
                write!(f, "a child of that name is running (life {life})")
            }
            Self::AlreadyPresent => f.write_str("a child of that name exists, stopped"),
            Self::Elsewhere(identity) => write!(f, "it runs already elsewhere: {identity}"),
            Self::Failed(reason) => write!(f, "the child {reason}"),
            Self::NotRunning => f.write_str("the supervisor is not running"),
            Self::BadSpec { field, problem } => write!(f, "{field}: {problem}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Why a request about an existing child was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no child of that name.
    NotFound,
    /// It runs: terminate it first.
    Running,
    /// It is being restarted.
    Restarting,
    /// What it would be runs already somewhere else: its own words for where.
    Elsewhere(String),
    /// It was started and failed.
    Failed(ExitReason),
    /// It was not down at the deadline; it goes on stopping.
    TimedOut,
    /// It is a child of another supervisor.
    Foreign,
    /// The supervisor is stopped, stopping, or will never run.
    NotRunning,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no child of that name"),
            Self::Running => f.write_str("the child is running"),
            Self::Restarting => f.write_str("the child is being restarted"),
            Self::Elsewhere(identity) => write!(f, "it runs already elsewhere: {identity}"),
            Self::Failed(reason) => write!(f, "the child {reason}"),
            Self::TimedOut => f.write_str("the child is still stopping"),
            Self::Foreign => f.write_str("the child belongs to another supervisor"),
            Self::NotRunning => f.write_str("the supervisor is not running"),
        }
    }
}

impl std::error::Error for ControlError {}

/// Why a reconfiguration was refused. Everything stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// The settings make no sense.
    BadSpec {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The supervisor is stopped, stopping, or will never run.
    NotRunning,
}

impl fmt::Display for ReconfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSpec { field, problem } => write!(f, "{field}: {problem}"),
            Self::NotRunning => f.write_str("the supervisor is not running"),
        }
    }
}

impl std::error::Error for ReconfigureError {}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Children known, alive or not.
    pub specs: usize,
    /// Children with a live instance.
    pub active: usize,
    /// Supervisors among the known.
    pub supervisors: usize,
    /// Workers among the known.
    pub workers: usize,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Starts `child` and waits until it is up. A dynamic child is supervised like the others, stopped in parallel with
    /// the other dynamic ones, and forgotten when the supervisor is rebuilt.
    ///
    /// Before the run, and until the children of the plan are up, it waits; and while a group is down, because a child may
    /// need those before it. A slow start of another child does not hold it up otherwise.
    ///
    /// # Cancel safety
    /// Once the request is in the inbox it happens, whoever waits; before that, nothing was asked.
    ///
    /// # Errors
    /// [`StartError`]; no spec is kept then.
    pub async fn start_child(&self, child: Child) -> Result<Started, StartError> {
        self.start(child.spec).await
    }

    /// As [`Handle::start_child`], for a significant child.
    ///
    /// # Errors
    /// [`StartError`]; `BadSpec` with the field `auto_shutdown` when the supervisor has no such rule.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    pub async fn start_significant(&self, child: Significant) -> Result<Started, StartError> {
        self.start(child.into_spec()).await
    }

    async fn start(&self, spec: Spec) -> Result<Started, StartError> {
        match self.ask(What::Start(Box::new(spec))).await {
            Answer::Up(info) => Ok(Started::Up(info)),
            Answer::Ignored => Ok(Started::Ignored),
            Answer::Runs(life) => Err(StartError::AlreadyStarted { life }),
            Answer::Stopped | Answer::Restarting => Err(StartError::AlreadyPresent),
            Answer::Failed(ExitReason::Elsewhere(identity)) => Err(StartError::Elsewhere(identity)),
            Answer::Failed(reason) => Err(StartError::Failed(reason)),
            Answer::Refused(field, problem) => Err(StartError::BadSpec { field, problem }),
            Answer::Done | Answer::NotFound | Answer::NotRunning => Err(StartError::NotRunning),
        }
    }

    /// Stops a child by its shutdown rule and waits until it is down. Its spec stays (a temporary one's goes). Ok again
    /// when it is down already. Never triggers a restart.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    ///
    /// # Errors
    /// `NotFound` or `NotRunning`.
    pub async fn terminate_child(&self, name: &str) -> Result<(), ControlError> {
        self.control(What::Terminate(name.to_owned())).await.map(drop)
    }

    /// Starts a stopped child again and waits until it is up.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting`, `Failed`, `Elsewhere` or `NotRunning`.
    pub async fn restart_child(&self, name: &str) -> Result<Started, ControlError> {
        self.control(What::Restart(name.to_owned())).await
    }

    /// Forgets a stopped child.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting` or `NotRunning`.
    pub async fn delete_child(&self, name: &str) -> Result<(), ControlError> {
        self.control(What::Delete(name.to_owned())).await.map(drop)
    }

    /// The child that has this name now.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<ChildRef> {
        let seq = self.shared.seq_of(name)?;
        Some(ChildRef { shared: Arc::downgrade(&self.shared), seq, name: name.to_owned() })
    }

    /// Stops a child by its shutdown rule, forgets it, and waits for that, until `deadline` at most. Ok again when that
    /// happened before. A child that came later under the same name is not touched.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    ///
    /// # Errors
    /// `TimedOut` (once asked for, it goes on: the child is forgotten when it is down), `Foreign` or `NotRunning`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn remove_child(
        &self,
        child: &ChildRef,
        deadline: Instant,
    ) -> Result<(), ControlError> {
        if !std::ptr::eq(child.shared.as_ptr(), Arc::as_ptr(&self.shared)) {
            return Err(ControlError::Foreign);
        }
        let removed = self.control(What::Remove(child.seq));
        match tokio::time::timeout_at(deadline, removed).await {
            Ok(answer) => answer.map(drop),
            Err(_elapsed) => Err(ControlError::TimedOut),
        }
    }

    /// Replaces the settings and rules of the running supervisor by those of `plan`, which must have its name. `plan` is
    /// not run, and its own handles lead nowhere.
    ///
    /// Children that run keep running, under the new rules, and at their place in the order of start: the stop order is
    /// the reverse of what happened. Children that are new come last and are not started: [`Handle::restart_child`] does
    /// that. Children that `plan` does not name are neither stopped nor changed: [`Handle::terminate_child`] and
    /// [`Handle::delete_child`] do that. What a child is started from is replaced for its next start. A supervisor above
    /// rebuilds this one from `plan`.
    ///
    /// # Cancel safety
    /// As [`Handle::start_child`].
    ///
    /// # Errors
    /// [`ReconfigureError`]; nothing was changed then.
    pub async fn reconfigure<A>(&self, plan: Supervisor<A>) -> Result<(), ReconfigureError> {
        let plan = plan.into_plan();
        if let Some((field, problem)) = plan.fault() {
            return Err(ReconfigureError::BadSpec { field, problem });
        }
        match self.ask(What::Reconfigure(Box::new(plan))).await {
            Answer::Done => Ok(()),
            Answer::Refused(field, problem) => Err(ReconfigureError::BadSpec { field, problem }),
            _ => Err(ReconfigureError::NotRunning),
        }
    }

    async fn control(&self, what: What) -> Result<Started, ControlError> {
        match self.ask(what).await {
            Answer::Done => Ok(Started::Up(None)),
            Answer::Up(info) => Ok(Started::Up(info)),
            Answer::Ignored => Ok(Started::Ignored),
            Answer::Runs(_) => Err(ControlError::Running),
            Answer::Restarting => Err(ControlError::Restarting),
            Answer::NotFound => Err(ControlError::NotFound),
            Answer::Failed(ExitReason::Elsewhere(identity)) => {
                Err(ControlError::Elsewhere(identity))
            }
            Answer::Failed(reason) => Err(ControlError::Failed(reason)),
            Answer::Stopped | Answer::Refused(..) | Answer::NotRunning => {
                Err(ControlError::NotRunning)
            }
        }
    }

    async fn ask(&self, what: What) -> Answer {
        let (reply, answer) = oneshot::channel();
        // A request that is refused is dropped, and its reply with it.
        drop(self.shared.inbox.ask(Request { what, reply }).await);
        answer.await.unwrap_or(Answer::NotRunning)
    }

    /// The supervisor and all below it, as they are now.
    #[must_use]
    pub fn tree(&self) -> Node {
        self.shared.node()
    }

    /// Its own children, in the order of start.
    #[must_use]
    pub fn children(&self) -> Vec<Node> {
        self.tree().children
    }

    /// How many children there are. Costs one lock, however many.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("supervisor", &self.shared.name()).finish_non_exhaustive()
    }
}
