//! The memory sum and the default budget. F3: the sum is what the process may hold, line by line.

use std::fmt;

use forebay_pipeline::engine::MemoryShares;

use super::Config;
use super::units::Size;

const LARGEST_DEFAULT: u64 = 512 << 20;
const SMALLEST_DEFAULT: u64 = 64 << 20;

/// A quarter of what the machine or its control group grants, at most 512 MiB.
pub(super) fn default_budget() -> u64 {
    let granted = [cgroup_limit(), machine_memory()].into_iter().flatten().min();
    granted.map_or(LARGEST_DEFAULT, |bytes| (bytes / 4).clamp(SMALLEST_DEFAULT, LARGEST_DEFAULT))
}

fn cgroup_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| text.trim().parse().ok())
}

fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Bytes read ahead for one connection.
pub const CONNECTION_BUFFER: usize = 128 << 10;
/// Connections beyond the limit that may still ask for health and metrics.
pub const CONTROL_CONNECTIONS: usize = 32;
/// The longest queue of log lines; a line more is dropped and counted.
pub const LOG_LINES: usize = 8192;
/// What a log line takes, at most, on average.
const LOG_LINE: u64 = 512;
/// The program itself: code, runtime, planner, allocator.
const PROGRAM: u64 = 80 << 20;

/// One line of the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What holds the bytes.
    pub name: &'static str,
    /// The most it holds.
    pub bytes: u64,
    /// Why so much.
    pub why: String,
}

/// The whole sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum(pub Vec<Part>);

impl Sum {
    /// The sum of a configuration.
    pub fn of(config: &Config) -> Sum {
        let part = |name, bytes, why: &str| Part { name, bytes, why: why.to_owned() };
        let shares = MemoryShares::of(config.memory_budget);
        let connections = (config.http.max_connections + CONTROL_CONNECTIONS) as u64;
        Sum(vec![
            part("intake", shares.intake, "uploads, and journal tails for readers (budget)"),
            part("decode", shares.decode, "batches being decoded (budget)"),
            part("lanes", shares.lanes, "transform and flushes (budget)"),
            part("query", shares.query, "queries (budget)"),
            Part {
                name: "connections",
                bytes: connections * CONNECTION_BUFFER as u64,
                why: format!("{connections} × {} read ahead", Size(CONNECTION_BUFFER as u64)),
            },
            Part {
                name: "log",
                bytes: LOG_LINES as u64 * LOG_LINE,
                why: format!("{LOG_LINES} lines wait at most"),
            },
            part("program", PROGRAM, "code, runtime, planner, allocator"),
        ])
    }

    /// The total in bytes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|part| part.bytes).sum()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            writeln!(f, "  {:<12} {:>10}  {}", part.name, Size(part.bytes).to_string(), part.why)?;
        }
        write!(
            f,
            "  {:<12} {:>10}  the most this process holds",
            "total",
            Size(self.total()).to_string()
        )
    }
}
