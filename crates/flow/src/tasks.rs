//! The registry of every live task and thread of the process.
//!
//! Owns one record per task: who owns it, where it was spawned, how often it was polled and what it waits for. Records
//! appear with the task and go with it; nothing here keeps a task alive or stops one.
//!
//! ```text
//! spawn ─► idle ─poll─► running ─pending─► idle | waiting on queue `x`
//!                          └─ready─► gone
//! ```

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::{self, Instant};
use crate::ctx::Node;
use crate::stacks::Captured;

/// A name given to a task, a context or a pool. Static names cost nothing.
pub type Name = Cow<'static, str>;

/// What runs: a task of the runtime or a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A task of the runtime.
    Task,
    /// A thread of its own.
    Thread,
}

/// What a task was doing when the snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Inside a poll (or, for a thread, between two of our waits).
    Running,
    /// Between polls.
    Idle,
}

/// One live task, as plain data.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    /// Unique in the process's life.
    pub id: u64,
    /// The name given at spawn.
    pub name: Name,
    /// Task or thread.
    pub kind: Kind,
    /// The names of the contexts above it, from the root, joined by `/`.
    pub parent: String,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// When it was spawned.
    pub created: Instant,
    /// How often it was polled.
    pub polls: u64,
    /// Running or idle.
    pub state: State,
    /// Real time since its last poll began; `None` before the first.
    pub since_last_poll: Option<Duration>,
    /// What it waits for, when that is one of our own primitives: ``queue `uploads` ``.
    pub waiting_on: Option<String>,
    /// Since when it has been waiting for that.
    pub waiting_since: Option<Instant>,
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} (spawned at {}, {} polls, {:?}",
            self.parent, self.name, self.location, self.polls, self.state
        )?;
        if let Some(what) = &self.waiting_on {
            write!(f, ", waiting on {what}")?;
        }
        f.write_str(")")
    }
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const WAITING: u8 = 2;

struct Wait {
    what: &'static str,
    name: Arc<str>,
    since: Instant,
}

pub(crate) struct Record {
    id: u64,
    name: Name,
    kind: Kind,
    owner: Arc<Node>,
    location: &'static Location<'static>,
    created: Instant,
    polls: AtomicU64,
    state: AtomicU8,
    poll_began: AtomicU64,
    wait: Mutex<Option<Wait>>,
    /// How to have it polled; known from its first poll on, and never for a thread.
    waker: OnceLock<Waker>,
    /// Set while `asker` holds who wants to know where it stands.
    asked: AtomicBool,
    asker: Mutex<Option<Asker>>,
}

pub(crate) type Asker = oneshot::Sender<Captured>;

// Enough that a look at 100,000 tasks holds each lock for a small part of a millisecond.
const SHARDS: usize = 64;
static REGISTRY: [Mutex<BTreeMap<u64, Arc<Record>>>; SHARDS] =
    [const { Mutex::new(BTreeMap::new()) }; SHARDS];
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn shard(id: u64) -> &'static Mutex<BTreeMap<u64, Arc<Record>>> {
    // The remainder is below SHARDS, so the index holds.
    &REGISTRY[(id % SHARDS as u64) as usize]
}

pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Holds a record in the registry; dropping it takes the record out.
pub(crate) struct Registered {
    record: Option<Arc<Record>>,
    id: u64,
}

impl Registered {
    pub(crate) fn new(
        id: u64,
        name: Name,
        kind: Kind,
        owner: Arc<Node>,
        location: &'static Location<'static>,
    ) -> Self {
        owner.task_started(id);
        let record = Arc::new(Record {
            id,
            name,
            kind,
            owner,
            location,
            created: clock::now(),
            polls: AtomicU64::new(0),
            state: AtomicU8::new(IDLE),
            poll_began: AtomicU64::new(0),
            wait: Mutex::new(None),
            waker: OnceLock::new(),
            asked: AtomicBool::new(false),
            asker: Mutex::new(None),
        });
        shard(id).lock().insert(id, Arc::clone(&record));
        Self { record: Some(record), id }
    }

