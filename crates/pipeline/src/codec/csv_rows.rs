//! Separated values into columns, matched by name. Owns nothing: where each field goes is worked
//! out once a layout. This is the way of every record; those without quotes and faults take the
//! quicker one of `csv_columns` where they stand together.
//!
//! An unquoted empty field is NULL. A quoted empty one is the empty text, and NULL where the
//! column is no text. Numbers and the like may have spaces around them; texts are kept as they are.
//! The usual words for NULL ([`NULL_WORDS`]), unquoted, are NULL in columns that are no text, where
//! they cannot be a value; in a TEXT column `NA` stays `NA` (it may be Namibia) unless the client
//! named the body's own text for NULL. Where a backslash escapes, `\N` is NULL in every column.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use super::columns::{Builder, Values};
use super::csv_fields::{Token, count, line_end, token};
use super::dialect::{Header, Layout};
use super::fault::{invalid_date, mismatch, unfit};
use super::json::Reader;
use super::number::{self, Unfit};
use super::target::Target;
use super::{Fallible, Fault, datetime, shorten_bytes};
use crate::record::Code;
use crate::schema::Type;

/// What programs write for NULL. Never a value of a type other than TEXT.
const NULL_WORDS: [&[u8]; 5] = [b"NA", b"N/A", b"NULL", b"null", b"\\N"];

/// True if an unquoted field is a common word for NULL.
#[inline]
pub(super) fn is_null_word(text: &[u8]) -> bool {
    text.len() <= 4 && NULL_WORDS.contains(&text)
}

/// True if an unquoted field says NULL in a column of any type.
#[inline]
pub(super) fn is_null(text: &[u8], layout: &Layout) -> bool {
    text.is_empty()
        || layout.null.as_ref().is_some_and(|null| null.as_bytes() == text)
        || (layout.marks.escape == Some(b'\\') && text == b"\\N")
}

/// Where a field goes.
#[derive(Debug)]
pub(super) enum Field {
    Column(usize),
    /// To no column; its name.
    Unknown(Box<[u8]>),
}

/// Where the fields of a layout go.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) layout: Arc<Layout>,
    pub(super) all: Vec<Field>,
    /// The layout's names, once a record was looked at that may repeat them.
    names: OnceCell<HashSet<Box<[u8]>>>,
}

impl Fields {
    pub(super) fn new(layout: &Arc<Layout>, target: &Target) -> Fields {
        let fields = layout.names.iter().map(|name| match target.index(name.as_bytes()) {
            Some(index) => Field::Column(index),
            None => Field::Unknown(name.as_bytes().into()),
        });
        Fields { layout: Arc::clone(layout), all: fields.collect(), names: OnceCell::new() }
    }

    /// How many fields of a record are names of the columns.
    fn named(&self, bytes: &[u8]) -> usize {
        let names = self
            .names
            .get_or_init(|| self.layout.names.iter().map(|name| name.as_bytes().into()).collect());
        let marks = self.layout.marks;
        let (mut at, mut named, mut scratch) = (0, 0, Vec::new());
        while let Ok(token) = token(bytes, at, marks) {
            named += usize::from(names.contains(token.text(bytes, marks, &mut scratch)));
            if bytes.get(token.end) != Some(&marks.delimiter) {
                break;
            }
            at = token.end + 1;
        }
        named
    }

    /// The fault of a record that does not fit the body's columns at all: it has another number of
    /// fields, or it names the columns once more.
    #[cold]
    pub(super) fn misfit(&self, bytes: &[u8]) -> Option<Box<Fault>> {
        let layout = &self.layout;
        let (found, expected) = (count(bytes, layout.marks)?, layout.names.len());
        let columns = |count: usize| if count == 1 { "column" } else { "columns" };
        let named = self.named(bytes);
        // A line that names most of the columns is no row of theirs.
        let again =
            layout.header == Header::Present && named > 1 && named * 2 > expected.min(found);
        let message = if again && found == expected && named == expected {
            "the header line once more; it is no row".to_owned()
        } else if again && found != expected {
            format!(
                "a header line of {found} {} in the middle of the body, and its header has \
                 {expected}; send what follows it as a body of its own",
                columns(found)
            )
        } else if found != expected {
            let fields = if found == 1 { "field" } else { "fields" };
            match layout.header {
                Header::Present => format!("{found} {fields}, and the header has {expected}"),
                Header::Absent => format!(
                    "{found} {fields}, and the body has {expected} {} (without a header they are \
                     the stream's, or as many as the first record has fields)",
                    columns(expected)
                ),
            }
        } else {
            return None;
        };
        Some(Fault::new(Code::FieldCount, message))
    }
}

