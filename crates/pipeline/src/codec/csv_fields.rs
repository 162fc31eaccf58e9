//! Where fields of separated values begin and end, and what they say: quotes, escapes, line ends.
//! Owns nothing; knows no column and no type.
//!
//! A quote opens a quoted field only where a field begins; elsewhere it is a byte like others.

use super::dialect::Marks;
use super::{Fallible, Fault};

/// A field as it stands in a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    /// Its content, without the quotes around it.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) quoted: bool,
    /// The content holds doubled quotes or escapes.
    pub(super) escaped: bool,
    /// Where the field ends: at a delimiter, a line end, or the end of the bytes.
    pub(super) end: usize,
}

impl Token {
    /// What the field says: unescaped into `scratch` if need be.
    #[inline]
    pub(super) fn text<'a>(
        &self,
        bytes: &'a [u8],
        marks: Marks,
        scratch: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let content = bytes.get(self.from..self.to).unwrap_or_default();
        if self.escaped { unescape(content, self.quoted, marks, scratch) } else { content }
    }
}

/// The field at `at`.
///
/// # Errors
/// A quote that is not closed, or bytes behind one that is.
#[inline]
pub(super) fn token(bytes: &[u8], at: usize, marks: Marks) -> Fallible<Token> {
    if marks.quote.is_some() && bytes.get(at).copied() == marks.quote {
        return quoted(bytes, at, marks);
    }
    if let Some(escape) = marks.escape {
        return Ok(escapable(bytes, at, marks.delimiter, escape));
    }
    let end = field_end(bytes, at, marks.delimiter);
    Ok(Token { from: at, to: end, quoted: false, escaped: false, end })
}

/// How many fields the record at the start of `bytes` has; `None` if it is broken.
pub(super) fn count(bytes: &[u8], marks: Marks) -> Option<usize> {
    let (mut at, mut fields) = (0, 0);
    loop {
        let end = token(bytes, at, marks).ok()?.end;
        fields += 1;
        if bytes.get(end) != Some(&marks.delimiter) {
            return Some(fields);
        }
        at = end + 1;
    }
}

/// The length of the line end that `bytes` begin with.
#[inline]
pub(super) fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        [b'\r', ..] => 1,
        _ => 0,
    }
}

/// True if a field may end before `at`: at the delimiter, a line end, or the end of the bytes.
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
    let rest = bytes.get(at..).unwrap_or_default();
    // Most fields are shorter than what a vector search costs to begin.
    let Some(word) = rest.first_chunk::<8>() else {
        let end = rest.iter().position(|&b| b == delimiter || b == b'\n' || b == b'\r');
        return at + end.unwrap_or(rest.len());
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
    at + memchr::memchr3(delimiter, b'\n', b'\r', rest).unwrap_or(rest.len())
}

/// As [`token`], for an unquoted field in which bytes may be escaped, line ends too.
fn escapable(bytes: &[u8], at: usize, delimiter: u8, escape: u8) -> Token {
    let mut end = at;
    let mut escaped = false;
    while !ends(bytes, end, delimiter) {
        if bytes.get(end) == Some(&escape) {
            escaped = true;
            end += 1;
        }
        end += 1;
    }
    let end = end.min(bytes.len());
    Token { from: at, to: end, quoted: false, escaped, end }
}

/// As [`token`], for a field that begins with a quote.
fn quoted(bytes: &[u8], at: usize, marks: Marks) -> Fallible<Token> {
    let quote = bytes.get(at).copied().unwrap_or_default();
    let escape = marks.escape.unwrap_or(quote);
    let mut escaped = false;
    let mut from = at + 1;
    loop {
        let rest = bytes.get(from..).unwrap_or_default();
        let Some(found) = memchr::memchr2(quote, escape, rest) else {
            return Err(Fault::syntax(at, "the quote that opens here is not closed"));
        };
        let close = from + found;
        if bytes.get(close) != Some(&quote) || bytes.get(close + 1) == Some(&quote) {
            escaped = true;
            from = close + 2;
            continue;
        }
        if !ends(bytes, close + 1, marks.delimiter) {
            let message = "bytes after the closing quote (a quote inside quotes is doubled)";
            return Err(Fault::syntax(close + 1, message));
        }
        return Ok(Token { from: at + 1, to: close, quoted: true, escaped, end: close + 1 });
    }
}

