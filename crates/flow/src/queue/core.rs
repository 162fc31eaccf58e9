//! The queue's state and every decision about it, under one lock.
//!
//! Owns the items, both waiting lines and the counters. It never wakes or drops anyone else's value while holding the
//! lock: wakers and dropped items are handed out and let go by the caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use super::{Bound, Full, QueueInfo};
use crate::clock::{self, Instant};
use crate::tasks::Name;
use crate::wait::{WaitList, wake_all};

pub(super) type Weigher<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;

pub(super) struct Shared<T> {
    pub(super) name: Arc<str>,
    bound: Bound,
    pub(super) full: Full,
    why: &'static str,
    weigh: Weigher<T>,
    pub(super) state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    items: VecDeque<(T, u64)>,
    /// Weight of the items and of room granted to waiting submitters.
    used: u64,
    pub(super) closed: bool,
    pub(super) senders: usize,
    pub(super) receivers: usize,
    pub(super) submitting: WaitList,
    pub(super) receiving: WaitList,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    sent: u64,
    blocked: u64,
    dropped: u64,
    rejected: u64,
    /// Integral of the number of waiting submitters over time, up to `since`.
    blocked_seconds: f64,
    since: Option<Instant>,
}

/// What to do once the lock is gone.
#[must_use]
pub(super) struct After<T> {
    wakers: Vec<Waker>,
    dropped: Vec<T>,
}

impl<T> After<T> {
    fn nothing() -> Self {
        Self { wakers: Vec::new(), dropped: Vec::new() }
    }

    pub(super) fn settle(self) {
        wake_all(self.wakers);
        drop(self.dropped);
    }
}

/// How a submit stands.
pub(super) enum Step {
    Accepted,
    Full,
    Closed,
    TooHeavy,
    /// Waits with this ticket.
    Waits(u64),
}

impl<T> Shared<T> {
    pub(super) fn new(
        name: Name,
        bound: Bound,
        full: Full,
        why: &'static str,
        weigh: Weigher<T>,
    ) -> Self {
        let state = State {
            items: VecDeque::new(),
            used: 0,
            closed: false,
            senders: 1,
            receivers: 1,
            submitting: WaitList::default(),
            receiving: WaitList::default(),
            counters: Counters::default(),
        };
        Self { name: Arc::from(name.as_ref()), bound, full, why, weigh, state: Mutex::new(state) }
    }

    pub(super) fn weight(&self, item: &T) -> u64 {
        (self.weigh)(item) as u64
    }

    fn fits(&self, state: &State<T>, weight: u64) -> bool {
        match self.bound.limit {
            0 => state.used < state.receiving.len() as u64,
            limit => weight <= limit.saturating_sub(state.used),
        }
    }

    fn too_heavy(&self, weight: u64) -> bool {
        self.bound.limit > 0 && weight > self.bound.limit
    }

    /// First try of a submit. `item` is taken when accepted. `waker` given: it may wait in line under `Block`.
    pub(super) fn submit(&self, item: &mut Option<T>, weight: u64, waker: Option<&Waker>) -> Step {
        let mut state = self.state.lock();
        if state.closed {
            return Step::Closed;
        }
        if self.too_heavy(weight) {
            state.counters.rejected += 1;
            return Step::TooHeavy;
        }
        if state.submitting.is_empty() && self.fits(&state, weight) {
            state.used += weight;
            let after = state.accept(item.take(), weight);
            drop(state);
            after.settle();
            return Step::Accepted;
        }
        match (self.full, waker) {
            (Full::Block, Some(waker)) => {
                state.count_blocked();
                state.counters.blocked += 1;
                Step::Waits(state.submitting.join(weight, waker.clone()))
            }
            (Full::Block | Full::Reject, _) => {
                state.counters.rejected += 1;
                Step::Full
            }
            (Full::DropNewest, _) => {
                state.counters.dropped += 1;
                drop(state);
                drop(item.take());
                Step::Accepted
            }
            (Full::DropOldest, _) => {
                let mut after = After::nothing();
                while !self.fits(&state, weight)
                    && let Some((old, freed)) = state.items.pop_front()
                {
                    state.used -= freed;
                    state.counters.dropped += 1;
                    after.dropped.push(old);
                }
                state.used += weight;
                let accepted = state.accept(item.take(), weight);
                drop(state);
                after.settle();
                accepted.settle();
                Step::Accepted
            }
        }
    }

