//! The sending half.
//!
//! Owns nothing but its count: the last sender to go closes the queue. A failed submit always hands the item back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::SubmitError;
use super::core::Queue;
use super::submit::{Submit, SubmitUntil, SubmitWithin, Unsent, finish};
use crate::clock::Instant;

/// Sends into a queue. Clones send into the same; when all are dropped the queue closes.
///
/// | to submit | waits for room | hands the item back |
/// |---|---|---|
/// | [`try_submit`](Self::try_submit) | never | when there is none |
/// | [`submit_within`](Self::submit_within) | until a deadline | when it stayed full until then |
/// | [`submit_until`](Self::submit_until) | until the item's own deadline | as before; once accepted it expires, and a receipt tells |
/// | [`submit_all`](Self::submit_all) | until a deadline, for all of them | the unsent rest |
/// | [`submit`](Self::submit) | without limit | when it is closed |
/// | [`submit_blocking`](Self::submit_blocking) | as `submit`, on a thread of one's own | when it is closed |
///
/// Waiting is for [`Full::Block`](super::Full::Block); under another policy each of them ends at once.
pub struct Sender<T> {
    queue: Arc<Queue<T>>,
}

impl<T> Sender<T> {
    pub(super) fn first(queue: Arc<Queue<T>>) -> Self {
        Self { queue }
    }

    /// Submits `item`, doing what the policy says when the queue is full: only [`Full::Block`](super::Full::Block) waits,
    /// and without limit: prefer [`Sender::submit_within`]. A policy that drops accepts always: the loss is counted and told
    /// to the [dead letter](super::Builder::dead_letter), not to the sender.
    ///
    /// # Errors
    /// `Closed` or `TooHeavy`; `Full` under [`Full::Reject`](super::Full::Reject), and under `Block` where
    /// [`max_waiting`](super::Builder::max_waiting) others wait already; `Full` or `Shed` under
    /// [`Full::Shed`](super::Full::Shed). Each with the item.
    ///
    /// # Cancel safety
    /// A dropped submit has sent the item or drops it with itself; [`Submit::take_back`] gets it out of one that has not
    /// sent it. It may send while it waits, without being polled; then it is woken at once. So do not wrap it in a timeout,
    /// which drops it: [`Sender::submit_within`] gives the item back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use forebay_flow::queue::{self, Bound, Full};
    /// let (tx, rx) = queue::bounded("jobs", Bound::items(1), Full::Block);
    /// tx.submit(1).await.unwrap();
    /// let mut second = tx.submit(2);
    /// tokio::select! {
    ///     sent = &mut second => unreachable!("there is no room: {sent:?}"),
    ///     () = tokio::task::yield_now() => {}
    /// }
    /// assert_eq!(second.take_back(), Some(2)); // not sent
    /// assert_eq!((rx.try_recv(), rx.try_recv()), (Some(1), None));
    /// # }
    /// ```
    pub fn submit(&self, item: T) -> Submit<'_, T> {
        Submit::new(&self.queue, self.queue.entry(item))
    }

    /// Submits `item` without waiting.
    ///
    /// # Errors
    /// Those of [`Sender::submit`], with the item; `Full` also under `Block`, when there is no room for it and those who
    /// wait before it.
    pub fn try_submit(&self, item: T) -> Result<(), SubmitError<T>> {
        let mut entry = Some(self.queue.entry(item));
        let step = self.queue.submit(&mut entry, None);
        finish(&step, entry)
    }

    /// Submits `item`, waiting until `deadline` at most.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`Sender::submit`], with the item. It is `TimedOut` only if there was no room at the
    /// deadline.
    ///
    /// # Cancel safety
    /// As [`Sender::submit`].
    ///
    /// # Panics
    /// When it has to wait outside a Tokio runtime with a timer.
    pub fn submit_within(&self, item: T, deadline: Instant) -> SubmitWithin<'_, T> {
        SubmitWithin::new(self.submit(item), deadline)
    }

    /// Submits `item` for a request that ends at `deadline`: it waits for room until then at most, and once accepted the
    /// item is not received after then. The [`Receipt`](super::Receipt) tells what became of it.
    ///
    /// # Errors
    /// `TimedOut` (at once when the deadline has passed), and those of [`Sender::submit`], with the item.
    ///
    /// # Cancel safety
    /// As [`Sender::submit`].
    ///
    /// # Panics
    /// When it has to wait outside a Tokio runtime with a timer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use forebay_flow::{clock, queue::{self, Bound, Full, Lost}};
    /// use std::time::Duration;
    /// let (tx, rx) = queue::bounded("requests", Bound::items(8), Full::Block);
    /// let receipt = tx.submit_until("a request", clock::now() + Duration::from_secs(1)).await.unwrap();
    /// tokio::time::sleep(Duration::from_secs(2)).await; // nobody receives
    /// assert_eq!(rx.try_recv(), None);
    /// assert_eq!(receipt.outcome().await, Err(Lost::Expired));
    /// # }
    /// ```
    pub fn submit_until(&self, item: T, deadline: Instant) -> SubmitUntil<'_, T> {
        SubmitUntil::new(&self.queue, self.queue.entry(item), deadline)
    }

    /// Submits the items in order, waiting until `deadline` at most.
    ///
    /// # Errors
    /// [`Unsent`] holds exactly those that were not accepted, in order, and why the first was not.
    ///
    /// # Cancel safety
    /// A dropped call drops the unsent.
    ///
    /// # Panics
    /// When it has to wait outside a Tokio runtime with a timer.
    pub async fn submit_all(
        &self,
        items: impl IntoIterator<Item = T>,
        deadline: Instant,
    ) -> Result<(), Unsent<T>> {
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            if let Err(error) = self.submit_within(item, deadline).await {
                let (first, reason) = error.into_parts();
                let rest = std::iter::once(first).chain(items).collect();
                return Err(Unsent { rest, reason });
            }
        }
        Ok(())
    }

    /// Blocks the calling thread where [`Sender::submit`] would wait, without limit: a close ends it. Never call it from a
    /// task, whose worker it would block.
    ///
    /// # Errors
    /// Those of [`Sender::submit`].
    pub fn submit_blocking(&self, item: T) -> Result<(), SubmitError<T>> {
        crate::thread::block_on(self.submit(item))
    }
}

impl<T> Deref for Sender<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.queue.back().senders += 1;
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.queue.back();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.queue.close_now();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&**self).finish()
    }
}
