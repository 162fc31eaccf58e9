//! Queries over committed rows: read-only SQL with bounded memory and time.
//!
//! A query runs on the runtime handed to the engine, apart from the one that serves I/O: a plan that
//! never yields holds up its own kind only (F9), and its deadline still strikes, for the reader's
//! side keeps the clock. An answer that is cut short is an error, never a shorter result.
//!
//! Nothing here writes, and no table comes from a file or a URL: only those handed in exist.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider};
use datafusion::catalog::{MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use forebay_flow::queue::{Bound, Builder, Full, Receiver, Sender};
use forebay_flow::{Ctx, Task};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::sql::{json, message_of, session_config};

mod encode;
mod parse;

pub use encode::{Encoder, Format};

/// Batches that wait between a query and its reader.
pub const AHEAD: usize = 2;

/// Why so many.
pub const AHEAD_WHY: &str = "one batch is sent while the next is made";

/// Partitions a plan is split into: a query may use this many cores.
const PARTITIONS: usize = 2;

/// Where sorts and joins may go when memory is short.
#[derive(Debug, Clone)]
pub struct Spill {
    /// The directory of their temporary files.
    pub dir: PathBuf,
    /// The most bytes of those files, over all queries.
    pub bytes: u64,
}

/// Bounds of the engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most memory of all queries together, in bytes. A query that needs more fails with
    /// [`ErrorKind::Resources`].
    pub memory_bytes: usize,
    /// Spilling; without it, memory is the bound.
    pub spill: Option<Spill>,
}

/// Why a query gave no answer, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not SQL.
    Syntax,
    /// A table that is not there.
    UnknownTable,
    /// SQL that makes no sense here: an unknown column, types that do not fit.
    Invalid,
    /// A statement that would do more than read.
    NotReadOnly,
    /// More memory than the queries' share. Worth a retry when fewer run.
    Resources,
    /// The query's own time is up.
    Timeout,
    /// A value cannot be computed (division by zero, overflow).
    Data,
    /// Forebay's fault, or the disk's.
    Internal,
}

impl ErrorKind {
    /// True where the query's text or data is at fault: an answer 400.
    pub fn is_callers(self) -> bool {
        !matches!(self, ErrorKind::Resources | ErrorKind::Timeout | ErrorKind::Internal)
    }
}

/// A query failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Why, for machines.
    pub kind: ErrorKind,
    /// Line and column of the SQL, from 1, where one is at fault.
    pub position: Option<(u64, u64)>,
    /// Why, for people.
    pub message: String,
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for QueryError {}

impl QueryError {
    fn new(kind: ErrorKind, message: impl Into<String>) -> QueryError {
        QueryError { kind, position: None, message: message.into() }
    }

    fn from_plan(error: &DataFusionError) -> QueryError {
        QueryError::of(error, ErrorKind::Invalid)
    }

    fn from_run(error: &DataFusionError) -> QueryError {
        QueryError::of(error, ErrorKind::Data)
    }

    /// `otherwise` is the kind of an error whose own shape does not tell.
    fn of(error: &DataFusionError, otherwise: ErrorKind) -> QueryError {
        let kind = match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => ErrorKind::Resources,
            DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::Internal(_)
            | DataFusionError::ExecutionJoin(_)
            | DataFusionError::External(_) => ErrorKind::Internal,
            _ => otherwise,
        };
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        QueryError {
            kind,
            position: span.map(|span| (span.start.line, span.start.column)),
            message: message_of(error),
        }
    }
}

/// Runs queries. Cheap to share.
#[derive(Clone)]
pub struct QueryEngine {
    base: Arc<SessionState>,
    runtime: Arc<RuntimeEnv>,
    ctx: Ctx,
    handle: Handle,
}

impl std::fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryEngine").field("running", &self.running()).finish_non_exhaustive()
    }
}

impl QueryEngine {
    /// An engine whose queries run under `ctx` on `handle`'s runtime: give it threads of its own.
    ///
    /// # Errors
    /// The directory for spilling cannot be made.
    pub fn new(ctx: &Ctx, config: &Config, handle: Handle) -> Result<QueryEngine, QueryError> {
        let mut disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let mut pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(config.memory_bytes));
        if let Some(spill) = &config.spill {
            disk = DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![spill.dir.clone()]))
                .with_max_temp_directory_size(spill.bytes);
            pool = Arc::new(FairSpillPool::new(config.memory_bytes));
        }
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| QueryError::of(&error, ErrorKind::Internal))?;
        let mut session = session_config()
            .with_target_partitions(PARTITIONS)
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false);
        let execution = &mut session.options_mut().execution;
        execution.sort_spill_reservation_bytes = match config.spill {
            Some(_) => (config.memory_bytes / 32).min(10 << 20),
            None => 0,
        };
        let mut builder = SessionStateBuilder::new()
            .with_config(session)
            .with_runtime_env(Arc::clone(&runtime))
            .with_default_features();
        builder.scalar_functions().get_or_insert_default().extend(json::functions());
        let base = Arc::new(builder.build());
        Ok(QueryEngine { base, runtime, ctx: ctx.child("queries"), handle })
    }

    /// Queries whose task has not ended yet. Zero at rest.
    pub fn running(&self) -> usize {
        self.ctx.live()
    }

    /// Memory that queries hold now, in bytes.
    pub fn reserved_bytes(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }

    /// Plans and starts a query over the tables handed in, each under its name. Returns when the
    /// columns of the answer are known; the rows follow through [`QueryStream::next`]. `timeout`
    /// counts from now to the last row.
    ///
    /// Cancel safe: dropping the future, or the stream, cancels the query.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn query(
        &self,
        sql: &str,
        tables: Vec<(String, Arc<dyn TableProvider>)>,
        timeout: Duration,
    ) -> Result<QueryStream, QueryError> {
        let mut deadline = Box::pin(tokio::time::sleep(timeout));
        let (rows, receiver) =
            Builder::new("query rows", Bound::items(AHEAD), Full::Block).why(AHEAD_WHY).build();
        let (planned, mut schema) = oneshot::channel();
        let work = run(Arc::clone(&self.base), sql.to_owned(), tables, planned, rows);
        let task = {
            let _on_the_queries_threads = self.handle.enter();
            self.ctx.spawn("query", work)
        };
        let schema = tokio::select! {
            biased;
            schema = &mut schema => schema.unwrap_or_else(|_| Err(died()))?,
            () = &mut deadline => return Err(late()),
        };
        Ok(QueryStream { schema, rows: receiver, deadline, state: StreamState::Open, _task: task })
    }
}

