//! Which task or thread runs here.
//!
//! Owns, for each thread, the record that it polls, and whether that said in this poll what it waits for. What [`enter`]
//! puts here, [`leave`] takes away at the end of the same poll.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::TaskInfo;
use super::record::{Record, Wait};
use crate::clock::{self, Instant};
use crate::ctx::Node;

/// A thread takes so many ids at a time, so that threads that spawn do not pass one counter back and forth.
const IDS: u64 = 64;

static NEXT_IDS: AtomicU64 = AtomicU64::new(1);

struct Here {
    /// Needs no drop, so that reaching it costs nothing: no thread ends within a poll.
    record: RefCell<ManuallyDrop<Option<Arc<Record>>>>,
    /// Its id; zero without one. Apart, because reading it costs a load.
    id: Cell<u64>,
    noted: Cell<bool>,
    /// The id of a thread that is not in the registry.
    thread: Cell<u64>,
    next_id: Cell<u64>,
    end_ids: Cell<u64>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            record: RefCell::new(ManuallyDrop::new(None)),
            id: Cell::new(0),
            noted: Cell::new(false),
            thread: Cell::new(0),
            next_id: Cell::new(0),
            end_ids: Cell::new(0),
        }
    };
}

/// An id that nothing else in the process has. Those taken on one thread grow.
pub(crate) fn next_id() -> u64 {
    HERE.with(|here| {
        let mut id = here.next_id.get();
        if id == here.end_ids.get() {
            id = NEXT_IDS.fetch_add(IDS, Ordering::Relaxed);
            here.end_ids.set(id + IDS);
        }
        here.next_id.set(id + 1);
        id
    })
}

/// What was here before.
pub(super) struct Outer {
    record: Option<Arc<Record>>,
    id: u64,
    noted: bool,
}

/// A poll begins.
pub(super) fn enter(record: Option<Arc<Record>>) -> Outer {
    HERE.with(|here| {
        let id = record.as_ref().map_or(0, |record| record.id());
        Outer {
            id: here.id.replace(id),
            noted: here.noted.replace(false),
            record: ManuallyDrop::into_inner(here.record.replace(ManuallyDrop::new(record))),
        }
    })
}

/// It ends: gives the record back, and whether it noted a wait.
pub(super) fn leave(outer: &mut Outer) -> (Option<Arc<Record>>, bool) {
    HERE.with(|here| {
        here.id.set(outer.id);
        let record = here.record.replace(ManuallyDrop::new(outer.record.take()));
        (ManuallyDrop::into_inner(record), here.noted.replace(outer.noted))
    })
}

/// The id of the registered task or thread that runs here; zero when there is none.
#[inline]
pub(crate) fn current_id() -> u64 {
    HERE.with(|here| here.id.get())
}

/// As [`current_id`], or an id for this thread that no task has.
#[inline]
pub(crate) fn current_or_thread_id() -> u64 {
    match current_id() {
        0 => thread_id(),
        id => id,
    }
}

#[inline]
fn thread_id() -> u64 {
    match HERE.with(|here| here.thread.get()) {
        0 => new_thread_id(),
        id => id,
    }
}

#[cold]
fn new_thread_id() -> u64 {
    let id = next_id();
    HERE.with(|here| here.thread.set(id));
    id
}

fn with_record<R>(look: impl FnOnce(&Here, &Record) -> R) -> Option<R> {
    HERE.with(|here| {
        let record = here.record.try_borrow().ok()?;
        record.as_ref().map(|record| look(here, record))
    })
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
    with_record(|here, record| {
        here.noted.set(true);
        record.note(what, name, since);
    });
}

/// The wait that the running task noted is over: the next one, though on the same thing, starts anew.
pub(crate) fn wait_over() {
    with_record(|_, record| record.set_wait(None));
}

/// Runs `block`, which blocks this thread. Whatever runs here shows as waiting on `what` called `name` meanwhile.
pub(crate) fn blocked<R>(what: &'static str, name: &Arc<str>, block: impl FnOnce() -> R) -> R {
    let Some(record) = HERE.with(|here| Some(Arc::clone(here.record.try_borrow().ok()?.as_ref()?)))
    else {
        return block();
    };
    let wait = Wait { what, name: Arc::clone(name), since: clock::now() };
    let outer = record.set_wait(Some(wait));
    let state = record.pause();
    let result = block();
    record.resume(state);
    record.set_wait(outer);
    result
}

/// What runs here, if it has this id.
pub(super) fn current_info(id: u64) -> Option<TaskInfo> {
    with_record(|_, record| (record.id() == id).then(|| record.info())).flatten()
}

/// The context that owns what runs here.
pub(crate) fn current_owner() -> Option<Arc<Node>> {
    with_record(|_, record| record.owner().cloned()).flatten()
}

/// A thread is about to park: it waits for what it noted in this poll, if anything. Holds until [`clear_thread_wait`].
pub(crate) fn mark_thread_waiting() {
    with_record(|here, record| record.rest(here.noted.get()));
}

pub(crate) fn clear_thread_wait() {
    HERE.with(|here| here.noted.set(false));
    with_record(|_, record| record.begin());
}
