//! Where rows come to rest: the seam between a lane and what stores its rows.
//!
//! Contract of [`Sink`], which every implementation's conformance run checks:
//!
//! - `commit` makes rows **and** position durable in one transaction, or neither (F2).
//! - A commit whose end is not past the committed position adds nothing and succeeds.
//! - A commit that starts elsewhere than at the committed position is refused, never stored.
//! - An error means *unknown*: the caller reads `position` again; nothing is ever deleted to undo.
//! - Rows are on disk (files and directory entries) before `commit` returns.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

pub mod dead_letters;
pub mod delta;
pub mod disk_store;
pub mod memory;
pub mod parquet;
pub mod redriven;
mod stats;
mod widen;

/// Cumulative row counts of a lane, kept by the sink beside its position so that the two sides of
/// the ledger are counted independently (F6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows stored in the stream's table.
    pub stored: u64,
    /// Accepted rows left out by the transform's WHERE.
    pub filtered: u64,
    /// Accepted rows that became dead letters in the transform.
    pub dead_later: u64,
    /// Rows refused at the door and kept as dead letters.
    pub dead_at_door: u64,
}

impl Counts {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            stored: self.stored + other.stored,
            filtered: self.filtered + other.filtered,
            dead_later: self.dead_later + other.dead_later,
            dead_at_door: self.dead_at_door + other.dead_at_door,
        }
    }
}

/// What a sink has committed for one application id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// End LSN of the last committed flush.
    pub end: u64,
    /// Cumulative counts at that position.
    pub counts: Counts,
}

/// A contiguous range of entries, committed at once. Never begins or ends inside an entry.
#[derive(Debug, Clone)]
pub struct Flush {
    /// `journal UUID / stream UUID / lane`.
    pub app_id: String,
    /// Where the range begins: the committed position it builds on.
    pub start: u64,
    /// Where it ends: the position after the commit.
    pub end: u64,
    /// Cumulative counts after the commit.
    pub counts: Counts,
    /// The schema of the batches; columns the table lacks are added to it as nullable.
    pub schema: SchemaRef,
    /// The rows. May be empty: then only the position is committed.
    pub batches: Vec<RecordBatch>,
}

/// Why a commit or a read of the sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink's position is not where the flush starts: someone else owns the lane, or data went back.
    #[error("the sink is at position {committed}, the flush starts at {start}: {hint}")]
    Position {
        /// What the sink holds.
        committed: u64,
        /// Where the flush starts.
        start: u64,
        /// What to do.
        hint: &'static str,
    },
    /// The table cannot take these rows (a column changed its type).
    #[error("the table does not fit the rows: {0}")]
    Schema(String),
    /// No room: the disk or the quota is full. Worth a retry.
    #[error("no space left: {0}")]
    Full(String),
    /// Anything else: outcome unknown, read the position again.
    #[error("{0}")]
    Io(String),
}

/// A place that stores rows and a position together.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// The kind, as in the config: a metric label.
    fn kind(&self) -> &'static str;

    /// What is committed under `app_id`; `None` before the first commit.
    async fn position(&self, app_id: &str) -> Result<Option<Committed>, SinkError>;

    /// Commits a flush; see the contract above. Not cancel safe in effect: dropping the future leaves
    /// the outcome unknown.
    async fn commit(&self, flush: Flush) -> Result<(), SinkError>;

    /// Whether rows of this schema can be committed to what the sink holds now: what
    /// [`commit`](Sink::commit) would answer, without rows.
    ///
    /// # Errors
    /// [`SinkError::Schema`]: they cannot. Others: unknown.
    async fn takes(&self, schema: &SchemaRef) -> Result<(), SinkError>;

    /// Rows in the sink that can be queried, as a table for SQL; `None` where nothing is committed yet.
    async fn table(
        &self,
    ) -> Result<Option<std::sync::Arc<dyn datafusion::catalog::TableProvider>>, SinkError>;
}

/// Whether a flush is still to be committed, at what is committed.
///
/// # Errors
/// [`SinkError::Position`] when it builds on another position.
fn admit(flush: &Flush, committed: Option<Committed>) -> Result<bool, SinkError> {
    let Some(committed) = committed else { return Ok(flush.end > flush.start) };
    if flush.end <= committed.end {
        return Ok(false);
    }
    if flush.start == committed.end {
        return Ok(true);
    }
    let hint = if flush.start < committed.end {
        "part of it is stored: read the position and begin there"
    } else {
        "rows between are missing: was the table restored from an older copy?"
    };
    Err(SinkError::Position { committed: committed.end, start: flush.start, hint })
}
