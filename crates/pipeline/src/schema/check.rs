//! CHECK constraints, evaluated a batch at a time. A NULL result passes, as in SQL.
//!
//! Owns nothing but planned expressions. A batch whose rows all pass is handed back untouched.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;

use super::Schema;
use super::ddl::{Condition, condition, scope, start_of};
use crate::record::{Batch, Code, Rejected};
use crate::sql::scope::Scope;
use crate::sql::{SqlError, message_of};

/// The most columns whose values a message shows.
const SHOWN_COLUMNS: usize = 4;

/// The most characters of a value that a message shows.
const SHOWN_CHARACTERS: usize = 64;

/// A schema's CHECK constraints, planned.
#[derive(Debug, Clone)]
pub struct Checks {
    checks: Arc<[Planned]>,
}

#[derive(Debug)]
struct Planned {
    expr: Arc<dyn PhysicalExpr>,
    sql: String,
    /// The columns it reads.
    reads: Vec<usize>,
    /// The column a refused row is charged to.
    column: Option<String>,
}

/// Why a row failed: a false result, or no result at all.
enum Fault {
    False,
    Error(String),
}

/// Faults by row, with the constraint's index.
type Faults = BTreeMap<usize, (usize, Fault)>;

/// Judges conditions as parsed, at the positions of the text they were parsed from.
pub(super) fn judge(schema: &Schema, conditions: &[Condition]) -> Result<(), SqlError> {
    if conditions.is_empty() {
        return Ok(());
    }
    let scope = scope(schema)?;
    conditions.iter().try_for_each(|(_, expr)| plan_one(&scope, schema, expr).map(drop))
}

fn plan_one(
    scope: &Scope,
    schema: &Schema,
    expr: &SqlExpr,
) -> Result<(Arc<dyn PhysicalExpr>, Vec<usize>), SqlError> {
    let reads = scope.judge(expr)?;
    let planned = scope.plan(expr)?;
    match planned.data_type(&schema.arrow()) {
        Ok(DataType::Boolean | DataType::Null) => Ok((planned, reads.into_iter().collect())),
        Ok(other) => Err(SqlError::at(
            start_of(expr),
            format!("a CHECK is true or false, but `{expr}` is {other}"),
        )),
        Err(error) => Err(SqlError::at(start_of(expr), message_of(&error))),
    }
}

impl Checks {
    /// Plans the constraints of a schema.
    ///
    /// # Errors
    /// A constraint that does not parse or plan, at its position in its own text. A schema from
    /// [`Schema::parse`] has none.
    pub fn plan(schema: &Schema) -> Result<Checks, SqlError> {
        if schema.checks.is_empty() {
            return Ok(Checks { checks: Arc::new([]) });
        }
        let scope = scope(schema)?;
        let plan = |check: &super::Check| {
            let (expr, reads) = plan_one(&scope, schema, &condition(&check.sql)?)?;
            let only = match reads.as_slice() {
                [index] => schema.columns.get(*index).map(|column| column.name.clone()),
                _ => None,
            };
            let column = check.column.clone().or(only);
            Ok(Planned { expr, sql: check.sql.clone(), reads, column })
        };
        Ok(Checks { checks: schema.checks.iter().map(plan).collect::<Result<_, SqlError>>()? })
    }

    /// Moves the rows that fail a constraint from `rows` to `rejected`, with their bytes from the
    /// chunk. A row that fails several is charged to the first. Order is kept.
    pub fn apply(&self, batch: Batch, chunk: &Bytes) -> Batch {
        let mut faults = Faults::new();
        for (index, check) in self.checks.iter().enumerate() {
            check.judge(&batch.rows, 0, &mut |row, fault| {
                faults.entry(row).or_insert((index, fault));
            });
        }
        if faults.is_empty() { batch } else { self.split(batch, chunk, faults) }
    }

