//! A stream at run time: its versions planned once, its journal, and how far its lane has come.

pub mod catalog;
mod name;
mod plan;

use std::sync::Arc;

use forebay_journal::Journal;
use parking_lot::RwLock;
use tokio::sync::watch;

pub use self::name::check_stream_name;
pub use self::plan::Plan;
use crate::codec::{FormatName, Pattern};
use crate::ledger::Totals;
use crate::schema::{Schema, Unknown};
use crate::sink::{Counts, Sink};
use crate::stream::catalog::{Definition, OnInvalid, Origin, Record};
use crate::telemetry::StreamMetrics;

/// What the owner of a stream declares. Defaults are those of the config reference.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// Columns and constraints; `None`: inferred from the first chunk.
    pub schema: Option<Schema>,
    /// Values under names that the schema lacks.
    pub unknown: Unknown,
    /// Requests with refused rows.
    pub on_invalid: OnInvalid,
    /// One `SELECT` over the stream's own rows.
    pub transform: Option<String>,
    /// What a body is, where its head does not say.
    pub format: Option<FormatName>,
    /// How lines of text are read, where the request does not say; `None`: a line is a column.
    pub pattern: Option<Pattern>,
    /// The journal's bound in bytes; `None`: the process's default.
    pub journal_max: Option<u64>,
    /// Whether the table gets `_received_at`.
    pub received_at: bool,
}

impl Default for StreamConfig {
    fn default() -> StreamConfig {
        StreamConfig {
            schema: None,
            unknown: Unknown::default(),
            on_invalid: OnInvalid::default(),
            transform: None,
            format: None,
            pattern: None,
            journal_max: None,
            received_at: true,
        }
    }
}

impl StreamConfig {
    /// The definition of a declared stream; `None` while its schema is still to be inferred.
    pub fn definition(&self) -> Option<Definition> {
        Some(Definition { schema: self.schema.clone()?, ..self.definition_with(Schema::default()) })
    }

    /// The definition with an inferred schema.
    pub fn definition_with(&self, schema: Schema) -> Definition {
        Definition {
            version: 1,
            schema,
            unknown: self.unknown,
            on_invalid: self.on_invalid,
            transform: self.transform.clone(),
            format: self.format,
            pattern: self.pattern.clone(),
            received_at: self.received_at,
        }
    }
}

/// How a stream reads a body whose head does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usual {
    /// What it is.
    pub format: Option<FormatName>,
    /// How its lines are read, if it is text.
    pub pattern: Option<Pattern>,
}

/// How far a lane has come. Only the lane writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The end of the last committed flush.
    pub committed: u64,
    /// The sink's own counts there.
    pub counts: Counts,
    /// The journal's cumulative counters there.
    pub passed: Totals,
}

/// A stream. Everything in it is shared by its uploads and its lane.
#[derive(Debug)]
pub struct Stream {
    /// Its name.
    pub name: Arc<str>,
    /// `journal UUID / stream UUID / lane`, under which its sink commits.
    pub app_id: String,
    /// Its journal.
    pub journal: Arc<Journal>,
    /// Its sink.
    pub sink: Arc<dyn Sink>,
    /// Its counters.
    pub metrics: StreamMetrics,
    /// How far its lane has come.
    pub progress: watch::Sender<Progress>,
    /// Up to where somebody wants the lane to flush at once.
    pub wanted: watch::Sender<u64>,
    /// The catalog's record and its plans. Readers clone an `Arc`; the lock is held for no work.
    state: RwLock<State>,
    /// Held by whoever changes the definition.
    pub(crate) altering: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever redrives dead letters into it.
    pub(crate) redriving: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    record: Record,
    plans: Vec<Arc<Plan>>,
}

/// The parts a stream is put together from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub name: Arc<str>,
    pub record: Record,
    pub plans: Vec<Arc<Plan>>,
    pub journal: Arc<Journal>,
    pub sink: Arc<dyn Sink>,
    pub metrics: StreamMetrics,
}

impl Stream {
    pub(crate) fn new(parts: Parts) -> Stream {
        let app_id = format!("{}/{}/0", parts.journal.uuid(), parts.record.id);
        Stream {
            name: parts.name,
            app_id,
            journal: parts.journal,
            sink: parts.sink,
            metrics: parts.metrics,
            progress: watch::Sender::new(Progress::default()),
            wanted: watch::Sender::new(0),
            state: RwLock::new(State { record: parts.record, plans: parts.plans }),
            altering: Arc::default(),
            redriving: Arc::default(),
        }
    }

    /// The plan that new rows are accepted under. `None` cannot happen while the record holds a
    /// definition, which the catalog checks.
    pub fn current(&self) -> Option<Arc<Plan>> {
        self.state.read().plans.last().cloned()
    }

    /// The plan of a version that an entry names.
    pub fn plan(&self, version: u32) -> Option<Arc<Plan>> {
        let state = self.state.read();
        state.plans.iter().rev().find(|plan| plan.definition.version == version).cloned()
    }

    /// Every version's plan, ascending.
    pub(crate) fn plans(&self) -> Vec<Arc<Plan>> {
        self.state.read().plans.clone()
    }

    /// The catalog's record, for whoever alters or shows it.
    pub fn record(&self) -> Record {
        self.state.read().record.clone()
    }

    /// The stream's UUID, as text.
    pub fn record_id(&self) -> String {
        self.state.read().record.id.to_string()
    }

    /// Who made it.
    pub fn origin(&self) -> Origin {
        self.state.read().record.origin
    }

    /// Puts a new version in force; the caller holds `altering` and has made the record durable.
    pub(crate) fn put(&self, record: Record, plan: Arc<Plan>) {
        let mut state = self.state.write();
        state.record = record;
        state.plans.push(plan);
    }

    /// The position at which everything durable is in the sink. Where the lane has passed as many
    /// rows as the journal holds, that is the lane's own: the journal's end may be the padding after
    /// records that were trimmed since.
    pub fn head(&self) -> u64 {
        let progress = *self.progress.borrow();
        let passed_all = Totals::from_counters(self.journal.counters()) == progress.passed;
        if passed_all { progress.committed } else { self.journal.end().0.max(progress.committed) }
    }

    /// Bytes that are durable and not yet committed to the sink.
    pub fn lag_bytes(&self) -> u64 {
        self.head().saturating_sub(self.progress.borrow().committed)
    }

    /// Asks the lane to flush up to `position` without waiting for its interval.
    pub fn want(&self, position: u64) {
        self.wanted.send_if_modified(|wanted| {
            let more = position > *wanted;
            *wanted = position.max(*wanted);
            more
        });
    }

    /// Ends when everything up to `position` is in the sink, or never (the caller has a deadline).
    /// Cancel safe.
    pub async fn stored(&self, position: u64) {
        let mut progress = self.progress.subscribe();
        if progress.wait_for(|progress| progress.committed >= position).await.is_err() {
            std::future::pending().await
        }
    }
}
