//! Where lines end: NDJSON, and the counting of lines in every format. Owns whether the line being
//! read is blank so far; never looks into a record.

use super::{Format, Step};

#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The line being read has a byte that is not white space.
    content: bool,
}

impl Scanner {
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let feed = memchr::memchr(b'\n', bytes);
        let line = &bytes[..feed.unwrap_or(bytes.len())];
        self.content = self.content || !is_blank(line);
        match feed {
            None => Step::More,
            Some(at) => Step::Ends { end: at + 1, record: std::mem::take(&mut self.content) },
        }
    }

    /// True if the body ends in a line without a line end.
    pub(super) fn finish(&mut self) -> bool {
        std::mem::take(&mut self.content)
    }
}

/// True for a line of white space alone: it is no record.
pub(in crate::codec) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// Counts line ends: LF; in CSV also CRLF as one, and CR alone.
#[derive(Debug)]
pub(super) struct Lines {
    returns: bool,
    pub(super) seen: u64,
    /// The last byte was a CR, which was counted.
    pub(super) after_return: bool,
}

impl Lines {
    pub(super) fn new(format: &Format) -> Lines {
        Lines { returns: matches!(format, Format::Csv(_)), seen: 0, after_return: false }
    }

    /// A counter of the same kind at nought.
    pub(super) fn empty(&self) -> Lines {
        Lines { returns: self.returns, seen: 0, after_return: false }
    }

    pub(super) fn count(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.seen += memchr::memchr_iter(b'\n', bytes).count() as u64;
        if !self.returns {
            return;
        }
        // A CR counts, and the LF behind it does not.
        self.seen -= u64::from(self.after_return && bytes.starts_with(b"\n"));
        let returns = memchr::memchr_iter(b'\r', bytes);
        self.seen += returns.filter(|at| bytes.get(at + 1) != Some(&b'\n')).count() as u64;
        self.after_return = *last == b'\r';
    }
}
