//! The waiting list beneath queues and budgets: first come, first served, and a place can be given up exactly.
//!
//! Owns wakers by ticket. It has no lock of its own: whoever holds it decides under one lock who is granted, so a waiter
//! whose ticket is gone from the list knows that it was granted, and none is woken in vain or forgotten.

use std::collections::BTreeMap;
use std::task::Waker;

#[derive(Debug, Default)]
pub(crate) struct WaitList {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    need: u64,
    waker: Waker,
}

impl WaitList {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Joins at the end.
    pub(crate) fn join(&mut self, need: u64, waker: Waker) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert(ticket, Waiting { need, waker });
        ticket
    }

    /// Joins again at the place a granted ticket had.
    pub(crate) fn rejoin(&mut self, ticket: u64, need: u64, waker: Waker) {
        self.waiting.insert(ticket, Waiting { need, waker });
    }

    /// Whether `ticket` still waits; if so the waker is brought up to date.
    pub(crate) fn still_waits(&mut self, ticket: u64, waker: &Waker) -> bool {
        match self.waiting.get_mut(&ticket) {
            Some(waiting) => {
                waiting.waker.clone_from(waker);
                true
            }
            None => false,
        }
    }

    /// Gives the place up; false when it had been granted already.
    pub(crate) fn leave(&mut self, ticket: u64) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// What the first in line needs.
    pub(crate) fn first_need(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.need)
    }

    /// Who is first in line.
    pub(crate) fn first_ticket(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// The waker of the first in line, who stays there.
    pub(crate) fn first_waker(&self) -> Option<Waker> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.waker.clone())
    }

    /// Grants the first in line; wake the waker after the lock is gone.
    pub(crate) fn grant_first(&mut self) -> Option<Waker> {
        self.waiting.pop_first().map(|(_, waiting)| waiting.waker)
    }

    /// The wakers of all, who stay in line.
    pub(crate) fn wakers(&self) -> Vec<Waker> {
        self.waiting.values().map(|waiting| waiting.waker.clone()).collect()
    }

    /// Grants all.
    pub(crate) fn grant_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.waker).collect()
    }
}

pub(crate) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
