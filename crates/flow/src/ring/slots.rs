//! The buffer of a ring: a power of two of slots, and hints to fetch their lines early.
//!
//! Owns the memory, not the items: which slots hold one only the indices say, so dropping it drops none. The first slot
//! begins with a cache line where the items' size allows: a batch of whole lines then shares none with its neighbour,
//! which the other half has in its hands.
//!
//! The hints are what a ring between two cores lives on. A line that the other half touched last has to travel, and a
//! store that waits for its line holds up all stores behind it, the index among them: without hints one line is on its way
//! at a time. They are x86-64's and change nothing but the time; elsewhere there are none.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::sync::UnsafeCell;

pub(super) type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// Bytes of a cache line.
const LINE: usize = 64;
/// How far ahead lines are fetched. Fewer bring little when the ring is mostly full, more bring nothing as a rule and are no
/// use to a ring of half a kilobyte.
const LINES_AHEAD: usize = 4;
/// How many lines of the next batch the consumer fetches. The producer fetches none: a copy writes whole lines, for which
/// the old content need not travel, and fetching it costs a tenth.
#[cfg(not(loom))]
const LINES_OF_A_BATCH: usize = 8;

pub(super) struct Slots<T> {
    /// The first slot that is used.
    start: NonNull<Slot<T>>,
    mask: usize,
    /// What was allocated: a few more slots, for the alignment of the first. It came of a `Box`.
    memory: NonNull<[Slot<T>]>,
}

// SAFETY: this is a boxed slice of cells. What may be done with a cell through a shared reference is the caller's to say.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T> Slots<T> {
    /// Slots of a line, rounded down to a power of two; of those as long as a line or longer, one.
    const PER_LINE: usize = match LINE.checked_div(size_of::<T>()) {
        None | Some(0) => 1,
        Some(whole) => 1 << whole.ilog2(),
    };
    /// The distance of what is fetched, in slots.
    const AHEAD: usize = Self::PER_LINE * LINES_AHEAD;

    /// At least `capacity` slots, which is not zero.
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity <= 1 << (usize::BITS - 1), "a ring of {capacity} slots");
        let len = capacity.next_power_of_two();
        let spare = LINE.checked_div(size_of::<T>()).unwrap_or(0);
        let slots: Box<[Slot<T>]> =
            (0..len + spare).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        let memory = NonNull::from(Box::leak(slots));
        let aligned = memory.cast::<Slot<T>>().align_offset(LINE);
        let first = if aligned <= spare { aligned } else { 0 };
        // SAFETY: `first` is at most the number of spare slots.
        let start = unsafe { memory.cast::<Slot<T>>().add(first) };
        Self { start, mask: len - 1, memory }
    }

    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> &Slot<T> {
        // SAFETY: from `start` there are more slots than the mask, and they live as long as `self`.
        unsafe { self.start.add(index & self.mask).as_ref() }
    }

    /// The slot of `index` as an address of items, and how many lie from there to the end of the buffer.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(super) fn run(&self, index: usize) -> (*mut T, usize) {
        let at = index & self.mask;
        // SAFETY: from `start` there are more slots than the mask.
        let slot = unsafe { self.start.add(at) };
        (slot.as_ptr().cast(), self.mask + 1 - at)
    }

    /// The producer comes to `index` and has `free` slots from there: fetches a line that it will write.
    #[inline(always)]
    pub(super) fn fetch_for_push(&self, index: usize, free: usize) {
        if let Some(slot) = self.ahead(index, free) {
            hint::write(slot);
        }
    }

    /// The consumer comes to `index` and has `ready` items from there: fetches a line that it will read.
    #[inline(always)]
    pub(super) fn fetch_for_pop(&self, index: usize, ready: usize) {
        if let Some(slot) = self.ahead(index, ready) {
            hint::read(slot);
        }
    }

    /// The consumer took a batch, comes to `index` and has `ready` items from there: fetches the first lines of them.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(super) fn fetch_batch_for_pop(&self, index: usize, ready: usize) {
        if size_of::<T>() > 0 {
            for line in 0..(ready / Self::PER_LINE).min(LINES_OF_A_BATCH) {
                hint::read(self.get(index.wrapping_add(line * Self::PER_LINE)));
            }
        }
    }

    /// A slot of the line to fetch, once for each line and only among those that the caller has: a line is never taken
    /// from a half that still works on it.
    #[inline(always)]
    fn ahead(&self, index: usize, own: usize) -> Option<*const Slot<T>> {
        let fetch = size_of::<T>() > 0 && index.is_multiple_of(Self::PER_LINE) && own > Self::AHEAD;
        fetch.then(|| std::ptr::from_ref(self.get(index.wrapping_add(Self::AHEAD))))
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        // SAFETY: `memory` came of a `Box` in `new`, and nobody else frees it.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod hint {
    use std::arch::asm;
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    /// The standard library's hint for writing is one for reading, unless the build is for processors with `prfchw` only.
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "a hint reads and writes nothing")]
    #[inline(always)]
    pub(super) fn write<S>(at: *const S) {
        // SAFETY: changes neither memory nor registers, and faults at no address. A processor that does not know it takes
        // it for a no-op.
        unsafe { asm!("prefetchw [{}]", in(reg) at, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    pub(super) fn read<S>(at: *const S) {
        // SAFETY: every x86-64 processor has it, and it faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
mod hint {
    pub(super) fn write<S>(_at: *const S) {}

    pub(super) fn read<S>(_at: *const S) {}
}
