//! The queue's state, its two locks, and who is let in when.
//!
//! Owns the items, both waiting lines and the counters. It never wakes or drops anyone else's value while holding a lock:
//! wakers and lost items are handed out in an [`After`] and let go by the caller.
//!
//! ```text
//!         ┌────────────── back ──────────────┐              ┌─ front ─┐
//! submit ─┼─► room? ─yes───────────► items ──┼─ all at once ┼─► hand ─┼─► received
//!         │     └─no─► line ─ let in ──►┘    │              │         │
//!         └────────────└─► taken back        └─► lost       └─► lost ─┘
//! ```
//!
//! Senders lock the back. Receivers lock the front, and the back only when the hand is empty or the line is due: so a
//! receiver that is busy pays one lock that nobody else wants. The hand belongs to all receivers. What is taken from it is
//! told to the back at the next occasion; who must know exactly holds both locks ([`Both`], the front's first).
//!
//! # The low-water rule
//!
//! A sender in line has its item with it. To let each in as soon as one item is taken would cost a wake an item and switch
//! between sender and receiver all the time. So the line waits, as a socket's writer does (`SO_SNDLOWAT`), until a quarter
//! of the bound is free, or as much as its first needs if that is more, or until a receive finds that its first has waited a
//! millisecond;
//! then all that fit are let in and woken at once. Bounds below [`STRICT_BELOW`] know no such wait. Whoever looks at the
//! line for another reason (a waiting submit that is polled, a `try_submit`, one that leaves, an expiry) lets in all that
//! fit without waiting for the rule: nobody is refused or timed out while there is room.
//!
//! What holds between any two operations (Q stands in the model's assertions):
//!
//! - Q1: no more is used than the bound (at a rendezvous: no more items lie here than receivers were woken for).
//! - Q2: the first in line does not fit, or less than the low-water mark is free; so none waits at an empty queue.
//! - Q3: no sender sleeps whose item was accepted: it leaves the line and is woken by one and the same operation.
//! - Q4: a receiver is in line only while every item has a woken receiver.
//! - Q5: accepted = received + lost + in the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::items::{self, Entry, Items, Line, Tell};
use super::policy::{Full, Lost, Priority, Shedding};
use super::receiver::Seat;
use super::registry::SOMEBODY;
use super::sync::{MutexGuard, Side};
use super::{Bound, QueueInfo, Unit};
use crate::clock::{self, Instant};
use crate::wait::{WaitList, wake_all};

/// The line waits for this part of the bound.
const LOW_WATER_PART: u64 = 4;
/// Queues of a smaller bound let the line in as soon as its first fits, and have no hand.
pub(super) const STRICT_BELOW: u64 = 8;
/// Who has waited this long is let in by the next look: the receiver is slow, and a wake is nothing beside its pace.
const LET_IN_AFTER: Duration = Duration::from_millis(1);
/// Nothing that could be freed: nobody is in line.
const NEVER: u64 = u64::MAX;

pub(super) type Weigher<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;
pub(super) type Ranker<T> = Box<dyn Fn(&T) -> Priority + Send + Sync>;
pub(super) type DeadLetter<T> = Box<dyn Fn(T, Lost) + Send + Sync>;

/// A queue as both its halves see it: [`Sender`](super::Sender) and [`Receiver`](super::Receiver) dereference to it.
pub struct Queue<T> {
    pub(super) name: Arc<str>,
    pub(super) rules: Rules<T>,
    /// No rule looks at an item that finds room, but at its weight.
    simple: bool,
    pub(super) front: Side<Front<T>>,
    pub(super) back: Side<Back<T>>,
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

impl<T> Rules<T> {
    fn simple(&self) -> bool {
        let no_rule = self.rank.is_none() && self.time_to_live.is_none();
        no_rule && self.bound.limit() > 0 && !self.ranked()
    }

    fn ranked(&self) -> bool {
        matches!(self.full, Full::Shed(_))
    }
}

/// What receivers lock.
pub(super) struct Front<T> {
    /// The oldest items.
    pub(super) hand: Line<T>,
    /// Taken from the hand and not told to the back yet: items, and their weight.
    pub(super) taken: u64,
    pub(super) freed: u64,
    /// The line is due once so much is freed.
    due: u64,
    /// Since when the first in line waits.
    waiting_since: Option<Instant>,
    /// Once so much is taken, the clock says whether it has waited.
    next_look: u64,
}

impl<T> Front<T> {
    /// Whether the back must be told now, for the sake of the line. The clock is read after the first take, and then when
    /// the line will have waited if takes come as they came: a slow receiver is late by less than a take, and a fast one is
    /// spared most looks.
    #[inline]
    pub(super) fn line_is_due(&mut self) -> bool {
        self.due != NEVER
            && (self.freed >= self.due || (self.taken >= self.next_look && self.line_has_waited()))
    }

