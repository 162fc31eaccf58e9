//! What a lane will commit next: a contiguous range of entries, never beginning or ending inside one.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use forebay_flow::Instant;
use forebay_flow::budget::Permit;

use super::apply::Applied;
use crate::ledger::Totals;
use crate::sink::Counts;
use crate::sink::dead_letters::DeadLetter;

/// Entries gathered for one commit.
#[derive(Debug, Default)]
pub(super) struct Gather {
    pub start: u64,
    pub end: u64,
    pub totals: Totals,
    pub counts: Counts,
    pub schema: Option<SchemaRef>,
    pub batches: Vec<RecordBatch>,
    pub dead: Vec<DeadLetter>,
    pub bytes: u64,
    /// When the first entry came.
    pub since: Option<Instant>,
    permits: Vec<Permit>,
}

impl Gather {
    /// An empty one that goes on at `start`.
    pub fn at(start: u64) -> Gather {
        Gather { start, end: start, ..Gather::default() }
    }

    /// True while no entry was gathered.
    pub fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// True when `applied` can be committed together with what is here.
    pub fn fits(&self, applied: &Applied) -> bool {
        let Some(schema) = &self.schema else { return true };
        self.batches.is_empty()
            || Arc::ptr_eq(schema, &applied.schema)
            || holds(schema, &applied.schema)
            || holds(&applied.schema, schema)
    }

    /// Adds the next entry; the caller has asked [`fits`](Gather::fits).
    pub fn push(&mut self, applied: Applied, permit: Permit, now: Instant) {
        assert_eq!(applied.start.max(self.end), applied.start, "F2: entries out of order");
        self.end = applied.end;
        self.totals = self.totals.plus(applied.totals);
        self.counts = self.counts.plus(applied.counts);
        self.since.get_or_insert(now);
        self.bytes += permit.bytes();
        self.permits.push(permit);
        let wider = self.schema.as_ref().is_none_or(|schema| holds(&applied.schema, schema));
        if wider {
            self.schema = Some(applied.schema);
        }
        self.batches.extend(applied.rows);
        self.dead.extend(applied.dead);
    }

    /// The batches, all under the widest schema of the range.
    pub fn conformed(&mut self) -> Result<Vec<RecordBatch>, ArrowError> {
        let batches = std::mem::take(&mut self.batches);
        let Some(schema) = &self.schema else { return Ok(batches) };
        batches.into_iter().map(|batch| conform(batch, schema)).collect()
    }
}

/// True when `wide` has every column of `narrow`, with its type.
fn holds(wide: &SchemaRef, narrow: &SchemaRef) -> bool {
    narrow.fields().iter().all(|field| {
        wide.field_with_name(field.name()).is_ok_and(|f| f.data_type() == field.data_type())
    })
}

fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
        let found = batch.column_by_name(field.name()).cloned();
        found.unwrap_or_else(|| new_null_array(field.data_type(), rows))
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect())
}
