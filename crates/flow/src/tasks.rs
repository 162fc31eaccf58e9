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
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::clock::{self, Instant};
use crate::ctx::Node;
use crate::orphans;
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
    /// How to have it polled; known once a poll left it pending, and never for a thread.
    waker: OnceLock<Waker>,
    /// How to end it; known soon after it was spawned, and never for a thread.
    abort: OnceLock<AbortHandle>,
    /// Set while `asker` holds who wants to know where it stands.
    asked: AtomicBool,
    asker: Mutex<Option<Asker>>,
}

pub(crate) type Asker = oneshot::Sender<Captured>;

// Enough that a look at 100,000 tasks holds each lock for a small part of a millisecond.
const SHARDS: usize = 64;
static REGISTRY: [Mutex<Records>; SHARDS] = [const { Mutex::new(BTreeMap::new()) }; SHARDS];
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// By the owning context's id and the task's own: so the tasks of a context stand together, and the context need not list
/// them.
type Records = BTreeMap<(u64, u64), Arc<Record>>;

fn shard(id: u64) -> &'static Mutex<Records> {
    // The remainder is below SHARDS, so the index holds.
    &REGISTRY[(id % SHARDS as u64) as usize]
}

/// Looks through a shard: for questions about one task, which are rare.
fn record(id: u64) -> Option<Arc<Record>> {
    shard(id).lock().values().find(|record| record.id == id).cloned()
}

pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Holds a record in the registry; dropping it takes the record out.
pub(crate) struct Registered {
    /// With the thread that polls it, meanwhile.
    record: Option<Arc<Record>>,
    owner: u64,
    id: u64,
    finished: bool,
}

impl Registered {
    pub(crate) fn new(
        id: u64,
        name: Name,
        kind: Kind,
        owner: Arc<Node>,
        location: &'static Location<'static>,
    ) -> (Self, Arc<Record>) {
        owner.task_started();
        let owned = owner.id();
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
            abort: OnceLock::new(),
            asked: AtomicBool::new(false),
            asker: Mutex::new(None),
        });
        shard(id).lock().insert((owned, id), Arc::clone(&record));
        let own = Some(Arc::clone(&record));
        (Self { record: own, owner: owned, id, finished: false }, record)
    }

    /// Before each poll of a task: who wants to know where it stands.
    pub(crate) fn asker(&self) -> Option<Asker> {
        let record = self.record.as_ref()?;
        if !record.asked.load(Ordering::Acquire) {
            return None;
        }
        record.asked.store(false, Ordering::Relaxed);
        record.asker.lock().take()
    }

    /// After a poll that did not end it: keeps its waker the first time. The runtime gives a task the same one for life.
    pub(crate) fn keep(&self, waker: &Waker) {
        if let Some(record) = self.record.as_ref()
            && record.polls.load(Ordering::Relaxed) == 1
        {
            record.waker.get_or_init(|| waker.clone());
        }
    }

    /// It ends by itself.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
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
        let outer_id = CURRENT_ID.replace(self.id);
        Entered { registered: self, outer, outer_noted, outer_id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let record = shard(self.id).lock().remove(&(self.owner, self.id));
        if let Some(record) = record {
            if !self.finished && orphans::watched() && record.kind == Kind::Task {
                orphans::destroyed(&record.owner, &record.info());
            }
            record.owner.task_ended();
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Record>>> = const { RefCell::new(None) };
    static NOTED: Cell<bool> = const { Cell::new(false) };
    /// Of the record in `CURRENT`, or zero: apart, because reading it costs a load.
    static CURRENT_ID: Cell<u64> = const { Cell::new(0) };
    /// Of a thread that is not in the registry.
    static THREAD_ID: Cell<u64> = const { Cell::new(0) };
}

/// The id of the registered task or thread that runs here; zero when there is none.
#[inline]
pub(crate) fn current_id() -> u64 {
    CURRENT_ID.get()
}

/// As [`current_id`], or an id for this thread that no task has.
#[inline]
pub(crate) fn current_or_thread_id() -> u64 {
    match CURRENT_ID.get() {
        0 => thread_id(),
        id => id,
    }
}

#[inline]
fn thread_id() -> u64 {
    match THREAD_ID.get() {
        0 => new_thread_id(),
        id => id,
    }
}

#[cold]
fn new_thread_id() -> u64 {
    let id = next_id();
    THREAD_ID.set(id);
    id
}

/// The time of one poll.
pub(crate) struct Entered<'a> {
    registered: &'a mut Registered,
    outer: Option<Arc<Record>>,
    outer_noted: bool,
    outer_id: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let record = CURRENT.with(|current| current.replace(self.outer.take()));
        let noted = NOTED.with(|noted| noted.replace(self.outer_noted));
        CURRENT_ID.set(self.outer_id);
        if let Some(record) = &record {
            record.state.store(if noted { WAITING } else { IDLE }, Ordering::Relaxed);
        }
        self.registered.record = record;
    }
}

/// Says that the running task is about to pend on `what` called `name`. A repeated wait on the same thing keeps its start.
pub(crate) fn note_wait(what: &'static str, name: &Arc<str>) {
    note(what, name, clock::now);
}

