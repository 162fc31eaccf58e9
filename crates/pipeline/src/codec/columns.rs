//! The columns of a batch being decoded. Owns their buffers; a row that is refused midway is
//! taken back from each of them, so no half of it is ever seen.
//!
//! A column holds one value a row. NULLs are kept as a list of rows, since most columns have few:
//! a value that is there costs nothing beyond itself.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, MutableBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::{Fallible, Fault, type_name};
use crate::record::Code;
use crate::schema::{Column, Constant, Schema, Type};

/// UTF-8 texts, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Where each ends in `data`.
    ends: Vec<i32>,
    pub(super) data: Vec<u8>,
}

impl Texts {
    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        self.data.extend_from_slice(text);
        self.end();
    }

    /// Appends the text that stands at `from..to` of `bytes`.
    #[inline]
    pub(super) fn push_from(&mut self, bytes: &[u8], from: usize, to: usize) {
        // A copy of fixed size needs no call; what is too much of it is cut off again.
        const SHORT: usize = 16;
        match bytes.get(from..).and_then(|rest| rest.first_chunk::<SHORT>()) {
            Some(short) if to - from <= SHORT => {
                let end = self.data.len() + (to - from);
                self.data.extend_from_slice(short);
                self.data.truncate(end);
                self.end();
            }
            _ => self.push(bytes.get(from..to).unwrap_or_default()),
        }
    }

    /// Ends the text whose bytes were appended to `data`.
    #[inline]
    pub(super) fn end(&mut self) {
        // A chunk is far below 2 GiB, and `Columns::is_full` bounds what defaults add.
        self.ends.push(self.data.len() as i32);
    }

    /// As [`Values::remove`].
    fn remove(&mut self, base: usize, rows: &[usize]) {
        let start = |ends: &[i32], row: usize| match row.checked_sub(1) {
            Some(before) => ends.get(before).map_or(0, |end| *end as usize),
            None => 0,
        };
        let (mut rows, mut kept) = (rows.iter().copied().peekable(), base);
        let mut end = start(&self.ends, base);
        let mut from = end;
        for row in base..self.ends.len() {
            let to = self.ends.get(row).map_or(0, |end| *end as usize);
            if rows.next_if_eq(&(row - base)).is_none() {
                self.data.copy_within(from..to, end);
                end += to - from;
                if let Some(slot) = self.ends.get_mut(kept) {
                    *slot = end as i32;
                }
                kept += 1;
            }
            from = to;
        }
        self.truncate(kept);
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }
}

/// Takes out elements of those from `base` on, by their ascending places among these.
fn compact<T: Copy>(values: &mut Vec<T>, base: usize, out: &[usize]) {
    let (mut out, mut kept) = (out.iter().copied().peekable(), base);
    for at in base..values.len() {
        if out.next_if_eq(&(at - base)).is_none() {
            values.copy_within(at..=at, kept);
            kept += 1;
        }
    }
    values.truncate(kept);
}

/// The values of a column, by its type.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(Vec<bool>),
    SmallInt(Vec<i16>),
    Int(Vec<i32>),
    BigInt(Vec<i64>),
    Real(Vec<f32>),
    Double(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Text(Texts),
    Date(Vec<i32>),
    Timestamp(Vec<i64>),
    Json(Texts),
}

/// Does the same to the vector or texts of every type.
macro_rules! each {
    ($values:expr, $v:ident => $vector:expr, $t:ident => $texts:expr) => {
        match $values {
            Values::Boolean($v) => $vector,
            Values::SmallInt($v) => $vector,
            Values::Int($v) | Values::Date($v) => $vector,
            Values::BigInt($v) | Values::Timestamp($v) => $vector,
            Values::Real($v) => $vector,
            Values::Double($v) => $vector,
            Values::Decimal { values: $v, .. } => $vector,
            Values::Text($t) | Values::Json($t) => $texts,
        }
    };
}

