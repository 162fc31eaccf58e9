//! The checks of debug builds: who holds which locks, in which order they are asked for, and who is told.
//!
//! Owns, in debug builds, the locks each task or thread holds, the order graph, and the sinks of reports. A release build
//! calls none of it. No lock of it is held while a sink or anything foreign runs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::holders::{Access, Hold};
use super::order::{Gate, Graph};
use super::place::{FREE, Head, Holder, UNKNOWN};
use super::report::{Order, Report, Taken};
use crate::clock::{self, Instant};
use crate::ctx::Ctx;
use crate::tasks;

/// Whether this build checks.
pub(super) const ON: bool = cfg!(debug_assertions);

/// Holders that a report names beside the oldest.
const MAX_OTHERS: usize = 7;
/// Findings that one sink has been told; what comes after is not told.
const MAX_FINDINGS: usize = 1_024;

/// What a debug build checks in some part of the program, and whom it tells.
///
/// Without any, the whole program is checked with [`Checks::new`], and findings go to `tracing::warn!`. A release build
/// has no checks: there it costs nothing, and nobody is told.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::sync::{Arc, mpsc};
/// use forebay_flow::{Ctx, lock::{Checks, Mutex}};
/// let (ctx, (tell, told)) = (Ctx::root("app"), mpsc::sync_channel(8));
/// let _checked = Checks::new().report_to(&ctx, move |report| tell.send(report.to_string()).unwrap());
///
/// let accounts = Arc::new((Mutex::new("savings", 10), Mutex::new("current", 0)));
/// ctx.spawn("deposit", {
///     let accounts = Arc::clone(&accounts);
///     async move { drop((accounts.0.lock().await, accounts.1.lock().await)) }
/// }).join().await.unwrap();
/// ctx.spawn("withdraw", async move {
///     let current = accounts.1.lock().await; // the other way round: one day the two meet
///     drop((current, accounts.0.lock().await));
/// }).join().await.unwrap();
///
/// if cfg!(debug_assertions) {
///     assert!(told.try_recv().unwrap().starts_with("locks are taken in orders that can deadlock"));
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    orders: bool,
    relocks: bool,
    long_wait: Option<Duration>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl Checks {
    /// Orders, locks taken again, and waits beyond ten seconds.
    #[must_use]
    pub const fn new() -> Self {
        Self { orders: true, relocks: true, long_wait: Some(Duration::from_secs(10)) }
    }

    /// None of them.
    #[must_use]
    pub const fn off() -> Self {
        Self { orders: false, relocks: false, long_wait: None }
    }

    /// Whether orders are checked.
    #[must_use]
    pub const fn orders(self, orders: bool) -> Self {
        Self { orders, ..self }
    }

    /// Whether one is told of a lock that is taken again by who holds it.
    #[must_use]
    pub const fn relocks(self, relocks: bool) -> Self {
        Self { relocks, ..self }
    }

    /// From when on a wait is long; never with `None`.
    ///
    /// # Choosing a bound
    /// Longer than the longest work done under any lock: for locks around memory a second is much.
    #[must_use]
    pub const fn long_wait(self, limit: Option<Duration>) -> Self {
        Self { long_wait: limit, ..self }
    }

    /// Checks the tasks and threads below `ctx` like this, and tells `sink` each finding once, until the handle drops.
    /// Where two such contexts are one above the other, the later call counts. `sink` runs in the task or thread that
    /// found it, after at most 1,024 findings no more.
    pub fn report_to(self, ctx: &Ctx, sink: impl Fn(&Report) + Send + Sync + 'static) -> Checked {
        let scope = Arc::new(Scope { checks: self, sink: Box::new(sink), told: Mutex::default() });
        if ON {
            SCOPES.lock().push((ctx.clone(), Arc::clone(&scope)));
        }
        Checked { scope }
    }
}

