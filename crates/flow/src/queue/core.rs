//! The queue's state and every decision about it, under one lock.
//!
//! Owns the items, both waiting lines and the counters. It never wakes or drops anyone else's value while holding the
//! lock: wakers and lost items are handed out in an [`After`] and let go by the caller.
//!
//! ```text
//! submit ─► in line (with the item) ─► in the queue ─► received
//!              └─► taken back             └─► lost: dropped · shed · expired · orphaned
//! ```
//!
//! An item whose sender waits lies in the waiting line itself, so that whoever makes room moves it into the queue in
//! order, without its sender: a receiver never runs dry while senders wait to be scheduled. The sender's wake may then be
//! *owed* for some receives, so that many are paid at once. What holds between any two operations (Q stands in the
//! model's assertions):
//!
//! - Q1: no more is used than the bound (at a rendezvous: no more items lie here than receivers were woken for).
//! - Q2: who is in line does not fit; so none waits at an empty queue.
//! - Q3: wakes are owed only while there is an item to receive; so none is owed for ever.
//! - Q4: a receiver is in line only while every item has a woken receiver.
//! - Q5: accepted = received + lost + in the queue.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::items::{Entry, Items, Tell};
use super::policy::{Full, Lost, Priority, Shedding};
use super::{Bound, QueueInfo, Unit};
use crate::clock::{self, Instant};
use crate::wait::{WaitList, wake_all};

/// Wakes are owed for so many receives at most.
const OWED_RECEIVES: u32 = 32;
/// A sender that waited this long is woken at once: the receiver is slow, and a wake costs nothing beside its pace.
const OWED_FOR: Duration = Duration::from_millis(1);

pub(super) type Weigher<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;
pub(super) type Ranker<T> = Box<dyn Fn(&T) -> Priority + Send + Sync>;
pub(super) type DeadLetter<T> = Box<dyn Fn(T, Lost) + Send + Sync>;

/// A queue as both its halves see it: [`Sender`](super::Sender) and [`Receiver`](super::Receiver) dereference to it.
pub struct Queue<T> {
    pub(super) name: Arc<str>,
    pub(super) rules: Rules<T>,
    state: Mutex<State<T>>,
}

/// What was decided when the queue was made.
pub(super) struct Rules<T> {
    pub(super) bound: Bound,
    pub(super) full: Full,
    pub(super) why: &'static str,
    pub(super) weigh: Option<Weigher<T>>,
    pub(super) rank: Option<Ranker<T>>,
    pub(super) time_to_live: Option<Duration>,
    pub(super) max_waiting: usize,
    pub(super) dead_letter: Option<DeadLetter<T>>,
}

pub(super) struct State<T> {
    pub(super) items: Items<T>,
    /// Weight of the items.
    pub(super) used: u64,
    pub(super) closed: bool,
    pub(super) senders: usize,
    pub(super) receivers: usize,
    pub(super) submitting: WaitList<Entry<T>>,
    pub(super) receiving: WaitList,
    owed: Owed,
    shedding: Shedding,
    pub(super) counters: Counters,
}

/// Senders whose items were accepted while they waited, and who were not woken yet.
#[derive(Default)]
struct Owed {
    wakers: Vec<Waker>,
    weight: u64,
    receives: u32,
    /// Pay at the next occasion.
    now: bool,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) blocked: u64,
    pub(super) dropped: u64,
    pub(super) rejected: u64,
    pub(super) shed: u64,
    pub(super) expired: u64,
    /// Integral of the number of waiting submitters over time, up to `since`.
    blocked_time: Duration,
    since: Option<Instant>,
}

/// What to do once the lock is gone.
#[must_use]
pub(super) struct After<T> {
    /// The usual one, without an allocation.
    waker: Option<Waker>,
    wakers: Vec<Waker>,
    lost: Vec<(Entry<T>, Lost)>,
    received: Vec<Tell>,
}

impl<T> After<T> {
    pub(super) fn nothing() -> Self {
        Self { waker: None, wakers: Vec::new(), lost: Vec::new(), received: Vec::new() }
    }

    fn wake(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.waker.is_none() => self.waker = Some(waker),
            waker => self.wakers.extend(waker),
        }
    }
}

/// How a submit stands.
pub(super) enum Step {
    Accepted,
    Full,
    Shed,
    Closed,
    TooHeavy,
    /// Waits with this ticket.
    Waits(u64),
}

