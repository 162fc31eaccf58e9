//! A table's head as its writer knows it: version, schema, and the positions of the lanes that write to it.
//!
//! It is read once, then kept by what is committed. After a conflict or an error the entries past the known version
//! are read, one by one, and nothing else: a commit costs the same at version ten and at version ten thousand.
//! Holds no file list and no rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use delta_kernel::{Engine, Snapshot, SnapshotRef};
use deltalake::kernel::{Metadata, Transaction, Version};
use deltalake::logstore::LogStoreRef;
use forebay_flow::clock;
use forebay_flow::pool::ThreadPool;
use serde_json::Value;
use tokio::time::Instant;

use super::{fault, schema};
use crate::sink::{Committed, Counts, SinkError};

/// Past this age the log is listed again before it is trusted: entries may have been cleaned up behind the head, and
/// a commit at a cleaned-up version would be lost.
const TRUSTED_FOR: Duration = Duration::from_secs(600);

/// The txn actions of one lane: its position, then one per counter. They survive checkpoints and log cleanup.
const COUNTERS: [&str; 4] = ["stored", "filtered", "dead_later", "dead_at_door"];

/// The table at a version.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) version: Version,
    pub(super) metadata: Metadata,
    pub(super) schema: SchemaRef,
    /// The kernel's snapshot, of this version or an older one.
    kernel: Option<SnapshotRef>,
}

/// What the writer knows.
#[derive(Debug)]
pub(super) struct Head {
    log: LogStoreRef,
    /// Where the kernel waits.
    threads: ThreadPool,
    table: Option<Table>,
    known: HashMap<String, Option<Committed>>,
    /// Something may have been committed past the known version.
    unsure: bool,
    checked: Instant,
}

impl Head {
    pub(super) fn new(log: LogStoreRef, threads: &ThreadPool) -> Self {
        Self {
            log,
            threads: threads.clone(),
            table: None,
            known: HashMap::new(),
            unsure: true,
            checked: clock::now(),
        }
    }

    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// From here until `landed` the log may hold more than is known.
    pub(super) fn doubt(&mut self) {
        self.unsure = true;
    }

    /// Brings the head up to the log's end; free when nothing can have happened.
    pub(super) async fn catch_up(&mut self) -> Result<(), SinkError> {
        if !self.unsure && self.checked.elapsed() < TRUSTED_FOR {
            return Ok(());
        }
        match self.table.as_ref().map(|table| table.version) {
            None => self.load().await?,
            Some(version) => {
                if self.checked.elapsed() >= TRUSTED_FOR && self.is_behind_cleanup(version).await? {
                    self.known.clear();
                    self.load().await?;
                } else {
                    self.read_on().await?;
                }
            }
        }
        self.unsure = false;
        self.checked = clock::now();
        Ok(())
    }

    async fn is_behind_cleanup(&self, version: Version) -> Result<bool, SinkError> {
        let newest = self.log.get_latest_version(version).await.map_err(fault)?;
        Ok(newest > version
            && self.log.read_commit_entry(version + 1).await.map_err(fault)?.is_none())
    }

    /// Reads the entries past the known version.
    async fn read_on(&mut self) -> Result<(), SinkError> {
        let mut reload = false;
        while let Some(table) = &mut self.table {
            let next = table.version + 1;
            let Some(entry) = self.log.read_commit_entry(next).await.map_err(fault)? else { break };
            reload |= note(&mut self.known, &entry)?;
            table.version = next;
        }
        if reload { self.load().await } else { Ok(()) }
    }

    /// Reads the table from its log: protocol, metadata, version; not its files.
    async fn load(&mut self) -> Result<(), SinkError> {
        if self.table.is_none() && !self.log.is_delta_table_location().await.map_err(fault)? {
            return Ok(());
        }
        let snapshot = snapshot(&self.log, &self.threads, None).await?;
        let config = snapshot.table_configuration();
        let metadata = config.metadata().clone();
        schema::check_appendable(config.protocol(), &metadata)?;
        let (schema, version) = (schema::of_table(&metadata)?, snapshot.version());
        self.table = Some(Table { version, metadata, schema, kernel: Some(snapshot) });
        Ok(())
    }

