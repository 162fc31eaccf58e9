//! The last N events: what a crash report, a debug page or a post-mortem wants to see.
//!
//! Owns up to N events, each with its number. Writers never wait: each takes a number and the slot that belongs to it. When
//! the slot is in somebody's hand at that moment (a reader copying it, a writer a whole round behind) the writer goes on
//! to the next number instead, so that its event is kept and only a number is skipped.
//!
//! ```text
//! number:   n-4   n-3   n-2   n-1    n
//! slot:   │ n-4 │ n-3 │ n-2 │ n-1 │       the number modulo N
//! ```
//!
//! A [`Snapshot`] is consistent while writers write: if it holds an event, it also holds every one that was recorded
//! before that one began, except those that have left the window. Its numbers grow, none appears twice, and no event is
//! half of one. It never blocks a writer, and it never shows an old event where a newer one was overwritten meanwhile.
//!
//! # Choosing a bound
//! As many events as it takes to tell the story of a failure: a few hundred. Each stays in memory until N others came.
//!
//! # Cancel safety
//! Nothing here awaits.

use std::fmt;

use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// How many slots a writer tries before it gives its event up.
const TRIES: usize = 16;

/// A ring of the last events. Cloning shares it.
///
/// ```
/// use forebay_flow::recent::Recent;
/// let recent = Recent::new(2);
/// for event in ["start", "connect", "lost"] {
///     recent.record(event);
/// }
/// let events: Vec<_> = recent.snapshot().events.into_iter().map(|(_, event)| event).collect();
/// assert_eq!(events, ["connect", "lost"]);
/// ```
pub struct Recent<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    next: AtomicU64,
    given_up: AtomicU64,
    slots: Box<[Mutex<Option<Numbered<T>>>]>,
}

struct Numbered<T> {
    number: u64,
    event: T,
}

/// What [`Recent::snapshot`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The events with their numbers, oldest first.
    pub events: Vec<(u64, T)>,
    /// How many numbers between the first and the last of them are not there: skipped, or being written at that moment.
    pub missing: u64,
    /// Events given up so far because 16 slots in a row were in somebody's hand.
    pub given_up: u64,
}

impl<T> Clone for Recent<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Recent<T> {
    /// A ring of the last `capacity` events (zero counts as one). How to choose it: [module](self#choosing-a-bound).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let slots = (0..capacity.max(1)).map(|_| Mutex::new(None)).collect();
        Self {
            inner: Arc::new(Inner { next: AtomicU64::new(0), given_up: AtomicU64::new(0), slots }),
        }
    }

    /// Records `event` and returns its number. `None` when it was given up: only where many writers crowd a ring that is
    /// too small for them, and counted.
    pub fn record(&self, event: T) -> Option<u64> {
        let inner = &*self.inner;
        for _ in 0..TRIES {
            // Acquire and release: a number taken after a record ended is seen with what that record wrote.
            let number = inner.next.fetch_add(1, Ordering::AcqRel);
            let Some(mut slot) = inner.slot(number).try_lock() else { continue };
            if slot.as_ref().is_some_and(|held| held.number > number) {
                continue; // a whole round went by since the number was taken
            }
            let old = slot.replace(Numbered { number, event });
            drop(slot);
            drop(old);
            return Some(number);
        }
        inner.given_up.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The bound, in events.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.slots.len()
    }
}

impl<T: Clone> Recent<T> {
    /// The last events, copied one by one. An event's `clone` runs while its slot is in hand: keep it cheap (an `Arc`).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<T> {
        let inner = &*self.inner;
        let end = inner.next.load(Ordering::Acquire);
        let begin = end.saturating_sub(inner.slots.len() as u64);
        let mut events: Vec<(u64, T)> = Vec::with_capacity(inner.slots.len());
        for number in begin..end {
            let slot = inner.slot(number).lock();
            match &*slot {
                Some(held) if held.number == number => events.push((number, held.event.clone())),
                Some(held) if held.number > number => {
                    // Overwritten meanwhile, so the window has moved: what is older is out of it too.
                    drop(slot);
                    events.clear();
                }
                _ => {}
            }
        }
        let missing = match (events.first(), events.last()) {
            (Some((first, _)), Some((last, _))) => last - first + 1 - events.len() as u64,
            _ => 0,
        };
        Snapshot { events, missing, given_up: inner.given_up.load(Ordering::Relaxed) }
    }
}

impl<T> Inner<T> {
    fn slot(&self, number: u64) -> &Mutex<Option<Numbered<T>>> {
        // The remainder is below the number of slots, which is never zero.
        &self.slots[(number % self.slots.len() as u64) as usize]
    }
}

impl<T> fmt::Debug for Recent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::thread;

    use super::Recent;

    #[test]
    fn an_event_is_never_seen_without_the_one_that_was_recorded_before_it() {
        loom::model(|| {
            let recent = Recent::new(2);
            let writer = {
                let recent = recent.clone();
                thread::spawn(move || {
                    for n in 0..3 {
                        assert!(recent.record(n).is_some());
                    }
                })
            };
            let seen: Vec<_> = recent.snapshot().events.into_iter().map(|(_, n)| n).collect();
            assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
            writer.join().unwrap();
            let last = recent.snapshot().events.pop();
            assert_eq!(last.map(|(_, n)| n), Some(2));
        });
    }

    #[test]
    fn two_writers_keep_both_their_events() {
        loom::model(|| {
            let recent = Recent::new(4);
            let writer = {
                let recent = recent.clone();
                thread::spawn(move || recent.record(1))
            };
            assert!(recent.record(2).is_some());
            assert!(writer.join().unwrap().is_some());
            let mut seen: Vec<_> = recent.snapshot().events.into_iter().map(|(_, n)| n).collect();
            seen.sort_unstable();
            assert_eq!(seen, [1, 2]);
        });
    }
}
