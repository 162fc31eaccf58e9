//! The one place that knows the pipeline's façade: settings in, plain JSON and bytes out.
//! HTTP, commands and lifecycle speak to this module only, so a change of the façade ends here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::{Clock, Ctx};
use forebay_journal::disk::RealDisk;
use forebay_pipeline::query::{Encoder, ErrorKind, Format, QueryError, QueryStream};
use forebay_pipeline::schema::{self, Schema};
use forebay_pipeline::stream::catalog::{OnInvalid, Origin};
use forebay_pipeline::stream::{Plan, StreamConfig};
use forebay_pipeline::{codec, engine};
use serde_json::{Value, json};

pub use forebay_pipeline::engine::{Engine, Receipt};
pub use forebay_pipeline::intake::{
    Ack, Due, IngestError, Partial, Refusal, Reply, Request, RowError, Standing, Upload,
};
pub use forebay_pipeline::telemetry::Telemetry;

use crate::config::{self, Config};

/// A commit to a sink that takes longer is given up; its rows are read from the journal again.
const SINK_TIMEOUT: Duration = Duration::from_secs(30);

/// What the engine is built from.
///
/// # Errors
/// A text for people that names the stream whose schema or transform cannot be planned.
pub fn engine_config(config: &Config) -> Result<engine::EngineConfig, String> {
    let limits = codec::Limits {
        chunk_bytes: config.limits.chunk,
        record_bytes: config.limits.row,
        columns: config.limits.columns,
        depth: config.limits.depth,
        ..codec::Limits::default()
    };
    let mut streams = std::collections::BTreeMap::new();
    for (name, stream) in &config.streams {
        let settings =
            stream_config(stream).map_err(|message| format!("streams.{name}.{message}"))?;
        if let Some(definition) = settings.definition() {
            Plan::new(name, definition, limits)
                .map_err(|error| format!("streams.{name}.transform: {error}"))?;
        }
        streams.insert(name.clone(), settings);
    }
    let faults = config.faults.clone().unwrap_or_default();
    Ok(engine::EngineConfig {
        data_dir: config.data_dir.clone(),
        memory: engine::MemoryShares::of(config.memory_budget),
        streams,
        auto_create: config.auto_create,
        max_streams: config.limits.streams,
        admission_wait: config.admission_wait,
        limits,
        expansion: codec::unpack::Expansion {
            ratio: config.limits.expansion,
            ..codec::unpack::Expansion::default()
        },
        spool_bytes: config.limits.spool,
        journal_max: config.journal_max,
        flush_bytes: config.flush.bytes,
        flush_interval: config.flush.interval,
        sink_timeout: SINK_TIMEOUT,
        query_timeout: config.query_timeout,
        workers: engine::Workers {
            validate: config.workers.validate,
            transform: config.workers.transform,
            persist: config.workers.persist,
            query: config.workers.persist,
        },
        key_window: config.key_window,
        key_count: config.key_count,
        faults: engine::Faults {
            disk_bytes_per_second: faults.disk_bytes_per_second,
            disk_error_after_bytes: faults.disk_error_after_bytes,
            stall_sinks: faults.stall_sinks.unwrap_or_default(),
            panic_on: faults.panic_on,
        },
        drain_deadline: config.drain_deadline,
    }
    .fitted())
}

/// A stream's settings as the engine takes them.
///
/// # Errors
/// A text for people with the position in the DDL.
fn stream_config(stream: &config::Stream) -> Result<StreamConfig, String> {
    let schema = stream.schema.as_deref().map(Schema::parse).transpose();
    Ok(StreamConfig {
        schema: schema.map_err(|error| format!("schema: {error}"))?,
        unknown: match stream.unknown {
            config::Unknown::DeadLetter => schema::Unknown::DeadLetter,
            config::Unknown::Drop => schema::Unknown::Drop,
            config::Unknown::Keep => schema::Unknown::Keep,
        },
        on_invalid: match stream.on_invalid {
            config::OnInvalid::DeadLetter => OnInvalid::DeadLetter,
            config::OnInvalid::Reject => OnInvalid::Reject,
        },
        transform: stream.transform.clone(),
        pattern: stream.pattern.clone(),
        journal_max: stream.journal_max,
        received_at: stream.received_at,
    })
}

