//! Metrics of the engine's worker pools, rendered when asked.

use forebay_flow::pool::ThreadPool;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::{Family, descs};

const FAMILIES: [Family; 5] = [
    Family::counter(
        "forebay_worker_restarts_total",
        "Workers that died with a task and were replaced.",
        &["stage"],
    ),
    Family::gauge("forebay_pool_workers", "Workers of a stage.", &["stage"]),
    Family::gauge("forebay_pool_busy", "Workers at work.", &["stage"]),
    Family::counter("forebay_pool_done_total", "Tasks that a stage finished.", &["stage"]),
    Family::counter("forebay_pool_panicked_total", "Tasks that panicked.", &["stage"]),
];

/// Reads the pools' own counts.
#[derive(Debug)]
pub struct Collector {
    descs: Vec<Desc>,
    pools: Vec<ThreadPool>,
}

impl Collector {
    /// A collector over the stages' pools.
    ///
    /// # Errors
    /// Never in practice: when a name of the families is not a metric's name.
    pub fn new(pools: Vec<ThreadPool>) -> prometheus::Result<Collector> {
        Ok(Collector { descs: descs(&FAMILIES)?, pools })
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats: Vec<_> = self.pools.iter().map(ThreadPool::stats).collect();
        let values = |at: usize| {
            stats.iter().map(move |stats| {
                let value = match at {
                    0 => stats.restarts as f64,
                    1 => stats.workers as f64,
                    2 => stats.busy as f64,
                    3 => stats.done as f64,
                    _ => stats.panicked as f64,
                };
                (vec![stats.name.clone()], value)
            })
        };
        FAMILIES.iter().enumerate().map(|(at, family)| family.of(values(at))).collect()
    }
}