impl Values {
    fn new(ty: Type) -> Values {
        match ty {
            Type::Boolean => Values::Boolean(Vec::new()),
            Type::SmallInt => Values::SmallInt(Vec::new()),
            Type::Int => Values::Int(Vec::new()),
            Type::BigInt => Values::BigInt(Vec::new()),
            Type::Real => Values::Real(Vec::new()),
            Type::Double => Values::Double(Vec::new()),
            Type::Decimal { precision, scale } => {
                Values::Decimal { values: Vec::new(), precision, scale }
            }
            Type::Text => Values::Text(Texts::default()),
            Type::Date => Values::Date(Vec::new()),
            Type::Timestamp => Values::Timestamp(Vec::new()),
            Type::Json => Values::Json(Texts::default()),
        }
    }

    /// What stands under a NULL.
    pub(super) fn push_blank(&mut self) {
        each!(self, v => v.push(Default::default()), t => t.end());
    }

    fn len(&self) -> usize {
        each!(self, v => v.len(), t => t.ends.len())
    }

    /// Takes out rows of those from `base` on, by their ascending places among these.
    fn remove(&mut self, base: usize, rows: &[usize]) {
        each!(self, v => compact(v, base, rows), t => t.remove(base, rows));
    }

    fn truncate(&mut self, rows: usize) {
        each!(self, v => v.truncate(rows), t => t.truncate(rows));
    }

    fn reserve(&mut self, rows: usize, text: usize) {
        each!(self, v => v.reserve_exact(rows), t => {
            t.ends.reserve_exact(rows);
            t.data.reserve_exact(text);
        });
    }

    fn push_constant(&mut self, constant: &Constant) -> bool {
        match (self, constant) {
            (Values::Boolean(v), Constant::Bool(value)) => v.push(*value),
            (Values::SmallInt(v), Constant::Int(value)) => match i16::try_from(*value) {
                Ok(value) => v.push(value),
                Err(_) => return false,
            },
            (Values::Int(v), Constant::Int(value)) => match i32::try_from(*value) {
                Ok(value) => v.push(value),
                Err(_) => return false,
            },
            (Values::BigInt(v), Constant::Int(value)) => v.push(*value),
            (Values::Real(v), Constant::Double(value)) => v.push(*value as f32),
            (Values::Double(v), Constant::Double(value)) => v.push(*value),
            (Values::Decimal { values, .. }, Constant::Decimal(value)) => values.push(*value),
            (Values::Text(t) | Values::Json(t), Constant::Text(text)) => t.push(text.as_bytes()),
            (Values::Date(v), Constant::Date(value)) => v.push(*value),
            (Values::Timestamp(v), Constant::Timestamp(value)) => v.push(*value),
            _ => return false,
        }
        true
    }
}

/// A JSON key as it is written most often, from its quote to the colon; compared word by word
/// where it is of at most two.
#[derive(Debug)]
pub(super) struct Key {
    text: Box<[u8]>,
    first: Word,
    second: Word,
}

/// Sixteen bytes, and which of them count.
#[derive(Debug)]
struct Word {
    word: u128,
    mask: u128,
}

impl Word {
    const BYTES: usize = size_of::<u128>();

    fn new(bytes: &[u8]) -> Word {
        let (mut word, mut mask) = ([0; Word::BYTES], [0; Word::BYTES]);
        for ((word, mask), byte) in word.iter_mut().zip(&mut mask).zip(bytes) {
            (*word, *mask) = (*byte, 0xFF);
        }
        Word { word: u128::from_le_bytes(word), mask: u128::from_le_bytes(mask) }
    }

    #[inline]
    fn stands(&self, bytes: &[u8; Word::BYTES]) -> bool {
        u128::from_le_bytes(*bytes) & self.mask == self.word
    }
}

impl Key {
    fn new(name: &str) -> Key {
        let plain = name.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        // A key that needs escapes is never read by its looks: no key begins with a line feed.
        let text = if plain { format!("\"{name}\":") } else { "\n".to_owned() };
        let bytes = text.as_bytes();
        let second = bytes.get(Word::BYTES..).unwrap_or_default();
        Key { first: Word::new(bytes), second: Word::new(second), text: text.into_bytes().into() }
    }

    /// The key's length if it stands at `at`.
    #[inline]
    pub(super) fn stands(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let rest = bytes.get(at..)?;
        let length = self.text.len();
        let stands = match rest.split_first_chunk() {
            Some((first, _)) if length <= Word::BYTES => self.first.stands(first),
            Some((first, rest)) if length <= 2 * Word::BYTES && rest.len() >= Word::BYTES => {
                self.first.stands(first)
                    && rest.first_chunk().is_some_and(|second| self.second.stands(second))
            }
            _ => rest.starts_with(&self.text),
        };
        stands.then_some(length)
    }
}