    /// What is committed under an app id, at the head.
    pub(super) async fn committed(&mut self, app_id: &str) -> Result<Option<Committed>, SinkError> {
        if let Some(known) = self.known.get(app_id) {
            return Ok(*known);
        }
        let found = match self.kernel().await? {
            Some(snapshot) => lookup(&self.log, &self.threads, snapshot, app_id).await?,
            None => None,
        };
        self.known.insert(app_id.to_owned(), found);
        Ok(found)
    }

    /// The kernel's snapshot of the head.
    pub(super) async fn kernel(&mut self) -> Result<Option<SnapshotRef>, SinkError> {
        let Some(table) = &mut self.table else { return Ok(None) };
        let current = table.kernel.as_ref().is_some_and(|kernel| kernel.version() == table.version);
        if !current {
            let at = Some(table.version);
            table.kernel = Some(snapshot(&self.log, &self.threads, at).await?);
        }
        Ok(table.kernel.clone())
    }

    /// Takes over a snapshot that knows of a new checkpoint.
    pub(super) fn replace_kernel(&mut self, snapshot: SnapshotRef) {
        if let Some(table) = &mut self.table {
            table.kernel = Some(snapshot);
        }
    }

    /// Notes that this writer's entry is in the log.
    pub(super) fn landed(
        &mut self,
        version: Version,
        metadata: Option<(Metadata, SchemaRef)>,
        app_id: &str,
        committed: Committed,
    ) {
        match (&mut self.table, metadata) {
            (Some(table), metadata) => {
                table.version = version;
                if let Some((metadata, schema)) = metadata {
                    table.metadata = metadata;
                    table.schema = schema;
                }
            }
            (None, Some((metadata, schema))) => {
                self.table = Some(Table { version, metadata, schema, kernel: None });
            }
            (None, None) => {}
        }
        self.known.insert(app_id.to_owned(), Some(committed));
        self.unsure = false;
    }
}

/// The actions that store a lane's position and counters.
pub(super) fn transactions(
    app_id: &str,
    committed: Committed,
) -> Result<Vec<Transaction>, SinkError> {
    let Counts { stored, filtered, dead_later, dead_at_door } = committed.counts;
    let values = [stored, filtered, dead_later, dead_at_door];
    let counters =
        COUNTERS.iter().zip(values).map(|(name, value)| (format!("{app_id}/{name}"), value));
    std::iter::once((app_id.to_owned(), committed.end))
        .chain(counters)
        .map(|(app_id, value)| {
            let value = i64::try_from(value)
                .map_err(|_| SinkError::Io(format!("{app_id}: {value} is too large")))?;
            Ok(Transaction::new(app_id, value))
        })
        .collect()
}

/// Notes what an entry of the log says about known lanes. True when protocol or metadata changed.
fn note(known: &mut HashMap<String, Option<Committed>>, entry: &[u8]) -> Result<bool, SinkError> {
    let mut changed = false;
    let mut found: HashMap<String, i64> = HashMap::new();
    for line in entry.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let action: Value = serde_json::from_slice(line)
            .map_err(|e| SinkError::Io(format!("the table's log is damaged: {e}")))?;
        changed |= action.get("metaData").is_some() || action.get("protocol").is_some();
        let txn = action.get("txn");
        let app_id = txn.and_then(|txn| txn.get("appId")).and_then(Value::as_str);
        let version = txn.and_then(|txn| txn.get("version")).and_then(Value::as_i64);
        if let (Some(app_id), Some(version)) = (app_id, version) {
            found.insert(app_id.to_owned(), version);
        }
    }
    for (app_id, committed) in known.iter_mut() {
        if let Some(end) = found.get(app_id) {
            let counter = |name: &str| found.get(&format!("{app_id}/{name}")).copied();
            *committed = Some(assemble(*end, counter));
        }
    }
    Ok(changed)
}

