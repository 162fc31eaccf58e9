//! `_redriven`: which dead letters were accepted after all, in a table of their own that one owner commits
//! for all lanes.
//!
//! A letter's row travels in an entry like any other, and the entry names the letter. Its lane commits the
//! mark first and the row second, both idempotent; so once a lane has passed an entry, the table knows every
//! letter that it carried, for ever. That is what makes a second redrive add nothing (F2), however long after.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;

use super::{Counts, Flush, Sink, SinkError};
use crate::entry::LetterId;

/// The table's name: one of Forebay's own, since it begins with `_`.
pub const TABLE: &str = "_redriven";

/// A dead letter that an entry carries anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The letter.
    pub letter: LetterId,
    /// The stream that took its row.
    pub stream: Arc<str>,
    /// Where the entry that carries it begins.
    pub entry: u64,
    /// When that entry was received, in microseconds since 1970 (UTC).
    pub redriven_unix_micros: i64,
}

/// The table's schema. `stream_id`, `position` and `row` are the letter's, as in `_dead_letters`.
#[must_use]
pub fn schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("stream", DataType::Utf8, false),
        Field::new("stream_id", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("row", DataType::Int64, false),
        Field::new("entry", DataType::Int64, false),
        Field::new("redriven_at", utc, false),
    ]))
}

fn batch(marks: &[Mark]) -> Result<RecordBatch, ArrowError> {
    let (mut stream, mut stream_id) = (StringBuilder::new(), StringBuilder::new());
    let mut numbers: [Int64Builder; 3] = std::array::from_fn(|_| Int64Builder::new());
    let mut redriven = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    for mark in marks {
        stream.append_value(&mark.stream);
        stream_id.append_value(mark.letter.stream_id.to_string());
        let values = [mark.letter.position, mark.letter.row, mark.entry];
        for (builder, value) in numbers.iter_mut().zip(values) {
            builder.append_value(i64::try_from(value).unwrap_or(i64::MAX));
        }
        redriven.append_value(mark.redriven_unix_micros);
    }
    let [position, row, entry] = numbers.map(|mut builder| Arc::new(builder.finish()) as ArrayRef);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(stream.finish()),
        Arc::new(stream_id.finish()),
        position,
        row,
        entry,
        Arc::new(redriven.finish()),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The one owner of the table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redriven {
    sink: Arc<dyn Sink>,
}

impl Redriven {
    /// Over the table's sink, which nobody else writes to.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// Commits the marks of a lane's entries up to `end`, durably, each once. Without marks nothing is
    /// written.
    ///
    /// # Errors
    /// Those of [`Sink::commit`]: unknown outcome, call again with the same.
    pub async fn commit(
        &self,
        app_id: &str,
        end: u64,
        mut marks: Vec<Mark>,
    ) -> Result<(), SinkError> {
        if marks.is_empty() {
            return Ok(());
        }
        let committed = self.sink.position(app_id).await?;
        let before = committed.unwrap_or_default();
        // F2: what stands below the committed position is in the table already.
        marks.retain(|mark| committed.is_none() || mark.entry >= before.end);
        if marks.is_empty() {
            return Ok(());
        }
        let rows = batch(&marks).map_err(|error| SinkError::Schema(error.to_string()))?;
        let stored = before.counts.stored + marks.len() as u64;
        let flush = Flush {
            app_id: app_id.to_owned(),
            start: before.end,
            end,
            counts: Counts { stored, ..before.counts },
            schema: schema(),
            batches: vec![rows],
        };
        self.sink.commit(flush).await
    }

    /// The marks, as a table for SQL; `None` before the first.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn table(&self) -> Result<Option<Arc<dyn TableProvider>>, SinkError> {
        self.sink.table().await
    }
}