    #[cold]
    fn line_has_waited(&mut self) -> bool {
        let Some(since) = self.waiting_since else { return false };
        let so_far = clock::now().saturating_duration_since(since);
        self.next_look = next_look(self.taken, so_far);
        so_far >= LET_IN_AFTER
    }
}

/// How many takes there will have been when the line has waited, if `taken` took it `so_far`: one more than now at least,
/// and four times as many at most, for the pace may change.
fn next_look(taken: u64, so_far: Duration) -> u64 {
    let nanos = so_far.as_nanos().max(1);
    let takes = (u128::from(taken) * LET_IN_AFTER.as_nanos()).div_ceil(nanos);
    let most = taken.saturating_mul(4);
    u64::try_from(takes).unwrap_or(most).clamp(taken + 1, most.max(taken + 1))
}

fn waited(since: Option<Instant>) -> bool {
    since.is_some_and(|since| clock::now().saturating_duration_since(since) >= LET_IN_AFTER)
}

/// What senders lock.
pub(super) struct Back<T> {
    pub(super) items: Items<T>,
    /// Weight of all items, those in the hand included.
    pub(super) used: u64,
    pub(super) closed: bool,
    pub(super) senders: usize,
    /// By address: many may come and go.
    pub(super) receivers: BTreeMap<usize, Arc<Seat>>,
    pub(super) line: WaitList<InLine<T>>,
    pub(super) receiving: WaitList,
    /// No item expires before this; `None` when none expires at all.
    earliest: Option<Instant>,
    pub(super) shedding: Shedding,
    pub(super) counters: Counters,
}

/// A sender's item in line.
pub(super) struct InLine<T> {
    pub(super) entry: Entry<T>,
    pub(super) since: Instant,
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
    /// How long those waited who wait no more.
    pub(super) blocked_time: Duration,
}

/// The whole state: both locks held, and the back told what was taken.
pub(super) struct Both<'a, T> {
    pub(super) front: MutexGuard<'a, Front<T>>,
    pub(super) back: MutexGuard<'a, Back<T>>,
}

impl<T> Both<'_, T> {
    /// Items in the queue.
    pub(super) fn len(&self) -> usize {
        self.front.hand.len() + self.back.items.len()
    }

    /// Takes the oldest out; what it weighed and what became of it is the caller's to count.
    pub(super) fn pop_oldest(&mut self) -> Option<Entry<T>> {
        self.front.hand.pop_front().or_else(|| self.back.items.pop())
    }

    pub(super) fn oldest(&self) -> Option<&Entry<T>> {
        self.front.hand.front().or_else(|| self.back.items.first())
    }

    /// Whether anything here expires at all.
    pub(super) fn expires(&self) -> bool {
        self.back.earliest.is_some()
    }
}

/// What to do once the locks are gone.
#[must_use]
pub(super) struct After<T> {
    /// The usual one, without an allocation.
    waker: Option<Waker>,
    wakers: Vec<Waker>,
    pub(super) lost: Vec<(Entry<T>, Lost)>,
    pub(super) received: Vec<Tell>,
}

impl<T> After<T> {
    pub(super) fn nothing() -> Self {
        Self { waker: None, wakers: Vec::new(), lost: Vec::new(), received: Vec::new() }
    }

    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.waker.is_none() => self.waker = Some(waker),
            waker => self.wakers.extend(waker),
        }
    }
}

/// Which of those in line that fit are let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LetIn {
    /// None before the low-water rule says so; then all.
    ByLowWater,
    /// All.
    Now,
}

impl<T> Queue<T> {
    pub(super) fn new(name: &str, rules: Rules<T>) -> Self {
        let front = Front {
            hand: Line::new(),
            taken: 0,
            freed: 0,
            due: NEVER,
            waiting_since: None,
            next_look: 1,
        };
        let back = Back {
            items: Items::new(rules.ranked()),
            used: 0,
            closed: false,
            senders: 1,
            receivers: BTreeMap::new(),
            line: WaitList::default(),
            receiving: WaitList::default(),
            earliest: None,
            shedding: Shedding::default(),
            counters: Counters::default(),
        };
        Self {
            name: Arc::from(name),
            simple: rules.simple(),
            rules,
            front: Side::new(front),
            back: Side::new(back),
        }
    }

