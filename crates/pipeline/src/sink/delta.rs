//! The default sink: a Delta Lake table of zstd Parquet, which DuckDB, Spark, pandas, Polars and DataFusion read.
//!
//! ```text
//! flush ─► committed already? ─► encode (CPU pool) ─► put Parquet ─► put _delta_log/N.json, if absent ─► checkpoint
//!             └─ yes: done                                             └─ taken: read N, look again
//! ```
//!
//! One entry of the log holds the new files, the widened schema if it widened, and the lane's position and counters
//! (F2, F6). Owns the writer's view of one table's head. It never deletes a data file: an entry whose outcome is
//! unknown may refer to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake::delta_datafusion::DeltaScanNext;
use deltalake::kernel::transaction::{CommitData, TransactionError};
use deltalake::kernel::{Action, Add, MetadataExt as _, Protocol, Snapshot, Version, new_metadata};
use deltalake::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use forebay_flow::clock;
use forebay_flow::lock::Mutex;
use forebay_flow::pool::{self, ThreadPool};
use forebay_flow::queue::Bound;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::disk_store::is_full;
use super::parquet::{self, EncodeError};
use super::widen::widen;
use super::{Committed, Flush, Sink, SinkError, admit};

mod log;
mod schema;

use log::{Head, Table};

/// Attempts at one commit while other writers take the version first.
const ATTEMPTS: usize = 32;

/// Past this age a reader lists the log instead of trying the next version.
const VIEW_TRUSTED_FOR: Duration = Duration::from_secs(600);

/// How a table is written.
#[derive(Clone)]
pub struct DeltaOptions {
    /// Log entries between checkpoints, where the table does not say. Fewer: cheaper reads, dearer commits.
    pub checkpoint_every: u64,
    /// How long a new table keeps log entries behind a checkpoint (time travel); the log is listed by readers.
    pub log_retention: Duration,
    /// Whose threads encode Parquet.
    pub encoders: ThreadPool,
    /// Whose threads read and checkpoint logs; they wait for the store, so never those that serve it.
    pub log_readers: ThreadPool,
}

impl DeltaOptions {
    /// The usual, on these threads.
    #[must_use]
    pub fn new(encoders: &ThreadPool, log_readers: &ThreadPool) -> Self {
        Self {
            checkpoint_every: 100,
            log_retention: Duration::from_secs(24 * 3600),
            encoders: encoders.clone(),
            log_readers: log_readers.clone(),
        }
    }

    /// A table by itself, with two threads of its own.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn standalone() -> std::io::Result<Self> {
        let threads =
            pool::Builder::new("table", 2, Bound::items(4)).why("twice the threads").threads()?;
        Ok(Self::new(&threads, &threads))
    }
}

impl std::fmt::Debug for DeltaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaOptions")
            .field("checkpoint_every", &self.checkpoint_every)
            .finish_non_exhaustive()
    }
}

/// The URL of a table in the local lake: a scheme of its own, so that a query engine reads it through the store it
/// was given and no path of the machine is reachable by URL.
///
/// # Errors
/// A name that is no URL path.
pub fn lake_url(table: &str) -> Result<Url, SinkError> {
    Url::parse(&format!("forebay://lake/{table}/"))
        .map_err(|e| SinkError::Io(format!("{table}: {e}")))
}

/// A sink that is a Delta table. Commits of one sink run one at a time; reads do not wait for them.
#[derive(Debug)]
pub struct DeltaSink {
    log: LogStoreRef,
    options: DeltaOptions,
    writer: Mutex<Writer>,
    view: Mutex<View>,
    /// One past the newest version the writer knows, for readers that do not wait for it.
    versions: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    head: Head,
    /// Files that are in the store for a flush whose entry is not known to be in the log, by app id.
    written: HashMap<String, Written>,
}

/// A retry of the same flush takes the files it has already put, so that retries do not fill a disk.
#[derive(Debug)]
struct Written {
    of: (u64, u64, super::Counts, usize),
    adds: Vec<Add>,
}

/// What queries see.
#[derive(Debug)]
struct View {
    held: Option<(Version, Arc<dyn TableProvider>)>,
    checked: Instant,
}

