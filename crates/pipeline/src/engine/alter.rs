//! A stream changes: a new version beside the old ones, never another meaning of an old one.
//!
//! Rows of every version may still wait in the journal, and rows of every version are in the table; so a
//! change is judged against the last schema, against the planned table of every version, and against the
//! table as it is. What no check lets pass is refused with what to do instead.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema as ArrowSchema;
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::define::{StreamError, ingest_error, stopped};
use crate::codec::{self, Chunk, Format};
use crate::intake::IngestError;
use crate::schema::{Column, Schema};
use crate::sink::{Sink, SinkError};
use crate::sql::SqlError;
use crate::stream::catalog::{Definition, Origin, Record};
use crate::stream::{Plan, Stream};

/// Versions that a stream may gain by itself: each holds the whole schema, and all are kept.
const GAINED: usize = 256;

/// Versions that a stream may have.
const VERSIONS: usize = 1000;

/// How long a change waits for a table that is busy with a commit.
const TABLE_WAIT: Duration = Duration::from_secs(5);

impl Inner {
    /// Gives an auto-created stream the columns that a chunk brings; returns the plan to decode it by.
    pub(crate) async fn widen(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        format: &Format,
        chunk: &Chunk,
    ) -> Result<Arc<Plan>, IngestError> {
        let altering = Arc::clone(&stream.altering).lock_owned().await;
        if !self.is_current(stream) {
            return Err(IngestError::UnknownStream(stream.name.to_string()));
        }
        let mut record = stream.record();
        let current =
            || stream.current().ok_or_else(|| IngestError::Internal("no plan".to_owned()));
        if record.definitions.len() >= GAINED {
            // What the stream has no column for becomes dead letters.
            return current();
        }
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
            None => return current(),
        };
        let plan = self.plan(&stream.name, definition.clone());
        let plan = plan.map_err(|error| ingest_error(error.into()))?;
        if let Err(why) = self.table_takes(stream, &plan).await {
            tracing::warn!(stream = %stream.name, %why, "the stream cannot gain columns");
            return current();
        }
        record.definitions.push(definition);
        let (inner, owned, wider) = (Arc::clone(self), Arc::clone(stream), Arc::clone(&plan));
        let work = async move { inner.put(&owned, altering, record, wider).await };
        let put = self.to_the_end("widen stream", work).await.unwrap_or_else(stopped);
        put.map_err(ingest_error)?;
        tracing::info!(stream = %stream.name, version = plan.definition.version, "stream gained columns");
        Ok(plan)
    }

    pub(super) fn plan(&self, name: &str, definition: Definition) -> Result<Arc<Plan>, SqlError> {
        Ok(Arc::new(Plan::new(name, definition, self.config.limits)?))
    }

    pub(super) async fn store(&self, name: &str, record: &Record) -> Result<(), StreamError> {
        let (catalog, name, record) = (self.catalog.clone(), name.to_owned(), record.clone());
        Ok(self.blocking(move || catalog.store(&name, &record)).await??)
    }

    /// Puts a version in force once it is durable.
    async fn put(
        &self,
        stream: &Stream,
        _altering: OwnedMutexGuard<()>,
        record: Record,
        plan: Arc<Plan>,
    ) -> Result<(), StreamError> {
        self.store(&stream.name, &record).await?;
        stream.put(record, plan);
        Ok(())
    }

    /// Puts a new version of a stream in force where it differs from the last one.
    pub(super) async fn alter(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        origin: Origin,
        definition: Definition,
        expected: Option<u32>,
    ) -> Result<(), StreamError> {
        let (inner, stream) = (Arc::clone(self), Arc::clone(stream));
        let work = async move { inner.alter_now(&stream, origin, definition, expected).await };
        self.to_the_end("alter stream", work).await.unwrap_or_else(stopped)
    }

    async fn alter_now(
        &self,
        stream: &Arc<Stream>,
        origin: Origin,
        definition: Definition,
        expected: Option<u32>,
    ) -> Result<(), StreamError> {
        let altering = Arc::clone(&stream.altering).lock_owned().await;
        if !self.is_current(stream) {
            return Err(StreamError::Unknown(stream.name.to_string()));
        }
        let mut record = stream.record();
        let Some(last) = record.definitions.last() else {
            return Err(StreamError::Start(format!("stream `{}` has no definition", stream.name)));
        };
        if let Some(expected) = expected.filter(|expected| *expected != last.version) {
            let name = stream.name.to_string();
            return Err(StreamError::Changed { name, expected, found: last.version });
        }
        if last.same(&definition) && record.origin == origin {
            return Ok(());
        }
        if record.definitions.len() >= VERSIONS {
            return Err(StreamError::Incompatible(format!(
                "stream `{}` has {VERSIONS} versions, which is the limit; make a new stream",
                stream.name
            )));
        }
        compatible(&last.schema, &definition.schema)?;
        let definition = Definition { version: last.version + 1, ..definition };
        let plan = self.plan(&stream.name, definition.clone())?;
        stream.plans().iter().try_for_each(|old| storable(&old.table, &plan.table))?;
        self.table_takes(stream, &plan).await?;
        record.origin = origin;
        record.definitions.push(definition);
        self.put(stream, altering, record, plan).await
    }

    /// A stream that was to be made exists now: it is as `wanted`, is altered to be so, or has changed
    /// where it was expected to be new.
    pub(super) async fn settle_race(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        wanted: Definition,
        expected: Option<u32>,
    ) -> Result<(), StreamError> {
        let record = stream.record();
        let Some(last) = record.definitions.last().filter(|last| !last.same(&wanted)) else {
            return Ok(());
        };
        if let Some(expected) = expected {
            let name = stream.name.to_string();
            return Err(StreamError::Changed { name, expected, found: last.version });
        }
        self.alter(stream, Origin::Api, wanted, None).await
    }

    /// Refuses a version whose rows the stream's table cannot take: the table may be older than the
    /// stream. One that does not answer in time, or at all, is judged by its commits, as before.
    async fn table_takes(&self, stream: &Stream, plan: &Plan) -> Result<(), StreamError> {
        match tokio::time::timeout(TABLE_WAIT, stream.sink.takes(&plan.table)).await {
            Ok(Err(SinkError::Schema(why))) => Err(self.misfit(&stream.name, &why)),
            _ => Ok(()),
        }
    }

    /// As [`table_takes`](Inner::table_takes), for a stream that is yet to be made.
    pub(super) async fn kept_table_takes(
        &self,
        name: &str,
        sink: &dyn Sink,
        plan: &Plan,
    ) -> Result<(), StreamError> {
        match sink.takes(&plan.table).await {
            Ok(()) => Ok(()),
            Err(SinkError::Schema(why)) => Err(self.misfit(name, &why)),
            Err(error) => Err(StreamError::Start(format!("the table of `{name}`: {error}"))),
        }
    }

    fn misfit(&self, name: &str, why: &str) -> StreamError {
        let table = self.config.data_dir.join("lake").join(name);
        StreamError::Incompatible(format!(
            "{} holds rows that do not fit: {why}. Give the column that type, choose another name for \
             it, or move the table away",
            table.display()
        ))
    }
}

/// Stored rows allow added nullable columns, relaxed NOT NULL and other constraints; nothing else.
fn compatible(old: &Schema, new: &Schema) -> Result<(), StreamError> {
    old.columns.iter().try_for_each(|column| keeps(column, new))?;
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

/// What became of a column must hold for the rows that have it.
fn keeps(column: &Column, new: &Schema) -> Result<(), StreamError> {
    let name = &column.name;
    let refused = |why: String| Err(StreamError::Incompatible(why));
    let Some((_, now)) = new.column(name) else {
        return refused(format!(
            "column `{name}` is left out, and stored rows have it. To do without it, keep it in the schema \
             (without NOT NULL) and send no values; for another name, add that as a new column and \
             keep this one; to begin anew, drop the stream and move its table away"
        ));
    };
    if now.ty != column.ty {
        return refused(format!(
            "column `{name}` is {} and stored rows have that type; add a new column of type {} instead",
            column.ty.sql(),
            now.ty.sql()
        ));
    }
    if column.nullable && !now.nullable {
        return refused(format!(
            "column `{name}` may be NULL and stored rows may hold NULLs; to refuse them from now on, add \
             CHECK ({} IS NOT NULL) instead of NOT NULL",
            crate::schema::ddl::quoted(name)
        ));
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
