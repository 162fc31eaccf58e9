//! Records that are too long to hold: they are read to their end and dropped, but for their first
//! bytes. Owns what is known of the one being skipped.

use bytes::{Bytes, BytesMut};

use super::{Cutter, Scanner};
use crate::codec::{Malformed, OVERSIZED_KEPT};

/// A record that is too long to hold.
#[derive(Debug)]
pub(super) struct Skipping {
    /// Its first bytes.
    pub(super) raw: Bytes,
    /// Line ends skipped before it in this chunk.
    pub(super) lines_before: u64,
    /// The last quote seen to open in it: its offset in the record, and its place in the body.
    quote: Option<(u64, Malformed)>,
    /// Its own place.
    begin: Malformed,
}

impl Cutter {
    /// The record being read is too long: lets go of its bytes, except the first few.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        if self.skipping.is_some() {
            return Ok(());
        }
        let begins = self.position - self.record;
        let limit = self.limits.record_bytes;
        if self.wants_header {
            let what = match &self.dialect {
                Some(dialect) if dialect.headless() => "first record",
                _ => "header",
            };
            let message = format!("the {what} is longer than {limit} bytes");
            return Err(self.malformed_at(begins, message));
        }
        if matches!(self.scanner, Scanner::Json(_)) {
            let message = format!("a record is longer than {limit} bytes");
            return Err(self.malformed_at(begins, message));
        }
        let begin = self.malformed_at(begins, "");
        // One beyond the limit is seen or not, by how the bytes arrive.
        let quote = match &self.scanner {
            Scanner::Csv(scanner) => scanner.last_quote().filter(|at| *at < limit as u64),
            _ => None,
        };
        let quote = quote.map(|at| (at, self.malformed_at(begins + at, "")));
        let lines_before = self.skipped_lines.seen;
        let length = usize::try_from(self.record).unwrap_or(usize::MAX);
        let tail = self.take_tail(length);
        let mut raw = BytesMut::new();
        for piece in &tail {
            self.skipped_lines.count(piece);
            let room = OVERSIZED_KEPT.min(limit).saturating_sub(raw.len());
            raw.extend_from_slice(&piece[..room.min(piece.len())]);
        }
        let raw = raw.freeze();
        self.skipping = Some(Skipping { raw, lines_before, quote, begin });
        Ok(())
    }

    /// Takes the last `length` bytes out of the gathered pieces.
    fn take_tail(&mut self, length: usize) -> Vec<Bytes> {
        let mut keep = self.gathered.saturating_sub(length);
        self.gathered = keep;
        let mut tail = Vec::new();
        let mut kept = Vec::with_capacity(self.pieces.len());
        for mut piece in std::mem::take(&mut self.pieces) {
            let rest = piece.split_off(keep.min(piece.len()));
            keep -= piece.len();
            for (part, into) in [(piece, &mut kept), (rest, &mut tail)] {
                if !part.is_empty() {
                    into.push(part);
                }
            }
        }
        self.pieces = kept;
        tail
    }
}

impl Skipping {
    /// The body ended inside a quoted field, after `length` bytes of the record.
    pub(super) fn never_closed(&self, quote: u64, length: u64) -> Malformed {
        match &self.quote {
            Some((at, place)) if *at == quote => {
                let message = format!(
                    "the quote that opens here is never closed: it would make the last {} bytes of \
                     the body one field",
                    length - quote
                );
                Malformed { message, ..place.clone() }
            }
            _ => {
                let message = format!(
                    "the record that begins here has {length} bytes and ends inside quotes that \
                     are never closed"
                );
                Malformed { message, ..self.begin.clone() }
            }
        }
    }
}