/// Keeps the checks of [`Checks::report_to`] in force.
#[must_use = "the checks hold until this is dropped"]
pub struct Checked {
    scope: Arc<Scope>,
}

impl Drop for Checked {
    fn drop(&mut self) {
        let gone = {
            let mut scopes = SCOPES.lock();
            let at = scopes.iter().position(|(_, scope)| Arc::ptr_eq(scope, &self.scope));
            at.map(|at| scopes.remove(at))
        };
        drop(gone);
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("checks", &self.scope.checks).finish_non_exhaustive()
    }
}

type Finding = (u8, Vec<&'static Location<'static>>);

struct Scope {
    checks: Checks,
    sink: Box<dyn Fn(&Report) + Send + Sync>,
    told: Mutex<HashSet<Finding>>,
}

impl Scope {
    fn tell(&self, report: &Report) {
        let wanted = match report {
            Report::Inversion { .. } => self.checks.orders,
            Report::Relock { .. } | Report::Reread { .. } => self.checks.relocks,
            Report::LongWait { .. } => self.checks.long_wait.is_some(),
        };
        if !wanted {
            return;
        }
        let mut told = self.told.lock();
        if told.len() < MAX_FINDINGS && told.insert(report.places()) {
            drop(told);
            (self.sink)(report);
        }
    }
}

static SCOPES: Mutex<Vec<(Ctx, Arc<Scope>)>> = Mutex::new(Vec::new());

static ELSEWHERE: LazyLock<Arc<Scope>> = LazyLock::new(|| {
    Arc::new(Scope {
        checks: Checks::new(),
        sink: Box::new(|report| tracing::warn!("{report}")),
        told: Mutex::default(),
    })
});

/// The checks that hold where this runs.
fn scope() -> Arc<Scope> {
    let owner = tasks::current_owner();
    let scopes = SCOPES.lock();
    let below = |ctx: &Ctx| owner.as_ref().is_some_and(|own| own.descends_from(ctx.node().id()));
    let found = scopes.iter().rev().find(|(ctx, _)| below(ctx));
    found.map_or_else(|| Arc::clone(&ELSEWHERE), |(_, scope)| Arc::clone(scope))
}

/// From when on a wait that begins here is long.
pub(super) fn long_wait() -> Option<Duration> {
    scope().checks.long_wait
}

/// The id to show for a holder, and its name with where it was spawned.
pub(super) fn who(id: u64) -> (u64, String) {
    match tasks::info(id) {
        Some(info) => (id, format!("{}/{} (spawned at {})", info.parent, info.name, info.location)),
        None => (0, "someone in no registry".to_owned()),
    }
}

#[derive(Clone, Copy)]
struct Held {
    lock: u64,
    taken: Taken,
}

impl Held {
    fn gate(&self) -> Gate {
        Gate { lock: self.lock, shared: self.taken.access == Access::Read }
    }
}

#[derive(Default)]
struct Tracker {
    held: HashMap<u64, Vec<Held>>,
    orders: Graph,
}

static TRACKER: LazyLock<Mutex<Tracker>> = LazyLock::new(Mutex::default);

fn nameable(owner: u64) -> bool {
    owner != FREE && owner != UNKNOWN
}

fn taken_as(head: &Head, access: Access, at: &'static Location<'static>) -> Taken {
    Taken { lock: head.place.name, made_at: head.place.made_at, access, taken_at: at }
}

