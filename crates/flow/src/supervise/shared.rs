//! What a supervisor shares with its children and its handles: an inbox, and a picture of itself to read.
//!
//! Owns the inbox (at most three events per instance, and a bounded number of requests) and the picture. The supervisor
//! alone takes from the inbox and paints the picture; reading the picture never waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::handle::Counts;
use super::inbox::Inbox;
use super::life::LifeId;
use super::machine::Answer;
use super::plan::{Plan, Strategy};
use super::report::ExitReason;
use super::slots::Slot;
use super::spec::Spec;
use crate::clock::{self, Instant};
use crate::ctx::StartInfo;
use crate::tasks::Name;

/// Requests that may wait for a supervisor before or while it is busy; who comes after them waits for room.
const MAX_REQUESTS: usize = 1024;

static ROOTS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Every running supervisor that has no supervisor above it, with all below.
#[must_use]
pub fn tree() -> Vec<Node> {
    let roots: Vec<_> = ROOTS.lock().iter().filter_map(Weak::upgrade).collect();
    roots.iter().filter(|root| root.is_running()).map(|root| root.node()).collect()
}

/// A supervisor or a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// It has children of its own.
    Supervisor,
    /// It does the work.
    Worker,
}

impl NodeKind {
    /// `supervisor` or `worker`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Worker => "worker",
        }
    }
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// Spawned, not yet ready.
    Starting,
    /// Up.
    Running,
    /// Down, to be started again after a pause.
    Restarting,
    /// Told to end, still alive.
    Stopping,
    /// Down, and staying so.
    Stopped,
}

impl ChildState {
    /// The state's name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// One node of the tree, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// The child's name.
    pub name: String,
    /// Supervisor or worker.
    pub kind: NodeKind,
    /// A supervisor's strategy.
    pub strategy: Option<Strategy>,
    /// Where it is in its life.
    pub state: ChildState,
    /// Which of its lives this is, from 1: two readings with the same number saw the same instance. 0 before the first.
    pub life: u64,
    /// Whether it promised a heartbeat and is silent.
    pub stuck: bool,
    /// How often it was restarted.
    pub restarts: u64,
    /// When it came into its state.
    pub since: Instant,
    /// How its last instance ended.
    pub last_exit: Option<ExitReason>,
    /// A supervisor's children, in the order of start.
    pub children: Vec<Node>,
}

/// What children tell their supervisor.
#[derive(Debug)]
pub(super) enum Told {
    Ready(LifeId, Option<StartInfo>),
    /// Its own task is over.
    Exited(LifeId, ExitReason),
    /// What it had spawned is over, too, or cannot be waited for.
    Swept(LifeId, ExitReason),
}

/// What handles ask of it. Dropped, it is refused.
pub(super) struct Request {
    pub(super) what: What,
    pub(super) reply: oneshot::Sender<Answer>,
}

pub(super) enum What {
    Start(Box<Spec>),
    Terminate(String),
    Restart(String),
    Delete(String),
    Remove(u64),
    Reconfigure(Box<Plan>),
}

pub(crate) struct Shared {
    name: Name,
    pub(super) inbox: Inbox<Told, Request>,
    picture: Mutex<Picture>,
}

struct Picture {
    strategy: Strategy,
    since: Instant,
    children: BTreeMap<u64, View>,
    by_name: HashMap<Name, u64>,
    counts: Counts,
    /// No child has had this number, or a higher one.
    next_seq: u64,
}

/// One child, as painted by its supervisor.
pub(super) struct View {
    name: Name,
    kind: NodeKind,
    nested: Option<Arc<Shared>>,
    state: ChildState,
    life: u64,
    stuck: bool,
    restarts: u64,
    since: Instant,
    last_exit: Option<ExitReason>,
}

