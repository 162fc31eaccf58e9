//! What the engine is told, already validated, and the memory sum that follows from it (F3).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use forebay_journal::KeyRoom;

use crate::codec::Limits;
use crate::codec::unpack::Expansion;
use crate::stream::StreamConfig;

/// The fixed shares of the memory budget, in bytes. Full intake cannot starve the draining side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShares {
    /// Bodies on their way into the journal, and what the journal keeps for its readers.
    pub intake: u64,
    /// What the validators' threads hold while they decode.
    pub decode: u64,
    /// Rows between the journal and the sinks.
    pub lanes: u64,
    /// Queries.
    pub query: u64,
}

impl MemoryShares {
    /// Splits a budget: 40 % intake, 10 % decode, 30 % lanes, 20 % query.
    pub fn of(budget: u64) -> MemoryShares {
        let percent = |share: u64| budget / 100 * share;
        MemoryShares {
            intake: percent(40),
            decode: percent(10),
            lanes: percent(30),
            query: percent(20),
        }
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.intake + self.decode + self.lanes + self.query
    }
}

/// Threads of each stage, for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Decode and check.
    pub validate: usize,
    /// The streams' SQL.
    pub transform: usize,
    /// Parquet.
    pub persist: usize,
    /// Queries.
    pub query: usize,
}

impl Workers {
    /// One validator less than cores, so that I/O keeps one; the draining side gets half the cores.
    pub fn of(cores: usize) -> Workers {
        let half = (cores / 2).max(1);
        Workers {
            validate: cores.saturating_sub(1).max(1),
            transform: half,
            persist: half,
            query: half,
        }
    }
}

/// Faults on purpose, for tests from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The journal's device writes no faster.
    pub disk_bytes_per_second: Option<u64>,
    /// The journal's device fails after so many bytes.
    pub disk_error_after_bytes: Option<u64>,
    /// The journal's device is full after so many bytes.
    pub disk_full_after_bytes: Option<u64>,
    /// Streams whose sink never answers.
    pub stall_sinks: Vec<String>,
    /// A transform worker panics on a row that holds this text.
    pub panic_on: Option<String>,
}

/// The engine's configuration: defaults stand in the binary's config, bounds in [`Limits`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The memory budget's shares.
    pub memory: MemoryShares,
    /// Declared streams.
    pub streams: BTreeMap<String, StreamConfig>,
    /// Whether a stream appears with its first row.
    pub auto_create: bool,
    /// The most streams.
    pub max_streams: usize,
    /// How long a request waits for room before its body is read.
    pub admission_wait: Duration,
    /// Bounds on bodies, records and batches.
    pub limits: Limits,
    /// How far a compressed body may expand.
    pub expansion: Expansion,
    /// The largest body, in bytes, that `on_invalid = "reject"` can refuse whole.
    pub spool_bytes: u64,
    /// A journal's bound in bytes, where the stream names none.
    pub journal_max: u64,
    /// A flush is committed at this many bytes of Arrow,
    pub flush_bytes: u64,
    /// or this long after its first row.
    pub flush_interval: Duration,
    /// A commit that takes longer is given up and its rows are read from the journal again.
    pub sink_timeout: Duration,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// Threads.
    pub workers: Workers,
    /// How long an `Idempotency-Key` is remembered.
    pub key_window: Duration,
    /// How many keys a stream remembers, and all streams together beyond the
    /// [`KeyRoom::OWN`] that each always may.
    pub key_count: usize,
    /// Faults on purpose.
    pub faults: Faults,
    /// How long a drain may take.
    pub drain_deadline: Duration,
}

/// What one upload holds for each byte of its chunk: the pieces as they came, the chunk, its entry,
/// and the entry in the writer's block.
pub(crate) const UPLOAD_AMPLIFICATION: u64 = 4;

/// What a decoded cell may take while its batch is built: value, offset, validity.
const CELL_BYTES: u64 = 16;

impl EngineConfig {
    /// A configuration with every default, for a data directory and a budget.
    pub fn new(data_dir: PathBuf, budget: u64, cores: usize) -> EngineConfig {
        EngineConfig {
            data_dir,
            memory: MemoryShares::of(budget),
            streams: BTreeMap::new(),
            auto_create: true,
            max_streams: 1000,
            admission_wait: Duration::from_millis(100),
            limits: Limits::default(),
            expansion: Expansion::default(),
            spool_bytes: 8 << 20,
            journal_max: 4 << 30,
            flush_bytes: 64 << 20,
            flush_interval: Duration::from_secs(5),
            sink_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(30),
            workers: Workers::of(cores),
            key_window: Duration::from_secs(24 * 3600),
            key_count: 1_000_000,
            faults: Faults::default(),
            drain_deadline: Duration::from_secs(30),
        }
        .fitted()
    }

    /// Lowers what depends on the budget until the sum holds: the cells of a batch and the size of a
    /// flush. Call it after changing the budget, the workers or the limits.
    pub fn fitted(mut self) -> EngineConfig {
        let per_worker = self.memory.decode / self.workers.validate.max(1) as u64;
        let cells = usize::try_from(per_worker / CELL_BYTES).unwrap_or(usize::MAX);
        self.limits.cells = self.limits.cells.min(cells).max(self.limits.columns);
        // One flush is being committed while the next one gathers, and other lanes want room too.
        self.flush_bytes = self.flush_bytes.min(self.memory.lanes / 3).max(1);
        self
    }

    /// What an upload reserves, in bytes: room for one chunk and one maximal record, or for its body
    /// where that is known to be smaller.
    pub fn upload_bytes(&self, content_length: Option<u64>) -> u64 {
        let chunk = (self.limits.chunk_bytes + self.limits.record_bytes) as u64;
        let body = content_length.unwrap_or(chunk).min(chunk).max(1024);
        (body * UPLOAD_AMPLIFICATION).min(self.memory.intake)
    }

    /// What each journal keeps in memory for its readers, in bytes: an eighth of the intake share
    /// over all the streams that may be, at most 8 MiB and at least one small block.
    /// Nobody waits for it: it stands beside the shares in the memory sum.
    pub fn journal_cache(&self) -> usize {
        let each = self.memory.intake / 8 / self.max_streams.max(1) as u64;
        usize::try_from(each).unwrap_or(usize::MAX).clamp(64 << 10, 8 << 20)
    }

    /// What idempotency keys take in memory at most, in bytes.
    pub fn key_bytes(&self) -> u64 {
        KeyRoom::new(self.key_count).most(self.max_streams) as u64 * KeyRoom::KEY_BYTES
    }

    /// When it is worth coming back to a server that drains.
    pub(crate) fn drain_retry_after(&self) -> Duration {
        self.drain_deadline.max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f3_the_tails_that_journals_keep_for_readers_fit_the_intake_share_together() {
        for streams in [1, 10, 100, 1_000] {
            let mut config = EngineConfig::new(PathBuf::from("data"), 512 << 20, 2);
            config.max_streams = streams;
            let all = config.journal_cache() as u64 * streams as u64;
            assert!(all <= config.memory.intake / 2, "{streams} streams: {all} bytes");
        }
    }
}
