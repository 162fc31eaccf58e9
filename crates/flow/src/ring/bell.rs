//! One waker between two parties: one waits, the other rings.
//!
//! Owns the waiting party's waker. The one who waits sets it and then looks again; the one who rings first does what was
//! waited for and then looks for a waker. Between the two steps of each stands a full fence, so that at least one of them
//! sees the other: no ring is lost. When nobody waits a ring costs that fence and a load.
//!
//! ```text
//! idle ──set──► busy ──► waiting ──take──► busy ──► idle
//!                 (who finds it busy does not wait for the other)
//! ```

use std::task::Waker;

use crate::sync::{AtomicU8, Ordering, UnsafeCell, fence};

const IDLE: u8 = 0;
const WAITING: u8 = 1;
const BUSY: u8 = 2;

pub(crate) struct Bell {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: whoever moved `state` to BUSY has the waker to himself until he moves it on; a waker may go to another thread.
unsafe impl Sync for Bell {}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(IDLE), waker: UnsafeCell::new(None) }
    }

    /// Waits from now on. The caller looks again at what it waits for after this, and only then pends. One party only.
    pub(crate) fn set(&self, waker: &Waker) {
        let held = self.lock(IDLE) || self.lock(WAITING) || self.lock(IDLE);
        if !held {
            // The other party is taking the waker that was here, in order to ring: then so is this one's turn.
            waker.wake_by_ref();
            #[cfg(loom)]
            loom::thread::yield_now();
            return;
        }
        // SAFETY: the state is BUSY by this party's hand.
        self.waker.with_mut(|slot| unsafe {
            match &mut *slot {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        });
        self.state.store(WAITING, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The waker of whoever waits: wake it. Call it after what is waited for was done. One party only.
    #[inline]
    pub(crate) fn take(&self) -> Option<Waker> {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == WAITING { self.take_waiting() } else { None }
    }

    pub(crate) fn ring(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    #[cold]
    fn take_waiting(&self) -> Option<Waker> {
        if !self.lock(WAITING) {
            return None; // the other party has it in hand, and looks again after
        }
        // SAFETY: the state is BUSY by this party's hand.
        let waker = self.waker.with_mut(|slot| unsafe { (*slot).take() });
        self.state.store(IDLE, Ordering::Release);
        waker
    }

    fn lock(&self, from: u8) -> bool {
        self.state.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}
