//! One entry through its transform: the CPU work of a lane, done on the transform pool's threads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use forebay_journal::Record;

use super::LaneError;
use crate::entry::{self, Entry, EntryBatch, LetterId, Reading};
use crate::ledger::Totals;
use crate::query::{Encoder, Format};
use crate::record::{Code, EXTRA, Rejected};
use crate::sink::Counts;
use crate::sink::dead_letters::{DeadLetter, Origin};
use crate::sink::redriven::Mark;
use crate::stream::{Plan, Stream};

/// An entry, transformed.
#[derive(Debug)]
pub(super) struct Applied {
    pub start: u64,
    pub end: u64,
    /// What the journal counted for the entry.
    pub totals: Totals,
    /// What came of it.
    pub counts: Counts,
    pub schema: SchemaRef,
    pub rows: Vec<RecordBatch>,
    pub dead: Vec<DeadLetter>,
    /// Dead letters whose rows the entry carries anew.
    pub marks: Vec<Mark>,
}

impl Applied {
    /// What it holds, in bytes.
    pub fn bytes(&self) -> u64 {
        let rows: usize = self.rows.iter().map(RecordBatch::get_array_memory_size).sum();
        let letter = |letter: &DeadLetter| {
            let header = letter.header.as_ref().map_or(0, |header| header.len());
            letter.raw.len() + letter.message.len() + header + size_of::<DeadLetter>()
        };
        let dead: usize = self.dead.iter().map(letter).sum();
        (rows + dead + size_of::<Mark>() * self.marks.len()) as u64
    }
}

/// Applies the transform of the entry's own version. Rows in `guilty` (positions among the entry's
/// accepted rows) become dead letters without being tried.
///
/// # Panics
/// Where the transform has a bug, or on the marker of `[faults] panic_on`. The pool catches it.
pub(super) fn apply(
    stream: &Stream,
    record: &Record,
    guilty: &BTreeSet<u32>,
    panic_on: Option<&str>,
) -> Result<Applied, LaneError> {
    let (entry, plan) = read(stream, record)?;
    let mut applied = Applied {
        start: record.start.0,
        end: record.end.0,
        totals: Totals::from_record(record.counters),
        counts: Counts::default(),
        schema: plan.table.clone(),
        rows: Vec::with_capacity(entry.batches.len()),
        dead: Vec::new(),
        marks: marks(stream, record, &entry),
    };
    let origin = origin(stream, record, &entry);
    door(&origin, &entry, &mut applied);
    let mut first = 0u32;
    for batch in &entry.batches {
        let rows = rows_of(record, batch)?;
        let mut out = Out { record, origin: &origin, batch, plan: &plan, applied: &mut applied };
        let guilty: Vec<u32> = guilty.range(first..first + rows).map(|row| row - first).collect();
        let good = out.without(&guilty)?;
        provoke(&good, panic_on);
        out.transform(&good, &guilty)?;
        first += rows;
    }
    let Counts { stored, filtered, dead_later, .. } = applied.counts;
    assert_eq!(
        stored + filtered + dead_later,
        applied.totals.accepted,
        "F6: a transform lost a row"
    );
    Ok(applied)
}

/// Applies the transform to some rows of an entry and throws the result away: the trial of a
/// bisection. Ends normally, or panics.
pub(super) fn attempt(
    stream: &Stream,
    record: &Record,
    range: Range<u32>,
    panic_on: Option<&str>,
) -> Result<(), LaneError> {
    let (entry, plan) = read(stream, record)?;
    let mut first = 0u32;
    for batch in &entry.batches {
        let rows = rows_of(record, batch)?;
        let from = range.start.clamp(first, first + rows) - first;
        let to = range.end.clamp(first, first + rows) - first;
        if from < to {
            let slice = batch.rows.slice(from as usize, (to - from) as usize);
            provoke(&slice, panic_on);
            drop(plan.transform.apply(&slice));
        }
        first += rows;
    }
    Ok(())
}