/// Opens the data directory: locks it and recovers every journal.
///
/// # Errors
/// A text for people: in use, of a newer version, not writable, damaged.
pub async fn open(ctx: &Ctx, config: &Config, telemetry: Arc<Telemetry>) -> Result<Engine, String> {
    let settings = engine_config(config)?;
    let disk = match config.faults {
        None => RealDisk::new(),
        Some(_) => RealDisk::with_faults(forebay_journal::disk::Faults {
            bytes_per_second: settings.faults.disk_bytes_per_second,
            error_after_bytes: settings.faults.disk_error_after_bytes,
        }),
    };
    Engine::open(ctx, settings, Clock::system(), Arc::new(disk), telemetry)
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
        why: "twice the workers: none idles between jobs",
    };
    vec![
        stage("validate", config.workers.validate),
        stage("transform", config.workers.transform),
        stage("persist", config.workers.persist),
        QueueLine {
            name: "journal (each stream)",
            bound: config::units::Size(config.journal_max).to_string(),
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
    let definition = &info.definition;
    json!({
        "name": info.name,
        "id": info.id,
        "created_by": match info.origin {
            Origin::Config => "config",
            Origin::Api => "api",
            Origin::Auto => "auto",
        },
        "version": definition.version,
        "schema": definition.schema.to_ddl(),
        "unknown": definition.unknown,
        "on_invalid": definition.on_invalid,
        "transform": definition.transform,
        "pattern": definition.pattern,
        "received_at": definition.received_at,
        "table": info.table.display().to_string(),
        "journal": { "bytes": info.journal_bytes, "max": info.journal_max },
        "lag_bytes": info.lag_bytes,
    })
}

/// All streams.
pub fn streams_json(engine: &Engine) -> Value {
    Value::Array(engine.streams().iter().map(stream_json).collect())
}

/// The ledger, one object a stream.
pub fn ledger_json(engine: &Engine) -> Value {
    let rows = engine.ledger();
    let row = rows.iter().map(|row| {
        json!({
            "stream": row.stream,
            "received": row.received,
            "accepted": row.accepted,
            "rejected": row.rejected,
            "stored": row.stored,
            "filtered": row.filtered,
            "dead_lettered": row.dead_lettered_later,
            "dead_lettered_at_door": row.dead_lettered_at_door,
            "in_journal": row.in_journal,
            "rejected_in_journal": row.rejected_in_journal,
            "difference": row.difference,
        })
    });
    Value::Array(row.collect())
}

/// Why a stream was not created, altered or dropped.
#[derive(Debug)]
pub struct StreamFailure {
    /// The HTTP status.
    pub status: u16,
    /// Why, for people.
    pub message: String,
}

impl From<engine::StreamError> for StreamFailure {
    fn from(error: engine::StreamError) -> StreamFailure {
        use engine::StreamError as E;
        let status = match &error {
            E::Name(_) | E::Sql(_) | E::Incompatible(_) => 400,
            E::Unknown(_) => 404,
            E::Declared(_) | E::TooMany(_) | E::Busy(_) => 409,
            E::Io(_) | E::Start(_) => 500,
        };
        StreamFailure { status, message: error.to_string() }
    }
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
    let settings =
        stream_config(stream).map_err(|message| StreamFailure { status: 400, message })?;
    Ok(stream_json(&engine.create_or_alter(name, settings).await?))
}

/// Drops a stream; without `force` only when nothing of it waits in the journal.
///
/// # Errors
/// [`StreamFailure`]; the stream is still there.
pub async fn drop_stream(engine: &Engine, name: &str, force: bool) -> Result<(), StreamFailure> {
    Ok(engine.drop_stream(name, force).await?)
}

/// The form of a query's answer.
pub type AnswerFormat = Format;

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

impl From<QueryError> for QueryFailure {
    fn from(error: QueryError) -> QueryFailure {
        let (status, code) = match error.kind {
            ErrorKind::Syntax => (400, "query-syntax"),
            ErrorKind::UnknownTable => (400, "query-unknown-table"),
            ErrorKind::Invalid => (400, "query-invalid"),
            ErrorKind::NotReadOnly => (400, "query-not-read-only"),
            ErrorKind::Data => (400, "query-data"),
            ErrorKind::Resources => (503, "query-resources"),
            ErrorKind::Timeout => (504, "query-timeout"),
            ErrorKind::Internal => (500, "internal"),
        };
        QueryFailure { status, code, message: error.to_string(), position: error.position }
    }
}

/// A query's answer, encoded piece by piece as it is asked for. Dropping it cancels the query.
#[derive(Debug)]
pub struct Answer {
    rows: QueryStream,
    /// `None` once the answer is whole.
    encoder: Option<Encoder>,
}

impl Answer {
    /// The next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// The answer is incomplete; what was given before must not be taken for the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, QueryFailure> {
        while let Some(encoder) = &mut self.encoder {
            let piece = match self.rows.next().await {
                Some(batch) => encoder.encode(&batch?),
                None => match self.encoder.take() {
                    Some(encoder) => encoder.finish(),
                    None => return Ok(None),
                },
            };
            let piece = piece.map_err(unwritable)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

fn unwritable(error: impl std::fmt::Display) -> QueryFailure {
    let message = format!("the answer cannot be written in this form: {error}");
    QueryFailure { status: 400, code: "query-form", message, position: None }
}

/// Starts a query.
///
/// # Errors
/// [`QueryFailure`] before the first row.
pub async fn query(
    engine: &Engine,
    sql: &str,
    timeout: Duration,
    format: AnswerFormat,
) -> Result<Answer, QueryFailure> {
    let rows = engine.query(sql, Some(timeout)).await?;
    let encoder = Encoder::new(format, rows.schema()).map_err(unwritable)?;
    Ok(Answer { rows, encoder: Some(encoder) })
}
