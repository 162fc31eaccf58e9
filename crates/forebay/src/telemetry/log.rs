//! The log: one line per event to stderr, readable on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::memory::LOG_LINES;

/// Libraries that say much at `info` that is nothing to an operator.
const QUIET: &str = "info,deltalake=warn,deltalake_core=warn,delta_kernel=warn,buoyant_kernel=warn,datafusion=warn,hyper=warn";

/// The running log. Dropping it writes what still waits, within a moment.
#[derive(Debug)]
pub struct Log {
    dropped: Option<ErrorCounter>,
    _worker: Option<WorkerGuard>,
}

impl Log {
    /// A log that goes nowhere, for tests.
    pub fn none() -> Log {
        Log { dropped: None, _worker: None }
    }

    pub(super) fn dropped(&self) -> Option<ErrorCounter> {
        self.dropped.clone()
    }
}

/// Starts the log. `filter` is `FOREBAY_LOG`, in the syntax of `RUST_LOG`.
///
/// # Errors
/// A text for people when the filter cannot be read or a log runs already.
pub fn start_log(filter: Option<&str>) -> Result<Log, String> {
    let filter = match filter {
        None => EnvFilter::new(QUIET),
        Some(text) => {
            EnvFilter::try_new(text).map_err(|error| format!("FOREBAY_LOG={text}: {error}"))?
        }
    };
    // A pipe that nobody reads must cost lines, not time.
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.map_err(|error| format!("the log cannot start: {error}"))?;
    Ok(Log { dropped: Some(dropped), _worker: Some(worker) })
}
