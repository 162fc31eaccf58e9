//! The registry of every live task and thread of the process.
//!
//! Owns one record per task: who owns it, where it was spawned, how often it was polled and what it waits for. Records
//! appear with the task and go some time after it; nothing here keeps a task alive. Each context lists its own, so that looking at all
//! means walking the tree of contexts.
//!
//! ```text
//! spawn ─► idle ─poll─► running ─pending─► idle | waiting on queue `x`
//!                          └─ready─► gone
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::ctx::{self, Node};

mod here;
mod record;
mod spares;

pub(crate) use self::here::{
    blocked, clear_thread_wait, current_id, current_or_thread_id, current_owner,
    mark_thread_waiting, next_id, note_wait, note_wait_since, wait_over,
};
pub(crate) use self::record::{Orders, Record, Registered};
pub(crate) use self::spares::give_back;

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
#[non_exhaustive]
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
    /// When it was spawned; in a release build to some milliseconds.
    pub created: Instant,
    /// How often it was polled.
    pub polls: u64,
    /// Running or idle.
    pub state: State,
    /// Real time since its last poll began, to some milliseconds; `None` before the first.
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
    ctx::members(None)
        .flatten()
        .filter(|record| record.is_waiting())
        .filter_map(|record| record.waits())
        .collect()
}

/// Looks through all: for questions about one task, which are rare.
fn record(id: u64) -> Option<Arc<Record>> {
    ctx::members(None).flatten().find(|record| record.id() == id)
}

/// One task, if it lives.
pub(crate) fn info(id: u64) -> Option<TaskInfo> {
    here::current_info(id).or_else(|| record(id).map(|record| record.info()))
}

/// Whether the task lives, below `root`.
pub(crate) fn is_under(id: u64, root: &Arc<Node>) -> bool {
    ctx::members(Some(root)).flatten().any(|record| record.id() == id)
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

/// Every live task, oldest first (in a release build, to some milliseconds). Costs a copy per task: for a page or a test, not for a hot path.
#[must_use]
pub fn snapshot() -> Vec<TaskInfo> {
    collect(None)
}

pub(crate) fn under(root: &Arc<Node>) -> Vec<TaskInfo> {
    collect(Some(root))
}

fn collect(root: Option<&Arc<Node>>) -> Vec<TaskInfo> {
    let mut found: Vec<_> = ctx::members(root).flatten().map(|record| record.info()).collect();
    found.sort_unstable_by_key(|info| (info.created, info.id));
    found
}

/// The records of the registry, some at a time. A lock is held only while these few are listed.
pub(crate) fn slices() -> impl Iterator<Item = Vec<Arc<Record>>> + Send {
    ctx::members(None)
}

/// How many live tasks have each name: the low-cardinality view for metrics.
#[must_use]
pub fn counts_by_name() -> BTreeMap<Name, usize> {
    let mut counts = BTreeMap::new();
    for record in ctx::members(None).flatten() {
        *counts.entry(record.name().clone()).or_default() += 1;
    }
    counts
}
