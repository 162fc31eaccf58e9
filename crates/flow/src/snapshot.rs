//! A look at all tasks every few minutes, kept as a handful of numbers: what to alert on, and what to graph.
//!
//! Owns the latest [`Snapshot`], and the growth detector while it runs. It knows no metrics library: a snapshot is plain
//! data, and [`Snapshot::gauges`] lists it as named values with labels for whichever one the program has. What it keeps is
//! bounded by its [`Config`], never by the number of tasks. It never stops a task, and never logs but when a place begins
//! to grow.
//!
//! ```text
//! every 5 min: gather ─► counts by place ─► growth detector ─► growing
//!                 │  └──────► the largest places                  │
//!                 └─► stacks of a few ─► the largest stacks       ▼
//!                                              └──────────► latest Snapshot ─► readers
//! ```
//!
//! Supervise it like any other child:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use forebay_flow::snapshot::{Config, Periodic};
//! use forebay_flow::supervise::{Child, Strategy, Supervisor};
//! use forebay_flow::{Cause, Ctx};
//!
//! let ctx = Ctx::root("app");
//! let periodic = Periodic::new(Config::default());
//! let mut reader = periodic.reader(); // for the page that serves metrics
//! let supervisor = Supervisor::new("root", Strategy::OneForOne)
//!     .child(Child::new("snapshot", move |ctx| periodic.clone().run(ctx)));
//! let running = ctx.spawn("supervisor", supervisor.run(ctx.clone()));
//! let snapshot = reader.changed().await;
//! assert_eq!(snapshot.number, 1);
//! assert!(snapshot.tasks >= 2 && snapshot.growing.is_empty());
//! # ctx.cancel(Cause::Shutdown);
//! # running.join().await.unwrap().unwrap();
//! # }
//! ```

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::panic::Location;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::ctx::{Ctx, Stopped};
use crate::dump::{self, Dump, Group, Stack};
use crate::growth::{self, Detector, Growing};
use crate::latest::{Latest, Reader};
use crate::tasks::{Kind, Name, State};

/// More places or stacks than these are never kept, whatever is configured.
pub const MAX_TOP: usize = 100;

/// Stacks asked for in each group: tasks of one place that stand in several show so.
const STACKS_PER_GROUP: usize = 4;

/// A place in the program's text where tasks are spawned.
type Place = &'static Location<'static>;

/// How often to look, and how much to keep.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The time between two snapshots; five minutes by default, a second at least (less counts as that).
    ///
    /// # Choosing a bound
    /// A leak is named at the third snapshot that shows it. Shorter than the load's own swings it takes them for growth.
    pub every: Duration,
    /// Tasks younger than this do not count as growth; a minute by default. So a rush of short requests is no leak.
    ///
    /// # Choosing a bound
    /// Longer than a usual request, shorter than `every`.
    pub settled_after: Duration,
    /// How many places are kept, the largest first; 10 by default, [`MAX_TOP`] at most.
    pub places: usize,
    /// How many stacks are kept, the most frequent first; 10 by default, [`MAX_TOP`] at most. With 0 no task is asked for
    /// its stack; otherwise up to [`dump::MAX_STACKS`] tasks are polled once more at each snapshot, and the program's debug
    /// information, where it was built with any, is read and stays in memory: of a large program a hundred megabytes.
    pub stacks: usize,
    /// What counts as growth.
    pub growth: growth::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(300),
            settled_after: Duration::from_secs(60),
            places: 10,
            stacks: 10,
            growth: growth::Config::default(),
        }
    }
}

/// The tasks and threads spawned at one place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlaceCount {
    /// Where.
    pub location: &'static Location<'static>,
    /// The name most of them have.
    pub name: Name,
    /// How many they are.
    pub count: usize,
    /// The age of the oldest.
    pub oldest: Duration,
}

/// The tasks that stand at one stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StackCount {
    /// Of its functions and places: the same in every run of one build.
    pub hash: u64,
    /// About how many stand there. Only a few of each group were asked; they speak for the others.
    pub count: usize,
    /// One of them, as it stood.
    pub stack: Stack,
}

