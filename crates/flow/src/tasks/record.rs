//! What the registry knows of one task or thread.
//!
//! Owns the record, which its context lists while the task lives, and the guard that takes it off that list. What changes
//! with every poll stands together and is written by the polling thread alone; what is asked for rarely has locks.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::here::{self, Outer};
use super::spares;
use super::{Glance, Kind, Name, State, TaskInfo, Waits};
use crate::clock::{Coarse, Instant, Stamp};
use crate::ctx::Node;
use crate::orphans;
use crate::stacks::Captured;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const WAITING: u8 = 2;
const ENDED: u8 = 3;

/// Somebody wants to know where it stands: `asker` holds who.
const ASKED: u8 = 1;
/// Its next poll ends it.
const KILLED: u8 = 2;

pub(crate) type Asker = oneshot::Sender<Captured>;

/// What a task waits for.
pub(super) struct Wait {
    pub(super) what: &'static str,
    pub(super) name: Arc<str>,
    pub(super) since: Instant,
}

/// In this order: what every poll touches stands together.
#[repr(C)]
pub(crate) struct Record {
    polls: AtomicU64,
    poll_began: AtomicU64,
    state: AtomicU8,
    flags: AtomicU8,
    kind: Kind,
    id: u64,
    /// None between two tasks.
    owner: Option<Arc<Node>>,
    name: Name,
    location: &'static Location<'static>,
    created: Stamp,
    wait: Mutex<Option<Wait>>,
    wake: Mutex<Wake>,
}

#[derive(Default)]
struct Wake {
    /// How to have it polled; known once a poll left it pending, and never for a thread.
    waker: Option<Waker>,
    asker: Option<Asker>,
}

/// What a task or thread begins with.
pub(super) struct Fresh {
    pub(super) kind: Kind,
    pub(super) name: Name,
    pub(super) owner: Arc<Node>,
    pub(super) location: &'static Location<'static>,
}

impl Record {
    pub(super) fn new(Fresh { kind, name, owner, location }: Fresh) -> Self {
        Self {
            polls: AtomicU64::new(0),
            poll_began: AtomicU64::new(0),
            state: AtomicU8::new(IDLE),
            flags: AtomicU8::new(0),
            kind,
            id: here::next_id(),
            owner: Some(owner),
            name,
            location,
            created: Stamp::now(),
            wait: Mutex::new(None),
            wake: Mutex::default(),
        }
    }

    /// Begins anew, after [`Record::let_go`].
    pub(super) fn renew(&mut self, Fresh { kind, name, owner, location }: Fresh) {
        *self.polls.get_mut() = 0;
        *self.poll_began.get_mut() = 0;
        *self.state.get_mut() = IDLE;
        *self.flags.get_mut() = 0;
        self.kind = kind;
        self.id = here::next_id();
        self.owner = Some(owner);
        self.name = name;
        self.location = location;
        self.created = Stamp::now();
    }

