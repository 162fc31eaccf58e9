//! What watches the process itself: the periodic look at all tasks, deadlocks among them, SIGQUIT's dump.
//! Its findings are metrics and log lines; it changes nothing.

use forebay_flow::latest::Reader;
use forebay_flow::sigquit::{self, OnSigquit};
use forebay_flow::snapshot::{Config, Periodic, Snapshot};
use forebay_flow::supervise::Child;
use forebay_flow::{Ctx, Task, deadlock, lock};
use parking_lot::Mutex;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::{Family, descs};

/// As [`Snapshot::gauges`] names and labels them, with our prefix in the place of theirs.
const GAUGES: [Family; 6] = [
    Family::gauge("forebay_threads", "Live threads that the toolkit started.", &[]),
    Family::gauge("forebay_task_oldest_seconds", "Age of the oldest live task.", &[]),
    Family::gauge(
        "forebay_task_longest_poll_seconds",
        "The longest poll under way: a task that blocks its thread.",
        &[],
    ),
    Family::gauge("forebay_tasks_elsewhere", "Live tasks at places not listed by place.", &[]),
    Family::gauge(
        "forebay_tasks_by_place",
        "Live tasks, by place of spawn; the largest.",
        &["place", "name"],
    ),
    Family::gauge(
        "forebay_tasks_growing",
        "By how much the tasks of a place that only ever grows have grown: a leak.",
        &["place"],
    ),
];

const CONTENDED: Family = Family::counter(
    "forebay_lock_contended_total",
    "How often somebody had to wait for a lock.",
    &["lock"],
);
const WAITED: Family =
    Family::counter("forebay_lock_wait_seconds_total", "How long they waited.", &["lock"]);

/// What runs beside the tree as long as it is held.
#[derive(Debug)]
pub struct Watch {
    snapshots: Periodic,
    _sigquit: Option<OnSigquit>,
    _deadlocks: Task<()>,
}

impl Watch {
    /// Starts it under `ctx`.
    #[must_use]
    pub fn start(ctx: &Ctx) -> Watch {
        let sigquit = sigquit::dump_to_stderr(ctx)
            .inspect_err(|error| tracing::warn!(%error, "SIGQUIT will write no dump"));
        Watch {
            // To read a stack is to read the program's debug information, which then stays in memory: 150 MB of it. Who
            // wants to see where tasks stand asks `/debug/tasks?stacks=4`, and pays when asking.
            snapshots: Periodic::new(Config { stacks: 0, ..Config::default() }),
            _sigquit: sigquit.ok(),
            _deadlocks: deadlock::watch(ctx, deadlock::EVERY, deadlock::warn),
        }
    }

    /// The child that takes snapshots.
    #[must_use]
    pub fn child(&self) -> Child {
        let snapshots = self.snapshots.clone();
        Child::new("snapshots", move |ctx| snapshots.clone().run(ctx))
    }

    /// A collector over the latest snapshot.
    ///
    /// # Errors
    /// Never in practice: when a name of the families is not a metric's name.
    pub fn collector(&self) -> prometheus::Result<Collector> {
        let mut descs = descs(&GAUGES)?;
        descs.extend([CONTENDED.desc()?, WAITED.desc()?]);
        Ok(Collector { descs, latest: Mutex::new(self.snapshots.reader()) })
    }
}

/// Renders the latest snapshot, and the locks.
#[derive(Debug)]
pub struct Collector {
    descs: Vec<Desc>,
    latest: Mutex<Reader<Snapshot>>,
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauges = self.latest.lock().get().gauges();
        let mut families: Vec<MetricFamily> = GAUGES
            .iter()
            .map(|family| {
                let theirs = family.name.strip_prefix("forebay_");
                let ours = gauges.iter().filter(|g| g.name.strip_prefix("flow_") == theirs);
                family
                    .of(ours.map(|g| (g.labels.iter().map(|(_, v)| v.clone()).collect(), g.value)))
            })
            .collect();
        let locks = lock::snapshot();
        let of = |family: &Family, value: fn(&lock::LockInfo) -> f64| {
            // Locks of one name are one series: their places are the program's business.
            let mut sums = std::collections::BTreeMap::<&str, f64>::new();
            for lock in &locks {
                *sums.entry(lock.name).or_default() += value(lock);
            }
            family.of(sums.into_iter().map(|(name, sum)| (vec![name.to_owned()], sum)))
        };
        families.push(of(&CONTENDED, |lock| lock.contended as f64));
        families.push(of(&WAITED, |lock| lock.wait.as_secs_f64()));
        families
    }
}
