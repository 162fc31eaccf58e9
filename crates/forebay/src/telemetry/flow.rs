//! Metrics of the toolkit's registries: queues, budgets, tasks, supervised children.
//! Renders snapshots when asked; keeps nothing.

use forebay_flow::{budget, queue, supervise, tasks};
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::{Family, descs};

const DEPTH: usize = 0;
const CAPACITY: usize = 1;
const SENT: usize = 2;
const BLOCKED: usize = 3;
const DROPPED: usize = 4;
const REJECTED: usize = 5;
const SHED: usize = 6;
const BLOCKED_SECONDS: usize = 7;
const BUDGET: usize = 8;
const SHARES: usize = 9;
const TASKS: usize = 10;
const RESTARTS: usize = 11;

const FAMILIES: [Family; 12] = [
    Family::gauge("forebay_queue_depth", "What waits in a queue, in the queue's unit.", &["queue"]),
    Family::gauge(
        "forebay_queue_capacity",
        "The bound of a queue, in the queue's unit.",
        &["queue"],
    ),
    Family::counter("forebay_queue_sent_total", "Items that a queue took.", &["queue"]),
    Family::counter("forebay_queue_blocked_total", "Submissions that had to wait.", &["queue"]),
    Family::counter("forebay_queue_dropped_total", "Items that a full queue dropped.", &["queue"]),
    Family::counter(
        "forebay_queue_rejected_total",
        "Items that a full queue gave back.",
        &["queue"],
    ),
    Family::counter("forebay_queue_shed_total", "Items shed by class or age.", &["queue"]),
    Family::counter(
        "forebay_queue_blocked_seconds_total",
        "Time that submissions waited.",
        &["queue"],
    ),
    Family::gauge(
        "forebay_budget_bytes",
        "The memory budget: used, and what is free of its capacity.",
        &["state"],
    ),
    Family::gauge(
        "forebay_budget_share_bytes",
        "The memory budget by share: used, capacity, and the most used so far.",
        &["share", "state"],
    ),
    Family::gauge("forebay_tasks", "Live tasks and threads.", &["kind"]),
    Family::counter("forebay_child_restarts_total", "Restarts of a supervised child.", &["child"]),
];

/// Renders the registries.
#[derive(Debug)]
pub struct Collector {
    descs: Vec<Desc>,
}

impl Collector {
    /// A collector over the process's registries.
    ///
    /// # Errors
    /// Never in practice: when a name of `FAMILIES` is not a metric's name.
    pub fn new() -> prometheus::Result<Collector> {
        Ok(Collector { descs: descs(&FAMILIES)? })
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = queues();
        families.extend(budgets());
        families.push(
            FAMILIES[TASKS].of(tasks::counts_by_name()
                .into_iter()
                .map(|(name, count)| (vec![name.into_owned()], count as f64))),
        );
        let mut restarts = std::collections::BTreeMap::new();
        for node in supervise::tree() {
            restarts_below(&node, "", &mut restarts);
        }
        families.push(
            FAMILIES[RESTARTS]
                .of(restarts.into_iter().map(|(child, count)| (vec![child], count as f64))),
        );
        families
    }
}

/// Two queues may share a name (one a stream): their sums are one series.
fn queues() -> Vec<MetricFamily> {
    let mut sums: std::collections::BTreeMap<String, [f64; 8]> = std::collections::BTreeMap::new();
    for info in queue::snapshot() {
        let values = [
            info.depth as f64,
            info.capacity as f64,
            info.sent as f64,
            info.blocked as f64,
            info.dropped as f64,
            info.rejected as f64,
            info.shed as f64,
            info.blocked_seconds,
        ];
        let sum = sums.entry(info.name).or_default();
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    }
    [DEPTH, CAPACITY, SENT, BLOCKED, DROPPED, REJECTED, SHED, BLOCKED_SECONDS]
        .into_iter()
        .enumerate()
        .map(|(at, family)| {
            let samples = sums.iter().filter_map(|(name, values)| {
                values.get(at).map(|value| (vec![name.clone()], *value))
            });
            FAMILIES[family].of(samples)
        })
        .collect()
}

fn budgets() -> [MetricFamily; 2] {
    let (mut used, mut capacity) = (0, 0);
    let mut shares = std::collections::BTreeMap::<(String, &str), u64>::new();
    for share in budget::snapshot() {
        used += share.used;
        capacity += share.capacity;
        for (state, bytes) in
            [("used", share.used), ("capacity", share.capacity), ("peak", share.peak)]
        {
            *shares.entry((share.share.clone(), state)).or_default() += bytes;
        }
    }
    let free = capacity.saturating_sub(used);
    [
        FAMILIES[BUDGET]
            .of([(vec!["used".to_owned()], used as f64), (vec!["free".to_owned()], free as f64)]),
        FAMILIES[SHARES].of(shares
            .into_iter()
            .map(|((share, state), bytes)| (vec![share, state.to_owned()], bytes as f64))),
    ]
}

fn restarts_below(
    node: &supervise::Node,
    above: &str,
    found: &mut std::collections::BTreeMap<String, u64>,
) {
    let path = if above.is_empty() { node.name.clone() } else { format!("{above}/{}", node.name) };
    for child in &node.children {
        restarts_below(child, &path, found);
    }
    if !above.is_empty() {
        *found.entry(path).or_default() += node.restarts;
    }
}
