//! When a task that never waits makes way for others.
//!
//! Owns a count for each side of a queue. Tokio gives a task so many operations a turn and then has it yield. A yield in
//! the middle of a batch is dear: the other side is about to run, the batch waits for both of them to come round, and a
//! runtime with nothing else to do asks the system for events first. So a side may finish its batch on credit.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::task::coop::{self, RestoreOnPending};

/// So many operations on credit: a batch of the usual bounds.
const CREDIT: u32 = 64;

/// The operations that one side did on credit since it last had a budget.
#[derive(Default)]
pub(super) struct Pace(AtomicU32);

/// The right to one operation: what a pending one gives back.
pub(super) struct Turn(Option<RestoreOnPending>);

impl Turn {
    /// The operation did not pend.
    #[inline]
    pub(super) fn made_progress(&self) {
        if let Some(budget) = &self.0 {
            budget.made_progress();
        }
    }
}

impl Pace {
    /// The right to one operation; pending when it is time to yield, and then the task is polled again.
    #[inline]
    pub(super) fn poll_proceed(&self, cx: &mut Context<'_>) -> Poll<Turn> {
        // Written by few and of no consequence when off: no read-modify-write.
        let done = self.0.load(Ordering::Relaxed);
        if coop::has_budget_remaining() {
            if done != 0 {
                self.0.store(0, Ordering::Relaxed);
            }
        } else if done < CREDIT {
            self.0.store(done + 1, Ordering::Relaxed);
            return Poll::Ready(Turn(None));
        }
        coop::poll_proceed(cx).map(|budget| Turn(Some(budget)))
    }
}
