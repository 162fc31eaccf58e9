//! JSON objects into columns. Owns nothing between rows but the order in which keys were last
//! seen: most producers write their keys in one order, so the next key is compared before any is
//! looked up.

use super::columns::{Builder, Texts, Values};
use super::fault::{invalid_date, mismatch, unfit};
use super::json::{Kind, Raw, Reader, plain_end, space, unescape};
use super::number::{self, Unfit};
use super::target::Target;
use super::{Fallible, Fault, datetime};
use crate::schema::Type;

/// What is wrong with a line that goes on after its object.
const AFTER_OBJECT: &str = "bytes after the object; put each object on a line of its own";

impl Target {
    /// Reads a line that must hold one object and nothing else.
    pub(super) fn json_line(&mut self, reader: &mut Reader<'_>) -> Fallible<()> {
        self.json_object(reader).map_err(|fault| of_line(fault, reader.bytes))?;
        reader.space();
        if reader.at < reader.bytes.len() {
            return Err(Fault::syntax(reader.at, AFTER_OBJECT));
        }
        self.end_row()
    }

    /// Reads the object that begins here.
    pub(super) fn json_row(&mut self, reader: &mut Reader<'_>) -> Fallible<()> {
        self.json_object(reader)?;
        self.end_row()
    }

    fn json_object(&mut self, reader: &mut Reader<'_>) -> Fallible<()> {
        self.begin_row();
        reader.space();
        if !reader.take(b'{') {
            return Err(reader.expected("an object"));
        }
        reader.space();
        if reader.take(b'}') {
            return Ok(());
        }
        // The place is handed on by value, not kept in the reader: each step begins where the one
        // before ended, and would wait for memory.
        let bytes = reader.bytes;
        let (mut at, mut before) = (reader.at, 0);
        loop {
            (at, before) = self.member(reader, at, before)?;
            at = space(bytes, at);
            match bytes.get(at) {
                Some(b',') => at = space(bytes, at + 1),
                Some(b'}') => {
                    reader.at = at + 1;
                    return Ok(());
                }
                _ => return Err(reader.expected_at(at, "a comma or }")),
            }
        }
    }

    /// Reads one key and its value. `before` and the answer's second part say which column came
    /// last, its first where the value ends.
    #[inline]
    fn member(
        &mut self,
        reader: &mut Reader<'_>,
        at: usize,
        before: usize,
    ) -> Fallible<(usize, usize)> {
        let guess = self.follows.get(before).copied().unwrap_or_default();
        let builder = self.columns.builders.get(guess);
        let (index, at) = match builder.and_then(|builder| builder.key.stands(reader.bytes, at)) {
            Some(length) => (guess, space(reader.bytes, at + length)),
            None => {
                reader.at = at;
                match self.key(reader)? {
                    Some(index) => {
                        if let Some(follows) = self.follows.get_mut(before) {
                            *follows = index;
                        }
                        (index, reader.at)
                    }
                    None => return Ok((reader.at, before)),
                }
            }
        };
        let row = self.columns.rows();
        let builder = self.columns.slot(index)?;
        match value(reader, at, builder, row, &mut self.scratch) {
            Ok(end) => Ok((end, index + 1)),
            Err(mut fault) => {
                fault.column = Some(builder.column.name.clone());
                Err(fault)
            }
        }
    }

    /// Reads a key and finds its column. A key without a column is dealt with, value and all.
    fn key(&mut self, reader: &mut Reader<'_>) -> Fallible<Option<usize>> {
        if reader.peek() != Some(b'"') {
            return Err(reader.expected("a key in quotes"));
        }
        let raw = reader.string()?;
        let mut name = std::mem::take(&mut self.scratch);
        name.clear();
        let plain = text_of(raw, &mut name);
        let found = plain.and_then(|plain| {
            reader.colon()?;
            match self.index(plain) {
                Some(index) => Ok(Some(index)),
                None => self.unknown_member(reader, plain, raw).map(|()| None),
            }
        });
        self.scratch = name;
        found
    }

    fn unknown_member(
        &mut self,
        reader: &mut Reader<'_>,
        name: &[u8],
        raw: Raw<'_>,
    ) -> Fallible<()> {
        self.meet(name)?;
        let text = reader.skip()?;
        // A NULL is no value: nothing is lost with it.
        if text != b"null" {
            self.unknown_value(name);
        }
        if self.keeps() {
            if !self.extra.is_empty() {
                self.extra.push(b',');
            }
            self.extra.push(b'"');
            self.extra.extend_from_slice(raw.bytes);
            self.extra.extend_from_slice(b"\":");
            self.extra.extend_from_slice(text);
        }
        Ok(())
    }
}

/// Says what to do about a line that is no object at all: a part of one, or an array.
#[cold]
fn of_line(mut fault: Box<Fault>, line: &[u8]) -> Box<Fault> {
    match line.trim_ascii_start() {
        [b'{', ..] => {}
        [b'[', ..] => fault.message += "; send an array as application/json",
        _ => {
            fault.message += "; each line is a record of its own (send records of many lines as \
                              application/json)";
        }
    }
    fault
}

/// The text of a string: as it stands, or unescaped into `scratch`.
fn text_of<'a>(raw: Raw<'a>, scratch: &'a mut Vec<u8>) -> Fallible<&'a [u8]> {
    if !raw.escaped {
        return Ok(raw.bytes);
    }
    scratch.clear();
    unescape(raw, scratch)?;
    Ok(scratch)
}

