//! Separated values into columns, matched by the header's names. Owns nothing: where each field
//! goes is worked out once a header.
//!
//! An unquoted empty field is NULL. A quoted empty one is the empty text, and NULL where the
//! column is no text. Numbers and the like may have spaces around them; texts are kept as they are.
//! The usual words for NULL ([`NULL_WORDS`]), unquoted, are NULL in columns that are no text, where
//! they cannot be a value; in a TEXT column `NA` stays `NA` (it may be Namibia) unless the decoder
//! was told the body's own text for NULL.

use super::columns::{Builder, Values};
use super::fault::{invalid_date, mismatch, unfit};
use super::json::{Reader, quote};
use super::number::{self, Unfit};
use super::target::Target;
use super::{Fallible, Fault, datetime, shorten_bytes};
use crate::record::Code;
use crate::schema::Type;

/// What programs write for NULL. Never a value of a type other than TEXT.
const NULL_WORDS: [&[u8]; 5] = [b"NA", b"N/A", b"NULL", b"null", b"\\N"];

/// True if an unquoted field is a common word for NULL.
pub(super) fn is_null_word(text: &[u8]) -> bool {
    NULL_WORDS.contains(&text)
}

/// Where a field of the header goes.
#[derive(Debug)]
pub(super) enum Field {
    Column(usize),
    /// To no column; its name.
    Unknown(Box<[u8]>),
}

/// How fields are read.
#[derive(Debug, Clone, Copy)]
struct Dialect<'a> {
    delimiter: u8,
    /// What an unquoted field says for NULL, in columns of every type.
    null_text: Option<&'a [u8]>,
    /// The deepest nesting of a JSON value.
    depth: usize,
}

/// A quoted field: its content as it stands, whether quotes are doubled in it, and its end.
struct Quoted<'a> {
    content: &'a [u8],
    doubled: bool,
    end: usize,
}

impl Target {
    /// Reads the record at the start of `bytes`. Returns its length, with its line end.
    pub(super) fn csv_row(
        &mut self,
        bytes: &[u8],
        fields: &[Field],
        delimiter: u8,
    ) -> Fallible<usize> {
        self.begin_row();
        match self.csv_fields(bytes, fields, delimiter) {
            Ok(end) => self.end_row().map(|()| end),
            // A value in the wrong column is the consequence of a field too many or too few.
            Err(fault) if fault.code == Code::Syntax => Err(fault),
            Err(fault) => Err(miscounted(bytes, fields.len(), delimiter).unwrap_or(fault)),
        }
    }

    fn csv_fields(&mut self, bytes: &[u8], fields: &[Field], delimiter: u8) -> Fallible<usize> {
        let row = self.columns.rows();
        let mut at = 0;
        let mut left = fields.len();
        for field in fields {
            match field {
                Field::Column(index) => {
                    let builder = self.columns.slot(*index)?;
                    let null_text = self.null_text.as_deref();
                    let dialect = Dialect { delimiter, null_text, depth: self.limits.depth };
                    at = match cell(bytes, at, dialect, builder, row, &mut self.scratch) {
                        Ok(end) => end,
                        Err(mut fault) => {
                            fault.column = Some(builder.column.name.clone());
                            return Err(fault);
                        }
                    };
                }
                Field::Unknown(name) => at = self.unknown_field(bytes, at, delimiter, name)?,
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
        delimiter: u8,
        name: &[u8],
    ) -> Fallible<usize> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (text, quoted, end) = field(bytes, at, delimiter, &mut scratch)?;
        let null = !quoted && (text.is_empty() || self.null_text.as_deref() == Some(text));
        if !null {
            self.unknown_value(name);
            if self.keeps() {
                if !self.extra.is_empty() {
                    self.extra.push(b',');
                }
                quote(name, &mut self.extra);
                self.extra.push(b':');
                quote(text, &mut self.extra);
            }
        }
        self.scratch = scratch;
        Ok(end)
    }
}

/// The fault of a record whose fields are not as many as the header's, if so it is.
#[cold]
fn miscounted(bytes: &[u8], expected: usize, delimiter: u8) -> Option<Box<Fault>> {
    let mut scratch = Vec::new();
    let (mut at, mut found) = (0, 0);
    loop {
        at = field(bytes, at, delimiter, &mut scratch).ok()?.2;
        found += 1;
        if bytes.get(at) != Some(&delimiter) {
            break;
        }
        at += 1;
    }
    let message = format!("{found} fields, and the header has {expected}");
    (found != expected).then(|| Fault::new(Code::FieldCount, message))
}

#[inline]
fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        [b'\r', ..] => 1,
        _ => 0,
    }
}

/// True if a field ends before `at`: at the delimiter, a line end, or the end of the bytes.
#[inline]
fn ends(bytes: &[u8], at: usize, delimiter: u8) -> bool {
    match bytes.get(at) {
        None | Some(b'\n' | b'\r') => true,
        Some(&byte) => byte == delimiter,
    }
}

