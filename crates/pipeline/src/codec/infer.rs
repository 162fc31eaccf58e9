//! A schema from a chunk of a stream that nobody declared. Owns nothing beyond a call.
//!
//! Deterministic: the same chunk gives the same schema, columns in the order of their first
//! appearance, all of them nullable. A record that is broken has no say.
//!
//! | values of a column | type |
//! |---|---|
//! | whole numbers of 64 bits | BIGINT |
//! | other numbers, or both | DOUBLE (a CSV integer beyond 64 bits makes it TEXT: it may be an id) |
//! | `true`, `false` | BOOLEAN |
//! | texts, each a date with a time (`T` between, at most microseconds) | TIMESTAMP |
//! | other texts; in CSV also mixtures, `007`, and nothing at all | TEXT |
//! | JSON objects and arrays; in JSON also mixtures | JSON |
//!
//! A JSON key whose every value is null is no column yet: its type would be a guess that cannot
//! be taken back. A null under it is accepted, and the first value adds the column.

use std::collections::HashMap;

use super::csv_fields::token;
use super::csv_rows::{is_null, is_null_word};
use super::dialect::Layout;
use super::json::{Kind, Reader, unescape};
use super::number::is_number;
use super::pattern::Pattern;
use super::{
    Chunk, Fallible, Fault, Format, Limits, Malformed, cut, datetime, log_time, text_rows,
};
use crate::record::{Code, is_own_column};
use crate::schema::{Column, Schema, Type};

/// Infers a schema from the first chunk of an undeclared stream.
///
/// # Errors
/// No record of the chunk is well-formed, or none has a column; or there are too many columns.
pub fn infer(format: &Format, chunk: &Chunk, limits: Limits) -> Result<Schema, Malformed> {
    let malformed = |message: String| Malformed { line: chunk.line, column: 1, message };
    let mut seen = gather(format, chunk, limits).map_err(malformed)?;
    if let (0, Some(fault)) = (seen.records, seen.fault.take()) {
        return Err(malformed(format!("no record is well-formed: {}", fault.message)));
    }
    let mut columns = seen.columns(format, |_| true);
    if columns.is_empty() {
        // Only nulls: a column of some type is better than none.
        let names = seen.names.iter().filter(|name| may_be_column(name));
        columns = names.map(|name| column(name, Type::Text)).collect();
    }
    if columns.is_empty() {
        return Err(malformed("no record has a column to infer a schema from".to_owned()));
    }
    Ok(Schema { columns, checks: Vec::new() })
}

/// The schema with the columns that the chunk has values for and it lacks, typed as by [`infer`].
/// `None` if there are none, or too many.
///
/// Reads the whole chunk: call it when [`super::Decoding::unknown_columns`] names some.
pub fn widen(schema: &Schema, format: &Format, chunk: &Chunk, limits: Limits) -> Option<Schema> {
    let seen = gather(format, chunk, limits).ok()?;
    let known = seen.names.iter().zip(&seen.kinds).filter(|(_, kinds)| kinds.0 != 0);
    let new: Vec<_> =
        known.map(|(name, _)| name.as_str()).filter(|name| schema.column(name).is_none()).collect();
    let new: std::collections::HashSet<&str> = new.into_iter().collect();
    let columns = seen.columns(format, |name| new.contains(name));
    if columns.is_empty() || schema.columns.len() + columns.len() > limits.columns {
        return None;
    }
    let mut wider = schema.clone();
    wider.columns.extend(columns);
    Some(wider)
}

/// The kinds of value a column was seen to hold, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    const INTEGER: u8 = 1;
    /// A whole number beyond 64 bits.
    const LARGE: u8 = 2;
    const FLOAT: u8 = 4;
    const BOOLEAN: u8 = 8;
    const INSTANT: u8 = 16;
    const TEXT: u8 = 32;
    const NESTED: u8 = 64;

    fn only(self, of: u8) -> bool {
        self.0 & !of == 0
    }

    fn ty(self, format: &Format) -> Type {
        // What a text says is a guess in these, so mixtures stay texts.
        let csv = matches!(format, Format::Csv(_) | Format::Text(_));
        let numbers = Kinds::INTEGER | Kinds::FLOAT | if csv { 0 } else { Kinds::LARGE };
        if self.0 == 0 {
            Type::Text
        } else if self.only(Kinds::INTEGER) {
            Type::BigInt
        } else if self.only(numbers) {
            Type::Double
        } else if self.only(Kinds::BOOLEAN) {
            Type::Boolean
        } else if self.only(Kinds::INSTANT) {
            Type::Timestamp
        } else if csv || self.only(Kinds::TEXT | Kinds::INSTANT) {
            Type::Text
        } else {
            Type::Json
        }
    }
}

