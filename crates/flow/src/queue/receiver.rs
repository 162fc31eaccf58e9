//! The receiving half.
//!
//! Owns nothing but its seat, from which the queue knows how many receivers there are and which tasks they serve: when the
//! last receiver goes the queue closes and what lies in it is dropped and counted. A dropped receive loses nothing: an item
//! leaves the queue only in the poll that returns it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use super::core::{After, Back, Both, Front, Queue};
use super::outlet::Look;
use super::sync::MutexGuard;
use crate::tasks;

/// Receives from a queue. Clones compete for the items: each goes to exactly one. When all are dropped the queue closes, and
/// what lies in it is dropped and counted.
pub struct Receiver<T> {
    queue: Arc<Queue<T>>,
    seat: Arc<Seat>,
}

/// A live receiver as its queue knows it: the task that last received with it, 0 while none is known.
#[derive(Default)]
pub(super) struct Seat(AtomicU64);

impl Seat {
    pub(super) fn task(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn note(&self) {
        let task = tasks::current_id();
        // A line that only one writes stays in its core's cache; a store costs more than a look.
        if self.task() != task {
            self.0.store(task, Ordering::Relaxed);
        }
    }
}

fn key(seat: &Arc<Seat>) -> usize {
    Arc::as_ptr(seat) as usize
}

impl<T> Receiver<T> {
    pub(super) fn new(queue: Arc<Queue<T>>) -> Self {
        let seat = Arc::new(Seat::default());
        queue.back().receivers.insert(key(&seat), Arc::clone(&seat));
        Self { queue, seat }
    }

    /// The oldest item; `None` once the queue is closed and drained.
    ///
    /// It yields to the runtime after some 200 items at the latest, as Tokio's own primitives do, so that a queue that is
    /// never empty does not starve other tasks. Where it would put a thread to sleep (in a `block_on` beside workers, in a
    /// thread of one's own) it may spin for some 30 µs before, if that paid lately; never in a task.
    ///
    /// # Cancel safety
    /// Nothing is lost: an item leaves the queue only in the poll that returns it, and a wake meant for this receiver is
    /// handed to the next. So it may stand in a `select!` or a timeout.
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { line: Line { receiver: self, ticket: None } }
    }

    /// Waits for an item, then moves the oldest `limit` of those there are to the end of `batch`: one lock for all of them.
    /// Says how many; 0 once the queue is closed and drained (or for a `limit` of 0).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use forebay_flow::queue::{self, Bound, Full};
    /// let (tx, rx) = queue::bounded("samples", Bound::items(8), Full::Block);
    /// for sample in 0..5 {
    ///     tx.submit(sample).await.unwrap();
    /// }
    /// let mut batch = Vec::new();
    /// assert_eq!(rx.recv_many(&mut batch, 3).await, 3);
    /// assert_eq!(rx.recv_many(&mut batch, 3).await, 2);
    /// assert_eq!(batch, [0, 1, 2, 3, 4]);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As [`Receiver::recv`].
    ///
    /// # Choosing a bound
    /// What is taken no longer counts in the queue's bound: a batch is room beside the queue's. Take what is worked off as
    /// one.
    pub fn recv_many<'a>(&'a self, batch: &'a mut Vec<T>, limit: usize) -> RecvMany<'a, T> {
        RecvMany { line: Line { receiver: self, ticket: None }, batch, limit }
    }

    /// The oldest item, if there is one now. `None` is also what a closed queue says once it is drained:
    /// [`is_closed`](Queue::is_closed) tells them apart.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        self.seat.note();
        match self.queue.look() {
            Look::Found(item) => Some(item),
            Look::Else(front) => {
                let (queue, mut after) = (&self.queue, After::nothing());
                let item = queue.pop(&mut queue.both_from(front), &mut after);
                queue.settle(after);
                item
            }
        }
    }

    /// Moves up to `most` of the oldest items there are now into `batch`, and says how many.
    pub(crate) fn try_recv_many(&self, batch: &mut VecDeque<T>, most: usize) -> usize {
        self.seat.note();
        let (queue, mut after) = (&self.queue, After::nothing());
        let taken =
            queue.pop_many(&mut queue.both(), most, |item| batch.push_back(item), &mut after);
        queue.settle(after);
        taken
    }

    /// Blocks the calling thread where [`Receiver::recv`] would wait, without limit: a close ends it. Never call it from a
    /// task, whose worker it would block.
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
        Self::new(Arc::clone(&self.queue))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let last = {
            let mut back = self.queue.back();
            back.receivers.remove(&key(&self.seat));
            back.receivers.is_empty()
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
    receiver: &'a Receiver<T>,
    ticket: Option<u64>,
}

