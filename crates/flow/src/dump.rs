//! What every task is doing: grouped, in text, and on demand with real stacks.
//!
//! Owns nothing but the turn to take stacks. It never stops a task: a dump reads the registry context by context, and a stack
//! costs its task one spurious poll. It says nothing of tasks that were not started through this crate.
//!
//! Three layers, from cheap to dear: the registry (name, place, age, state), what a task waits for when that is one of
//! our own primitives, and the stack of a few idle tasks of each group.
//!
//! ```text
//! context ─lock, list─► records ─glance, a few hundred at a time─► groups ─► sorted ─► stacks of some
//!                              (and the thread is given up between)
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

pub use crate::stacks::{Frame, Stack};

use crate::clock::{self, Instant};
use crate::stacks::{self, Captured};
use crate::tasks::{self, Glance, Kind, Name, State};

/// How long a woken task may take to be polled: what is busy for longer shows as running.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// At most this many stacks in one dump, whatever is asked for.
pub const MAX_STACKS: usize = 64;

/// At most this many stacks of one group.
pub const MAX_STACKS_PER_GROUP: usize = 8;

/// From this many groups on, tasks with new names are counted under [`VARIOUS`], by place: names may be made at run time
/// without end, places are bounded by the program's text.
pub const MAX_NAMED_GROUPS: usize = 1024;

/// The name of a group of many names.
pub const VARIOUS: &str = "(various)";

/// How many tasks [`gather`] looks at before it gives the thread up: some ten microseconds.
const SLICE: usize = 128;

/// One dump's stacks at a time; the next waits, so callers cannot multiply the polls.
#[expect(clippy::disallowed_methods, reason = "a lock between dumps, which wait for nothing else")]
static TURN: Semaphore = Semaphore::const_new(1);

/// Tasks that were spawned at one place under one name and do the same thing now.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name given at spawn, or [`VARIOUS`].
    pub name: Name,
    /// Task or thread.
    pub kind: Kind,
    /// Where they were spawned.
    pub location: &'static Location<'static>,
    /// Running or idle.
    pub state: State,
    /// What they wait for, when that is one of our own primitives: ``queue `uploads` ``.
    pub waiting_on: Option<String>,
    /// How many they are.
    pub count: usize,
    /// The age of the oldest.
    pub oldest: Duration,
    /// The longest wait among them, for `waiting_on`.
    pub longest_wait: Option<Duration>,
    /// The longest running poll among them, in real time. Seconds here mean a task that blocks its thread.
    pub longest_poll: Option<Duration>,
    /// Where some of them stand; empty until [`Dump::add_stacks`].
    pub stacks: Vec<Stack>,
    /// How many are older than the census asked for.
    pub(crate) settled: usize,
    /// The first few by id, to ask for stacks.
    sample: Vec<u64>,
}

/// Every task and thread of the process, grouped; the largest group first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dump {
    /// How many tasks and threads live.
    pub tasks: usize,
    /// The groups.
    pub groups: Vec<Group>,
}

/// Groups all live tasks and threads, in one go on the calling thread: some tens of milliseconds for 100,000 of them. From
/// a task prefer [`gather`], which gives its thread up in between; this one is for threads, and for a runtime that hangs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, dump};
/// let ctx = Ctx::root("app");
/// let idle: Vec<_> = (0..3).map(|_| ctx.spawn("idle", std::future::pending::<()>())).collect();
/// let dump = dump::take();
/// let group = dump.groups.iter().find(|group| group.name == "idle").unwrap();
/// assert_eq!(group.count, 3);
/// assert!(dump.to_string().contains("3 × idle"));
/// # }
/// ```
#[must_use]
pub fn take() -> Dump {
    let mut census = Census::new(Duration::ZERO);
    tasks::slices().flatten().for_each(|record| census.add(record.glance()));
    census.finish()
}

