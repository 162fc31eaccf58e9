//! Tasks and threads that wait for each other for ever, found on demand and named with all that is known of them.
//!
//! Owns nothing; a watch owns what it saw at its last look. It stops and wakes nobody: it reads who waits for what, and
//! who holds that.
//!
//! | waits for | ends when | known holders |
//! |---|---|---|
//! | a [`lock`] | its holder lets go | the task or thread that took it |
//! | a [`lock`], to write | its writer or all of its readers let go | the tasks or threads that took it |
//! | a [`lock`], to read | its writer lets go; behind a writer in line, that one has been | the writer |
//! | room in a [`queue`] | any of its receivers takes an item | the tasks that last received |
//! | [slots](crate::admit::Slots), a [budget]'s bytes | any permit comes back | those who said that they keep theirs |
//!
//! Whoever waits for something else (a timer, a socket, another library's lock), or with a deadline of the lock's own, is
//! taken to go on one day, and so is a holder in no registry, and a permit that nobody said to keep: it may have been
//! handed to another task. So what is reported is a deadlock; some deadlocks are not seen. One caution: a task that waits
//! for several things at once, as in `select!` or under [`Ctx::run`], counts by the one of ours that it looked at last. Its
//! deadline or a cancel may yet free it, and one that was let into a queue a moment ago and not polled since counts as
//! waiting for it: so a [`watch`] reports only what is still so at its next look.

mod knots;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use self::knots::{Ends, Resource, Wait, knots};
use crate::budget;
use crate::clock::{self, Instant};
use crate::ctx::Ctx;
use crate::lock::{self, Access, HeldLock, Holding};
use crate::queue;
use crate::spawn::Task;
use crate::tasks::{self, Kind, Name, TaskInfo, Waits};

/// How often a [`watch`] looks where nothing speaks for another pace: every ten seconds.
pub const EVERY: Duration = Duration::from_secs(10);

/// Some tasks and threads that wait for each other. None of them will ever go on by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cycle {
    /// The tasks, as a rule each before the one it waits for; the lowest id first. A single one waits for itself.
    pub tasks: Vec<Stuck>,
    /// How many tasks more wait for these.
    pub behind: usize,
}

/// One task or thread of a cycle.
#[derive(Clone, Debug)]
pub struct Stuck {
    /// Its id in [`tasks::snapshot`].
    pub id: u64,
    /// Its name.
    pub name: Name,
    /// Task or thread.
    pub kind: Kind,
    /// The names of the contexts above it, from the root, joined by `/`.
    pub parent: String,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// How long ago it was spawned.
    pub age: Duration,
    /// What it holds and others may wait for.
    pub holds: Vec<Held>,
    /// What it waits for: ``lock `sessions` ``.
    pub waits_for: String,
    /// For how long so far.
    pub waited: Duration,
    since: Instant,
}

/// Something that a stuck task holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// What it is: ``lock `sessions` ``.
    pub what: String,
    /// Where it was taken; known of locks in debug builds.
    pub taken_at: Option<&'static Location<'static>>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.taken_at.map_or(Ok(()), |at| write!(f, " (taken at {at})"))
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Task => "task",
            Kind::Thread => "thread",
        };
        let (parent, name, id, at) = (&self.parent, &self.name, self.id, self.location);
        write!(f, "{parent}/{name} ({kind} {id}, {} old, spawned at {at})", span(self.age))?;
        for (n, held) in self.holds.iter().enumerate() {
            write!(f, "{} {held}", if n == 0 { " holds" } else { "," })?;
        }
        let and = if self.holds.is_empty() { "" } else { " and" };
        write!(f, "{and} has waited {} for {}", span(self.waited), self.waits_for)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tasks.len() {
            1 => f.write_str("one task waits for itself")?,
            n => write!(f, "{n} tasks wait for each other")?,
        }
        if self.behind > 0 {
            write!(f, ", and {} more behind them", self.behind)?;
        }
        self.tasks.iter().try_for_each(|task| write!(f, "\n  {task}"))
    }
}

/// To the millisecond below a second, to the second above.
fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}

impl Cycle {
    /// The same for the same tasks in the same waits.
    fn signature(&self) -> Vec<(u64, Instant)> {
        self.tasks.iter().map(|task| (task.id, task.since)).collect()
    }
}

/// What can be waited for, by the address of the name that waiters note and what they call it.
struct Known {
    key: usize,
    what: &'static str,
    /// What those who hold it are said to have; none is told twice.
    has: Vec<Has>,
}

