//! What is said about an exit: reasons, reports, and why a supervisor gave up. Plain data, no state.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// How a child's instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl ExitReason {
    /// Whether it is a failure: all but a clean return and a wish not to be restarted.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Normal | Self::DoNotRestart)
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
        }
    }
}

/// What a child may return as its error to tell its supervisor what to do, whatever its restart rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Leave this child stopped.
    DoNotRestart,
    /// Stop the supervisor, which gives up.
    TerminateTree,
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoNotRestart => "do not restart",
            Self::TerminateTree => "terminate the tree",
        })
    }
}

impl Error for Directive {}

/// In what phase of its life an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct ExitReport {
    /// The supervisor's path.
    pub supervisor: String,
    /// The child's name.
    pub child: String,
    /// How it ended.
    pub reason: ExitReason,
    /// In what phase.
    pub context: ExitContext,
    /// Whether it will be started again.
    pub will_restart: bool,
    /// How often it was restarted before.
    pub restarts: u64,
    /// How long this instance lived.
    pub lived: Duration,
}

/// Why a supervisor ended without being asked to. Its children are stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaveUp {
    /// The supervisor's path.
    pub supervisor: String,
    /// The child that was the last straw, if one was.
    pub child: Option<String>,
    /// Why.
    pub why: Why,
}

/// Why a supervisor gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// More restarts than its intensity allows.
    Intensity {
        /// Restarts allowed in the period.
        max: usize,
        /// The period.
        period: Duration,
        /// How the last one ended.
        last: ExitReason,
    },
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
    /// It was run twice at once.
    AlreadyRunning,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supervisor `{}` gave up: ", self.supervisor)?;
        if let Some(child) = &self.child {
            write!(f, "child `{child}` ")?;
        }
        match &self.why {
            Why::Intensity { max, period, last } => {
                write!(f, "{last}; more than {max} restarts in {period:?}")
            }
            Why::StartFailed(reason) => write!(f, "did not start: {reason}"),
            Why::Directed => f.write_str("asked for it"),
            Why::BadSpec { field, problem } => write!(f, "{field}: {problem}"),
            Why::AlreadyRunning => f.write_str("it runs already"),
        }
    }
}

impl Error for GaveUp {}