/// What a chunk was seen to hold.
#[derive(Debug, Default)]
struct Seen {
    names: Vec<String>,
    kinds: Vec<Kinds>,
    index: HashMap<Box<[u8]>, usize>,
    /// Well-formed records.
    records: u64,
    /// The first fault.
    fault: Option<Box<Fault>>,
}

impl Seen {
    fn slot(&mut self, name: &[u8], limits: Limits) -> Result<usize, String> {
        if let Some(&index) = self.index.get(name) {
            return Ok(index);
        }
        if self.names.len() >= limits.columns {
            return Err(format!("more than {} columns", limits.columns));
        }
        self.names.push(String::from_utf8_lossy(name).into_owned());
        self.kinds.push(Kinds::default());
        self.index.insert(name.into(), self.names.len() - 1);
        Ok(self.names.len() - 1)
    }

    fn columns(&self, format: &Format, wanted: impl Fn(&str) -> bool) -> Vec<Column> {
        // Columns that the body names are columns, values or not.
        let csv = match format {
            Format::Csv(_) => true,
            Format::Text(pattern) => pattern.names().is_some(),
            Format::Ndjson | Format::Json => false,
        };
        let known = |name: &str| match format {
            Format::Text(pattern) => pattern.ty(name),
            _ => None,
        };
        let named = self.names.iter().zip(&self.kinds);
        named
            .filter(|(_, kinds)| csv || kinds.0 != 0)
            .filter(|(name, _)| may_be_column(name) && wanted(name))
            .map(|(name, kinds)| column(name, known(name).unwrap_or_else(|| kinds.ty(format))))
            .collect()
    }
}

fn may_be_column(name: &str) -> bool {
    !name.is_empty() && !is_own_column(name)
}

fn column(name: &str, ty: Type) -> Column {
    Column { name: name.to_owned(), ty, nullable: true, default: None }
}

fn gather(format: &Format, chunk: &Chunk, limits: Limits) -> Result<Seen, String> {
    let mut seen = Seen::default();
    match format {
        Format::Ndjson => {
            for line in chunk.bytes.split(|&byte| byte == b'\n') {
                if !cut::is_blank(line) {
                    seen.take_json(&mut Reader::new(line, 0, limits.depth), limits)?;
                }
            }
        }
        Format::Json => {
            let mut rest = &chunk.bytes[..];
            let mut inside = false;
            while let [byte, tail @ ..] = rest {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\r' | b']' => rest = tail,
                    b',' => (inside, rest) = (true, tail),
                    b'[' if !inside => (inside, rest) = (true, tail),
                    _ => {
                        let (record, after) = rest.split_at(cut::json_record(rest).max(1));
                        seen.take_json(&mut Reader::new(record, 0, limits.depth), limits)?;
                        rest = after;
                    }
                }
            }
        }
        Format::Text(pattern) => {
            for name in pattern.names().into_iter().flatten() {
                seen.slot(name.as_bytes(), limits)?;
            }
            for line in chunk.bytes.split(|&byte| byte == b'\n') {
                if !cut::is_blank(line) {
                    seen.take_text(line.strip_suffix(b"\r").unwrap_or(line), pattern, limits)?;
                }
            }
        }
        Format::Csv(_) => {
            if let Some(layout) = &chunk.header {
                for name in &layout.names {
                    seen.slot(name.as_bytes(), limits)?;
                }
                seen.take_csv(&chunk.bytes, layout);
            }
        }
    }
    Ok(seen)
}

impl Seen {
    fn take_json(&mut self, reader: &mut Reader<'_>, limits: Limits) -> Result<(), String> {
        let mut members = Vec::new();
        let read = members_of(reader, &mut members);
        self.take(read, members, limits)
    }

    fn take_text(&mut self, line: &[u8], pattern: &Pattern, limits: Limits) -> Result<(), String> {
        let mut values = Vec::new();
        let read = text_rows::values_of(line, pattern, |name, text| {
            values.push((name.as_bytes().into(), text.map_or(0, text_kind)));
        });
        self.take(read, values, limits)
    }

    /// Takes the named values of one record, or notes the first fault.
    fn take(&mut self, read: Fallible<()>, values: Members, limits: Limits) -> Result<(), String> {
        if let Err(fault) = read {
            self.fault.get_or_insert(fault);
            return Ok(());
        }
        self.records += 1;
        for (name, kinds) in values {
            let slot = self.slot(&name, limits)?;
            if let Some(known) = self.kinds.get_mut(slot) {
                known.0 |= kinds;
            }
        }
        Ok(())
    }