impl StackCount {
    /// The innermost function of the program's own, or nothing when no leaf kept a waker.
    #[must_use]
    pub fn leaf(&self) -> String {
        self.stack
            .leaves
            .first()
            .and_then(|leaf| leaf.first())
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

/// All tasks of the process at one moment, in numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Counts from 1; 0 stands for "none yet".
    pub number: u64,
    /// When it was begun.
    pub taken: Instant,
    /// How long it took, stacks included.
    pub took: Duration,
    /// Live tasks.
    pub tasks: usize,
    /// Live threads.
    pub threads: usize,
    /// Those of both that were inside a poll.
    pub running: usize,
    /// Those that waited for one of this crate's own primitives.
    pub waiting: usize,
    /// Those that waited for anything else.
    pub idle: usize,
    /// The age of the oldest task.
    pub oldest: Duration,
    /// The longest poll under way, in real time: seconds mean that a task blocks its thread. Threads do not count.
    pub longest_poll: Duration,
    /// The largest places.
    pub places: Vec<PlaceCount>,
    /// How many live at the places that were left off.
    pub elsewhere: usize,
    /// The most frequent stacks.
    pub stacks: Vec<StackCount>,
    /// The places whose count keeps growing, the steepest first; as many as `places` at most.
    pub growing: Vec<Growing<&'static Location<'static>>>,
}

/// One number for a metrics library: name, labels, value. Names end in their base unit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gauge {
    /// `flow_…`
    pub name: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Snapshot {
    fn none() -> Self {
        Self {
            number: 0,
            taken: clock::now(),
            took: Duration::ZERO,
            tasks: 0,
            threads: 0,
            running: 0,
            waiting: 0,
            idle: 0,
            oldest: Duration::ZERO,
            longest_poll: Duration::ZERO,
            places: Vec::new(),
            elsewhere: 0,
            stacks: Vec::new(),
            growing: Vec::new(),
        }
    }

    /// The snapshot as gauges: at most seven, two for each place and one for each stack that [`Config`] lets it keep. A
    /// place or stack that is no longer among them is absent: let the metrics library forget it, or set it to zero.
    #[must_use]
    pub fn gauges(&self) -> Vec<Gauge> {
        let gauge = |name, labels: &[(&'static str, &str)], value: f64| Gauge {
            name,
            labels: labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect(),
            value,
        };
        let mut gauges = vec![
            gauge("flow_tasks", &[("state", "running")], self.running as f64),
            gauge("flow_tasks", &[("state", "waiting")], self.waiting as f64),
            gauge("flow_tasks", &[("state", "idle")], self.idle as f64),
            gauge("flow_threads", &[], self.threads as f64),
            gauge("flow_task_oldest_seconds", &[], self.oldest.as_secs_f64()),
            gauge("flow_task_longest_poll_seconds", &[], self.longest_poll.as_secs_f64()),
            gauge("flow_tasks_elsewhere", &[], self.elsewhere as f64),
        ];
        gauges.extend(self.places.iter().map(|at| {
            let place = at.location.to_string();
            gauge("flow_tasks_by_place", &[("place", &place), ("name", &at.name)], at.count as f64)
        }));
        gauges.extend(self.growing.iter().map(|at| {
            let place = at.key.to_string();
            gauge("flow_tasks_growing", &[("place", &place)], (at.to - at.from) as f64)
        }));
        gauges.extend(self.stacks.iter().map(|at| {
            let (hash, leaf) = (format!("{:016x}", at.hash), at.leaf());
            gauge("flow_tasks_by_stack", &[("stack", &hash), ("leaf", &leaf)], at.count as f64)
        }));
        gauges
    }
}

/// Takes snapshots while it runs. Cloning shares the latest one.
#[derive(Clone, Debug)]
pub struct Periodic {
    config: Config,
    latest: Latest<Snapshot>,
}

impl Periodic {
    /// One that has taken none yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (every, top) = (config.every.max(Duration::from_secs(1)), config.places.min(MAX_TOP));
        let config = Config { every, places: top, stacks: config.stacks.min(MAX_TOP), ..config };
        Self { config, latest: Latest::new("task snapshot", Snapshot::none()) }
    }

    /// Reads the latest snapshot: one atomic load as long as there is no later one. Its `number` is 0 before the first.
    #[must_use]
    pub fn reader(&self) -> Reader<Snapshot> {
        self.latest.reader()
    }

    /// Takes a snapshot at once and then at every interval, until `ctx` ends. Run one at a time. A new run knows nothing
    /// of the growth an earlier one saw; the numbers go on.
    ///
    /// # Errors
    /// None; the type lets it be a supervised child.
    ///
    /// # Cancel safety
    /// Dropped, it takes no more; the latest snapshot stays. A task that was asked for its stack still gets its one poll.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn run(self, ctx: Ctx) -> Result<(), Infallible> {
        // It ends in one way: when the context does.
        let _ended: Result<Infallible, Stopped> = self.go_on(&ctx).await;
        Ok(())
    }