impl Target {
    /// Reads the record at the start of `bytes`. Returns its length, with its line end.
    pub(super) fn csv_row(&mut self, bytes: &[u8], fields: &Fields) -> Fallible<usize> {
        self.begin_row();
        match self.csv_fields(bytes, fields) {
            Ok(end) => self.end_row().map(|()| end),
            // A value in the wrong column is the consequence of a field too many or too few.
            Err(fault) if fault.code == Code::Syntax => Err(fault),
            Err(fault) => Err(fields.misfit(bytes).unwrap_or(fault)),
        }
    }

    fn csv_fields(&mut self, bytes: &[u8], fields: &Fields) -> Fallible<usize> {
        let row = self.columns.rows();
        let layout = &*fields.layout;
        let delimiter = layout.marks.delimiter;
        let mut at = 0;
        let mut left = fields.all.len();
        for field in &fields.all {
            match field {
                Field::Column(index) => {
                    let builder = self.columns.slot(*index)?;
                    let cell = Cell { layout, row, depth: self.limits.depth };
                    at = match cell.read(bytes, at, builder, &mut self.scratch) {
                        Ok(end) => end,
                        Err(mut fault) => {
                            fault.column = Some(builder.column.name.clone());
                            return Err(fault);
                        }
                    };
                }
                Field::Unknown(name) => at = self.unknown_field(bytes, at, layout, name)?,
            }
            left -= 1;
            let more = bytes.get(at) == Some(&delimiter);
            if more == (left == 0) {
                return Err(Fault::new(Code::FieldCount, "another number of fields"));
            }
            at += usize::from(more);
        }
        Ok(at + line_end(&bytes[at..]))
    }

    fn unknown_field(
        &mut self,
        bytes: &[u8],
        at: usize,
        layout: &Layout,
        name: &[u8],
    ) -> Fallible<usize> {
        let token = token(bytes, at, layout.marks)?;
        let raw = bytes.get(token.from..token.to).unwrap_or_default();
        if token.quoted || !is_null(raw, layout) {
            let mut scratch = std::mem::take(&mut self.scratch);
            self.unknown_text(name, token.text(bytes, layout.marks, &mut scratch));
            self.scratch = scratch;
        }
        Ok(token.end)
    }
}

/// What reading a cell needs beside its bytes and its column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) layout: &'a Layout,
    pub(super) row: usize,
    /// The deepest nesting of a JSON value.
    pub(super) depth: usize,
}

impl Cell<'_> {
    /// Reads the field at `at` into its column. Returns where it ends.
    fn read(
        self,
        bytes: &[u8],
        at: usize,
        builder: &mut Builder,
        scratch: &mut Vec<u8>,
    ) -> Fallible<usize> {
        let token = token(bytes, at, self.layout.marks)?;
        self.put(bytes, token, builder, scratch)?;
        Ok(token.end)
    }

    /// Puts a field into its column.
    #[inline]
    pub(super) fn put(
        self,
        bytes: &[u8],
        token: Token,
        builder: &mut Builder,
        scratch: &mut Vec<u8>,
    ) -> Fallible<()> {
        let Token { from, to, quoted, .. } = token;
        if !quoted && is_null(bytes.get(from..to).unwrap_or_default(), self.layout) {
            return builder.push_null(self.row);
        }
        if token.escaped {
            let text = token.text(bytes, self.layout.marks, scratch);
            return convert(text, quoted, builder, self.row, self.depth);
        }
        if quick(bytes, from, to, &mut builder.values) {
            return Ok(());
        }
        let text = bytes.get(from..to).unwrap_or_default();
        convert(text, quoted, builder, self.row, self.depth)
    }
}