impl Shared {
    pub(super) fn new(name: Name, strategy: Strategy) -> Arc<Self> {
        let picture = Picture {
            strategy,
            since: clock::now(),
            children: BTreeMap::new(),
            by_name: HashMap::new(),
            counts: Counts::default(),
            next_seq: 0,
        };
        Arc::new(Self { name, inbox: Inbox::new(MAX_REQUESTS), picture: Mutex::new(picture) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn enter_roots(self: &Arc<Self>) {
        let mut roots = ROOTS.lock();
        roots.retain(|root| root.strong_count() > 0);
        roots.push(Arc::downgrade(self));
    }

    /// Begins a run and says from which number on children are new; `None` when one is under way.
    pub(super) fn begin(&self) -> Option<u64> {
        if !self.inbox.begin() {
            return None;
        }
        let mut picture = self.picture.lock();
        picture.since = clock::now();
        picture.children.clear();
        picture.by_name.clear();
        picture.counts = Counts::default();
        Some(picture.next_seq)
    }

    /// Ends a run: what was asked and not served is refused, and so is all that comes later.
    pub(super) fn end(&self) {
        drop(self.inbox.end());
        let mut picture = self.picture.lock();
        picture.since = clock::now();
        for child in picture.children.values_mut() {
            child.state = ChildState::Stopped;
        }
        picture.counts.active = 0;
    }

    pub(super) fn is_running(&self) -> bool {
        self.inbox.is_running()
    }

    pub(super) fn set_strategy(&self, strategy: Strategy) {
        self.picture.lock().strategy = strategy;
    }

    pub(super) fn paint(&self, seq: u64, view: View) {
        let mut picture = self.picture.lock();
        picture.next_seq = picture.next_seq.max(seq + 1);
        picture.counts.add(&view);
        let name = view.name.clone();
        match picture.children.insert(seq, view) {
            Some(old) => picture.counts.take_off(&old),
            None => drop(picture.by_name.insert(name, seq)),
        }
    }

    pub(super) fn erase(&self, seq: u64) {
        let mut picture = self.picture.lock();
        picture.next_seq = picture.next_seq.max(seq + 1);
        if let Some(old) = picture.children.remove(&seq) {
            picture.by_name.remove(&old.name);
            picture.counts.take_off(&old);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.picture.lock().counts
    }

    /// The number of the child called `name`.
    pub(super) fn seq_of(&self, name: &str) -> Option<u64> {
        self.picture.lock().by_name.get(name).copied()
    }

    pub(super) fn node(&self) -> Node {
        let running = self.is_running();
        let picture = self.picture.lock();
        Node {
            name: self.name.to_string(),
            kind: NodeKind::Supervisor,
            strategy: Some(picture.strategy),
            state: if running { ChildState::Running } else { ChildState::Stopped },
            life: 0,
            stuck: false,
            restarts: 0,
            since: picture.since,
            last_exit: None,
            children: picture.children.values().map(View::node).collect(),
        }
    }
}

impl Counts {
    fn add(&mut self, view: &View) {
        self.specs += 1;
        self.active += usize::from(view.is_active());
        self.supervisors += usize::from(view.kind == NodeKind::Supervisor);
        self.workers += usize::from(view.kind == NodeKind::Worker);
    }

    fn take_off(&mut self, view: &View) {
        self.specs -= 1;
        self.active -= usize::from(view.is_active());
        self.supervisors -= usize::from(view.kind == NodeKind::Supervisor);
        self.workers -= usize::from(view.kind == NodeKind::Worker);
    }
}

impl View {
    pub(super) fn new(slot: &Slot, nested: Option<Arc<Shared>>) -> Self {
        Self {
            name: slot.rules.name.clone(),
            kind: slot.rules.kind,
            nested,
            state: slot.phase.shown(),
            life: slot.run,
            stuck: slot.stuck,
            restarts: slot.restarts,
            since: slot.since,
            last_exit: slot.last_exit.clone(),
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.state, ChildState::Starting | ChildState::Running | ChildState::Stopping)
    }

    fn node(&self) -> Node {
        let below = self.nested.as_ref().map(|shared| shared.node());
        Node {
            name: self.name.to_string(),
            kind: self.kind,
            strategy: below.as_ref().and_then(|node| node.strategy),
            state: self.state,
            life: self.life,
            stuck: self.stuck,
            restarts: self.restarts,
            since: self.since,
            last_exit: self.last_exit.clone(),
            children: below.map(|node| node.children).unwrap_or_default(),
        }
    }
}
