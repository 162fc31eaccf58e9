//! Lines of text into columns, as a [`Pattern`] says. Owns where each group of the pattern goes,
//! worked out once a decoder.
//!
//! A group that takes no part, or takes nothing, is NULL. In columns that are no TEXT, `-` and the
//! usual words for NULL are NULL too; a built-in's `-` is NULL in TEXT columns as well.

use regex::CaptureLocations;

use super::columns::Values;
use super::csv_rows::{Field, convert, is_null_word};
use super::fault::invalid_date;
use super::json::{Reader, quote, unescape};
use super::pattern::{Groups, Kind, LINE, MATCHED_BYTES, Pattern};
use super::target::Target;
use super::{Fallible, Fault, log_time, shorten_bytes};
use crate::record::Code;

/// A pattern and where its values go.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) pattern: Pattern,
    /// Where the line, or each named group, goes.
    fields: Vec<Field>,
    places: Option<CaptureLocations>,
}

impl Matcher {
    pub(super) fn new(pattern: &Pattern, target: &Target) -> Matcher {
        let field = |name: &str| match target.index(name.as_bytes()) {
            Some(index) => Field::Column(index),
            None => Field::Unknown(name.as_bytes().into()),
        };
        let (fields, places) = match pattern.kind() {
            Kind::Line => (vec![field(LINE)], None),
            Kind::Logfmt => (Vec::new(), None),
            Kind::Groups(groups) => (
                groups.names.iter().map(|(_, name)| field(name)).collect(),
                Some(groups.regex.capture_locations()),
            ),
        };
        Matcher { pattern: pattern.clone(), fields, places }
    }
}

impl Target {
    /// Reads a line, without its end.
    pub(super) fn text_line(&mut self, line: &[u8], matcher: &mut Matcher) -> Fallible<()> {
        self.begin_row();
        match (matcher.pattern.kind(), &mut matcher.places) {
            (Kind::Groups(_), _) if line.len() > MATCHED_BYTES => {
                let length = line.len();
                let message =
                    format!("patterns read lines up to {MATCHED_BYTES} bytes, not {length}");
                return Err(Fault::new(Code::RowTooLarge, message));
            }
            (Kind::Groups(groups), Some(places)) => {
                let text = simdutf8::basic::from_utf8(line)
                    .map_err(|_| Fault::new(Code::InvalidUtf8, "the bytes are not UTF-8"))?;
                if groups.regex.captures_read(places, text).is_none() {
                    return Err(no_match(line, &matcher.pattern));
                }
                self.groups(line, groups, places, &matcher.fields)?;
            }
            (Kind::Logfmt, _) => {
                if !pairs_of(line, |key, value| self.pair(key, &value))? {
                    return Err(no_match(line, &matcher.pattern));
                }
            }
            (Kind::Line | Kind::Groups(_), _) => {
                for field in &matcher.fields {
                    self.text_value(field, Some(line), None)?;
                }
            }
        }
        self.end_row()
    }

    fn groups(
        &mut self,
        line: &[u8],
        groups: &Groups,
        places: &CaptureLocations,
        fields: &[Field],
    ) -> Fallible<()> {
        let mut copied = 0;
        for ((index, _), field) in groups.names.iter().zip(fields) {
            let text = places.get(*index).and_then(|(from, to)| line.get(from..to));
            copied += text.map_or(0, <[u8]>::len);
            self.text_value(field, text, groups.null)?;
        }
        // Nested groups copy a text more than once.
        self.columns.charge(copied.saturating_sub(line.len()));
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &Value<'_>) -> Fallible<()> {
        let mut scratch = Vec::new();
        let text = value.text(&mut scratch)?;
        match self.index(key) {
            Some(index) => self.text_value(&Field::Column(index), text, None),
            None => {
                self.meet(key)?;
                self.text_value(&Field::Unknown(key.into()), text, None)
            }
        }
    }

    fn text_value(
        &mut self,
        field: &Field,
        text: Option<&[u8]>,
        null: Option<&[u8]>,
    ) -> Fallible<()> {
        let text = text.filter(|text| !text.is_empty() && Some(*text) != null);
        let index = match field {
            Field::Column(index) => *index,
            Field::Unknown(name) => {
                if let Some(text) = text {
                    self.unknown_text(name, text);
                }
                return Ok(());
            }
        };
        let (row, depth) = (self.columns.rows(), self.limits.depth);
        let builder = self.columns.slot(index)?;
        let done = match (text, &mut builder.values) {
            (None, _) => builder.push_null(row),
            (Some(text), Values::Text(texts)) => {
                texts.push(text);
                Ok(())
            }
            (Some(text), _) if text == b"-" || is_null_word(text) => builder.push_null(row),
            (Some(text), Values::Timestamp(values)) => match log_time::parse(text) {
                Some(instant) => {
                    values.push(instant);
                    Ok(())
                }
                None => Err(invalid_date(text, builder.column.ty)),
            },
            (Some(text), _) => convert(text, false, builder, row, depth),
        };
        done.map_err(|mut fault| {
            fault.column = Some(builder.column.name.clone());
            fault
        })
    }