/// One column's buffers.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) column: Column,
    /// How its key is written in a JSON record most often.
    pub(super) key: Key,
    pub(super) values: Values,
    /// Rows that are NULL, ascending.
    nulls: Vec<u32>,
    /// The attempt that wrote the last value: tells a second value of the same row.
    attempt: u32,
    /// Bytes of text in the batch before: what to make room for.
    text: usize,
}

impl Builder {
    fn new(column: Column) -> Builder {
        Builder {
            key: Key::new(&column.name),
            values: Values::new(column.ty),
            nulls: Vec::new(),
            attempt: 0,
            text: 0,
            column,
        }
    }

    /// A NULL in `row`.
    #[inline]
    pub(super) fn push_null(&mut self, row: usize) -> Fallible<()> {
        if !self.column.nullable {
            return Err(Fault::new(Code::NotNull, "NULL in a NOT NULL column"));
        }
        self.values.push_blank();
        self.nulls.push(row as u32);
        Ok(())
    }

    /// The value of a column that the row does not mention. Returns the bytes it added.
    fn push_missing(&mut self, row: usize) -> Fallible<usize> {
        let Some(default) = &self.column.default else {
            if self.column.nullable {
                return self.push_null(row).map(|()| 0);
            }
            let message = "missing, and the column is NOT NULL without a DEFAULT";
            return Err(Fault::new(Code::NotNull, message));
        };
        if !self.values.push_constant(default) {
            let message = format!("the DEFAULT is no {}", type_name(self.column.ty));
            return Err(Fault::new(Code::TypeMismatch, message));
        }
        Ok(if let Constant::Text(text) = default { text.len() } else { 0 })
    }

    /// As [`Values::remove`].
    fn remove(&mut self, base: usize, rows: &[usize]) {
        self.values.remove(base, rows);
        let first = self.nulls.partition_point(|row| (*row as usize) < base);
        let later = self.nulls.split_off(first);
        let kept =
            later.into_iter().filter_map(|row| match rows.binary_search(&(row as usize - base)) {
                Ok(_) => None,
                Err(before) => Some(row - before as u32),
            });
        self.nulls.extend(kept);
    }

    fn validity(&mut self, rows: usize) -> Option<NullBuffer> {
        let nulls = std::mem::take(&mut self.nulls);
        if nulls.is_empty() {
            return None;
        }
        let mut bits = MutableBuffer::new(rows.div_ceil(8)).with_bitset(rows.div_ceil(8), true);
        let bytes = bits.as_slice_mut();
        for row in &nulls {
            if let Some(byte) = bytes.get_mut(*row as usize / 8) {
                *byte &= !(1 << (row % 8));
            }
        }
        Some(NullBuffer::new(BooleanBuffer::new(bits.into(), 0, rows)))
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let valid = self.validity(rows);
        let values = std::mem::replace(&mut self.values, Values::new(self.column.ty));
        Ok(match values {
            Values::Boolean(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(v), valid)),
            Values::SmallInt(v) => Arc::new(Int16Array::try_new(v.into(), valid)?),
            Values::Int(v) => Arc::new(Int32Array::try_new(v.into(), valid)?),
            Values::BigInt(v) => Arc::new(Int64Array::try_new(v.into(), valid)?),
            Values::Real(v) => Arc::new(Float32Array::try_new(v.into(), valid)?),
            Values::Double(v) => Arc::new(Float64Array::try_new(v.into(), valid)?),
            Values::Decimal { values, precision, scale } => {
                let array = Decimal128Array::try_new(values.into(), valid)?;
                Arc::new(array.with_precision_and_scale(precision, scale)?)
            }
            Values::Date(v) => Arc::new(Date32Array::try_new(v.into(), valid)?),
            Values::Timestamp(v) => {
                let array = TimestampMicrosecondArray::try_new(v.into(), valid)?;
                Arc::new(array.with_timezone("UTC"))
            }
            Values::Text(t) | Values::Json(t) => {
                self.text = t.data.len();
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                offsets.extend_from_slice(&t.ends);
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(StringArray::try_new(offsets, t.data.into(), valid)?)
            }
        })
    }
}

