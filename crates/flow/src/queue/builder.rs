//! A queue in the making.
//!
//! Owns the choices until the queue is built.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Queue, Rules};
use super::policy::{Full, Lost, Priority};
use super::registry::register;
use super::{Bound, Receiver, Sender};
use crate::tasks::Name;

/// A queue in the making, for what [`bounded`](super::bounded) and [`weighted`](super::weighted) leave at its default.
pub struct Builder<T> {
    name: Name,
    rules: Rules<T>,
}

impl<T: Send + 'static> Builder<T> {
    /// The three things no queue is without. How to choose the bound: [module](super#choosing-a-bound).
    #[must_use]
    pub fn new(name: impl Into<Name>, bound: Bound, full: Full) -> Self {
        let rules = Rules {
            bound,
            full,
            why: "",
            weigh: None,
            rank: None,
            time_to_live: None,
            max_waiting: usize::MAX,
            dead_letter: None,
        };
        Self { name: name.into(), rules }
    }

    /// Why this bound and this policy, in a sentence for the queue table.
    #[must_use]
    pub fn why(mut self, why: &'static str) -> Self {
        self.rules.why = why;
        self
    }

    /// What an item weighs, in the bound's unit; asked once, at submit. Without it an item weighs one, or its own size where
    /// the bound is in bytes.
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.rules.weigh = Some(Box::new(weigh));
        self
    }

    /// How much an item matters under [`Full::Shed`]; asked once, at submit. Other policies do not look at it.
    #[must_use]
    pub fn priority(mut self, rank: impl Fn(&T) -> Priority + Send + Sync + 'static) -> Self {
        self.rules.rank = Some(Box::new(rank));
        self
    }

    /// An item that lay in the queue this long is not wanted any more: it is never received, and counted as expired. It is
    /// found when its turn comes, or when the queue is full and needs the room. Costs a look at the clock per item.
    ///
    /// # Choosing a bound
    /// The time after which the item's sender has given up. Longer than the receiver's usual pause, or a pause loses all.
    #[must_use]
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        self.rules.time_to_live = Some(time_to_live);
        self
    }

    /// At most so many submitters wait under [`Full::Block`]; further ones are handed their item back as full, counted as
    /// rejected. Without it the number of senders is the limit: set it where each request is a sender.
    ///
    /// # Choosing a bound
    /// What waits in line is as much in the queue as what lies in it: choose the sum of both by the time it takes to drain.
    #[must_use]
    pub fn max_waiting(mut self, submitters: usize) -> Self {
        self.rules.max_waiting = submitters;
        self
    }

    /// Gets every item that is lost after the queue took it, with the reason; without it the item is dropped. It runs on
    /// whichever task finds the item lost, outside the queue's lock: it must be quick and must not block.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use forebay_flow::queue::{Bound, Full, Lost, Builder};
    /// let (lost, letters) = std::sync::mpsc::sync_channel(8);
    /// let (tx, _rx) = Builder::new("frames", Bound::items(1), Full::DropOldest)
    ///     .dead_letter(move |frame: u32, why| drop(lost.try_send((frame, why))))
    ///     .build();
    /// tx.submit(1).await.unwrap();
    /// tx.submit(2).await.unwrap();
    /// assert_eq!(letters.try_recv(), Ok((1, Lost::Oldest)));
    /// # }
    /// ```
    #[must_use]
    pub fn dead_letter(mut self, take: impl Fn(T, Lost) + Send + Sync + 'static) -> Self {
        self.rules.dead_letter = Some(Box::new(take));
        self
    }

    /// Makes the queue and enters it in the registry.
    #[must_use]
    pub fn build(self) -> (Sender<T>, Receiver<T>) {
        let queue = Arc::new(Queue::new(&self.name, self.rules));
        register(&queue);
        (Sender::first(Arc::clone(&queue)), Receiver::new(queue))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("bound", &self.rules.bound)
            .field("full", &self.rules.full)
            .finish_non_exhaustive()
    }
}
