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

use super::holders::{Access, Hold, Readers};
use super::{Patience, checks};
use crate::clock::{self, Instant};
use crate::tasks;

/// In place of a holder's id: nobody.
pub(crate) const FREE: u64 = 0;
/// In place of a holder's id: someone who is in no registry.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// What a kind of lock is called in reports, and to tasks that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// [`lock::Mutex`](super::Mutex).
    Mutex,
    /// [`lock::sync::Mutex`](super::sync::Mutex).
    SyncMutex,
    /// [`lock::RwLock`](super::RwLock).
    RwLock,
    /// [`lock::sync::RwLock`](super::sync::RwLock).
    SyncRwLock,
}

/// The locks made at one place, as plain data.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    pub waiters: usize,
    /// Who holds one of them now, of those that somebody has waited for; the most waited for first, up to eight.
    pub holders: Vec<Holder>,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The id of the task or thread in [`tasks::snapshot`], or zero when it is in no registry.
    pub task: u64,
    /// Its name below its contexts, with where it was spawned; or that it is unknown.
    pub who: String,
    /// Alone, or with other readers.
    pub access: Access,
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
        let waiting = |head: &Arc<Head>| head.waiting.load(Ordering::Relaxed);
        let mut heads: Vec<_> =
            self.heads().into_iter().map(|head| (waiting(&head), head)).collect();
        heads.sort_by_key(|(waiting, _)| std::cmp::Reverse(*waiting));
        let waiting = heads.iter().map(|(waiting, _)| waiting).sum();
        let holders = heads.iter().flat_map(|(_, head)| head.held_by()).take(HOLDERS).collect();
        LockInfo {
            name: self.name,
            kind: self.kind,
            made_at: self.made_at,
            locks: self.locks.load(Ordering::Relaxed),
            contended: self.contended.load(Ordering::Relaxed),
            wait: Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed)),
            longest_wait: Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed)),
            waiters: waiting,
            holders,
        }
    }
}

/// Every place that has made locks, the most waited for first. Takes each place's lock for a moment, and none of theirs.
#[must_use]
pub fn snapshot() -> Vec<LockInfo> {
    let mut infos: Vec<_> = Place::all().into_iter().map(Place::info).collect();
    infos.sort_by(|a, b| b.wait.cmp(&a.wait).then_with(|| a.made_at.cmp(b.made_at)));
    infos
}

/// Every lock that somebody has waited for and someone holds.
pub(crate) fn held() -> Vec<HeldLock> {
    let mut held = Vec::new();
    for place in Place::all() {
        for head in place.heads() {
            let holders = head.holding();
            let Some(name) = head.name.get().filter(|_| !holders.is_empty()) else { continue };
            let first_writer = head.readers.as_ref().and_then(|readers| readers.first_writer());
            held.push(HeldLock { name: Arc::clone(name), holders, first_writer });
        }
    }
    held
}

/// A held lock, for the deadlock detector.
pub(crate) struct HeldLock {
    /// As waiters note it: its address is the lock's identity.
    pub(crate) name: Arc<str>,
    pub(crate) holders: Vec<Holding>,
    /// The waiting writer that keeps readers out while others read.
    pub(crate) first_writer: Option<u64>,
}

/// Who holds it, how, and in debug builds where it was taken.
pub(crate) struct Holding {
    pub(crate) who: u64,
    pub(crate) access: Access,
    pub(crate) taken_at: Option<&'static Location<'static>>,
}

/// One lock, without its value.
pub(crate) struct Head {
    pub(super) id: u64,
    pub(super) place: &'static Place,
    /// Who has it alone.
    holder: AtomicU64,
    /// A mutex has none.
    readers: Option<Box<Readers>>,
    waiting: AtomicUsize,
    /// What tasks that wait for it call it. Made at the first wait: most locks have none.
    name: OnceLock<Arc<str>>,
    /// Kept in debug builds.
    holds: Mutex<Vec<Hold>>,
}

impl Head {
    pub(super) fn new(
        name: &'static str,
        kind: Kind,
        made_at: &'static Location<'static>,
    ) -> Arc<Self> {
        let place = Place::of(name, kind, made_at);
        place.locks.fetch_add(1, Ordering::Relaxed);
        let readers = match kind {
            Kind::Mutex | Kind::SyncMutex => None,
            Kind::RwLock | Kind::SyncRwLock => Some(Box::default()),
        };
        Arc::new(Self {
            id: tasks::next_id(),
            place,
            holder: AtomicU64::new(FREE),
            readers,
            waiting: AtomicUsize::new(0),
            name: OnceLock::new(),
            holds: Mutex::new(Vec::new()),
        })
    }

    /// How whoever has it alone has it.
    fn alone(&self) -> Access {
        if self.readers.is_some() { Access::Write } else { Access::Lock }
    }

    /// Whoever calls has just got the lock, alone.
    #[inline]
    pub(super) fn taken(&self, by: u64, at: &'static Location<'static>) {
        self.holder.store(by, Ordering::Relaxed);
        if checks::ON {
            self.keep(by, self.alone(), at);
        }
    }