    fn split(&self, mut batch: Batch, chunk: &Bytes, faults: Faults) -> Batch {
        let rows = batch.rows.num_rows();
        let mut keep = vec![true; rows];
        for (row, (index, fault)) in faults {
            let Some(check) = self.checks.get(index) else {
                continue;
            };
            if let Some(kept) = keep.get_mut(row) {
                *kept = false;
            }
            let span = batch.spans.get(row).copied().unwrap_or_default();
            batch.rejected.push(Rejected {
                row: batch.numbers.get(row).copied().map_or(0, u64::from),
                column: check.column.clone(),
                code: Code::Check,
                message: check.message(&batch.rows, row, &fault),
                raw: bytes_of(chunk, span),
            });
        }
        batch.rejected.sort_by_key(|rejected| rejected.row);
        let mask = BooleanArray::from(keep.clone());
        // Filtering fixed columns by a mask of their own length cannot fail; were it to, the rows
        // would stay beside their dead letters, so they are dropped from neither count.
        match filter_record_batch(&batch.rows, &mask) {
            Ok(filtered) => batch.rows = filtered,
            Err(error) => unreachable_filter(&error),
        }
        retain(&mut batch.numbers, &keep);
        retain(&mut batch.spans, &keep);
        batch
    }
}

#[expect(clippy::panic, reason = "a mask of the batch's own length: our own mistake if it fails")]
fn unreachable_filter(error: &ArrowError) -> ! {
    panic!("F6: filtering a batch by its own mask failed: {error}")
}

fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(true));
}

fn bytes_of(chunk: &Bytes, (offset, length): (u32, u32)) -> Bytes {
    let start = (offset as usize).min(chunk.len());
    let end = start.saturating_add(length as usize).min(chunk.len());
    chunk.slice(start..end)
}

impl Planned {
    /// Reports each row that fails. A range whose evaluation fails is halved until the rows at fault
    /// are alone.
    fn judge(&self, rows: &RecordBatch, base: usize, report: &mut impl FnMut(usize, Fault)) {
        let count = rows.num_rows();
        if count == 0 {
            return;
        }
        let result = self.expr.evaluate(rows).and_then(|value| value.into_array(count));
        match result {
            Ok(array) => {
                let Some(passed) = array.as_boolean_opt() else {
                    return;
                };
                let all = passed.values().count_set_bits() == count;
                if all {
                    return;
                }
                (0..count)
                    .filter(|row| passed.is_valid(*row) && !passed.value(*row))
                    .for_each(|row| report(base + row, Fault::False));
            }
            Err(error) if count == 1 => report(base, Fault::Error(message_of(&error))),
            Err(_) => {
                let half = count / 2;
                self.judge(&rows.slice(0, half), base, report);
                self.judge(&rows.slice(half, count - half), base + half, report);
            }
        }
    }

    fn message(&self, rows: &RecordBatch, row: usize, fault: &Fault) -> String {
        let values = self.values(rows, row);
        match fault {
            Fault::False => format!("CHECK ({}) is false: {values}", self.sql),
            Fault::Error(error) => format!("CHECK ({}) failed: {error}: {values}", self.sql),
        }
    }

    fn values(&self, rows: &RecordBatch, row: usize) -> String {
        let schema = rows.schema();
        let shown = self.reads.iter().take(SHOWN_COLUMNS).filter_map(|&index| {
            let array = rows.columns().get(index)?;
            Some(format!("{} = {}", schema.fields().get(index)?.name(), shown(array, row)))
        });
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if self.reads.len() > SHOWN_COLUMNS {
            text.push_str(", …");
        }
        text
    }
}

/// A value for people, cut where it is long.
fn shown(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let options = FormatOptions::default();
    let Ok(formatter) = ArrayFormatter::try_new(array, &options) else {
        return "?".to_owned();
    };
    let text = formatter.value(row).to_string();
    let cut = match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    };
    if array.data_type() == &DataType::Utf8 { format!("'{cut}'") } else { cut }
}