struct Has {
    who: u64,
    what: &'static str,
    taken_at: Option<&'static Location<'static>>,
}

fn address(name: &Arc<str>) -> usize {
    Arc::as_ptr(name).cast::<u8>() as usize
}

/// What tasks note that wait for bytes or slots.
const BUDGET: &str = "budget";
/// What tasks note that wait for room in a queue.
const QUEUE: &str = "room in queue";

fn resources() -> Vec<(Known, Resource)> {
    let locks = lock::held().into_iter().flat_map(locked);
    let any = |what, key, holders: Vec<u64>| {
        let has = holders.iter().map(|who| Has { who: *who, what, taken_at: None }).collect();
        (Known { key, what, has }, Resource { ends: Ends::ByAny, holders })
    };
    let shares = budget::keepers();
    let shares = shares.into_iter().map(|(name, who)| any(BUDGET, address(&name), who));
    let queues = queue::drained_by().into_iter().map(|(key, who)| any(QUEUE, key, who));
    locks.chain(shares).chain(queues).collect()
}

/// A lock as what its waiters wait for: a reader-writer lock is two things.
fn locked(lock: HeldLock) -> Vec<(Known, Resource)> {
    let key = address(&lock.name);
    let has =
        |held: &Holding| Has { who: held.who, what: held.access.words(), taken_at: held.taken_at };
    let thing = |access: Access, has, holders| {
        let known = Known { key, what: access.words(), has };
        (known, Resource { ends: Ends::ByAll, holders })
    };
    let holders: Vec<_> = lock.holders.iter().map(|held| held.who).collect();
    let has = lock.holders.iter().map(has).collect();
    match lock.holders.first().map(|held| held.access) {
        None => Vec::new(),
        Some(Access::Lock) => vec![thing(Access::Lock, has, holders)],
        Some(Access::Write) => {
            let to_read = thing(Access::Read, Vec::new(), holders.clone());
            vec![thing(Access::Write, has, holders), to_read]
        }
        // Readers keep no reader out, but the writer in line does.
        Some(Access::Read) => {
            let before = lock.first_writer.into_iter().collect();
            vec![thing(Access::Write, has, holders), thing(Access::Read, Vec::new(), before)]
        }
    }
}

/// Every cycle of the process, now.
///
/// It costs two looks at every task and one at every lock, share and queue that was ever waited for: milliseconds with
/// 100,000 tasks. Not for a hot path.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use forebay_flow::{Ctx, deadlock, lock::Mutex};
/// let ctx = Ctx::root("app");
/// let locks = Arc::new((Mutex::new("east", ()), Mutex::new("west", ())));
/// let (one, two) = (Arc::clone(&locks), locks);
/// let _left = ctx.spawn("left", async move {
///     let _east = one.0.lock().await;
///     tokio::time::sleep(Duration::from_millis(10)).await;
///     drop(one.1.lock().await);
/// });
/// let _right = ctx.spawn("right", async move {
///     let _west = two.1.lock().await;
///     tokio::time::sleep(Duration::from_millis(10)).await;
///     drop(two.0.lock().await);
/// });
/// tokio::time::sleep(Duration::from_secs(1)).await;
/// let cycles = deadlock::find();
/// let (left, right) = (&cycles[0].tasks[0], &cycles[0].tasks[1]);
/// assert_eq!((left.holds[0].what.as_str(), left.waits_for.as_str()), ("lock `east`", "lock `west`"));
/// assert_eq!((right.holds[0].what.as_str(), right.waits_for.as_str()), ("lock `west`", "lock `east`"));
/// # }
/// ```
#[must_use]
pub fn find() -> Vec<Cycle> {
    look(|_| true)
}

/// As [`find`], but only cycles of which a task or thread lives below `root`: tests side by side do not see each other's.
#[must_use]
pub fn find_under(root: &Ctx) -> Vec<Cycle> {
    look(|id| tasks::is_under(id, root.node()))
}