    /// Whoever calls has it alone and is about to let it go.
    #[inline]
    pub(super) fn released(&self) {
        if checks::ON {
            self.forget(self.holder(), self.alone());
        }
        self.holder.store(FREE, Ordering::Relaxed);
    }

    /// Whoever calls has just got the lock, to read. Gives what [`Head::read`] wants back.
    #[inline]
    pub(super) fn reads(&self, by: u64, at: &'static Location<'static>) -> Reader {
        let place = self.readers.as_ref().map_or(u32::MAX, |readers| readers.enter(by));
        if checks::ON {
            self.keep(by, Access::Read, at);
        }
        Reader { by, place }
    }

    /// A reader is about to let the lock go.
    #[inline]
    pub(super) fn read(&self, reader: &Reader) {
        if checks::ON {
            self.forget(reader.by, Access::Read);
        }
        if let Some(readers) = &self.readers {
            readers.leave(reader.place, reader.by);
        }
    }

    fn keep(&self, by: u64, access: Access, at: &'static Location<'static>) {
        self.holds.lock().push(Hold { by, access, at, since: clock::now() });
        checks::taken(self, by, access, at);
    }

    fn forget(&self, by: u64, access: Access) {
        checks::released(self, by);
        let mut holds = self.holds.lock();
        if let Some(at) = holds.iter().rposition(|hold| (hold.by, hold.access) == (by, access)) {
            holds.remove(at);
        }
    }

    /// Who has it alone.
    #[inline]
    pub(super) fn holder(&self) -> u64 {
        self.holder.load(Ordering::Relaxed)
    }

    /// Whether `who` has it, alone or to read. Only a task or thread itself writes its own id, so what it reads of itself
    /// is true, but for a reader that was lost ([`Readers::enter`]).
    pub(super) fn held_by_self(&self, who: u64) -> bool {
        self.holder() == who || self.readers.as_ref().is_some_and(|readers| readers.reads(who))
    }

    /// The holds, in debug builds.
    pub(super) fn holds(&self) -> Vec<Hold> {
        self.holds.lock().clone()
    }

    /// The oldest hold of `who`, in debug builds.
    pub(super) fn hold_of(&self, who: u64) -> Option<Hold> {
        self.holds.lock().iter().find(|hold| hold.by == who).copied()
    }

    fn holding(&self) -> Vec<Holding> {
        let alone = Some(self.holder.load(Ordering::Acquire)).filter(|holder| *holder != FREE);
        let readers = self.readers.iter().flat_map(|readers| readers.all());
        let holders = alone.map(|who| (who, self.alone())).into_iter();
        let mut holders: Vec<_> = holders
            .chain(readers.map(|who| (who, Access::Read)))
            .map(|(who, access)| Holding { who, access, taken_at: None })
            .collect();
        for hold in self.holds() {
            let own =
                |holding: &&mut Holding| (holding.who, holding.access) == (hold.by, hold.access);
            if let Some(holding) = holders.iter_mut().filter(own).find(|own| own.taken_at.is_none())
            {
                holding.taken_at = Some(hold.at);
            }
        }
        holders
    }

    pub(super) fn held_by(&self) -> Vec<Holder> {
        if checks::ON {
            return self.holds().iter().map(Holder::of).collect();
        }
        let holder = |holding: Holding| {
            let (task, who) = checks::who(holding.who);
            Holder { task, who, access: holding.access, since: None, taken_at: None }
        };
        self.holding().into_iter().map(holder).collect()
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

    /// A wait of `who` begins.
    pub(super) fn wait(
        self: &Arc<Self>,
        who: u64,
        access: Access,
        patience: Patience,
    ) -> Waiting<'_> {
        self.name();
        self.place.contended.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let writes = self.readers.as_ref().filter(|_| access == Access::Write);
        let turn = writes.map(|readers| readers.writer_waits(who, patience));
        Waiting { head: self, since: clock::now(), turn }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.place.locks.fetch_sub(1, Ordering::Relaxed);
        if checks::ON {
            checks::gone(self.id, self.holds.get_mut());
        }
    }
}

impl Holder {
    pub(super) fn of(hold: &Hold) -> Self {
        let (task, who) = checks::who(hold.by);
        let (since, taken_at) = (Some(hold.since), Some(hold.at));
        Self { task, who, access: hold.access, since, taken_at }
    }
}

/// One who reads, as it was written down.
pub(super) struct Reader {
    by: u64,
    place: u32,
}

/// A wait under way; it counts when this drops.
pub(super) struct Waiting<'a> {
    head: &'a Head,
    pub(super) since: Instant,
    /// In the line of writers.
    turn: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let place = self.head.place;
        let waited = clock::now().saturating_duration_since(self.since).as_nanos();
        let waited = u64::try_from(waited).unwrap_or(u64::MAX);
        place.wait_nanos.fetch_add(waited, Ordering::Relaxed);
        // Most waits are not the longest.
        if place.longest_nanos.load(Ordering::Relaxed) < waited {
            place.longest_nanos.fetch_max(waited, Ordering::Relaxed);
        }
        self.head.waiting.fetch_sub(1, Ordering::Relaxed);
        if let (Some(turn), Some(readers)) = (self.turn, &self.head.readers) {
            readers.writer_gone(turn);
        }
    }
}
