//! A strict reader of JSON (RFC 8259) over the bytes of one record. Owns a place in them and the
//! stack of open brackets; never recurses, so no nesting can overflow the thread's stack, and
//! never builds a tree: callers ask for what they expect next.
//!
//! The bytes must be UTF-8 already where text is copied out of them.

use super::number::{number_end, read_integer};
use super::{Fallible, Fault, shorten_bytes};
use crate::record::Code;

/// What to do about a number that is none.
const NOT_FINITE: &str = "; JSON has no NaN and no Infinity: send null";

/// A string as it stands, without its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) bytes: &'a [u8],
    /// Holds a backslash: [`unescape`] gives the text.
    pub(super) escaped: bool,
    /// Where it stands in the record.
    pub(super) at: usize,
}

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Nested,
}

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// The deepest nesting allowed, counted from the record.
    depth: usize,
    /// Open brackets of the value being skipped.
    open: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, depth: usize) -> Reader<'a> {
        Reader { bytes, at, depth, open: Vec::new() }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(super) fn space(&mut self) {
        self.at = space(self.bytes, self.at);
    }

    /// Takes `byte` if it stands here.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// As [`Reader::expected`], at another place.
    #[cold]
    pub(super) fn expected_at(&mut self, at: usize, what: &str) -> Box<Fault> {
        self.at = at;
        self.expected(what)
    }

    #[cold]
    pub(super) fn expected(&self, what: &str) -> Box<Fault> {
        match self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            None => Fault::syntax(self.at, format!("expected {what}, but the record ends")),
            Some(rest) => {
                let found = String::from_utf8_lossy(&rest[..rest.len().min(8)]);
                let found = found.chars().next().unwrap_or(' ');
                let hint = self.hint(rest);
                Fault::syntax(self.at, format!("expected {what}, found {found:?}{hint}"))
            }
        }
    }

    /// What to do about the usual mistakes, by what stands where something else was expected.
    fn hint(&self, rest: &[u8]) -> &'static str {
        let before = self.bytes.get(..self.at).unwrap_or_default().trim_ascii_end();
        match rest {
            [b'}' | b']', ..] if before.ends_with(b",") => "; remove the comma before it",
            [b'\'', ..] => "; texts have double quotes",
            [b'N', b'a', b'N', ..] | [b'I', b'n', b'f', ..] => NOT_FINITE,
            _ => "",
        }
    }

    /// The kind of the value that begins here.
    pub(super) fn kind(&self) -> Fallible<Kind> {
        match self.peek() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{' | b'[') => Ok(Kind::Nested),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.expected("a value")),
        }
    }

    /// A string whose opening quote stands here. Its escapes are not looked at yet.
    #[inline]
    pub(super) fn string(&mut self) -> Fallible<Raw<'a>> {
        if !self.take(b'"') {
            return Err(self.expected("a string"));
        }
        let start = self.at;
        let mut escaped = false;
        let mut at = start;
        loop {
            at = plain_end(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => {
                    let message = "a control character in a string must be escaped";
                    return Err(Fault::syntax(at, message));
                }
                None => return Err(Fault::syntax(start - 1, "the string is not closed")),
            }
        }
        self.at = at + 1;
        Ok(Raw { bytes: &self.bytes[start..at], escaped, at: start })
    }

    /// `true`, `false` or `null`, whole.
    #[inline]
    pub(super) fn literal(&mut self, literal: &'static str) -> Fallible<()> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(literal.as_bytes()) {
            return Err(self.expected(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// A number, as its text.
    pub(super) fn number(&mut self) -> Fallible<&'a [u8]> {
        match number_end(self.bytes, self.at) {
            Ok(end) => {
                let text = &self.bytes[self.at..end];
                self.at = end;
                Ok(text)
            }
            Err(at) => {
                let end = self.bytes.len().min(at + 1).max(self.at);
                let text = &self.bytes[self.at..end];
                let hint = match text {
                    [b'0', b'0'..=b'9'] | [b'-', b'0', b'0'..=b'9'] => {
                        "; drop the leading zeros, or send it as a text"
                    }
                    [b'-', b'I'] => NOT_FINITE,
                    _ => "",
                };
                let found = shorten_bytes(text);
                Err(Fault::syntax(at, format!("not a number of JSON: {found}{hint}")))
            }
        }
    }

    /// Reads over one value, checking all of its grammar. Returns its text as written.
    pub(super) fn skip(&mut self) -> Fallible<&'a [u8]> {
        let start = self.at;
        let mut open = std::mem::take(&mut self.open);
        open.clear();
        let done = self.skip_nested(start, &mut open);
        self.open = open;
        self.at = done?;
        Ok(&self.bytes[start..self.at])
    }

    // The place is handed from step to step, not kept in `self`: each step begins where the one
    // before ended, and would wait for memory.
    fn skip_nested(&mut self, mut at: usize, open: &mut Vec<u8>) -> Fallible<usize> {
        let bytes = self.bytes;
        loop {
            // A value stands here.
            match bytes.get(at) {
                Some(b'"') => at = self.skip_string(at)?,
                Some(bracket @ (b'{' | b'[')) => {
                    // The record itself is the first level.
                    if open.len() + 1 >= self.depth {
                        return Err(self.too_deep());
                    }
                    at = space(bytes, at + 1);
                    let close = if *bracket == b'{' { b'}' } else { b']' };
                    if bytes.get(at) != Some(&close) {
                        open.push(*bracket);
                        if *bracket == b'{' {
                            at = self.skip_key(at)?;
                        }
                        continue;
                    }
                    at += 1;
                }
                _ => at = self.skip_scalar(at)?,
            }
            // Behind a value: brackets close, or the next value follows.
            loop {
                let Some(&bracket) = open.last() else {
                    return Ok(at);
                };
                at = space(bytes, at);
                match (bytes.get(at), bracket) {
                    (Some(b','), b'{') => {
                        at = self.skip_key(space(bytes, at + 1))?;
                        break;
                    }
                    (Some(b','), _) => {
                        at = space(bytes, at + 1);
                        break;
                    }
                    (Some(b'}'), b'{') | (Some(b']'), b'[') => {
                        at += 1;
                        open.pop();
                    }
                    (_, b'{') => return Err(self.expected_at(at, "a comma or }")),
                    _ => return Err(self.expected_at(at, "a comma or ]")),
                }
            }
        }
    }

    /// Reads over the string whose opening quote stands at `at`.
    #[inline]
    fn skip_string(&mut self, at: usize) -> Fallible<usize> {
        let end = plain_end(self.bytes, at + 1);
        if self.bytes.get(end) == Some(&b'"') {
            return Ok(end + 1);
        }
        self.at = at;
        let raw = self.string()?;
        check_escapes(raw)?;
        Ok(self.at)
    }

    /// Reads over a value that is neither a string nor nested.
    #[inline]
    fn skip_scalar(&mut self, at: usize) -> Fallible<usize> {
        if let Some((_, end)) = read_integer(self.bytes, at) {
            return Ok(end);
        }
        self.at = at;
        match self.peek() {
            Some(b't') => self.literal("true")?,
            Some(b'f') => self.literal("false")?,
            Some(b'n') => self.literal("null")?,
            Some(b'-' | b'0'..=b'9') => drop(self.number()?),
            _ => return Err(self.expected("a value")),
        }
        Ok(self.at)
    }

    /// Reads over a key, its colon and the white space around that.
    #[inline]
    fn skip_key(&mut self, at: usize) -> Fallible<usize> {
        if self.bytes.get(at) != Some(&b'"') {
            return Err(self.expected_at(at, "a key in quotes"));
        }
        let at = self.skip_string(at)?;
        let at = space(self.bytes, at);
        if self.bytes.get(at) != Some(&b':') {
            return Err(self.expected_at(at, "a colon after the key"));
        }
        Ok(space(self.bytes, at + 1))
    }

    #[cold]
    fn too_deep(&self) -> Box<Fault> {
        let levels = self.depth;
        let message =
            format!("nested deeper than {levels} levels; flatten it, or send it as a text");
        Fault::new(Code::TooDeep, message)
    }

    /// The colon after a key, and the white space around it.
    #[inline]
    pub(super) fn colon(&mut self) -> Fallible<()> {
        self.space();
        if !self.take(b':') {
            return Err(self.expected("a colon after the key"));
        }
        self.space();
        Ok(())
    }
}