impl DeltaSink {
    /// A table in `store`, at the path of `location`. No I/O; the table is created by its first commit.
    ///
    /// # Errors
    /// A location that is no path of a store.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        location: &Url,
        options: DeltaOptions,
    ) -> Result<Self, SinkError> {
        let prefix = Path::from_url_path(location.path()).map_err(fault)?;
        let scoped = Arc::new(PrefixStore::new(Arc::clone(&store), prefix));
        let log: LogStoreRef = default_logstore(scoped, store, location, &StorageConfig::default());
        let head = Head::new(Arc::clone(&log), &options.log_readers);
        let writer = Mutex::new("table writer", Writer { head, written: HashMap::new() });
        let view = Mutex::new("table view", View { held: None, checked: clock::now() });
        Ok(Self { log, options, writer, view, versions: AtomicU64::new(0) })
    }

    /// The table's log store, for maintenance (compaction, vacuum).
    #[must_use]
    pub fn log_store(&self) -> LogStoreRef {
        Arc::clone(&self.log)
    }

    /// The table's newest version as its writer knows it; `None` before it exists.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn version(&self) -> Result<Option<Version>, SinkError> {
        let mut writer = self.writer.lock().await;
        writer.head.doubt();
        writer.head.catch_up().await?;
        self.publish(&writer.head);
        Ok(writer.head.table().map(|table| table.version))
    }

    /// Puts the rows of a flush into the store as files of the table.
    async fn write_files(
        &self,
        writer: &mut Writer,
        flush: &mut Flush,
    ) -> Result<Vec<Add>, SinkError> {
        let rows = flush.batches.iter().map(|batch| batch.num_rows()).sum();
        let of = (flush.start, flush.end, flush.counts, rows);
        if let Some(written) = writer.written.get(&flush.app_id)
            && written.of == of
            && self.all_present(&written.adds).await
        {
            return Ok(written.adds.clone());
        }
        let (batches, schema) = (std::mem::take(&mut flush.batches), Arc::clone(&flush.schema));
        let work = self.options.encoders.run(move || parquet::encode(&batches, &schema)).await;
        let encoded = work.map_err(|why| SinkError::Io(format!("encoding: {why}")))?;
        let Some(encoded) = encoded.map_err(encode_fault)? else { return Ok(Vec::new()) };
        let add = Add {
            path: format!("part-00000-{}-c000.zstd.parquet", Uuid::new_v4()),
            size: i64::try_from(encoded.bytes.len()).unwrap_or(i64::MAX),
            modification_time: chrono::Utc::now().timestamp_millis(),
            data_change: true,
            stats: Some(encoded.stats),
            ..Add::default()
        };
        let payload = PutPayload::from_bytes(encoded.bytes);
        self.log
            .object_store(None)
            .put(&Path::from(add.path.as_str()), payload)
            .await
            .map_err(fault)?;
        let adds = vec![add];
        writer.written.insert(flush.app_id.clone(), Written { of, adds: adds.clone() });
        Ok(adds)
    }

    async fn all_present(&self, adds: &[Add]) -> bool {
        let store = self.log.object_store(None);
        for add in adds {
            match store.head(&Path::from(add.path.as_str())).await {
                Ok(meta) if i64::try_from(meta.size) == Ok(add.size) => {}
                _ => return false,
            }
        }
        true
    }

    /// One attempt at the log. `Ok(false)`: the version was taken.
    async fn append(
        &self,
        head: &mut Head,
        flush: &Flush,
        adds: &[Add],
    ) -> Result<bool, SinkError> {
        let Entry { bytes, version, metadata } = self.entry(head.table(), flush, adds)?;
        head.doubt();
        match self
            .log
            .write_commit_entry(version, CommitOrBytes::LogBytes(bytes), Uuid::new_v4())
            .await
        {
            Ok(()) => {
                head.landed(version, metadata, &flush.app_id, committed(flush));
                self.publish(head);
                Ok(true)
            }
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(false),
            Err(e) => Err(fault(e)),
        }
    }

    fn entry(
        &self,
        table: Option<&Table>,
        flush: &Flush,
        adds: &[Add],
    ) -> Result<Entry, SinkError> {
        let mut actions = Vec::with_capacity(adds.len() + 2);
        let metadata = match table {
            None => {
                let days = self.options.log_retention.as_secs().div_ceil(24 * 3600).max(1);
                let retention = ("delta.logRetentionDuration", format!("interval {days} days"));
                let every =
                    ("delta.checkpointInterval", self.options.checkpoint_every.max(1).to_string());
                let kernel = schema::to_delta(&flush.schema)?;
                let metadata = new_metadata(&kernel, Vec::<String>::new(), [retention, every])
                    .map_err(fault)?;
                let protocol: Protocol = serde_json::from_value(
                    serde_json::json!({ "minReaderVersion": 1, "minWriterVersion": 2 }),
                )
                .map_err(fault)?;
                actions.push(Action::Protocol(protocol));
                Some(metadata)
            }
            Some(table) => match widen(&table.schema, &flush.schema)? {
                Some(wide) => Some(
                    table.metadata.clone().with_schema(&schema::to_delta(&wide)?).map_err(fault)?,
                ),
                None => None,
            },
        };
        let metadata = match metadata {
            Some(metadata) => {
                let arrow = schema::of_table(&metadata)?;
                actions.push(Action::Metadata(metadata.clone()));
                Some((metadata, arrow))
            }
            None => None,
        };
        actions.extend(adds.iter().cloned().map(Action::Add));
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let about = HashMap::from([("forebay".to_owned(), about(flush))]);
        let txns = log::transactions(&flush.app_id, committed(flush))?;
        let bytes = CommitData::new(actions, operation, about, txns).get_bytes().map_err(fault)?;
        Ok(Entry { bytes, version: table.map_or(0, |table| table.version + 1), metadata })
    }

    /// Checkpoints the log every so often and lets old entries go. The rows are committed whatever happens here.
    async fn maintain(&self, head: &mut Head) {
        let Some(table) = head.table() else { return };
        let configured = table.metadata.configuration().get("delta.checkpointInterval");
        let every =
            configured.and_then(|v| v.parse().ok()).unwrap_or(self.options.checkpoint_every).max(1);
        if !(table.version + 1).is_multiple_of(every) {
            return;
        }
        // The kernel's writer nests waits, which needs a runtime of several threads.
        if tokio::runtime::Handle::current().runtime_flavor()
            == tokio::runtime::RuntimeFlavor::CurrentThread
        {
            return;
        }
        let version = table.version;
        if let Err(error) = self.checkpoint(head, version).await {
            tracing::warn!(table = %self.log.root_url(), version, %error, "the table's log was not checkpointed");
        }
    }

    async fn checkpoint(&self, head: &mut Head, version: Version) -> Result<(), SinkError> {
        let Some(snapshot) = head.kernel().await? else { return Ok(()) };
        let snapshot = log::checkpoint(&self.log, &self.options.log_readers, snapshot).await?;
        let properties = snapshot.table_properties();
        let retention = properties.log_retention_duration.unwrap_or(self.options.log_retention);
        let cleanup = properties.enable_expired_log_cleanup.unwrap_or(true);
        head.replace_kernel(snapshot);
        if cleanup {
            let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            let before = chrono::Utc::now().timestamp_millis().saturating_sub(retention);
            deltalake::checkpoints::cleanup_expired_logs_for(
                version,
                self.log.as_ref(),
                before,
                None,
            )
            .await
            .map_err(fault)?;
        }
        Ok(())
    }

    fn publish(&self, head: &Head) {
        if let Some(table) = head.table() {
            self.versions.fetch_max(table.version + 1, Ordering::AcqRel);
        }
    }

    /// The newest version a reader can find, from the one it holds and the one the writer knows.
    async fn newest(&self, view: &View, held: Version) -> Result<Version, SinkError> {
        if view.checked.elapsed() >= VIEW_TRUSTED_FOR {
            return self.log.get_latest_version(held).await.map_err(fault);
        }
        let store = self.log.object_store(None);
        let mut version = held.max(self.versions.load(Ordering::Acquire).saturating_sub(1));
        loop {
            match store.head(&deltalake::logstore::commit_uri_from_version(Some(version + 1))).await
            {
                Ok(_) => version += 1,
                Err(object_store::Error::NotFound { .. }) => return Ok(version),
                Err(e) => return Err(fault(e)),
            }
        }
    }
}

