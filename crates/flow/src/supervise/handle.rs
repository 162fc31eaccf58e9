//! The handle: reading a supervisor's state, and asking it to start, terminate, restart or delete a child.
//!
//! Owns nothing. Reading never waits; asking waits until the supervisor has done it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::report::ExitReason;
use super::shared::{ChildState, Node, NodeKind, Request, Shared};
use super::spec::Child;

/// A cheap handle to a supervisor, good before, during and after its run.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Why a child was not started. No spec is kept then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// A child of that name runs, or is about to.
    AlreadyStarted,
    /// A child of that name exists, stopped: restart or delete it.
    AlreadyPresent,
    /// It started and ended before it was ready.
    Failed(ExitReason),
    /// The supervisor is stopped, stopping, or has too many requests waiting.
    NotRunning,
    /// The spec makes no sense; the field at fault.
    BadSpec(&'static str),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted => f.write_str("a child of that name is running"),
            Self::AlreadyPresent => f.write_str("a child of that name exists, stopped"),
            Self::Failed(reason) => write!(f, "the child {reason}"),
            Self::NotRunning => f.write_str("the supervisor is not running"),
            Self::BadSpec(field) => write!(f, "{field} makes no sense"),
        }
    }
}

impl std::error::Error for StartError {}

/// Why a request about an existing child was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// There is no child of that name.
    NotFound,
    /// It runs: terminate it first.
    Running,
    /// It is being restarted.
    Restarting,
    /// It was started and failed.
    Failed(ExitReason),
    /// The supervisor is stopped, stopping, or has too many requests waiting.
    NotRunning,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no child of that name"),
            Self::Running => f.write_str("the child is running"),
            Self::Restarting => f.write_str("the child is being restarted"),
            Self::Failed(reason) => write!(f, "the child {reason}"),
            Self::NotRunning => f.write_str("the supervisor is not running"),
        }
    }
}

impl std::error::Error for ControlError {}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// Starts `child` and waits until it is up. Before the run it waits for the run to begin. A dynamic child is
    /// supervised like the others, stopped in parallel with the other dynamic ones, and forgotten when the supervisor is
    /// rebuilt. Cancel safe: once asked it happens, whoever waits.
    ///
    /// # Errors
    /// [`StartError`]; no spec is kept then.
    pub async fn start_child(&self, child: Child) -> Result<(), StartError> {
        let (reply, answer) = oneshot::channel();
        self.shared.ask(Request::Start(Box::new(child.spec), reply));
        answer.await.unwrap_or(Err(StartError::NotRunning))
    }

    /// Stops a child by its shutdown rule and waits until it is down. Its spec stays (a temporary one's goes). Ok again
    /// when it is down already. Never triggers a restart.
    ///
    /// # Errors
    /// `NotFound` or `NotRunning`.
    pub async fn terminate_child(&self, name: &str) -> Result<(), ControlError> {
        self.control(name, Request::Terminate).await
    }

    /// Starts a stopped child again.
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting`, `Failed` or `NotRunning`.
    pub async fn restart_child(&self, name: &str) -> Result<(), ControlError> {
        self.control(name, Request::Restart).await
    }

    /// Forgets a stopped child.
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting` or `NotRunning`.
    pub async fn delete_child(&self, name: &str) -> Result<(), ControlError> {
        self.control(name, Request::Delete).await
    }

    async fn control(
        &self,
        name: &str,
        request: fn(String, oneshot::Sender<Result<(), ControlError>>) -> Request,
    ) -> Result<(), ControlError> {
        let (reply, answer) = oneshot::channel();
        self.shared.ask(request(name.to_owned(), reply));
        answer.await.unwrap_or(Err(ControlError::NotRunning))
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

    /// How many children there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for child in self.children() {
            counts.specs += 1;
            let alive = matches!(
                child.state,
                ChildState::Starting | ChildState::Running | ChildState::Stopping
            );
            counts.active += usize::from(alive);
            match child.kind {
                NodeKind::Supervisor => counts.supervisors += 1,
                NodeKind::Worker => counts.workers += 1,
            }
        }
        counts
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("tree", &self.tree()).finish()
    }
}
