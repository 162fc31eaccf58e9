//! What the process says of itself: log lines to stderr, metrics to a registry.
//! Neither can slow the data path: lines go through a bounded queue that drops and counts.

pub mod flow;
pub mod http;
mod log;
pub mod pools;
pub mod process;
pub mod watch;

pub use log::{Log, start_log};
use prometheus::Registry;
use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One family that is rendered from a snapshot.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
}

impl Family {
    const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family {
        Family { name, help, kind: MetricType::COUNTER, labels }
    }

    const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family {
        Family { name, help, kind: MetricType::GAUGE, labels }
    }

    fn desc(&self) -> prometheus::Result<Desc> {
        Desc::new(
            self.name.to_owned(),
            self.help.to_owned(),
            self.labels.iter().map(|label| (*label).to_owned()).collect(),
            std::collections::HashMap::new(),
        )
    }

    /// The family with these samples: label values in the order of `labels`, and a value.
    fn of(&self, samples: impl IntoIterator<Item = (Vec<String>, f64)>) -> MetricFamily {
        let metrics = samples.into_iter().map(|(values, value)| {
            let labels = self.labels.iter().zip(values).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value);
                pair
            });
            let mut metric = Metric::from_label(labels.collect());
            if self.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics.collect());
        family
    }
}

fn descs(families: &[Family]) -> prometheus::Result<Vec<Desc>> {
    families.iter().map(Family::desc).collect()
}

const BUILD_INFO: Family =
    Family::gauge("forebay_build_info", "Always 1; the labels say what runs.", &["version"]);

#[derive(Debug)]
struct Build(Vec<Desc>);

impl prometheus::core::Collector for Build {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![BUILD_INFO.of([(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)])]
    }
}

/// Registers what the process and the toolkit know of themselves.
///
/// # Errors
/// When a family of the same name is registered already.
pub fn register(registry: &Registry, log: &Log) -> prometheus::Result<()> {
    registry.register(Box::new(Build(descs(std::slice::from_ref(&BUILD_INFO))?)))?;
    registry.register(Box::new(flow::Collector::new()?))?;
    registry.register(Box::new(process::Collector::new(log.dropped())?))
}

/// Registers the engine's pools, once it is open.
///
/// # Errors
/// When a family of the same name is registered already.
pub fn register_pools(registry: &Registry, engine: &crate::api::Engine) -> prometheus::Result<()> {
    registry.register(Box::new(pools::Collector::new(engine.pools())?))
}
