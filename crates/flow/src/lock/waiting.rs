//! One wait for an async lock, from its first poll to its end.
//!
//! Owns the ticket of one in line, its note in the task's record, and in debug builds the bell of a long wait. It decides
//! nothing: who gets the lock is the core's matter.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Sleep;

use super::holders::Access;
use super::place::{FREE, Head, UNKNOWN, Waiting};
use super::{LockError, Patience, checks, waits};
use crate::clock;
use crate::tasks;

/// One who asks for a lock, and what is known of that.
pub(super) struct Asking<'a> {
    pub(super) head: &'a Arc<Head>,
    pub(super) access: Access,
    patience: Patience,
    pub(super) at: &'static Location<'static>,
    wait: Option<Wait<'a>>,
}

struct Wait<'a> {
    ticket: u64,
    waiting: Waiting<'a>,
    /// In debug builds: rings when the wait is long.
    bell: Option<Pin<Box<Sleep>>>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        head: &'a Arc<Head>,
        access: Access,
        patience: Patience,
        at: &'static Location<'static>,
    ) -> Self {
        Self { head, access, patience, at, wait: None }
    }

    /// Before each poll: whether it is the first, or one after a wait was over.
    #[inline]
    pub(super) fn is_first(&self) -> bool {
        if checks::ON && self.wait.is_none() {
            checks::asks(self.head, tasks::current_id(), self.access, self.at);
        }
        self.wait.is_none()
    }

    /// Its place in line.
    #[inline]
    pub(super) fn ticket(&self) -> Option<u64> {
        self.wait.as_ref().map(|wait| wait.ticket)
    }

    /// Whether it has waited for so long.
    pub(super) fn has_waited(&self, limit: Duration) -> bool {
        let began = self.wait.as_ref().map(|wait| wait.waiting.since);
        began.is_some_and(|began| clock::now().saturating_duration_since(began) >= limit)
    }

    /// It has joined the line.
    pub(super) fn joined(&mut self, ticket: u64) {
        let waiting = self.head.wait(owner(), self.access, self.patience);
        self.wait = Some(Wait { ticket, waiting, bell: bell() });
    }

    /// It has got the lock. Nothing when it did not wait.
    pub(super) fn over(&mut self) {
        if self.wait.take().is_some() {
            tasks::wait_over();
        }
    }

    /// It gives up. The place to give up with it.
    #[inline]
    pub(super) fn gone(&mut self) -> Option<u64> {
        self.wait.take().map(|wait| wait.ticket)
    }

    /// It is about to pend. Tells of a long wait, once, when its bell rings and somebody holds the lock.
    pub(super) fn pends(&mut self, cx: &mut Context<'_>) {
        let Some(wait) = &mut self.wait else { return };
        tasks::note_wait_since(
            waits(self.access, self.patience),
            self.head.name(),
            wait.waiting.since,
        );
        while let Some(bell) = &mut wait.bell
            && bell.as_mut().poll(cx).is_ready()
        {
            let (me, since) = (tasks::current_id(), wait.waiting.since);
            let told = checks::waited(self.head, me, self.access, self.at, since);
            wait.bell = if told { None } else { self::bell() };
        }
    }

    /// It was not its turn before its deadline: whether the running task keeps itself out.
    pub(super) fn too_late(&self) -> LockError {
        let me = tasks::current_id();
        let relocked = me != FREE && self.head.held_by_self(me);
        if relocked { LockError::Relocked } else { LockError::TimedOut }
    }
}

/// What runs here, as a holder's id.
#[inline]
pub(super) fn owner() -> u64 {
    match tasks::current_id() {
        0 => UNKNOWN,
        id => id,
    }
}

fn bell() -> Option<Pin<Box<Sleep>>> {
    if !checks::ON || tokio::runtime::Handle::try_current().is_err() {
        return None;
    }
    checks::long_wait().map(|limit| Box::pin(tokio::time::sleep(limit)))
}