/// Where the white space at `at` ends.
#[inline]
pub(super) fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Where the plain bytes of a string end: at a quote, a backslash, a control character or the
/// end. Eight bytes at a time, and more of them once the string is a long one.
#[inline]
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const SHORT: usize = 3;
    for _ in 0..SHORT {
        match plain_word(bytes, at) {
            Some(8) => at += 8,
            Some(plain) => return at + plain,
            None => return plain_tail(bytes, at),
        }
    }
    plain_long(bytes, at)
}

/// How many of the eight bytes at `at` are plain; `None` if there are not as many.
#[inline]
fn plain_word(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    // The high bit of a byte is set where it is a quote, a backslash or below a space. A borrow
    // can set bits only above the first true one, which alone is read.
    let zero_in = |masked: u64| masked.wrapping_sub(ONES) & !masked;
    let quote = zero_in(word ^ (ONES * b'"' as u64));
    let backslash = zero_in(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    Some(((quote | backslash | control) & HIGH).trailing_zeros() as usize / 8)
}

#[inline(never)]
fn plain_long(bytes: &[u8], mut at: usize) -> usize {
    const BLOCK: usize = 32;
    let special =
        |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        // Without a branch a byte, so that it becomes a few vector operations.
        if block.iter().fold(0, |found, &byte| found | special(byte)) != 0 {
            break;
        }
        at += BLOCK;
    }
    while let Some(plain) = plain_word(bytes, at) {
        at += plain;
        if plain < 8 {
            return at;
        }
    }
    plain_tail(bytes, at)
}

