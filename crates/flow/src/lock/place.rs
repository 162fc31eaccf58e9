//! What is known of each lock, and of all locks made at one place.
//!
//! Owns the table of places (one entry per line of code that makes locks, kept for the program's life) and, for each, weak
//! references to those of its locks that somebody has waited for. It never holds up a lock that nobody waits for: that one
//! writes its holder's id, and no more.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::checks;
use crate::clock::{self, Instant};
use crate::tasks;

/// In place of a holder's id: nobody.
pub(crate) const FREE: u64 = 0;
/// In place of a holder's id: someone who is in no registry.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// What a kind of lock is called in reports, and to tasks that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`lock::Mutex`](super::Mutex).
    Mutex,
    /// [`lock::sync::Mutex`](super::sync::Mutex).
    SyncMutex,
}

/// The locks made at one place, as plain data.
#[derive(Clone, Debug)]
pub struct LockInfo {
    /// The name given to them.
    pub name: &'static str,
    /// What they are.
    pub kind: Kind,
    /// Where they were made.
    pub made_at: &'static Location<'static>,
    /// How many there are now.
    pub locks: usize,
    /// How often somebody had to wait, so far.
    pub contended: u64,
    /// How long they waited in sum; a wait counts when it ends.
    pub wait: Duration,
    /// The longest of the ended waits.
    pub longest_wait: Duration,
    /// How many wait now.
    pub waiting: usize,
    /// Who holds one of them now, of those that somebody has waited for; the most waited for first, up to eight.
    pub holders: Vec<Holder>,
}

/// Who holds a lock.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The id of the task or thread in [`tasks::snapshot`], or zero when it is in no registry.
    pub task: u64,
    /// Its name below its contexts, with where it was spawned; or that it is unknown.
    pub who: String,
    /// Since when; known in debug builds.
    pub since: Option<Instant>,
    /// Where it took the lock; known in debug builds.
    pub taken_at: Option<&'static Location<'static>>,
}

const HOLDERS: usize = 8;

/// Where locks are made, and how they fared together.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) made_at: &'static Location<'static>,
    locks: AtomicUsize,
    contended: AtomicU64,
    wait_nanos: AtomicU64,
    longest_nanos: AtomicU64,
    waiting: AtomicUsize,
    waited_for: Mutex<WaitedFor>,
}

#[derive(Default)]
struct WaitedFor {
    heads: Vec<Weak<Head>>,
    /// When the list reaches this length, the dead leave.
    sweep_at: usize,
}

type Key = (&'static Location<'static>, &'static str, Kind);

static PLACES: LazyLock<Mutex<HashMap<Key, &'static Place>>> = LazyLock::new(Mutex::default);

impl Place {
    fn of(name: &'static str, kind: Kind, made_at: &'static Location<'static>) -> &'static Self {
        PLACES.lock().entry((made_at, name, kind)).or_insert_with(|| {
            // As many as there are lines that make locks.
            Box::leak(Box::new(Self {
                name,
                kind,
                made_at,
                locks: AtomicUsize::new(0),
                contended: AtomicU64::new(0),
                wait_nanos: AtomicU64::new(0),
                longest_nanos: AtomicU64::new(0),
                waiting: AtomicUsize::new(0),
                waited_for: Mutex::default(),
            }))
        })
    }

    fn all() -> Vec<&'static Self> {
        PLACES.lock().values().copied().collect()
    }

    fn heads(&self) -> Vec<Arc<Head>> {
        self.waited_for.lock().heads.iter().filter_map(Weak::upgrade).collect()
    }

    fn info(&self) -> LockInfo {
        let mut held: Vec<_> = self
            .heads()
            .into_iter()
            .filter_map(|head| Some((head.waiting.load(Ordering::Relaxed), head.held_by()?)))
            .collect();
        held.sort_by_key(|(waiting, _)| std::cmp::Reverse(*waiting));
        held.truncate(HOLDERS);
        LockInfo {
            name: self.name,
            kind: self.kind,
            made_at: self.made_at,
            locks: self.locks.load(Ordering::Relaxed),
            contended: self.contended.load(Ordering::Relaxed),
            wait: Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed)),
            longest_wait: Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed)),
            waiting: self.waiting.load(Ordering::Relaxed),
            holders: held.into_iter().map(|(_, holder)| holder).collect(),
        }
    }
}