fn look(wanted: impl Fn(u64) -> bool) -> Vec<Cycle> {
    let first = tasks::waits();
    if first.is_empty() {
        return Vec::new();
    }
    let resources = resources();
    // Who has not been polled between the two looks waited all that time, and held what it holds.
    let still: HashMap<_, _> = tasks::waits().into_iter().map(|wait| (wait.id, wait)).collect();
    let same = |a: &Waits, b: &Waits| {
        Arc::ptr_eq(&a.name, &b.name) && (a.what, a.polls, a.since) == (b.what, b.polls, b.since)
    };
    let waiting = first.into_iter().filter(|w| still.get(&w.id).is_some_and(|s| same(w, s)));
    let (known, resources): (Vec<_>, Vec<_>) = resources.into_iter().unzip();
    let at: HashMap<_, _> =
        known.iter().enumerate().map(|(at, known)| ((known.key, known.what), at)).collect();
    // Who waits for something else goes on one day.
    let waiting = waiting.filter_map(|wait| {
        let on = at.get(&(address(&wait.name), wait.what))?;
        Some((Wait { who: wait.id, on: *on }, wait))
    });
    let (waits, waiting): (Vec<_>, Vec<_>) = waiting.unzip();
    let mut knots = knots(&waits, &resources);
    knots.retain(|knot| knot.members.iter().any(|at| wanted(waits[*at].who)));
    if knots.is_empty() {
        return Vec::new();
    }
    let holds = Holds::new(&waiting, &known);
    let told = knots.iter().map(|knot| {
        let stuck = knot.members.iter().map(|at| stuck(&waiting[*at], &holds));
        // One that was killed meanwhile is no cycle any more.
        stuck.collect::<Option<_>>().map(|tasks| Cycle { tasks, behind: knot.behind })
    });
    told.flatten().collect()
}

/// What each holder holds.
struct Holds(HashMap<u64, Vec<Held>>);

impl Holds {
    fn new(waiting: &[Waits], known: &[Known]) -> Self {
        // A name is known from those who wait for it: in a cycle there is always one.
        let names: HashMap<usize, &Arc<str>> =
            waiting.iter().map(|wait| (address(&wait.name), &wait.name)).collect();
        let mut holds: HashMap<u64, Vec<Held>> = HashMap::new();
        for known in known {
            let Some(name) = names.get(&known.key) else { continue };
            for has in &known.has {
                let what = match has.what {
                    QUEUE => format!("the receiving end of queue `{name}`"),
                    what => format!("{what} `{name}`"),
                };
                holds.entry(has.who).or_default().push(Held { what, taken_at: has.taken_at });
            }
        }
        holds.values_mut().for_each(|held| held.sort_by(|a, b| a.what.cmp(&b.what)));
        Self(holds)
    }
}

fn stuck(wait: &Waits, holds: &Holds) -> Option<Stuck> {
    let TaskInfo { id, name, kind, parent, location, created, .. } = tasks::info(wait.id)?;
    let now = clock::now();
    Some(Stuck {
        id,
        name,
        kind,
        parent,
        location,
        age: now.saturating_duration_since(created),
        holds: holds.0.get(&id).cloned().unwrap_or_default(),
        waits_for: format!("{} `{}`", wait.what, wait.name),
        waited: now.saturating_duration_since(wait.since),
        since: wait.since,
    })
}

/// Looks every so often for cycles of tasks and threads below `ctx`, and hands each to `report` once: when it was there,
/// the same tasks in the same waits, at two looks in a row. The watch ends with its handle, or with `ctx`.
///
/// [`warn`] is a `report` that writes to the log. A look runs on a thread for blocking work.
///
/// # Choosing a bound
/// `every`: [`EVERY`] costs nothing to speak of. A cycle is reported between one and two of them after it closed.
///
/// # Panics
/// Outside of a Tokio runtime with a timer.
#[track_caller]
pub fn watch(ctx: &Ctx, every: Duration, report: impl Fn(&Cycle) + Send + 'static) -> Task<()> {
    let (own, under) = (ctx.clone(), ctx.clone());
    ctx.spawn("deadlock watch", async move {
        let mut seen = HashSet::new();
        let mut told = HashSet::new();
        while own.run(tokio::time::sleep(every)).await.is_ok() {
            let under = under.clone();
            // It fails only when the runtime is shutting down.
            #[expect(clippy::disallowed_methods, reason = "one look at a time, and awaited")]
            let look = tokio::task::spawn_blocking(move || find_under(&under)).await;
            let found: HashMap<_, _> = look
                .unwrap_or_default()
                .into_iter()
                .map(|cycle| (cycle.signature(), cycle))
                .collect();
            told.retain(|signature| found.contains_key(signature));
            for (signature, cycle) in &found {
                if seen.contains(signature) && told.insert(signature.clone()) {
                    report(cycle);
                }
            }
            seen = found.into_keys().collect();
        }
    })
}

/// Writes a cycle to the log, as an error.
pub fn warn(cycle: &Cycle) {
    tracing::error!("deadlock: {cycle}");
}
