//! Stands in for `forebay_pipeline::{engine, query, telemetry}` until they land. Delete this file and
//! its `mod` line; `api.rs` then names the real ones. Counts lines; stores nothing.

#![expect(missing_docs, reason = "temporary")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::{Clock, Ctx, Instant};
use forebay_journal::disk::Disk;
use forebay_pipeline::codec::Limits;
use forebay_pipeline::schema::{Schema, Unknown};
use parking_lot::Mutex;

use crate::request::{Ack, Due, IngestError, Partial, Refusal, Reply, Request};

#[derive(Debug, Clone, Copy)]
pub struct MemoryShares {
    pub intake: u64,
    pub lanes: u64,
    pub query: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Workers {
    pub validate: usize,
    pub transform: usize,
    pub persist: usize,
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub disk_bytes_per_second: Option<u64>,
    pub disk_error_after_bytes: Option<u64>,
    pub stall_sinks: Vec<String>,
    pub panic_on: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnInvalid {
    #[default]
    DeadLetter,
    Reject,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Class {
    Critical,
    #[default]
    Normal,
    Bulk,
}

#[derive(Debug, Clone, Default)]
pub struct StreamConfig {
    pub schema: Option<Schema>,
    pub unknown: Unknown,
    pub on_invalid: OnInvalid,
    pub transform: Option<String>,
    pub journal_max: Option<u64>,
    pub workers: Option<Workers>,
    pub received_at: bool,
    pub class: Class,
}

#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub data_dir: PathBuf,
    pub memory: MemoryShares,
    pub streams: BTreeMap<String, StreamConfig>,
    pub auto_create: bool,
    pub max_streams: usize,
    pub admission_wait: Duration,
    pub limits: Limits,
    pub spool_bytes: u64,
    pub journal_max: u64,
    pub journals_max: u64,
    pub flush_bytes: u64,
    pub flush_interval: Duration,
    pub workers: Workers,
    pub key_window: Duration,
    pub key_count: usize,
    pub faults: Option<Faults>,
    pub drain_deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(pub String);

#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub name: String,
    pub rows: u64,
}

#[derive(Debug, Clone)]
pub struct LedgerRow {
    pub stream: String,
    pub received: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Receipt {
    pub stored: u64,
    pub left_in_journal: u64,
    pub lost: u64,
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Telemetry;

impl Telemetry {
    pub fn new(_registry: &prometheus::Registry) -> Result<Telemetry, prometheus::Error> {
        Ok(Telemetry)
    }
}

#[derive(Debug, Clone)]
pub struct Engine {
    config: Arc<EngineConfig>,
    rows: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Engine {
    pub async fn open(
        _ctx: &Ctx,
        config: EngineConfig,
        _clock: Clock,
        _disk: Arc<dyn Disk>,
        _telemetry: Arc<Telemetry>,
    ) -> Result<Engine, OpenError> {
        let rows = config.streams.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Engine { config: Arc::new(config), rows: Arc::new(Mutex::new(rows)) })
    }

    pub async fn begin(&self, request: Request) -> Result<Upload, IngestError> {
        if request.content_length.is_some_and(|length| length > self.config.memory.intake) {
            return Err(IngestError::Overloaded {
                reason: Refusal::Memory,
                retry_after: Duration::from_millis(1500),
                partial: Partial::default(),
            });
        }
        Ok(Upload { engine: self.clone(), request, lines: 0, bytes: 0 })
    }

    pub fn streams(&self) -> Vec<StreamInfo> {
        let rows = self.rows.lock();
        rows.iter().map(|(name, rows)| StreamInfo { name: name.clone(), rows: *rows }).collect()
    }

    pub fn stream(&self, name: &str) -> Option<StreamInfo> {
        self.streams().into_iter().find(|stream| stream.name == name)
    }

    pub async fn create_or_alter(
        &self,
        name: &str,
        _config: StreamConfig,
    ) -> Result<StreamInfo, StreamError> {
        if self.config.streams.contains_key(name) {
            return Err(StreamError(format!("`{name}` is declared in the configuration")));
        }
        self.rows.lock().entry(name.to_owned()).or_default();
        Ok(StreamInfo { name: name.to_owned(), rows: 0 })
    }

    pub async fn drop_stream(&self, name: &str, _force: bool) -> Result<(), StreamError> {
        self.rows.lock().remove(name);
        Ok(())
    }

    pub fn ledger(&self) -> Vec<LedgerRow> {
        let streams = self.streams().into_iter();
        streams.map(|info| LedgerRow { stream: info.name, received: info.rows }).collect()
    }

    pub async fn query(&self, sql: &str, _: Option<Duration>) -> Result<Vec<Bytes>, QueryError> {
        if sql.trim() == "SELECT 1 AS n" {
            return Ok(vec![Bytes::from_static(b"[{\"n\":1}]")]);
        }
        Err(QueryError(format!("cannot plan `{sql}`")))
    }

    pub async fn failed(&self) -> String {
        std::future::pending().await
    }

    pub async fn drain(&self, _deadline: Instant) -> Receipt {
        Receipt { stored: self.rows.lock().values().sum(), ..Receipt::default() }
    }
}

#[derive(Debug)]
pub struct Upload {
    engine: Engine,
    request: Request,
    lines: u64,
    bytes: u64,
}

impl Upload {
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        self.bytes += bytes.len() as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(())
    }

    pub async fn finish(self, _due: Due) -> Result<Reply, IngestError> {
        if self.bytes == 0 {
            return Err(IngestError::Empty);
        }
        *self.engine.rows.lock().entry(self.request.stream.clone()).or_default() += self.lines;
        Ok(Reply {
            stream: self.request.stream,
            ack: Ack::Durable,
            accepted: self.lines,
            rejected: 0,
            errors: Vec::new(),
            position: self.bytes,
            duplicate: false,
        })
    }
}
