//! Where CSV records end: quote-aware, with LF, CRLF or CR; and the reading of a header.
//!
//! A quote opens a quoted field only where a field begins; elsewhere it is a byte like others.

use std::collections::HashSet;

use super::Step;
use crate::codec::csv_fields::{count, token};
use crate::codec::dialect::Marks;
use crate::codec::mask::{BLOCK, equal};
use crate::codec::shorten;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside quotes; the byte before (a line end at the start of a record).
    Outside(u8),
    Quoted,
    /// After a quote inside a quoted field: its end, or half of a doubled one.
    Quote,
    /// After an escape: the next byte means nothing.
    Escaped {
        quoted: bool,
    },
    /// In a line that is no record.
    Comment,
    /// After the CR that ended the record: a LF would belong to it.
    Return,
}

#[derive(Debug)]
pub(super) struct Scanner {
    marks: Marks,
    state: State,
    /// The record being read has a byte.
    content: bool,
    /// Bytes of the record being read that were stepped over before.
    read: u64,
    /// Where in the record the last quoted field opened.
    opened: u64,
}

/// Bytes that needed no look at each record.
#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) bytes: usize,
    /// Records that ended in them.
    pub(super) records: u64,
    /// The bytes behind the last of these, if there was one.
    pub(super) open: Option<usize>,
}

impl Scanner {
    pub(super) fn new(marks: Marks) -> Scanner {
        Scanner { marks, state: State::Outside(b'\n'), content: false, read: 0, opened: 0 }
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Return => {
                    let feed = usize::from(byte == b'\n');
                    return self.ends(at + feed);
                }
                State::Quoted => {
                    let quote = self.marks.quote.unwrap_or(b'"');
                    let escape = self.marks.escape.unwrap_or(quote);
                    let Some(found) = memchr::memchr2(quote, escape, &bytes[at..]) else {
                        return self.more(bytes);
                    };
                    at += found + 1;
                    self.state = if bytes[at - 1] == quote {
                        State::Quote
                    } else {
                        State::Escaped { quoted: true }
                    };
                }
                State::Quote => {
                    let quote = self.marks.quote.unwrap_or(b'"');
                    if byte == quote {
                        self.state = State::Quoted;
                        at += 1;
                    } else {
                        self.state = State::Outside(quote);
                    }
                }
                State::Escaped { quoted } => {
                    at += 1;
                    // What was escaped begins no field.
                    let outside = State::Outside(self.marks.escape.unwrap_or(byte));
                    self.state = if quoted { State::Quoted } else { outside };
                }
                State::Comment => {
                    let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else {
                        return self.more(bytes);
                    };
                    at += found + 1;
                    if bytes[at - 1] == b'\n' {
                        return self.ends(at);
                    }
                    self.state = State::Return;
                }
                State::Outside(_) if !self.content && self.marks.comment == Some(byte) => {
                    self.state = State::Comment;
                    at += 1;
                }
                State::Outside(before) => {
                    let Some(found) = self.next_mark(&bytes[at..]) else {
                        self.content = true;
                        self.state = State::Outside(bytes[bytes.len() - 1]);
                        return self.more(bytes);
                    };
                    let before = if found == 0 { before } else { bytes[at + found - 1] };
                    self.content |= found > 0;
                    at += found + 1;
                    match bytes[at - 1] {
                        b'\n' => return self.ends(at),
                        b'\r' => self.state = State::Return,
                        byte => self.mark(byte, before, at as u64 - 1),
                    }
                }
            }
        }
        self.more(bytes)
    }

    /// The next byte outside quotes that is more than content.
    #[inline]
    fn next_mark(&self, bytes: &[u8]) -> Option<usize> {
        let Marks { quote, escape, .. } = self.marks;
        match (quote, escape) {
            (Some(quote), None) => memchr::memchr3(quote, b'\n', b'\r', bytes),
            (None, Some(escape)) => memchr::memchr3(escape, b'\n', b'\r', bytes),
            (None, None) => memchr::memchr2(b'\n', b'\r', bytes),
            (Some(quote), Some(escape)) => {
                bytes.iter().position(|b| matches!(b, b'\n' | b'\r') || *b == quote || *b == escape)
            }
        }
    }

    /// A quote or an escape outside quotes, `at` a place of these bytes.
    fn mark(&mut self, byte: u8, before: u8, at: u64) {
        let begins = before == self.marks.delimiter || !self.content;
        self.content = true;
        self.state = if self.marks.escape == Some(byte) {
            State::Escaped { quoted: false }
        } else if begins {
            self.opened = self.read + at;
            State::Quoted
        } else {
            State::Outside(byte)
        };
    }

    fn more(&mut self, bytes: &[u8]) -> Step {
        self.read += bytes.len() as u64;
        Step::More
    }

    fn ends(&mut self, end: usize) -> Step {
        self.state = State::Outside(b'\n');
        self.read = 0;
        Step::Ends { end, record: std::mem::take(&mut self.content) }
    }

    /// Steps over whole blocks of records that hold nothing but fields and line feeds: no quote, no
    /// comment, no blank line. Stops short of `most` bytes and `most_records` records.
    pub(super) fn plain(&mut self, bytes: &[u8], most: usize, most_records: u64) -> Plain {
        let mut plain = Plain::default();
        let (State::Outside(mut last), Marks { quote, escape: None, comment: None, .. }) =
            (self.state, self.marks)
        else {
            return plain;
        };
        let most = bytes.len().min(most);
        let mut content = self.content;
        for block in bytes.get(..most).unwrap_or_default().as_chunks::<BLOCK>().0 {
            let feeds = equal(block, b'\n');
            // The bytes that a record begins with.
            let begins = feeds << 1 | u64::from(!content);
            let returns = equal(block, b'\r');
            let quotes = quote.map_or(0, |quote| equal(block, quote));
            // A CR is plain only inside CRLF, behind content.
            let odd = quotes | (returns & !(feeds >> 1)) | ((feeds | returns) & begins);
            let records = plain.records + u64::from(feeds.count_ones());
            if odd != 0 || records >= most_records {
                break;
            }
            plain.bytes += BLOCK;
            plain.records = records;
            plain.open = match feeds {
                0 => plain.open.map(|open| open + BLOCK),
                feeds => Some(feeds.leading_zeros() as usize),
            };
            last = block[BLOCK - 1];
            content = last != b'\n';
        }
        if plain.bytes > 0 {
            self.content = content;
            self.state = State::Outside(last);
            self.read = match plain.open {
                Some(open) => open as u64,
                None => self.read + plain.bytes as u64,
            };
        }
        plain
    }

    /// Where in the record being read a quote opened that may be open: after a quote inside it, the
    /// next byte tells.
    pub(super) fn last_quote(&self) -> Option<u64> {
        match self.state {
            State::Quote => Some(self.opened),
            _ => self.open_quote(),
        }
    }

    /// Where in the record being read a quote opened that was not closed so far.
    pub(super) fn open_quote(&self) -> Option<u64> {
        let open = matches!(self.state, State::Quoted | State::Escaped { quoted: true });
        open.then_some(self.opened)
    }

    /// At the end of the body: whether a record (or a line without one) was still open.
    pub(super) fn finish(&mut self) -> Option<bool> {
        let open = self.content || matches!(self.state, State::Return | State::Comment);
        self.state = State::Outside(b'\n');
        self.read = 0;
        open.then(|| std::mem::take(&mut self.content))
    }
}

