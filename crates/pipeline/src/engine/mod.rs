//! The whole data path as one value: what the binary opens, feeds, asks and drains.
//!
//! ```text
//! Engine ── Inner ┬─ budget: intake │ lanes │ (query: its own pool)
//!                 ├─ pools: validate │ transform │ persist │ files │ lake
//!                 ├─ streams: journal, plans, sink, one lane each
//!                 └─ dead letters, and marks of the redriven: a table each, one owner
//! ```

mod alter;
mod ask;
mod assemble;
pub mod bounds;
mod config;
mod define;
mod drain;
mod letters;
mod open;
mod redrive;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_flow::budget::{Budget, Share};
use forebay_flow::pool::ThreadPool;
use forebay_flow::supervise::{self, Child};
use forebay_flow::{Clock, Scope, lock};
use forebay_journal::disk::Disk;
use forebay_journal::{KeyRoom, Writers};
use parking_lot::RwLock;

pub use self::config::{EngineConfig, Faults, MemoryShares, Workers};
pub use self::define::{StreamError, StreamInfo};
pub use self::drain::Receipt;
pub use self::letters::{Letter, LettersError, Place, Selection};
pub use self::open::OpenError;
pub use self::redrive::{Redrive, Redriving, Refused};
use crate::intake::{self, IngestError, Partial, Refusal, Request, Standing, Upload};
use crate::ledger::{self, LedgerRow, Totals};
use crate::sink::dead_letters::DeadLetters;
use crate::sink::delta::DeltaOptions;
use crate::sink::disk_store::DiskStore;
use crate::sink::redriven::Redriven;
use crate::stream::catalog::Catalog;
use crate::stream::catalog::Definition;
use crate::stream::{Stream, Usual};
use crate::telemetry::Telemetry;

/// A cheap handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What uploads and lanes share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub config: EngineConfig,
    pub clock: Clock,
    pub telemetry: Arc<Telemetry>,
    pub intake: Share,
    pub lanes: Share,
    pub validators: ThreadPool,
    pub transformers: ThreadPool,
    pub persisters: ThreadPool,
    pub dead_letters: DeadLetters,
    pub redriven: Redriven,
    /// Appends that outlive their request (`ack=received`).
    pub uploads: Scope,
    catalog: Catalog,
    disk: Arc<dyn Disk>,
    lake: DiskStore,
    lake_threads: ThreadPool,
    tables: ThreadPool,
    table_options: DeltaOptions,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    /// Held by whoever creates or drops a stream.
    changing: lock::Mutex<()>,
    supervisor: supervise::Handle,
    writers: Writers,
    /// What the journals of all streams share for idempotency keys.
    key_room: KeyRoom,
    query: ask::Queries,
    /// Small blocking work on files: checkpoints, attempts, the catalog.
    pub files: ThreadPool,
    draining: AtomicBool,
    stored: AtomicU64,
    /// The first failure that ends the process: a poisoned journal.
    failure: tokio::sync::watch::Sender<Option<String>>,
    /// Everything above is dropped before the budget is.
    _budget: Budget,
    supervised: parking_lot::Mutex<Option<Child>>,
    _lock: Lock,
}

/// The data directory's lock, held as long as the engine lives.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

impl Engine {
    /// The subtree of lanes, once: put it under the root supervisor, before whatever serves clients,
    /// so that it starts first and stops last.
    pub fn supervisor(&self) -> Option<Child> {
        self.inner.supervised.lock().take()
    }

    /// Admits an upload before its body is read (F7): the name, the journal's bound, then room in
    /// memory for one chunk of it. Cancel safe.
    ///
    /// # Errors
    /// `InvalidName`, `UnknownStream`, `TooManyStreams`, `Overloaded`.
    pub async fn begin(&self, request: Request) -> Result<Upload, IngestError> {
        let inner = &self.inner;
        if inner.draining.load(Ordering::Acquire) {
            let retry_after = inner.config.drain_retry_after();
            return Err(inner.refuse(Refusal::Draining, retry_after));
        }
        define::check_name(&request.stream)?;
        let stream = inner.stream(&request.stream);
        match &stream {
            None => inner.may_create()?,
            Some(stream) if stream.journal.backlog() >= stream.journal.max_bytes() => {
                let retry_after = inner.journal_retry_after(Some(stream));
                return Err(inner.refuse(Refusal::JournalFull, retry_after));
            }
            Some(_) => {}
        }
        let state = request.packing.state_bytes();
        let bytes = inner.config.upload_bytes(request.content_length) + state;
        let bytes = bytes.min(inner.config.memory.intake);
        let wait = request.wait.unwrap_or(Duration::MAX).min(inner.config.admission_wait);
        let until = inner.clock.now() + wait;
        let Ok(permit) = inner.intake.acquire_within(bytes, until).await else {
            return Err(inner.refuse(Refusal::Memory, Duration::from_secs(1)));
        };
        Ok(Upload::new(Arc::clone(inner), request, stream, permit))
    }