/// As [`note_wait`], for one who knows when it began.
pub(crate) fn note_wait_since(what: &'static str, name: &Arc<str>, since: Instant) {
    note(what, name, || since);
}

fn note(what: &'static str, name: &Arc<str>, since: impl FnOnce() -> Instant) {
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
            *wait = Some(Wait { what, name: Arc::clone(name), since: since() });
        }
    });
}

fn current() -> Option<Arc<Record>> {
    CURRENT.with(|current| current.try_borrow().ok().and_then(|current| current.clone()))
}

/// The wait that the running task noted is over: the next one, though on the same thing, starts anew.
pub(crate) fn wait_over() {
    CURRENT.with(|current| {
        if let Ok(Some(record)) = current.try_borrow().as_deref() {
            *record.wait.lock() = None;
        }
    });
}

/// Runs `block`, which blocks this thread. Whatever runs here shows as waiting on `what` called `name` meanwhile.
pub(crate) fn blocked<R>(what: &'static str, name: &Arc<str>, block: impl FnOnce() -> R) -> R {
    let Some(record) = current() else {
        return block();
    };
    let wait = Wait { what, name: Arc::clone(name), since: clock::now() };
    let outer = record.wait.lock().replace(wait);
    let state = record.state.swap(WAITING, Ordering::Relaxed);
    let result = block();
    record.state.store(state, Ordering::Relaxed);
    *record.wait.lock() = outer;
    result
}

/// The context that owns what runs here.
pub(crate) fn current_owner() -> Option<Arc<Node>> {
    current().map(|record| Arc::clone(&record.owner))
}

/// A task or thread that waits for one of our primitives.
pub(crate) struct Waits {
    pub(crate) id: u64,
    pub(crate) polls: u64,
    pub(crate) what: &'static str,
    pub(crate) name: Arc<str>,
    pub(crate) since: Instant,
}

/// All that wait now. Two looks that agree on a task's polls and wait prove that it waited all the time between them.
pub(crate) fn waits() -> Vec<Waits> {
    let mut found = Vec::new();
    for shard in &REGISTRY {
        let waits = |record: &&Arc<Record>| record.state.load(Ordering::Relaxed) == WAITING;
        let records: Vec<_> = shard.lock().values().filter(waits).cloned().collect();
        found.extend(records.iter().filter_map(|record| record.waits()));
    }
    found
}

/// One task, if it lives.
pub(crate) fn info(id: u64) -> Option<TaskInfo> {
    record(id).map(|record| record.info())
}

/// Whether the task lives, below `root`.
pub(crate) fn is_under(id: u64, root: &Node) -> bool {
    record(id).is_some_and(|record| record.owner.descends_from(root.id()))
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

/// Aborts the tasks of contexts that were killed, each marked so before.
pub(crate) fn abort_owned(mut owners: Vec<u64>) {
    /// So many contexts are looked up one by one; for more, every task is looked at.
    const FEW: usize = 16;
    owners.sort_unstable();
    for shard in &REGISTRY {
        let records: Vec<_> = {
            let records = shard.lock();
            if owners.len() <= FEW {
                let of = |owner: &u64| records.range((*owner, 0)..=(*owner, u64::MAX));
                owners.iter().flat_map(of).map(|(_, record)| Arc::clone(record)).collect()
            } else {
                let owned = |(owner, _): &(u64, u64)| owners.binary_search(owner).is_ok();
                let found = records.iter().filter(|(key, _)| owned(key));
                found.map(|(_, record)| Arc::clone(record)).collect()
            }
        };
        for abort in records.iter().filter_map(|record| record.abort.get()) {
            abort.abort();
        }
    }
}

impl Record {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn owner(&self) -> &Arc<Node> {
        &self.owner
    }

    /// Keeps how to abort the task, and does so if its context was killed meanwhile.
    pub(crate) fn adopt(&self, handle: AbortHandle) {
        let handle = self.abort.get_or_init(|| handle);
        // Either this sees the context killed, or the killer, who looks for handles after its own fence, sees this one.
        fence(Ordering::SeqCst);
        if self.owner.is_killed() {
            handle.abort();
        }
    }

    fn waits(&self) -> Option<Waits> {
        let polls = self.polls.load(Ordering::Acquire);
        if self.state.load(Ordering::Acquire) != WAITING {
            return None;
        }
        let wait = self.wait.lock();
        let Wait { what, name, since } = wait.as_ref()?;
        Some(Waits { id: self.id, polls, what, name: Arc::clone(name), since: *since })
    }

    pub(crate) fn glance(&self) -> Glance {
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

/// The records of the registry, shard by shard. A shard's lock is held only while its records are listed.
pub(crate) fn shards() -> impl Iterator<Item = Vec<Arc<Record>>> + Send {
    REGISTRY.iter().map(|shard| shard.lock().values().cloned().collect())
}

/// Asks task `id` where it stands and has it polled for that. `None` when it is gone, never ran, or is a thread. The
/// answer fails when the task ends first, or when someone else asks the same.
pub(crate) fn ask(id: u64) -> Option<oneshot::Receiver<Captured>> {
    let record = record(id)?;
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