    /// Nobody will ask it anything any more: what it holds goes.
    pub(super) fn let_go(&mut self) {
        self.owner = None;
        self.name = Name::Borrowed("");
        *self.wait.get_mut() = None;
        *self.wake.get_mut() = Wake::default();
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn owner(&self) -> Option<&Arc<Node>> {
        self.owner.as_ref()
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Its next poll ends it, and comes soon. A thread does not notice.
    pub(crate) fn kill(&self) {
        self.flags.fetch_or(KILLED, Ordering::Relaxed);
        // Either the waker is here, or the poll that keeps it sees the flag: by the lock.
        let waker = self.wake.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has it polled to learn where it stands. The answer fails when the task ends first, or when someone else asks the
    /// same. `None` when it never ran, or is a thread.
    pub(crate) fn ask(&self) -> Option<oneshot::Receiver<Captured>> {
        let mut wake = self.wake.lock();
        let waker = wake.waker.clone()?;
        let (asker, answer) = oneshot::channel();
        let earlier = wake.asker.replace(asker);
        drop(wake);
        drop(earlier); // not under the lock
        self.flags.fetch_or(ASKED, Ordering::Release);
        waker.wake();
        Some(answer)
    }

    /// It is over, though still listed.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// It is about to pend on `what` called `name`. A repeated wait on the same thing keeps its start.
    pub(super) fn note(
        &self,
        what: &'static str,
        name: &Arc<str>,
        since: impl FnOnce() -> Instant,
    ) {
        let mut wait = self.wait.lock();
        let same = wait.as_ref().is_some_and(|w| w.what == what && Arc::ptr_eq(&w.name, name));
        if !same {
            *wait = Some(Wait { what, name: Arc::clone(name), since: since() });
        }
    }

    /// Replaces what it waits for.
    pub(super) fn set_wait(&self, wait: Option<Wait>) -> Option<Wait> {
        std::mem::replace(&mut *self.wait.lock(), wait)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WAITING
    }

    /// A poll begins, on the only thread that polls.
    pub(super) fn begin(&self) {
        // Nobody else writes these: no read-modify-write needed.
        let polls = self.polls.load(Ordering::Relaxed).wrapping_add(1);
        self.polls.store(polls, Ordering::Relaxed);
        self.poll_began.store(Coarse::now().ticks(), Ordering::Relaxed);
        self.state.store(RUNNING, Ordering::Relaxed);
    }

    /// It pends, on what it noted or on something unknown.
    pub(super) fn rest(&self, noted: bool) {
        self.state.store(if noted { WAITING } else { IDLE }, Ordering::Relaxed);
    }

    /// It waits without leaving its poll. Gives what [`Record::resume`] puts back.
    pub(super) fn pause(&self) -> u8 {
        self.state.swap(WAITING, Ordering::Relaxed)
    }

    pub(super) fn resume(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) -> Option<Waits> {
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
        Glance {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            location: self.location,
            state: if state == RUNNING { State::Running } else { State::Idle },
            created: self.created.instant(),
            waiting,
            running: self.since_last_poll().filter(|_| state == RUNNING),
        }
    }

    pub(super) fn info(&self) -> TaskInfo {
        let state = self.state.load(Ordering::Relaxed);
        let wait = self.wait.lock();
        let waiting = wait.as_ref().filter(|_| state == WAITING);
        TaskInfo {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            parent: self.owner.as_ref().map(|owner| owner.path()).unwrap_or_default(),
            location: self.location,
            created: self.created.instant(),
            polls: self.polls.load(Ordering::Relaxed),
            state: if state == RUNNING { State::Running } else { State::Idle },
            since_last_poll: self.since_last_poll(),
            waiting_on: waiting.map(|w| format!("{} `{}`", w.what, w.name)),
            waiting_since: waiting.map(|w| w.since),
        }
    }

    fn since_last_poll(&self) -> Option<Duration> {
        let began = self.poll_began.load(Ordering::Relaxed);
        (began != 0).then(|| Coarse::from_ticks(began).elapsed())
    }
}

/// What a poll must do besides, as told by [`Registered::orders`].
pub(crate) enum Orders {
    /// Tell where it stands.
    Capture(Asker),
    /// End.
    Die,
}

/// Keeps a record among the members of its context; dropping it marks the record as ended.
pub(crate) struct Registered {
    /// With the thread that polls it, meanwhile.
    record: Option<Arc<Record>>,
    /// The record has the waker.
    kept: bool,
    finished: bool,
}

impl Registered {
    pub(crate) fn new(
        name: Name,
        kind: Kind,
        owner: Arc<Node>,
        location: &'static Location<'static>,
    ) -> (Self, Arc<Record>) {
        let record = spares::record(Fresh { kind, name, owner, location });
        if let Some(owner) = &record.owner {
            owner.admit(&record);
        }
        (Self { record: Some(Arc::clone(&record)), kept: false, finished: false }, record)
    }

    /// Before each poll of a task: what it must do besides.
    pub(crate) fn orders(&self) -> Option<Orders> {
        let record = self.record.as_ref()?;
        let flags = record.flags.load(Ordering::Acquire);
        if flags == 0 {
            return None;
        }
        record.orders(flags)
    }

    /// After a poll that did not end it: keeps its waker the first time. The runtime gives a task the same one for life.
    pub(crate) fn keep(&mut self, waker: &Waker) {
        if !self.kept
            && let Some(record) = &self.record
        {
            record.keep(waker);
            self.kept = true;
        }
    }

    /// It ends by itself, or was told to.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Marks this record as the thread's current one until the guard drops.
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        let record = self.record.take();
        if let Some(record) = &record {
            record.begin();
        }
        Entered { outer: here::enter(record), registered: self }
    }
}

impl Record {
    #[cold]
    fn orders(&self, flags: u8) -> Option<Orders> {
        if flags & KILLED != 0 {
            return Some(Orders::Die);
        }
        self.flags.fetch_and(!ASKED, Ordering::Relaxed);
        self.wake.lock().asker.take().map(Orders::Capture)
    }

    /// The record may stay listed for a while, and others may hold it: what it holds goes now.
    fn end(&self, kept: bool) {
        // Only whoever finds a waker leaves an asker.
        if kept {
            let wake = std::mem::take(&mut *self.wake.lock());
            drop(wake); // not under its lock
        }
        self.state.store(ENDED, Ordering::Release);
    }

    fn keep(&self, waker: &Waker) {
        self.wake.lock().waker = Some(waker.clone());
        if self.flags.load(Ordering::Relaxed) & KILLED != 0 {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let Some(owner) = record.owner.as_ref() else { return };
        if !self.finished && orphans::watched() && record.kind == Kind::Task {
            orphans::destroyed(owner, &record.info());
        }
        record.end(self.kept);
        owner.dismiss();
        spares::give_back(record);
    }
}

/// The time of one poll.
pub(crate) struct Entered<'a> {
    registered: &'a mut Registered,
    outer: Outer,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let (record, noted) = here::leave(&mut self.outer);
        if let Some(record) = &record {
            record.rest(noted);
        }
        self.registered.record = record;
    }
}
