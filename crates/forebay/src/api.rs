//! The one place that knows the pipeline's façade: settings in, plain JSON and bytes out.
//! HTTP, commands and lifecycle speak to this module only, so a change of the façade ends here.

pub mod edit;
pub mod letters;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::{Clock, Ctx};
use forebay_journal::disk::RealDisk;
use forebay_pipeline::codec::unpack::Expansion;
use forebay_pipeline::engine;
use forebay_pipeline::query::{Encoder, ErrorKind, Format, QueryError, QueryStream};
use forebay_pipeline::stream::catalog::{Definition, Origin};
use serde_json::{Value, json};

pub use forebay_pipeline::engine::{Engine, Receipt};
pub use forebay_pipeline::intake::{
    Ack, Due, IngestError, Partial, Refusal, Reply, Request, RowError, Standing, Upload,
};
pub use forebay_pipeline::telemetry::Telemetry;

use crate::catalogue::{self, Kind};
use crate::config::{self, Config};

/// A commit to a sink that takes longer is given up; its rows are read from the journal again.
const SINK_TIMEOUT: Duration = Duration::from_secs(30);

/// The most versions that are shown of a stream, newest first.
const VERSIONS: usize = 20;

/// What the engine is built from.
///
/// # Errors
/// A text for people that names the stream whose schema is at fault.
pub fn engine_config(config: &Config) -> Result<engine::EngineConfig, String> {
    let limits = config.codec_limits();
    let mut streams = std::collections::BTreeMap::new();
    for (name, stream) in &config.streams {
        let settings =
            stream.to_engine().map_err(|error| format!("streams.{name}.schema: {error}"))?;
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
        expansion: Expansion { ratio: config.limits.expansion, ..Expansion::default() },
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
            disk_full_after_bytes: faults.disk_full_after_bytes,
            stall_sinks: faults.stall_sinks.unwrap_or_default(),
            panic_on: faults.panic_on,
        },
        drain_deadline: config.drain_deadline,
    }
    .fitted())
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
            full_after_bytes: settings.faults.disk_full_after_bytes,
        }),
    };
    Engine::open(ctx, settings, Clock::system(), Arc::new(disk), telemetry)
        .await
        .map_err(|error| error.to_string())
}

/// A stream as `GET /api/v1/streams` shows it.
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
        "format": definition.format,
        "pattern": definition.pattern,
        "received_at": definition.received_at,
        "table": info.table.display().to_string(),
        "journal": { "bytes": info.journal_bytes, "max": info.journal_max },
        "lag_bytes": info.lag_bytes,
    })
}

/// A stream with its versions and its rows, as `GET /api/v1/streams/NAME` shows it; `None` where there is
/// none.
pub fn describe_json(engine: &Engine, name: &str) -> Option<Value> {
    let mut shown = stream_json(&engine.stream(name)?);
    let versions = engine.versions(name)?;
    let version = |definition: &Definition| {
        json!({
            "version": definition.version,
            "schema": definition.schema.to_ddl(),
            "unknown": definition.unknown,
            "on_invalid": definition.on_invalid,
            "transform": definition.transform,
        })
    };
    let newest = versions.iter().rev().take(VERSIONS).map(version);
    shown["versions"] = Value::Array(newest.collect());
    let Value::Array(rows) = ledger_json(engine) else { return Some(shown) };
    shown["rows"] = rows.into_iter().find(|row| row["stream"] == name).unwrap_or_default();
    Some(shown)
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
    /// Which refusal it is.
    pub kind: &'static Kind,
    /// Why, for people.
    pub message: String,
}

impl From<engine::StreamError> for StreamFailure {
    fn from(error: engine::StreamError) -> StreamFailure {
        use engine::StreamError as E;
        let kind = match &error {
            E::Name(_) => catalogue::STREAM_NAME,
            E::Sql(_) => catalogue::STREAM_SETTINGS,
            E::Unknown(_) => catalogue::UNKNOWN_STREAM,
            E::TooMany(_) => catalogue::TOO_MANY_STREAMS,
            E::Declared(_) | E::Incompatible(_) | E::Busy(_) => catalogue::STREAM_REFUSED,
            E::Changed { .. } => catalogue::STREAM_CHANGED,
            E::Io(_) | E::Start(_) => catalogue::INTERNAL,
        };
        StreamFailure { kind, message: error.to_string() }
    }
}

/// Creates or alters a stream; `expected` is the version to be changed, 0 for none, where that matters.
///
/// # Errors
/// [`StreamFailure`]; nothing was changed.
pub async fn put_stream(
    engine: &Engine,
    name: &str,
    stream: &config::Stream,
    expected: Option<u32>,
) -> Result<Value, StreamFailure> {
    let settings = stream.to_engine().map_err(|error| StreamFailure {
        kind: catalogue::STREAM_SETTINGS,
        message: format!("schema: {error}"),
    })?;
    Ok(stream_json(&engine.create_or_alter(name, settings, expected).await?))
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
    /// Which refusal it is.
    pub kind: &'static Kind,
    /// Why, for people.
    pub message: String,
    /// Where in the SQL: line and column, from 1.
    pub position: Option<(u64, u64)>,
}

impl From<QueryError> for QueryFailure {
    fn from(error: QueryError) -> QueryFailure {
        let kind = match error.kind {
            ErrorKind::Syntax => catalogue::QUERY_SYNTAX,
            ErrorKind::UnknownTable => catalogue::QUERY_UNKNOWN_TABLE,
            ErrorKind::Invalid => catalogue::QUERY_INVALID,
            ErrorKind::NotReadOnly => catalogue::QUERY_NOT_READ_ONLY,
            ErrorKind::Data => catalogue::QUERY_DATA,
            ErrorKind::Resources => catalogue::QUERY_RESOURCES,
            ErrorKind::Timeout => catalogue::QUERY_TIMEOUT,
            ErrorKind::Internal => catalogue::INTERNAL,
        };
        QueryFailure { kind, message: error.to_string(), position: error.position }
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
    QueryFailure { kind: catalogue::QUERY_FORM, message, position: None }
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
