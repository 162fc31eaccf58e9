//! The registry of live queues.
//!
//! Owns weak references only: a queue leaves when its last half is dropped.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::core::Shared;

/// One live queue, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueInfo {
    /// Its name; several queues may share one.
    pub name: String,
    /// `items` or `bytes`.
    pub unit: &'static str,
    /// The bound in that unit.
    pub capacity: u64,
    /// What it holds now in that unit (in bytes, with the room granted to submitters about to send).
    pub depth: u64,
    /// Items in it now.
    pub items: usize,
    /// What it does when full.
    pub policy: &'static str,
    /// Submitters waiting in line.
    pub waiters: usize,
    /// Receivers waiting for an item.
    pub receivers_waiting: usize,
    /// Whether it is closed.
    pub closed: bool,
    /// Items accepted so far.
    pub sent: u64,
    /// Submits that had to wait so far.
    pub blocked: u64,
    /// Seconds they waited in sum, those still waiting included.
    pub blocked_seconds: f64,
    /// Items dropped so far: by policy, or left when the last receiver went.
    pub dropped: u64,
    /// Submits refused so far, full or too heavy.
    pub rejected: u64,
    /// Items shed by priority so far.
    pub shed: u64,
    /// Why this bound and policy.
    pub why: &'static str,
}

trait Watched: Send + Sync {
    fn info(&self) -> QueueInfo;
}

impl<T: Send> Watched for Shared<T> {
    fn info(&self) -> QueueInfo {
        self.info()
    }
}

static QUEUES: Mutex<Vec<Weak<dyn Watched>>> = Mutex::new(Vec::new());

pub(super) fn register<T: Send + 'static>(shared: &Arc<Shared<T>>) {
    let weak = Arc::downgrade(shared);
    let mut queues = QUEUES.lock();
    queues.retain(|queue| queue.strong_count() > 0);
    queues.push(weak);
}

/// The process's queues.
#[derive(Clone, Copy, Debug)]
pub struct Registry;

/// The process's queues.
#[must_use]
pub fn registry() -> Registry {
    Registry
}

impl Registry {
    /// Every live queue, in the order of making. Takes each queue's lock for a moment.
    #[must_use]
    pub fn snapshot(self) -> Vec<QueueInfo> {
        let queues: Vec<_> = QUEUES.lock().iter().filter_map(Weak::upgrade).collect();
        queues.iter().map(|queue| queue.info()).collect()
    }
}
