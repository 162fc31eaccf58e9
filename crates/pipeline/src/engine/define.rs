//! Streams come, change and go: declared in the config, through the API, or with their first row.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use forebay_flow::supervise::{Child, Restart, Shutdown};
use forebay_journal::{Journal, KeyBounds, Observer, Options};

use tokio::sync::OwnedMutexGuard;

use super::open::delta_options;
use super::{Engine, Inner};
use crate::codec::{self, Chunk, Format, Malformed};
use crate::intake::{IngestError, Partial};
use crate::lane;
use crate::ledger::Totals;
use crate::schema::Schema;
use crate::sink::delta::{DeltaSink, lake_url};
use crate::sink::{Sink, SinkError};
use crate::sql::SqlError;
use crate::stream::catalog::{Definition, Origin, Record};
use crate::stream::{Parts, Plan, Progress, Stream, StreamConfig, check_stream_name};
use crate::telemetry::Stage;

/// What a stream is, for people and the API.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// Who made it.
    pub origin: Origin,
    /// The version in force.
    pub definition: Definition,
    /// Where its table is.
    pub table: PathBuf,
    /// Bytes that its journal holds.
    pub journal_bytes: u64,
    /// Bytes that its journal may hold.
    pub journal_max: u64,
    /// Bytes that are durable and not yet in the table.
    pub lag_bytes: u64,
}

/// Why a stream was not created, changed or dropped.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The name breaks the rules.
    #[error("{0}")]
    Name(String),
    /// Its SQL or DDL is at fault.
    #[error("{0}")]
    Sql(#[from] SqlError),
    /// The config declares it, and wins over the API.
    #[error("stream `{0}` is declared in the config file; change it there")]
    Declared(String),
    /// No such stream.
    #[error("no stream named `{0}`")]
    Unknown(String),
    /// The most streams are already there.
    #[error("{0} streams exist, which is the limit; drop one, or raise limits.streams")]
    TooMany(usize),
    /// A change that stored rows do not allow.
    #[error("{0}")]
    Incompatible(String),
    /// Rows still wait for its sink.
    #[error("stream `{0}` still has rows in its journal; wait until they are stored, or use force")]
    Busy(String),
    /// The disk refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its journal or its lane did not start.
    #[error("{0}")]
    Start(String),
}

/// Checks a name a client gave.
pub(super) fn check_name(name: &str) -> Result<(), IngestError> {
    check_stream_name(name).map_err(IngestError::InvalidName)
}

impl Engine {
    /// Every stream, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.inner.streams.read().values().map(|stream| self.info(stream)).collect()
    }

    /// One stream.
    pub fn stream(&self, name: &str) -> Option<StreamInfo> {
        self.inner.stream(name).map(|stream| self.info(&stream))
    }

    fn info(&self, stream: &Stream) -> StreamInfo {
        let record = stream.record();
        StreamInfo {
            name: stream.name.to_string(),
            id: record.id.to_string(),
            origin: record.origin,
            definition: record.definitions.last().cloned().unwrap_or_default(),
            table: self.inner.config.data_dir.join("lake").join(&*stream.name),
            journal_bytes: stream.journal.backlog(),
            journal_max: stream.journal.max_bytes(),
            lag_bytes: stream.lag_bytes(),
        }
    }

    /// Creates a stream, or gives it a new version. Without a schema a new stream infers it from its
    /// first chunk, so there is nothing to create yet: that is refused.
    ///
    /// # Errors
    /// As [`StreamError`] says; nothing was changed then.
    pub async fn create_or_alter(
        &self,
        name: &str,
        config: StreamConfig,
    ) -> Result<StreamInfo, StreamError> {
        check_name(name).map_err(|error| StreamError::Name(error.to_string()))?;
        if self.inner.config.streams.contains_key(name) {
            return Err(StreamError::Declared(name.to_owned()));
        }
        let definition = config.definition().ok_or_else(|| {
            StreamError::Incompatible(
                "a stream needs a schema: {\"schema\": \"a INT, b TEXT\"}".into(),
            )
        })?;
        let stream = match self.inner.stream(name) {
            Some(stream) => {
                self.inner.alter(&stream, Origin::Api, definition).await?;
                stream
            }
            None => self.inner.create(name, Origin::Api, definition).await?,
        };
        Ok(self.info(&stream))
    }

    /// Drops a stream: its rows in the journal are committed first, unless `force` gives them up. The
    /// table stays where it is.
    ///
    /// # Errors
    /// `Unknown`, `Declared`, `Busy`, `Io`.
    pub async fn drop_stream(&self, name: &str, force: bool) -> Result<(), StreamError> {
        if self.inner.config.streams.contains_key(name) {
            return Err(StreamError::Declared(name.to_owned()));
        }
        let (inner, owned) = (Arc::clone(&self.inner), name.to_owned());
        let work = async move { inner.drop_now(&owned, force).await };
        self.inner.to_the_end("drop stream", work).await
    }
}

