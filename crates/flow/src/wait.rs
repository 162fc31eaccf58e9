//! The waiting list beneath queues and budgets: first come, first served, and a place can be given up exactly.
//!
//! Owns, by ticket, a waker and what its waiter brought along. It has no lock of its own: whoever holds it decides under
//! one lock who is granted, so a waiter whose ticket is gone from the list knows that it was granted, and none is woken
//! in vain or forgotten.
//!
//! ```text
//! first ─► [b] ─► [a] ─► [d] ◄─ last     places of one slab, linked by index
//! free  ─► [c]                           a place left is used again: no allocation per wait
//! ```

use std::task::Waker;

/// No place: the end of a line.
const NONE: u32 = u32::MAX;
/// A ticket is the place's index below the number of the join that took it: a ticket of an earlier waiter at the same
/// place matches nobody.
const INDEX_BITS: u32 = 28;
/// An empty list with room for more than this many gives its memory back.
const KEPT: usize = 1024;

#[derive(Debug)]
pub(crate) struct WaitList<P = ()> {
    places: Vec<Place<P>>,
    first: u32,
    last: u32,
    free: u32,
    len: usize,
    joined: u64,
}

#[derive(Debug)]
struct Place<P> {
    ticket: u64,
    before: u32,
    /// The next in line; in an empty place, the next empty one.
    after: u32,
    waiting: Option<Waiting<P>>,
}

/// One in line.
#[derive(Debug)]
pub(crate) struct Waiting<P> {
    pub(crate) need: u64,
    pub(crate) waker: Waker,
    pub(crate) brought: P,
}

impl<P> Default for WaitList<P> {
    fn default() -> Self {
        Self { places: Vec::new(), first: NONE, last: NONE, free: NONE, len: 0, joined: 0 }
    }
}

impl<P> WaitList<P> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Joins at the end with what it brings along.
    pub(crate) fn join_with(&mut self, need: u64, waker: Waker, brought: P) -> u64 {
        let (at, ticket) = self.place(Waiting { need, waker, brought });
        let last = self.last;
        self.link(last, at, NONE);
        ticket
    }

    /// Joins at the front: the place of one that was granted and found nothing.
    pub(crate) fn join_first(&mut self, need: u64, waker: Waker, brought: P) -> u64 {
        let (at, ticket) = self.place(Waiting { need, waker, brought });
        let first = self.first;
        self.link(NONE, at, first);
        ticket
    }

    /// Whether `ticket` still waits; if so the waker is brought up to date.
    pub(crate) fn still_waits(&mut self, ticket: u64, waker: &Waker) -> bool {
        match self.held(ticket) {
            Some(waiting) => {
                waiting.waker.clone_from(waker);
                true
            }
            None => false,
        }
    }

    /// Gives the place up; `None` when it had been granted already.
    pub(crate) fn take(&mut self, ticket: u64) -> Option<Waiting<P>> {
        self.held(ticket)?;
        self.remove(index(ticket))
    }

    /// The first in line, who stays there.
    pub(crate) fn first(&self) -> Option<&Waiting<P>> {
        self.places.get(self.first as usize)?.waiting.as_ref()
    }

    /// What the first in line needs.
    pub(crate) fn first_need(&self) -> Option<u64> {
        self.first().map(|waiting| waiting.need)
    }

    /// Who is first in line.
    pub(crate) fn first_ticket(&self) -> Option<u64> {
        self.places.get(self.first as usize).map(|place| place.ticket)
    }

    /// The waker of the first in line, who stays there.
    pub(crate) fn first_waker(&self) -> Option<Waker> {
        self.first().map(|waiting| waiting.waker.clone())
    }

    /// Grants the first in line; wake its waker after the lock is gone.
    pub(crate) fn take_first(&mut self) -> Option<Waiting<P>> {
        self.remove(self.first)
    }

    /// All, in order, who stay in line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiting<P>> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let place = self.places.get(at as usize)?;
            at = place.after;
            place.waiting.as_ref()
        })
    }

    /// The wakers of all, in order, who stay in line.
    pub(crate) fn wakers(&self) -> Vec<Waker> {
        self.iter().map(|waiting| waiting.waker.clone()).collect()
    }

    fn held(&mut self, ticket: u64) -> Option<&mut Waiting<P>> {
        let place = self.places.get_mut(index(ticket) as usize)?;
        if place.ticket == ticket { place.waiting.as_mut() } else { None }
    }

    /// Fills an empty place, not yet in line.
    fn place(&mut self, waiting: Waiting<P>) -> (u32, u64) {
        self.len += 1;
        self.joined += 1;
        let empty = self.free;
        if let Some(place) = self.places.get_mut(empty as usize) {
            self.free = place.after;
            place.ticket = ticket(self.joined, empty);
            place.waiting = Some(waiting);
            return (empty, place.ticket);
        }
        let at = self.places.len() as u32;
        debug_assert!(at < 1 << INDEX_BITS, "more waiters than a ticket can number");
        let ticket = ticket(self.joined, at);
        self.places.push(Place { ticket, before: NONE, after: NONE, waiting: Some(waiting) });
        (at, ticket)
    }

    fn link(&mut self, before: u32, at: u32, after: u32) {
        if let Some(place) = self.places.get_mut(at as usize) {
            (place.before, place.after) = (before, after);
        }
        match self.places.get_mut(before as usize) {
            Some(place) => place.after = at,
            None => self.first = at,
        }
        match self.places.get_mut(after as usize) {
            Some(place) => place.before = at,
            None => self.last = at,
        }
    }

    fn remove(&mut self, at: u32) -> Option<Waiting<P>> {
        let free = self.free;
        let place = self.places.get_mut(at as usize)?;
        let waiting = place.waiting.take()?;
        let (before, after) = (place.before, place.after);
        place.after = free;
        self.free = at;
        match self.places.get_mut(before as usize) {
            Some(place) => place.after = after,
            None => self.first = after,
        }
        match self.places.get_mut(after as usize) {
            Some(place) => place.before = before,
            None => self.last = before,
        }
        self.len -= 1;
        if self.len == 0 && self.places.len() > KEPT {
            self.places = Vec::new();
            self.free = NONE;
        }
        Some(waiting)
    }
}

/// For those who bring nothing along.
impl WaitList {
    /// Joins at the end.
    pub(crate) fn join(&mut self, need: u64, waker: Waker) -> u64 {
        self.join_with(need, waker, ())
    }

    /// Gives the place up; false when it had been granted already.
    pub(crate) fn leave(&mut self, ticket: u64) -> bool {
        self.take(ticket).is_some()
    }

    /// Grants the first in line; wake the waker after the lock is gone.
    pub(crate) fn grant_first(&mut self) -> Option<Waker> {
        self.take_first().map(|waiting| waiting.waker)
    }

    /// Grants all.
    pub(crate) fn grant_all(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::with_capacity(self.len);
        while let Some(waker) = self.grant_first() {
            wakers.push(waker);
        }
        wakers
    }
}

fn ticket(joined: u64, at: u32) -> u64 {
    joined << INDEX_BITS | u64::from(at)
}

fn index(ticket: u64) -> u32 {
    (ticket & ((1 << INDEX_BITS) - 1)) as u32
}

pub(crate) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