    /// A text that has no column.
    pub(super) fn unknown_text(&mut self, name: &[u8], text: &[u8]) {
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
}

/// Calls `each` with the name and the text of every value of a line; what is NULL has no text.
pub(super) fn values_of(
    line: &[u8],
    pattern: &Pattern,
    mut each: impl FnMut(&str, Option<&[u8]>),
) -> Fallible<()> {
    let text = std::str::from_utf8(line)
        .map_err(|_| Fault::new(Code::InvalidUtf8, "the bytes are not UTF-8"))?;
    match pattern.kind() {
        Kind::Line => each(LINE, Some(line)),
        Kind::Logfmt => {
            let any = pairs_of(line, |key, value| {
                let mut scratch = Vec::new();
                let value = value.text(&mut scratch)?;
                each(std::str::from_utf8(key).unwrap_or_default(), value);
                Ok(())
            })?;
            if !any {
                return Err(no_match(line, pattern));
            }
        }
        Kind::Groups(groups) => {
            let found = Some(text).filter(|text| text.len() <= MATCHED_BYTES);
            let Some(found) = found.and_then(|text| groups.regex.captures(text)) else {
                return Err(no_match(line, pattern));
            };
            for (index, name) in &groups.names {
                let text = found.get(*index).map(|found| found.as_str().as_bytes());
                each(name, text.filter(|text| !text.is_empty() && Some(*text) != groups.null));
            }
        }
    }
    Ok(())
}

#[cold]
fn no_match(line: &[u8], pattern: &Pattern) -> Box<Fault> {
    let pattern = shorten_bytes(pattern.as_str().as_bytes());
    let line = shorten_bytes(line);
    Fault::new(Code::NoMatch, format!("the line does not match the pattern `{pattern}`: {line:?}"))
}

/// A value of logfmt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A key alone: it is `true`.
    Bare,
    /// As it stands.
    Plain(&'a [u8]),
    /// Between quotes, with escapes as JSON has them.
    Quoted(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Its text; `None` for none.
    pub(super) fn text(&self, scratch: &'a mut Vec<u8>) -> Fallible<Option<&'a [u8]>> {
        match self {
            Value::Bare => Ok(Some(b"true")),
            Value::Plain(text) => Ok(Some(text).filter(|text| !text.is_empty()).copied()),
            Value::Quoted(text) => {
                let raw = Reader::new(text, 0, 1).string()?;
                if !raw.escaped {
                    return Ok(Some(raw.bytes));
                }
                scratch.clear();
                unescape(raw, scratch)?;
                Ok(Some(scratch))
            }
        }
    }
}

/// Calls `each` with every pair of a line of logfmt, from left to right. False if there is none with
/// a value: text of another form is a row of keys otherwise.
pub(super) fn pairs_of<'a>(
    line: &'a [u8],
    mut each: impl FnMut(&'a [u8], Value<'a>) -> Fallible<()>,
) -> Fallible<bool> {
    let mut any = false;
    let space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut at = 0;
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.first().is_some_and(space) {
            at += 1;
            continue;
        }
        let length = rest.iter().position(|byte| space(byte) || matches!(byte, b'=' | b'"'));
        let (key, after) = rest.split_at(length.unwrap_or(rest.len()));
        if key.is_empty() || after.first() == Some(&b'"') {
            return Err(Fault::syntax(at + key.len(), "expected a key, as in key=value"));
        }
        at += key.len();
        let Some((b'=', value)) = after.split_first() else {
            each(key, Value::Bare)?;
            continue;
        };
        at += 1;
        any = true;
        if value.first() != Some(&b'"') {
            let end = value.iter().position(space).unwrap_or(value.len());
            each(key, Value::Plain(&value[..end]))?;
            at += end;
            continue;
        }
        let mut reader = Reader::new(value, 0, 1);
        let closed = reader.string();
        if closed.is_err() || value.get(reader.at).is_some_and(|byte| !space(byte)) {
            let message = "the quoted value that begins here does not end well";
            return Err(Fault::syntax(at, message));
        }
        each(key, Value::Quoted(&value[..reader.at]))?;
        at += reader.at;
    }
    Ok(any)
}
