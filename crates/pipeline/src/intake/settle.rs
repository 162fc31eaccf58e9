//! What the journal says of the chunks that an upload has handed it: counted once it is known.

use forebay_journal::{AppendError, Appended};

use super::upload::Upload;
use super::{IngestError, Partial, Refusal};

impl Upload {
    /// Gives the upload up: what was appended becomes durable and is counted, the rest is forgotten.
    /// Cancel safe.
    pub async fn abandon(mut self) -> Partial {
        self.settle_all().await;
        self.partial()
    }

    /// What ends an upload early is told once what came before it is durable, so that the answer
    /// counts it.
    pub(super) async fn settled<T>(
        &mut self,
        done: Result<T, IngestError>,
    ) -> Result<T, IngestError> {
        let mut done = done;
        if let Err(
            IngestError::Malformed { partial, .. }
            | IngestError::Unpack { partial, .. }
            | IngestError::KeyConflict { partial }
            | IngestError::Overloaded { partial, .. }
            | IngestError::DiskFull { partial, .. },
        ) = &mut done
        {
            self.settle_all().await;
            *partial = self.partial();
        }
        done
    }

    /// Waits for every append, or until one fails.
    async fn settle_all(&mut self) {
        while !self.pending.is_empty() && self.settle_one().await.is_ok() {}
    }

    /// Waits for the oldest append.
    pub(super) async fn settle_one(&mut self) -> Result<(), IngestError> {
        // Polled in place: when this future is dropped by a deadline, the append stays in the queue.
        let Some((append, waiting)) = self.pending.front_mut() else { return Ok(()) };
        let (done, waiting) = (append.await, *waiting);
        self.pending.pop_front();
        match done {
            Ok(Appended::New { end, .. }) => {
                self.tally.accepted += waiting.accepted;
                self.tally.rejected += waiting.rejected;
                self.tally.position = self.tally.position.max(end.0);
                self.tally.offset = self.tally.offset.max(waiting.offset);
                Ok(())
            }
            Ok(Appended::Duplicate { end, note, .. }) => {
                // Its rows were counted as received when they were decoded.
                self.received -= waiting.accepted + waiting.rejected;
                self.duplicate(end, note, waiting.offset);
                Ok(())
            }
            Err(error) => {
                // What was appended behind it must not count: its offset lies beyond a gap.
                self.pending.clear();
                Err(self.append_error(error))
            }
        }
    }

    pub(super) fn append_error(&self, error: AppendError) -> IngestError {
        let partial = self.partial();
        match error {
            AppendError::Full { .. } => {
                self.engine.telemetry.refused(Refusal::JournalFull);
                IngestError::Overloaded {
                    reason: Refusal::JournalFull,
                    retry_after: self.engine.journal_retry_after(self.stream.as_deref()),
                    partial,
                }
            }
            AppendError::DiskFull(_) => IngestError::DiskFull {
                retry_after: self.engine.journal_retry_after(self.stream.as_deref()),
                partial,
            },
            AppendError::Conflict => IngestError::KeyConflict { partial },
            AppendError::Closed => IngestError::Overloaded {
                reason: Refusal::Draining,
                retry_after: self.engine.config.drain_retry_after(),
                partial,
            },
            AppendError::Poisoned(why) => IngestError::OutcomeUnknown(why),
            error => IngestError::Internal(error.to_string()),
        }
    }
}