struct Entry {
    bytes: bytes::Bytes,
    version: Version,
    metadata: Option<(deltalake::kernel::Metadata, SchemaRef)>,
}

fn committed(flush: &Flush) -> Committed {
    Committed { end: flush.end, counts: flush.counts }
}

/// What a person who reads the table's history sees.
fn about(flush: &Flush) -> serde_json::Value {
    serde_json::json!({
        "appId": flush.app_id, "start": flush.start, "end": flush.end,
        "stored": flush.counts.stored, "filtered": flush.counts.filtered,
        "deadLater": flush.counts.dead_later, "deadAtDoor": flush.counts.dead_at_door,
    })
}

fn encode_fault(error: EncodeError) -> SinkError {
    SinkError::Schema(error.to_string())
}

/// An error of the store or the log, with its causes.
fn fault(error: impl std::error::Error + 'static) -> SinkError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    if is_full(&error) { SinkError::Full(text) } else { SinkError::Io(text) }
}

#[async_trait]
impl Sink for DeltaSink {
    fn kind(&self) -> &'static str {
        "delta"
    }

    async fn position(&self, app_id: &str) -> Result<Option<Committed>, SinkError> {
        let mut writer = self.writer.lock().await;
        writer.head.doubt();
        writer.head.catch_up().await?;
        self.publish(&writer.head);
        writer.head.committed(app_id).await
    }

    async fn commit(&self, mut flush: Flush) -> Result<(), SinkError> {
        let mut writer = self.writer.lock().await;
        let writer = &mut *writer;
        flush.schema = parquet::stored_schema(&flush.schema).map_err(encode_fault)?;
        writer.head.catch_up().await?;
        if !admit(&flush, writer.head.committed(&flush.app_id).await?)? {
            return Ok(());
        }
        // Refuse what cannot fit before it costs anything.
        drop(self.entry(writer.head.table(), &flush, &[])?);
        let adds = self.write_files(writer, &mut flush).await?;
        for _ in 0..ATTEMPTS {
            if self.append(&mut writer.head, &flush, &adds).await? {
                writer.written.remove(&flush.app_id);
                self.maintain(&mut writer.head).await;
                return Ok(());
            }
            writer.head.catch_up().await?;
            if !admit(&flush, writer.head.committed(&flush.app_id).await?)? {
                return Ok(());
            }
        }
        Err(SinkError::Io(format!("other writers took the next version {ATTEMPTS} times in a row")))
    }

    async fn takes(&self, schema: &SchemaRef) -> Result<(), SinkError> {
        let given = parquet::stored_schema(schema).map_err(encode_fault)?;
        let mut writer = self.writer.lock().await;
        writer.head.doubt();
        writer.head.catch_up().await?;
        match writer.head.table() {
            Some(table) => widen(&table.schema, &given).map(drop),
            None => Ok(()),
        }
    }

    async fn table(&self) -> Result<Option<Arc<dyn TableProvider>>, SinkError> {
        let mut view = self.view.lock().await;
        let newest = match &view.held {
            Some((held, _)) => Some(self.newest(&view, *held).await?),
            None if self.log.is_delta_table_location().await.map_err(fault)? => None,
            None => return Ok(None),
        };
        view.checked = clock::now();
        if let (Some((held, provider)), Some(newest)) = (&view.held, newest)
            && *held == newest
        {
            return Ok(Some(Arc::clone(provider)));
        }
        // Built from the newest checkpoint, not from the snapshot held: that one keeps naming log entries from before
        // the checkpoint, which the log's cleanup removes.
        let snapshot = Arc::new(Snapshot::try_new(self.log.as_ref(), newest).await.map_err(fault)?);
        let scan = DeltaScanNext::builder()
            .with_log_store(Arc::clone(&self.log))
            .with_snapshot(Arc::clone(&snapshot))
            .build()
            .await
            .map_err(fault)?;
        let provider: Arc<dyn TableProvider> = Arc::new(scan);
        view.held = Some((snapshot.version(), Arc::clone(&provider)));
        Ok(Some(provider))
    }
}
