//! `_dead_letters`: refused rows, kept whole, in a table of their own that one owner commits for all lanes.
//!
//! A lane commits its range's dead letters first and its rows second, each idempotent, so a crash between them is
//! harmless. Owns the table's schema and its sink. It never decides that a row is dead.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::catalog::TableProvider;

use super::{Committed, Counts, Flush, Sink, SinkError};
use crate::record::{Code, Rejected};

/// The table's name: one of Forebay's own, since it begins with `_`.
pub const TABLE: &str = "_dead_letters";

/// A refused row and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stream it was sent to.
    pub stream: Arc<str>,
    /// The stream's UUID: a recreated stream is another one.
    pub stream_id: Arc<str>,
    /// The journal entry it is in: where the entry begins.
    pub position: u64,
    /// The data row, in the request where known, counted from 1.
    pub row: u64,
    /// The column at fault.
    pub column: Option<String>,
    /// Why, for machines.
    pub code: Code,
    /// Why, for people.
    pub message: String,
    /// The row's bytes as they came.
    pub raw: Bytes,
    /// Who sent it.
    pub client: Option<Arc<str>>,
    /// In which request.
    pub request_id: Option<Arc<str>>,
    /// When the entry was received, in microseconds since 1970 (UTC).
    pub received_unix_micros: i64,
    /// How `raw` is read: the format's word. `None` in letters of before it was noted.
    pub format: Option<Arc<str>>,
    /// What `raw` needs of its upload to be read. It stands with the first letter of an entry only, since
    /// it may be far longer than the rows.
    pub header: Option<Arc<str>>,
}

/// What all letters of an entry share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stream it was sent to.
    pub stream: Arc<str>,
    /// The stream's UUID.
    pub stream_id: Arc<str>,
    /// Where the entry begins.
    pub position: u64,
    /// Who sent it.
    pub client: Option<Arc<str>>,
    /// In which request.
    pub request_id: Option<Arc<str>>,
    /// When the entry was received, in microseconds since 1970 (UTC).
    pub received_unix_micros: i64,
}

impl DeadLetter {
    /// A refused row of an entry; nothing is known of how to read it.
    #[must_use]
    pub fn new(origin: &Origin, rejected: Rejected) -> Self {
        let Origin { stream, stream_id, position, client, request_id, received_unix_micros } =
            origin.clone();
        let Rejected { row, column, code, message, raw } = rejected;
        Self {
            format: None,
            header: None,
            stream,
            stream_id,
            position,
            row,
            column,
            code,
            message,
            raw,
            client,
            request_id,
            received_unix_micros,
        }
    }
}

/// The table's schema. `raw_text` is `raw` where that is UTF-8, for SQL.
#[must_use]
pub fn schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("stream", DataType::Utf8, false),
        Field::new("stream_id", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("row", DataType::Int64, false),
        Field::new("column", DataType::Utf8, true),
        Field::new("code", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
        Field::new("raw_text", DataType::Utf8, true),
        Field::new("client", DataType::Utf8, true),
        Field::new("request_id", DataType::Utf8, true),
        Field::new("received_at", utc, false),
        Field::new("format", DataType::Utf8, true),
        Field::new("header", DataType::Utf8, true),
    ]))
}

/// Letters as rows of the table.
///
/// # Errors
/// More bytes in a column than a batch can address (2 GiB).
pub fn batch<'a>(
    letters: impl IntoIterator<Item = &'a DeadLetter>,
) -> Result<RecordBatch, ArrowError> {
    let mut texts: [StringBuilder; 10] = std::array::from_fn(|_| StringBuilder::new());
    let (mut position, mut row) = (Int64Builder::new(), Int64Builder::new());
    let mut raw = BinaryBuilder::new();
    let mut received = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    for letter in letters {
        position.append_value(i64::try_from(letter.position).unwrap_or(i64::MAX));
        row.append_value(i64::try_from(letter.row).unwrap_or(i64::MAX));
        raw.append_value(&letter.raw);
        received.append_value(letter.received_unix_micros);
        let values = [
            Some(&*letter.stream),
            Some(&*letter.stream_id),
            letter.column.as_deref(),
            Some(letter.code.as_str()),
            Some(letter.message.as_str()),
            std::str::from_utf8(&letter.raw).ok(),
            letter.client.as_deref(),
            letter.request_id.as_deref(),
            letter.format.as_deref(),
            letter.header.as_deref(),
        ];
        for (builder, value) in texts.iter_mut().zip(values) {
            builder.append_option(value);
        }
    }
    let [stream, stream_id, column, code, message, raw_text, client, request_id, format, header] =
        texts.map(|mut builder| Arc::new(builder.finish()) as ArrayRef);
    let columns: Vec<ArrayRef> = vec![
        stream,
        stream_id,
        Arc::new(position.finish()),
        Arc::new(row.finish()),
        column,
        code,
        message,
        Arc::new(raw.finish()),
        raw_text,
        client,
        request_id,
        Arc::new(received.finish()),
        format,
        header,
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The one owner of the table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    sink: Arc<dyn Sink>,
}

impl DeadLetters {
    /// Over the table's sink, which nobody else writes to.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// Up to where a lane's letters are committed, and how many (`counts.stored`); `None` before its first ones.
    /// A lane without letters does not move its position, so this may lie behind the lane's own.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn position(&self, app_id: &str) -> Result<Option<Committed>, SinkError> {
        self.sink.position(app_id).await
    }

    /// Commits the letters of a lane's entries up to `end`, durably, each once: those of entries committed before are
    /// left out. Without letters nothing is written. Returns how many were added.
    ///
    /// # Errors
    /// Those of [`Sink::commit`]: unknown outcome, call again with the same.
    pub async fn commit(
        &self,
        app_id: &str,
        end: u64,
        mut letters: Vec<DeadLetter>,
    ) -> Result<u64, SinkError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let committed = self.sink.position(app_id).await?;
        let before = committed.unwrap_or_default();
        // F2: what stands below the committed position is in the table already.
        letters.retain(|letter| committed.is_none() || letter.position >= before.end);
        if letters.is_empty() {
            return Ok(0);
        }
        let added = letters.len() as u64;
        let rows = batch(&letters).map_err(|e| SinkError::Schema(e.to_string()))?;
        let counts = Counts { stored: before.counts.stored + added, ..before.counts };
        let app_id = app_id.to_owned();
        let flush =
            Flush { app_id, start: before.end, end, counts, schema: schema(), batches: vec![rows] };
        self.sink.commit(flush).await.map(|()| added)
    }

    /// The letters, as a table for SQL; `None` before the first.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn table(&self) -> Result<Option<Arc<dyn TableProvider>>, SinkError> {
        self.sink.table().await
    }
}
