//! What lies in a queue, in the order of acceptance.
//!
//! Owns the entries. Under priorities there is one line for each, so that the newest of the lowest is found at once; the
//! numbers given at acceptance make one order of them.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::policy::{Lost, Priority};
use crate::clock::Instant;

/// Where a sender learns what became of its item.
pub(super) type Tell = oneshot::Sender<Result<(), Lost>>;

/// An item with what its queue must know of it. Small: every item goes from one core to another inside it.
pub(super) struct Entry<T> {
    pub(super) item: T,
    pub(super) weight: u64,
    /// What only some have.
    pub(super) more: Option<Box<More>>,
}

#[derive(Default)]
pub(super) struct More {
    expires: Option<Instant>,
    tell: Option<Tell>,
}

impl<T> Entry<T> {
    pub(super) fn new(item: T, weight: u64) -> Self {
        Self { item, weight, more: None }
    }

    /// Makes the place for what only some entries have, so that nothing is allocated under a lock.
    pub(super) fn may_expire(&mut self) {
        self.more.get_or_insert_default();
    }

    /// Expires no later than `at`.
    pub(super) fn expire_by(&mut self, at: Instant) {
        let more = self.more.get_or_insert_default();
        more.expires = Some(more.expires.map_or(at, |expires| expires.min(at)));
    }

    pub(super) fn tell(&mut self, tell: Tell) {
        self.more.get_or_insert_default().tell = Some(tell);
    }

    pub(super) fn take_tell(&mut self) -> Option<Tell> {
        self.more.as_mut()?.tell.take()
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.more.as_ref()?.expires
    }

    pub(super) fn expired(&self, now: Instant) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }
}

pub(super) type Line<T> = VecDeque<Entry<T>>;

pub(super) enum Items<T> {
    Plain(Line<T>),
    Ranked(Box<Ranked<T>>),
}

/// The lines of a queue with priorities.
pub(super) struct Ranked<T> {
    lines: [VecDeque<(u64, Entry<T>)>; Priority::COUNT],
    /// Weight of each line.
    weights: [u64; Priority::COUNT],
    next: u64,
}

impl<T> Items<T> {
    pub(super) fn new(ranked: bool) -> Self {
        if ranked {
            Self::Ranked(Box::new(Ranked {
                lines: std::array::from_fn(|_| VecDeque::new()),
                weights: [0; Priority::COUNT],
                next: 0,
            }))
        } else {
            Self::Plain(VecDeque::new())
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(line) => line.len(),
            Self::Ranked(ranked) => ranked.lines.iter().map(VecDeque::len).sum(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry<T>, priority: Priority) {
        match self {
            Self::Plain(line) => line.push_back(entry),
            Self::Ranked(ranked) => {
                let at = priority.index();
                ranked.weights[at] += entry.weight;
                ranked.lines[at].push_back((ranked.next, entry));
                ranked.next += 1;
            }
        }
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        match self {
            Self::Plain(line) => line.pop_front(),
            Self::Ranked(ranked) => {
                let at = ranked.oldest_line()?;
                let (_, entry) = ranked.lines[at].pop_front()?;
                ranked.weights[at] -= entry.weight;
                Some(entry)
            }
        }
    }

    /// The oldest, which stays.
    pub(super) fn first(&self) -> Option<&Entry<T>> {
        match self {
            Self::Plain(line) => line.front(),
            Self::Ranked(ranked) => {
                ranked.lines[ranked.oldest_line()?].front().map(|(_, entry)| entry)
            }
        }
    }

    /// All of them at once into `hand`, which is empty; not under priorities, which pick.
    pub(super) fn move_into(&mut self, hand: &mut Line<T>) {
        if let Self::Plain(line) = self {
            std::mem::swap(line, hand);
        }
    }

    /// What lies here of lower priority weighs.
    pub(super) fn weight_below(&self, priority: Priority) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Ranked(ranked) => ranked.weights.iter().take(priority.index()).sum(),
        }
    }

    /// The newest of the lowest priority, if that is below `priority`.
    pub(super) fn pop_below(&mut self, priority: Priority) -> Option<Entry<T>> {
        let Self::Ranked(ranked) = self else { return None };
        let mut below = ranked.lines.iter().take(priority.index());
        let at = below.position(|line| !line.is_empty())?;
        let (_, entry) = ranked.lines[at].pop_back()?;
        ranked.weights[at] -= entry.weight;
        Some(entry)
    }

    /// Moves all that expired by `now` into `gone` and says when the first of the rest will. Looks at every entry.
    pub(super) fn take_expired(
        &mut self,
        now: Instant,
        gone: &mut Vec<Entry<T>>,
    ) -> Option<Instant> {
        match self {
            Self::Plain(line) => take_expired(line, now, gone),
            Self::Ranked(ranked) => {
                let mut earliest = None;
                for (line, weight) in ranked.lines.iter_mut().zip(&mut ranked.weights) {
                    for _ in 0..line.len() {
                        let Some((number, entry)) = line.pop_front() else { break };
                        if entry.expired(now) {
                            *weight -= entry.weight;
                            gone.push(entry);
                        } else {
                            earliest = first_of(earliest, entry.expires());
                            line.push_back((number, entry));
                        }
                    }
                }
                earliest
            }
        }
    }
}

impl<T> Ranked<T> {
    fn oldest_line(&self) -> Option<usize> {
        let fronts = self.lines.iter().enumerate();
        fronts.filter_map(|(at, line)| Some((line.front()?.0, at))).min().map(|(_, at)| at)
    }
}

/// As [`Items::take_expired`], of one line.
pub(super) fn take_expired<T>(
    line: &mut Line<T>,
    now: Instant,
    gone: &mut Vec<Entry<T>>,
) -> Option<Instant> {
    let mut earliest = None;
    for _ in 0..line.len() {
        let Some(entry) = line.pop_front() else { break };
        if entry.expired(now) {
            gone.push(entry);
        } else {
            earliest = first_of(earliest, entry.expires());
            line.push_back(entry);
        }
    }
    earliest
}

/// The earlier of two moments, where there are any.
pub(super) fn first_of(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