/// `owner` asks for the lock and will wait for it.
pub(super) fn asks(head: &Head, owner: u64, access: Access, at: &'static Location<'static>) {
    if !nameable(owner) {
        return;
    }
    let (held, news) = {
        let tracker = TRACKER.lock();
        let Some(held) = tracker.held.get(&owner) else { return };
        let news = held
            .iter()
            .filter(|held| held.lock != head.id)
            .any(|first| !tracker.orders.knows(first.lock, head.id, &gates(held, first.lock)));
        let reads = |held: &Held| held.lock == head.id && held.taken.access == Access::Read;
        let rereads = access == Access::Read && held.iter().any(reads);
        if !news && !rereads {
            return;
        }
        (held.clone(), news)
    };
    let then = taken_as(head, access, at);
    if access == Access::Read
        && let Some(hold) = head.hold_of(owner)
        && hold.access == Access::Read
    {
        let (held, who) = (since(hold.since), who(owner).1);
        scope().tell(&Report::Reread { lock: then, held_at: hold.at, held, who });
    }
    if news {
        ordered(&held, head.id, then, owner);
    }
}

/// Writes down that `lock` was asked for, as `then`, by one who holds `held`; tells of the rings this closes.
fn ordered(held: &[Held], lock: u64, then: Taken, owner: u64) {
    let (_, who) = who(owner);
    let mut rings = Vec::new();
    let mut tracker = TRACKER.lock();
    for first in held.iter().filter(|held| held.lock != lock) {
        let order = Order { first: first.taken, then, who: who.clone() };
        rings.extend(tracker.orders.add(first.lock, lock, &gates(held, first.lock), order));
    }
    drop(tracker);
    for orders in rings {
        scope().tell(&Report::Inversion { orders });
    }
}

fn gates(held: &[Held], but: u64) -> Vec<Gate> {
    held.iter().filter(|held| held.lock != but).map(Held::gate).collect()
}

fn since(then: Instant) -> Duration {
    clock::now().saturating_duration_since(then)
}

/// `owner` has got the lock.
pub(super) fn taken(head: &Head, owner: u64, access: Access, at: &'static Location<'static>) {
    if nameable(owner) {
        let held = Held { lock: head.id, taken: taken_as(head, access, at) };
        TRACKER.lock().held.entry(owner).or_default().push(held);
    }
}

/// `owner`, who had it, lets it go.
pub(super) fn released(head: &Head, owner: u64) {
    TRACKER.lock().forget(owner, head.id);
}

/// The lock is gone; a guard that was forgotten never let it go.
pub(super) fn gone(lock: u64, holds: &[Hold]) {
    let mut tracker = TRACKER.lock();
    holds.iter().for_each(|hold| tracker.forget(hold.by, lock));
    tracker.orders.remove(lock);
}

impl Tracker {
    /// One hold of it.
    fn forget(&mut self, owner: u64, lock: u64) {
        if let Some(held) = self.held.get_mut(&owner) {
            if let Some(at) = held.iter().rposition(|held| held.lock == lock) {
                held.remove(at);
            }
            if held.is_empty() {
                self.held.remove(&owner);
            }
        }
    }
}

/// `owner` asks for a lock that it holds.
pub(super) fn relocked(
    head: &Head,
    owner: u64,
    access: Access,
    at: &'static Location<'static>,
) -> Option<Report> {
    let hold = head.hold_of(owner)?;
    let (held, who) = (since(hold.since), who(owner).1);
    let lock = taken_as(head, access, at);
    let report = Report::Relock { lock, held_at: hold.at, held, who };
    scope().tell(&report);
    Some(report)
}

/// `owner` has waited for the lock since `began`, which is long. False when nobody holds it: whoever did just left.
pub(super) fn waited(
    head: &Head,
    owner: u64,
    access: Access,
    at: &'static Location<'static>,
    began: Instant,
) -> bool {
    let holds = head.holds();
    let Some(oldest) = holds.first() else { return false };
    if nameable(owner) && holds.iter().any(|hold| hold.by == owner) {
        return relocked(head, owner, access, at).is_some();
    }
    scope().tell(&Report::LongWait {
        lock: taken_as(head, access, at),
        who: who(owner).1,
        waited: since(began),
        holder: who(oldest.by).1,
        held_at: oldest.at,
        held: since(oldest.since),
        others: holds.iter().skip(1).take(MAX_OTHERS).map(Holder::of).collect(),
    });
    true
}