fn died() -> QueryError {
    QueryError::new(ErrorKind::Internal, "the query's task ended before its answer did")
}

fn late() -> QueryError {
    QueryError::new(ErrorKind::Timeout, "the query's time is up")
}

/// What a query's task tells its reader. Without `End`, the answer is not whole.
enum Part {
    Rows(RecordBatch),
    End,
    Failed(QueryError),
}

type Planned = oneshot::Sender<Result<SchemaRef, QueryError>>;

async fn run(
    base: Arc<SessionState>,
    sql: String,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
    planned: Planned,
    rows: Sender<Part>,
) {
    let mut stream = match plan(&base, &sql, tables).await {
        Ok(stream) => stream,
        Err(error) => {
            // Nobody listens where the reader gave up: then there is nobody to tell.
            let _ = planned.send(Err(error));
            return;
        }
    };
    if planned.send(Ok(stream.schema())).is_err() {
        return;
    }
    while let Some(batch) = stream.next().await {
        let part = match batch {
            Ok(batch) if batch.num_rows() == 0 => continue,
            Ok(batch) => Part::Rows(batch),
            Err(error) => Part::Failed(QueryError::from_run(&error)),
        };
        let last = matches!(part, Part::Failed(_));
        if rows.submit(part).await.is_err() || last {
            return;
        }
    }
    let _ = rows.submit(Part::End).await;
}

async fn plan(
    base: &SessionState,
    sql: &str,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
) -> Result<SendableRecordBatchStream, QueryError> {
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    let statement = parse::read_only(sql, &names, base)?;
    let mut state = SessionStateBuilder::new_from_existing(base.clone())
        .with_catalog_list(catalog(base, tables)?)
        .build();
    // `now()` is the time of the query.
    state.mark_start_execution();
    let failed = |error| QueryError::from_plan(&error);
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement));
    let logical = state.statement_to_plan(statement).await.map_err(failed)?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&logical)
        .map_err(|error| QueryError::new(ErrorKind::NotReadOnly, message_of(&error)))?;
    let physical = state.create_physical_plan(&logical).await.map_err(failed)?;
    let physical = cooperative(physical).map_err(failed)?;
    execute_stream(physical, state.task_ctx()).map_err(|error| QueryError::from_run(&error))
}

/// Makes joins yield to the runtime. DataFusion does so at the leaves, but a join can give batches for
/// hours out of one leaf's batch, and a task that never yields cannot be cancelled (F5).
fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    plan.transform_up(|node| {
        let multiplies = node.name().ends_with("JoinExec") || node.name() == "UnnestExec";
        Ok(if multiplies {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)
        } else {
            Transformed::no(node)
        })
    })
    .map(|transformed| transformed.data)
}

/// A catalog that holds the tables and nothing else.
fn catalog(
    base: &SessionState,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
) -> Result<Arc<dyn CatalogProviderList>, QueryError> {
    let failed = |error| QueryError::of(&error, ErrorKind::Internal);
    let defaults = &base.config_options().catalog;
    let schema = MemorySchemaProvider::new();
    for (name, table) in tables {
        schema.register_table(name, table).map_err(failed)?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(&defaults.default_schema, Arc::new(schema)).map_err(failed)?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(defaults.default_catalog.clone(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The rows of an answer. Dropping it cancels the query.
#[derive(Debug)]
pub struct QueryStream {
    schema: SchemaRef,
    rows: Receiver<Part>,
    deadline: Pin<Box<Sleep>>,
    state: StreamState,
    _task: Task<()>,
}

#[derive(Debug, PartialEq, Eq)]
enum StreamState {
    Open,
    Ended,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Rows(_) => "Rows",
            Part::End => "End",
            Part::Failed(_) => "Failed",
        })
    }
}

impl QueryStream {
    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows; `None` after the last. After an error, `None` too.
    ///
    /// Cancel safe. Ends by the deadline at the latest.
    ///
    /// # Errors
    /// The answer is not whole: what came before must not be taken for it.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.state == StreamState::Ended {
            return None;
        }
        let part = tokio::select! {
            biased;
            () = &mut self.deadline => Some(Part::Failed(late())),
            part = self.rows.recv() => part,
        };
        match part {
            Some(Part::Rows(batch)) => Some(Ok(batch)),
            Some(Part::End) => {
                self.state = StreamState::Ended;
                None
            }
            Some(Part::Failed(error)) => {
                self.state = StreamState::Ended;
                self.rows.close();
                Some(Err(error))
            }
            None => {
                self.state = StreamState::Ended;
                Some(Err(died()))
            }
        }
    }
}
