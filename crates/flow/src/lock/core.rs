//! Who has the value of an async lock, and who is next.
//!
//! Owns the value while nobody has it, and the waiting line. The value travels in its box: into the guard, back by the
//! guard's drop, and kept for the first in line from then until that one is polled. So the lock is fair, a value is never
//! in two hands, and there is nothing `unsafe`. It knows neither names nor clocks, which is what lets loom run it whole.
//!
//! ```text
//!           ┌─take────────────────────────► in a guard ─┐
//! free ◄────┤                                           │ put back
//!   ▲       └─nobody in line ◄──────────────────────────┤
//!   │                                                   └─► kept for the first ──poll──► in its guard
//!   └─────────────────────── nobody is left ◄─ left ────────┘
//! ```

use std::task::Waker;

use crate::sync::Mutex;
use crate::wait::WaitList;

pub(super) struct Core<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Gone while a guard has it.
    value: Option<Box<T>>,
    /// The value is for a waiter that was granted and has not been polled since. While anyone is in line the value is
    /// either gone or kept, so whoever finds it here and not kept overtakes nobody.
    kept: bool,
    line: WaitList,
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Box<T>> {
        if self.kept { None } else { self.value.take() }
    }

    /// The value is here and nobody's: keeps it for the first in line.
    fn grant(&mut self) -> Option<Waker> {
        let first = self.line.grant_first();
        self.kept = first.is_some();
        first
    }
}

impl<T> Core<T> {
    pub(super) fn new(value: T) -> Self {
        let state = State { value: Some(Box::new(value)), kept: false, line: WaitList::default() };
        Self { state: Mutex::new(state) }
    }

    /// The value, if it is free.
    #[inline]
    pub(super) fn take(&self) -> Option<Box<T>> {
        self.state.lock().take()
    }

    /// The value, or a place at the end of the line.
    pub(super) fn take_or_join(&self, waker: &Waker) -> Result<Box<T>, u64> {
        let mut state = self.state.lock();
        state.take().ok_or_else(|| state.line.join(1, waker.clone()))
    }

    /// The value, if it is the turn of `ticket`.
    pub(super) fn poll(&self, ticket: u64, waker: &Waker) -> Option<Box<T>> {
        let mut state = self.state.lock();
        if state.line.still_waits(ticket, waker) {
            return None;
        }
        state.kept = false;
        state.value.take()
    }

    /// Gives the place of `ticket` up; a value kept for it goes to the next.
    pub(super) fn leave(&self, ticket: u64) {
        let mut state = self.state.lock();
        let next = if state.line.leave(ticket) { None } else { state.grant() };
        drop(state);
        wake(next);
    }

    /// A guard ends.
    #[inline]
    pub(super) fn put_back(&self, value: Box<T>) {
        let mut state = self.state.lock();
        state.value = Some(value);
        let next = if state.line.is_empty() { None } else { state.grant() };
        drop(state);
        wake(next);
    }

    /// The value, when no guard took it along.
    pub(super) fn into_value(self) -> Option<T> {
        // Under the model checker there is no `into_inner`.
        let value = self.state.lock().value.take();
        value.map(|value| *value)
    }
}

#[inline]
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
