//! Where CSV records end: quote-aware, with LF, CRLF or CR; and the reading of a header.
//!
//! A quote opens a quoted field only where a field begins; elsewhere it is a byte like others.

use std::collections::HashSet;

use super::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside quotes; the byte before (a line end at the start of a record).
    Outside(u8),
    Quoted,
    /// After a quote inside a quoted field: its end, or half of a doubled one.
    Quote,
    /// After the CR that ended the record: a LF would belong to it.
    Return,
}

#[derive(Debug)]
pub(super) struct Scanner {
    delimiter: u8,
    state: State,
    /// The record being read has a byte.
    content: bool,
}

impl Scanner {
    pub(super) fn new(delimiter: u8) -> Scanner {
        Scanner { delimiter, state: State::Outside(b'\n'), content: false }
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Return => {
                    let feed = usize::from(bytes[at] == b'\n');
                    return self.ends(at + feed);
                }
                State::Quoted => {
                    let Some(quote) = memchr::memchr(b'"', &bytes[at..]) else {
                        return Step::More;
                    };
                    at += quote + 1;
                    self.state = State::Quote;
                }
                State::Quote => {
                    if bytes[at] == b'"' {
                        self.state = State::Quoted;
                        at += 1;
                    } else {
                        self.state = State::Outside(b'"');
                    }
                }
                State::Outside(before) => {
                    let Some(found) = memchr::memchr3(b'"', b'\n', b'\r', &bytes[at..]) else {
                        self.content = true;
                        self.state = State::Outside(bytes[bytes.len() - 1]);
                        return Step::More;
                    };
                    let before = if found == 0 { before } else { bytes[at + found - 1] };
                    self.content |= found > 0;
                    at += found + 1;
                    match bytes[at - 1] {
                        b'\n' => return self.ends(at),
                        b'\r' => self.state = State::Return,
                        _ => {
                            self.content = true;
                            let opens = before == self.delimiter || before == b'\n';
                            self.state = if opens { State::Quoted } else { State::Outside(b'"') };
                        }
                    }
                }
            }
        }
        Step::More
    }

    fn ends(&mut self, end: usize) -> Step {
        self.state = State::Outside(b'\n');
        Step::Ends { end, record: std::mem::take(&mut self.content) }
    }

    /// At the end of the body: whether a record (or a blank line) was still open.
    pub(super) fn finish(&mut self) -> Option<bool> {
        let open = self.content || self.state == State::Return;
        self.state = State::Outside(b'\n');
        open.then(|| std::mem::take(&mut self.content))
    }
}

/// The column names of a header record (its line end may stand behind it).
/// An error is an offset into the record and what is wrong there.
pub(super) fn header(
    record: &[u8],
    delimiter: u8,
    most: usize,
) -> Result<Vec<String>, (usize, String)> {
    let mut record = record;
    while let [rest @ .., b'\n' | b'\r'] = record {
        record = rest;
    }
    let text = std::str::from_utf8(record)
        .map_err(|error| (error.valid_up_to(), "the header is not UTF-8".to_owned()))?;
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    let mut at = 0;
    loop {
        let (name, end) = field(text, at, delimiter)?;
        let number = names.len() + 1;
        if name.is_empty() {
            return Err((at, format!("column {number} of the header has no name")));
        }
        if number > most {
            return Err((at, format!("the header has more than {most} columns")));
        }
        if !seen.insert(name.clone()) {
            let name = crate::codec::shorten(&name);
            return Err((at, format!("the header names the column {name:?} twice")));
        }
        names.push(name);
        if end >= text.len() {
            return Ok(names);
        }
        at = end + 1;
    }
}

/// The field at `at` and where it ends (at a delimiter or the end).
fn field(text: &str, at: usize, delimiter: u8) -> Result<(String, usize), (usize, String)> {
    let bytes = text.as_bytes();
    let next = |from: usize| {
        memchr::memchr(delimiter, &bytes[from..]).map_or(bytes.len(), |found| from + found)
    };
    if bytes.get(at) != Some(&b'"') {
        let end = next(at);
        return Ok((text.get(at..end).unwrap_or_default().to_owned(), end));
    }
    let mut name = Vec::new();
    let mut from = at + 1;
    loop {
        let Some(quote) = memchr::memchr(b'"', &bytes[from..]) else {
            return Err((at, "the header has a quote that is not closed".to_owned()));
        };
        name.extend_from_slice(&bytes[from..from + quote]);
        from += quote + 1;
        if bytes.get(from) != Some(&b'"') {
            break;
        }
        name.push(b'"');
        from += 1;
    }
    if from < bytes.len() && bytes[from] != delimiter {
        return Err((from, "the header has bytes after a closing quote".to_owned()));
    }
    Ok((String::from_utf8_lossy(&name).into_owned(), from))
}
