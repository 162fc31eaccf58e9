//! How a body begins: its byte order mark, and for CSV the delimiter and the columns, which its first
//! bytes tell. Owns no state of its own; after it, every record is a row.

use std::sync::Arc;

use bytes::Bytes;

use super::{Cutter, Scanner, concat, csv, sniff};
use crate::codec::Malformed;
use crate::codec::dialect::{Dialect, Header, Layout};

impl Cutter {
    /// Takes a UTF-8 byte order mark off the start of the body.
    pub(super) fn after_mark(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Malformed> {
        const MARK: &[u8] = b"\xEF\xBB\xBF";
        let Some(start) = &mut self.start else {
            return Ok(Some(bytes));
        };
        let bytes = if start.is_empty() {
            bytes
        } else {
            start.extend_from_slice(&bytes);
            std::mem::take(start).freeze()
        };
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(self.malformed_at(0, "the body is UTF-16; send it as UTF-8"));
        }
        let undecided = MARK.starts_with(&bytes) && bytes.len() < MARK.len()
            || bytes.len() == 1 && (bytes.starts_with(b"\xFF") || bytes.starts_with(b"\xFE"));
        if undecided {
            start.extend_from_slice(&bytes);
            return Ok(None);
        }
        self.start = None;
        if bytes.starts_with(MARK) {
            self.offset = MARK.len() as u64;
            self.position = self.offset;
            return Ok(Some(bytes.slice(MARK.len()..)));
        }
        Ok(Some(bytes))
    }

    /// Holds bytes back while they do not tell the delimiter of a CSV body.
    pub(super) fn after_sniffing(&mut self, bytes: Bytes) -> Option<Bytes> {
        let Some(prefix) = &mut self.prefix else { return Some(bytes) };
        // No more is held than of any other body.
        let enough = sniff::PREFIX.min(self.limits.chunk_bytes + self.limits.record_bytes).max(1);
        let bytes = if prefix.is_empty() && bytes.len() >= enough {
            bytes
        } else {
            prefix.extend_from_slice(&bytes);
            if prefix.len() < enough {
                return None;
            }
            std::mem::take(prefix).freeze()
        };
        self.prefix = None;
        self.sniff(&bytes[..enough.min(bytes.len())], false);
        Some(bytes)
    }

    /// Nothing follows that could tell more: scans what was held back.
    pub(super) fn let_go(&mut self) -> Result<(), Malformed> {
        // What stands in `start` came before anything could come into `prefix`.
        let held = self.start.take().filter(|start| !start.is_empty());
        let sniffed = self.prefix.take().map(|prefix| held.clone().unwrap_or(prefix));
        if let Some(prefix) = &sniffed {
            self.sniff(prefix, true);
        }
        if let Some(bytes) = sniffed.or(held) {
            self.scan(bytes.freeze())?;
        }
        Ok(())
    }

    /// Finds the delimiter in the first bytes of the body, or in all of them.
    pub(super) fn sniff(&mut self, prefix: &[u8], whole: bool) {
        if let Some(dialect) = &mut self.dialect {
            let delimiter = sniff::delimiter(prefix, whole, dialect);
            dialect.delimiter = Some(delimiter);
            self.scanner = Scanner::Csv(csv::Scanner::new(dialect.marks(delimiter)));
        }
        self.lay_out();
    }

    /// The delimiter of a CSV body is known: the names may be, too.
    pub(super) fn lay_out(&mut self) {
        let Some(dialect) = &self.dialect else { return };
        match &dialect.names {
            Some(names) if dialect.headless() => {
                let names = names.to_vec();
                self.header = Some(layout(dialect, names));
            }
            _ => self.wants_header = true,
        }
    }

    /// What was gathered ends in the first record of a CSV body. True if that is a row.
    pub(super) fn take_header(&mut self) -> Result<bool, Malformed> {
        let (Scanner::Csv(scanner), Some(dialect)) = (&self.scanner, &self.dialect) else {
            return Ok(true);
        };
        let (marks, headless) = (scanner.marks(), dialect.headless());
        let bytes = concat(std::mem::take(&mut self.pieces));
        let length = usize::try_from(self.record).unwrap_or(usize::MAX);
        let (skipped, record) = bytes.split_at(bytes.len().saturating_sub(length));
        let line = self.line + self.lines_of(skipped);
        let names = if headless {
            csv::numbered(record, marks, self.limits.columns)
        } else {
            csv::header(record, marks, self.limits.columns)
        };
        let names = names.map_err(|(at, message)| {
            let before = record.get(..at).unwrap_or_default();
            let column = match before.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(end) => before.len() - end,
                None => before.len() + 1,
            };
            Malformed { line: line + self.lines_of(before), column: column as u64, message }
        })?;
        self.header = Some(layout(dialect, names));
        self.wants_header = false;
        if headless {
            self.pieces.push(bytes);
            return Ok(true);
        }
        self.line = line + self.lines_of(record);
        self.gathered = 0;
        self.offset = self.position;
        Ok(false)
    }

    /// True if a header line was read: a body that is nothing else is not empty.
    pub(super) fn has_header_line(&self) -> bool {
        self.header.as_ref().is_some_and(|layout| layout.header == Header::Present)
    }
}

/// What a body turned out to be.
fn layout(dialect: &Dialect, names: Vec<String>) -> Arc<Layout> {
    Arc::new(Layout {
        marks: dialect.marks(b','),
        null: dialect.null.clone(),
        header: dialect.header.unwrap_or(Header::Present),
        names,
    })
}