/// Every place that has made locks, the most waited for first. Takes each place's lock for a moment, and none of theirs.
#[must_use]
pub fn registry() -> Vec<LockInfo> {
    let mut infos: Vec<_> = Place::all().into_iter().map(Place::info).collect();
    infos.sort_by(|a, b| b.wait.cmp(&a.wait).then_with(|| a.made_at.cmp(b.made_at)));
    infos
}

/// Every lock that somebody has waited for and someone holds: the address of its name in the waiter's record, the holder,
/// and where it took the lock.
pub(crate) fn held() -> Vec<HeldLock> {
    let mut held = Vec::new();
    for place in Place::all() {
        for head in place.heads() {
            let holder = head.holder.load(Ordering::Acquire);
            let Some(name) = head.name.get().filter(|_| holder != FREE) else { continue };
            let taken_at = head.hold.lock().map(|hold| hold.at);
            held.push(HeldLock { name: Arc::clone(name), holder, taken_at });
        }
    }
    held
}

/// A held lock, for the deadlock detector.
pub(crate) struct HeldLock {
    /// Its address is the lock's identity.
    pub(crate) name: Arc<str>,
    pub(crate) holder: u64,
    pub(crate) taken_at: Option<&'static Location<'static>>,
}

/// One lock, without its value.
pub(crate) struct Head {
    pub(super) id: u64,
    pub(super) place: &'static Place,
    holder: AtomicU64,
    waiting: AtomicUsize,
    /// What tasks that wait for it call it. Made at the first wait: most locks have none.
    name: OnceLock<Arc<str>>,
    /// Kept in debug builds.
    hold: Mutex<Option<Hold>>,
}

#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) at: &'static Location<'static>,
    pub(super) since: Instant,
}

impl Head {
    pub(super) fn new(
        name: &'static str,
        kind: Kind,
        made_at: &'static Location<'static>,
    ) -> Arc<Self> {
        let place = Place::of(name, kind, made_at);
        place.locks.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id: tasks::next_id(),
            place,
            holder: AtomicU64::new(FREE),
            waiting: AtomicUsize::new(0),
            name: OnceLock::new(),
            hold: Mutex::new(None),
        })
    }

    /// Whoever calls has just got the lock.
    #[inline]
    pub(super) fn taken(&self, by: u64, at: &'static Location<'static>) {
        self.holder.store(by, Ordering::Relaxed);
        if checks::ON {
            *self.hold.lock() = Some(Hold { at, since: clock::now() });
            checks::taken(self, by, at);
        }
    }

    /// Whoever calls is about to let the lock go.
    #[inline]
    pub(super) fn released(&self) {
        if checks::ON {
            checks::released(self, self.holder());
            *self.hold.lock() = None;
        }
        self.holder.store(FREE, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn holder(&self) -> u64 {
        self.holder.load(Ordering::Relaxed)
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        *self.hold.lock()
    }

    pub(super) fn held_by(&self) -> Option<Holder> {
        let id = self.holder();
        if id == FREE {
            return None;
        }
        let hold = self.hold();
        let (task, who) = checks::who(id);
        Some(Holder { task, who, since: hold.map(|h| h.since), taken_at: hold.map(|h| h.at) })
    }

    /// The name that a waiting task notes.
    pub(super) fn name(self: &Arc<Self>) -> &Arc<str> {
        self.name.get_or_init(|| {
            let mut waited_for = self.place.waited_for.lock();
            if waited_for.heads.len() >= waited_for.sweep_at {
                waited_for.heads.retain(|head| head.strong_count() > 0);
                waited_for.sweep_at = (2 * waited_for.heads.len()).max(16);
            }
            waited_for.heads.push(Arc::downgrade(self));
            Arc::from(self.place.name)
        })
    }

    /// A wait begins.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.place.contended.fetch_add(1, Ordering::Relaxed);
        self.place.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { head: Arc::clone(self), since: clock::now() }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.place.locks.fetch_sub(1, Ordering::Relaxed);
        if checks::ON {
            checks::gone(self.id, self.holder());
        }
    }
}

/// A wait under way; it counts when this drops.
pub(super) struct Waiting {
    head: Arc<Head>,
    pub(super) since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let place = self.head.place;
        let waited = clock::now().saturating_duration_since(self.since).as_nanos();
        let waited = u64::try_from(waited).unwrap_or(u64::MAX);
        place.wait_nanos.fetch_add(waited, Ordering::Relaxed);
        place.longest_nanos.fetch_max(waited, Ordering::Relaxed);
        place.waiting.fetch_sub(1, Ordering::Relaxed);
        self.head.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