fn plain_tail(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
    end.map_or(bytes.len(), |end| at + end)
}

/// Checks every escape of a string.
pub(super) fn check_escapes(raw: Raw<'_>) -> Fallible<()> {
    walk(raw, |_| {}, |_| {})
}

/// Appends the text of a string with escapes. On an error part of it may have been appended.
pub(super) fn unescape(raw: Raw<'_>, out: &mut Vec<u8>) -> Fallible<()> {
    // Both closures append to the same buffer, in turn.
    let out = std::cell::RefCell::new(out);
    walk(
        raw,
        |plain| out.borrow_mut().extend_from_slice(plain),
        |character| {
            let mut buffer = [0; 4];
            out.borrow_mut().extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        },
    )
}

fn walk(
    raw: Raw<'_>,
    mut plain: impl FnMut(&[u8]),
    mut character: impl FnMut(char),
) -> Fallible<()> {
    let mut rest = raw.bytes;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        plain(&rest[..backslash]);
        let at = raw.at + (raw.bytes.len() - rest.len()) + backslash;
        let (found, length) = escape(&rest[backslash..]).map_err(|what| Fault::syntax(at, what))?;
        character(found);
        rest = &rest[backslash + length..];
    }
    plain(rest);
    Ok(())
}

/// The character of the escape at the start of `bytes`, and the escape's length.
fn escape(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    let character = match bytes.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(bytes),
        _ => return Err("this escape does not exist in JSON"),
    };
    Ok((character, 2))
}

/// `\uXXXX`, or two of them that are a surrogate pair.
fn unicode(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    const LONE: &str = "half a surrogate pair is no character; escape both halves";
    let first = hex(bytes)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 6));
    }
    if first >= 0xDC00 || !bytes[6..].starts_with(b"\\u") {
        return Err(LONE);
    }
    let second = hex(&bytes[6..])?;
    if !(0xDC00..0xE000).contains(&second) {
        return Err(LONE);
    }
    let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    char::from_u32(code).map(|character| (character, 12)).ok_or(LONE)
}

fn hex(bytes: &[u8]) -> Result<u32, &'static str> {
    let digits = bytes.get(2..6).ok_or("\\u needs four hexadecimal digits")?;
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or("\\u needs four hexadecimal digits")?;
        Ok(value * 16 + digit)
    })
}

/// Appends `text` as a JSON string with its quotes.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