/// Reads the value at `at` into its column. Returns where it ends.
#[inline]
fn value(
    reader: &mut Reader<'_>,
    at: usize,
    builder: &mut Builder,
    row: usize,
    scratch: &mut Vec<u8>,
) -> Fallible<usize> {
    let bytes = reader.bytes;
    // The common spellings are read to their end in one go.
    let end = match &mut builder.values {
        Values::SmallInt(v) => quick_whole(bytes, at, v),
        Values::Int(v) => quick_whole(bytes, at, v),
        Values::BigInt(v) => quick_whole(bytes, at, v),
        Values::Double(v) => keep(v, number::read_double(bytes, at)),
        Values::Real(v) => keep(v, number::read_real(bytes, at)),
        Values::Text(texts) => quick_text(bytes, at, texts),
        Values::Timestamp(v) => keep(v, quick_instant(bytes, at)),
        _ => None,
    };
    if let Some(end) = end {
        return Ok(end);
    }
    reader.at = at;
    any_value(reader, builder, row, scratch)?;
    Ok(reader.at)
}

#[inline]
fn keep<T>(values: &mut Vec<T>, read: Option<(T, usize)>) -> Option<usize> {
    let (value, end) = read?;
    values.push(value);
    Some(end)
}

#[inline]
fn quick_whole<T: TryFrom<i64>>(bytes: &[u8], at: usize, values: &mut Vec<T>) -> Option<usize> {
    let (value, end) = number::read_integer(bytes, at)?;
    values.push(T::try_from(value).ok()?);
    Some(end)
}

/// A text without escapes.
#[inline]
fn quick_text(bytes: &[u8], at: usize, texts: &mut Texts) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let end = plain_end(bytes, at + 1);
    if bytes.get(end) != Some(&b'"') {
        return None;
    }
    texts.push_from(bytes, at + 1, end);
    Some(end + 1)
}

/// `"2013-01-01T10:00:00Z"`, which most programs write.
#[inline]
fn quick_instant(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const LENGTH: usize = 22;
    match bytes.get(at..)?.first_chunk::<LENGTH>()? {
        [b'"', text @ .., b'"'] => Some((datetime::timestamp(text)?, at + LENGTH)),
        _ => None,
    }
}

/// Reads a value of any spelling into its column.
fn any_value(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    row: usize,
    scratch: &mut Vec<u8>,
) -> Fallible<()> {
    if reader.peek() == Some(b'n') {
        reader.literal("null")?;
        return builder.push_null(row);
    }
    let ty = builder.column.ty;
    match &mut builder.values {
        Values::SmallInt(v) => v.push(whole(reader, ty)?),
        Values::Int(v) => v.push(whole(reader, ty)?),
        Values::BigInt(v) => v.push(whole(reader, ty)?),
        Values::Double(v) => v.push(slow_number(reader, ty, number::double)?),
        Values::Real(v) => v.push(slow_number(reader, ty, number::real)?),
        Values::Text(texts) => {
            if reader.peek() != Some(b'"') {
                return Err(wrong_kind(reader, ty));
            }
            let raw = reader.string()?;
            unescape(raw, &mut texts.data)?;
            texts.end();
        }
        Values::Json(texts) => texts.push(reader.skip()?),
        Values::Boolean(v) => match reader.peek() {
            Some(b't') => {
                reader.literal("true")?;
                v.push(true);
            }
            Some(b'f') => {
                reader.literal("false")?;
                v.push(false);
            }
            _ => return Err(wrong_kind(reader, ty)),
        },
        Values::Timestamp(v) => v.push(calendar(reader, ty, scratch, datetime::timestamp)?),
        Values::Date(v) => v.push(calendar(reader, ty, scratch, datetime::date)?),
        Values::Decimal { values, precision, scale } => {
            // A decimal may come as a text: many producers do that to keep it exact.
            if reader.peek() == Some(b'"') {
                let raw = reader.string()?;
                let text = text_of(raw, scratch)?;
                let parsed = number::decimal(text, *precision, *scale);
                values.push(parsed.map_err(|why| unfit(why, text, ty))?);
            } else {
                let parse = |text: &[u8]| number::decimal(text, *precision, *scale);
                values.push(slow_number(reader, ty, parse)?);
            }
        }
    }
    Ok(())
}

fn whole<T: TryFrom<i64>>(reader: &mut Reader<'_>, ty: Type) -> Fallible<T> {
    let start = reader.at;
    let value = slow_number(reader, ty, |text| {
        i64::try_from(number::integer(text)?).map_err(|_| Unfit::Overflow)
    })?;
    T::try_from(value).map_err(|_| unfit(Unfit::Overflow, &reader.bytes[start..reader.at], ty))
}

/// A number that the quick reading did not take: long, with an exponent, or no number at all.
#[cold]
fn slow_number<T>(
    reader: &mut Reader<'_>,
    ty: Type,
    parse: impl Fn(&[u8]) -> Result<T, Unfit>,
) -> Fallible<T> {
    if reader.kind()? != Kind::Number {
        return Err(wrong_kind(reader, ty));
    }
    let text = reader.number()?;
    parse(text).map_err(|why| unfit(why, text, ty))
}

/// A well-formed value of another kind than the column's, or what is wrong with its grammar.
#[cold]
fn wrong_kind(reader: &mut Reader<'_>, ty: Type) -> Box<Fault> {
    match reader.skip() {
        Ok(text) => mismatch(text, ty),
        Err(fault) => fault,
    }
}

#[inline]
fn calendar<T>(
    reader: &mut Reader<'_>,
    ty: Type,
    scratch: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Fallible<T> {
    if reader.peek() != Some(b'"') {
        return Err(wrong_kind(reader, ty));
    }
    let raw = reader.string()?;
    let text = text_of(raw, scratch)?;
    parse(text).ok_or_else(|| invalid_date(text, ty))
}
