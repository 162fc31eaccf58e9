//! The ring with wakers: either half can await the other, and sees when the other is gone.
//!
//! Owns the two bells and the word that a half is gone. Each publication looks for a waiter, which costs a full fence: that
//! is what the bare ring saves, and what a batch pays once.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::bell::Bell;
use super::{Consumer, Full, Producer};
use crate::sync::{Arc, AtomicU8, Ordering};
use crate::tasks::{self, Name};

const OPEN: u8 = 0;
const GONE: u8 = 1;

struct Bells {
    name: std::sync::Arc<str>,
    /// The receiver waits for items, or for the sender's end.
    items: Bell,
    /// The sender waits for room, or for the receiver's end.
    room: Bell,
    sender: AtomicU8,
    receiver: AtomicU8,
}

/// A ring of `name` and at most `capacity` items (zero counts as one) whose halves can await each other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::ring;
/// let (mut tx, mut rx) = ring::channel("samples", 64);
/// assert_eq!(tx.push_slice(&[1, 2, 3]), 3);
/// tx.push(4).await.unwrap();
/// drop(tx);
/// let mut sum = 0;
/// while rx.ready().await > 0 {
///     rx.pop_batch(64, |sample| sum += sample); // what was pushed is drained
/// }
/// assert_eq!(sum, 10);
/// # }
/// ```
///
/// # Panics
/// When no buffer of that size can be asked of the allocator.
#[must_use]
pub fn channel<T: Send>(name: impl Into<Name>, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let name = name.into();
    let bells = Arc::new(Bells {
        name: std::sync::Arc::from(name.as_ref()),
        items: Bell::new(),
        room: Bell::new(),
        sender: AtomicU8::new(OPEN),
        receiver: AtomicU8::new(OPEN),
    });
    let (producer, consumer) = super::new(capacity);
    (Sender { producer, bells: Arc::clone(&bells) }, Receiver { consumer, bells })
}

/// The receiver is gone: for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring's receiver is gone")
    }
}

impl std::error::Error for Closed {}

/// Why an item was not pushed; it comes back inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPushError<T> {
    /// No room now. A later retry may succeed.
    Full(T),
    /// The receiver is gone: for good.
    Closed(T),
}

impl<T> TryPushError<T> {
    /// The item that was not pushed.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the ring is full"),
            Self::Closed(_) => Closed.fmt(f),
        }
    }
}

impl<T> std::error::Error for TryPushError<T> {}

/// The half that pushes, and can wait for room. Dropping it ends the channel once it is drained.
pub struct Sender<T> {
    producer: Producer<T>,
    bells: Arc<Bells>,
}

impl<T: Send> Sender<T> {
    /// Pushes one item if there is room now.
    ///
    /// # Errors
    /// [`TryPushError`] hands the item back.
    pub fn try_push(&mut self, item: T) -> Result<(), TryPushError<T>> {
        self.push_unrung(item).map(|waker| waker.into_iter().for_each(Waker::wake))
    }

    /// As [`Sender::try_push`], but whoever calls wakes the receiver: for those who hold a lock here.
    pub(crate) fn push_unrung(&mut self, item: T) -> Result<Option<Waker>, TryPushError<T>> {
        if self.is_closed() {
            return Err(TryPushError::Closed(item));
        }
        match self.producer.push(item) {
            Ok(()) => Ok(self.bells.items.take()),
            Err(Full(item)) => Err(TryPushError::Full(item)),
        }
    }

