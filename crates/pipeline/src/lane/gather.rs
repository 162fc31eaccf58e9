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
use crate::sink::redriven::Mark;

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
    pub marks: Vec<Mark>,
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
            || applied.rows.is_empty()
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
        // Without rows a schema says nothing: what comes decides.
        let decides = match &self.schema {
            None => true,
            Some(_) if applied.rows.is_empty() => false,
            Some(schema) => self.batches.is_empty() || holds(&applied.schema, schema),
        };
        if decides {
            self.schema = Some(applied.schema);
        }
        self.batches.extend(applied.rows);
        self.dead.extend(applied.dead);
        self.marks.extend(applied.marks);
    }

    /// The batches, all under the widest schema of the range.
    pub fn conformed(&mut self) -> Result<Vec<RecordBatch>, ArrowError> {
        let batches = std::mem::take(&mut self.batches);
        let Some(schema) = &self.schema else { return Ok(batches) };
        batches.into_iter().map(|batch| conform(batch, schema)).collect()
    }
}

/// True when rows of `narrow` can stand under `wide`: it has every column of theirs with its type, takes
/// the NULLs that they may hold, and can go without what they lack.
fn holds(wide: &SchemaRef, narrow: &SchemaRef) -> bool {
    let kept = narrow.fields().iter().all(|field| {
        wide.field_with_name(field.name()).is_ok_and(|place| {
            place.data_type() == field.data_type() && (place.is_nullable() || !field.is_nullable())
        })
    });
    kept && wide
        .fields()
        .iter()
        .all(|place| place.is_nullable() || narrow.field_with_name(place.name()).is_ok())
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use forebay_flow::budget::Budget;

    use super::*;

    fn schema(fields: &[(&str, bool)]) -> SchemaRef {
        let field = |(name, null): &(&str, bool)| Field::new(*name, DataType::Int32, *null);
        Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
    }

    /// The `n`-th entry: one row of `values`, or none.
    fn entry(n: u64, schema: &SchemaRef, values: &[Option<i32>]) -> Applied {
        let columns =
            values.iter().map(|value| Arc::new(Int32Array::from(vec![*value])) as ArrayRef);
        let rows = (!values.is_empty())
            .then(|| RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap());
        Applied {
            start: n * 10,
            end: n * 10 + 10,
            totals: Totals::default(),
            counts: Counts::default(),
            schema: Arc::clone(schema),
            rows: rows.into_iter().collect(),
            dead: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Gathers while it fits; gives the rows of each flush.
    fn flushes(entries: Vec<Applied>) -> Vec<usize> {
        let budget = Budget::new("test", 1024);
        let share = budget.share("lanes", 1024).unwrap();
        let mut gather = Gather::default();
        let mut flushed = Vec::new();
        let mut flush = |gather: &mut Gather| {
            let schema = gather.schema.clone().unwrap();
            let batches = gather.conformed().unwrap();
            assert!(batches.iter().all(|batch| batch.schema() == schema));
            flushed.push(batches.iter().map(RecordBatch::num_rows).sum());
        };
        for applied in entries {
            if !gather.fits(&applied) {
                flush(&mut gather);
                gather = Gather::at(gather.end);
            }
            let permit = share.try_acquire(1).unwrap();
            gather.push(applied, permit, forebay_flow::clock::now());
        }
        flush(&mut gather);
        flushed
    }

    #[test]
    fn rows_from_before_and_after_a_relaxed_not_null_share_a_flush_in_either_order() {
        let (strict, loose) = (schema(&[("a", false)]), schema(&[("a", true)]));
        let (old, new) = (|n| entry(n, &strict, &[Some(1)]), |n| entry(n, &loose, &[None]));
        assert_eq!(flushes(vec![old(0), new(1), old(2)]), [3]);
        assert_eq!(flushes(vec![new(0), old(1), new(2)]), [3]);
    }

    #[test]
    fn a_column_that_older_rows_lack_and_cannot_be_null_begins_a_flush() {
        let (old, new) = (schema(&[("a", true)]), schema(&[("a", true), ("b", false)]));
        let entries = vec![entry(0, &old, &[Some(1)]), entry(1, &new, &[None, Some(2)])];
        assert_eq!(flushes(entries), [1, 1]);
    }

    #[test]
    fn an_entry_without_rows_does_not_choose_the_schema_of_those_that_come() {
        let (a, b) = (schema(&[("a", false)]), schema(&[("b", false)]));
        let entries = vec![entry(0, &a, &[]), entry(1, &b, &[Some(1)]), entry(2, &a, &[])];
        assert_eq!(flushes(entries), [1]);
    }
}
