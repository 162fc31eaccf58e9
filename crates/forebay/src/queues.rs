//! The table of queues: each bound, who waits at it, how it fails, and why it is that large.
//!
//! `forebay check` prints it for a configuration, `docs/queues.md` is generated from it, and a test holds it against the
//! registry of a running server, which `GET /api/v1/queues` shows.

use std::fmt::Write as _;

use forebay_flow::queue::Full;
use forebay_pipeline::engine::{MemoryShares, bounds};

use crate::config::Config;
use crate::config::memory::{CONTROL_CONNECTIONS, LOG_LINES};
use crate::config::units::Size;

/// One queue, or one place where something waits within a bound.
#[derive(Debug, Clone)]
pub struct QueueLine {
    /// Its name, as in the registry where the toolkit made it.
    pub name: &'static str,
    /// Whether it stands in the registry of a running server under that name.
    pub registered: bool,
    /// The bound by this configuration.
    pub bound: u64,
    /// What the bound counts.
    pub unit: &'static str,
    /// How the bound follows from the settings.
    pub rule: &'static str,
    /// What happens to a submission when it is full.
    pub policy: &'static str,
    /// Who waits when it is full.
    pub who_waits: &'static str,
    /// What goes wrong when it stays full.
    pub failure_mode: &'static str,
    /// Why it is that large.
    pub why: &'static str,
}

impl QueueLine {
    /// The bound with its unit, for people.
    #[must_use]
    pub fn bound_text(&self) -> String {
        match self.unit {
            "bytes" => Size(self.bound).to_string(),
            unit => format!("{} {unit}", self.bound),
        }
    }
}

/// Every queue that a configuration makes, in the order of the data path.
#[must_use]
pub fn table(config: &Config) -> Vec<QueueLine> {
    let mut lines: Vec<_> = door(config).into_iter().chain(stages(config)).collect();
    lines.push(QueueLine {
        name: "log",
        registered: false,
        bound: LOG_LINES as u64,
        unit: "lines",
        rule: "fixed",
        policy: Full::DropNewest.as_str(),
        who_waits: Full::DropNewest.who_waits(),
        failure_mode: "new lines are lost, counted in the metrics",
        why: "a burst of warnings fits; a log that nobody reads must not hold up the data",
    });
    lines
}

/// What requests wait for.
fn door(config: &Config) -> [QueueLine; 5] {
    let line = |name, bound, unit, rule| QueueLine {
        name,
        registered: false,
        bound,
        unit,
        rule,
        policy: Full::Block.as_str(),
        who_waits: "the upload; its client, through TCP",
        failure_mode: Full::Block.failure_mode(),
        why: "",
    };
    [
        QueueLine {
            policy: "503",
            who_waits: "nobody; but for 32 connections of control traffic, which wait for `accept`",
            failure_mode: "new connections are told 503 with `Retry-After`, and closed",
            why: "each costs a task and its buffers; health and metrics are answered beyond it",
            ..line(
                "connections",
                config.http.max_connections as u64,
                "connections",
                "`[http] max_connections`",
            )
        },
        QueueLine {
            who_waits: "the control connection, in the kernel",
            failure_mode: "connections wait in the kernel's backlog, then are refused by it",
            why: "a scrape and a probe a second fit many times",
            ..line("control connections", CONTROL_CONNECTIONS as u64, "connections", "fixed")
        },
        QueueLine {
            policy: "waits 100 ms, then 503",
            who_waits: "the request, before its body is read",
            failure_mode: "uploads are told 503 with `Retry-After`",
            why: "what uploads hold in memory, decoded rows included",
            ..line(
                "intake share",
                MemoryShares::of(config.memory_budget).intake,
                "bytes",
                "40 % of `[memory] budget`",
            )
        },
        QueueLine {
            why: "one is written while the next is decoded",
            ..line("appends of an upload", bounds::APPENDS as u64, "chunks", "fixed")
        },
        QueueLine {
            policy: "503; 507 where the disk is full",
            who_waits: Full::Reject.who_waits(),
            failure_mode: "uploads are told 503 with `Retry-After`; nothing acknowledged is touched",
            why: "how long a table may be away before clients are told to wait",
            ..line("journal of a stream", config.journal_max, "bytes", "`[journal] max`")
        },
    ]
}

/// The pools and queues behind the door, each in the registry.
fn stages(config: &Config) -> [QueueLine; 8] {
    let workers = &config.workers;
    let line = |name, bound: usize, rule| QueueLine {
        name,
        registered: true,
        bound: bound as u64,
        unit: "items",
        rule,
        policy: Full::Block.as_str(),
        who_waits: "the lane; rows stay in the journal",
        failure_mode: Full::Block.failure_mode(),
        why: bounds::POOL_WHY,
    };
    let (twice, fixed) = (|workers: usize| 2 * workers, "fixed");
    [
        QueueLine {
            who_waits: "the upload; its client, through TCP",
            ..line("validate", twice(workers.validate), "2 × `[workers] validate`")
        },
        QueueLine {
            who_waits: "the lane, which then reads no further",
            why: bounds::READ_WHY,
            ..line("journal-read", bounds::JOURNAL_READS, fixed)
        },
        line("transform", twice(workers.transform), "2 × `[workers] transform`"),
        line("persist", twice(workers.persist), "2 × `[workers] persist`"),
        QueueLine {
            who_waits: "the request that changes a stream",
            ..line("files", twice(bounds::FILE_WORKERS), fixed)
        },
        line("tables", twice(bounds::TABLE_WORKERS), fixed),
        QueueLine {
            who_waits: "the lane, or the query",
            ..line("lake", twice(bounds::LAKE_WORKERS), fixed)
        },
        QueueLine {
            who_waits: "the query; its client, through TCP",
            why: bounds::QUERY_WHY,
            ..line("query rows", bounds::QUERY_BATCHES, fixed)
        },
    ]
}

/// The page `docs/queues.md`; of `config` only what the rules say is in it.
#[must_use]
pub fn markdown(config: &Config) -> String {
    let mut text = String::from(
        "# Queues\n\nGenerated from `crates/forebay/src/queues.rs`; after a change there run\n\
         `UPDATE_EXPECT=1 cargo nextest run -p forebay queues`.\n\n\
         Nothing waits without a bound. `forebay check` prints this table with the bounds of a configuration, and\n\
         `GET /api/v1/queues` what is in each queue now, with its counters.\n\n\
         | queue | bound | unit | when full | who waits | failure mode | why |\n|---|---|---|---|---|---|---|\n",
    );
    for line in table(config) {
        let bound = match line.rule {
            "fixed" => line.bound.to_string(),
            rule => rule.to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {bound} | {} | {} | {} | {} | {} |",
            line.name, line.unit, line.policy, line.who_waits, line.failure_mode, line.why
        );
    }
    text
}