/// All columns of a batch.
#[derive(Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    pub(super) builders: Vec<Builder>,
    /// Whole rows in every column.
    rows: usize,
    attempt: u32,
    /// Columns that the row being written has.
    filled: usize,
    /// Bytes in the batch that the chunk does not hold: defaults, and names in `_extra`.
    added: usize,
}

/// What may be added to the bytes of a chunk before its batch ends early: the input does not
/// bound it.
const ADDED_BYTES: usize = 64 << 20;

impl Columns {
    pub(super) fn new(schema: &Schema) -> Columns {
        Columns {
            schema: schema.arrow(),
            builders: schema.columns.iter().cloned().map(Builder::new).collect(),
            rows: 0,
            attempt: 0,
            filled: 0,
            added: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Makes room for a batch.
    pub(super) fn reserve(&mut self, rows: usize) {
        for builder in &mut self.builders {
            let text = builder.text + builder.text / 8;
            builder.values.reserve(rows, text);
        }
    }

    /// True if the batch must end before the next row.
    pub(super) fn is_full(&self) -> bool {
        self.added >= ADDED_BYTES
    }

    /// Counts bytes towards the end of the batch that the chunk does not hold.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.added += bytes;
    }

    pub(super) fn begin_row(&mut self) {
        self.attempt += 1;
        self.filled = 0;
    }

    /// The buffers of a column in which this row has no value yet.
    ///
    /// # Errors
    /// The row has one already.
    #[inline]
    pub(super) fn slot(&mut self, index: usize) -> Fallible<&mut Builder> {
        let attempt = self.attempt;
        self.filled += 1;
        match self.builders.get_mut(index) {
            Some(builder) if builder.attempt != attempt => {
                builder.attempt = attempt;
                Ok(builder)
            }
            Some(builder) => {
                let mut fault =
                    Fault::new(Code::DuplicateKey, "the record names this key twice; send it once");
                fault.column = Some(builder.column.name.clone());
                Err(fault)
            }
            None => Err(Fault::new(Code::UnknownColumn, "no such column")),
        }
    }

    /// Ends the row: columns it does not mention take their default.
    pub(super) fn end_row(&mut self) -> Fallible<()> {
        if self.filled < self.builders.len() {
            for builder in self.builders.iter_mut().filter(|b| b.attempt != self.attempt) {
                // Marked before it is written, so that taking the row back finds it.
                builder.attempt = self.attempt;
                match builder.push_missing(self.rows) {
                    Ok(bytes) => self.added += bytes,
                    Err(mut fault) => {
                        fault.column = Some(builder.column.name.clone());
                        return Err(fault);
                    }
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends a run of rows that the columns were given one after the other: those that were given none
    /// are NULL, which the caller knows them to allow.
    pub(super) fn end_run(&mut self, rows: usize) {
        let (from, to) = (self.rows, self.rows + rows);
        for builder in self.builders.iter_mut().filter(|builder| builder.values.len() < to) {
            for row in from..to {
                builder.values.push_blank();
                builder.nulls.push(row as u32);
            }
        }
        self.rows = to;
    }

    /// Takes refused rows out of those from `base` on, by their ascending places among these.
    pub(super) fn remove(&mut self, base: usize, rows: &[usize]) {
        self.rows -= rows.len();
        for builder in &mut self.builders {
            builder.remove(base, rows);
        }
    }

    /// Takes back what the refused row has written.
    pub(super) fn undo_row(&mut self) {
        let rows = self.rows;
        for builder in self.builders.iter_mut().filter(|b| b.attempt == self.attempt) {
            builder.values.truncate(rows);
            if builder.nulls.last().is_some_and(|&row| row as usize >= rows) {
                builder.nulls.pop();
            }
        }
    }

    /// The batch; the columns are empty again.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        self.attempt = 0;
        self.added = 0;
        let mut arrays = Vec::with_capacity(self.builders.len());
        for builder in &mut self.builders {
            builder.attempt = 0;
            arrays.push(builder.finish(rows)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
    }
}
