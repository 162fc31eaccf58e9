//! Where lines end: NDJSON. Owns whether the line being read is blank so far; never looks into
//! a record.

use super::Step;

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
