//! What a timer's thread and its sleeps share: the wheels, and who is to be woken when.
//!
//! Owns the wheels, one per shard so that the threads of a runtime seldom meet at a lock. It reads no clock, and never
//! wakes, clones or drops a waker while it holds a lock: any of them may run somebody's code, which may sleep itself.
//!
//! Nobody oversleeps: under each shard's lock the thread leaves the tick at which it will look there again, and whoever
//! registers an earlier one under that lock rings. A ring while the thread is awake is kept for its next rest.

use std::sync::OnceLock;
use std::task::Waker;

use super::wheel::Wheel;
use crate::panic;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The most that are woken between two looks at a shard's lock: it bounds how long a lock is held and what is in hand.
const BATCH: usize = 64;

pub(super) struct Driver {
    shards: Box<[Shard]>,
    alarm: OnceLock<Waker>,
}

/// Two lines apart from the next, so that threads do not slow each other.
#[repr(align(128))]
struct Shard {
    /// The wheel's, to be read without the lock.
    elapsed: AtomicU64,
    sleeps: Mutex<Sleeps>,
}

struct Sleeps {
    wheel: Wheel,
    /// When the thread looks here again at the latest.
    promised: u64,
    /// The thread has ended.
    closed: bool,
}

/// Where a sleep is registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    shard: usize,
    tick: u64,
    at: usize,
}

/// What became of a sleep that was looked at.
pub(super) enum Looked {
    Waits(Place),
    Due,
    /// The thread has ended: nobody will fire it.
    Closed,
}

impl Driver {
    pub(super) fn new(shards: usize, elapsed: u64) -> Self {
        let shard = |_| Shard {
            elapsed: AtomicU64::new(elapsed),
            sleeps: Mutex::new(Sleeps {
                wheel: Wheel::new(elapsed),
                promised: u64::MAX,
                closed: false,
            }),
        };
        Self { shards: (0..shards.max(1)).map(shard).collect(), alarm: OnceLock::new() }
    }

    /// Whom to wake when the thread must look earlier than it promised. Before its first look.
    pub(super) fn set_alarm(&self, waker: Waker) {
        self.alarm.get_or_init(|| waker);
    }

    /// Registers a sleep until `tick`.
    pub(super) fn register(&self, shard: usize, tick: u64, waker: Waker) -> Looked {
        let shard = shard % self.shards.len();
        let (at, ring) = {
            let mut sleeps = self.shards[shard].sleeps.lock();
            if sleeps.closed {
                return Looked::Closed;
            }
            let Some(at) = sleeps.wheel.insert(tick, waker) else { return Looked::Due };
            let ring = tick < sleeps.promised;
            if ring {
                sleeps.promised = tick;
            }
            (at, ring)
        };
        if ring && let Some(alarm) = self.alarm.get() {
            alarm.wake_by_ref();
        }
        Looked::Waits(Place { shard, tick, at })
    }

    /// Looks at a registered sleep again, which from now on wakes `waker`.
    pub(super) fn look(&self, place: Place, waker: &Waker) -> Looked {
        let shard = &self.shards[place.shard];
        if shard.elapsed.load(Ordering::Acquire) >= place.tick {
            return Looked::Due;
        }
        let mut fresh = None;
        loop {
            let mut sleeps = shard.sleeps.lock();
            if sleeps.closed {
                return Looked::Closed;
            }
            let Some(own) = sleeps.wheel.waker(place.tick, place.at) else { return Looked::Due };
            if own.will_wake(waker) {
                return Looked::Waits(place);
            }
            if let Some(fresh) = fresh.take() {
                let stale = std::mem::replace(own, fresh);
                drop(sleeps);
                drop(stale);
                return Looked::Waits(place);
            }
            drop(sleeps);
            fresh = Some(waker.clone());
        }
    }

    /// Takes a sleep out that nobody waits for any more.
    pub(super) fn cancel(&self, place: Place) {
        let shard = &self.shards[place.shard];
        if shard.elapsed.load(Ordering::Acquire) >= place.tick {
            return;
        }
        let waker = {
            let mut sleeps = shard.sleeps.lock();
            if sleeps.closed { None } else { sleeps.wheel.remove(place.tick, place.at) }
        };
        drop(waker);
    }

    /// Wakes all that are due at tick `now`; gives the tick at which to look again.
    pub(super) fn fire(&self, now: u64, wakers: &mut Vec<Waker>) -> Option<u64> {
        self.shards.iter().filter_map(|shard| shard.fire(now, wakers)).min()
    }

    /// Sleeps registered now.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.sleeps.lock().wheel.len()).sum()
    }

    /// Nobody fires from now on: wakes all, who then look and see it.
    pub(super) fn close(&self) {
        for shard in &self.shards {
            let mut wakers = {
                let mut sleeps = shard.sleeps.lock();
                sleeps.closed = true;
                sleeps.wheel.take_all()
            };
            wake(&mut wakers);
        }
    }
}

impl Shard {
    fn fire(&self, now: u64, wakers: &mut Vec<Waker>) -> Option<u64> {
        loop {
            let next = {
                let mut sleeps = self.sleeps.lock();
                let more = sleeps.wheel.fire(now, BATCH, wakers);
                // Before they are woken: who looks finds itself due.
                self.elapsed.store(sleeps.wheel.elapsed(), Ordering::Release);
                let next = sleeps.wheel.next();
                sleeps.promised = next.unwrap_or(u64::MAX);
                (!more).then_some(next)
            };
            wake(wakers);
            if let Some(next) = next {
                return next;
            }
        }
    }
}

/// A waker that panics takes no other with it.
fn wake(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        if let Err(panic) = panic::catch(|| waker.wake()) {
            tracing::error!(%panic, "a waker panicked");
        }
    }
}
