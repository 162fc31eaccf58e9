//! Who holds a lock, and which writers wait for it: what the deadlock detector and the checks go by.
//!
//! Owns, for one reader-writer lock, the ids of its readers and its line of waiting writers; and the record that debug
//! builds keep of each hold. A reader costs two loads and two stores: no instruction that locks the bus, no lock.
//!
//! ```text
//! readers   [ 17 |  0 |  3 |  0 |  0 |  0 |  0 |  0 ]   each from its own number on, the first that is free
//! the rest  [ 40, 41, … ]                               behind a lock, when more than these read at once
//! ```

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Patience;
use super::place::{FREE, UNKNOWN};
use crate::clock::Instant;

/// How a lock is held, or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A mutex: alone.
    Lock,
    /// A reader-writer lock, with other readers.
    Read,
    /// A reader-writer lock, alone.
    Write,
}

/// What debug builds keep of one hold.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) by: u64,
    pub(super) access: Access,
    pub(super) at: &'static Location<'static>,
    pub(super) since: Instant,
}

/// Readers that are found without a lock.
const SLOTS: usize = 8;
/// The place of a reader that was not written down.
const NOWHERE: u32 = u32::MAX;

/// Who reads, and who waits to write.
#[derive(Default)]
pub(super) struct Readers {
    slots: [Slot; SLOTS],
    rest: Mutex<Rest>,
    writers: Mutex<Writers>,
}

/// On a cache line of its own: readers on two cores do not take it from each other.
#[derive(Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// By place; a place left is used again.
#[derive(Default)]
struct Rest {
    ids: Vec<u64>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Writers {
    /// In the order they came.
    line: Vec<Writer>,
    came: u64,
}

struct Writer {
    turn: u64,
    who: u64,
    patience: Patience,
}

impl Readers {
    /// `by` reads; gives the place where that is written. Of two that find the same place free within the same
    /// nanoseconds one is lost, and clears no place but its own.
    #[inline]
    pub(super) fn enter(&self, by: u64) -> u32 {
        if by == UNKNOWN {
            return NOWHERE;
        }
        for n in 0..SLOTS as u64 {
            // The remainder is below SLOTS.
            let at = (by.wrapping_add(n) % SLOTS as u64) as usize;
            let Slot(slot) = &self.slots[at];
            if slot.load(Ordering::Relaxed) == FREE {
                slot.store(by, Ordering::Relaxed);
                return at as u32;
            }
        }
        self.enter_rest(by)
    }

    #[cold]
    fn enter_rest(&self, by: u64) -> u32 {
        let mut rest = self.rest.lock();
        let at = match rest.free.pop() {
            Some(at) => {
                if let Some(id) = rest.ids.get_mut(at as usize) {
                    *id = by;
                }
                at
            }
            None => {
                rest.ids.push(by);
                rest.ids.len() as u32 - 1
            }
        };
        SLOTS as u32 + at
    }

    /// The reader written at `place` leaves.
    #[inline]
    pub(super) fn leave(&self, place: u32, by: u64) {
        match self.slots.get(place as usize) {
            Some(Slot(slot)) if slot.load(Ordering::Relaxed) == by => {
                slot.store(FREE, Ordering::Relaxed);
            }
            Some(_) => (),
            None if place == NOWHERE => (),
            None => self.leave_rest(place - SLOTS as u32),
        }
    }

    #[cold]
    fn leave_rest(&self, at: u32) {
        let mut rest = self.rest.lock();
        if let Some(id) = rest.ids.get_mut(at as usize) {
            *id = FREE;
            rest.free.push(at);
        }
        if rest.free.len() == rest.ids.len() {
            *rest = Rest::default();
        }
    }

    /// Whether `who` is written down as a reader.
    pub(super) fn reads(&self, who: u64) -> bool {
        self.slots.iter().any(|Slot(slot)| slot.load(Ordering::Relaxed) == who)
            || self.rest.lock().ids.contains(&who)
    }

    /// Everyone who is written down.
    pub(super) fn all(&self) -> Vec<u64> {
        let mut all: Vec<_> =
            self.slots.iter().map(|Slot(slot)| slot.load(Ordering::Acquire)).collect();
        all.extend(&self.rest.lock().ids);
        all.retain(|id| *id != FREE);
        all
    }

    /// `who` waits to write, until [`Readers::writer_gone`].
    pub(super) fn writer_waits(&self, who: u64, patience: Patience) -> u64 {
        let mut writers = self.writers.lock();
        writers.came += 1;
        let turn = writers.came;
        writers.line.push(Writer { turn, who, patience });
        turn
    }

    pub(super) fn writer_gone(&self, turn: u64) {
        self.writers.lock().line.retain(|writer| writer.turn != turn);
    }

    /// The waiting writer that keeps new readers out: the first, or one that gives up at a deadline, if any does. For
    /// when that one goes they may be let in, whatever the others do.
    pub(super) fn first_writer(&self) -> Option<u64> {
        let writers = self.writers.lock();
        let gives_up = |writer: &&Writer| matches!(writer.patience, Patience::Deadline);
        let first = writers.line.iter().find(gives_up).or_else(|| writers.line.first());
        first.map(|writer| writer.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_is_written_down_once_and_goes_alone() {
        let readers = Readers::default();
        let ids: Vec<u64> = (1..=50).collect();
        let mut places: Vec<_> = ids.iter().map(|id| (readers.enter(*id), *id)).collect();
        assert_eq!(readers.enter(UNKNOWN), NOWHERE);
        readers.leave(NOWHERE, UNKNOWN);
        let all = || {
            let mut all = readers.all();
            all.sort_unstable();
            all
        };
        assert_eq!(all(), ids);
        for (place, id) in places.drain(..).filter(|(_, id)| id % 3 == 0) {
            readers.leave(place, id);
        }
        let left: Vec<_> = ids.iter().copied().filter(|id| id % 3 != 0).collect();
        assert_eq!(all(), left);
        assert!(readers.reads(50) && readers.reads(1) && !readers.reads(3) && !readers.reads(48));
        for id in ids.iter().filter(|id| *id % 3 == 0) {
            readers.enter(*id);
        }
        assert_eq!(all(), ids);
    }

    #[test]
    fn one_that_lost_its_place_to_another_clears_nothing() {
        let readers = Readers::default();
        // As if both had seen the place free.
        let (lost, kept) = (readers.enter(8), 16);
        readers.slots[lost as usize].0.store(kept, Ordering::Relaxed);
        readers.leave(lost, 8);
        assert_eq!(readers.all(), [kept]);
        readers.leave(lost, kept);
        assert!(readers.all().is_empty());
    }

    #[test]
    fn the_writer_that_counts_is_the_first_unless_one_gives_up() {
        let readers = Readers::default();
        assert_eq!(readers.first_writer(), None);
        let first = readers.writer_waits(1, Patience::Endless);
        let second = readers.writer_waits(2, Patience::Deadline);
        assert_eq!(readers.first_writer(), Some(2));
        readers.writer_gone(second);
        assert_eq!(readers.first_writer(), Some(1));
        readers.writer_gone(first);
        assert_eq!(readers.first_writer(), None);
    }
}
