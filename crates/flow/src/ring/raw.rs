//! The slots and the two indices: the one place of the toolkit with shared memory and no lock.
//!
//! Owns the items between the two halves. The indices run freely and wrap; an item lies in slot `index & mask`. What lies
//! in `head..tail` is the consumer's, the rest of the buffer is the producer's. Each half writes its own index only, after
//! it is done with the slots it gives away, and reads the other's before it touches the slots it was given.
//!
//! ```text
//!        head              tail
//!  free │ items of consumer │ free slots, the producer's
//! ```

use std::ops::Deref;

use super::slots::Slots;
use crate::sync::{Arc, AtomicUsize, Ordering};

/// How the two indices lie in memory, how often each half reads the other's, and whether it looks ahead. For the bench:
/// users want [`Tuned`].
pub trait Layout: sealed::Sealed {
    /// Whether a half trusts the other's index as it last saw it, until that says no.
    const CACHED: bool;
    /// Whether a half fetches the lines of slots that it comes to soon.
    const FETCHED: bool;
    #[doc(hidden)]
    type Place: From<AtomicUsize> + Deref<Target = AtomicUsize> + Send + Sync;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $place:ty, $cached:expr, $fetched:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Layout for $name {
            const CACHED: bool = $cached;
            const FETCHED: bool = $fetched;
            type Place = $place;
        }
    };
}

layout!(
    /// Each index on cache lines of its own, each half with a copy of the other's, and slots fetched ahead.
    Tuned, Padded, true, true
);
layout!(
    /// Both indices on one line.
    Unpadded, Plain, true, true
);
layout!(
    /// No copies: each operation reads the other's index.
    Uncached, Padded, false, true
);
layout!(
    /// No slots fetched ahead.
    Unfetched, Padded, true, false
);
layout!(
    /// None of the three.
    Naive, Plain, false, false
);

/// Two lines, as the prefetcher of most machines fetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Padded(AtomicUsize);

#[derive(Debug)]
pub struct Plain(AtomicUsize);

macro_rules! place {
    ($name:ident) => {
        impl From<AtomicUsize> for $name {
            fn from(index: AtomicUsize) -> Self {
                Self(index)
            }
        }

        impl Deref for $name {
            type Target = AtomicUsize;

            #[inline(always)]
            fn deref(&self) -> &AtomicUsize {
                &self.0
            }
        }
    };
}

place!(Padded);
place!(Plain);

struct Raw<T, L: Layout> {
    /// The next to pop; only the consumer writes it.
    head: L::Place,
    /// The next to push; only the producer writes it.
    tail: L::Place,
    slots: Slots<T>,
    capacity: usize,
}

// SAFETY: a slot is touched by one half at a time, as the indices say, and handed over by a release of the index that the
// other half acquires. Items move between threads, hence `T: Send`. No `&T` is ever shared.
unsafe impl<T: Send, L: Layout> Sync for Raw<T, L> {}

impl<T, L: Layout> Drop for Raw<T, L> {
    fn drop(&mut self) {
        // Both halves are gone, and dropping the last `Arc` has seen what they did.
        let (mut head, tail) =
            (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: `head..tail` was written and never read out; nobody else is left.
            self.slots.get(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

pub(super) fn split<T, L: Layout>(capacity: usize) -> (Writer<T, L>, Reader<T, L>) {
    let capacity = capacity.max(1);
    let raw = Arc::new(Raw {
        head: AtomicUsize::new(0).into(),
        tail: AtomicUsize::new(0).into(),
        slots: Slots::new(capacity),
        capacity,
    });
    (Writer { raw: Arc::clone(&raw), tail: 0, head: 0 }, Reader { raw, head: 0, tail: 0 })
}

/// The producer's half: its own index, and the consumer's as it last saw it (never ahead of the truth).
pub(super) struct Writer<T, L: Layout> {
    raw: Arc<Raw<T, L>>,
    tail: usize,
    head: usize,
}

/// The consumer's half.
pub(super) struct Reader<T, L: Layout> {
    raw: Arc<Raw<T, L>>,
    head: usize,
    tail: usize,
}

impl<T, L: Layout> Writer<T, L> {
    pub(super) fn capacity(&self) -> usize {
        self.raw.capacity
    }

    /// Free slots: at least `want` if there are so many, and never more than there are.
    #[inline(always)]
    pub(super) fn free(&mut self, want: usize) -> usize {
        let mut free = self.raw.capacity - self.tail.wrapping_sub(self.head);
        if !L::CACHED || free < want {
            self.head = self.raw.head.load(Ordering::Acquire);
            free = self.raw.capacity - self.tail.wrapping_sub(self.head);
        }
        free
    }

    #[inline(always)]
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        let free = self.free(1);
        if free == 0 {
            return Err(item);
        }
        if L::FETCHED {
            self.raw.slots.fetch_for_push(self.tail, free);
        }
        // SAFETY: `free` says that the slot at `tail` is the producer's, and it holds nothing.
        self.raw.slots.get(self.tail).with_mut(|slot| unsafe { (*slot).write(item) });
        self.publish(1);
        Ok(())
    }

    /// Pushes while there is room and `items` has more; one publication for all, also when `items` panics.
    pub(super) fn push_from(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        let free = self.free(self.raw.capacity);
        let mut batch = Written { writer: self, count: 0 };
        while batch.count < free
            && let Some(item) = items.next()
        {
            let at = batch.writer.tail.wrapping_add(batch.count);
            // SAFETY: `count < free`: the slot is the producer's and holds nothing.
            batch.writer.raw.slots.get(at).with_mut(|slot| unsafe { (*slot).write(item) });
            batch.count += 1;
        }
        batch.count
    }

    #[inline]
    pub(super) fn push_slice(&mut self, items: &[T]) -> usize
    where
        T: Copy,
    {
        let count = self.free(items.len()).min(items.len());
        if count == 0 {
            return 0; // without a store that would take the index's line from the consumer
        }
        #[cfg(loom)]
        for (n, item) in items[..count].iter().enumerate() {
            // SAFETY: `n < count <= free`: the slot is the producer's and holds nothing.
            self.raw
                .slots
                .get(self.tail.wrapping_add(n))
                .with_mut(|slot| unsafe { (*slot).write(*item) });
        }
        #[cfg(not(loom))]
        {
            let (slots, run) = self.raw.slots.run(self.tail);
            let first = count.min(run);
            // SAFETY: the next `count` slots are the producer's (`count <= free`); `first` of them lie before the end of
            // the buffer, the rest at its start. A slot has the layout of `T` and is a cell, so it may be written through
            // a pointer that came from a shared reference. `items` is no part of the buffer, and `T` is `Copy`.
            unsafe { items.as_ptr().copy_to_nonoverlapping(slots, first) };
            if first < count {
                let (slots, _) = self.raw.slots.run(0);
                // SAFETY: as above.
                unsafe { items.as_ptr().add(first).copy_to_nonoverlapping(slots, count - first) };
            }
        }
        self.publish(count);
        count
    }

    #[inline(always)]
    fn publish(&mut self, count: usize) {
        self.tail = self.tail.wrapping_add(count);
        self.raw.tail.store(self.tail, Ordering::Release);
    }
}

/// Publishes what was written, on every way out.
struct Written<'a, T, L: Layout> {
    writer: &'a mut Writer<T, L>,
    count: usize,
}

impl<T, L: Layout> Drop for Written<'_, T, L> {
    fn drop(&mut self) {
        self.writer.publish(self.count);
    }
}

impl<T, L: Layout> Reader<T, L> {
    pub(super) fn capacity(&self) -> usize {
        self.raw.capacity
    }

