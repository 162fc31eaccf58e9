//! The one place that knows the pipeline's façade: settings in, plain JSON and bytes out.
//! HTTP, commands and lifecycle speak to this module only, so a change of the façade ends here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::{Clock, Ctx};
use forebay_journal::disk::RealDisk;
use forebay_pipeline::codec;
use forebay_pipeline::schema;
use serde_json::{Value, json};

pub use crate::engine_stub::{Engine, Receipt, Telemetry, Upload};
pub use crate::request::{
    RowError,
    Ack, Due, IngestError, Partial, Refusal, Reply, Request,
};
use crate::config::{self, Config};
use crate::engine_stub as engine;

/// The class of a stream, as a metric label.
pub fn class_of(_engine: &Engine, _stream: &str) -> &'static str {
    "normal"
}

/// What the engine is built from.
///
/// # Errors
/// A text for people that names the stream whose schema or transform cannot be planned.
pub fn engine_config(config: &Config) -> Result<engine::EngineConfig, String> {
    let mut streams = std::collections::BTreeMap::new();
    for (name, stream) in &config.streams {
        let settings = stream_config(name, stream)
            .map_err(|message| format!("streams.{name}: {message}"))?;
        streams.insert(name.clone(), settings);
    }
    let faults = config.faults.as_ref().map(|faults| engine::Faults {
        disk_bytes_per_second: faults.disk_bytes_per_second,
        disk_error_after_bytes: faults.disk_error_after_bytes,
        stall_sinks: faults.stall_sinks.clone().unwrap_or_default(),
        panic_on: faults.panic_on.clone(),
    });
    Ok(engine::EngineConfig {
        data_dir: config.data_dir.clone(),
        memory: engine::MemoryShares {
            intake: config.memory.intake,
            lanes: config.memory.lanes,
            query: config.memory.query,
        },
        streams,
        auto_create: config.auto_create,
        max_streams: config.limits.streams,
        admission_wait: config.admission_wait,
        limits: codec::Limits {
            chunk_bytes: config.limits.chunk,
            record_bytes: config.limits.row,
            columns: config.limits.columns,
            depth: config.limits.depth,
            ..codec::Limits::default()
        },
        spool_bytes: config.limits.spool,
        journal_max: config.journal.max,
        journals_max: config.journal.total,
        flush_bytes: config.flush.bytes,
        flush_interval: config.flush.interval,
        workers: engine::Workers {
            validate: config.workers.validate,
            transform: config.workers.transform,
            persist: config.workers.persist,
        },
        key_window: config.key_window,
        key_count: config.key_count,
        faults,
        drain_deadline: config.drain_deadline,
    })
}

/// A stream's settings as the engine takes them, with its schema and transform planned.
///
/// # Errors
/// A text for people with the position in the DDL or the SQL.
pub fn stream_config(_name: &str, stream: &config::Stream) -> Result<engine::StreamConfig, String> {
    Ok(engine::StreamConfig {
        schema: None,
        unknown: match stream.unknown {
            config::Unknown::DeadLetter => schema::Unknown::DeadLetter,
            config::Unknown::Drop => schema::Unknown::Drop,
            config::Unknown::Keep => schema::Unknown::Keep,
        },
        on_invalid: match stream.on_invalid {
            config::OnInvalid::DeadLetter => engine::OnInvalid::DeadLetter,
            config::OnInvalid::Reject => engine::OnInvalid::Reject,
        },
        transform: stream.transform.clone(),
        journal_max: stream.journal_max,
        workers: None,
        received_at: stream.received_at,
        class: match stream.class {
            config::Class::Critical => engine::Class::Critical,
            config::Class::Normal => engine::Class::Normal,
            config::Class::Bulk => engine::Class::Bulk,
        },
    })
}

/// Opens the data directory: recovers every journal.
///
/// # Errors
/// A text for people.
pub async fn open(ctx: &Ctx, config: &Config, telemetry: Arc<Telemetry>) -> Result<Engine, String> {
    let settings = engine_config(config)?;
    Engine::open(ctx, settings, Clock::system(), Arc::new(RealDisk::new()), telemetry)
        .await
        .map_err(|error| error.to_string())
}

/// One line of `forebay check`'s queue table.
#[derive(Debug, Clone)]
pub struct QueueLine {
    /// The queue.
    pub name: &'static str,
    /// Its bound, with its unit.
    pub bound: String,
    /// What happens to a submission when it is full.
    pub policy: &'static str,
    /// Why it is that large.
    pub why: &'static str,
}

