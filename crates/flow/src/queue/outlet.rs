//! How items leave a queue for a receiver.
//!
//! Owns nothing: the state is the core's. An expired item never leaves this way.

use super::core::{After, Both, Front, LetIn, Queue, lose};
use super::policy::{Lost, Priority};
use super::sync::MutexGuard;
use crate::clock;

/// What a look into the hand came to.
pub(super) enum Look<'a, T> {
    Found(T),
    /// Nothing simple to take; here is the front, still locked.
    Else(MutexGuard<'a, Front<T>>),
}

impl<T> Queue<T> {
    /// The oldest item if it lies in the hand and has nothing but its weight: the front's lock is enough.
    #[inline]
    pub(super) fn look(&self) -> Look<'_, T> {
        let mut front = self.front();
        if front.hand.front().is_none_or(|entry| entry.more.is_some()) {
            return Look::Else(front);
        }
        let Some(entry) = front.hand.pop_front() else { return Look::Else(front) };
        front.taken += 1;
        front.freed += entry.weight;
        if front.line_is_due() {
            self.let_line_in(front);
        }
        Look::Found(entry.item)
    }

    #[cold]
    fn let_line_in<'a>(&'a self, front: MutexGuard<'a, Front<T>>) {
        let mut after = After::nothing();
        let mut both = self.both_from(front);
        self.made_room(&mut both, LetIn::ByLowWater, &mut after);
        drop(both);
        self.settle(after);
    }

    /// Takes the oldest item that has not expired.
    pub(super) fn pop(&self, both: &mut Both<'_, T>, after: &mut After<T>) -> Option<T> {
        let item = self.take_oldest(both, after);
        self.made_room(both, LetIn::ByLowWater, after);
        item
    }

    /// Takes up to `most` of the oldest items that have not expired, and says how many.
    pub(super) fn pop_many(
        &self,
        both: &mut Both<'_, T>,
        most: usize,
        mut take: impl FnMut(T),
        after: &mut After<T>,
    ) -> usize {
        let mut taken = 0;
        while taken < most {
            let before = taken;
            while taken < most
                && let Some(item) = self.take_oldest(both, after)
            {
                take(item);
                taken += 1;
            }
            // Those let in now are there as well.
            self.made_room(both, LetIn::ByLowWater, after);
            if taken == before {
                break;
            }
        }
        taken
    }

    fn take_oldest(&self, both: &mut Both<'_, T>, after: &mut After<T>) -> Option<T> {
        if both.front.hand.is_empty() && self.has_hand() {
            let Both { front, back } = both;
            back.items.move_into(&mut front.hand);
        }
        if self.limit() == 0 && both.len() == 0 && !both.back.closed {
            self.meet(both, after);
        }
        loop {
            let mut entry = both.pop_oldest()?;
            if entry.expires().is_some() && entry.expired(clock::now()) {
                both.back.counters.expired += 1;
                lose(&mut both.back, entry, Lost::Expired, after);
                continue;
            }
            both.back.used -= entry.weight;
            both.back.counters.received += 1;
            after.received.extend(entry.take_tell());
            return Some(entry.item);
        }
    }

    /// A rendezvous: the receiver at hand is what the first in line waits for.
    fn meet(&self, both: &mut Both<'_, T>, after: &mut After<T>) {
        let back = &mut both.back;
        let Some(first) = back.line.take_first() else { return };
        let waited = clock::now().saturating_duration_since(first.brought.since);
        back.counters.blocked_time += waited;
        after.wake(Some(first.waker));
        let receiver = self.accept(back, first.brought.entry, Priority::Lowest);
        after.wake(receiver);
    }
}
