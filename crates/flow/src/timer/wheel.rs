//! The wheel: who sleeps until when, sorted no further than is needed.
//!
//! Owns a waker for each sleep under way, in a slot of one of its levels. It reads no clock, takes no lock and wakes nobody:
//! whoever holds it says what time it is and gets the wakers that are due.
//!
//! ```text
//! a tick's 48 bits:  ┌ 7 ┬ 6 ┬ 5 ┬ 4 ┬ 3 ┬ 2 ┬ 1 ┬ 0 ┐  the level is the highest group in which the tick
//!                    └ 6 ┴ 6 ┴ 6 ┴ 6 ┴ 6 ┴ 6 ┴ 6 ┴ 6 ┘  differs from `elapsed`, the slot is that group
//!
//! insert ─► level n ─its slot begins─► a lower level ─► … ─► level 0 ─its tick is reached─► firing ─► fired
//!              └────────── remove ────────────┴──────────────────┘
//! ```
//!
//! One invariant carries all that happens around it: **a sleep is the wheel's exactly while its tick is later than
//! `elapsed`** (and nobody removed it). So whoever knows a sleep's tick knows whether the place it was given is still its
//! own, without a generation or a flag for each; what is firing belongs to the one who fires. Insert and remove cost the
//! same whatever is in it, a sleep is moved down once per level at most, and memory is one entry per sleep.

use std::task::Waker;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 8;
/// The last tick there is.
pub(super) const LAST: u64 = (1 << (BITS * LEVELS as u32)) - 1;

const NONE: usize = usize::MAX;
/// An empty wheel keeps the memory of this many sleeps.
const KEPT: usize = 1024;

pub(super) struct Wheel {
    /// All up to this tick was handed out, or is firing.
    elapsed: u64,
    levels: [Level; LEVELS],
    entries: Vec<Entry>,
    /// The first free entry; `next` leads on.
    free: usize,
    live: usize,
    firing: usize,
}

#[derive(Clone, Copy)]
struct Level {
    /// A bit for each slot that holds somebody.
    occupied: u64,
    /// The first of each slot's ring of entries, the longest there.
    slots: [usize; SLOTS],
}

struct Entry {
    tick: u64,
    waker: Option<Waker>,
    prev: usize,
    next: usize,
}

impl Wheel {
    pub(super) fn new(elapsed: u64) -> Self {
        Self {
            elapsed,
            levels: [Level { occupied: 0, slots: [NONE; SLOTS] }; LEVELS],
            entries: Vec::new(),
            free: NONE,
            live: 0,
            firing: NONE,
        }
    }

    pub(super) fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// How many sleep, those firing included.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Enters a sleep and gives its place; `None` when its tick has passed. `tick` is [`LAST`] at most.
    pub(super) fn insert(&mut self, tick: u64, waker: Waker) -> Option<usize> {
        if tick <= self.elapsed {
            return None;
        }
        let entry = Entry { tick, waker: Some(waker), prev: NONE, next: NONE };
        let place = self.free;
        let place = if let Some(free) = self.entries.get_mut(place) {
            self.free = free.next;
            *free = entry;
            place
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.live += 1;
        self.link(place);
        Some(place)
    }

    /// Takes a sleep out; `None` when it fired. Drop what it gives outside of any lock.
    pub(super) fn remove(&mut self, tick: u64, place: usize) -> Option<Waker> {
        if tick <= self.elapsed {
            return None;
        }
        let (level, slot) = self.slot_of(tick);
        let first = self.levels[level].slots[slot];
        let first = self.unlink(first, place);
        self.set(level, slot, first);
        self.release(place)
    }

    /// The waker of a sleep that did not fire yet.
    pub(super) fn waker(&mut self, tick: u64, place: usize) -> Option<&mut Waker> {
        if tick <= self.elapsed {
            return None;
        }
        self.entries.get_mut(place)?.waker.as_mut()
    }

    /// Adds to `wakers` what is due at tick `now`, earliest first and `most` of it at most; true when there may be more.
    pub(super) fn fire(&mut self, now: u64, most: usize, wakers: &mut Vec<Waker>) -> bool {
        loop {
            while self.firing != NONE {
                if wakers.len() >= most {
                    return true;
                }
                let place = self.firing;
                self.firing = self.unlink(place, place);
                wakers.extend(self.release(place));
            }
            if !self.turn(now) {
                return false;
            }
        }
    }

    /// The tick at which to fire next: somebody's, or the one at which a slot's sleeps move down.
    pub(super) fn next(&self) -> Option<u64> {
        if self.firing != NONE {
            return Some(self.elapsed);
        }
        self.first_slot().map(|(_, _, tick)| tick)
    }

    /// Everybody's waker; the wheel is empty then.
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        let gone = std::mem::replace(self, Self::new(self.elapsed));
        gone.entries.into_iter().filter_map(|entry| entry.waker).collect()
    }