fn lane_name(stream: &str) -> String {
    format!("lane/{stream}")
}

impl Inner {
    /// Runs a change of the catalog to its end, whatever becomes of whoever asked for it: half of one
    /// would leave the disk and the memory of this process with different streams.
    async fn to_the_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, StreamError>> + Send + 'static,
    ) -> Result<T, StreamError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.uploads.spawn(name, async move { drop(tell.send(work.await)) });
        told.await.unwrap_or_else(|_| Err(StreamError::Start("the server stops".to_owned())))
    }

    async fn drop_now(self: &Arc<Self>, name: &str, force: bool) -> Result<(), StreamError> {
        let _changing = self.changing.lock().await;
        let Some(stream) = self.stream(name) else {
            return Err(StreamError::Unknown(name.to_owned()));
        };
        let start = |error: &dyn std::fmt::Display| StreamError::Start(error.to_string());
        // Out of sight first, so that no new upload finds it while the rest drains.
        self.streams.write().remove(name);
        if !force && !self.drains(&stream).await {
            self.streams.write().insert(name.to_owned(), stream);
            return Err(StreamError::Busy(name.to_owned()));
        }
        self.supervisor.terminate_child(&lane_name(name)).await.map_err(|e| start(&e))?;
        self.supervisor.delete_child(&lane_name(name)).await.map_err(|e| start(&e))?;
        if let Err(error) = stream.journal.close().await {
            tracing::warn!(stream = name, %error, "the journal was not closed cleanly");
        }
        // An upload that had found the stream may have added rows until the close: they stay (F1).
        if !force && stream.head() > stream.progress.borrow().committed {
            let (record, plans) = (stream.record(), stream.plans());
            drop(stream);
            let again = self.assemble(name, record, plans).await?;
            self.reveal(name, &again).await?;
            return Err(StreamError::Busy(name.to_owned()));
        }
        let (catalog, owned) = (self.catalog.clone(), name.to_owned());
        self.blocking(move || catalog.remove(&owned)).await??;
        self.telemetry.forget(name);
        Ok(())
    }

    /// True when everything durable of a stream reached its sink in the time that a drain may take.
    async fn drains(&self, stream: &Stream) -> bool {
        let durable = stream.head();
        stream.want(durable);
        tokio::time::timeout(self.config.drain_deadline, stream.stored(durable)).await.is_ok()
    }

    /// Makes a stream findable and starts its lane; without a lane it does not stay findable.
    async fn reveal(self: &Arc<Self>, name: &str, stream: &Arc<Stream>) -> Result<(), StreamError> {
        self.streams.write().insert(name.to_owned(), Arc::clone(stream));
        let Err(error) = self.supervisor.start_child(self.lane(stream)).await else {
            return Ok(());
        };
        self.streams.write().remove(name);
        if let Err(error) = stream.journal.close().await {
            tracing::warn!(stream = name, %error, "the journal was not closed cleanly");
        }
        Err(StreamError::Start(error.to_string()))
    }

    /// Whether a stream may appear now.
    pub(super) fn may_create(&self) -> Result<(), IngestError> {
        let limit = self.config.max_streams;
        if self.streams.read().len() >= limit {
            return Err(IngestError::TooManyStreams { limit });
        }
        Ok(())
    }

    /// The stream of that name, made from its first chunk where it does not exist.
    pub(crate) async fn create_from(
        self: &Arc<Self>,
        name: &str,
        format: &Format,
        chunk: &Chunk,
    ) -> Result<Arc<Stream>, IngestError> {
        if let Some(stream) = self.stream(name) {
            return Ok(stream);
        }
        let declared = self.config.streams.get(name);
        if declared.is_none() && !self.config.auto_create {
            return Err(IngestError::UnknownStream(name.to_owned()));
        }
        self.may_create()?;
        let schema = self.infer(format, chunk).await?;
        let config = declared.cloned().unwrap_or_default();
        match self.create(name, Origin::Auto, config.definition_with(schema)).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(ingest_error(error)),
        }
    }

    async fn infer(&self, format: &Format, chunk: &Chunk) -> Result<Schema, IngestError> {
        let (format, chunk, limits) = (format.clone(), chunk.clone(), self.config.limits);
        let inferred = self.validators.run(move || codec::infer(&format, &chunk, limits)).await;
        inferred.map_err(|error| IngestError::Internal(error.to_string()))?.map_err(malformed_error)
    }

    /// Gives an auto-created stream the columns that a chunk brings; returns the plan to decode it by.
    pub(crate) async fn widen(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        format: &Format,
        chunk: &Chunk,
    ) -> Result<Arc<Plan>, IngestError> {
        let altering = Arc::clone(&stream.altering).lock_owned().await;
        let mut record = stream.record();
        let Some(last) = record.definitions.last().cloned() else {
            return Err(IngestError::Internal(format!(
                "stream `{}` has no definition",
                stream.name
            )));
        };
        let (job_chunk, limits, schema) = (chunk.clone(), self.config.limits, last.schema.clone());
        let format = format.clone();
        let job = move || codec::widen(&schema, &format, &job_chunk, limits);
        let wider = self.validators.run(job).await;
        let wider = wider.map_err(|error| IngestError::Internal(error.to_string()))?;
        let definition = match wider {
            Some(schema) => Definition { version: last.version + 1, schema, ..last },
            // Another upload was faster; or what is new cannot be a column, and becomes dead letters.
            None => {
                let plan = stream.current();
                return plan.ok_or_else(|| IngestError::Internal("no plan".to_owned()));
            }
        };
        let plan = self.plan(&stream.name, definition.clone());
        let plan = plan.map_err(|error| ingest_error(error.into()))?;
        record.definitions.push(definition);
        let put = self.put(stream, altering, record, Arc::clone(&plan)).await;
        put.map_err(ingest_error)?;
        tracing::info!(stream = %stream.name, version = plan.definition.version, "stream gained columns");
        Ok(plan)
    }

    fn plan(&self, name: &str, definition: Definition) -> Result<Arc<Plan>, SqlError> {
        Ok(Arc::new(Plan::new(name, definition, self.config.limits)?))
    }

    async fn store(&self, name: &str, record: &Record) -> Result<(), StreamError> {
        let (catalog, name, record) = (self.catalog.clone(), name.to_owned(), record.clone());
        Ok(self.blocking(move || catalog.store(&name, &record)).await??)
    }

    /// Puts a version in force once it is durable.
    async fn put(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        altering: OwnedMutexGuard<()>,
        record: Record,
        plan: Arc<Plan>,
    ) -> Result<(), StreamError> {
        let (inner, stream) = (Arc::clone(self), Arc::clone(stream));
        let work = async move {
            let _altering = altering;
            inner.store(&stream.name, &record).await?;
            stream.put(record, plan);
            Ok(())
        };
        self.to_the_end("alter stream", work).await
    }

    /// Runs something that waits for the disk, off the I/O threads.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StreamError> {
        self.files.run(job).await.map_err(|error| StreamError::Start(error.to_string()))
    }

    /// Makes a stream: planned, durable in the catalog, its journal open, its lane running.
    pub(super) async fn create(
        self: &Arc<Self>,
        name: &str,
        origin: Origin,
        definition: Definition,
    ) -> Result<Arc<Stream>, StreamError> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        let work = async move { inner.create_now(&name, origin, definition).await };
        self.to_the_end("create stream", work).await
    }

    async fn create_now(
        self: &Arc<Self>,
        name: &str,
        origin: Origin,
        definition: Definition,
    ) -> Result<Arc<Stream>, StreamError> {
        let _changing = self.changing.lock().await;
        if let Some(stream) = self.stream(name) {
            return Ok(stream);
        }
        if self.streams.read().len() >= self.config.max_streams {
            return Err(StreamError::TooMany(self.config.max_streams));
        }
        let record = Record::new(origin, definition);
        let plan = record.definitions.first().cloned().map(|first| self.plan(name, first));
        let plans = plan.transpose()?.into_iter().collect();
        self.store(name, &record).await?;
        let stream = self.assemble(name, record, plans).await?;
        self.reveal(name, &stream).await?;
        tracing::info!(stream = name, ?origin, "stream created");
        Ok(stream)
    }

    /// Puts a new version of a stream in force where it differs from the last one.
    pub(super) async fn alter(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        origin: Origin,
        definition: Definition,
    ) -> Result<(), StreamError> {
        let altering = Arc::clone(&stream.altering).lock_owned().await;
        let mut record = stream.record();
        let Some(last) = record.definitions.last() else {
            return Err(StreamError::Start(format!("stream `{}` has no definition", stream.name)));
        };
        if last.same(&definition) && record.origin == origin {
            return Ok(());
        }
        compatible(&last.schema, &definition.schema)?;
        let definition = Definition { version: last.version + 1, ..definition };
        let plan = self.plan(&stream.name, definition.clone())?;
        stream.plans().iter().try_for_each(|old| storable(&old.table, &plan.table))?;
        record.origin = origin;
        record.definitions.push(definition);
        self.put(stream, altering, record, plan).await
    }

    /// Opens a stream's journal and sink.
    pub(super) async fn assemble(
        self: &Arc<Self>,
        name: &str,
        record: Record,
        plans: Vec<Arc<Plan>>,
    ) -> Result<Arc<Stream>, StreamError> {
        let (journal, known) = self.open_journal(name).await?;
        let start = |error: SinkError| StreamError::Start(error.to_string());
        let location = lake_url(name).map_err(start)?;
        let options = delta_options(&self.persisters);
        let sink =
            DeltaSink::new(Arc::new(self.lake.clone()), &location, options).map_err(start)?;
        let sink: Arc<dyn Sink> = Arc::new(sink);
        let stream = Arc::new(Stream::new(Parts {
            name: name.into(),
            record,
            plans,
            journal,
            sink,
            metrics: self.telemetry.stream(name),
        }));
        stream.progress.send_replace(known);
        let progress = lane::recover(&stream).await;
        let progress = progress.map_err(|error| StreamError::Start(error.to_string()))?;
        stream.progress.send_replace(progress);
        self.watch_poison(&stream);
        Ok(stream)
    }

    /// The journal, and the progress that its checkpoint knows of.
    async fn open_journal(&self, name: &str) -> Result<(Arc<Journal>, Progress), StreamError> {
        let dir = self.catalog.dir(name).join("journal");
        let declared = self.config.streams.get(name).and_then(|stream| stream.journal_max);
        let clock = self.clock.clone();
        let clock = forebay_journal::Clock::new(move || clock.unix_micros());
        let synced = self.telemetry.journal_sync_seconds();
        let window = self.config.key_window.as_micros();
        let options = Options {
            keys: KeyBounds {
                count: self.config.key_count,
                room: self.key_room.clone(),
                window_micros: i64::try_from(window).unwrap_or(i64::MAX),
            },
            synced: Observer::new(move |took| synced.observe(took.as_secs_f64())),
            cache: self.config.journal_cache(),
            ..Options::new(declared.unwrap_or(self.config.journal_max), clock)
        };
        let (disk, writers) = (Arc::clone(&self.disk), self.writers.clone());
        let opened = self.blocking(move || {
            disk.create_dir_all(&dir)?;
            Ok::<_, io::Error>(Journal::open(disk, &dir, options, &writers))
        });
        let (journal, recovered) = opened
            .await??
            .map_err(|error| StreamError::Start(format!("stream `{name}`: {error}")))?;
        if let Some(torn) = &recovered.torn {
            tracing::warn!(
                stream = name,
                ?torn,
                "the journal's torn tail was cut; nothing of it was acknowledged"
            );
        }
        let mut progress = Progress::default();
        if let Some(position) = recovered.checkpoint.lowest() {
            progress.committed = position.0;
            progress.passed = Totals::from_counters(recovered.checkpoint.counters);
        }
        Ok((journal, progress))
    }

    fn watch_poison(self: &Arc<Self>, stream: &Arc<Stream>) {
        let (inner, stream) = (Arc::downgrade(self), Arc::clone(stream));
        self.uploads.spawn("poison watch", async move {
            let Some(reason) = stream.journal.poisoned().await else { return };
            stream.metrics.error(Stage::Persist);
            if let Some(inner) = inner.upgrade() {
                inner.failure.send_replace(Some(format!(
                    "the journal of `{}` failed ({reason}); a restart reads what is really there",
                    stream.name
                )));
            }
        });
    }

    /// The stream's lane, as a child of the supervisor of lanes.
    pub(super) fn lane(self: &Arc<Self>, stream: &Arc<Stream>) -> Child {
        let (inner, lane_stream) = (Arc::clone(self), Arc::clone(stream));
        Child::new(lane_name(&stream.name), move |ctx| {
            lane::run(ctx, Arc::clone(&inner), Arc::clone(&lane_stream))
        })
        .restart(Restart::Permanent)
        .shutdown(Shutdown::Deadline(self.config.sink_timeout))
    }
}

