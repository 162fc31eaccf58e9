//! A ring for one producer and one consumer: atomics only, no allocation after construction, batches of one publication.
//!
//! Owns the items between its two halves; what is left when both are gone is dropped. [`new`] gives the bare ring, which
//! never waits: a push into a full ring hands the item back, a pop from an empty one says so. [`channel()`] puts wakers on
//! top, so that either half can await the other. Neither takes a lock, and a push never waits for a pop.
//!
//! ```text
//! Producer ─push─► │slot│slot│slot│slot│ ─pop─► Consumer      a bare ring: two indices, each written by one half
//! Sender ───push─► │       ring        │ ─pop─► Receiver      a channel: the same, and a bell in each direction
//! ```
//!
//! It is for two parties that exchange much: samples, log lines, packets. With several producers, a policy other than
//! "hand it back", or counters, use [`crate::queue`]: this ring has no row in its registry.
//!
//! # Channel, lock or ring
//! Nanoseconds an item of eight bytes between two cores that do nothing else: the medians of several runs of
//! `benches/ring.rs` on two virtual cores of an EPYC. The host gives nearer and farther ones; within a run the order stays.
//!
//! | what | one by one | batches of 64 | when |
//! |---|---|---|---|
//! | [`new`]: a bare ring | 1.2 to 3.1 | 0.9 to 1.2 | one producer, one consumer, and both have something else to do, or a thread to spin, when there is nothing or no room |
//! | [`channel()`]: a ring with wakers | 6 to 16 | 0.8 to 1.4 | the same two as tasks that await each other; each publication pays a full fence, so publish in batches |
//! | a `VecDeque` in a `Mutex` | 14 to 22 | 3.5 to 4.4 | several parties, or more than push and pop: looking in, removing from the middle. Cheap until many want it at once |
//! | an array of atomics for many (crossbeam's `ArrayQueue`) | 15 to 48 | | many on either side that never wait |
//! | Tokio's channel | 57 to 141 | | many producers that await room; [`crate::queue`] instead, which has a name, a policy and counters |
//!
//! On one thread, where no line travels, a push and a pop take 2.5 (bare), 4.4, 9.7, 6.6 and 20 ns in this order. When the
//! work on an item takes a microsecond, none of this matters: take the queue.
//!
//! # Choosing a bound
//! As many items as the producer makes while the consumer is held up at its longest. The memory is a power of two of
//! slots, at least as many as the bound, and up to a cache line more; the bound itself is kept exactly. Lines are fetched
//! ahead where the ring has room for five of them and more: some forty items of eight bytes.
//!
//! # Cancel safety
//! The bare ring has nothing to cancel. Of the channel, [`Sender::room`], [`Receiver::ready`] and [`Receiver::pop`] are
//! cancel safe; a cancelled [`Sender::push`] drops its item, so use `room` and `try_push` where that matters.
//!
//! # Checking
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p forebay-flow --lib model   # not the hints
//! cargo test -p forebay-flow --test it --no-run                              # names the binary IT
//! valgrind --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite --fair-sched=yes \
//!     IT ring:: --test-threads=1
//! RUSTFLAGS="--cfg helgrind" cargo test -p forebay-flow --test it --no-run   # tells helgrind of the handovers
//! valgrind --tool=helgrind --error-exitcode=1 --suppressions=crates/flow/tests/helgrind.supp --fair-sched=yes \
//!     IT ring::two_threads --test-threads=1
//! ```

mod bell;
mod channel;
#[cfg(all(test, loom))]
mod model;
mod raw;
mod slots;

use std::fmt;

pub use self::channel::{Closed, Receiver, Sender, TryPushError, channel};
#[doc(hidden)]
pub use self::raw::Tuned;
#[doc(hidden)]
pub use self::raw::{Layout, Naive, Uncached, Unfetched, Unpadded};

/// A ring of at most `capacity` items; zero counts as one.
///
/// ```
/// use forebay_flow::ring::{self, Full};
/// let (mut tx, mut rx) = ring::new(2);
/// assert_eq!(tx.push_slice(&[1, 2, 3]), 2); // what fits
/// assert_eq!(tx.push(3), Err(Full(3))); // the item comes back
/// assert_eq!(rx.pop(), Some(1));
/// assert_eq!(tx.push(3), Ok(()));
/// let mut out = [0; 8];
/// assert_eq!(rx.pop_slice(&mut out), 2);
/// assert_eq!(out[..2], [2, 3]);
/// ```
///
/// # Panics
/// When no buffer of that size can be asked of the allocator.
#[must_use]
pub fn new<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    with_layout(capacity)
}

/// As [`new`], in the layout that the caller names: for the bench.
#[doc(hidden)]
#[must_use]
pub fn with_layout<T: Send, L: Layout>(capacity: usize) -> (Producer<T, L>, Consumer<T, L>) {
    let (writer, reader) = raw::split(capacity);
    (Producer { writer }, Consumer { reader })
}

/// The ring is full; the item comes back. A later retry may succeed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is full")
    }
}

impl<T> std::error::Error for Full<T> {}

/// The half that pushes.
pub struct Producer<T, L: Layout = Tuned> {
    writer: raw::Writer<T, L>,
}

impl<T: Send, L: Layout> Producer<T, L> {
    /// Pushes one item. It does not see whether the consumer is gone: a ring that stays full does.
    ///
    /// # Errors
    /// [`Full`] hands the item back.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        self.writer.push(item).map_err(Full)
    }

    /// Pushes from `items` while there is room, and says how many; the rest stays in the iterator. The consumer sees all
    /// of them at once. When the iterator panics, those before it are pushed.
    #[inline]
    pub fn push_batch(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        self.writer.push_from(items)
    }

    /// Copies as many of `items` as there is room for, and says how many. The consumer sees all of them at once.
    #[inline]
    pub fn push_slice(&mut self, items: &[T]) -> usize
    where
        T: Copy,
    {
        self.writer.push_slice(items)
    }

    /// For how many items there is room now; the consumer can only make it more.
    #[must_use]
    pub fn free(&mut self) -> usize {
        let capacity = self.capacity();
        self.writer.free(capacity)
    }

    /// The bound, in items.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.writer.capacity()
    }
}

impl<T, L: Layout> fmt::Debug for Producer<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("capacity", &self.writer.capacity()).finish()
    }
}

/// The half that pops.
pub struct Consumer<T, L: Layout = Tuned> {
    reader: raw::Reader<T, L>,
}

impl<T: Send, L: Layout> Consumer<T, L> {
    /// The oldest item, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.reader.pop()
    }

    /// Hands up to `max` items to `each`, oldest first, and says how many. Their slots are free after the last. When
    /// `each` panics, the item it was given is gone and the later ones stay.
    #[inline]
    pub fn pop_batch(&mut self, max: usize, each: impl FnMut(T)) -> usize {
        self.reader.pop_each(max, each)
    }

    /// Moves the oldest items to the front of `out`, as many as there are and as fit, and says how many.
    #[inline]
    pub fn pop_slice(&mut self, out: &mut [T]) -> usize
    where
        T: Copy,
    {
        self.reader.pop_slice(out)
    }

    /// How many items are there now; the producer can only make it more.
    #[must_use]
    pub fn len(&mut self) -> usize {
        let capacity = self.capacity();
        self.reader.ready(capacity)
    }

    /// Whether none is there now.
    #[must_use]
    pub fn is_empty(&mut self) -> bool {
        self.reader.ready(1) == 0
    }

    /// The bound, in items.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.reader.capacity()
    }
}

impl<T, L: Layout> fmt::Debug for Consumer<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.reader.capacity()).finish()
    }
}
