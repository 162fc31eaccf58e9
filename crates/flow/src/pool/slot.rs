//! One worker's figures, and who counts a job: the worker that ends it or whoever leaves the worker behind.
//!
//! Owns the counts of one worker. Only the worker writes its counts, so that a job's end costs one atomic operation on a
//! line nobody else writes; `held` alone is contended for, once per worker and pool at most.
//!
//! ```text
//! held: | left behind (1) | batches taken (47) | jobs taken and not ended (16) |
//! ```
//!
//! Whoever sets `left behind` counts what is held at that moment; the worker, which sees the bit at its job's end, does
//! not. So each job is counted once, however the two race.

use super::sync::{AtomicU64, Ordering};

const LEFT: u64 = 1 << 63;
const BATCH: u64 = 1 << 16;
const JOBS: u64 = BATCH - 1;

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Done,
    Failed,
    Panicked,
    TimedOut,
    Cancelled,
}

/// Jobs by their end.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) abandoned: AtomicU64,
}

/// The counts of all workers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) panicked: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
    pub(super) abandoned: u64,
}

impl Sum {
    pub(super) fn add(&mut self, counts: &Counts) {
        self.done += counts.done.load(Ordering::Acquire);
        self.failed += counts.failed.load(Ordering::Acquire);
        self.panicked += counts.panicked.load(Ordering::Acquire);
        self.timed_out += counts.timed_out.load(Ordering::Acquire);
        self.cancelled += counts.cancelled.load(Ordering::Acquire);
        self.abandoned += counts.abandoned.load(Ordering::Acquire);
    }

    /// Jobs that came to an end of their own.
    pub(super) fn ended(&self) -> u64 {
        self.done + self.failed + self.panicked + self.timed_out + self.cancelled
    }
}

impl Counts {
    fn of(&self, ran: Ran) -> &AtomicU64 {
        match ran {
            Ran::Done => &self.done,
            Ran::Failed => &self.failed,
            Ran::Panicked => &self.panicked,
            Ran::TimedOut => &self.timed_out,
            Ran::Cancelled => &self.cancelled,
        }
    }

    /// Takes over what a worker that goes has counted.
    pub(super) fn fold(&self, gone: &Counts) {
        let mut sum = Sum::default();
        sum.add(gone);
        self.done.fetch_add(sum.done, Ordering::AcqRel);
        self.failed.fetch_add(sum.failed, Ordering::AcqRel);
        self.panicked.fetch_add(sum.panicked, Ordering::AcqRel);
        self.timed_out.fetch_add(sum.timed_out, Ordering::AcqRel);
        self.cancelled.fetch_add(sum.cancelled, Ordering::AcqRel);
        self.abandoned.fetch_add(sum.abandoned, Ordering::AcqRel);
    }
}

/// The batch a worker held when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(u64);

/// A worker's place on the roster. Two lines apart from the next, so that workers do not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Slot {
    held: AtomicU64,
    pub(super) counts: Counts,
}

impl Slot {
    /// `jobs` were taken from the queue; false when the worker was left behind meanwhile and must count them abandoned.
    pub(super) fn take(&self, jobs: u64) -> bool {
        self.held.fetch_add(BATCH + jobs, Ordering::AcqRel) & LEFT == 0
    }

    /// `jobs` of those taken go back unstarted; false when they were counted as left behind.
    pub(super) fn give_back(&self, jobs: u64) -> bool {
        self.held.fetch_sub(jobs, Ordering::AcqRel) & LEFT == 0
    }

    /// One job ended; false when it was counted as left behind.
    pub(super) fn end(&self, ran: Ran) -> bool {
        let counted = self.held.fetch_sub(1, Ordering::AcqRel) & LEFT == 0;
        if counted {
            // Only this worker writes it: no read-modify-write needed.
            let count = self.counts.of(ran);
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
        counted
    }

    /// Jobs held now and not left behind.
    pub(super) fn held(&self) -> u64 {
        let held = self.held.load(Ordering::Acquire);
        if held & LEFT == 0 { held & JOBS } else { 0 }
    }

    pub(super) fn is_left(&self) -> bool {
        self.held.load(Ordering::Acquire) & LEFT != 0
    }

    pub(super) fn seen(&self) -> Seen {
        Seen(self.held.load(Ordering::Acquire))
    }

    /// Leaves the worker's jobs behind; says how many the caller has to count.
    pub(super) fn leave(&self) -> u64 {
        let held = self.held.fetch_or(LEFT, Ordering::AcqRel);
        if held & LEFT == 0 { held & JOBS } else { 0 }
    }

    /// As [`Slot::leave`], if the worker still holds what was seen.
    pub(super) fn leave_if(&self, seen: Seen) -> u64 {
        if seen.0 & LEFT != 0 || seen.0 & JOBS == 0 {
            return 0;
        }
        let left =
            self.held.compare_exchange(seen.0, seen.0 | LEFT, Ordering::AcqRel, Ordering::Acquire);
        if left.is_ok() { seen.0 & JOBS } else { 0 }
    }

    /// The worker is back from what it was left behind with, and serves on. Only the worker calls it, holding nothing.
    pub(super) fn back(&self) {
        self.held.fetch_and(!(LEFT | JOBS), Ordering::AcqRel);
    }
}
