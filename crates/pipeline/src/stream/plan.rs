//! A definition, planned once: decoder, checks and transform of one version.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::codec::{Decoder, EXTRA, Limits};
use crate::record::RECEIVED_AT;
use crate::schema::check::Checks;
use crate::schema::{Column, Schema, Type, Unknown};
use crate::sql::SqlError;
use crate::stream::catalog::Definition;
use crate::transform::Transform;

/// Everything a version needs at run time. Built once, shared, never changed.
#[derive(Debug)]
pub struct Plan {
    /// What it was planned from.
    pub definition: Definition,
    /// Arrow schema of the decoded rows.
    pub rows: SchemaRef,
    /// Arrow schema of the rows in the table.
    pub table: SchemaRef,
    schema: Arc<Schema>,
    limits: Limits,
    /// CHECK constraints.
    pub checks: Checks,
    /// The SQL.
    pub transform: Transform,
}

impl Plan {
    /// Plans a definition.
    ///
    /// # Errors
    /// The SQL at fault, with its line and column.
    pub fn new(stream: &str, definition: Definition, limits: Limits) -> Result<Plan, SqlError> {
        let schema = Arc::new(effective(&definition));
        let transform = Transform::plan(stream, &schema, definition.transform.as_deref())?;
        let table = if definition.received_at {
            let mut fields = transform.output().fields().to_vec();
            fields.push(Arc::new(received_at_field()));
            Arc::new(ArrowSchema::new(fields))
        } else {
            transform.output()
        };
        Ok(Plan {
            rows: schema.arrow(),
            table,
            checks: Checks::plan(&schema)?,
            transform,
            schema,
            limits,
            definition,
        })
    }

    /// A decoder of its rows. It holds the buffers of one batch; its user drops it with them.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(Arc::clone(&self.schema), self.definition.unknown, self.limits)
    }

    /// Adds the system column to transformed rows.
    pub fn stamp(&self, rows: RecordBatch, received: i64) -> Result<RecordBatch, ArrowError> {
        if !self.definition.received_at {
            return Ok(rows);
        }
        let stamps = TimestampMicrosecondArray::from_value(received, rows.num_rows());
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(stamps.with_timezone("UTC")) as ArrayRef);
        RecordBatch::try_new(Arc::clone(&self.table), columns)
    }
}

fn received_at_field() -> Field {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new(RECEIVED_AT, utc, true)
}

/// The declared schema, and the column for unknown values where they are kept.
fn effective(definition: &Definition) -> Schema {
    let mut schema = definition.schema.clone();
    if definition.unknown == Unknown::Keep && schema.column(EXTRA).is_none() {
        schema.columns.push(Column {
            name: EXTRA.to_owned(),
            ty: Type::Json,
            nullable: true,
            default: None,
        });
    }
    schema
}
