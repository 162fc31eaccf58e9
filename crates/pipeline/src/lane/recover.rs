//! Where a lane stands: the sink's own position, and what the journal counted up to there.

use super::LaneError;
use crate::ledger::Totals;
use crate::stream::{Progress, Stream};

/// Reads the sink's position and counts the journal's records up to it, from the last known place.
/// The checkpoint is a hint; the sink is the truth.
pub(crate) async fn recover(stream: &Stream) -> Result<Progress, LaneError> {
    let mut progress = *stream.progress.borrow();
    let Some(committed) = stream.sink.position(&stream.app_id).await? else {
        return Ok(progress);
    };
    let durable = stream.journal.durable().0;
    if committed.end > durable {
        return Err(LaneError::SinkAhead {
            stream: stream.name.to_string(),
            sink: committed.end,
            journal: durable,
        });
    }
    let mut reader = stream.journal.reader(forebay_journal::Lsn(progress.committed));
    while progress.committed < committed.end {
        let record = reader.next().await?;
        progress.passed = progress.passed.plus(Totals::from_record(record.counters));
        progress.committed = record.end.0;
    }
    if progress.committed != committed.end {
        return Err(LaneError::Internal(format!(
            "the table of `{}` is at position {}, which is inside an entry that ends at {}",
            stream.name, committed.end, progress.committed
        )));
    }
    progress.counts = committed.counts;
    Ok(progress)
}