/// Where an unquoted field ends.
#[inline]
fn field_end(bytes: &[u8], at: usize, delimiter: u8) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH * 0x80;
    // Most fields are shorter than what a vector search costs to begin.
    let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
        let end = bytes[at..].iter().position(|&b| b == delimiter || b == b'\n' || b == b'\r');
        return end.map_or(bytes.len(), |end| at + end);
    };
    let word = u64::from_le_bytes(*word);
    // The high bit of a byte that is zero; above the first of them others may be set as well.
    let zero_in = |word: u64| word.wrapping_sub(EACH) & !word & HIGH;
    let found = zero_in(word ^ (EACH * u64::from(delimiter)))
        | zero_in(word ^ (EACH * u64::from(b'\n')))
        | zero_in(word ^ (EACH * u64::from(b'\r')));
    if found != 0 {
        return at + found.trailing_zeros() as usize / 8;
    }
    memchr::memchr3(delimiter, b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |end| at + end)
}

/// The field at `at`: its text (unquoted into `scratch` if need be), whether it was quoted, and
/// where it ends.
pub(super) fn field<'a>(
    bytes: &'a [u8],
    at: usize,
    delimiter: u8,
    scratch: &'a mut Vec<u8>,
) -> Fallible<(&'a [u8], bool, usize)> {
    if bytes.get(at) != Some(&b'"') {
        let end = field_end(bytes, at, delimiter);
        return Ok((&bytes[at..end], false, end));
    }
    let quoted = quoted(bytes, at, delimiter)?;
    Ok((unquote(&quoted, scratch), true, quoted.end))
}

fn quoted(bytes: &[u8], at: usize, delimiter: u8) -> Fallible<Quoted<'_>> {
    let start = at + 1;
    let mut doubled = false;
    let mut from = start;
    loop {
        let Some(found) = memchr::memchr(b'"', &bytes[from..]) else {
            return Err(Fault::syntax(at, "the quote that opens here is not closed"));
        };
        let close = from + found;
        if bytes.get(close + 1) == Some(&b'"') {
            doubled = true;
            from = close + 2;
            continue;
        }
        if !ends(bytes, close + 1, delimiter) {
            let message = "bytes after the closing quote (a quote inside quotes is doubled)";
            return Err(Fault::syntax(close + 1, message));
        }
        return Ok(Quoted { content: &bytes[start..close], doubled, end: close + 1 });
    }
}

fn unquote<'a>(quoted: &Quoted<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !quoted.doubled {
        return quoted.content;
    }
    scratch.clear();
    let mut rest = quoted.content;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        scratch.extend_from_slice(&rest[..=quote]);
        rest = rest.get(quote + 2..).unwrap_or_default();
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// Reads a field into its column. Returns where it ends.
#[inline]
fn cell(
    bytes: &[u8],
    at: usize,
    dialect: Dialect<'_>,
    builder: &mut Builder,
    row: usize,
    scratch: &mut Vec<u8>,
) -> Fallible<usize> {
    let Dialect { delimiter, null_text, depth } = dialect;
    if bytes.get(at) == Some(&b'"') {
        let quoted = quoted(bytes, at, delimiter)?;
        convert(unquote(&quoted, scratch), true, builder, row, depth)?;
        return Ok(quoted.end);
    }
    if ends(bytes, at, delimiter) {
        builder.push_null(row)?;
        return Ok(at);
    }
    if let Some(null) = null_text
        && bytes[at..].starts_with(null)
        && ends(bytes, at + null.len(), delimiter)
    {
        builder.push_null(row)?;
        return Ok(at + null.len());
    }
    // The common spellings are read to their end in one go.
    let read = match &mut builder.values {
        Values::SmallInt(v) => whole(bytes, at, delimiter, v),
        Values::Int(v) => whole(bytes, at, delimiter, v),
        Values::BigInt(v) => whole(bytes, at, delimiter, v),
        Values::Double(v) => match number::read_double(bytes, at) {
            Some((value, end)) if ends(bytes, end, delimiter) => {
                v.push(value);
                Some(end)
            }
            _ => None,
        },
        Values::Text(texts) => {
            let end = field_end(bytes, at, delimiter);
            texts.push_from(bytes, at, end);
            Some(end)
        }
        Values::Timestamp(v) => {
            // `2013-01-01T10:00:00Z`, which most programs write.
            const LENGTH: usize = 20;
            let text = bytes.get(at..at + LENGTH).filter(|_| ends(bytes, at + LENGTH, delimiter));
            text.and_then(datetime::timestamp).map(|value| {
                v.push(value);
                at + LENGTH
            })
        }
        _ => None,
    };
    if let Some(end) = read {
        return Ok(end);
    }
    let end = field_end(bytes, at, delimiter);
    let text = &bytes[at..end];
    if is_null_word(text) {
        builder.push_null(row)?;
    } else {
        convert(text, false, builder, row, depth)?;
    }
    Ok(end)
}

#[inline]
fn whole<T: TryFrom<i64>>(
    bytes: &[u8],
    at: usize,
    delimiter: u8,
    values: &mut Vec<T>,
) -> Option<usize> {
    let (value, end) = number::read_integer(bytes, at)?;
    if !ends(bytes, end, delimiter) {
        return None;
    }
    values.push(T::try_from(value).ok()?);
    Some(end)
}

/// Puts a field's text into its column, whatever its spelling.
fn convert(
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
