//! The transform of a stream: one `SELECT` over its own rows, planned once, evaluated per batch.
//!
//! It projects and filters; it sees one row at a time and gives the same rows whenever it runs, so a
//! replay after a restart stores what the first run would have stored (F2). It owns no state: a
//! [`Transform`] is shared by all workers of a lane.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast_with_options, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;
use datafusion::physical_expr::PhysicalExpr;

use crate::schema::Schema;
use crate::sql::{SqlError, message_of};

mod bisect;
mod select;

pub use bisect::Bisect;

/// A planned transform.
#[derive(Debug, Clone)]
pub struct Transform {
    select: Option<Arc<Select>>,
    output: SchemaRef,
}

/// A planned SELECT.
#[derive(Debug)]
struct Select {
    filter: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<OutputColumn>,
}

/// One output column.
#[derive(Debug)]
struct OutputColumn {
    expr: Arc<dyn PhysicalExpr>,
    /// The type stored, where it is not the expression's own.
    cast: Option<DataType>,
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Output {
    /// The rows that passed the WHERE, transformed, in their order.
    pub rows: RecordBatch,
    /// For each row of `rows`, the input row it came from, ascending; `None` where all rows passed.
    pub kept: Option<Vec<u32>>,
}

/// A batch could not be evaluated: at least one of its rows is at fault. The same rows always fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RowError {
    /// What failed, for people.
    pub message: String,
}

/// A batch with the rows at fault taken out.
#[derive(Debug, Clone)]
pub struct Sifted {
    /// The rows that passed. `kept` is `None` only where no row failed and none was filtered.
    pub output: Output,
    /// The input rows that failed, ascending, each with the reason.
    pub failed: Vec<(u32, RowError)>,
}

impl Transform {
    /// Plans a transform of the stream's rows; `None` is the identity, which costs nothing.
    ///
    /// # Errors
    /// The first fault with its position in the SQL: syntax, an unknown column or function, anything
    /// that is not projection and filter, anything whose result changes from run to run.
    pub fn plan(stream: &str, schema: &Schema, sql: Option<&str>) -> Result<Transform, SqlError> {
        let input = schema.arrow();
        match sql {
            None => Ok(Transform { select: None, output: input }),
            Some(sql) => {
                let (select, output) = select::plan(stream, input, sql)?;
                Ok(Transform { select: Some(Arc::new(select)), output })
            }
        }
    }

    /// The schema of the rows that [`Transform::apply`] gives.
    pub fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    /// True for the transform that changes nothing.
    pub fn is_identity(&self) -> bool {
        self.select.is_none()
    }

    /// Transforms a batch of the input schema.
    ///
    /// # Errors
    /// A row of the batch cannot be evaluated (overflow, division by zero). [`Transform::sift`] finds
    /// which.
    pub fn apply(&self, rows: &RecordBatch) -> Result<Output, RowError> {
        let Some(select) = &self.select else {
            return Ok(Output { rows: rows.clone(), kept: None });
        };
        let (passed, kept) = select.filter(rows)?;
        let columns = select
            .columns
            .iter()
            .map(|column| column.evaluate(&passed))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(passed.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.output(), columns, &options)
            .map_err(|error| RowError { message: error.to_string() })?;
        Ok(Output { rows, kept })
    }

    /// Transforms a batch row by row where it must: rows that cannot be evaluated are set aside with
    /// their reason, the rest goes on. Costs no more than [`Transform::apply`] when none fails.
    pub fn sift(&self, rows: &RecordBatch) -> Sifted {
        let count = u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
        let whole = match self.apply(rows) {
            Ok(output) => return Sifted { output, failed: Vec::new() },
            Err(error) => error,
        };
        let mut search = Bisect::new(count);
        let mut failed = Vec::new();
        let mut parts = Vec::new();
        let mut kept = Vec::new();
        // The whole range is the search's first question, and it has been answered.
        let mut answer = Some(Err(whole));
        while let Some(range) = search.next() {
            let part = rows.slice(range.start as usize, range.len());
            let result = answer.take().unwrap_or_else(|| self.apply(&part));
            search.report(range.clone(), result.is_ok());
            match result {
                Ok(output) => {
                    match output.kept {
                        Some(rows) => kept.extend(rows.iter().map(|row| row + range.start)),
                        None => kept.extend(range),
                    }
                    parts.push(output.rows);
                }
                Err(error) if range.len() == 1 => failed.push((range.start, error)),
                Err(_) => {}
            }
        }
        match arrow::compute::concat_batches(&self.output, &parts) {
            Ok(rows) => Sifted { output: Output { rows, kept: Some(kept) }, failed },
            // Only an overflow of 32-bit text offsets can bring us here: no row may be lost silently.
            Err(error) => Sifted {
                output: Output {
                    rows: RecordBatch::new_empty(self.output()),
                    kept: Some(Vec::new()),
                },
                failed: (0..count)
                    .map(|row| (row, RowError { message: error.to_string() }))
                    .collect(),
            },
        }
    }
}

impl Select {
    /// The rows that pass the WHERE: NULL does not. Without a WHERE, or where all pass, no copy.
    fn filter(&self, rows: &RecordBatch) -> Result<(RecordBatch, Option<Vec<u32>>), RowError> {
        let Some(filter) = &self.filter else { return Ok((rows.clone(), None)) };
        let count = rows.num_rows();
        let value = filter
            .evaluate(rows)
            .and_then(|value| value.into_array(count))
            .map_err(|error| RowError { message: message_of(&error) })?;
        let Some(mask) = value.as_boolean_opt() else {
            return Ok((RecordBatch::new_empty(rows.schema()), Some(Vec::new())));
        };
        let mask = without_nulls(mask);
        if mask.values().count_set_bits() == count {
            return Ok((rows.clone(), None));
        }
        let passed = filter_record_batch(rows, &mask)
            .map_err(|error| RowError { message: error.to_string() })?;
        let kept = mask.values().set_indices_u32().collect();
        Ok((passed, Some(kept)))
    }
}

fn without_nulls(mask: &BooleanArray) -> BooleanArray {
    use arrow::array::Array;
    if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) }
}

impl OutputColumn {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, RowError> {
        let array = self
            .expr
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|error| RowError { message: message_of(&error) })?;
        let Some(target) = &self.cast else { return Ok(array) };
        let options =
            arrow::compute::CastOptions { safe: false, format_options: FormatOptions::default() };
        cast_with_options(&array, target, &options)
            .map_err(|error| RowError { message: error.to_string() })
    }
}

/// The type in which a value of an expression's type is stored; `None` where it cannot be.
fn stored(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => ty.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => stored(value)?,
        _ => return None,
    })
}

fn schema_of(fields: Vec<Field>) -> SchemaRef {
    Arc::new(ArrowSchema::new(fields))
}