/// Puts a field's text into its column, whatever its spelling.
pub(super) fn convert(
    text: &[u8],
    quoted: bool,
    builder: &mut Builder,
    row: usize,
    depth: usize,
) -> Fallible<()> {
    let ty = builder.column.ty;
    if let Values::Text(texts) = &mut builder.values {
        texts.push(text);
        return Ok(());
    }
    if !quoted && is_null_word(text) {
        return builder.push_null(row);
    }
    let text = text.trim_ascii();
    if text.is_empty() && quoted {
        return builder.push_null(row);
    }
    let integer = || -> Result<i64, Unfit> {
        i64::try_from(number::integer(text)?).map_err(|_| Unfit::Overflow)
    };
    let narrow = |why| unfit(why, text, ty);
    match &mut builder.values {
        Values::SmallInt(v) => v.push(fit(integer().map_err(narrow)?, text, ty)?),
        Values::Int(v) => v.push(fit(integer().map_err(narrow)?, text, ty)?),
        Values::BigInt(v) => v.push(integer().map_err(narrow)?),
        Values::Real(v) => v.push(float(text, ty, number::real)?),
        Values::Double(v) => v.push(float(text, ty, number::double)?),
        Values::Decimal { values, precision, scale } => {
            values.push(number::decimal(text, *precision, *scale).map_err(narrow)?);
        }
        Values::Boolean(v) => v.push(boolean(text).ok_or_else(|| mismatch(text, ty))?),
        Values::Date(v) => {
            v.push(datetime::date(text).ok_or_else(|| invalid_date(text, ty))?);
        }
        Values::Timestamp(v) => {
            v.push(datetime::timestamp(text).ok_or_else(|| invalid_date(text, ty))?);
        }
        Values::Json(texts) => {
            check_json(text, depth)?;
            texts.push(text);
        }
        Values::Text(_) => {}
    }
    Ok(())
}

/// Puts the text at `from..to` into a column if it is of a common spelling.
#[inline]
fn quick(bytes: &[u8], from: usize, to: usize, values: &mut Values) -> bool {
    match values {
        Values::SmallInt(v) => push(v, integer(bytes, from, to)),
        Values::Int(v) => push(v, integer(bytes, from, to)),
        Values::BigInt(v) => push(v, integer(bytes, from, to)),
        Values::Double(v) => push(v, number::double_between(bytes, from, to)),
        Values::Date(v) => push(v, bytes.get(from..to).and_then(datetime::date)),
        Values::Timestamp(v) => push(v, bytes.get(from..to).and_then(datetime::timestamp)),
        Values::Text(texts) => {
            texts.push_from(bytes, from, to);
            true
        }
        _ => false,
    }
}

#[inline]
fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    value.map(|value| values.push(value)).is_some()
}

/// The whole number at `from..to`, if it is of a common spelling and fits.
#[inline]
fn integer<T: TryFrom<i64>>(bytes: &[u8], from: usize, to: usize) -> Option<T> {
    T::try_from(number::integer_between(bytes, from, to)?).ok()
}

fn fit<T: TryFrom<i64>>(value: i64, text: &[u8], ty: Type) -> Fallible<T> {
    T::try_from(value).map_err(|_| unfit(Unfit::Overflow, text, ty))
}

fn float<T>(text: &[u8], ty: Type, parse: impl Fn(&[u8]) -> Result<T, Unfit>) -> Fallible<T> {
    // The words for what is not finite are out of range; a word that is no number is none.
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let number = unsigned.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.');
    let word = |word: &str| unsigned.eq_ignore_ascii_case(word.as_bytes());
    let infinite = word("nan") || word("inf") || word("infinity");
    if !number && !infinite {
        return Err(mismatch(text, ty));
    }
    parse(text).map_err(|why| unfit(why, text, ty))
}

fn boolean(text: &[u8]) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    if is("true") || is("t") || is("1") {
        Some(true)
    } else if is("false") || is("f") || is("0") {
        Some(false)
    } else {
        None
    }
}

fn check_json(text: &[u8], depth: usize) -> Fallible<()> {
    let mut reader = Reader::new(text, 0, depth);
    let whole = reader.skip().is_ok() && reader.at == text.len();
    if whole {
        return Ok(());
    }
    let message = format!("expected JSON, found {}", shorten_bytes(text));
    Err(Fault::new(Code::TypeMismatch, message))
}
