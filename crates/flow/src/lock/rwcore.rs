//! Who has the value of an async reader-writer lock, and who is next.
//!
//! Owns the value while no writer has it, the number of its readers, and the waiting line. The value is shared with its
//! readers, and a writer takes it out of its box; so a value is never written while it is read, and there is nothing
//! `unsafe`. It knows neither names nor clocks, which is what lets loom run it whole.
//!
//! ```text
//!              ┌─take to read──► n readers ─one leaves──► n - 1 ─┐
//! free ◄───────┤                                                  │ the last
//!   ▲          └─take to write─► in the writer's guard ───────────┤ put back
//!   │                                                             ▼
//!   └────────────────────── nobody in line ◄─────────────── who is first?
//!                                    a writer: kept for it until it is polled
//!                                    readers: all up to the next writer are let in
//! ```
//!
//! Strictly in the order they came: a reader joins the line behind a writer that waits, so readers without end do not
//! starve it, and a writer lets those in who came before the next.

use std::sync::Arc;
use std::task::Waker;

use super::holders::Access;
use crate::sync::Mutex;
use crate::wait::WaitList;

/// The value as readers have it. Empty in a writer's hands.
pub(super) type Shared<T> = Arc<Option<Box<T>>>;

/// The value as a writer has it, and the box it goes back to.
pub(super) struct Taken<T> {
    pub(super) value: Box<T>,
    home: Shared<T>,
}

/// What was asked for.
pub(super) enum Got<T> {
    Read(Shared<T>),
    Write(Taken<T>),
}

pub(super) struct Core<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Gone while a writer has it.
    home: Option<Shared<T>>,
    /// Those who have a guard, and those let in who have not been polled since.
    readers: usize,
    /// The value is for a writer that was let in and has not been polled since.
    kept: bool,
    line: WaitList<Access>,
}

/// Those to wake once the lock is gone. One, as a rule.
#[derive(Default)]
struct LetIn {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl LetIn {
    fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.rest.push(waker),
        }
    }

    #[inline]
    fn wake(self) {
        if let Some(first) = self.first {
            first.wake();
            self.rest.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> State<T> {
    fn is_free_to(&self, access: Access) -> bool {
        let readable = self.home.is_some() && !self.kept;
        readable && (access == Access::Read || self.readers == 0)
    }

    /// The value, for one whose turn it is.
    fn give(&mut self, access: Access) -> Option<Got<T>> {
        match access {
            Access::Read => self.home.clone().map(Got::Read),
            Access::Lock | Access::Write => {
                let mut home = self.home.take()?;
                match Arc::get_mut(&mut home).and_then(Option::take) {
                    Some(value) => Some(Got::Write(Taken { value, home })),
                    None => unreachable!("nobody reads: this is the only reference"),
                }
            }
        }
    }

    fn take(&mut self, access: Access) -> Option<Got<T>> {
        if !self.line.is_empty() || !self.is_free_to(access) {
            return None;
        }
        self.readers += usize::from(access == Access::Read);
        self.give(access)
    }

    /// After anyone left: lets those in whose turn it is now.
    fn let_in(&mut self) -> LetIn {
        let mut woken = LetIn::default();
        while let Some(access) = self.line.first().map(|first| first.brought)
            && self.is_free_to(access)
        {
            match access {
                Access::Read => self.readers += 1,
                Access::Lock | Access::Write => self.kept = true,
            }
            if let Some(first) = self.line.take_first() {
                woken.push(first.waker);
            }
        }
        woken
    }
}

impl<T> Core<T> {
    pub(super) fn new(value: T) -> Self {
        let home = Some(Arc::new(Some(Box::new(value))));
        let state = State { home, readers: 0, kept: false, line: WaitList::default() };
        Self { state: Mutex::new(state) }
    }

    /// The value, if it is free to such access and nobody is in line.
    #[inline]
    pub(super) fn take(&self, access: Access) -> Option<Got<T>> {
        self.state.lock().take(access)
    }

    /// The value, or a place at the end of the line.
    pub(super) fn take_or_join(&self, access: Access, waker: &Waker) -> Result<Got<T>, u64> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let taken = state.take(access);
        taken.ok_or_else(|| state.line.join_with(1, waker.clone(), access))
    }

    /// The value, if it is the turn of `ticket`.
    pub(super) fn poll(&self, ticket: u64, access: Access, waker: &Waker) -> Option<Got<T>> {
        let mut state = self.state.lock();
        if state.line.still_waits(ticket, waker) {
            return None;
        }
        if access != Access::Read {
            state.kept = false;
        }
        state.give(access)
    }

    /// Gives the place of `ticket` up, or the turn it had not seen.
    pub(super) fn leave(&self, ticket: u64, access: Access) {
        let mut state = self.state.lock();
        if state.line.take(ticket).is_none() {
            match access {
                Access::Read => state.readers -= 1,
                Access::Lock | Access::Write => state.kept = false,
            }
        }
        // Also when it was in line: readers behind a writer that gave up may be let in.
        let woken = state.let_in();
        drop(state);
        woken.wake();
    }

    /// A reader's guard ends.
    #[inline]
    pub(super) fn put_back_shared(&self, shared: Shared<T>) {
        // Before the count says so.
        drop(shared);
        let mut state = self.state.lock();
        state.readers -= 1;
        let last = state.readers == 0 && !state.line.is_empty();
        let woken = if last { state.let_in() } else { LetIn::default() };
        drop(state);
        woken.wake();
    }

    /// A writer's guard ends.
    #[inline]
    pub(super) fn put_back(&self, taken: Taken<T>) {
        let Taken { value, mut home } = taken;
        if let Some(room) = Arc::get_mut(&mut home) {
            *room = Some(value);
        }
        let mut state = self.state.lock();
        state.home = Some(home);
        let woken = if state.line.is_empty() { LetIn::default() } else { state.let_in() };
        drop(state);
        woken.wake();
    }

    /// The value, when no guard took it along.
    pub(super) fn into_value(self) -> Option<T> {
        // Under the model checker there is no `into_inner`.
        let home = self.state.lock().home.take()?;
        Arc::into_inner(home)?.map(|value| *value)
    }
}
