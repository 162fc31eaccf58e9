//! From result batches to bytes, one batch at a time: JSON array, NDJSON, CSV, Arrow IPC stream.
//!
//! Numbers are numbers in JSON too, decimals with all their digits; a JSON column is embedded as the
//! value it is; timestamps are RFC 3339 with `Z`; NULL is `null`, and nothing at all in CSV.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder, StructArray, make_array,
};
use arrow::compute::{max, min};
use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvBuilder};
use arrow::datatypes::{
    ArrowTemporalType, DataType, Date32Type, Date64Type, Field, FieldRef, Schema, SchemaRef,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{
    Encoder as ValueEncoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder,
};
use arrow::temporal_conversions::as_datetime;
use bytes::Bytes;

use crate::schema::TYPE_KEY;

/// A timestamp without a zone is UTC.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// The forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One array of objects, a row a line.
    Json,
    /// An object a line.
    Ndjson,
    /// Separated values with a header line.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The media type of the form.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Encodes the batches of one result. Holds no rows between calls.
pub struct Encoder {
    schema: SchemaRef,
    state: State,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

enum State {
    /// True once a row is out.
    Json(bool),
    Ndjson,
    /// True once the header is out.
    Csv(bool),
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    /// An encoder of a result with this schema.
    ///
    /// # Errors
    /// The schema cannot be written in this form.
    pub fn new(format: Format, schema: SchemaRef) -> Result<Encoder, ArrowError> {
        let state = match format {
            Format::Json => State::Json(false),
            Format::Ndjson => State::Ndjson,
            Format::Csv => State::Csv(false),
            Format::Arrow => State::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
        };
        Ok(Encoder { schema, state })
    }

    /// The bytes of a batch. Empty for a batch without rows, as a rule.
    ///
    /// # Errors
    /// A column's type has no form here. What was returned before stays valid, but the result is
    /// then incomplete and must not be ended as if it were whole.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        match &mut self.state {
            State::Json(begun) => {
                let mut out = Vec::new();
                write_rows(batch, &mut out, |out, first| {
                    out.extend_from_slice(match (&begun, first) {
                        (false, true) => b"[",
                        _ => b",\n",
                    });
                })?;
                *begun |= batch.num_rows() > 0;
                Ok(Bytes::from(out))
            }
            State::Ndjson => {
                let mut out = Vec::new();
                write_rows(batch, &mut out, |out, first| {
                    if !first {
                        out.push(b'\n');
                    }
                })?;
                if batch.num_rows() > 0 {
                    out.push(b'\n');
                }
                Ok(Bytes::from(out))
            }
            State::Csv(header) => csv(batch, !std::mem::replace(header, true)),
            State::Arrow(writer) => {
                writer.write(batch)?;
                Ok(Bytes::from(std::mem::take(writer.get_mut())))
            }
        }
    }

    /// The bytes that end a complete result.
    ///
    /// # Errors
    /// As for [`Encoder::encode`].
    pub fn finish(self) -> Result<Bytes, ArrowError> {
        match self.state {
            State::Json(true) => Ok(Bytes::from_static(b"]\n")),
            State::Json(false) => Ok(Bytes::from_static(b"[]\n")),
            State::Ndjson | State::Csv(true) => Ok(Bytes::new()),
            State::Csv(false) => csv(&RecordBatch::new_empty(self.schema), true),
            State::Arrow(mut writer) => {
                writer.finish()?;
                Ok(Bytes::from(std::mem::take(writer.get_mut())))
            }
        }
    }
}

static OPTIONS: LazyLock<EncoderOptions> = LazyLock::new(|| {
    EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_timestamp_format(TIMESTAMP.to_owned())
        .with_encoder_factory(Arc::new(JsonColumns))
});

