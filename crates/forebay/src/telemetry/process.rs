//! Metrics of the process, read from `/proc` when asked, under the names that Prometheus expects.

use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use rustix::process::Resource;
use tracing_appender::non_blocking::ErrorCounter;

use super::{Family, descs};

const FAMILIES: [Family; 6] = [
    Family::gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[]),
    Family::gauge("process_open_fds", "Number of open file descriptors.", &[]),
    Family::gauge("process_max_fds", "Maximum number of open file descriptors.", &[]),
    Family::counter("process_cpu_seconds_total", "User and system CPU time in seconds.", &[]),
    Family::gauge("process_threads", "Number of OS threads.", &[]),
    Family::counter(
        "forebay_log_lines_dropped_total",
        "Log lines dropped because stderr was not read.",
        &[],
    ),
];

/// Reads `/proc/self`.
#[derive(Debug)]
pub struct Collector {
    descs: Vec<Desc>,
    dropped: Option<ErrorCounter>,
}

impl Collector {
    /// A collector over this process, and the log's count of dropped lines.
    ///
    /// # Errors
    /// Never in practice: when a name of `FAMILIES` is not a metric's name.
    pub fn new(dropped: Option<ErrorCounter>) -> prometheus::Result<Collector> {
        Ok(Collector { descs: descs(&FAMILIES)?, dropped })
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = Stat::read().unwrap_or_default();
        let values = [
            stat.resident_bytes,
            std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64),
            rustix::process::getrlimit(Resource::Nofile).current.map_or(-1.0, |max| max as f64),
            stat.cpu_seconds,
            stat.threads,
            self.dropped.as_ref().map_or(0.0, |dropped| dropped.dropped_lines() as f64),
        ];
        FAMILIES.iter().zip(values).map(|(family, value)| family.of([(vec![], value)])).collect()
    }
}

#[derive(Debug, Default)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    resident_bytes: f64,
}

impl Stat {
    /// Fields 14, 15, 20 and 24 of proc_pid_stat(5); those after the command's closing parenthesis
    /// count from 3.
    fn read() -> Option<Stat> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<f64> =
            fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) / rustix::param::clock_ticks_per_second() as f64,
            threads: field(20)?,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
        })
    }
}
