//! A stream's declared shape: columns, types, NOT NULL, DEFAULT, CHECK.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

pub mod check;
mod constant;
pub mod ddl;

/// A column's type, in the words of the DDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// true or false
    Boolean,
    /// 16-bit signed
    SmallInt,
    /// 32-bit signed
    Int,
    /// 64-bit signed
    BigInt,
    /// 32-bit float
    Real,
    /// 64-bit float
    Double,
    /// Exact decimal of `precision` digits (1–38), `scale` of them after the point.
    Decimal {
        /// All digits.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// UTF-8 text
    Text,
    /// Calendar day
    Date,
    /// Microseconds since 1970-01-01 UTC; a text without an offset means UTC.
    Timestamp,
    /// A nested JSON value, kept as its text.
    Json,
}

/// The field metadata key under which a JSON column is told from TEXT.
pub const TYPE_KEY: &str = "forebay.type";

impl Type {
    /// The Arrow type that carries it.
    pub fn arrow(self) -> DataType {
        match self {
            Type::Boolean => DataType::Boolean,
            Type::SmallInt => DataType::Int16,
            Type::Int => DataType::Int32,
            Type::BigInt => DataType::Int64,
            Type::Real => DataType::Float32,
            Type::Double => DataType::Float64,
            Type::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Type::Text | Type::Json => DataType::Utf8,
            Type::Date => DataType::Date32,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// A constant that stands for a missing value. Already of its column's type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// BOOLEAN
    Bool(bool),
    /// SMALLINT, INT, BIGINT
    Int(i64),
    /// REAL, DOUBLE
    Double(f64),
    /// DECIMAL, scaled
    Decimal(i128),
    /// TEXT, JSON
    Text(String),
    /// DATE, days since 1970-01-01
    Date(i32),
    /// TIMESTAMP, microseconds since 1970-01-01 UTC
    Timestamp(i64),
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, case kept.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// False for NOT NULL.
    pub nullable: bool,
    /// What stands in for a missing (not an explicit NULL) value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Constant>,
}

/// A CHECK constraint. A NULL result passes, as in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The column it was written at, where it stood at one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The SQL expression, as written.
    pub sql: String,
}

/// A schema: columns in their order, and constraints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Schema {
    /// Columns in their order.
    pub columns: Vec<Column>,
    /// CHECK constraints in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl Schema {
    /// The Arrow schema of a decoded batch.
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(ArrowSchema::new(self.columns.iter().map(Column::arrow).collect::<Vec<_>>()))
    }

    /// The index and column of a name, case kept.
    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns.iter().enumerate().find(|(_, column)| column.name == name)
    }
}

impl Column {
    /// The Arrow field of this column.
    pub fn arrow(&self) -> Field {
        let field = Field::new(&self.name, self.ty.arrow(), self.nullable);
        if self.ty == Type::Json {
            field.with_metadata([(TYPE_KEY.to_owned(), "json".to_owned())].into())
        } else {
            field
        }
    }
}

/// What happens to a value under a name that the schema does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The row becomes a dead letter that names the column.
    #[default]
    DeadLetter,
    /// The value is left out; the row is kept.
    Drop,
    /// The value is kept, as JSON, in the column `_extra`.
    Keep,
}