    /// Before each poll of a task: keeps its waker the first time, and says who wants to know where it stands.
    pub(crate) fn meet(&self, waker: &Waker) -> Option<Asker> {
        let record = self.record.as_ref()?;
        if record.polls.load(Ordering::Relaxed) == 0 {
            // The runtime gives a task the same waker for life.
            record.waker.get_or_init(|| waker.clone());
        }
        if !record.asked.load(Ordering::Acquire) {
            return None;
        }
        record.asked.store(false, Ordering::Relaxed);
        record.asker.lock().take()
    }

    /// Marks this record as the thread's current one until the guard drops.
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        if let Some(record) = &self.record {
            // Only the one poller writes: no read-modify-write needed.
            record
                .polls
                .store(record.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            record.poll_began.store(clock::real_nanos().max(1), Ordering::Relaxed);
            record.state.store(RUNNING, Ordering::Relaxed);
        }
        let outer = CURRENT.with(|current| current.replace(self.record.take()));
        let outer_noted = NOTED.with(|noted| noted.replace(false));
        CURRENT_ID.set(self.id);
        Entered { registered: self, outer, outer_noted }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let record = shard(self.id).lock().remove(&self.id);
        if let Some(record) = record {
            record.owner.task_ended(record.id);
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Record>>> = const { RefCell::new(None) };
    static NOTED: Cell<bool> = const { Cell::new(false) };
    /// The current record's id: a look that costs next to nothing.
    static CURRENT_ID: Cell<u64> = const { Cell::new(0) };
}

/// The time of one poll.
pub(crate) struct Entered<'a> {
    registered: &'a mut Registered,
    outer: Option<Arc<Record>>,
    outer_noted: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT_ID.set(self.outer.as_ref().map_or(0, |outer| outer.id));
        let record = CURRENT.with(|current| current.replace(self.outer.take()));
        let noted = NOTED.with(|noted| noted.replace(self.outer_noted));
        if let Some(record) = &record {
            record.state.store(if noted { WAITING } else { IDLE }, Ordering::Relaxed);
        }
        self.registered.record = record;
    }
}

/// Says that the running task is about to pend on `what` called `name`. A repeated wait on the same thing keeps its start.
pub(crate) fn note_wait(what: &'static str, name: &Arc<str>) {
    CURRENT.with(|current| {
        let Ok(current) = current.try_borrow() else {
            return;
        };
        let Some(record) = current.as_ref() else {
            return;
        };
        NOTED.with(|noted| noted.set(true));
        let mut wait = record.wait.lock();
        let same = wait.as_ref().is_some_and(|w| w.what == what && Arc::ptr_eq(&w.name, name));
        if !same {
            *wait = Some(Wait { what, name: Arc::clone(name), since: clock::now() });
        }
    });
}

/// The id of the task or thread that runs here; 0 when it is none of ours.
#[inline]
pub(crate) fn current_id() -> u64 {
    CURRENT_ID.get()
}

/// A thread is about to park: it waits for what it noted in this poll, if anything. Holds until [`clear_thread_wait`].
pub(crate) fn mark_thread_waiting() {
    let noted = NOTED.with(Cell::get);
    CURRENT.with(|current| {
        let Ok(current) = current.try_borrow() else {
            return;
        };
        if let Some(record) = current.as_ref() {
            record.state.store(if noted { WAITING } else { IDLE }, Ordering::Relaxed);
        }
    });
}

pub(crate) fn clear_thread_wait() {
    NOTED.with(|noted| noted.set(false));
    CURRENT.with(|current| {
        let Ok(current) = current.try_borrow() else {
            return;
        };
        if let Some(record) = current.as_ref() {
            record.polls.fetch_add(1, Ordering::Relaxed);
            record.poll_began.store(clock::real_nanos().max(1), Ordering::Relaxed);
            record.state.store(RUNNING, Ordering::Relaxed);
        }
    });
}

