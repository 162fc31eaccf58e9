//! The receiving half.
//!
//! Owns nothing but its count: when the last receiver goes the queue closes and what lies in it is dropped and counted.
//! A dropped receive loses nothing: an item leaves the queue only in the poll that returns it.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::core::{After, Queue, State};
use crate::tasks;

/// Receives from a queue. Clones compete for the items: each goes to exactly one.
pub struct Receiver<T> {
    queue: Arc<Queue<T>>,
}

impl<T> Receiver<T> {
    pub(super) fn first(queue: Arc<Queue<T>>) -> Self {
        Self { queue }
    }

    /// The oldest item; `None` once the queue is closed and drained.
    ///
    /// It yields to the runtime now and then, as Tokio's own primitives do, so that a queue that is never empty does not
    /// starve other tasks.
    ///
    /// # Cancel safety
    /// Nothing is lost: an item leaves the queue only in the poll that returns it, and a wake meant for this receiver is
    /// handed to the next.
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { line: Line { queue: &self.queue, ticket: None } }
    }

    /// Waits for an item, then moves the oldest `limit` of those there are into `batch`: one lock for all of them. Says how
    /// many; 0 once the queue is closed and drained (or for a `limit` of 0).
    ///
    /// # Cancel safety
    /// As [`Receiver::recv`].
    ///
    /// # Choosing the limit
    /// What is taken no longer counts in the queue's bound: a batch is room beside the queue's. Take what is worked off as
    /// one.
    pub fn recv_many<'a>(&'a self, batch: &'a mut Vec<T>, limit: usize) -> RecvMany<'a, T> {
        RecvMany { line: Line { queue: &self.queue, ticket: None }, batch, limit }
    }

    /// The oldest item, if there is one now.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        let mut after = After::nothing();
        let item = self.queue.pop(&mut self.queue.lock(), &mut after);
        self.queue.settle(after);
        item
    }

    /// Blocks the calling thread where [`Receiver::recv`] would wait. Never call it from a task.
    #[must_use]
    pub fn recv_blocking(&self) -> Option<T> {
        crate::thread::block_on(self.recv())
    }
}

impl<T> Deref for Receiver<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.queue.lock().receivers += 1;
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.queue.lock();
            state.receivers -= 1;
            state.receivers == 0
        };
        if last {
            self.queue.close_now();
            self.queue.discard();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&**self).finish()
    }
}

/// A place among the waiting receivers.
struct Line<'a, T> {
    queue: &'a Queue<T>,
    ticket: Option<u64>,
}

impl<T> Line<'_, T> {
    /// What `take` finds, or a place in line; `None` once the queue is closed and drained.
    fn poll_take<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&Queue<T>, &mut State<T>, &mut After<T>) -> Option<R>,
    ) -> Poll<Option<R>> {
        let coop = ready!(coop::poll_proceed(cx));
        let queue = self.queue;
        let mut after = After::nothing();
        let mut state = queue.lock();
        let taken = take(queue, &mut state, &mut after);
        if taken.is_some() || state.closed {
            if let Some(ticket) = self.ticket.take() {
                state.receiving.leave(ticket);
            }
            drop(state);
            queue.settle(after);
            coop.made_progress();
            return Poll::Ready(taken);
        }
        match self.ticket {
            Some(ticket) if state.receiving.still_waits(ticket, cx.waker()) => {}
            Some(_) => self.ticket = Some(state.receiving.join_first(1, cx.waker().clone(), ())),
            None => self.ticket = Some(state.receiving.join(1, cx.waker().clone())),
        }
        drop(state);
        queue.settle(after);
        tasks::note_wait("queue", &queue.name);
        Poll::Pending
    }
}

impl<T> Drop for Line<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.queue.lock();
        let mut next = None;
        if !state.receiving.leave(ticket) && !state.items.is_empty() {
            // It was woken for an item and will not take it: the next one shall.
            next = state.receiving.grant_first();
        }
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// A receive under way.
#[must_use = "a receive does nothing until awaited"]
pub struct Recv<'a, T> {
    line: Line<'a, T>,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.line.poll_take(cx, Queue::pop)
    }
}

/// A receive of several under way.
#[must_use = "a receive does nothing until awaited"]
pub struct RecvMany<'a, T> {
    line: Line<'a, T>,
    batch: &'a mut Vec<T>,
    limit: usize,
}

impl<T> Future for RecvMany<'_, T> {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { line, batch, limit } = self.get_mut();
        if *limit == 0 {
            return Poll::Ready(0);
        }
        let taken = ready!(line.poll_take(cx, |queue, state, after| {
            let before = batch.len();
            while batch.len() - before < *limit
                && let Some(item) = queue.pop(state, after)
            {
                batch.push(item);
            }
            Some(batch.len() - before).filter(|taken| *taken > 0)
        }));
        Poll::Ready(taken.unwrap_or(0))
    }
}
