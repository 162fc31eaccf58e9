//! Where idle workers sleep, and who wakes whom.
//!
//! Owns the sleepers, the last to lie down first to be woken, so that a pool with little to do keeps few workers warm. One
//! woken worker is enough until it has looked: it wakes the next itself when it leaves work behind. So a burst costs one
//! wake, not one per job.
//!
//! ```text
//! up ─lie_down─► asleep ─wake_one─► woken ─get_up─► up
//!                  └──────get_up────────────────────┘
//! ```
//!
//! No wake is lost: a worker looks for work again after it lay down, a submitter looks for sleepers after it submitted. The
//! two looks are put in order by the queue's lock, which both take in between, so that a submit pays for no fence; who
//! makes work known in another way has to [`fence`].

use std::sync::Arc;
use std::task::Waker;

use super::sync::{AtomicBool, AtomicU8, AtomicUsize, Mutex, Ordering, fence};

/// So many times a wake is spared because one worker is about to look; then another is woken all the same: the first may wait
/// behind a job that holds its runtime's thread. More than a task does before it must give way (128 in Tokio): to wake a
/// second worker while the first is next on the same thread sends the jobs to another core, where they cost twice as much.
const SPARED: usize = 256;

const UP: u8 = 0;
const ASLEEP: u8 = 1;
const WOKEN: u8 = 2;

/// One worker's state; written under the bed's lock, but for the way from woken to up.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicU8);

#[derive(Default)]
pub(super) struct Bed {
    asleep: AtomicUsize,
    /// A woken worker has not looked for work yet.
    searching: AtomicBool,
    /// Wakes spared since one was woken to look. Submitters that race may lose a count, which does no harm.
    spared: AtomicUsize,
    sleepers: Mutex<Vec<(Arc<Rest>, Waker)>>,
}

impl Bed {
    /// There is work: wakes a worker, unless none sleeps or one is about to look.
    pub(super) fn wake_one(&self) {
        if self.asleep.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.searching.load(Ordering::Relaxed) {
            let spared = self.spared.load(Ordering::Relaxed).saturating_add(1);
            self.spared.store(spared, Ordering::Relaxed);
            if spared < SPARED {
                return;
            }
            self.searching.store(true, Ordering::SeqCst);
        } else if self.searching.swap(true, Ordering::SeqCst) {
            return;
        }
        self.spared.store(0, Ordering::Relaxed);
        let mut sleepers = self.sleepers.lock();
        let woken = sleepers.pop();
        match &woken {
            Some((rest, _)) => {
                rest.0.store(WOKEN, Ordering::Release);
                self.asleep.store(sleepers.len(), Ordering::Relaxed);
            }
            None => self.searching.store(false, Ordering::SeqCst),
        }
        drop(sleepers);
        if let Some((_, waker)) = woken {
            waker.wake();
        }
    }

    /// Lies down; true when the worker lay there already, and false when it must look for work once more.
    pub(super) fn lie_down(&self, rest: &Arc<Rest>, waker: &Waker) -> bool {
        let mut sleepers = self.sleepers.lock();
        let was = rest.0.load(Ordering::Acquire);
        if was == ASLEEP {
            if let Some((_, own)) = sleepers.iter_mut().find(|(other, _)| Arc::ptr_eq(other, rest))
            {
                own.clone_from(waker);
            }
            return true;
        }
        sleepers.push((Arc::clone(rest), waker.clone()));
        rest.0.store(ASLEEP, Ordering::Release);
        self.asleep.store(sleepers.len(), Ordering::Relaxed);
        drop(sleepers);
        if was == WOKEN {
            self.searching.store(false, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        false
    }

    /// Is up; true when it had lain down, so that work it leaves behind is its to hand on: wakes may have been spared
    /// because it was about to look, even if it lay down once more before it did.
    pub(super) fn get_up(&self, rest: &Arc<Rest>) -> bool {
        if rest.0.load(Ordering::Acquire) == UP {
            return false;
        }
        let mut sleepers = self.sleepers.lock();
        let woken = rest.0.swap(UP, Ordering::AcqRel) == WOKEN;
        if !woken {
            sleepers.retain(|(other, _)| !Arc::ptr_eq(other, rest));
            self.asleep.store(sleepers.len(), Ordering::Relaxed);
        }
        drop(sleepers);
        if woken {
            self.searching.store(false, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        true
    }

    /// Wakes all: something other than work has changed.
    pub(super) fn wake_all(&self) {
        let mut sleepers = self.sleepers.lock();
        let woken = std::mem::take(&mut *sleepers);
        for (rest, _) in &woken {
            rest.0.store(UP, Ordering::Release);
        }
        self.asleep.store(0, Ordering::Relaxed);
        drop(sleepers);
        for (_, waker) in woken {
            waker.wake();
        }
    }
}
