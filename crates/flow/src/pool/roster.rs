//! Who works: the workers' places, how they are filled and left.
//!
//! Owns the roster. Whoever is on it may hold jobs; whoever leaves it has them counted first. It starts nobody: who hires
//! must start the worker, or drop its [`Seat`].

use std::sync::Arc;
use std::time::Duration;

use super::bed::Rest;
use super::crew::Crew;
use super::job::Current;
use super::slot::Slot;
use super::sync::{AtomicBool, Mutex, Ordering};
use crate::clock::{self, Instant};
use crate::ctx::Cause;

/// Who works, and who was left behind.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) workers: Vec<Arc<Place>>,
    /// Workers ever started, for their names.
    pub(super) named: usize,
    /// Threads whose job passed its timeout, replaced and still running.
    pub(super) stuck: usize,
    /// Threads ever replaced.
    pub(super) replaced: u64,
}

/// A worker's entry on the roster.
#[derive(Default)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) rest: Arc<Rest>,
    /// What a thread runs now, for whoever answers in its stead.
    pub(super) job: Mutex<Option<Current>>,
    /// Another stands in its place.
    pub(super) replaced: AtomicBool,
}

impl<J: Send + 'static> Crew<J> {
    /// Whether a worker that was left behind shall end, because another stands in its place. Else it serves on.
    pub(super) fn is_replaced(&self, place: &Arc<Place>) -> bool {
        if !place.slot.is_left() {
            return false;
        }
        let roster = self.roster.lock();
        let serves = roster.workers.iter().any(|other| Arc::ptr_eq(other, place));
        if serves {
            place.slot.back();
        }
        !serves
    }

    /// A worker panicked outside of a job: what it held is lost.
    fn lost(&self, place: &Place) {
        self.abandon(place.slot.leave());
        place.slot.back();
    }

    /// Remembers that a worker died and says how long to pause before its next life.
    pub(super) fn died(
        &self,
        place: &Place,
        failures: &mut u32,
        born: Instant,
        panic: Option<&super::Panic>,
    ) -> Duration {
        if let Some(message) = panic {
            tracing::error!(pool = %self.what, panic = %message, "a worker panicked outside of a job");
            self.lost(place);
        }
        self.restarts.fetch_add(1, Ordering::AcqRel);
        if clock::now().saturating_duration_since(born) >= self.set.backoff.stable_after {
            *failures = 0;
        }
        *failures = failures.saturating_add(1);
        let pause = self.set.backoff.pause(*failures);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(pool = %self.what, pause_ms, "worker ended, restarts after a pause");
        pause
    }

    /// Enters workers on the roster until there are as many as wanted; each must be started by the caller.
    pub(super) fn hire(self: &Arc<Self>) -> Vec<(usize, Seat<J>)> {
        let mut roster = self.roster.lock();
        let mut hired = Vec::new();
        let over = self.ctx.is_cancelled() || self.queue.is_closed();
        while !over && roster.workers.len() < self.wanted.load(Ordering::Relaxed) {
            hired.push(self.hire_into(&mut roster));
        }
        hired
    }

    pub(super) fn hire_into(self: &Arc<Self>, roster: &mut Roster) -> (usize, Seat<J>) {
        let place = Arc::new(Place::default());
        roster.workers.push(Arc::clone(&place));
        self.live.store(roster.workers.len(), Ordering::Relaxed);
        let number = roster.named;
        roster.named += 1;
        (number, Seat { crew: Arc::clone(self), place })
    }

    /// Sets how many workers there shall be. More must be hired; fewer end, each when it is between jobs.
    pub(super) fn want(&self, workers: usize) {
        self.wanted.store(workers.max(1), Ordering::Relaxed);
        self.bed.wake_all();
        self.resized.notify_waiters();
    }

    /// Ends the worker if there are more than wanted; false when another has ended in its stead.
    pub(super) fn retires(&self, place: &Arc<Place>) -> bool {
        let mut roster = self.roster.lock();
        let surplus = roster.workers.len() > self.wanted.load(Ordering::Relaxed);
        if surplus || self.ctx.is_cancelled() || self.queue.is_closed() {
            self.cross_out(&mut roster, place);
            return true;
        }
        false
    }

    /// Takes a worker off the roster; its counts go over to the pool's. False when it was replaced before.
    pub(super) fn cross_out(&self, roster: &mut Roster, place: &Arc<Place>) -> bool {
        let at = roster.workers.iter().position(|other| Arc::ptr_eq(other, place));
        if let Some(at) = at {
            roster.workers.swap_remove(at);
            self.live.store(roster.workers.len(), Ordering::Relaxed);
            self.base.fold(&place.slot.counts);
            self.gone.notify_waiters();
        }
        at.is_some()
    }
}

/// A worker's hold on its place: whatever way it ends, what it held is counted and its place is free.
pub(super) struct Seat<J: Send + 'static> {
    pub(super) crew: Arc<Crew<J>>,
    pub(super) place: Arc<Place>,
}

impl<J: Send + 'static> Drop for Seat<J> {
    fn drop(&mut self) {
        let crew = &self.crew;
        if crew.bed.get_up(&self.place.rest) && crew.has_work() {
            crew.bed.wake_one();
        }
        crew.abandon(self.place.slot.leave());
        let nobody = {
            let mut roster = crew.roster.lock();
            if !crew.cross_out(&mut roster, &self.place)
                && self.place.replaced.load(Ordering::Relaxed)
            {
                roster.stuck -= 1;
                crew.gone.notify_waiters();
            }
            roster.workers.is_empty()
        };
        // Nobody may be left to answer the queued jobs' callers: a context that is killed takes its workers with it, and so
        // does a runtime.
        if crew.ctx.is_cancelled() || nobody && (!crew.queue.is_closed() || crew.has_work()) {
            crew.stop(Cause::Shutdown);
        }
    }
}