impl<T> Queue<T> {
    pub(super) fn new(name: &str, rules: Rules<T>) -> Self {
        let state = State {
            items: Items::new(matches!(rules.full, Full::Shed(_))),
            used: 0,
            closed: false,
            senders: 1,
            receivers: 1,
            submitting: WaitList::default(),
            receiving: WaitList::default(),
            owed: Owed::default(),
            shedding: Shedding::default(),
            counters: Counters::default(),
        };
        Self { name: Arc::from(name), rules, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        #[cfg(all(test, shuttle))]
        super::model::point();
        self.state.lock()
    }

    /// Wakes who is to be woken and lets go what was lost. Call it without the lock.
    pub(super) fn settle(&self, after: After<T>) {
        if let Some(waker) = after.waker {
            waker.wake();
        }
        wake_all(after.wakers);
        // A sender that asks no more is no loss.
        for tell in after.received {
            tell.send(Ok(())).ok();
        }
        for (entry, lost) in after.lost {
            if let Some(tell) = entry.tell {
                tell.send(Err(lost)).ok();
            }
            match &self.rules.dead_letter {
                Some(take) => take(entry.item, lost),
                None => drop(entry.item),
            }
        }
    }

    /// Asks the item's weight and priority; user code, so never under the lock.
    pub(super) fn entry(&self, item: T) -> Entry<T> {
        let weight = match (&self.rules.weigh, self.rules.bound.unit()) {
            (Some(weigh), _) => weigh(&item) as u64,
            (None, Unit::Items) => 1,
            (None, Unit::Bytes) => size_of::<T>() as u64,
        };
        let priority = self.rules.rank.as_ref().map_or(Priority::Lowest, |rank| rank(&item));
        Entry::new(item, weight, priority)
    }

    fn limit(&self) -> u64 {
        self.rules.bound.limit()
    }

    fn fits(&self, state: &State<T>, weight: u64) -> bool {
        match self.limit() {
            0 => !state.receiving.is_empty(),
            limit => weight <= limit.saturating_sub(state.used),
        }
    }

    /// First try of a submit. `entry` is taken when accepted or put in line. `waker` given: it may wait under `Block`.
    pub(super) fn submit(&self, entry: &mut Option<Entry<T>>, waker: Option<&Waker>) -> Step {
        let Some(new) = entry.take() else { return Step::Accepted };
        let mut after = After::nothing();
        let mut state = self.lock();
        let step = match self.refusal(&state, &new) {
            Some(step) => step,
            None if self.fits_in_turn(&state, new.weight)
                || self.make_room(&mut state, &new, &mut after) =>
            {
                self.accept(&mut state, new, &mut after);
                drop(state);
                self.settle(after);
                return Step::Accepted;
            }
            None => Step::Full,
        };
        let step = match (step, self.rules.full) {
            (Step::Full, Full::Block) => {
                if let Some(waker) = waker
                    && state.submitting.len() < self.rules.max_waiting
                {
                    state.count_blocked();
                    state.counters.blocked += 1;
                    return Step::Waits(state.submitting.join_with(new.weight, waker.clone(), new));
                }
                Step::Full
            }
            (Step::Full, Full::DropNewest | Full::DropOldest) => {
                state.counters.dropped += 1;
                drop(state);
                after.lost.push((new, Lost::Newest));
                self.settle(after);
                return Step::Accepted;
            }
            (step, _) => step,
        };
        match step {
            Step::Full | Step::TooHeavy => state.counters.rejected += 1,
            Step::Shed => state.counters.shed += 1,
            _ => {}
        }
        drop(state);
        self.settle(after);
        *entry = Some(new);
        step
    }

    /// Why the queue would not even take it if it had room.
    fn refusal(&self, state: &State<T>, new: &Entry<T>) -> Option<Step> {
        if state.closed {
            return Some(Step::Closed);
        }
        if self.limit() > 0 && new.weight > self.limit() {
            return Some(Step::TooHeavy);
        }
        state.shedding.sheds(new.priority).then_some(Step::Shed)
    }

    fn fits_in_turn(&self, state: &State<T>, weight: u64) -> bool {
        state.submitting.is_empty() && self.fits(state, weight)
    }

    /// Makes room at the expense of what expired, and as the policy says. Whether `new` fits then.
    fn make_room(&self, state: &mut State<T>, new: &Entry<T>, after: &mut After<T>) -> bool {
        if state.items.expires() {
            self.expire_some(state, clock::now(), after);
        }
        match self.rules.full {
            Full::DropOldest => {
                while !self.fits(state, new.weight)
                    && let Some(old) = state.items.pop()
                {
                    state.counters.dropped += 1;
                    self.lose(state, old, Lost::Oldest, after);
                }
            }
            Full::Shed(_) if self.fits_without_lower(state, new) => {
                while !self.fits(state, new.weight)
                    && let Some(lower) = state.items.pop_below(new.priority)
                {
                    state.counters.shed += 1;
                    self.lose(state, lower, Lost::Shed, after);
                }
            }
            _ => {}
        }
        self.fits_in_turn(state, new.weight)
    }

    fn fits_without_lower(&self, state: &State<T>, new: &Entry<T>) -> bool {
        let above = state.used - state.items.weight_below(new.priority);
        new.weight <= self.limit().saturating_sub(above)
    }

    fn lose(&self, state: &mut State<T>, entry: Entry<T>, lost: Lost, after: &mut After<T>) {
        state.used -= entry.weight;
        after.lost.push((entry, lost));
    }

    /// Lets what expired go, the oldest first and the rest only if that freed nothing; then those in line in.
    fn expire_some(&self, state: &mut State<T>, now: Instant, after: &mut After<T>) {
        let before = state.items.len();
        while let Some(entry) = state.items.pop_expired(now) {
            state.counters.expired += 1;
            self.lose(state, entry, Lost::Expired, after);
        }
        if state.items.len() == before {
            self.expire_all(state, now, after);
        }
        state.owed.now = true;
        self.made_room(state, after);
    }

    fn expire_all(&self, state: &mut State<T>, now: Instant, after: &mut After<T>) {
        for entry in state.items.take_expired(now) {
            state.counters.expired += 1;
            self.lose(state, entry, Lost::Expired, after);
        }
    }

    fn accept(&self, state: &mut State<T>, mut entry: Entry<T>, after: &mut After<T>) {
        if let Some(time_to_live) = self.rules.time_to_live {
            entry.expire_by(clock::now() + time_to_live);
        }
        state.used += entry.weight;
        state.items.push(entry);
        state.counters.sent += 1;
        self.update_shedding(state);
        if !state.receiving.is_empty() {
            after.wake(state.receiving.grant_first());
        }
    }

    fn update_shedding(&self, state: &mut State<T>) {
        if let Full::Shed(marks) = self.rules.full {
            state.shedding.update(marks, state.used, self.limit());
        }
    }

    /// A later poll of a submit that waits with `ticket`. At a closed queue the entry is given back.
    pub(super) fn resume(&self, ticket: u64, waker: &Waker, entry: &mut Option<Entry<T>>) -> Step {
        let mut state = self.lock();
        if state.closed {
            *entry = self.take_back(&mut state, ticket);
            return if entry.is_some() { Step::Closed } else { Step::Accepted };
        }
        if state.submitting.still_waits(ticket, waker) {
            Step::Waits(ticket)
        } else {
            Step::Accepted
        }
    }

    /// The submit that waited with `ticket` is given up: its entry, unless it was accepted meanwhile.
    pub(super) fn leave(&self, ticket: u64) -> Option<Entry<T>> {
        let mut after = After::nothing();
        let mut state = self.lock();
        let entry = self.take_back(&mut state, ticket);
        // Those behind may fit where this one did not. No receive may follow to pay what is owed them.
        state.owed.now = true;
        self.made_room(&mut state, &mut after);
        drop(state);
        self.settle(after);
        entry
    }

    fn take_back(&self, state: &mut State<T>, ticket: u64) -> Option<Entry<T>> {
        state.count_blocked();
        Some(state.submitting.take(ticket)?.brought)
    }

    /// To be called whenever `used` shrank or the line did: lets those in line in, in order, as far as they fit, and pays
    /// the wakes that are due.
    fn made_room(&self, state: &mut State<T>, after: &mut After<T>) {
        self.update_shedding(state);
        if !state.submitting.is_empty() {
            self.admit(state, after);
        }
        if state.owed.wakers.is_empty() {
            state.owed.now = false;
        } else {
            self.pay(state, after);
        }
    }

    fn admit(&self, state: &mut State<T>, after: &mut After<T>) {
        if state.closed {
            return;
        }
        let mut waited = None;
        while let Some(need) = state.submitting.first_need()
            && self.fits(state, need)
        {
            let waited = *waited.get_or_insert_with(|| state.count_blocked());
            let Some(first) = state.submitting.take_first() else { break };
            state.owed.wakers.push(first.waker);
            state.owed.weight += need;
            state.owed.now |= waited >= OWED_FOR;
            self.accept(state, first.brought, after);
        }
    }

    /// Pays when half the bound came free since, or after some receives, whichever is first. All of an empty queue's bound
    /// is free, so none is owed there (Q3).
    fn pay(&self, state: &mut State<T>, after: &mut After<T>) {
        state.owed.receives += 1;
        let freed = state.owed.weight + self.limit().saturating_sub(state.used);
        if state.owed.now || state.owed.receives >= OWED_RECEIVES || freed >= self.limit() / 2 {
            let owed = std::mem::take(&mut state.owed);
            if after.wakers.is_empty() {
                after.wakers = owed.wakers;
            } else {
                after.wakers.extend(owed.wakers);
            }
        }
    }

    /// Takes the oldest item that has not expired.
    pub(super) fn pop(&self, state: &mut State<T>, after: &mut After<T>) -> Option<T> {
        loop {
            if self.limit() == 0 && state.items.is_empty() && !state.closed {
                self.meet(state, after);
            }
            let entry = state.items.pop()?;
            if entry.expires.is_some() && entry.expired(clock::now()) {
                state.counters.expired += 1;
                self.lose(state, entry, Lost::Expired, after);
                self.made_room(state, after);
                continue;
            }
            state.used -= entry.weight;
            state.counters.received += 1;
            self.made_room(state, after);
            after.received.extend(entry.tell);
            return Some(entry.item);
        }
    }

    /// A rendezvous: the receiver at hand is what the first in line waits for.
    fn meet(&self, state: &mut State<T>, after: &mut After<T>) {
        if state.submitting.is_empty() {
            return;
        }
        state.count_blocked();
        if let Some(first) = state.submitting.take_first() {
            after.wake(Some(first.waker));
            self.accept(state, first.brought, after);
        }
    }

    pub(super) fn close_now(&self) {
        let mut after = After::nothing();
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.count_blocked();
        state.closed = true;
        after.wakers = state.receiving.grant_all();
        after.wakers.append(&mut state.submitting.wakers());
        after.wakers.append(&mut std::mem::take(&mut state.owed).wakers);
        drop(state);
        self.settle(after);
    }

    /// Loses what nobody will receive; called when the last receiver is gone and the queue closed.
    pub(super) fn discard(&self) {
        let mut after = After::nothing();
        let mut state = self.lock();
        while let Some(entry) = state.items.pop() {
            state.counters.dropped += 1;
            self.lose(&mut state, entry, Lost::Orphaned, &mut after);
        }
        drop(state);
        self.settle(after);
    }

    /// Lets go everything past its deadline, wherever it lies; says how many.
    pub(super) fn expire_now(&self) -> usize {
        let mut after = After::nothing();
        let mut state = self.lock();
        self.expire_all(&mut state, clock::now(), &mut after);
        state.owed.now = true;
        self.made_room(&mut state, &mut after);
        drop(state);
        let expired = after.lost.len();
        self.settle(after);
        expired
    }

    pub(super) fn info_now(&self) -> QueueInfo {
        let mut state = self.lock();
        state.count_blocked();
        let depth = match self.rules.bound.unit() {
            Unit::Items => state.items.len() as u64,
            Unit::Bytes => state.used,
        };
        let counters = &state.counters;
        QueueInfo {
            name: self.name.to_string(),
            unit: self.rules.bound.unit().as_str(),
            capacity: self.limit(),
            depth,
            items: state.items.len(),
            policy: self.rules.full.as_str(),
            who_waits: self.rules.full.who_waits(),
            failure_mode: self.rules.full.failure_mode(),
            why: self.rules.why,
            time_to_live: self.rules.time_to_live,
            waiters: state.submitting.len(),
            receivers_waiting: state.receiving.len(),
            closed: state.closed,
            sent: counters.sent,
            received: counters.received,
            blocked: counters.blocked,
            blocked_seconds: counters.blocked_time.as_secs_f64(),
            dropped: counters.dropped,
            rejected: counters.rejected,
            shed: counters.shed,
            expired: counters.expired,
        }
    }
}

impl<T> State<T> {
    /// Whether a wake is owed.
    #[cfg(all(test, shuttle))]
    pub(super) fn owes(&self) -> bool {
        !self.owed.wakers.is_empty()
    }

    /// Brings the blocked time up to date and says how long ago that last was; called before the number of waiting
    /// submitters changes. Where nobody waits it costs nothing but, for the first to wait, a look at the clock.
    fn count_blocked(&mut self) -> Duration {
        let waiting = u32::try_from(self.submitting.len()).unwrap_or(u32::MAX);
        let now = clock::now();
        let since = self.counters.since.replace(now).unwrap_or(now);
        if waiting == 0 || self.closed {
            return Duration::ZERO;
        }
        let passed = now.saturating_duration_since(since);
        self.counters.blocked_time =
            self.counters.blocked_time.saturating_add(passed.saturating_mul(waiting));
        passed
    }
}