    /// The bound, in items.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.producer.capacity()
    }

    /// Waits for room and pushes `item`.
    ///
    /// # Errors
    /// The item comes back when the receiver is gone.
    ///
    /// # Cancel safety
    /// A push that is dropped while it waits drops its item unsent. [`Sender::room`] does not have one.
    pub async fn push(&mut self, item: T) -> Result<(), TryPushError<T>> {
        if self.room().await.is_err() {
            return Err(TryPushError::Closed(item));
        }
        self.try_push(item)
    }

    /// Waits until there is room, and says for how many items. Only this half can use it up, so the next push finds it.
    ///
    /// # Errors
    /// [`Closed`] when the receiver is gone.
    ///
    /// # Cancel safety
    /// Nothing is taken, so nothing is lost.
    pub async fn room(&mut self) -> Result<usize, Closed> {
        poll_fn(|cx| self.poll_room(cx)).await
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        for looks_again in [false, true] {
            if self.is_closed() {
                return Poll::Ready(Err(Closed));
            }
            let free = self.producer.free();
            if free > 0 {
                return Poll::Ready(Ok(free));
            }
            if !looks_again {
                self.bells.room.set(cx.waker());
            }
        }
        tasks::note_wait("ring", &self.bells.name);
        Poll::Pending
    }

    /// As [`Producer::push_batch`].
    pub fn push_batch(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        let count = self.producer.push_batch(items);
        self.told(count)
    }

    /// As [`Producer::push_slice`].
    pub fn push_slice(&mut self, items: &[T]) -> usize
    where
        T: Copy,
    {
        let count = self.producer.push_slice(items);
        self.told(count)
    }

    fn told(&self, count: usize) -> usize {
        if count > 0 {
            self.bells.items.ring();
        }
        count
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.bells.receiver.load(Ordering::Acquire) == GONE
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.bells.sender.store(GONE, Ordering::Release);
        self.bells.items.ring();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("name", &self.bells.name).finish_non_exhaustive()
    }
}

/// The half that pops, and can wait for items. Dropping it tells the sender; what is in the ring is dropped with it or
/// with the sender, whichever goes last.
pub struct Receiver<T> {
    consumer: Consumer<T>,
    bells: Arc<Bells>,
}

impl<T: Send> Receiver<T> {
    /// The oldest item; `None` once the sender is gone and everything is drained.
    ///
    /// # Cancel safety
    /// An item is taken only when it is returned.
    pub async fn pop(&mut self) -> Option<T> {
        self.ready().await;
        self.try_pop()
    }

    /// The oldest item, if there is one now.
    pub fn try_pop(&mut self) -> Option<T> {
        let item = self.consumer.pop()?;
        self.bells.room.ring();
        Some(item)
    }

    /// Waits until there are items, and says how many; zero once the sender is gone and everything is drained.
    ///
    /// # Cancel safety
    /// Nothing is taken, so nothing is lost.
    pub async fn ready(&mut self) -> usize {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        for looks_again in [false, true] {
            // First whether it is gone, then what it left: in the other order a last push could slip between.
            let gone = self.bells.sender.load(Ordering::Acquire) == GONE;
            let count = self.consumer.len();
            if count > 0 || gone {
                return Poll::Ready(count);
            }
            if !looks_again {
                self.bells.items.set(cx.waker());
            }
        }
        tasks::note_wait("ring", &self.bells.name);
        Poll::Pending
    }

    /// As [`Consumer::pop_batch`]. The sender hears of the room after the last of them, also when `each` panics.
    pub fn pop_batch(&mut self, max: usize, each: impl FnMut(T)) -> usize {
        struct Ring<'a>(&'a Bell);
        impl Drop for Ring<'_> {
            fn drop(&mut self) {
                self.0.ring();
            }
        }
        let _ring = Ring(&self.bells.room);
        self.consumer.pop_batch(max, each)
    }

    /// As [`Consumer::pop_slice`].
    pub fn pop_slice(&mut self, out: &mut [T]) -> usize
    where
        T: Copy,
    {
        let count = self.consumer.pop_slice(out);
        if count > 0 {
            self.bells.room.ring();
        }
        count
    }

    /// Whether the sender is gone; items may be left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.bells.sender.load(Ordering::Acquire) == GONE
    }

    /// The bound, in items.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.consumer.capacity()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.bells.receiver.store(GONE, Ordering::Release);
        self.bells.room.ring();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("name", &self.bells.name).finish_non_exhaustive()
    }
}
