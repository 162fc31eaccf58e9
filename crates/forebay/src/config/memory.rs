//! The memory sum and the default budget. F3: the sum is what the process may hold, line by line.
//!
//! ```text
//! total ┬─ budget    [memory] budget, in fixed shares: full intake cannot starve the draining side
//!       └─ beside it what is bounded by a count rather than by the budget: connections, keys, journal
//!                    tails, log lines; and the program itself
//! ```
//!
//! What stands beside the budget is bounded too, each by its own setting, but nobody waits for it: a
//! connection that does not fit is refused, a key or a tail that does not fit is forgotten, a log line dropped.

use std::fmt;

use forebay_pipeline::engine::EngineConfig;

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
    /// What it is, and the setting that bounds it.
    pub why: String,
}

/// The whole sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The shares of `[memory] budget`.
    pub budget: Vec<Part>,
    /// What is bounded by counts.
    pub beside: Vec<Part>,
}

impl Sum {
    /// The sum of a configuration.
    pub fn of(config: &Config) -> Sum {
        let part = |name, bytes, why: String| Part { name, bytes, why };
        let engine = EngineConfig {
            max_streams: config.limits.streams,
            key_count: config.key_count,
            ..EngineConfig::new(config.data_dir.clone(), config.memory_budget, 1)
        };
        let shares = engine.memory;
        let connections = (config.http.max_connections + CONTROL_CONNECTIONS) as u64;
        let (streams, tail) = (config.limits.streams as u64, engine.journal_cache() as u64);
        let keys = engine.key_bytes();
        Sum {
            budget: vec![
                part("intake", shares.intake, "uploads on their way into the journal".to_owned()),
                part("decode", shares.decode, "batches being decoded".to_owned()),
                part("lanes", shares.lanes, "transform and flushes".to_owned()),
                part("query", shares.query, "queries".to_owned()),
            ],
            beside: vec![
                part(
                    "connections",
                    connections * CONNECTION_BUFFER as u64,
                    format!(
                        "{connections} × {} read ahead ([http] max_connections)",
                        Size(CONNECTION_BUFFER as u64)
                    ),
                ),
                part("keys", keys, "idempotency keys of all streams ([keys] count)".to_owned()),
                part(
                    "tails",
                    streams * tail,
                    format!("{streams} journals × {} for readers ([limits] streams)", Size(tail)),
                ),
                part("log", LOG_LINES as u64 * LOG_LINE, format!("{LOG_LINES} lines wait at most")),
                part("program", PROGRAM, "code, runtime, planner, allocator".to_owned()),
            ],
        }
    }

    /// The total in bytes.
    pub fn total(&self) -> u64 {
        self.budget.iter().chain(&self.beside).map(|part| part.bytes).sum()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = [
            ("budget", &self.budget, "[memory] budget, in fixed shares"),
            ("beside it", &self.beside, "bounded by counts"),
        ];
        for (name, parts, why) in groups {
            let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
            writeln!(f, "  {name:<16} {:>10}  {why}", Size(bytes).to_string())?;
            for part in parts {
                let size = Size(part.bytes).to_string();
                writeln!(f, "    {:<14} {size:>10}  {}", part.name, part.why)?;
            }
        }
        let total = Size(self.total()).to_string();
        write!(f, "  {:<16} {total:>10}  the most this process holds", "total")
    }
}
