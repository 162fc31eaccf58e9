//! A turn of a writer thread for one journal: gather, write one block, sync, acknowledge. Also the idle block, the
//! close, and the poison.
//!
//! ```text
//!  Open ──close──► Closing ──queue empty──► Closed
//!    └──failed write or sync──► Poisoned ◄──┘
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use forebay_flow::clock;

use crate::error::AppendError;
use crate::journal::{Phase, State};
use crate::keys::{Entry, KeyState};
use crate::writer::{Failure, Written};
use crate::{Appended, Journal, Lsn, append::Request};

impl Journal {
    /// One turn; true if there is more to do. A panic poisons the journal and ends there (F8).
    pub(crate) fn turn_caught(self: &Arc<Self>) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.turn())).unwrap_or_else(|_| {
            self.poison(Vec::new(), "the writer panicked");
            false
        })
    }

    fn turn(self: &Arc<Self>) -> bool {
        let batch = self.gather();
        if !batch.is_empty() {
            self.write(batch);
        } else if self.wants_empty_block() {
            self.write_empty_block();
        }
        self.end_turn()
    }

    /// Takes requests from the queue until the block is full.
    fn gather(&self) -> Vec<Request> {
        let mut state = self.state.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(request) = state.queue.front() {
            bytes += request.append.payload.len();
            if !batch.is_empty() && bytes > self.options.gather {
                break;
            }
            batch.extend(state.queue.pop_front());
        }
        batch
    }

    fn write(&self, batch: Vec<Request>) {
        let now = self.options.clock.unix_micros();
        let began = clock::now();
        let written = self.writer.lock().commit(batch.iter().map(|request| &request.append), now);
        match written {
            Ok(written) => {
                self.options.synced.observe(clock::now() - began);
                self.acknowledge(batch, written, now);
            }
            Err(Failure::NoSpace(e)) => self.refuse(batch, &AppendError::DiskFull(e.to_string())),
            Err(Failure::Broken(e)) => self.poison(batch, &e.to_string()),
        }
    }

    /// Publishes a durable block: positions, keys, cache, waiters, readers, in this order.
    fn acknowledge(&self, batch: Vec<Request>, written: Written, now: i64) {
        let mut state = self.state.lock();
        // Room for the keys that come.
        state.keys.expire(now);
        state.publish(&written);
        for (request, (start, end)) in batch.iter().zip(&written.places) {
            state.last_record_end = *end;
            if let Some(key) = request.append.key {
                let known = KeyState {
                    start: Lsn(*start),
                    end: Lsn(*end),
                    checksum: key.checksum,
                    note: key.note,
                };
                let received_unix_micros = request.append.received_unix_micros;
                state.keys.insert(Entry { hash: key.hash, state: known, received_unix_micros });
            }
            state.settle(request);
        }
        drop(state);
        self.progress.send_modify(|progress| progress.durable = written.end);
        for (request, (start, end)) in batch.into_iter().zip(written.places) {
            // A receiver that is gone was cancelled after its record was taken up: the record stays.
            drop(request.done.send(Ok(Appended::New { start: Lsn(start), end: Lsn(end) })));
        }
    }

    fn refuse(&self, batch: Vec<Request>, error: &AppendError) {
        let mut state = self.state.lock();
        for request in &batch {
            state.settle(request);
        }
        drop(state);
        for request in batch {
            drop(request.done.send(Err(error.clone())));
        }
    }

    /// Ends the journal: nothing is retried, all who wait learn that the outcome is unknown.
    fn poison(&self, mut batch: Vec<Request>, why: &str) {
        let mut state = self.state.lock();
        state.phase = Phase::Poisoned(why.to_owned());
        batch.extend(std::mem::take(&mut state.queue));
        state.pending.clear();
        state.promised = 0;
        state.scheduled = false;
        drop(state);
        tracing::error!(journal = %self.uuid(), why, "journal poisoned");
        for request in batch {
            drop(request.done.send(Err(AppendError::Poisoned(why.to_owned()))));
        }
        self.progress.send_modify(|progress| progress.phase = Phase::Poisoned(why.to_owned()));
    }

    fn wants_empty_block(&self) -> bool {
        let mut state = self.state.lock();
        let due = std::mem::take(&mut state.idle_due) && state.phase == Phase::Open;
        due || state.phase == Phase::Closing
    }

    /// Writes the empty block that vouches for the last one, unless it stands already. Without room it is left out:
    /// it only makes rot visible.
    fn write_empty_block(&self) {
        let now = self.options.clock.unix_micros();
        let mut writer = self.writer.lock();
        if writer.tail().ends_empty {
            return;
        }
        let written = writer.commit(std::iter::empty(), now);
        drop(writer);
        match written {
            Ok(written) => {
                self.state.lock().publish(&written);
                self.progress.send_modify(|progress| progress.durable = written.end);
            }
            Err(Failure::NoSpace(e)) => {
                tracing::warn!(journal = %self.uuid(), error = %e, "no room to vouch")
            }
            Err(Failure::Broken(e)) => self.poison(Vec::new(), &e.to_string()),
        }
    }

    /// Decides what the journal does next; true if it goes back into the run queue.
    fn end_turn(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            return true;
        }
        match state.phase {
            Phase::Open => {
                state.scheduled = state.idle_due;
                let again = state.scheduled;
                if !again {
                    self.arm_idle(&mut state);
                }
                again
            }
            Phase::Closing => {
                state.phase = Phase::Closed;
                state.scheduled = false;
                drop(state);
                self.writer.lock().close();
                *self.lock.lock() = None;
                self.progress.send_modify(|progress| progress.phase = Phase::Closed);
                false
            }
            Phase::Closed | Phase::Poisoned(_) => false,
        }
    }

    pub(crate) fn arm_idle(self: &Arc<Self>, state: &mut State) {
        if !state.idle_armed {
            state.idle_armed = true;
            self.writers.arm_idle(self);
        }
    }

    /// The idle timer fired: if the journal is quiet, its turn writes the empty block.
    pub(crate) fn went_idle(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.idle_armed = false;
        if state.phase == Phase::Open && !state.scheduled {
            state.idle_due = true;
            state.scheduled = self.writers.schedule(self.clone());
        }
    }

    pub(crate) fn begin_close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Closing;
        let inline = !state.scheduled && !self.writers.schedule(self.clone());
        state.scheduled = true;
        drop(state);
        if inline {
            // The threads have ended: this one does what is left.
            while self.turn_caught() {}
        }
    }
}

impl State {
    /// Moves the head over a durable block.
    fn publish(&mut self, written: &Written) {
        if let Some(begun) = &written.begun {
            // An empty segment that a restart left is replaced under its own name.
            if self.segments.back().is_some_and(|last| last.header.base == begun.header.base) {
                self.segments.pop_back();
            }
            self.segments.push_back(begun.clone());
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.end = written.end;
            segment.file_len = written.file_len;
            if written.indexed {
                segment.index.push(written.lsn);
            }
        }
        let caught_up = self.released >= self.head || self.released >= self.last_record_end;
        self.head = written.end;
        if caught_up && written.places.is_empty() {
            self.released = written.end;
        }
        self.totals = written.totals;
        self.cache.push(written.lsn, written.block.clone());
    }
}