    pub(super) fn front(&self) -> MutexGuard<'_, Front<T>> {
        self.front.lock()
    }

    pub(super) fn back(&self) -> MutexGuard<'_, Back<T>> {
        self.back.lock()
    }

    pub(super) fn both(&self) -> Both<'_, T> {
        self.both_from(self.front())
    }

    /// Locks the back as well, and tells it what was taken.
    pub(super) fn both_from<'a>(&'a self, mut front: MutexGuard<'a, Front<T>>) -> Both<'a, T> {
        let mut back = self.back();
        back.counters.received += std::mem::take(&mut front.taken);
        front.next_look = 1;
        let freed = std::mem::take(&mut front.freed);
        back.used -= freed;
        if front.due != NEVER {
            front.due -= freed.min(front.due);
        }
        Both { front, back }
    }

    /// Wakes who is to be woken and lets go what was lost. Call it without a lock.
    pub(super) fn settle(&self, after: After<T>) {
        if let Some(waker) = after.waker {
            waker.wake();
        }
        wake_all(after.wakers);
        // A sender that asks no more is no loss.
        for tell in after.received {
            tell.send(Ok(())).ok();
        }
        for (mut entry, lost) in after.lost {
            if let Some(tell) = entry.take_tell() {
                tell.send(Err(lost)).ok();
            }
            match &self.rules.dead_letter {
                Some(take) => take(entry.item, lost),
                None => drop(entry.item),
            }
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.rules.bound.limit()
    }

    /// Whether the receivers have a hand to take from.
    pub(super) fn has_hand(&self) -> bool {
        self.limit() >= STRICT_BELOW && !self.rules.ranked()
    }

    pub(super) fn free(&self, back: &Back<T>) -> u64 {
        self.limit().saturating_sub(back.used)
    }

    pub(super) fn fits(&self, back: &Back<T>, weight: u64) -> bool {
        match self.limit() {
            0 => !back.receiving.is_empty(),
            _ => weight <= self.free(back),
        }
    }

    /// The shortest way in: for an item of which no rule wants to know more than that it fits.
    #[inline]
    pub(super) fn accept_simple(&self, new: &mut Option<Entry<T>>) -> bool {
        let Some(entry) = new else { return false };
        if !self.simple || entry.more.is_some() {
            return false;
        }
        let mut back = self.back();
        if back.closed || !back.line.is_empty() || entry.weight > self.free(&back) {
            return false;
        }
        let Some(entry) = new.take() else { return false };
        back.used += entry.weight;
        back.counters.sent += 1;
        back.items.push(entry, Priority::Lowest);
        if !back.receiving.is_empty()
            && let Some(receiver) = back.receiving.grant_first()
        {
            drop(back);
            receiver.wake();
        }
        true
    }

    /// Puts `entry` among the items and wakes a receiver for it.
    pub(super) fn accept(
        &self,
        back: &mut Back<T>,
        mut entry: Entry<T>,
        priority: Priority,
    ) -> Option<Waker> {
        if let Some(time_to_live) = self.rules.time_to_live {
            entry.expire_by(clock::now() + time_to_live);
        }
        if let Some(expires) = entry.expires() {
            back.earliest = items::first_of(back.earliest, Some(expires));
        }
        back.used += entry.weight;
        back.items.push(entry, priority);
        back.counters.sent += 1;
        self.update_shedding(back);
        if back.receiving.is_empty() { None } else { back.receiving.grant_first() }
    }

    pub(super) fn update_shedding(&self, back: &mut Back<T>) {
        if let Full::Shed(marks) = self.rules.full {
            back.shedding.update(marks, back.used, self.limit());
        }
    }

    /// To be called whenever the queue or the line shrank, and when somebody joined an empty line.
    pub(super) fn made_room(&self, both: &mut Both<'_, T>, let_in: LetIn, after: &mut After<T>) {
        let Both { front, back } = both;
        self.update_shedding(back);
        if !back.line.is_empty() && self.limit() > 0 && !back.closed {
            self.admit(back, let_in, after);
        }
        self.watch_line(front, back);
    }

    fn admit(&self, back: &mut Back<T>, let_in: LetIn, after: &mut After<T>) {
        let Some(first) = back.line.first() else { return };
        let (need, since) = (first.need, first.brought.since);
        let due = self.fits(back, need)
            && (let_in == LetIn::Now
                || self.low_water(need) <= self.free(back)
                || waited(Some(since)));
        if !due {
            return;
        }
        let now = clock::now();
        while let Some(first) = back.line.first()
            && self.fits(back, first.need)
            && let Some(first) = back.line.take_first()
        {
            back.counters.blocked_time += now.saturating_duration_since(first.brought.since);
            after.wake(Some(first.waker));
            after.wake(self.accept(back, first.brought.entry, Priority::Lowest));
        }
    }

    /// How much must be free for a first in line that needs `need`.
    fn low_water(&self, need: u64) -> u64 {
        if self.limit() < STRICT_BELOW { need } else { need.max(self.limit() / LOW_WATER_PART) }
    }

    /// Tells the front when the line will be due.
    pub(super) fn watch_line(&self, front: &mut Front<T>, back: &Back<T>) {
        let first = back.line.first().filter(|_| !back.closed);
        front.due = first.map_or(NEVER, |first| {
            self.low_water(first.need).saturating_sub(self.free(back)).max(1)
        });
        front.waiting_since = first.map(|first| first.brought.since);
    }

    pub(super) fn close_now(&self) {
        let mut after = After::nothing();
        let mut both = self.both();
        if both.back.closed {
            return;
        }
        let waited = both.back.waiting_time(clock::now());
        both.back.counters.blocked_time += waited;
        both.back.closed = true;
        after.wakers = both.back.receiving.grant_all();
        after.wakers.append(&mut both.back.line.wakers());
        self.made_room(&mut both, LetIn::Now, &mut after);
        drop(both);
        self.settle(after);
    }

    /// Loses what nobody will receive; called when the last receiver is gone and the queue closed.
    pub(super) fn discard(&self) {
        let mut after = After::nothing();
        let mut both = self.both();
        while let Some(entry) = both.pop_oldest() {
            both.back.counters.dropped += 1;
            lose(&mut both.back, entry, Lost::Orphaned, &mut after);
        }
        drop(both);
        self.settle(after);
    }

    /// Lets go everything past its deadline, wherever it lies; says how many.
    pub(super) fn expire_now(&self) -> usize {
        let mut after = After::nothing();
        let mut both = self.both();
        expire_all(&mut both, clock::now(), &mut after);
        self.made_room(&mut both, LetIn::Now, &mut after);
        drop(both);
        let expired = after.lost.len();
        self.settle(after);
        expired
    }

    /// The tasks that last received from it, one for each live receiver.
    pub(super) fn drained_by_now(&self) -> Vec<u64> {
        let known = |task| if task == 0 { SOMEBODY } else { task };
        self.back().receivers.values().map(|seat| known(seat.task())).collect()
    }

    pub(super) fn info_now(&self) -> QueueInfo {
        let both = self.both();
        let (items, back) = (both.len(), &both.back);
        let depth = match self.rules.bound.unit() {
            Unit::Items => items as u64,
            Unit::Bytes => back.used,
        };
        let counters = &back.counters;
        let blocked_time = counters.blocked_time + back.waiting_time(clock::now());
        QueueInfo {
            name: self.name.to_string(),
            unit: self.rules.bound.unit().as_str(),
            capacity: self.limit(),
            depth,
            items,
            policy: self.rules.full.as_str(),
            who_waits: self.rules.full.who_waits(),
            failure_mode: self.rules.full.failure_mode(),
            why: self.rules.why,
            time_to_live: self.rules.time_to_live,
            waiters: back.line.len(),
            receivers_waiting: back.receiving.len(),
            closed: back.closed,
            sent: counters.sent,
            received: counters.received,
            blocked: counters.blocked,
            blocked_seconds: blocked_time.as_secs_f64(),
            dropped: counters.dropped,
            rejected: counters.rejected,
            shed: counters.shed,
            expired: counters.expired,
        }
    }
}

impl<T> Back<T> {
    /// How long those in line have waited in sum; nothing once closed, when none waits for room.
    fn waiting_time(&self, now: Instant) -> Duration {
        if self.closed {
            return Duration::ZERO;
        }
        self.line.iter().map(|first| now.saturating_duration_since(first.brought.since)).sum()
    }
}

/// Counts `entry`, which was taken out, as lost in `after`.
pub(super) fn lose<T>(back: &mut Back<T>, entry: Entry<T>, lost: Lost, after: &mut After<T>) {
    back.used -= entry.weight;
    after.lost.push((entry, lost));
}

/// Takes out what expired by `now`, wherever it lies.
pub(super) fn expire_all<T>(both: &mut Both<'_, T>, now: Instant, after: &mut After<T>) {
    if both.back.earliest.is_none_or(|earliest| earliest > now) {
        return;
    }
    let mut gone = Vec::new();
    let in_hand = items::take_expired(&mut both.front.hand, now, &mut gone);
    let behind = both.back.items.take_expired(now, &mut gone);
    both.back.earliest = items::first_of(in_hand, behind);
    for entry in gone {
        both.back.counters.expired += 1;
        lose(&mut both.back, entry, Lost::Expired, after);
    }
}