fn rows_of(record: &Record, batch: &EntryBatch) -> Result<u32, LaneError> {
    u32::try_from(batch.rows.num_rows()).map_err(|_| internal(record, "too many rows"))
}

/// How many accepted rows an entry holds.
pub(super) fn accepted_rows(record: &Record) -> u32 {
    record.counters[0]
}

fn read(stream: &Stream, record: &Record) -> Result<(Entry, Arc<Plan>), LaneError> {
    let schema = |version| stream.plan(version).map(|plan| plan.rows.clone());
    let entry = entry::read(&record.payload, schema)
        .map_err(|error| internal(record, &error.to_string()))?;
    let plan = stream
        .plan(entry.meta.transform_version)
        .ok_or_else(|| internal(record, "its version is not in the catalog"))?;
    Ok((entry, plan))
}

fn internal(record: &Record, what: &str) -> LaneError {
    LaneError::Internal(format!("entry at {}: {what}", record.start.0))
}

/// `[faults] panic_on`: a bug of a transform, on demand.
fn provoke(rows: &RecordBatch, marker: Option<&str>) {
    let Some(marker) = marker else { return };
    let holds = |column: &StringArray| column.iter().flatten().any(|text| text.contains(marker));
    let found = rows.columns().iter().filter_map(|c| c.as_any().downcast_ref()).any(holds);
    assert!(!found, "a row holds the marker of [faults] panic_on");
}

/// The rows refused at the door, which ride in the entry.
fn door(origin: &Origin, entry: &Entry, applied: &mut Applied) {
    let reading = entry.meta.reading.as_ref();
    let format: Option<Arc<str>> = reading.map(|reading| Arc::from(reading.format.as_str()));
    // It stands with the first letter alone.
    let mut header = reading.and_then(|reading| reading.header.as_deref()).map(Arc::from);
    for batch in &entry.batches {
        applied.counts.dead_at_door += batch.rejected.len() as u64;
        applied.dead.extend(batch.rejected.iter().map(|rejected| {
            let row = batch.base + rejected.row;
            let letter = DeadLetter::new(origin, Rejected { row, ..rejected.clone() });
            DeadLetter { format: format.clone(), header: header.take(), ..letter }
        }));
    }
}

/// The dead letters that the entry brings back.
fn marks(stream: &Stream, record: &Record, entry: &Entry) -> Vec<Mark> {
    let mark = |letter: &LetterId| Mark {
        letter: *letter,
        stream: Arc::clone(&stream.name),
        entry: record.start.0,
        redriven_unix_micros: record.received_unix_micros,
    };
    entry.meta.redriven.iter().map(mark).collect()
}

fn origin(stream: &Stream, record: &Record, entry: &Entry) -> Origin {
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    Origin {
        stream: Arc::clone(&stream.name),
        stream_id: stream.record_id().into(),
        position: record.start.0,
        client: text(&entry.meta.client),
        request_id: text(&entry.meta.request),
        received_unix_micros: record.received_unix_micros,
    }
}

/// Where one batch's rows go.
struct Out<'a> {
    record: &'a Record,
    origin: &'a Origin,
    batch: &'a EntryBatch,
    plan: &'a Plan,
    applied: &'a mut Applied,
}

