//! The ordered path of one stream from its journal to its sink. It owns the stream's position.
//!
//! ```text
//! journal ─ record ─► [transform pool, in parallel] ─► sequence ─► gather ─► commit ─► checkpoint ─► trim
//!                      permit from the lanes' share     (order)    (flush)    (sink)
//! ```
//!
//! What is not committed is in the journal, so the lane may forget everything at any time: an error
//! of the sink, a stall or a crash all end in the same place, reading again from the sink's own
//! position. That is why a stalled sink holds two flushes of memory at most, and those only until its
//! commit times out.

mod apply;
mod commit;
mod gather;
mod poison;
mod recover;
mod run;

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::{Backoff, Ctx};
use forebay_journal::ReadError;

pub(crate) use self::recover::recover;
use crate::engine::Inner;
use crate::sink::SinkError;
use crate::stream::Stream;
use crate::telemetry::Stage;

/// Why a lane stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The sink failed; the lane reads its position again and goes on from there.
    #[error("sink: {0}")]
    Sink(#[from] SinkError),
    /// The sink holds a position that the journal never reached.
    #[error(
        "the table of `{stream}` is at position {sink}, its journal ends at {journal}: the journal lost \
         acknowledged data or belongs to another table. Restore the journal, or move the table away"
    )]
    SinkAhead {
        /// The stream.
        stream: String,
        /// The sink's position.
        sink: u64,
        /// The journal's end.
        journal: u64,
    },
    /// The journal cannot be read.
    #[error("journal: {0}")]
    Journal(#[from] ReadError),
    /// Anything else: an entry of an unknown version, a pool that is gone.
    #[error("{0}")]
    Internal(String),
}

/// The pauses between attempts on a failing sink.
const RETRY: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
    jitter: 0.2,
    stable_after: Duration::ZERO,
};

/// Runs a stream's lane until it is cancelled. Sink errors are retried here, for ever and with a
/// growing pause: they are the sink's, not the lane's. Any other error is the supervisor's.
pub(crate) async fn run(
    ctx: Ctx,
    engine: Arc<Inner>,
    stream: Arc<Stream>,
) -> Result<(), LaneError> {
    ctx.ready();
    let (mut failures, mut thin) = (0, false);
    loop {
        let before = stream.progress.borrow().committed;
        let error = match run::Run::start(&ctx, &engine, &stream, thin).await {
            Ok(mut run) => match run.go(&ctx).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let LaneError::Sink(error) = error else { return Err(error) };
        stream.metrics.error(Stage::Persist);
        if stream.progress.borrow().committed > before {
            failures = 0;
        }
        failures = u32::saturating_add(failures, 1);
        let pause = RETRY.pause(failures);
        tracing::warn!(stream = %stream.name, %error, retry_ms = pause.as_millis() as u64, "sink failed");
        if ctx.run(tokio::time::sleep(pause)).await.is_err() {
            return Ok(());
        }
        thin = true;
    }
}