/// Takes the first of each pair away: of doubled quotes (in a quoted field), and of an escape and
/// what stands behind it.
fn unescape<'a>(content: &[u8], quoted: bool, marks: Marks, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let is_first =
        |byte: &u8| marks.escape == Some(*byte) || (quoted && marks.quote == Some(*byte));
    scratch.clear();
    let mut rest = content;
    while let Some(first) = rest.iter().position(is_first) {
        let (before, pair) = rest.split_at(first);
        scratch.extend_from_slice(before);
        // An escape at the very end of a body has nothing behind it: it stands for itself.
        let (kept, after) = pair.split_at(pair.len().min(2));
        scratch.extend(kept.last());
        rest = after;
    }
    scratch.extend_from_slice(rest);
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Dialect, Quote};

    fn fields(text: &str, dialect: &Dialect) -> Vec<String> {
        let (bytes, marks) = (text.as_bytes(), dialect.marks(b','));
        let (mut at, mut fields, mut scratch) = (0, Vec::new(), Vec::new());
        loop {
            match token(bytes, at, marks) {
                Ok(token) => {
                    let text = token.text(bytes, marks, &mut scratch);
                    let text = String::from_utf8_lossy(text);
                    fields.push(if token.quoted { format!("[{text}]") } else { text.into() });
                    if bytes.get(token.end) != Some(&marks.delimiter) {
                        return fields;
                    }
                    at = token.end + 1;
                }
                Err(fault) => {
                    fields.push(format!("{}: {}", fault.at.unwrap_or(0), fault.message));
                    return fields;
                }
            }
        }
    }

    #[test]
    fn a_field_is_read_as_its_dialect_says() {
        let plain = Dialect::default();
        let backslash = Dialect { escape: Some(b'\\'), ..Dialect::default() };
        let single = Dialect { quote: Some(Quote::Byte(b'\'')), ..Dialect::default() };
        let none = Dialect { quote: Some(Quote::None), ..Dialect::default() };
        let cases: [(&Dialect, &str, &[&str]); 14] = [
            (&plain, "a,,\"b,\"\"c\"\"\n\",d\ne", &["a", "", "[b,\"c\"\n]", "d"]),
            (&plain, "a\\,b\"c\r\n", &["a\\", "b\"c"]),
            (&plain, "\"a", &["0: the quote that opens here is not closed"]),
            (&plain, "longer than a word,x", &["longer than a word", "x"]),
            (&backslash, "a\\,b,c\\\\,\\\nd\n", &["a,b", "c\\", "\nd"]),
            (&backslash, "\"a\\\"b\",\"c\"\"d\",\"\\\\\"\n", &["[a\"b]", "[c\"d]", "[\\]"]),
            (&backslash, "a\\", &["a\\"]),
            (&backslash, "\"a\\\"", &["0: the quote that opens here is not closed"]),
            (&backslash, "\\\"a,b", &["\"a", "b"]),
            (&single, "'a,''b''',\"c\"", &["[a,'b']", "\"c\""]),
            (&none, "\"a,b\"", &["\"a", "b\""]),
            (&Dialect::TAB, "a,b\t\"c\td\"", &["a,b", "[c\td]"]),
            (&plain, "", &[""]),
            (
                &plain,
                "a,\"b\"c",
                &["a", "5: bytes after the closing quote (a quote inside quotes is doubled)"],
            ),
        ];
        for (dialect, text, expected) in cases {
            assert_eq!(fields(text, dialect), expected, "{text:?} as {dialect:?}");
        }
    }
}