/// Stored rows allow added nullable columns, relaxed NOT NULL and other constraints; nothing else.
fn compatible(old: &Schema, new: &Schema) -> Result<(), StreamError> {
    for column in &old.columns {
        let name = &column.name;
        let Some((_, now)) = new.column(name) else { continue };
        if now.ty != column.ty {
            return Err(StreamError::Incompatible(format!(
                "column `{name}` is {} and stored rows have that type; add a new column of type {} instead",
                column.ty.sql(),
                now.ty.sql()
            )));
        }
    }
    let added = new.columns.iter().filter(|column| old.column(&column.name).is_none());
    for column in added {
        if !column.nullable && column.default.is_none() {
            return Err(StreamError::Incompatible(format!(
                "the added column `{}` is NOT NULL, and stored rows have no value for it; leave NOT NULL \
                 out or give it a DEFAULT",
                column.name
            )));
        }
    }
    Ok(())
}

/// The table must be able to take rows of every version: those that wait in the journal are of the
/// older ones.
fn storable(old: &ArrowSchema, new: &ArrowSchema) -> Result<(), StreamError> {
    for field in old.fields() {
        let name = field.name();
        match new.field_with_name(name) {
            Ok(now) if now.data_type() != field.data_type() => {
                return Err(StreamError::Incompatible(format!(
                    "column `{name}` is {} in the table and would become {}; give it another name",
                    field.data_type(),
                    now.data_type()
                )));
            }
            Err(_) if !field.is_nullable() => {
                return Err(StreamError::Incompatible(format!(
                    "column `{name}` is NOT NULL in the table and cannot be left out"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn malformed_error(malformed: Malformed) -> IngestError {
    IngestError::Malformed { malformed, partial: Partial::default() }
}

fn ingest_error(error: StreamError) -> IngestError {
    match error {
        StreamError::TooMany(limit) => IngestError::TooManyStreams { limit },
        StreamError::Name(name) => IngestError::InvalidName(name),
        StreamError::Io(error) if forebay_journal::disk::is_no_space(&error) => {
            let retry_after = std::time::Duration::from_secs(30);
            IngestError::DiskFull { retry_after, partial: Partial::default() }
        }
        error => IngestError::Internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_name_that_could_leave_its_directory_is_refused_saying_why() {
        let long = "a".repeat(129);
        for name in ["", "../etc", "a/b", "_own", ".hidden", "a\0b", "größe", "1a", "😀", &long]
        {
            let refused = check_name(name);
            assert!(matches!(refused, Err(IngestError::InvalidName(_))), "{name:?} was taken");
        }
        for name in ["a", "A-b_c.9", &long[..128]] {
            assert!(check_name(name).is_ok(), "{name:?} was refused");
        }
    }
}
