//! The end of a run: lanes drained to a deadline, the rest left in the journal, and a receipt (F10).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_flow::Instant;

use super::Engine;
use crate::stream::Stream;

/// What a run leaves behind, in rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Receipt {
    /// Rows that reached their sink in this run.
    pub stored: u64,
    /// Accepted rows that wait in the journals; the next start goes on with them.
    pub left_in_journal: u64,
    /// Accepted rows that nobody can account for. Not zero is a bug.
    pub lost: u64,
    /// How long the drain took.
    pub seconds: f64,
}

impl Engine {
    /// Refuses new uploads from here on. Does not wait.
    pub fn stop_admitting(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Waits until every lane has committed what is durable, or until `deadline`. Call it when the
    /// last request was answered, and before the supervisor of lanes is stopped. Cancel safe.
    pub async fn drain(&self, deadline: Instant) -> Receipt {
        self.stop_admitting();
        let started = self.inner.clock.now();
        let streams: Vec<Arc<Stream>> = self.inner.streams.read().values().cloned().collect();
        for stream in &streams {
            stream.want(stream.head());
        }
        for stream in &streams {
            let durable = stream.head();
            if tokio::time::timeout_at(deadline, stream.stored(durable)).await.is_err() {
                break;
            }
        }
        let ledger = self.ledger();
        Receipt {
            stored: self.inner.stored.load(Ordering::Relaxed),
            left_in_journal: ledger.iter().map(|row| row.in_journal).sum(),
            lost: ledger.iter().map(|row| u64::try_from(row.difference).unwrap_or(0)).sum(),
            seconds: (self.inner.clock.now() - started).as_secs_f64(),
        }
    }

    /// Closes every journal and stops the threads; the last step, after the lanes have ended.
    pub async fn close(&self) {
        let streams: Vec<Arc<Stream>> =
            std::mem::take(&mut *self.inner.streams.write()).into_values().collect();
        for stream in streams {
            if let Err(error) = stream.journal.close().await {
                tracing::warn!(stream = %stream.name, %error, "the journal was not closed cleanly");
            }
        }
        for pool in self.pools() {
            pool.stop();
        }
        self.inner.writers.stop();
    }
}
