//! Rows to Parquet, with the statistics a Delta log keeps of a file. CPU work only: no I/O, no state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::stats::{self, TEXT_BOUND_BYTES};

/// One Parquet file in memory.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The file.
    pub bytes: Bytes,
    /// Rows in it.
    pub rows: u64,
    /// Delta's statistics of it, as JSON.
    pub stats: String,
}

/// Why rows could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A column's type has no place in a table.
    #[error("{0}")]
    Type(String),
    /// A value does not fit, or the batch does not match its schema.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The writer failed.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// The schema under which rows are stored: the types Delta has, names, order, nullability and metadata kept.
///
/// # Errors
/// A column whose type Delta cannot hold, by name.
pub fn stored_schema(schema: &Schema) -> Result<SchemaRef, EncodeError> {
    let fields = schema.fields().iter().map(|field| {
        let ty = stored_type(field.data_type()).ok_or_else(|| {
            let (name, ty) = (field.name(), field.data_type());
            EncodeError::Type(format!(
                "column \"{name}\" is of type {ty}, which a table cannot hold; cast it"
            ))
        })?;
        Ok(field.as_ref().clone().with_data_type(ty))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<Field>, EncodeError>>()?)))
}

fn stored_type(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Utf8
        | DataType::Binary => ty.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
            if *s >= 0 =>
        {
            DataType::Decimal128(*p, *s)
        }
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => stored_type(values)?,
        _ => return None,
    })
}

/// Encodes rows as one Parquet file under a stored schema: zstd, statistics per column chunk, dictionaries for text.
/// `None` for no rows.
///
/// # Errors
/// A batch that does not match the schema; a value that does not fit its stored type.
pub fn encode(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Option<Encoded>, EncodeError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return Ok(None);
    }
    let options = ArrowWriterOptions::new()
        .with_properties(properties(schema)?)
        .with_skip_arrow_metadata(true);
    let arrow_bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut file = Vec::with_capacity(arrow_bytes / 4);
    let mut writer = ArrowWriter::try_new_with_options(&mut file, Arc::clone(schema), options)?;
    let mut nan = vec![false; schema.fields().len()];
    for batch in batches {
        let batch = conform(batch, schema)?;
        for (seen, column) in nan.iter_mut().zip(batch.columns()) {
            *seen = *seen || has_nan(column);
        }
        writer.write(&batch)?;
    }
    let metadata = writer.close()?;
    let stats = stats::of_file(&metadata, schema, &nan);
    Ok(Some(Encoded { bytes: file.into(), rows: rows as u64, stats }))
}

fn properties(schema: &Schema) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(TEXT_BOUND_BYTES))
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned());
    for field in schema.fields() {
        // Hashing each number to find that most differ costs more than the dictionary saves; packed differences are
        // both smaller and faster.
        let column = ColumnPath::new(vec![field.name().clone()]);
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::Binary);
        builder = builder.set_column_dictionary_enabled(column.clone(), text);
        if field.data_type().is_integer()
            || matches!(field.data_type(), DataType::Date32 | DataType::Timestamp(..))
        {
            builder = builder.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(builder.build())
}

/// The batch under the stored schema: columns by name, cast where the type differs, NULL where it lacks one.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, EncodeError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast_with_options(column, field.data_type(), &strict),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Parquet leaves NaN out of its bounds, other engines count it as the greatest value: no bounds are kept then.
fn has_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan())
        }
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan())
        }
        _ => false,
    }
}