/// Writes each row as a JSON object, with `between` before it (true for the batch's first).
fn write_rows(
    batch: &RecordBatch,
    out: &mut Vec<u8>,
    between: impl Fn(&mut Vec<u8>, bool),
) -> Result<(), ArrowError> {
    if batch.num_rows() == 0 {
        return Ok(());
    }
    if batch.num_columns() == 0 {
        for row in 0..batch.num_rows() {
            between(out, row == 0);
            out.extend_from_slice(b"{}");
        }
        return Ok(());
    }
    batch.columns().iter().try_for_each(|column| within_calendar(column))?;
    let rows = StructArray::from(batch.clone());
    let field: FieldRef = Arc::new(Field::new("", rows.data_type().clone(), false));
    let mut encoder = make_encoder(&field, &rows, &OPTIONS)?;
    for row in 0..batch.num_rows() {
        between(out, row == 0);
        encoder.encode(row, out);
    }
    Ok(())
}

/// Refuses times that no calendar has: the JSON writer would give its error for a value.
fn within_calendar(array: &dyn Array) -> Result<(), ArrowError> {
    use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    match array.data_type() {
        DataType::Timestamp(Second, _) => extremes::<TimestampSecondType>(array),
        DataType::Timestamp(Millisecond, _) => extremes::<TimestampMillisecondType>(array),
        DataType::Timestamp(Microsecond, _) => extremes::<TimestampMicrosecondType>(array),
        DataType::Timestamp(Nanosecond, _) => extremes::<TimestampNanosecondType>(array),
        DataType::Date32 => extremes::<Date32Type>(array),
        DataType::Date64 => extremes::<Date64Type>(array),
        nested if nested.is_nested() => {
            let data = array.to_data();
            data.child_data()
                .iter()
                .try_for_each(|child| within_calendar(&make_array(child.clone())))
        }
        _ => Ok(()),
    }
}

fn extremes<T: ArrowTemporalType>(array: &dyn Array) -> Result<(), ArrowError>
where
    i64: From<T::Native>,
{
    let values = array.as_primitive::<T>();
    for value in [min(values), max(values)].into_iter().flatten().map(i64::from) {
        if as_datetime::<T>(value).is_none() {
            let kind = values.data_type();
            return Err(ArrowError::CastError(format!("{value} as {kind} is beyond the calendar")));
        }
    }
    Ok(())
}

/// Embeds JSON columns as values.
#[derive(Debug)]
struct JsonColumns;

impl EncoderFactory for JsonColumns {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        if field.metadata().get(TYPE_KEY).map(String::as_str) != Some("json") {
            return Ok(None);
        }
        let text: fn(&dyn Array, usize) -> &str = match array.data_type() {
            DataType::Utf8 => |array, row| array.as_string::<i32>().value(row),
            DataType::LargeUtf8 => |array, row| array.as_string::<i64>().value(row),
            DataType::Utf8View => |array, row| array.as_string_view().value(row),
            _ => return Ok(None),
        };
        let encoder = Embedded { array, text };
        Ok(Some(NullableEncoder::new(Box::new(encoder), array.nulls().cloned())))
    }
}

struct Embedded<'a> {
    array: &'a dyn Array,
    text: fn(&dyn Array, usize) -> &str,
}

impl ValueEncoder for Embedded<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = (self.text)(self.array, row);
        // One bad text must not spoil the whole answer: it is then shown as the string it is. A line
        // break within a value would end an NDJSON row.
        let value = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if !value {
            out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        } else if text.contains(['\n', '\r']) {
            // Outside of a string a line break is white space; inside, it would be escaped.
            out.extend(text.bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
        } else {
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Bytes, ArrowError> {
    let flat = flat(batch)?;
    let mut writer: CsvWriter<Vec<u8>> = CsvBuilder::new()
        .with_header(header)
        .with_timestamp_format(TIMESTAMP.to_owned())
        .build(Vec::new());
    writer.write(&flat)?;
    Ok(Bytes::from(writer.into_inner()))
}

/// Nested columns as their JSON text, for CSV knows none.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(json_texts(field, column)?));
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn json_texts(field: &FieldRef, column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let mut encoder = make_encoder(field, column.as_ref(), &OPTIONS)?;
    let mut texts = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(texts.finish())
}