    /// Items there: at least `want` if there are so many, and never more than there are.
    #[inline(always)]
    pub(super) fn ready(&mut self, want: usize) -> usize {
        let mut ready = self.tail.wrapping_sub(self.head);
        if !L::CACHED || ready < want {
            self.tail = self.raw.tail.load(Ordering::Acquire);
            ready = self.tail.wrapping_sub(self.head);
        }
        ready
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        let ready = self.ready(1);
        if ready == 0 {
            return None;
        }
        if L::FETCHED {
            self.raw.slots.fetch_for_pop(self.head, ready);
        }
        // SAFETY: `ready` says that the slot at `head` is the consumer's and holds an item; it is read once, as `head`
        // moves on before anybody looks again.
        let item = self.raw.slots.get(self.head).with(|slot| unsafe { (*slot).assume_init_read() });
        self.release(1);
        Some(item)
    }

    /// Hands up to `max` items to `each`; one publication for all, also when `each` panics.
    pub(super) fn pop_each(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let count = self.ready(max).min(max);
        let mut batch = Read { reader: self, count: 0 };
        while batch.count < count {
            let at = batch.reader.head.wrapping_add(batch.count);
            // SAFETY: `count <= ready`: the slot is the consumer's and holds an item. It counts as read before `each`
            // can panic, so nobody reads it again.
            let item =
                batch.reader.raw.slots.get(at).with(|slot| unsafe { (*slot).assume_init_read() });
            batch.count += 1;
            each(item);
        }
        count
    }

    #[inline]
    pub(super) fn pop_slice(&mut self, out: &mut [T]) -> usize
    where
        T: Copy,
    {
        let ready = self.ready(out.len());
        let count = ready.min(out.len());
        if count == 0 {
            return 0; // without a store that would take the index's line from the producer
        }
        #[cfg(loom)]
        for (n, out) in out[..count].iter_mut().enumerate() {
            // SAFETY: `n < count <= ready`: the slot is the consumer's and holds an item.
            *out = self
                .raw
                .slots
                .get(self.head.wrapping_add(n))
                .with(|slot| unsafe { (*slot).assume_init_read() });
        }
        #[cfg(not(loom))]
        {
            let (slots, run) = self.raw.slots.run(self.head);
            let first = count.min(run);
            // SAFETY: the next `count` slots are the consumer's and hold items (`count <= ready`); `first` of them lie
            // before the end of the buffer, the rest at its start. `out` is no part of the buffer, and `T` is `Copy`.
            unsafe { slots.copy_to_nonoverlapping(out.as_mut_ptr(), first) };
            if first < count {
                let (slots, _) = self.raw.slots.run(0);
                // SAFETY: as above.
                unsafe { slots.copy_to_nonoverlapping(out.as_mut_ptr().add(first), count - first) };
            }
        }
        self.release(count);
        #[cfg(not(loom))]
        if L::FETCHED {
            self.raw.slots.fetch_batch_for_pop(self.head, ready - count);
        }
        count
    }

    #[inline(always)]
    fn release(&mut self, count: usize) {
        self.head = self.head.wrapping_add(count);
        self.raw.head.store(self.head, Ordering::Release);
    }
}

/// Gives the slots back that were read, on every way out.
struct Read<'a, T, L: Layout> {
    reader: &'a mut Reader<T, L>,
    count: usize,
}

impl<T, L: Layout> Drop for Read<'_, T, L> {
    fn drop(&mut self) {
        self.reader.release(self.count);
    }
}