    /// A later poll of a submit that waits with `ticket`.
    pub(super) fn resume_submit(
        &self,
        ticket: u64,
        item: &mut Option<T>,
        weight: u64,
        waker: &Waker,
    ) -> Step {
        let mut state = self.state.lock();
        if state.closed {
            let after = self.abandon(&mut state, ticket, weight);
            drop(state);
            after.settle();
            return Step::Closed;
        }
        if state.submitting.still_waits(ticket, waker) {
            return Step::Waits(ticket);
        }
        // Granted: the room is counted in `used` already.
        let after = state.accept(item.take(), weight);
        drop(state);
        after.settle();
        Step::Accepted
    }

    /// The submit that waited with `ticket` is given up: its place, or the room it was granted, goes to the next.
    pub(super) fn leave_submit(&self, ticket: u64, weight: u64) {
        let mut state = self.state.lock();
        let after = self.abandon(&mut state, ticket, weight);
        drop(state);
        after.settle();
    }

    fn abandon(&self, state: &mut State<T>, ticket: u64, weight: u64) -> After<T> {
        state.count_blocked();
        if !state.submitting.leave(ticket) {
            state.used -= weight;
        }
        self.grant(state)
    }

    /// Lets waiting submitters in, in order, as far as they fit.
    fn grant(&self, state: &mut State<T>) -> After<T> {
        let mut after = After::nothing();
        if state.closed {
            return after;
        }
        while let Some(need) = state.submitting.first_need()
            && self.fits(state, need)
        {
            state.count_blocked();
            state.used += need;
            after.wakers.extend(state.submitting.grant_first());
        }
        after
    }

    /// Takes the oldest item.
    pub(super) fn pop(&self, state: &mut State<T>) -> Option<(T, After<T>)> {
        let (item, weight) = state.items.pop_front()?;
        state.used -= weight;
        let after = self.grant(state);
        Some((item, after))
    }

    /// A receiver waits: at a rendezvous that is what lets a submitter in.
    pub(super) fn receiver_waits(&self, state: &mut State<T>) -> After<T> {
        if self.bound.limit == 0 { self.grant(state) } else { After::nothing() }
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.count_blocked();
        state.closed = true;
        let mut wakers = state.receiving.grant_all();
        wakers.extend(state.submitting.wakers());
        drop(state);
        wake_all(wakers);
    }

    /// Drops what nobody will receive; called when the last receiver is gone and the queue closed.
    pub(super) fn discard(&self) {
        let mut state = self.state.lock();
        let items = std::mem::take(&mut state.items);
        state.counters.dropped += items.len() as u64;
        for (_, weight) in &items {
            state.used -= weight;
        }
        drop(state);
        drop(items);
    }

    pub(super) fn info(&self) -> QueueInfo {
        let mut state = self.state.lock();
        state.count_blocked();
        let depth = match self.bound.unit {
            super::Unit::Items => state.items.len() as u64,
            super::Unit::Bytes => state.used,
        };
        QueueInfo {
            name: self.name.to_string(),
            unit: self.bound.unit.as_str(),
            capacity: self.bound.limit,
            depth,
            items: state.items.len(),
            policy: self.full.as_str(),
            waiters: state.submitting.len(),
            receivers_waiting: state.receiving.len(),
            closed: state.closed,
            sent: state.counters.sent,
            blocked: state.counters.blocked,
            blocked_seconds: state.counters.blocked_seconds,
            dropped: state.counters.dropped,
            rejected: state.counters.rejected,
            shed: 0,
            why: self.why,
        }
    }
}

impl<T> State<T> {
    fn accept(&mut self, item: Option<T>, weight: u64) -> After<T> {
        let mut after = After::nothing();
        if let Some(item) = item {
            self.items.push_back((item, weight));
            self.counters.sent += 1;
            after.wakers.extend(self.receiving.grant_first());
        }
        after
    }

    /// Brings the blocked time up to date; called before the number of waiting submitters changes.
    fn count_blocked(&mut self) {
        let waiting = self.submitting.len();
        if waiting == 0 {
            self.counters.since = None;
        }
        let now = clock::now();
        if let Some(since) = self.counters.since
            && !self.closed
        {
            let passed = now.saturating_duration_since(since);
            self.counters.blocked_seconds += passed.as_secs_f64() * waiting as f64;
        }
        self.counters.since = Some(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}
