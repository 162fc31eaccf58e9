//! The receiving half.
//!
//! Owns nothing but its count: when the last receiver goes the queue closes and what lies in it is dropped and counted.
//! A dropped receive loses nothing: an item leaves the queue only in the poll that returns it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::core::Shared;
use super::registry::QueueInfo;
use crate::tasks;

/// Receives from a queue. Clones compete for the items: each goes to exactly one.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    pub(super) fn first(shared: Arc<Shared<T>>) -> Self {
        Self { shared }
    }

    /// The oldest item; `None` once the queue is closed and drained. Cancel safe.
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { shared: &self.shared, ticket: None }
    }

    /// The oldest item, if there is one now.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        let mut state = self.shared.state.lock();
        let (item, after) = self.shared.pop(&mut state)?;
        drop(state);
        after.settle();
        Some(item)
    }

    /// Blocks the calling thread where [`Receiver::recv`] would wait. Never call it from a task.
    #[must_use]
    pub fn recv_blocking(&self) -> Option<T> {
        crate::thread::block_on(self.recv())
    }

    /// Closes the queue for every sender; what was accepted can still be received.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether it is closed; there may still be items to receive.
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

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().receivers += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.lock();
            state.receivers -= 1;
            state.receivers == 0
        };
        if last {
            self.shared.close();
            self.shared.discard();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("queue", &self.name()).field("len", &self.len()).finish()
    }
}

/// A receive under way.
#[must_use = "a receive does nothing until awaited"]
pub struct Recv<'a, T> {
    shared: &'a Arc<Shared<T>>,
    ticket: Option<u64>,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared;
        let mut state = shared.state.lock();
        if let Some((item, after)) = shared.pop(&mut state) {
            if let Some(ticket) = self.ticket.take() {
                state.receiving.leave(ticket);
            }
            drop(state);
            after.settle();
            return Poll::Ready(Some(item));
        }
        if state.closed {
            if let Some(ticket) = self.ticket.take() {
                state.receiving.leave(ticket);
            }
            return Poll::Ready(None);
        }
        match self.ticket {
            Some(ticket) if state.receiving.still_waits(ticket, cx.waker()) => {}
            Some(ticket) => state.receiving.rejoin(ticket, 1, cx.waker().clone()),
            None => self.ticket = Some(state.receiving.join(1, cx.waker().clone())),
        }
        let after = shared.receiver_waits(&mut state);
        drop(state);
        after.settle();
        tasks::note_wait("queue", &shared.name);
        Poll::Pending
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.state.lock();
        let mut next = None;
        if !state.receiving.leave(ticket) && !state.is_empty() {
            // It was woken for an item and will not take it: the next one shall.
            next = state.receiving.grant_first();
        }
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
