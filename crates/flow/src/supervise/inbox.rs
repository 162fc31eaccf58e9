//! A supervisor's inbox: what its children tell it, and what handles ask of it.
//!
//! Owns both queues, and who waits: the one supervisor for something to come, and whoever asks for room. Children never
//! wait: each life says a bounded number of things. Requests are bounded, and wait for their turn in order. Nobody waits
//! for ever: the end of a run, or of the right to run, answers all.
//!
//! ```text
//! New ──begin──► Running ──end──► Stopped
//!  │                ▲                │ begin (a supervisor above rebuilds it)
//!  └──────end───────┼───────────────►┘
//!                   └────────────────┘
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::sync::Mutex;
use crate::wait::{WaitList, wake_all};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Stopped,
}

pub(super) struct Inbox<E, R> {
    state: Mutex<State<E, R>>,
    /// Requests that may wait for the supervisor.
    room: usize,
}

struct State<E, R> {
    phase: Phase,
    events: VecDeque<E>,
    requests: VecDeque<R>,
    taker: Option<Waker>,
    askers: WaitList,
    /// Askers whose turn came and who have not put their request down yet.
    admitted: usize,
}

impl<E, R> Inbox<E, R> {
    pub(super) fn new(room: usize) -> Self {
        let state = State {
            phase: Phase::New,
            events: VecDeque::new(),
            requests: VecDeque::new(),
            taker: None,
            askers: WaitList::default(),
            admitted: 0,
        };
        Self { state: Mutex::new(state), room }
    }

    /// Begins a run; false when one is under way.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if state.phase == Phase::Running {
            return false;
        }
        state.phase = Phase::Running;
        state.events.clear();
        true
    }

    /// Ends a run, or the wait for one. Gives back what was asked and not taken; all that comes later is refused.
    pub(super) fn end(&self) -> VecDeque<R> {
        let mut state = self.state.lock();
        state.phase = Phase::Stopped;
        let events = std::mem::take(&mut state.events);
        let requests = std::mem::take(&mut state.requests);
        state.admitted = 0;
        let askers = state.askers.grant_all();
        drop(state);
        drop(events);
        wake_all(askers);
        requests
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.lock().phase == Phase::Running
    }

    /// Brings an event. Dropped when no run is under way.
    pub(super) fn tell(&self, event: E) {
        let mut state = self.state.lock();
        if state.phase != Phase::Running {
            return;
        }
        state.events.push_back(event);
        let taker = state.taker.take();
        drop(state);
        wake(taker);
    }

    /// Puts a request down, as soon as there is room. Before the run it waits in the inbox.
    ///
    /// Cancel safe: dropped before it is done, nothing was asked.
    ///
    /// # Errors
    /// The request, when the run is over.
    pub(super) fn ask(&self, request: R) -> Asking<'_, E, R> {
        Asking { inbox: self, request: Some(request), ticket: None }
    }

    /// Takes all events there are into `events` or, if there are none, one request. One taker at a time. Cancel safe.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<E>,
    ) -> Poll<Option<R>> {
        let mut state = self.state.lock();
        if !state.events.is_empty() {
            events.append(&mut state.events);
            return Poll::Ready(None);
        }
        let Some(request) = state.requests.pop_front() else {
            state.taker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let admitted = state.admit(self.room);
        drop(state);
        wake(admitted);
        Poll::Ready(Some(request))
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<E, R> State<E, R> {
    fn put(&mut self, request: Option<R>) -> Option<Waker> {
        self.requests.extend(request);
        self.taker.take()
    }

    /// Lets the next asker in, if there is room.
    fn admit(&mut self, room: usize) -> Option<Waker> {
        if self.requests.len() + self.admitted >= room {
            return None;
        }
        let waker = self.askers.grant_first()?;
        self.admitted += 1;
        Some(waker)
    }
}

pub(super) struct Asking<'a, E, R> {
    inbox: &'a Inbox<E, R>,
    request: Option<R>,
    ticket: Option<u64>,
}

// Nothing in it is pinned.
impl<E, R> Unpin for Asking<'_, E, R> {}

impl<E, R> Future for Asking<'_, E, R> {
    type Output = Result<(), R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut guard = this.inbox.state.lock();
        let state = &mut *guard;
        if state.phase == Phase::Stopped {
            // `end` granted all, so the ticket is worth nothing.
            this.ticket = None;
            drop(guard);
            return Poll::Ready(this.request.take().map_or(Ok(()), Err));
        }
        if let Some(ticket) = this.ticket {
            if state.askers.still_waits(ticket, cx.waker()) {
                return Poll::Pending;
            }
            this.ticket = None;
            // Zero when the run it was admitted to ended meanwhile and another began: then it asks anew.
            if state.admitted > 0 {
                state.admitted -= 1;
                let taker = state.put(this.request.take());
                drop(guard);
                wake(taker);
                return Poll::Ready(Ok(()));
            }
        }
        if state.askers.is_empty() && state.requests.len() + state.admitted < this.inbox.room {
            let taker = state.put(this.request.take());
            drop(guard);
            wake(taker);
            return Poll::Ready(Ok(()));
        }
        this.ticket = Some(state.askers.join(1, cx.waker().clone()));
        Poll::Pending
    }
}

impl<E, R> Drop for Asking<'_, E, R> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let mut state = self.inbox.state.lock();
        if state.askers.leave(ticket) || state.admitted == 0 {
            return;
        }
        // Its turn had come: it goes to the next.
        state.admitted -= 1;
        let next = state.admit(self.inbox.room);
        drop(state);
        wake(next);
    }
}
