//! What a supervisor shares with its children and its handles: an inbox, and a picture of itself to read.
//!
//! Owns the inbox (at most two events per instance, and a bounded number of requests) and the picture. The supervisor
//! alone takes from the inbox and paints the picture; nothing here waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::handle::{ControlError, StartError};
use super::report::ExitReason;
use super::spec::{Spec, Strategy};
use crate::clock::{self, Instant};
use crate::tasks::Name;

/// Requests that may wait before or while it is busy.
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
pub struct Node {
    /// The child's name.
    pub name: String,
    /// Supervisor or worker.
    pub kind: NodeKind,
    /// A supervisor's strategy.
    pub strategy: Option<Strategy>,
    /// Where it is in its life.
    pub state: ChildState,
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
pub(super) enum Event {
    Ready { seq: u64, run: u64 },
    Exited { seq: u64, run: u64, reason: ExitReason },
}

type Reply<E> = oneshot::Sender<Result<(), E>>;

/// What handles ask of it.
pub(super) enum Request {
    Start(Box<Spec>, Reply<StartError>),
    Terminate(String, Reply<ControlError>),
    Restart(String, Reply<ControlError>),
    Delete(String, Reply<ControlError>),
}

impl Request {
    fn refuse(self) {
        // Whoever asked may have gone.
        match self {
            Self::Start(_, reply) => drop(reply.send(Err(StartError::NotRunning))),
            Self::Terminate(_, reply) | Self::Restart(_, reply) | Self::Delete(_, reply) => {
                drop(reply.send(Err(ControlError::NotRunning)));
            }
        }
    }
}

pub(super) enum Input {
    Event(Event),
    Request(Request),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Stopped,
}

pub(crate) struct Shared {
    name: Name,
    strategy: Strategy,
    inbox: Mutex<Inbox>,
    arrived: Notify,
    picture: Mutex<Picture>,
}

struct Inbox {
    phase: Phase,
    events: VecDeque<Event>,
    requests: VecDeque<Request>,
}

struct Picture {
    since: Instant,
    children: BTreeMap<u64, View>,
}

/// One child, as painted by its supervisor.
pub(super) struct View {
    pub(super) name: Name,
    pub(super) kind: NodeKind,
    pub(super) nested: Option<Arc<Shared>>,
    pub(super) state: ChildState,
    pub(super) restarts: u64,
    pub(super) since: Instant,
    pub(super) last_exit: Option<ExitReason>,
}

impl Shared {
    pub(super) fn new(name: Name, strategy: Strategy) -> Arc<Self> {
        let inbox = Inbox { phase: Phase::New, events: VecDeque::new(), requests: VecDeque::new() };
        let picture = Picture { since: clock::now(), children: BTreeMap::new() };
        Arc::new(Self {
            name,
            strategy,
            inbox: Mutex::new(inbox),
            arrived: Notify::new(),
            picture: Mutex::new(picture),
        })
    }

    pub(super) fn enter_roots(self: &Arc<Self>) {
        let mut roots = ROOTS.lock();
        roots.retain(|root| root.strong_count() > 0);
        roots.push(Arc::downgrade(self));
    }

    /// Begins a run; false when one is under way.
    pub(super) fn begin(&self) -> bool {
        let mut inbox = self.inbox.lock();
        if inbox.phase == Phase::Running {
            return false;
        }
        inbox.phase = Phase::Running;
        inbox.events.clear();
        drop(inbox);
        *self.picture.lock() = Picture { since: clock::now(), children: BTreeMap::new() };
        true
    }

    /// Ends a run: what was asked and not served is refused, and so is all that comes later.
    pub(super) fn end(&self) {
        let mut inbox = self.inbox.lock();
        inbox.phase = Phase::Stopped;
        inbox.events.clear();
        let requests = std::mem::take(&mut inbox.requests);
        drop(inbox);
        requests.into_iter().for_each(Request::refuse);
        let mut picture = self.picture.lock();
        picture.since = clock::now();
        for child in picture.children.values_mut() {
            child.state = ChildState::Stopped;
        }
    }

    fn is_running(&self) -> bool {
        self.inbox.lock().phase == Phase::Running
    }

    pub(super) fn tell(&self, event: Event) {
        let mut inbox = self.inbox.lock();
        if inbox.phase == Phase::Running {
            inbox.events.push_back(event);
            drop(inbox);
            self.arrived.notify_one();
        }
    }

    /// Hands a request in. It waits in the inbox when the run has not begun; it is refused when the run is over.
    pub(super) fn ask(&self, request: Request) {
        let mut inbox = self.inbox.lock();
        if inbox.phase == Phase::Stopped || inbox.requests.len() >= MAX_REQUESTS {
            drop(inbox);
            request.refuse();
            return;
        }
        inbox.requests.push_back(request);
        drop(inbox);
        self.arrived.notify_one();
    }

    /// The next event, or request if there is no event. Cancel safe. Only the supervisor calls it.
    pub(super) fn next(&self) -> impl Future<Output = Input> {
        self.take(|inbox| {
            let event = inbox.events.pop_front().map(Input::Event);
            event.or_else(|| inbox.requests.pop_front().map(Input::Request))
        })
    }

    /// The next event. Cancel safe.
    pub(super) fn next_event(&self) -> impl Future<Output = Event> {
        self.take(|inbox| inbox.events.pop_front())
    }

    /// The next event, or a request to terminate the child `name`. Cancel safe.
    pub(super) fn next_event_or_terminate(&self, name: &str) -> impl Future<Output = Input> {
        self.take(move |inbox| {
            if let Some(event) = inbox.events.pop_front() {
                return Some(Input::Event(event));
            }
            let place = inbox
                .requests
                .iter()
                .position(|r| matches!(r, Request::Terminate(who, _) if who == name))?;
            inbox.requests.remove(place).map(Input::Request)
        })
    }

    async fn take<T>(&self, mut pick: impl FnMut(&mut Inbox) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(&mut self.inbox.lock()) {
                return found;
            }
            // One taker and a stored permit: what arrives before the wait ends it.
            self.arrived.notified().await;
        }
    }

    pub(super) fn paint(&self, seq: u64, view: View) {
        self.picture.lock().children.insert(seq, view);
    }

    pub(super) fn erase(&self, seq: u64) {
        self.picture.lock().children.remove(&seq);
    }

    pub(super) fn node(&self) -> Node {
        let picture = self.picture.lock();
        Node {
            name: self.name.to_string(),
            kind: NodeKind::Supervisor,
            strategy: Some(self.strategy),
            state: if self.is_running() { ChildState::Running } else { ChildState::Stopped },
            restarts: 0,
            since: picture.since,
            last_exit: None,
            children: picture.children.values().map(View::node).collect(),
        }
    }
}

impl View {
    fn node(&self) -> Node {
        let below = self.nested.as_ref().map(|shared| shared.node());
        Node {
            name: self.name.to_string(),
            kind: self.kind,
            strategy: below.as_ref().and_then(|node| node.strategy),
            state: self.state,
            restarts: self.restarts,
            since: self.since,
            last_exit: self.last_exit.clone(),
            children: below.map(|node| node.children).unwrap_or_default(),
        }
    }
}