/// Every queue that a configuration makes; the running server shows them at `/api/v1/queues`.
pub fn queue_table(config: &Config) -> Vec<QueueLine> {
    let stage = |name, workers: usize| QueueLine {
        name,
        bound: format!("{} items", 2 * workers),
        policy: "block",
        why: "one item in work and one ready, for each worker",
    };
    vec![
        stage("validate", config.workers.validate),
        stage("transform", config.workers.transform),
        stage("persist", config.workers.persist),
        QueueLine {
            name: "journal (a stream)",
            bound: config::units::Size(config.journal.max).to_string(),
            policy: "503",
            why: "[journal] max, on disk",
        },
        QueueLine {
            name: "connections",
            bound: config.http.max_connections.to_string(),
            policy: "503",
            why: "[http] max_connections; health and metrics are answered beyond it",
        },
        QueueLine {
            name: "log",
            bound: format!("{} lines", config::memory::LOG_LINES),
            policy: "drop",
            why: "dropped lines are counted",
        },
    ]
}

/// A stream as `GET /api/v1/streams/NAME` shows it.
pub fn stream_json(info: &engine::StreamInfo) -> Value {
    json!({ "name": info.name, "rows": info.rows })
}

/// All streams.
pub fn streams_json(engine: &Engine) -> Value {
    Value::Array(engine.streams().iter().map(stream_json).collect())
}

/// The ledger, one object a stream.
pub fn ledger_json(engine: &Engine) -> Value {
    let row = |row: &engine::LedgerRow| json!({ "stream": row.stream, "received": row.received });
    Value::Array(engine.ledger().iter().map(row).collect())
}

/// Why a stream was not created, altered or dropped.
#[derive(Debug)]
pub struct StreamFailure {
    /// The HTTP status.
    pub status: u16,
    /// Why, for people.
    pub message: String,
}

/// Creates or alters a stream.
///
/// # Errors
/// [`StreamFailure`]; nothing was changed.
pub async fn put_stream(
    engine: &Engine,
    name: &str,
    stream: &config::Stream,
) -> Result<Value, StreamFailure> {
    let settings = stream_config(name, stream)
        .map_err(|message| StreamFailure { status: 400, message })?;
    let info = engine.create_or_alter(name, settings).await;
    info.map(|info| stream_json(&info)).map_err(stream_failure)
}

/// Drops a stream; without `force` only when nothing of it waits in the journal.
///
/// # Errors
/// [`StreamFailure`]; the stream is still there.
pub async fn drop_stream(engine: &Engine, name: &str, force: bool) -> Result<(), StreamFailure> {
    engine.drop_stream(name, force).await.map_err(stream_failure)
}

fn stream_failure(error: engine::StreamError) -> StreamFailure {
    StreamFailure { status: 409, message: error.to_string() }
}

/// The form of a query's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFormat {
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// With a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl AnswerFormat {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            AnswerFormat::Json => "application/json",
            AnswerFormat::Ndjson => "application/x-ndjson",
            AnswerFormat::Csv => "text/csv; charset=utf-8",
            AnswerFormat::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Why a query was refused or broke off.
#[derive(Debug)]
pub struct QueryFailure {
    /// The HTTP status.
    pub status: u16,
    /// A stable word.
    pub code: &'static str,
    /// Why, for people.
    pub message: String,
    /// Where in the SQL: line and column, from 1.
    pub position: Option<(u64, u64)>,
}

/// A query's answer, encoded piece by piece as it is asked for. Dropping it cancels the query.
#[derive(Debug)]
pub struct Answer {
    pieces: std::vec::IntoIter<Bytes>,
}

impl Answer {
    /// The next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// The answer is incomplete; what was given before must not be taken for the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, QueryFailure> {
        Ok(self.pieces.next())
    }
}

/// Starts a query.
///
/// # Errors
/// [`QueryFailure`] before the first row.
pub async fn query(
    engine: &Engine,
    sql: &str,
    timeout: Duration,
    _format: AnswerFormat,
) -> Result<Answer, QueryFailure> {
    let pieces = engine.query(sql, Some(timeout)).await.map_err(|error| QueryFailure {
        status: 400,
        code: "query-syntax",
        message: error.to_string(),
        position: None,
    })?;
    Ok(Answer { pieces: pieces.into_iter() })
}