    /// Goes on to the next slot that begins at `now` or before; false when none does.
    fn turn(&mut self, now: u64) -> bool {
        let Some((level, slot, tick)) = self.first_slot().filter(|(_, _, tick)| *tick <= now)
        else {
            self.elapsed = self.elapsed.max(now.min(LAST));
            return false;
        };
        let first = self.levels[level].slots[slot];
        self.set(level, slot, NONE);
        self.elapsed = tick;
        if level == 0 {
            self.firing = first;
        } else {
            self.move_down(first);
        }
        true
    }

    /// Spreads a ring of sleeps over the levels below; those due at this very tick fire.
    fn move_down(&mut self, mut first: usize) {
        while first != NONE {
            let place = first;
            first = self.unlink(place, place);
            if self.entries[place].tick > self.elapsed {
                self.link(place);
            } else {
                self.firing = self.push_back(self.firing, place);
            }
        }
    }

    /// The first slot to begin. Each level's slots are later than all of the level below.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros();
        let shift = BITS * level as u32;
        let above = self.elapsed >> (shift + BITS) << (shift + BITS);
        Some((level, slot as usize, above | (u64::from(slot) << shift)))
    }

    /// Where a tick later than `elapsed` belongs. The same for as long as its slot has not begun.
    fn slot_of(&self, tick: u64) -> (usize, usize) {
        let highest = 63 - (self.elapsed ^ tick).leading_zeros();
        let level = highest / BITS;
        let slot = (tick >> (level * BITS)) as usize % SLOTS;
        (level as usize, slot)
    }

    fn link(&mut self, place: usize) {
        let (level, slot) = self.slot_of(self.entries[place].tick);
        let first = self.push_back(self.levels[level].slots[slot], place);
        self.set(level, slot, first);
    }

    fn set(&mut self, level: usize, slot: usize, first: usize) {
        let level = &mut self.levels[level];
        level.slots[slot] = first;
        let bit = 1 << slot;
        level.occupied = if first == NONE { level.occupied & !bit } else { level.occupied | bit };
    }

    /// Adds to the end of the ring that begins with `first`; gives its first.
    fn push_back(&mut self, first: usize, place: usize) -> usize {
        if first == NONE {
            (self.entries[place].prev, self.entries[place].next) = (place, place);
            return place;
        }
        let last = self.entries[first].prev;
        (self.entries[place].prev, self.entries[place].next) = (last, first);
        self.entries[last].next = place;
        self.entries[first].prev = place;
        first
    }

    /// Takes `place` out of the ring that begins with `first`; gives its first.
    fn unlink(&mut self, first: usize, place: usize) -> usize {
        let Entry { prev, next, .. } = self.entries[place];
        if next == place {
            return NONE;
        }
        self.entries[prev].next = next;
        self.entries[next].prev = prev;
        if first == place { next } else { first }
    }

    fn release(&mut self, place: usize) -> Option<Waker> {
        let entry = &mut self.entries[place];
        entry.next = self.free;
        let waker = entry.waker.take();
        self.free = place;
        self.live -= 1;
        if self.live == 0 && self.entries.len() > KEPT {
            self.entries = Vec::new();
            self.free = NONE;
        }
        waker
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    use super::*;

    /// A waker that tells its number.
    struct Number(u64, Arc<AtomicU64>);

    impl Wake for Number {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0, Ordering::Relaxed);
        }
    }

    struct Told(Arc<AtomicU64>);

    impl Told {
        fn waker(&self, number: u64) -> Waker {
            Waker::from(Arc::new(Number(number, Arc::clone(&self.0))))
        }

        fn number(&self, waker: Waker) -> u64 {
            waker.wake();
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Far and near, in the past, and on the borders of slots.
    fn tick(rng: &mut fastrand::Rng, now: u64) -> u64 {
        match rng.u8(0..8) {
            0 => now.saturating_sub(rng.u64(0..3)),
            1 => (now | 63) + rng.u64(0..2),
            2 => (now | ((1 << rng.u32(1..48)) - 1)) + rng.u64(0..2),
            3 => now + 1,
            4 => {
                let bits = rng.u32(1..48);
                now + rng.u64(0..1 << bits)
            }
            5 => LAST,
            _ => now + rng.u64(0..200),
        }
        .min(LAST)
    }

    #[test]
    fn a_wheel_does_what_a_sorted_list_does_whatever_the_order() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let told = Told(Arc::default());
            let bits = rng.u32(1..40);
            let mut now = rng.u64(0..1 << bits);
            let mut wheel = Wheel::new(now);
            // By tick, then by the order of insertion.
            let mut list: BTreeMap<(u64, u64), usize> = BTreeMap::new();
            for number in 0..400 {
                match rng.u8(0..10) {
                    0..5 => {
                        let tick = tick(&mut rng, now);
                        let place = wheel.insert(tick, told.waker(number));
                        assert_eq!(place.is_some(), tick > now, "seed {seed}");
                        if let Some(place) = place {
                            list.insert((tick, number), place);
                        }
                    }
                    5..8 if !list.is_empty() => {
                        let at = rng.usize(0..list.len());
                        let (key, place) = list.iter().nth(at).map(|(k, p)| (*k, *p)).unwrap();
                        list.remove(&key);
                        let waker = wheel.remove(key.0, place).unwrap();
                        assert_eq!(told.number(waker), key.1, "seed {seed}");
                    }
                    _ => {
                        // Now and then the clock seems to go back, which changes nothing.
                        let then = tick(&mut rng, now);
                        now = now.max(then);
                        let mut wakers = Vec::new();
                        while wheel.fire(then, wakers.len() + rng.usize(1..4), &mut wakers) {}
                        let fired: Vec<_> = wakers.into_iter().map(|w| told.number(w)).collect();
                        let later = list.split_off(&(now + 1, 0));
                        let due: Vec<_> = list.keys().map(|(_, number)| *number).collect();
                        // Of one tick, those that were entered from afar may come before.
                        let ticks = |numbers: &[u64]| {
                            let of = |n: &u64| list.keys().find(|key| key.1 == *n).unwrap().0;
                            numbers.iter().map(of).collect::<Vec<_>>()
                        };
                        assert_eq!(ticks(&fired), ticks(&due), "seed {seed}");
                        list = later;
                    }
                }
                assert_eq!(wheel.len(), list.len(), "seed {seed}");
                let first = list.keys().next().map(|(tick, _)| *tick);
                let next = wheel.next();
                assert_eq!(next.is_some(), first.is_some(), "seed {seed}");
                assert!(next <= first && next.is_none_or(|next| next > now), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_long_sleep_is_looked_at_once_per_level_and_no_oftener() {
        let mut wheel = Wheel::new(12_345);
        wheel.insert(LAST - 1, Waker::noop().clone()).unwrap();
        let (mut looks, mut wakers) = (0, Vec::new());
        while let Some(next) = wheel.next() {
            wheel.fire(next, usize::MAX, &mut wakers);
            looks += 1;
            assert_eq!(wakers.len(), usize::from(next == LAST - 1));
        }
        assert!(looks <= LEVELS, "{looks} looks");
    }

    #[test]
    fn an_empty_wheel_gives_its_memory_back_and_a_busy_one_uses_places_again() {
        let mut wheel = Wheel::new(0);
        for round in 1..100 {
            let places: Vec<_> = (0..100)
                .map(|n| wheel.insert(round * 100 + n, Waker::noop().clone()).unwrap())
                .collect();
            for (n, place) in places.into_iter().enumerate().skip(50) {
                wheel.remove(round * 100 + n as u64, place).unwrap();
            }
            let mut wakers = Vec::new();
            assert!(!wheel.fire(round * 100 + 99, usize::MAX, &mut wakers));
            assert_eq!((wakers.len(), wheel.len()), (50, 0));
        }
        assert_eq!(wheel.entries.len(), 100);
        for _ in 0..KEPT * 4 {
            wheel.insert(100_000, Waker::noop().clone()).unwrap();
        }
        wheel.fire(100_000, usize::MAX, &mut Vec::new());
        assert_eq!((wheel.len(), wheel.entries.capacity()), (0, 0));
    }
}