    /// How the stream of that name reads a body whose head does not say; nothing for a new stream.
    pub fn usual(&self, name: &str) -> Usual {
        if let Some(plan) = self.inner.stream(name).and_then(|stream| stream.current()) {
            let Definition { format, pattern, .. } = &plan.definition;
            return Usual { format: *format, pattern: pattern.clone() };
        }
        // Declared without a schema: it has no definition before its first row.
        let declared = self.inner.config.streams.get(name);
        declared.map_or_else(Usual::default, |stream| Usual {
            format: stream.format,
            pattern: stream.pattern.clone(),
        })
    }

    /// How far the upload under a tenant's key has come. Nothing known: offset 0. Cancel safe.
    ///
    /// # Errors
    /// `InvalidName`, `UnknownStream`.
    pub async fn standing(
        &self,
        stream: &str,
        tenant: &str,
        key: &str,
    ) -> Result<Standing, IngestError> {
        define::check_name(stream)?;
        let unknown = || IngestError::UnknownStream(stream.to_owned());
        let stream = self.inner.stream(stream).ok_or_else(unknown)?;
        Ok(intake::walk(&stream, tenant, key, u64::MAX).await)
    }

    /// The ledger, a line a stream.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        let streams = self.inner.streams.read();
        streams.values().map(|stream| ledger_row(stream)).collect()
    }

    /// Brings the gauges up to date; call it when metrics are read.
    pub fn observe(&self) {
        for stream in self.inner.streams.read().values() {
            stream.journal.expire_keys();
            let row = ledger_row(stream);
            let backlog = stream.journal.backlog();
            self.inner.telemetry.gauges(&stream.name, stream.lag_bytes(), backlog, row.difference);
        }
    }

    /// Ends when the process must: a journal failed in a way that only a restart can look into. Cancel
    /// safe.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// The threads that validate; patterns of requests are compiled on them, too.
    pub fn validators(&self) -> &ThreadPool {
        &self.inner.validators
    }

    /// The pools, in flow order, for metrics and the registry of tasks.
    pub fn pools(&self) -> Vec<ThreadPool> {
        let Inner { validators, transformers, persisters, files, tables, lake_threads, .. } =
            &*self.inner;
        [validators, transformers, persisters, files, tables, lake_threads]
            .into_iter()
            .chain(self.inner.writers.readers())
            .cloned()
            .collect()
    }

    /// The configuration in force.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }
}

fn ledger_row(stream: &Stream) -> LedgerRow {
    // The progress first: the head only grows, so nothing can be counted as stored before accepted.
    let progress = *stream.progress.borrow();
    ledger::row(&stream.name, Totals::from_counters(stream.journal.counters()), &progress)
}

impl Inner {
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.read().get(name).cloned()
    }

    /// Counts rows that reached their sink in this run of the process.
    pub fn stored(&self, rows: u64) {
        self.stored.fetch_add(rows, Ordering::Relaxed);
    }

    fn refuse(&self, reason: Refusal, retry_after: Duration) -> IngestError {
        self.telemetry.refused(reason);
        IngestError::Overloaded { reason, retry_after, partial: Partial::default() }
    }

    /// When a full journal is likely to have room: the backlog over what lanes usually drain, within
    /// 5 to 300 s.
    pub fn journal_retry_after(&self, stream: Option<&Stream>) -> Duration {
        /// Bytes per second that a lane is taken to drain until it has been measured.
        const DRAIN: u64 = 50 << 20;
        let lag = stream.map_or(0, Stream::lag_bytes);
        Duration::from_secs((lag / DRAIN).clamp(5, 300))
    }
}