/// As [`take`], and lets other tasks run after every few tasks it has looked at: nobody waits for it longer than for any
/// other well-behaved task. What is spawned or ends meanwhile may be in it or not.
///
/// # Cancel safety
/// Dropped, it has looked and no more.
///
/// # Panics
/// Outside of a Tokio runtime.
pub async fn gather() -> Dump {
    gather_settled(Duration::ZERO).await
}

/// As [`gather`]; each group's `settled` counts those at least as old as `age`.
pub(crate) async fn gather_settled(age: Duration) -> Dump {
    let mut census = Census::new(age);
    for records in tasks::slices() {
        // Let go as they are looked at, too: all listed at once would take as long as to list them.
        let mut records = records.into_iter();
        loop {
            records.by_ref().take(SLICE).for_each(|record| census.add(record.glance()));
            tokio::task::yield_now().await;
            if records.len() == 0 {
                break;
            }
        }
    }
    census.finish()
}

impl Dump {
    /// Adds the stacks of up to `per_group` idle tasks of each group, [`MAX_STACKS`] in all, the groups in order: leave
    /// groups off first to see more of the others.
    ///
    /// Each of these tasks is woken and polled once more than it would have been. Symbols are read on a thread for
    /// blocking work, which takes some hundred milliseconds the first time. A task that is not polled within a second has
    /// none. One dump of the process takes stacks at a time, the next waits.
    ///
    /// # Cancel safety
    /// Dropped, it adds no stacks; tasks that were asked already still get their one poll.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn add_stacks(&mut self, per_group: usize) {
        let idle = self.groups.iter().enumerate().filter(|(_, group)| group.state == State::Idle);
        let ids = idle
            .flat_map(|(at, group)| group.sample.iter().take(per_group).map(move |id| (at, *id)));
        let ids: Vec<_> = ids.take(MAX_STACKS).collect();
        for (at, stack) in stacks_of(ids).await {
            if let Some(group) = self.groups.get_mut(at) {
                group.stacks.push(stack);
            }
        }
    }
}

/// Where tasks stand, each under the key it was asked with. Those that cannot tell, or not in time, are missing.
pub(crate) async fn stacks_of<K: Send + 'static>(ids: Vec<(K, u64)>) -> Vec<(K, Stack)> {
    if ids.is_empty() {
        return Vec::new();
    }
    // The semaphore is never closed; without a turn there would only be more polls at once.
    let _turn = TURN.acquire().await;
    let mut answers = ask(ids.iter().map(|(_, id)| *id).collect()).await;
    let asked = ids.into_iter().filter_map(|(key, id)| Some((key, id, answers.remove(&id)?)));
    let asked: Vec<_> = asked.collect();
    let deadline = clock::now() + ANSWER_WITHIN;
    let mut captured = Vec::new();
    for (key, id, answer) in asked {
        if let Ok(Ok(answer)) = tokio::time::timeout_at(deadline, answer).await {
            captured.push((key, id, answer));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "one at a time, bounded by MAX_STACKS")]
    let read = tokio::task::spawn_blocking(move || {
        captured.into_iter().map(|(key, id, captured)| (key, stacks::read(id, &captured))).collect()
    });
    // It fails only when the runtime is shutting down: then there are no stacks.
    read.await.unwrap_or_default()
}

impl Group {
    /// Keeps the first few by id.
    fn sample(&mut self, id: u64) {
        if self.sample.len() < MAX_STACKS_PER_GROUP {
            self.sample.push(id);
        } else if let Some(last) = self.sample.iter_mut().max()
            && id < *last
        {
            *last = id;
        }
    }
}

