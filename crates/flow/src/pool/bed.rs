//! Where idle workers sleep, and who wakes whom.
//!
//! Owns the sleepers, the last to lie down first to be woken, so that a pool with little to do keeps few workers warm. One
//! woken worker is enough until it has looked: it wakes the next itself when it leaves work behind. So a burst costs one
//! wake, not one per job.
//!
//! ```text
//! up ─lie_down─► asleep ─wake_one─► woken ─get_up─► up
//!  │                └──────get_up────────────────────┘
//!  └─stay_up─► woken: looks again for a moment before it lies down
//! ```
//!
//! No wake is lost: a worker looks for work again after it lay down, a submitter looks for sleepers after it submitted.

use std::sync::Arc;
use std::task::Waker;

use super::sync::{AtomicBool, AtomicU8, AtomicUsize, Mutex, Ordering, fence};

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
    sleepers: Mutex<Vec<(Arc<Rest>, Waker)>>,
}

impl Bed {
    /// There is work: wakes a worker, unless none sleeps or one is about to look. `anyway` wakes one even then.
    pub(super) fn wake_one(&self, anyway: bool) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) == 0
            || (!anyway && self.searching.load(Ordering::Relaxed))
        {
            return;
        }
        if self.searching.swap(true, Ordering::SeqCst) && !anyway {
            return;
        }
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

    /// Takes upon itself to look for work as if woken; true when nobody else does. Until [`Bed::get_up`] or
    /// [`Bed::lie_down`] no other is woken.
    pub(super) fn stay_up(&self, rest: &Arc<Rest>) -> bool {
        match rest.0.load(Ordering::Acquire) {
            WOKEN => true,
            UP if !self.searching.swap(true, Ordering::SeqCst) => {
                rest.0.store(WOKEN, Ordering::Release);
                true
            }
            _ => false,
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

    /// Is up; true when it had been woken to look, so that work it leaves behind is its to hand on.
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
            fence(Ordering::SeqCst);
        }
        woken
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
