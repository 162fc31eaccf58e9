//! What travels: the rows of a decoded chunk and the rows that were refused, kept whole.

use arrow::array::RecordBatch;
use bytes::Bytes;

/// The column that holds what has no column of its own, under [`Unknown::Keep`](crate::schema::Unknown::Keep).
pub const EXTRA: &str = "_extra";

/// The column that says when a row was received; it is added unless the stream goes without.
pub const RECEIVED_AT: &str = "_received_at";

/// True for the columns that Forebay fills itself: no client has a value for them.
pub fn is_own_column(name: &str) -> bool {
    [EXTRA, RECEIVED_AT].contains(&name)
}

/// Why a row was refused. Stable: it is a metric label, a field of the reply and of `_dead_letters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The record is not well-formed in its format (JSON grammar, CSV quoting).
    Syntax,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// A JSON object names the same key twice.
    DuplicateKey,
    /// The record is longer than the row limit.
    RowTooLarge,
    /// The record nests deeper than the limit.
    TooDeep,
    /// A CSV record has more or fewer fields than its header.
    FieldCount,
    /// A line of text does not match the pattern.
    NoMatch,
    /// A column that the schema does not have.
    UnknownColumn,
    /// The value does not fit the column's type (`"abc"` for an INT, `1.9` for an INT).
    TypeMismatch,
    /// The number is outside the column's range.
    OutOfRange,
    /// The text is not a valid date or timestamp.
    InvalidDate,
    /// NULL or missing in a NOT NULL column.
    NotNull,
    /// A CHECK constraint is false.
    Check,
    /// The transform failed on this row.
    Transform,
    /// The transform's worker died on this row twice.
    Poison,
}

impl Code {
    /// Every code, for metrics that must exist from the start.
    pub const ALL: [Code; 15] = [
        Code::Syntax,
        Code::InvalidUtf8,
        Code::DuplicateKey,
        Code::RowTooLarge,
        Code::TooDeep,
        Code::FieldCount,
        Code::NoMatch,
        Code::UnknownColumn,
        Code::TypeMismatch,
        Code::OutOfRange,
        Code::InvalidDate,
        Code::NotNull,
        Code::Check,
        Code::Transform,
        Code::Poison,
    ];

    /// The stable text of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::InvalidUtf8 => "invalid_utf8",
            Code::DuplicateKey => "duplicate_key",
            Code::RowTooLarge => "row_too_large",
            Code::TooDeep => "too_deep",
            Code::FieldCount => "field_count",
            Code::NoMatch => "no_match",
            Code::UnknownColumn => "unknown_column",
            Code::TypeMismatch => "type_mismatch",
            Code::OutOfRange => "out_of_range",
            Code::InvalidDate => "invalid_date",
            Code::NotNull => "not_null",
            Code::Check => "check",
            Code::Transform => "transform",
            Code::Poison => "poison",
        }
    }

    /// The code of a stable text; `None` for a text of no code.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

/// A refused row, kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The data row within the chunk, counted from 1 as a person would (a CSV header is no row).
    pub row: u64,
    /// The column at fault, where one is.
    pub column: Option<String>,
    /// Why, for machines.
    pub code: Code,
    /// Why, for people: what was found, and what to do.
    pub message: String,
    /// The row's bytes as they came.
    pub raw: Bytes,
}

/// A decoded chunk: the good rows, and the refused ones beside them.
///
/// F6: `received == rows.num_rows() + rejected.len()`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows that passed, in the order received, with the stream's Arrow schema.
    pub rows: RecordBatch,
    /// For each row of `rows`, its data row within the chunk (from 1). Ascending.
    pub numbers: Vec<u32>,
    /// For each row of `rows`, where its bytes stand in the chunk: offset and length.
    pub spans: Vec<(u32, u32)>,
    /// The refused rows, ascending by row.
    pub rejected: Vec<Rejected>,
    /// Records seen in the chunk.
    pub received: u64,
}
