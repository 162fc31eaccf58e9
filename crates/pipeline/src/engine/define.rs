//! Streams come and go: through the API, or with their first row. What changes one is in `alter`.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::assemble::lane_name;
use super::{Engine, Inner};
use crate::codec::{self, Chunk, Format, Malformed};
use crate::intake::{IngestError, Partial};
use crate::schema::Schema;
use crate::sql::SqlError;
use crate::stream::catalog::{Definition, Origin, Record};
use crate::stream::{Stream, StreamConfig, check_stream_name};

/// How long a drop holds up other changes while the last rows of its stream drain.
const LAST_DRAIN: Duration = Duration::from_secs(5);

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
    /// Somebody else changed it since the caller looked.
    #[error("{}", changed(name, *expected, *found))]
    Changed {
        /// The stream.
        name: String,
        /// What the caller saw; 0 where it saw none.
        expected: u32,
        /// What is there; 0 where there is none.
        found: u32,
    },
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

fn changed(name: &str, expected: u32, found: u32) -> String {
    match (expected, found) {
        (0, found) => {
            format!("stream `{name}` exists already, at version {found}; alter it instead")
        }
        (_, 0) => format!("there is no stream `{name}` any more"),
        _ => format!(
            "stream `{name}` is at version {found}, not {expected}: look at it again, then change it"
        ),
    }
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

    /// Every version of a stream, ascending.
    pub fn versions(&self, name: &str) -> Option<Vec<Definition>> {
        self.inner.stream(name).map(|stream| stream.record().definitions)
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
    /// first chunk, so there is nothing to create yet: that is refused. `expected` is the version that
    /// the caller means to change, where it cares; 0 means that there must be none.
    ///
    /// # Errors
    /// As [`StreamError`] says; nothing was changed then.
    pub async fn create_or_alter(
        &self,
        name: &str,
        config: StreamConfig,
        expected: Option<u32>,
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
        let stream = match (self.inner.stream(name), expected) {
            (Some(stream), _) => {
                self.inner.alter(&stream, Origin::Api, definition, expected).await?;
                stream
            }
            (None, Some(expected @ 1..)) => {
                return Err(StreamError::Changed { name: name.to_owned(), expected, found: 0 });
            }
            (None, None | Some(0)) => {
                let stream = self.inner.create(name, Origin::Api, definition.clone()).await?;
                // Somebody may have been faster, with another definition.
                self.inner.settle_race(&stream, definition, expected).await?;
                stream
            }
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
        self.inner.to_the_end("drop stream", work).await.unwrap_or_else(stopped)
    }
}

impl Inner {
    /// Runs a change of the catalog to its end, whatever becomes of whoever asked for it: half of one
    /// would leave the disk and the memory of this process with different streams.
    /// `None` when the process stops before that end.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.uploads.spawn(name, async move { drop(tell.send(work.await)) });
        told.await.ok()
    }

    async fn drop_now(self: &Arc<Self>, name: &str, force: bool) -> Result<(), StreamError> {
        let unknown = || StreamError::Unknown(name.to_owned());
        let stream = self.stream(name).ok_or_else(unknown)?;
        // A slow sink is waited for before anybody else's change has to wait (F9).
        if !force && !self.drains(&stream, self.config.drain_deadline).await {
            return Err(StreamError::Busy(name.to_owned()));
        }
        let _changing = self.changing.lock().await;
        if !self.is_current(&stream) {
            return Err(unknown());
        }
        let start = |error: &dyn std::fmt::Display| StreamError::Start(error.to_string());
        // Out of sight first, so that no new upload finds it while the rest drains.
        self.streams.write().remove(name);
        if !force && !self.drains(&stream, LAST_DRAIN.min(self.config.drain_deadline)).await {
            self.streams.write().insert(name.to_owned(), stream);
            return Err(StreamError::Busy(name.to_owned()));
        }
        // A change under way ends before the catalog forgets the stream; a later one finds it gone.
        let altering = Arc::clone(&stream.altering).lock_owned().await;
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
        drop(altering);
        Ok(())
    }

    /// True while the stream is the one of its name: not dropped since it was found.
    pub(super) fn is_current(&self, stream: &Arc<Stream>) -> bool {
        let streams = self.streams.read();
        streams.get(&*stream.name).is_some_and(|current| Arc::ptr_eq(current, stream))
    }

    /// True when everything durable of a stream reached its sink within `wait`.
    pub(super) async fn drains(&self, stream: &Stream, wait: Duration) -> bool {
        let durable = stream.head();
        stream.want(durable);
        tokio::time::timeout(wait, stream.stored(durable)).await.is_ok()
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
        self.to_the_end("create stream", work).await.unwrap_or_else(stopped)
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
        let stream = self.make(name, Record::new(origin, definition)).await?;
        self.reveal(name, &stream).await?;
        tracing::info!(stream = name, ?origin, "stream created");
        Ok(stream)
    }
}

/// The answer to a change that the end of the process overtook.
pub(super) fn stopped<T>() -> Result<T, StreamError> {
    Err(StreamError::Start("the server stops".to_owned()))
}

fn malformed_error(malformed: Malformed) -> IngestError {
    IngestError::Malformed { malformed, partial: Partial::default() }
}

pub(super) fn ingest_error(error: StreamError) -> IngestError {
    match error {
        StreamError::TooMany(limit) => IngestError::TooManyStreams { limit },
        StreamError::Name(name) => IngestError::InvalidName(name),
        StreamError::Io(error) if forebay_journal::disk::is_no_space(&error) => {
            let retry_after = std::time::Duration::from_secs(30);
            IngestError::DiskFull { retry_after, partial: Partial::default() }
        }
        StreamError::Incompatible(why) => IngestError::Incompatible(why),
        StreamError::Unknown(name) => IngestError::UnknownStream(name),
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
