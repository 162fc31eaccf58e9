//! Queries over what the sinks have committed.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use forebay_flow::Ctx;

use super::Engine;
use crate::query::{self, ErrorKind, QueryEngine, QueryError, QueryStream};
use crate::sink::{dead_letters, redriven};
use crate::stream::Stream;

/// The query engine, and the threads that are its own: a query that never yields delays no ingest.
#[derive(Debug)]
pub(super) struct Queries {
    pub(super) engine: QueryEngine,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Queries {
    /// Starts the threads; `memory` bytes are for all queries together.
    pub fn start(ctx: &Ctx, memory: u64, threads: usize) -> Result<Queries, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(4)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let memory_bytes = usize::try_from(memory).unwrap_or(usize::MAX);
        let config = query::Config { memory_bytes, spill: None };
        let engine = QueryEngine::new(ctx, &config, runtime.handle().clone());
        let engine = engine.map_err(|error| error.to_string())?;
        Ok(Queries { engine, runtime: Some(runtime) })
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// Runs a read-only query over the committed rows; each stream is a table of its name, and so are
    /// `_dead_letters` and `_redriven`. `timeout` may only shorten the configured one. Dropping the stream cancels the
    /// query.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn query(
        &self,
        sql: &str,
        timeout: Option<Duration>,
    ) -> Result<QueryStream, QueryError> {
        let inner = &self.inner;
        let longest = inner.config.query_timeout;
        let timeout = timeout.unwrap_or(longest).min(longest);
        let streams: Vec<Arc<Stream>> = inner.streams.read().values().cloned().collect();
        let mut tables = Vec::new();
        // Only what the text can mean is opened: a thousand streams cost a query nothing.
        for stream in streams.iter().filter(|stream| sql.contains(&*stream.name)) {
            tables.push((stream.name.to_string(), table(stream).await?));
        }
        if sql.contains(dead_letters::TABLE) {
            let table = match inner.dead_letters.table().await.map_err(unreadable)? {
                Some(table) => table,
                None => empty(dead_letters::schema())?,
            };
            tables.push((dead_letters::TABLE.to_owned(), table));
        }
        if sql.contains(redriven::TABLE) {
            let table = match inner.redriven.table().await.map_err(unreadable)? {
                Some(table) => table,
                None => empty(redriven::schema())?,
            };
            tables.push((redriven::TABLE.to_owned(), table));
        }
        inner.query.engine.query(sql, tables, timeout).await
    }
}

/// What a stream's sink has committed; without rows, before its first commit.
async fn table(stream: &Stream) -> Result<Arc<dyn TableProvider>, QueryError> {
    if let Some(table) = stream.sink.table().await.map_err(unreadable)? {
        return Ok(table);
    }
    let Some(plan) = stream.current() else {
        return Err(unreadable(format!("stream `{}` has no definition", stream.name)));
    };
    empty(Arc::clone(&plan.table))
}

pub(super) fn empty(schema: SchemaRef) -> Result<Arc<dyn TableProvider>, QueryError> {
    let none = vec![RecordBatch::new_empty(Arc::clone(&schema))];
    Ok(Arc::new(MemTable::try_new(schema, vec![none]).map_err(unreadable)?))
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> QueryError {
    QueryError { kind: ErrorKind::Internal, position: None, message: error.to_string() }
}
