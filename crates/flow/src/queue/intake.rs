//! What becomes of a submit: accepted, in line, or handed back.
//!
//! Owns nothing: the state is the core's. It never runs user code under a lock: weight and priority are asked before.

use std::task::Waker;

use super::Unit;
use super::core::{After, Back, Both, InLine, LetIn, Queue, expire_all, lose};
use super::items::Entry;
use super::policy::{Full, Lost, Priority};
use crate::clock::{self, Instant};

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
    /// Asks the item's weight.
    pub(super) fn entry(&self, item: T) -> Entry<T> {
        let weight = match (&self.rules.weigh, self.rules.bound.unit()) {
            (Some(weigh), _) => weigh(&item) as u64,
            (None, Unit::Items) => 1,
            (None, Unit::Bytes) => size_of::<T>() as u64,
        };
        let mut entry = Entry::new(item, weight);
        if self.rules.time_to_live.is_some() {
            entry.may_expire();
        }
        entry
    }

    /// First try of a submit. `entry` is taken when accepted or put in line. `waker` given: it may wait under `Block`.
    #[inline]
    pub(super) fn submit(&self, entry: &mut Option<Entry<T>>, waker: Option<&Waker>) -> Step {
        if self.accept_simple(entry) {
            return Step::Accepted;
        }
        self.submit_by_rules(entry, waker)
    }

    fn submit_by_rules(&self, entry: &mut Option<Entry<T>>, waker: Option<&Waker>) -> Step {
        let Some(new) = entry.take() else { return Step::Accepted };
        let priority = self.rules.rank.as_ref().map_or(Priority::Lowest, |rank| rank(&new.item));
        let new = match self.submit_at_once(new, priority, waker) {
            Ok(step) => return step,
            Err(new) => new,
        };
        let mut after = After::nothing();
        let mut both = self.both();
        let step = self.decide(&mut both, &new, priority, waker.is_some(), &mut after);
        match (&step, waker) {
            (Step::Accepted, _) => {
                let receiver = self.accept(&mut both.back, new, priority);
                after.wake(receiver);
            }
            (Step::Waits(_), Some(waker)) => {
                let ticket = join(&mut both.back, new, waker);
                let Both { front, back } = &mut both;
                self.watch_line(front, back);
                drop(both);
                self.settle(after);
                return Step::Waits(ticket);
            }
            (Step::Full, _) if drops(self.rules.full) => {
                both.back.counters.dropped += 1;
                after.lost.push((new, Lost::Newest));
                drop(both);
                self.settle(after);
                return Step::Accepted;
            }
            _ => *entry = Some(new),
        }
        match step {
            Step::Full | Step::TooHeavy => both.back.counters.rejected += 1,
            Step::Shed => both.back.counters.shed += 1,
            _ => {}
        }
        drop(both);
        self.settle(after);
        step
    }

    /// The usual ways under the back's lock alone: there is room for sure, or others wait before it.
    fn submit_at_once(
        &self,
        new: Entry<T>,
        priority: Priority,
        waker: Option<&Waker>,
    ) -> Result<Step, Entry<T>> {
        let mut back = self.back();
        if self.refusal(&back, &new, priority).is_some() {
            return Err(new);
        }
        if self.fits_in_turn(&back, new.weight) {
            let receiver = self.accept(&mut back, new, priority);
            drop(back);
            if let Some(receiver) = receiver {
                receiver.wake();
            }
            return Ok(Step::Accepted);
        }
        match waker {
            Some(waker) if !back.line.is_empty() && self.may_wait(&back) => {
                Ok(Step::Waits(join(&mut back, new, waker)))
            }
            _ => Err(new),
        }
    }

    /// What is to be done with `new`, with room made for it where the policy allows.
    fn decide(
        &self,
        both: &mut Both<'_, T>,
        new: &Entry<T>,
        priority: Priority,
        may_wait: bool,
        after: &mut After<T>,
    ) -> Step {
        if let Some(step) = self.refusal(&both.back, new, priority) {
            return step;
        }
        if !both.back.line.is_empty() {
            self.made_room(both, LetIn::Now, after);
        }
        if self.fits_in_turn(&both.back, new.weight) || self.make_room(both, new, priority, after) {
            return Step::Accepted;
        }
        if may_wait && self.may_wait(&both.back) { Step::Waits(0) } else { Step::Full }
    }

    /// Why the queue would not even take it if it had room.
    fn refusal(&self, back: &Back<T>, new: &Entry<T>, priority: Priority) -> Option<Step> {
        if back.closed {
            return Some(Step::Closed);
        }
        if self.limit() > 0 && new.weight > self.limit() {
            return Some(Step::TooHeavy);
        }
        back.shedding.sheds(priority).then_some(Step::Shed)
    }

    fn may_wait(&self, back: &Back<T>) -> bool {
        self.rules.full == Full::Block && back.line.len() < self.rules.max_waiting
    }

    fn fits_in_turn(&self, back: &Back<T>, weight: u64) -> bool {
        back.line.is_empty() && self.fits(back, weight)
    }

    /// Makes room at the expense of what expired, and as the policy says. Whether `new` fits then.
    fn make_room(
        &self,
        both: &mut Both<'_, T>,
        new: &Entry<T>,
        priority: Priority,
        after: &mut After<T>,
    ) -> bool {
        if both.expires() {
            self.expire_some(both, clock::now(), after);
        }
        match self.rules.full {
            Full::DropOldest => {
                while !self.fits(&both.back, new.weight)
                    && let Some(old) = both.pop_oldest()
                {
                    both.back.counters.dropped += 1;
                    lose(&mut both.back, old, Lost::Oldest, after);
                }
            }
            Full::Shed(_) if self.fits_without_lower(&both.back, new, priority) => {
                while !self.fits(&both.back, new.weight)
                    && let Some(lower) = both.back.items.pop_below(priority)
                {
                    both.back.counters.shed += 1;
                    lose(&mut both.back, lower, Lost::Shed, after);
                }
            }
            _ => {}
        }
        self.fits_in_turn(&both.back, new.weight)
    }

    fn fits_without_lower(&self, back: &Back<T>, new: &Entry<T>, priority: Priority) -> bool {
        let above = back.used - back.items.weight_below(priority);
        new.weight <= self.limit().saturating_sub(above)
    }

    /// Lets what expired go, the oldest first and the rest only if that freed nothing; then those in line in.
    fn expire_some(&self, both: &mut Both<'_, T>, now: Instant, after: &mut After<T>) {
        let before = both.len();
        while both.oldest().is_some_and(|oldest| oldest.expired(now))
            && let Some(entry) = both.pop_oldest()
        {
            both.back.counters.expired += 1;
            lose(&mut both.back, entry, Lost::Expired, after);
        }
        if both.len() == before {
            expire_all(both, now, after);
        }
        self.made_room(both, LetIn::Now, after);
    }

    /// A submit that has just joined the line with `ticket`: it spins if that is worth it, and then waits with `waker`.
    pub(super) fn spin_in_line(
        &self,
        ticket: u64,
        waker: &Waker,
        entry: &mut Option<Entry<T>>,
    ) -> Step {
        let spin = &self.back.spin;
        if !spin.is_due() {
            return Step::Waits(ticket);
        }
        {
            let mut back = self.back();
            if back.line.len() > 1 {
                return Step::Waits(ticket);
            }
            // No longer in line: what follows sees it as well.
            back.line.still_waits(ticket, spin.waker());
        }
        spin.watch();
        let step = self.resume(ticket, waker, entry);
        spin.ended(!matches!(step, Step::Waits(_)));
        step
    }

    /// A later poll of a submit that waits with `ticket`. It lets itself in if it can. At a closed queue the entry is given
    /// back.
    pub(super) fn resume(&self, ticket: u64, waker: &Waker, entry: &mut Option<Entry<T>>) -> Step {
        if !self.back().line.still_waits(ticket, waker) {
            return Step::Accepted;
        }
        let mut after = After::nothing();
        let mut both = self.both();
        let step = if both.back.closed {
            *entry = take_back(&mut both.back, ticket);
            if entry.is_some() { Step::Closed } else { Step::Accepted }
        } else {
            self.made_room(&mut both, LetIn::Now, &mut after);
            let waits = both.back.line.still_waits(ticket, waker);
            if waits { Step::Waits(ticket) } else { Step::Accepted }
        };
        drop(both);
        self.settle(after);
        step
    }

    /// The submit that waited with `ticket` is given up: its entry, unless it was accepted meanwhile.
    pub(super) fn leave(&self, ticket: u64) -> Option<Entry<T>> {
        let mut after = After::nothing();
        let mut both = self.both();
        let entry = take_back(&mut both.back, ticket);
        // Those behind may fit where this one did not.
        self.made_room(&mut both, LetIn::Now, &mut after);
        drop(both);
        self.settle(after);
        entry
    }
}

fn drops(full: Full) -> bool {
    matches!(full, Full::DropNewest | Full::DropOldest)
}

fn join<T>(back: &mut Back<T>, entry: Entry<T>, waker: &Waker) -> u64 {
    back.counters.blocked += 1;
    let in_line = InLine { since: clock::now(), entry };
    back.line.join_with(in_line.entry.weight, waker.clone(), in_line)
}

fn take_back<T>(back: &mut Back<T>, ticket: u64) -> Option<Entry<T>> {
    let InLine { entry, since } = back.line.take(ticket)?.brought;
    if !back.closed {
        back.counters.blocked_time += clock::now().saturating_duration_since(since);
    }
    Some(entry)
}
