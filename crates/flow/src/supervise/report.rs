//! What is said about an exit: reasons, reports, and why a supervisor gave up. Plain data, no state.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// How a child's instance ended. Its `Display` continues a sentence that begins with the child.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// It returned `Ok`.
    Normal,
    /// It returned this error.
    Error(String),
    /// It panicked with this message.
    Panicked(String),
    /// It was aborted: brutally, past its shutdown deadline, or from above.
    Killed,
    /// It did not report ready in time.
    NotReady(Duration),
    /// It was told to end and then aborted, and never came to an await: it may still be running.
    Unstopped,
    /// It returned [`Directive::DoNotRestart`].
    DoNotRestart,
    /// It returned [`Directive::TerminateTree`].
    TerminateTree,
    /// It returned [`Directive::Ignore`].
    Ignored,
    /// It returned [`Elsewhere`]: what it would be runs already, as this.
    Elsewhere(String),
    /// It missed its heartbeat; this long it was silent.
    Stuck(Duration),
}

impl ExitReason {
    /// Whether it is a failure: all but a clean return, a wish not to be restarted, and nothing to do.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Normal | Self::DoNotRestart | Self::Ignored)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("ended normally"),
            Self::Error(error) => write!(f, "failed: {error}"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Killed => f.write_str("was killed"),
            Self::NotReady(limit) => write!(f, "was not ready within {limit:?}"),
            Self::Unstopped => f.write_str("did not stop, and may still be running"),
            Self::DoNotRestart => f.write_str("asked not to be restarted"),
            Self::TerminateTree => f.write_str("asked for the end of its supervisor"),
            Self::Ignored => f.write_str("has nothing to do"),
            Self::Elsewhere(identity) => write!(f, "runs already elsewhere: {identity}"),
            Self::Stuck(silence) => write!(f, "missed its heartbeat: silent for {silence:?}"),
        }
    }
}

/// What a child may return as its error to tell its supervisor what to do, whatever its restart rule says, before it was
/// ready or after. The error it is wrapped in (a boxed one, an enum of the child's own) must be `Directive` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Leave this child stopped, until it is asked for or its group is restarted.
    DoNotRestart,
    /// Stop the supervisor, which gives up.
    TerminateTree,
    /// There is nothing for this child to do here: not a failure, and the next child is started. The child of the plan
    /// stays, stopped; a temporary or dynamic one is forgotten.
    Ignore,
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoNotRestart => "do not restart",
            Self::TerminateTree => "terminate the tree",
            Self::Ignore => "ignore",
        })
    }
}

impl Error for Directive {}

/// What a child may return as its error before it is ready: what it would be runs already, somewhere else, and this is
/// how to find it (a process id, an address, the holder of a lock). The start fails; whoever asked for it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere(pub String);

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runs already elsewhere: {}", self.0)
    }
}

impl Error for Elsewhere {}

/// In what phase of its life an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitContext {
    /// During its start, before it was ready.
    Start,
    /// While it ran.
    Running,
    /// Stopped by its supervisor: shutdown, a group restart, or a request.
    Stop,
}

/// One exit of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitReport {
    /// The supervisor's path.
    pub supervisor: String,
    /// The child's name.
    pub child: String,
    /// How it ended.
    pub reason: ExitReason,
    /// In what phase.
    pub context: ExitContext,
    /// Whether it will be started again, alone or with its group.
    pub will_restart: bool,
    /// How often it was restarted before.
    pub restarts: u64,
    /// How long this instance lived.
    pub lived: Duration,
}

/// A child that promised a heartbeat and missed it. It is alive; its [`ExitReport`] follows if it is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckReport {
    /// The supervisor's path.
    pub supervisor: String,
    /// The child's name.
    pub child: String,
    /// How long it has been silent.
    pub silent: Duration,
    /// Whether it is stopped for that.
    pub will_stop: bool,
}

/// Why a supervisor ended without being asked to. Its children are stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaveUp {
    /// The supervisor's path.
    pub supervisor: String,
    /// The child that was the last straw, if one was.
    pub child: Option<String>,
    /// Why.
    pub reason: GiveUpReason,
}

/// Why a supervisor gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// More restarts than its intensity allows.
    Intensity {
        /// Restarts allowed in the period.
        max: usize,
        /// The period.
        period: Duration,
        /// How the last one ended.
        last: ExitReason,
    },
    /// Its own [`init`](super::Supervisor::init) failed; no child was started.
    Init(String),
    /// A child failed to start the first time.
    StartFailed(ExitReason),
    /// A child asked for it.
    Directed,
    /// It was never started: its settings make no sense.
    BadSpec {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Its last run is not over yet.
    AlreadyRunning,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supervisor `{}` gave up: ", self.supervisor)?;
        if let Some(child) = &self.child {
            write!(f, "child `{child}` ")?;
        }
        match &self.reason {
            GiveUpReason::Intensity { max, period, last } => {
                write!(f, "{last}; more than {max} restarts in {period:?}")
            }
            GiveUpReason::Init(error) => write!(f, "init: {error}"),
            GiveUpReason::StartFailed(reason) => write!(f, "did not start: {reason}"),
            GiveUpReason::Directed => f.write_str("asked for it"),
            GiveUpReason::BadSpec { field, problem } => write!(f, "{field}: {problem}"),
            GiveUpReason::AlreadyRunning => f.write_str("it runs already"),
        }
    }
}

impl Error for GaveUp {}