/// Asks those of the tasks that live where they stand.
async fn ask(mut wanted: HashSet<u64>) -> HashMap<u64, oneshot::Receiver<Captured>> {
    let mut answers = HashMap::new();
    for records in tasks::slices() {
        let asked = records.iter().filter(|record| wanted.remove(&record.id()));
        answers.extend(asked.filter_map(|record| Some((record.id(), record.ask()?))));
        if wanted.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    answers
}

type Key = (Name, Kind, &'static Location<'static>, State, Option<(&'static str, Arc<str>)>);

/// The groups as they are being counted.
struct Census {
    now: Instant,
    settled_age: Duration,
    tasks: usize,
    groups: HashMap<Key, Group>,
    various: Arc<str>,
}

impl Census {
    fn new(settled_age: Duration) -> Self {
        let (groups, various) = (HashMap::new(), Arc::from(VARIOUS));
        Self { now: clock::now(), settled_age, tasks: 0, groups, various }
    }

    fn add(&mut self, glance: Glance) {
        let Glance { id, name, kind, location, state, created, waiting, running } = glance;
        self.tasks += 1;
        let age = self.now.saturating_duration_since(created);
        let (wait, waited) = match waiting {
            Some((what, name, since)) => {
                (Some((what, name)), Some(self.now.saturating_duration_since(since)))
            }
            None => (None, None),
        };
        let mut key = (name, kind, location, state, wait);
        if self.groups.len() >= MAX_NAMED_GROUPS && !self.groups.contains_key(&key) {
            key.0 = Name::Borrowed(VARIOUS);
            key.4 = key.4.map(|(what, _)| (what, Arc::clone(&self.various)));
        }
        let group = self.groups.entry(key).or_insert_with_key(Group::new);
        group.count += 1;
        group.settled += usize::from(age >= self.settled_age);
        group.oldest = group.oldest.max(age);
        group.longest_wait = group.longest_wait.max(waited);
        group.longest_poll = group.longest_poll.max(running);
        group.sample(id);
    }

    fn finish(self) -> Dump {
        let mut groups: Vec<_> = self.groups.into_values().collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.oldest.cmp(&a.oldest)));
        Dump { tasks: self.tasks, groups }
    }
}

impl Group {
    fn new((name, kind, location, state, wait): &Key) -> Self {
        Self {
            name: name.clone(),
            kind: *kind,
            location,
            state: *state,
            waiting_on: wait.as_ref().map(|(what, name)| format!("{what} `{name}`")),
            count: 0,
            oldest: Duration::ZERO,
            longest_wait: None,
            longest_poll: None,
            stacks: Vec::new(),
            settled: 0,
            sample: Vec::new(),
        }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tasks in {} groups", self.tasks, self.groups.len())?;
        let largest = self.groups.iter().map(|group| group.count).max().unwrap_or_default();
        let width = largest.to_string().len();
        self.groups.iter().try_for_each(|group| write!(f, "\n{group:width$}"))
    }
}

/// A width aligns the count with those of other groups.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:width$} × {} [", self.count, self.name, width = f.width().unwrap_or(0))?;
        match (&self.waiting_on, self.longest_wait, self.longest_poll, self.state) {
            (Some(what), Some(wait), ..) => write!(f, "waiting on {what} for {}", short(wait))?,
            (_, _, Some(poll), State::Running) => write!(f, "running for {}", short(poll))?,
            (.., State::Running) => f.write_str("running")?,
            (.., State::Idle) => f.write_str("idle")?,
        }
        let kind = match self.kind {
            Kind::Task => "",
            Kind::Thread => ", thread",
        };
        writeln!(f, ", oldest {}{kind}]", short(self.oldest))?;
        writeln!(f, "    spawned at {}", self.location)?;
        for stack in &self.stacks {
            writeln!(f, "  task {}:", stack.task)?;
            if stack.leaves.is_empty() {
                writeln!(f, "    no leaf kept a waker")?;
            }
            for (at, frame) in stack.leaves.iter().flat_map(|leaf| leaf.iter().enumerate()) {
                writeln!(f, "    {} {frame}", if at == 0 { "-" } else { " " })?;
            }
            if stack.more > 0 {
                writeln!(f, "    and {} leaves more", stack.more)?;
            }
        }
        Ok(())
    }
}

/// To the millisecond below a second, to the second above.
fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}