/// The column names of a header record (its line end may stand behind it).
/// An error is an offset into the record and what is wrong there.
pub(super) fn header(
    record: &[u8],
    marks: Marks,
    most: usize,
) -> Result<Vec<String>, (usize, String)> {
    let mut record = record;
    while let [rest @ .., b'\n' | b'\r'] = record {
        record = rest;
    }
    std::str::from_utf8(record)
        .map_err(|error| (error.valid_up_to(), "the header is not UTF-8".to_owned()))?;
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    let mut scratch = Vec::new();
    let mut at = 0;
    loop {
        let field = token(record, at, marks)
            .map_err(|fault| (fault.at.unwrap_or(at), format!("the header: {}", fault.message)))?;
        let name = String::from_utf8_lossy(field.text(record, marks, &mut scratch)).into_owned();
        let number = names.len() + 1;
        if name.is_empty() {
            return Err((at, format!("column {number} of the header has no name")));
        }
        if number > most {
            return Err((at, format!("the header has more than {most} columns")));
        }
        if !seen.insert(name.clone()) {
            let name = shorten(&name);
            return Err((at, format!("the header names the column {name:?} twice")));
        }
        names.push(name);
        if record.get(field.end) != Some(&marks.delimiter) {
            return Ok(names);
        }
        at = field.end + 1;
    }
}

/// The names of columns that have none: as many as the record has fields. Errors as [`header`].
pub(super) fn numbered(
    record: &[u8],
    marks: Marks,
    most: usize,
) -> Result<Vec<String>, (usize, String)> {
    let Some(fields) = count(record, marks) else {
        let message = "the first record has a quote that is not closed or not at a field's end; \
                       without a header it must tell how many columns there are";
        return Err((0, message.to_owned()));
    };
    if fields > most {
        return Err((0, format!("the first record has more than {most} fields")));
    }
    Ok((1..=fields).map(|number| format!("column_{number}")).collect())
}
