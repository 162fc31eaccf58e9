//! What lies in a queue, in the order of acceptance.
//!
//! Owns the entries. One line a priority, each in order, so that the newest of the lowest priority is found at once; the
//! numbers given at acceptance make one order of them. Queues without priorities use the first line alone.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::policy::{Lost, Priority};
use crate::clock::Instant;

/// Where a sender learns what became of its item.
pub(super) type Tell = oneshot::Sender<Result<(), Lost>>;

/// An item with what its queue must know of it.
pub(super) struct Entry<T> {
    pub(super) item: T,
    pub(super) weight: u64,
    pub(super) priority: Priority,
    pub(super) expires: Option<Instant>,
    pub(super) tell: Option<Tell>,
    number: u64,
}

impl<T> Entry<T> {
    pub(super) fn new(item: T, weight: u64, priority: Priority) -> Self {
        Self { item, weight, priority, expires: None, tell: None, number: 0 }
    }

    /// Expires no later than `at`.
    pub(super) fn expire_by(&mut self, at: Instant) {
        self.expires = Some(self.expires.map_or(at, |expires| expires.min(at)));
    }

    pub(super) fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

pub(super) struct Items<T> {
    lines: [VecDeque<Entry<T>>; Priority::COUNT],
    /// Weight of each line.
    weights: [u64; Priority::COUNT],
    len: usize,
    ranked: bool,
    next: u64,
    /// No entry expires before this; `None` when none expires at all.
    earliest: Option<Instant>,
}

impl<T> Items<T> {
    pub(super) fn new(ranked: bool) -> Self {
        Self {
            lines: std::array::from_fn(|_| VecDeque::new()),
            weights: [0; Priority::COUNT],
            len: 0,
            ranked,
            next: 0,
            earliest: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, mut entry: Entry<T>) {
        let line = if self.ranked { entry.priority.index() } else { 0 };
        entry.number = self.next;
        self.next += 1;
        self.len += 1;
        self.weights[line] += entry.weight;
        if let Some(expires) = entry.expires {
            self.earliest = Some(self.earliest.map_or(expires, |earliest| earliest.min(expires)));
        }
        self.lines[line].push_back(entry);
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let line = if self.ranked { self.oldest_line()? } else { 0 };
        let entry = self.lines[line].pop_front()?;
        self.len -= 1;
        self.weights[line] -= entry.weight;
        Some(entry)
    }

    /// The oldest, if it expired.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Entry<T>> {
        let line = if self.ranked { self.oldest_line()? } else { 0 };
        if self.lines[line].front()?.expired(now) { self.pop() } else { None }
    }

    fn oldest_line(&self) -> Option<usize> {
        let fronts = self.lines.iter().enumerate();
        fronts.filter_map(|(at, line)| Some((line.front()?.number, at))).min().map(|(_, at)| at)
    }

    /// What lies here of lower priority weighs.
    pub(super) fn weight_below(&self, priority: Priority) -> u64 {
        self.weights.iter().take(priority.index()).sum()
    }

    /// The newest of the lowest priority, if that is below `priority`.
    pub(super) fn pop_below(&mut self, priority: Priority) -> Option<Entry<T>> {
        let line = self.lines.iter().take(priority.index()).position(|line| !line.is_empty())?;
        let entry = self.lines[line].pop_back()?;
        self.len -= 1;
        self.weights[line] -= entry.weight;
        Some(entry)
    }

    /// Whether something may have expired by `now`: false is sure, true may be late.
    pub(super) fn may_have_expired(&self, now: Instant) -> bool {
        self.earliest.is_some_and(|earliest| earliest <= now)
    }

    /// Whether anything here expires at all.
    pub(super) fn expires(&self) -> bool {
        self.earliest.is_some()
    }

    /// Takes out all that expired by `now`, wherever it lies. Looks at every entry.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Entry<T>> {
        let mut expired = Vec::new();
        if !self.may_have_expired(now) {
            return expired;
        }
        self.earliest = None;
        for (line, weight) in self.lines.iter_mut().zip(&mut self.weights) {
            for _ in 0..line.len() {
                let Some(entry) = line.pop_front() else { break };
                if entry.expired(now) {
                    self.len -= 1;
                    *weight -= entry.weight;
                    expired.push(entry);
                    continue;
                }
                if let Some(expires) = entry.expires {
                    self.earliest = Some(self.earliest.map_or(expires, |at| at.min(expires)));
                }
                line.push_back(entry);
            }
        }
        expired
    }
}
