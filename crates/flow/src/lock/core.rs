//! Who has the value of an async lock, and who is next.
//!
//! Owns the value while nobody has it, and the waiting line. The value travels in its box: into the guard and back by the
//! guard's drop. So a value is never in two hands, and there is nothing `unsafe`. It knows neither names nor clocks, which
//! is what lets loom run it whole.
//!
//! ```text
//!            ┌─take────────────────────────► in a guard ─┐
//! free ◄─────┤                                            │ put back
//!   ▲        └─nobody in line, or the first is awake ◄────┤
//!   │                                                     ├─► free, and the first is woken ──poll──► in its guard, or
//!   │                                                     │          │                    passed: in line, as first
//!   │                                                     └─► it is due: kept for it ──poll──► in its guard
//!   └───────────────────── nobody is left ◄─ left ◄──────────────────┘
//! ```
//!
//! To hand the lock from each to the next costs a switch of tasks for every turn. So it is let go, the first in line is
//! woken, and whoever runs may have it meanwhile. That ends in two ways. After [`PASSES`] the lock is kept for the first,
//! though it has not looked: it may be behind the very task that passes it, on the same thread, and would not before that
//! one pends. And one that looks, finds itself passed and says that it is due, has it kept when it is next put back. Among
//! those in line the order stands.

use std::task::Waker;

use crate::sync::Mutex;
use crate::wait::WaitList;

/// So many in a row may have the lock while the first in line is woken and has not looked. A switch of tasks costs about as
/// much as these do, where they do little.
pub(super) const PASSES: u8 = 32;

pub(super) struct Core<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Gone while a guard has it.
    value: Option<Box<T>>,
    first: First,
    line: WaitList,
}

/// How it stands with the first in line. While the value is here and anyone is in line, it is not [`First::Asleep`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// It is woken when the value is put back.
    Asleep,
    /// It was woken and has not looked since, while so many passed it.
    Woken(u8),
    /// It was passed for long enough: the value is kept for it when put back.
    Due,
    /// The value is for it, who is no longer in line and has not looked since.
    Kept,
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Box<T>> {
        if self.first == First::Kept { None } else { self.value.take() }
    }

    /// The value is here and nobody's: sees to the first in line.
    fn let_go(&mut self) -> Option<Waker> {
        match self.first {
            First::Kept => None,
            First::Woken(passed) if passed < PASSES => {
                self.first = First::Woken(passed + 1);
                None
            }
            First::Due | First::Woken(_) => {
                let first = self.line.grant_first();
                self.first = if first.is_some() { First::Kept } else { First::Asleep };
                first
            }
            First::Asleep => {
                let first = self.line.first_waker()?;
                self.first = First::Woken(0);
                Some(first)
            }
        }
    }
}

impl<T> Core<T> {
    pub(super) fn new(value: T) -> Self {
        let value = Some(Box::new(value));
        Self { state: Mutex::new(State { value, first: First::Asleep, line: WaitList::default() }) }
    }

    /// The value, if it is here and kept for nobody.
    #[inline]
    pub(super) fn take(&self) -> Option<Box<T>> {
        self.state.lock().take()
    }

    /// The value, or a place at the end of the line.
    pub(super) fn take_or_join(&self, waker: &Waker) -> Result<Box<T>, u64> {
        let mut state = self.state.lock();
        state.take().ok_or_else(|| state.line.join(1, waker.clone()))
    }

    /// The value, if it is kept for `ticket`, or here and `ticket` is first. If that is first and passed once more, `due`
    /// says whether it was for long enough.
    pub(super) fn poll(
        &self,
        ticket: u64,
        waker: &Waker,
        due: impl FnOnce() -> bool,
    ) -> Option<Box<T>> {
        let mut state = self.state.lock();
        if !state.line.still_waits(ticket, waker) {
            state.first = First::Asleep;
            return state.value.take();
        }
        if state.line.first_ticket() != Some(ticket) || state.first == First::Kept {
            return None;
        }
        let value = state.value.take();
        if value.is_some() {
            state.line.leave(ticket);
            state.first = First::Asleep;
        } else if state.first != First::Due {
            state.first = if due() { First::Due } else { First::Asleep };
        }
        value
    }

    /// Gives the place of `ticket` up; what was for it goes to the next.
    pub(super) fn leave(&self, ticket: u64) {
        let mut state = self.state.lock();
        let was_first = state.line.first_ticket() == Some(ticket);
        let was_kept = !state.line.leave(ticket);
        if was_kept || was_first && state.first != First::Kept {
            state.first = First::Asleep;
        }
        let next = if state.value.is_some() { state.let_go() } else { None };
        drop(state);
        wake(next);
    }

    /// A guard ends.
    #[inline]
    pub(super) fn put_back(&self, value: Box<T>) {
        let mut state = self.state.lock();
        state.value = Some(value);
        let next = if state.line.is_empty() { None } else { state.let_go() };
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