    async fn go_on(&self, ctx: &Ctx) -> Result<Infallible, Stopped> {
        let mut detector = Detector::new(self.config.growth);
        let mut known = HashSet::new();
        loop {
            let begun = clock::now();
            let snapshot = ctx.run(Box::pin(self.take(begun, &mut detector))).await?;
            for growing in snapshot.growing.iter().filter(|growing| !known.contains(&growing.key)) {
                let (place, from, to) = (growing.key, growing.from, growing.to);
                tracing::warn!(%place, from, to, "the tasks spawned here only ever grow in number");
            }
            known = snapshot.growing.iter().map(|growing| growing.key).collect();
            self.latest.set(snapshot);
            ctx.run(tokio::time::sleep_until(begun + self.config.every)).await?;
        }
    }

    async fn take(&self, begun: Instant, detector: &mut Detector<Place>) -> Snapshot {
        let mut dump = dump::gather_settled(self.config.settled_after).await;
        let mut snapshot = Snapshot::none();
        (snapshot.number, snapshot.taken) = (self.latest.get().number + 1, begun);
        snapshot.count(&dump);
        let (mut places, settled) = by_place(&dump.groups);
        detector.observe(settled);
        places.sort_by(|a, b| b.count.cmp(&a.count).then(b.oldest.cmp(&a.oldest)));
        let left_off = places.split_off(places.len().min(self.config.places));
        snapshot.elsewhere = left_off.iter().map(|place| place.count).sum();
        snapshot.places = places;
        snapshot.growing = detector.growing();
        snapshot.growing.truncate(self.config.places);
        if self.config.stacks > 0 {
            dump.add_stacks(STACKS_PER_GROUP).await;
            snapshot.stacks = by_stack(dump.groups, self.config.stacks);
        }
        snapshot.took = clock::now() - begun;
        snapshot
    }
}

impl Snapshot {
    fn count(&mut self, dump: &Dump) {
        for group in &dump.groups {
            *match group.kind {
                Kind::Task => &mut self.tasks,
                Kind::Thread => &mut self.threads,
            } += group.count;
            *match (group.state, &group.waiting_on) {
                (State::Running, _) => &mut self.running,
                (State::Idle, Some(_)) => &mut self.waiting,
                (State::Idle, None) => &mut self.idle,
            } += group.count;
            if group.kind == Kind::Task {
                self.oldest = self.oldest.max(group.oldest);
                self.longest_poll = self.longest_poll.max(group.longest_poll.unwrap_or_default());
            }
        }
    }
}

/// Each place with all its groups, and how many of its tasks have settled. The largest group comes first and gives the name.
fn by_place(groups: &[Group]) -> (Vec<PlaceCount>, Vec<(Place, usize)>) {
    let mut places: HashMap<Place, (PlaceCount, usize)> = HashMap::new();
    for group in groups {
        let (at, settled) = places.entry(group.location).or_insert_with(|| {
            let (location, name) = (group.location, group.name.clone());
            (PlaceCount { location, name, count: 0, oldest: Duration::ZERO }, 0)
        });
        at.count += group.count;
        at.oldest = at.oldest.max(group.oldest);
        *settled += group.settled;
    }
    places.into_values().map(|(at, settled)| (at.clone(), (at.location, settled))).unzip()
}

/// The most frequent stacks; those that were asked share their group's count.
fn by_stack(groups: Vec<Group>, top: usize) -> Vec<StackCount> {
    let mut stacks: HashMap<u64, StackCount> = HashMap::new();
    for group in groups {
        let asked = group.stacks.len();
        for (at, stack) in group.stacks.into_iter().enumerate() {
            let hash = hash(&stack);
            let share = group.count / asked + usize::from(at < group.count % asked);
            stacks.entry(hash).or_insert(StackCount { hash, count: 0, stack }).count += share;
        }
    }
    let mut stacks: Vec<_> = stacks.into_values().collect();
    stacks.sort_by(|a, b| b.count.cmp(&a.count).then(a.hash.cmp(&b.hash)));
    stacks.truncate(top);
    stacks
}

/// FNV-1a, because it must not change from one version of the standard library to the next.
fn hash(stack: &Stack) -> u64 {
    let text = stack.leaves.iter().flatten().flat_map(|frame| {
        let place = frame.place.as_deref().unwrap_or_default();
        frame.function.bytes().chain([0]).chain(place.bytes()).chain([0])
    });
    text.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
