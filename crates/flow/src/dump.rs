//! What every task is doing: grouped, in text, and on demand with real stacks.
//!
//! Owns nothing but the turn to take stacks. It never stops a task: a dump reads the registry shard by shard, and a stack
//! costs its task one spurious poll. It says nothing of tasks that were not started through this crate.
//!
//! Three layers, from cheap to dear: the registry (name, place, age, state), what a task waits for when that is one of
//! our queues or budgets, and the stack of a few idle tasks of each group.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use crate::stacks::{Frame, Stack};

use crate::clock::{self, Instant};
use crate::stacks;
use crate::tasks::{self, Glance, Kind, Name, State};

/// How long a woken task may take to be polled: what is busy for longer shows as running.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// At most this many stacks in one dump, whatever is asked for.
pub const MAX_STACKS: usize = 64;

/// One dump's stacks at a time; the next waits, so callers cannot multiply the polls.
#[expect(clippy::disallowed_methods, reason = "a lock between dumps, which wait for nothing else")]
static TURN: Semaphore = Semaphore::const_new(1);

/// Tasks that were spawned at one place under one name and do the same thing now.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name given at spawn.
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
    /// Where some of them stand; empty unless [`with_stacks`] asked.
    pub stacks: Vec<Stack>,
    /// The first few by id, to ask for stacks.
    sample: Vec<u64>,
}

/// Every task and thread of the process, grouped; the largest group first.
#[derive(Clone, Debug)]
pub struct Dump {
    /// How many tasks and threads live.
    pub tasks: usize,
    /// The groups.
    pub groups: Vec<Group>,
}

type Key = (Name, Kind, &'static Location<'static>, State, Option<(&'static str, Arc<str>)>);

/// Groups all live tasks and threads. The registry is read part by part, and each part is locked only while its
/// tasks are listed. It costs a copy per task: with very many of them call it off a busy runtime thread.
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
    grouped(0)
}

/// As [`take`], with the stacks of up to `per_group` idle tasks of each group, [`MAX_STACKS`] in all.
///
/// Each of these tasks is woken and polled once more than it would have been. Symbols are read on a thread for blocking
/// work, which takes some hundred milliseconds the first time. A task that is not polled within a second has none.
///
/// # Cancel safety
/// Cancel safe; tasks that were asked already still get their one poll.
///
/// # Panics
/// Outside of a Tokio runtime with its timer.
pub async fn with_stacks(per_group: usize) -> Dump {
    // The semaphore is never closed; without a turn there would only be more polls at once.
    let _turn = TURN.acquire().await;
    let mut dump = grouped(per_group.min(MAX_STACKS));
    let mut asked = Vec::new();
    let idle = dump.groups.iter().enumerate().filter(|(_, group)| group.state == State::Idle);
    let ids = idle.flat_map(|(at, group)| group.sample.iter().map(move |id| (at, *id)));
    for (at, id) in ids.take(MAX_STACKS) {
        asked.extend(tasks::ask(id).map(|answer| (at, id, answer)));
    }
    let deadline = clock::now() + ANSWER_WITHIN;
    let mut captured = Vec::new();
    for (at, id, answer) in asked {
        if let Ok(Ok(answer)) = tokio::time::timeout_at(deadline, answer).await {
            captured.push((at, id, answer));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "one at a time, bounded by MAX_STACKS")]
    let read = tokio::task::spawn_blocking(move || {
        captured.iter().map(|(at, id, captured)| (*at, stacks::read(*id, captured))).collect()
    });
    // It fails only when the runtime is shutting down: then there are no stacks.
    let stacks: Vec<(usize, Stack)> = read.await.unwrap_or_default();
    for (at, stack) in stacks {
        if let Some(group) = dump.groups.get_mut(at) {
            group.stacks.push(stack);
        }
    }
    dump
}

fn grouped(samples: usize) -> Dump {
    let now = clock::now();
    let mut groups: HashMap<Key, Group> = HashMap::new();
    let mut tasks = 0;
    tasks::glance_at_all(|glance| {
        tasks += 1;
        add(&mut groups, glance, now, samples);
    });
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.oldest.cmp(&a.oldest)));
    Dump { tasks, groups }
}

fn add(groups: &mut HashMap<Key, Group>, glance: Glance, now: Instant, samples: usize) {
    let Glance { id, name, kind, location, state, created, waiting, running } = glance;
    let age = now.saturating_duration_since(created);
    let (wait, since) = match waiting {
        Some((what, name, since)) => {
            (Some((what, name)), Some(now.saturating_duration_since(since)))
        }
        None => (None, None),
    };
    let waiting_on = wait.clone();
    let group =
        groups.entry((name.clone(), kind, location, state, wait)).or_insert_with(|| Group {
            name,
            kind,
            location,
            state,
            waiting_on: waiting_on.map(|(what, name)| format!("{what} `{name}`")),
            count: 0,
            oldest: Duration::ZERO,
            longest_wait: None,
            longest_poll: None,
            stacks: Vec::new(),
            sample: Vec::new(),
        });
    group.count += 1;
    group.oldest = group.oldest.max(age);
    group.longest_wait = group.longest_wait.max(since);
    group.longest_poll = group.longest_poll.max(running);
    if group.sample.len() < samples {
        group.sample.push(id);
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tasks in {} groups", self.tasks, self.groups.len())?;
        self.groups.iter().try_for_each(|group| write!(f, "\n{group}"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} [", self.count, self.name)?;
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
