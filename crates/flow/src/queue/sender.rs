//! The sending half.
//!
//! Owns nothing but its count: the last sender to go closes the queue. A failed submit always hands the item back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::SubmitError;
use super::core::{Shared, Step};
use super::registry::QueueInfo;
use crate::clock::Instant;
use crate::tasks;

/// Sends into a queue. Clones send into the same; when all are dropped the queue closes.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub(super) fn first(shared: Arc<Shared<T>>) -> Self {
        Self { shared }
    }

    /// Submits `item`, doing what the policy says when the queue is full: only [`Full::Block`](super::Full::Block) waits.
    ///
    /// Cancel safe: a dropped submit has sent the item or drops it with itself; [`Submit::take_back`] gets it out of one
    /// that has not. It waits without limit: prefer [`Sender::submit_within`].
    ///
    /// # Errors
    /// `Closed`, `TooHeavy`, or `Full` under [`Full::Reject`](super::Full::Reject), with the item.
    pub fn submit(&self, item: T) -> Submit<'_, T> {
        let weight = self.shared.weight(&item);
        Submit { shared: &self.shared, item: Some(item), weight, ticket: None }
    }

    /// Submits `item` without waiting.
    ///
    /// # Errors
    /// `Full`, `Closed` or `TooHeavy`, with the item.
    pub fn try_submit(&self, item: T) -> Result<(), SubmitError<T>> {
        let weight = self.shared.weight(&item);
        let mut item = Some(item);
        let step = self.shared.submit(&mut item, weight, None);
        finish(&step, item)
    }

    /// Submits `item`, waiting until `deadline` at most. Cancel safe as [`Sender::submit`].
    ///
    /// # Errors
    /// `TimedOut`, and those of [`Sender::submit`], with the item.
    pub fn submit_within(&self, item: T, deadline: Instant) -> SubmitWithin<'_, T> {
        SubmitWithin { submit: self.submit(item), deadline, sleep: None }
    }

    /// Submits the items in order, waiting until `deadline` at most. Cancel safe, but a dropped call drops the unsent.
    ///
    /// # Errors
    /// [`Unsent`] holds exactly those that were not accepted, in order, and why the first was not.
    pub async fn submit_all(
        &self,
        items: impl IntoIterator<Item = T>,
        deadline: Instant,
    ) -> Result<(), Unsent<T>> {
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            if let Err(error) = self.submit_within(item, deadline).await {
                let why = error.text();
                let rest = std::iter::once(error.into_item()).chain(items).collect();
                return Err(Unsent { rest, why });
            }
        }
        Ok(())
    }

    /// Blocks the calling thread where [`Sender::submit`] would wait. Never call it from a task.
    ///
    /// # Errors
    /// Those of [`Sender::submit`].
    pub fn submit_blocking(&self, item: T) -> Result<(), SubmitError<T>> {
        crate::thread::block_on(self.submit(item))
    }

    /// Closes the queue for every sender: what was accepted is drained, waiting submits get their item back.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }

    /// Items accepted and not yet received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().len()
    }

    /// Whether nothing is waiting to be received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queue's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The queue's figures now.
    #[must_use]
    pub fn info(&self) -> QueueInfo {
        self.shared.info()
    }
}

fn finish<T>(step: &Step, item: Option<T>) -> Result<(), SubmitError<T>> {
    let Some(item) = item else { return Ok(()) };
    match step {
        Step::Accepted => Ok(()),
        Step::Closed => Err(SubmitError::Closed(item)),
        Step::TooHeavy => Err(SubmitError::TooHeavy(item)),
        Step::Full | Step::Waits(_) => Err(SubmitError::Full(item)),
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.lock();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.shared.close();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("queue", &self.name()).field("len", &self.len()).finish()
    }
}

/// A submit under way. Await it; or poll it in a `select!` and take the item back when another arm wins.
#[must_use = "a submit does nothing until awaited"]
pub struct Submit<'a, T> {
    shared: &'a Arc<Shared<T>>,
    item: Option<T>,
    weight: u64,
    ticket: Option<u64>,
}

// The item is moved out, never pinned.
impl<T> Unpin for Submit<'_, T> {}

impl<T> Submit<'_, T> {
    /// Gives the submit up. `Some` is the item, and it was not sent; `None` means that it was.
    pub fn take_back(&mut self) -> Option<T> {
        self.leave();
        self.item.take()
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.leave_submit(ticket, self.weight);
        }
    }
}

impl<T> Future for Submit<'_, T> {
    type Output = Result<(), SubmitError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let step = match this.ticket {
            None => this.shared.submit(&mut this.item, this.weight, Some(cx.waker())),
            Some(ticket) => {
                this.shared.resume_submit(ticket, &mut this.item, this.weight, cx.waker())
            }
        };
        if let Step::Waits(ticket) = step {
            this.ticket = Some(ticket);
            tasks::note_wait("room in queue", &this.shared.name);
            return Poll::Pending;
        }
        this.ticket = None;
        Poll::Ready(finish(&step, this.item.take()))
    }
}

impl<T> Drop for Submit<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A submit with a deadline, under way.
#[must_use = "a submit does nothing until awaited"]
pub struct SubmitWithin<'a, T> {
    submit: Submit<'a, T>,
    deadline: Instant,
    /// Made at the first wait: most submits need no timer.
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<T> SubmitWithin<'_, T> {
    /// As [`Submit::take_back`].
    pub fn take_back(&mut self) -> Option<T> {
        self.submit.take_back()
    }
}

impl<T> Unpin for SubmitWithin<'_, T> {}

impl<T> Future for SubmitWithin<'_, T> {
    type Output = Result<(), SubmitError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(result) = Pin::new(&mut this.submit).poll(cx) {
            return Poll::Ready(result);
        }
        let deadline = this.deadline;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        std::task::ready!(sleep.as_mut().poll(cx));
        Poll::Ready(match this.submit.take_back() {
            Some(item) => Err(SubmitError::TimedOut(item)),
            None => Ok(()),
        })
    }
}

/// The rest of a [`Sender::submit_all`] that was cut short.
pub struct Unsent<T> {
    /// The items not accepted, in order.
    pub rest: Vec<T>,
    /// Why the first of them was not.
    pub why: &'static str,
}

impl<T> fmt::Debug for Unsent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsent({} items: {})", self.rest.len(), self.why)
    }
}