impl Out<'_> {
    /// The batch less its guilty rows, which become dead letters.
    fn without(&mut self, guilty: &[u32]) -> Result<RecordBatch, LaneError> {
        let rows = &self.batch.rows;
        if guilty.is_empty() {
            return Ok(rows.clone());
        }
        for row in guilty {
            let message = "the transform's worker died on this row twice".to_owned();
            self.bury(*row, Code::Poison, message)?;
        }
        let mut keep = vec![true; rows.num_rows()];
        for row in guilty {
            if let Some(keep) = keep.get_mut(*row as usize) {
                *keep = false;
            }
        }
        filter_record_batch(rows, &BooleanArray::from(keep)).map_err(|error| self.internal(&error))
    }

    /// Transforms rows; those that cannot be evaluated become dead letters.
    fn transform(&mut self, rows: &RecordBatch, guilty: &[u32]) -> Result<(), LaneError> {
        let sifted = self.plan.transform.sift(rows);
        for (row, error) in &sifted.failed {
            self.bury(original(*row, guilty), Code::Transform, error.to_string())?;
        }
        let stored = sifted.output.rows.num_rows();
        self.applied.counts.stored += stored as u64;
        self.applied.counts.filtered += (rows.num_rows() - stored - sifted.failed.len()) as u64;
        if stored > 0 {
            let stamped = self.plan.stamp(sifted.output.rows, self.record.received_unix_micros);
            self.applied.rows.push(stamped.map_err(|error| self.internal(&error))?);
        }
        Ok(())
    }

    /// Makes a dead letter of an accepted row, the `row`-th of its batch. Its raw bytes are gone since
    /// it was decoded, so it is kept as JSON.
    fn bury(&mut self, row: u32, code: Code, message: String) -> Result<(), LaneError> {
        let raw = json(&self.batch.rows, row).map_err(|error| self.internal(&error))?;
        let number = self.batch.numbers.get(row as usize).unwrap_or(0);
        self.applied.counts.dead_later += 1;
        let row = self.batch.base + u64::from(number);
        let letter =
            DeadLetter::new(self.origin, Rejected { row, column: None, code, message, raw });
        let format = Some(Arc::from(Reading::object().format));
        self.applied.dead.push(DeadLetter { format, ..letter });
        Ok(())
    }

    fn internal(&self, error: &dyn std::fmt::Display) -> LaneError {
        internal(self.record, &error.to_string())
    }
}

/// One row as a JSON object, with the members that were kept without a column as they came.
fn json(rows: &RecordBatch, row: u32) -> Result<bytes::Bytes, ArrowError> {
    let mut one = rows.slice(row as usize, 1);
    let mut kept = None;
    if let Ok(index) = one.schema().index_of(EXTRA) {
        let extra = one.remove_column(index);
        let extra = extra.as_any().downcast_ref::<StringArray>();
        kept = extra.filter(|extra| extra.is_valid(0)).map(|extra| extra.value(0).to_owned());
    }
    let mut line = Encoder::new(Format::Ndjson, one.schema())?.encode(&one)?.to_vec();
    line.pop();
    let members = kept.as_deref().and_then(|kept| kept.strip_prefix('{')?.strip_suffix('}'));
    if let Some(members) = members.filter(|members| !members.is_empty()) {
        line.pop();
        if line.len() > 1 {
            line.push(b',');
        }
        line.extend_from_slice(members.as_bytes());
        line.push(b'}');
    }
    Ok(line.into())
}

/// The place in the whole batch of the `row`-th row that is left after the guilty ones went.
fn original(row: u32, guilty: &[u32]) -> u32 {
    guilty.iter().fold(row, |row, gone| if *gone <= row { row + 1 } else { row })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn a_row_is_kept_with_the_members_that_had_no_column_as_they_came() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let extra = StringArray::from(vec![Some("{\"b\":{\"c\":[1]}}"), None, Some("{}")]);
        let extra: ArrayRef = Arc::new(extra);
        let rows =
            RecordBatch::try_from_iter([("a", numbers), (EXTRA, Arc::clone(&extra))]).unwrap();
        let kept: Vec<_> = (0..3).map(|row| json(&rows, row).unwrap()).collect();
        assert_eq!(kept, ["{\"a\":1,\"b\":{\"c\":[1]}}", "{\"a\":2}", "{\"a\":3}"]);
        let alone = RecordBatch::try_from_iter([(EXTRA, extra)]).unwrap();
        assert_eq!(json(&alone, 0).unwrap(), "{\"b\":{\"c\":[1]}}");
    }
}