fn assemble(end: i64, counter: impl Fn(&str) -> Option<i64>) -> Committed {
    let [stored, filtered, dead_later, dead_at_door] =
        COUNTERS.map(|name| counter(name).and_then(|v| u64::try_from(v).ok()).unwrap_or(0));
    let counts = Counts { stored, filtered, dead_later, dead_at_door };
    Committed { end: u64::try_from(end).unwrap_or(0), counts }
}

/// Reads a snapshot from the newest checkpoint on. Never from an older snapshot: that keeps naming log entries which
/// the log's cleanup removes.
async fn snapshot(
    log: &LogStoreRef,
    threads: &ThreadPool,
    version: Option<Version>,
) -> Result<SnapshotRef, SinkError> {
    let (engine, root) = (log.engine(None), log.root_url().clone());
    kernel_work(threads, move || {
        let builder = Snapshot::builder_for(root);
        let builder = match version {
            Some(version) => builder.at_version(version),
            None => builder,
        };
        builder.build(engine.as_ref())
    })
    .await
}

async fn lookup(
    log: &LogStoreRef,
    threads: &ThreadPool,
    snapshot: SnapshotRef,
    app_id: &str,
) -> Result<Option<Committed>, SinkError> {
    let (engine, app_id) = (log.engine(None), app_id.to_owned());
    kernel_work(threads, move || {
        let read = |id: &str, engine: &dyn Engine| snapshot.get_app_id_version(id, engine);
        let Some(end) = read(&app_id, engine.as_ref())? else { return Ok(None) };
        let mut counters = HashMap::new();
        for name in COUNTERS {
            counters.insert(name, read(&format!("{app_id}/{name}"), engine.as_ref())?);
        }
        Ok(Some(assemble(end, |name| counters.get(name).copied().flatten())))
    })
    .await
}

/// Writes a checkpoint of a snapshot; `None` when somebody else has.
pub(super) async fn checkpoint(
    log: &LogStoreRef,
    threads: &ThreadPool,
    snapshot: SnapshotRef,
) -> Result<SnapshotRef, SinkError> {
    let engine: Arc<dyn Engine> = log.engine(None);
    let work = move || snapshot.checkpoint(engine.as_ref(), None).map(|(_, snapshot)| snapshot);
    kernel_work(threads, work).await
}

/// The kernel blocks on its own I/O, which runs on the caller's runtime.
async fn kernel_work<T: Send + 'static>(
    threads: &ThreadPool,
    work: impl FnOnce() -> delta_kernel::DeltaResult<T> + Send + 'static,
) -> Result<T, SinkError> {
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        let _inside = runtime.enter();
        work()
    };
    match threads.run(run).await {
        Ok(result) => result.map_err(fault),
        Err(stopped) => Err(SinkError::Io(format!("the table's log: {stopped}"))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn committed(end: u64) -> Committed {
        Committed {
            end,
            counts: Counts { stored: end / 2, filtered: 3, dead_later: 4, dead_at_door: 5 },
        }
    }

    #[test]
    fn a_lane_is_read_back_from_the_entry_it_wrote() {
        let actions = transactions("j/s/0", committed(90)).unwrap();
        let lines = actions.iter().map(|txn| serde_json::json!({ "txn": txn }).to_string());
        let entry = lines.collect::<Vec<_>>().join("\n");
        let mut known =
            HashMap::from([("j/s/0".to_owned(), None), ("j/s/1".to_owned(), Some(committed(7)))]);
        assert!(!note(&mut known, entry.as_bytes()).unwrap());
        assert_eq!(known["j/s/0"], Some(committed(90)));
        assert_eq!(known["j/s/1"], Some(committed(7)), "another lane's position stays");
    }

    #[test]
    fn a_change_of_metadata_is_noticed_and_damage_is_an_error() {
        let mut known = HashMap::new();
        assert!(note(&mut known, b"{\"commitInfo\":{}}\n{\"metaData\":{}}\n").unwrap());
        assert!(note(&mut known, b"{\"add\":").is_err());
    }
}