impl<'a, T> Line<'a, T> {
    /// What `take` finds, or a place in line; `None` once the queue is closed and drained.
    fn poll_take<R>(
        &mut self,
        cx: &mut Context<'_>,
        front: MutexGuard<'a, Front<T>>,
        mut take: impl FnMut(&Queue<T>, &mut Both<'_, T>, &mut After<T>) -> Option<R>,
    ) -> Poll<Option<R>> {
        let queue = &self.receiver.queue;
        let (mut spins, waits_already) = (false, self.ticket.is_some());
        let waker = |back: &Back<T>| {
            spins = !waits_already && back.receiving.is_empty() && queue.front.spin.is_due();
            if spins { queue.front.spin.waker() } else { cx.waker() }
        };
        let mut polled = self.take_or_wait(queue.both_from(front), &mut take, waker);
        if spins {
            queue.front.spin.watch();
            polled = self.take_or_wait(queue.both(), &mut take, |_| cx.waker());
            queue.front.spin.ended(polled.is_ready());
        }
        if polled.is_pending() {
            tasks::note_wait("queue", &queue.name);
        }
        polled
    }

    /// As [`poll_take`](Self::poll_take); `waker` says what is to be called when there is something.
    fn take_or_wait<'w, R>(
        &mut self,
        mut both: Both<'_, T>,
        take: &mut impl FnMut(&Queue<T>, &mut Both<'_, T>, &mut After<T>) -> Option<R>,
        waker: impl FnOnce(&Back<T>) -> &'w Waker,
    ) -> Poll<Option<R>> {
        let queue = &self.receiver.queue;
        let mut after = After::nothing();
        let taken = take(queue, &mut both, &mut after);
        let back = &mut both.back;
        let ended = taken.is_some() || back.closed;
        if ended {
            if let Some(ticket) = self.ticket.take() {
                back.receiving.leave(ticket);
            }
        } else {
            let waker = waker(back);
            match self.ticket {
                Some(ticket) if back.receiving.still_waits(ticket, waker) => {}
                Some(_) => self.ticket = Some(back.receiving.join_first(1, waker.clone(), ())),
                None => self.ticket = Some(back.receiving.join(1, waker.clone())),
            }
        }
        drop(both);
        queue.settle(after);
        if ended { Poll::Ready(taken) } else { Poll::Pending }
    }
}

impl<T> Drop for Line<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.leave(ticket);
        }
    }
}

impl<T> Line<'_, T> {
    #[cold]
    fn leave(&self, ticket: u64) {
        let mut both = self.receiver.queue.both();
        let mut next = None;
        if !both.back.receiving.leave(ticket) && both.len() > 0 {
            // It was woken for an item and will not take it: the next one shall.
            next = both.back.receiving.grant_first();
        }
        drop(both);
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Receiver { queue, seat } = self.line.receiver;
        let turn = ready!(queue.front.pace.poll_proceed(cx));
        seat.note();
        let front = if self.line.ticket.is_some() {
            queue.front()
        } else {
            match queue.look() {
                Look::Found(item) => {
                    turn.made_progress();
                    return Poll::Ready(Some(item));
                }
                Look::Else(front) => front,
            }
        };
        let item = ready!(self.line.poll_take(cx, front, Queue::pop));
        turn.made_progress();
        Poll::Ready(item)
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
        let turn = ready!(line.receiver.queue.front.pace.poll_proceed(cx));
        line.receiver.seat.note();
        let front = line.receiver.queue.front();
        let taken = ready!(line.poll_take(cx, front, |queue, both, after| {
            let taken = queue.pop_many(both, *limit, |item| batch.push(item), after);
            Some(taken).filter(|taken| *taken > 0)
        }));
        turn.made_progress();
        Poll::Ready(taken.unwrap_or(0))
    }
}

impl<T> fmt::Debug for Recv<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recv(..)")
    }
}

impl<T> fmt::Debug for RecvMany<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvMany").field("limit", &self.limit).finish_non_exhaustive()
    }
}
