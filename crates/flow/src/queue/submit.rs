//! Submits under way, and what is told of what was submitted.
//!
//! Owns the item until the queue has it: a submit that waits leaves the item in the queue's waiting line, and gets it back
//! from there when it is given up.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::SubmitError;
use super::core::Queue;
use super::intake::Step;
use super::items::Entry;
use super::policy::Lost;
use crate::clock::{self, Instant};
use crate::tasks;

pub(super) fn finish<T>(step: &Step, entry: Option<Entry<T>>) -> Result<(), SubmitError<T>> {
    let Some(Entry { item, .. }) = entry else { return Ok(()) };
    match step {
        Step::Accepted => Ok(()),
        Step::Closed => Err(SubmitError::Closed(item)),
        Step::TooHeavy => Err(SubmitError::TooHeavy(item)),
        Step::Shed => Err(SubmitError::Shed(item)),
        Step::Full | Step::Waits(_) => Err(SubmitError::Full(item)),
    }
}

/// A submit under way. Await it; or poll it in a `select!` and take the item back when another arm wins.
#[must_use = "a submit does nothing until awaited"]
pub struct Submit<'a, T> {
    queue: &'a Queue<T>,
    /// Here until the first poll.
    entry: Option<Entry<T>>,
    ticket: Option<u64>,
}

// The item is moved out, never pinned.
impl<T> Unpin for Submit<'_, T> {}

impl<'a, T> Submit<'a, T> {
    pub(super) fn new(queue: &'a Queue<T>, entry: Entry<T>) -> Self {
        Self { queue, entry: Some(entry), ticket: None }
    }

    /// Gives the submit up. `Some` is the item, and it was not sent; `None` means that it was.
    pub fn take_back(&mut self) -> Option<T> {
        self.leave().map(|entry| entry.item)
    }

    fn leave(&mut self) -> Option<Entry<T>> {
        match self.ticket.take() {
            Some(ticket) => self.queue.leave(ticket),
            None => self.entry.take(),
        }
    }
}

impl<T> Future for Submit<'_, T> {
    type Output = Result<(), SubmitError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let turn = ready!(this.queue.back.pace.poll_proceed(cx));
        let step = match this.ticket {
            None => match this.queue.submit(&mut this.entry, Some(cx.waker())) {
                Step::Waits(ticket) => this.queue.spin_in_line(ticket, cx.waker(), &mut this.entry),
                step => step,
            },
            Some(ticket) => this.queue.resume(ticket, cx.waker(), &mut this.entry),
        };
        if let Step::Waits(ticket) = step {
            this.ticket = Some(ticket);
            tasks::note_wait("room in queue", &this.queue.name);
            return Poll::Pending;
        }
        turn.made_progress();
        this.ticket = None;
        Poll::Ready(finish(&step, this.entry.take()))
    }
}

impl<T> Drop for Submit<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            drop(self.leave());
        }
    }
}

/// A submit with a deadline, under way.
#[must_use = "a submit does nothing until awaited"]
pub struct SubmitWithin<'a, T> {
    submit: Submit<'a, T>,
    deadline: Instant,
    /// Made at the first wait: most submits need no timer.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<'a, T> SubmitWithin<'a, T> {
    pub(super) fn new(submit: Submit<'a, T>, deadline: Instant) -> Self {
        Self { submit, deadline, sleep: None }
    }

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
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(match this.submit.take_back() {
            Some(item) => Err(SubmitError::TimedOut(item)),
            None => Ok(()),
        })
    }
}

/// A submit for a request with a deadline, under way.
#[must_use = "a submit does nothing until awaited"]
pub struct SubmitUntil<'a, T> {
    within: SubmitWithin<'a, T>,
    receipt: Option<Receipt<T>>,
}

impl<'a, T> SubmitUntil<'a, T> {
    pub(super) fn new(queue: &'a Arc<Queue<T>>, mut entry: Entry<T>, deadline: Instant) -> Self {
        let (tell, told) = oneshot::channel();
        entry.expire_by(deadline);
        entry.tell(tell);
        let within = SubmitWithin::new(Submit::new(queue, entry), deadline);
        Self { within, receipt: Some(Receipt { queue: Arc::clone(queue), told, deadline }) }
    }

    /// As [`Submit::take_back`]. When it says `None`, the item was sent and its receipt is given up.
    pub fn take_back(&mut self) -> Option<T> {
        self.within.take_back()
    }
}

impl<T> Unpin for SubmitUntil<'_, T> {}

impl<T> Future for SubmitUntil<'_, T> {
    type Output = Result<Receipt<T>, SubmitError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Too late already: room would not help.
        if this.within.sleep.is_none()
            && this.within.deadline <= clock::now()
            && let Some(item) = this.within.take_back()
        {
            return Poll::Ready(Err(SubmitError::TimedOut(item)));
        }
        ready!(Pin::new(&mut this.within).poll(cx))?;
        match this.receipt.take() {
            Some(receipt) => Poll::Ready(Ok(receipt)),
            // Polled after its end.
            None => Poll::Pending,
        }
    }
}

/// What became of an item that was submitted with a deadline. Dropping it changes nothing for the item.
#[must_use = "dropping a receipt gives up learning what became of the item"]
pub struct Receipt<T> {
    queue: Arc<Queue<T>>,
    told: oneshot::Receiver<Result<(), Lost>>,
    deadline: Instant,
}

impl<T> Receipt<T> {
    /// Waits until the item is received or lost, and until its deadline at most: whoever waits here takes the item out of
    /// the queue at that moment, so that none lies there longer than its request lives.
    ///
    /// # Errors
    /// Why the item was lost.
    ///
    /// # Cancel safety
    /// A dropped call gives the receipt up; the item stays where it is and still expires.
    ///
    /// # Panics
    /// Outside a Tokio runtime with a timer.
    pub async fn outcome(mut self) -> Result<(), Lost> {
        if let Ok(told) = tokio::time::timeout_at(self.deadline, &mut self.told).await {
            return told.unwrap_or(Err(Lost::Orphaned));
        }
        self.queue.expire_now();
        // Received at the last moment, or expired by now.
        self.told.await.unwrap_or(Err(Lost::Orphaned))
    }
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("queue", &self.queue.name())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The rest of a [`Sender::submit_all`](super::Sender::submit_all) that was cut short.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{clock, queue::{self, Bound, Full}};
/// let (tx, _rx) = queue::bounded("rows", Bound::items(2), Full::Reject);
/// let unsent = tx.submit_all(0..4, clock::now()).await.unwrap_err();
/// assert_eq!(unsent.rest, [2, 3]);
/// assert!(unsent.reason.may_retry());
/// assert_eq!(unsent.to_string(), "the queue is full: 2 items not submitted");
/// # }
/// ```
#[non_exhaustive]
pub struct Unsent<T> {
    /// The items not accepted, in order.
    pub rest: Vec<T>,
    /// Why the first of them was not; that one is in `rest`.
    pub reason: SubmitError<()>,
}

impl<T> fmt::Display for Unsent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} items not submitted", self.reason, self.rest.len())
    }
}

impl<T> std::error::Error for Unsent<T> {}

impl<T> fmt::Debug for Unsent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsent({} items: {:?})", self.rest.len(), self.reason)
    }
}

impl<T> fmt::Debug for Submit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit").field("queue", &self.queue.name()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SubmitWithin<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitWithin")
            .field("submit", &self.submit)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SubmitUntil<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitUntil").field("within", &self.within).finish_non_exhaustive()
    }
}