/// What a dump groups tasks by, and the ages it shows.
pub(crate) struct Glance {
    pub(crate) id: u64,
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) location: &'static Location<'static>,
    pub(crate) state: State,
    pub(crate) created: Instant,
    pub(crate) waiting: Option<(&'static str, Arc<str>, Instant)>,
    /// Real time since the running poll began.
    pub(crate) running: Option<Duration>,
}

impl Record {
    fn glance(&self) -> Glance {
        let state = self.state.load(Ordering::Relaxed);
        let waiting = if state == WAITING {
            self.wait.lock().as_ref().map(|w| (w.what, Arc::clone(&w.name), w.since))
        } else {
            None
        };
        let began = self.poll_began.load(Ordering::Relaxed);
        Glance {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            location: self.location,
            state: if state == RUNNING { State::Running } else { State::Idle },
            created: self.created,
            waiting,
            running: (state == RUNNING && began != 0)
                .then(|| Duration::from_nanos(clock::real_nanos().saturating_sub(began))),
        }
    }

    fn info(&self) -> TaskInfo {
        let state = self.state.load(Ordering::Relaxed);
        let wait = self.wait.lock();
        let waiting = wait.as_ref().filter(|_| state == WAITING);
        let began = self.poll_began.load(Ordering::Relaxed);
        TaskInfo {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            parent: self.owner.path(),
            location: self.location,
            created: self.created,
            polls: self.polls.load(Ordering::Relaxed),
            state: if state == RUNNING { State::Running } else { State::Idle },
            since_last_poll: (began != 0)
                .then(|| Duration::from_nanos(clock::real_nanos().saturating_sub(began))),
            waiting_on: waiting.map(|w| format!("{} `{}`", w.what, w.name)),
            waiting_since: waiting.map(|w| w.since),
        }
    }
}

/// Every live task, oldest first. Costs a lock per shard and a copy per task: for a page or a test, not for a hot path.
#[must_use]
pub fn snapshot() -> Vec<TaskInfo> {
    collect(|_| true)
}

pub(crate) fn under(root: &Node) -> Vec<TaskInfo> {
    collect(|record| record.owner.descends_from(root.id()))
}

fn collect(keep: impl Fn(&Record) -> bool) -> Vec<TaskInfo> {
    let mut found = Vec::new();
    for shard in &REGISTRY {
        let records: Vec<_> =
            shard.lock().values().filter(|record| keep(record)).cloned().collect();
        found.extend(records.iter().map(|record| record.info()));
    }
    found.sort_by_key(|info| info.id);
    found
}

/// Looks at every live task. A shard's lock is held only while its records are listed, never while `look` runs.
pub(crate) fn glance_at_all(mut look: impl FnMut(Glance)) {
    for shard in &REGISTRY {
        let records: Vec<_> = shard.lock().values().cloned().collect();
        for record in records {
            look(record.glance());
        }
    }
}

/// Asks task `id` where it stands and has it polled for that. `None` when it is gone, never ran, or is a thread. The
/// answer fails when the task ends first, or when someone else asks the same.
pub(crate) fn ask(id: u64) -> Option<oneshot::Receiver<Captured>> {
    let record = shard(id).lock().get(&id).cloned()?;
    let waker = record.waker.get()?;
    let (asker, answer) = oneshot::channel();
    *record.asker.lock() = Some(asker);
    record.asked.store(true, Ordering::Release);
    waker.wake_by_ref();
    Some(answer)
}

/// How many live tasks have each name: the low-cardinality view for metrics.
#[must_use]
pub fn counts_by_name() -> BTreeMap<Name, usize> {
    let mut counts = BTreeMap::new();
    for shard in &REGISTRY {
        for record in shard.lock().values() {
            *counts.entry(record.name.clone()).or_default() += 1;
        }
    }
    counts
}
