//! One flush into the sink, in the order that loses and doubles nothing.
//!
//! dead letters → marks of the redriven → rows and position → checkpoint → trim. The commits are
//! idempotent under the lane's application id, so a crash between any two steps is repaired by doing the
//! range again.

use std::sync::Arc;

use forebay_journal::{Checkpoint, Lsn};

use super::LaneError;
use super::gather::Gather;
use crate::engine::Inner;
use crate::sink::{Flush, SinkError};
use crate::stream::{Progress, Stream};
use crate::telemetry::Stage;

/// The lane's number: one a stream.
pub(super) const LANE: u32 = 0;

/// Commits what was gathered and moves the stream's progress. The permits in `gather` are held until
/// the end.
pub(super) async fn commit(
    engine: Arc<Inner>,
    stream: Arc<Stream>,
    mut gather: Gather,
) -> Result<(), LaneError> {
    if engine.config.faults.stall_sinks.iter().any(|name| **name == *stream.name) {
        std::future::pending::<()>().await;
    }
    let started = engine.clock.now();
    let before = *stream.progress.borrow();
    let after = Progress {
        committed: gather.end,
        counts: before.counts.plus(gather.counts),
        passed: before.passed.plus(gather.totals),
    };
    bury(&engine, &stream, &mut gather).await?;
    store(&stream, &mut gather, after).await?;
    let seconds = (engine.clock.now() - started).as_secs_f64();
    engine.telemetry.flush_seconds(stream.sink.kind()).observe(seconds);
    stream.metrics.processed(Stage::Persist, gather.counts.stored);
    // Counted first: a drain that sees the progress writes its receipt.
    engine.stored(gather.counts.stored);
    stream.progress.send_replace(after);
    checkpoint(&engine, &stream, after).await
}

/// The range's dead letters and the marks of those it brings back, less those of entries that are
/// already committed there.
async fn bury(engine: &Inner, stream: &Stream, gather: &mut Gather) -> Result<(), SinkError> {
    let dead = std::mem::take(&mut gather.dead);
    engine.dead_letters.commit(&stream.app_id, gather.end, dead).await?;
    let marks = std::mem::take(&mut gather.marks);
    engine.redriven.commit(&stream.app_id, gather.end, marks).await
}

async fn store(stream: &Stream, gather: &mut Gather, after: Progress) -> Result<(), LaneError> {
    let batches =
        gather.conformed().map_err(|error| LaneError::Internal(format!("flush: {error}")))?;
    let Some(schema) = gather.schema.clone() else { return Ok(()) };
    let flush = Flush {
        app_id: stream.app_id.clone(),
        start: gather.start,
        end: gather.end,
        counts: after.counts,
        schema,
        batches,
    };
    Ok(stream.sink.commit(flush).await?)
}

/// Makes the position durable in the journal and frees what lies below it.
async fn checkpoint(
    engine: &Inner,
    stream: &Arc<Stream>,
    after: Progress,
) -> Result<(), LaneError> {
    let job = {
        let stream = Arc::clone(stream);
        move || {
            let position = Lsn(after.committed);
            let counters = after.passed.to_counters();
            stream
                .journal
                .checkpoint(Checkpoint { positions: vec![(LANE, position)], counters })?;
            let cleared = stream.journal.attempts().clear_below(position);
            // Trimming is what frees space: it is tried whatever became of the notes.
            let trimmed = stream.journal.trim(position);
            cleared.and(trimmed)
        }
    };
    let done = engine.files.run(job).await;
    let done = done.map_err(|error| LaneError::Internal(error.to_string()))?;
    // The sink has the rows; a checkpoint that could not be written costs a longer recovery and
    // space in the journal, nothing else.
    if let Err(error) = done {
        tracing::warn!(stream = %stream.name, %error, "the checkpoint could not be written");
    }
    Ok(())
}
