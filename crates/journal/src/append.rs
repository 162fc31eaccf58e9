//! The road into the journal: what an append carries, how it waits, and what happens when its future is dropped.
//!
//! A request is in the queue from the call until a writer's turn gathers it. Dropping the future before that takes
//! it out again; after that the record stays. A duplicate of a key in flight waits for the original's outcome and
//! looks again.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::format::{BLOCK_ALIGN, BLOCK_HEADER, MAX_PAYLOAD, align_block, record_len};
use crate::journal::{Phase, State};
use crate::{AppendError, Journal, Lsn};

/// An idempotency key as the journal sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Hash of everything that names the key.
    pub hash: u128,
    /// Checksum of the bytes that came under it; other bytes under the same hash are a conflict.
    pub checksum: u64,
    /// The caller's own, given back with a duplicate.
    pub note: u64,
}

/// One record to be appended.
#[derive(Clone, Debug)]
pub struct Append {
    /// The caller's own tag.
    pub kind: u8,
    /// When it was received, in microseconds since 1970.
    pub received_unix_micros: i64,
    /// Its idempotency key, if it has one.
    pub key: Option<Key>,
    /// What it adds to the journal's four cumulative counters.
    pub counters: [u32; 4],
    /// The bytes; at most [`MAX_PAYLOAD`].
    pub payload: Bytes,
}

/// A durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// This append wrote it.
    New {
        /// Where the record begins.
        start: Lsn,
        /// Where it ends; the next record begins there or later.
        end: Lsn,
    },
    /// An earlier append under the same key wrote it.
    Duplicate {
        /// Where the original begins.
        start: Lsn,
        /// Where it ends.
        end: Lsn,
        /// The note of the original's key.
        note: u64,
    },
}

impl Appended {
    /// The end of the record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        match self {
            Self::New { end, .. } | Self::Duplicate { end, .. } => *end,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Request {
    pub id: u64,
    pub append: Append,
    pub cost: u64,
    pub done: oneshot::Sender<Result<Appended, AppendError>>,
}

/// A key whose record is queued or in flight. Dropping it wakes the duplicates.
#[derive(Debug)]
pub(crate) struct Pending {
    checksum: u64,
    waiters: Vec<oneshot::Sender<()>>,
}

enum Step {
    Known(Appended),
    WaitFor(oneshot::Receiver<()>),
    Queued(Ticket),
}

/// A place in the queue, given up on drop.
struct Ticket {
    journal: Arc<Journal>,
    id: u64,
    done: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.journal.state.lock();
        let Ok(i) = state.queue.binary_search_by_key(&self.id, |request| request.id) else {
            return;
        };
        if let Some(request) = state.queue.remove(i) {
            state.settle(&request);
        }
    }
}

impl State {
    /// Takes back what a request had reserved: room and key. Duplicates that wait for the key look again.
    pub(crate) fn settle(&mut self, request: &Request) {
        self.promised = self.promised.saturating_sub(request.cost);
        if let Some(key) = &request.append.key {
            self.pending.remove(&key.hash);
        }
    }

    fn check_phase(&self) -> Result<(), AppendError> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing | Phase::Closed => Err(AppendError::Closed),
            Phase::Poisoned(why) => Err(AppendError::Poisoned(why.clone())),
        }
    }
}

impl Journal {
    /// Appends a record and returns once it, and everything before it, is durable.
    ///
    /// Cancel safe: dropped before a writer took it up, nothing is written; after that the record stays, and a retry
    /// under the same key finds it. The wait ends with the sync of the block, with an error of the disk, or with the
    /// end of the [`crate::Writers`]. What waits is bounded by `max_bytes`; the payloads are the callers' to bound.
    ///
    /// # Errors
    /// See [`AppendError`]; only `Poisoned` leaves the outcome unknown.
    pub async fn append(self: &Arc<Self>, append: Append) -> Result<Appended, AppendError> {
        loop {
            match self.enqueue(&append)? {
                Step::Known(appended) => return Ok(appended),
                // Whether the sender spoke or was dropped, the original is decided.
                Step::WaitFor(original) => drop(original.await),
                Step::Queued(mut ticket) => {
                    let lost = || Err(AppendError::Poisoned("the writer is gone".to_owned()));
                    return (&mut ticket.done).await.unwrap_or_else(|_| lost());
                }
            }
        }
    }

    fn enqueue(self: &Arc<Self>, append: &Append) -> Result<Step, AppendError> {
        let len = append.payload.len();
        let cost = align_block(BLOCK_HEADER as u64 + record_len(len));
        let max = self.options.max_bytes;
        // One more block of the smallest size is kept for the empty block that vouches for the last one.
        let whole = cost + BLOCK_ALIGN;
        if len > MAX_PAYLOAD || whole > max {
            let max = (MAX_PAYLOAD as u64).min(max.saturating_sub(2 * BLOCK_ALIGN));
            return Err(AppendError::TooLarge { len: len as u64, max });
        }
        let now = self.options.clock.unix_micros();
        let mut state = self.state.lock();
        state.check_phase()?;
        if let Some(step) = find_original(&mut state, append, now)? {
            return Ok(step);
        }
        let backlog = state.backlog();
        if backlog + whole > max {
            return Err(AppendError::Full { backlog, max });
        }
        if !state.scheduled && !self.writers.schedule(self.clone()) {
            return Err(AppendError::Closed);
        }
        state.scheduled = true;
        if let Some(key) = append.key {
            state.pending.insert(key.hash, Pending { checksum: key.checksum, waiters: Vec::new() });
        }
        let id = state.next_request;
        state.next_request += 1;
        state.promised += cost;
        let (done, outcome) = oneshot::channel();
        state.queue.push_back(Request { id, append: append.clone(), cost, done });
        Ok(Step::Queued(Ticket { journal: self.clone(), id, done: outcome }))
    }
}

/// The record that already stands, or is about to stand, under the append's key.
fn find_original(
    state: &mut State,
    append: &Append,
    now: i64,
) -> Result<Option<Step>, AppendError> {
    let Some(key) = append.key else {
        return Ok(None);
    };
    if let Some(known) = state.keys.get(key.hash, now) {
        if known.checksum != key.checksum {
            return Err(AppendError::Conflict);
        }
        let known = Appended::Duplicate { start: known.start, end: known.end, note: known.note };
        return Ok(Some(Step::Known(known)));
    }
    let Some(pending) = state.pending.get_mut(&key.hash) else {
        return Ok(None);
    };
    if pending.checksum != key.checksum {
        return Err(AppendError::Conflict);
    }
    pending.waiters.retain(|waiter| !waiter.is_closed());
    let (waiter, decided) = oneshot::channel();
    pending.waiters.push(waiter);
    Ok(Some(Step::WaitFor(decided)))
}