    fn take_csv(&mut self, bytes: &[u8], layout: &Layout) {
        let mut kinds = Vec::with_capacity(self.names.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let (record, after) = rest.split_at(cut::csv_record(rest, layout.marks).max(1));
            rest = after;
            if cut::is_no_record(record, layout.marks) {
                continue;
            }
            kinds.clear();
            if let Err(fault) = csv_kinds(record, layout, &mut kinds) {
                self.fault.get_or_insert(fault);
                continue;
            }
            if kinds.len() != self.kinds.len() || std::str::from_utf8(record).is_err() {
                let fault = || Fault::new(Code::FieldCount, "another number of fields");
                self.fault.get_or_insert_with(fault);
                continue;
            }
            self.records += 1;
            for (known, kinds) in self.kinds.iter_mut().zip(&kinds) {
                known.0 |= kinds;
            }
        }
    }
}

/// The kinds of a record's fields.
fn csv_kinds(record: &[u8], layout: &Layout, kinds: &mut Vec<u8>) -> Fallible<()> {
    let mut scratch = Vec::new();
    let mut at = 0;
    loop {
        let token = token(record, at, layout.marks)?;
        let raw = record.get(token.from..token.to).unwrap_or_default();
        kinds.push(if !token.quoted && is_null(raw, layout) {
            0
        } else {
            csv_kind(token.text(record, layout.marks, &mut scratch), token.quoted)
        });
        if record.get(token.end) != Some(&layout.marks.delimiter) {
            return Ok(());
        }
        at = token.end + 1;
    }
}

type Members = Vec<(Box<[u8]>, u8)>;

/// The keys of the object that the reader's bytes are, with the kinds of their values.
fn members_of(reader: &mut Reader<'_>, members: &mut Members) -> Fallible<()> {
    if std::str::from_utf8(reader.bytes).is_err() {
        return Err(Fault::new(Code::InvalidUtf8, "the bytes are not UTF-8"));
    }
    reader.space();
    if !reader.take(b'{') {
        return Err(reader.expected("an object"));
    }
    reader.space();
    let mut scratch = Vec::new();
    let mut open = !reader.take(b'}');
    while open {
        let raw = reader.string()?;
        scratch.clear();
        unescape(raw, &mut scratch)?;
        reader.colon()?;
        let kind = reader.kind()?;
        let text = reader.skip()?;
        members.push((scratch.as_slice().into(), json_kind(kind, text)));
        reader.space();
        if reader.take(b',') {
            reader.space();
        } else if reader.take(b'}') {
            open = false;
        } else {
            return Err(reader.expected("a comma or }"));
        }
    }
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(Fault::syntax(reader.at, "bytes after the object; a line holds one object"));
    }
    Ok(())
}

fn json_kind(kind: Kind, text: &[u8]) -> u8 {
    match kind {
        Kind::Null => 0,
        Kind::Bool => Kinds::BOOLEAN,
        Kind::Nested => Kinds::NESTED,
        Kind::Number => number_kind(text),
        Kind::String => match text {
            [b'"', text @ .., b'"'] if is_instant(text) => Kinds::INSTANT,
            _ => Kinds::TEXT,
        },
    }
}

fn number_kind(text: &[u8]) -> u8 {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        Kinds::FLOAT
    } else if std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok()) {
        Kinds::INTEGER
    } else {
        Kinds::LARGE
    }
}

fn csv_kind(text: &[u8], quoted: bool) -> u8 {
    match text {
        // A quoted empty field is NULL in any column that is no text.
        [] => 0,
        _ if !quoted && is_null_word(text) => 0,
        [b'-' | b'0'..=b'9', ..] if is_number(text) => number_kind(text),
        [b't' | b'T' | b'f' | b'F', ..]
            if [&b"true"[..], b"false"].iter().any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            Kinds::BOOLEAN
        }
        _ if is_instant(text) => Kinds::INSTANT,
        _ => Kinds::TEXT,
    }
}

/// As of an unquoted CSV field, and the times of logs.
fn text_kind(text: &[u8]) -> u8 {
    match csv_kind(text, false) {
        _ if text == b"-" => 0,
        Kinds::TEXT if is_log_time(text) => Kinds::INSTANT,
        kind => kind,
    }
}

/// A time that only logs write; those of other forms are judged by [`is_instant`].
fn is_log_time(text: &[u8]) -> bool {
    datetime::timestamp(text).is_none() && log_time::parse(text).is_some()
}

/// A date with a time that a TIMESTAMP holds without losing digits.
fn is_instant(text: &[u8]) -> bool {
    let fraction = match text.get(19..) {
        Some([b'.' | b',', rest @ ..]) => rest.iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    matches!(text.get(10), Some(b'T')) && fraction <= 6 && datetime::timestamp(text).is_some()
}
