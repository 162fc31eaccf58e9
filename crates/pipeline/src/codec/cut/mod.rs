//! Cuts a body into chunks at record boundaries that depend on the content alone.
//!
//! Owns the bytes of the chunk being gathered, and nothing else of the body. Never decodes a
//! value: it only finds where records end. The same body is cut the same way however its bytes
//! arrive, so a chunk's offset names the same records on every retry.
//!
//! ```text
//!          push                 a record ends              the chunk is full
//! piece ─────────► scanner ────────────────► gathered ───────────────────────► ready
//!                     │ longer than the limit                  (once one more byte is there,
//!                     └────────► skipped, its first bytes kept   or the body is over: `last`)
//! ```
//!
//! A CSV body of which the delimiter was not said is held back until its first bytes tell it.

mod csv;
mod json;
mod jump;
mod lines;
mod opening;
mod skip;
mod sniff;

use lines::Lines;
pub(super) use lines::is_blank;
use skip::Skipping;
pub(super) use sniff::is_no_record;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::dialect::{Dialect, Layout, Marks};
use super::{Chunk, Format, Limits, Malformed, Oversized};

/// What a scanner found in the bytes it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// No record ends here; all bytes belong to the record being read.
    More,
    /// A record, or a stretch without one (a blank line), ends after `end` bytes.
    Ends { end: usize, record: bool },
    /// The byte at `at` cannot stand there.
    Wrong { at: usize, message: &'static str },
}

/// Where the reading of a body stands, by format.
#[derive(Debug)]
enum Scanner {
    Lines(lines::Scanner),
    Csv(csv::Scanner),
    Json(json::Scanner),
}

impl Scanner {
    fn step(&mut self, bytes: &[u8]) -> Step {
        match self {
            Scanner::Lines(scanner) => scanner.step(bytes),
            Scanner::Csv(scanner) => scanner.step(bytes),
            Scanner::Json(scanner) => scanner.step(bytes),
        }
    }
}

/// Cuts one body into chunks. Sans-I/O.
///
/// ```
/// use forebay_pipeline::codec::{Cutter, Format, Limits};
/// # fn main() -> Result<(), forebay_pipeline::codec::Malformed> {
/// let mut cutter = Cutter::new(&Format::Ndjson, Limits::default());
/// cutter.push("{\"a\":1}\n{\"a\":".into())?;
/// cutter.push("2}\n".into())?;
/// assert!(cutter.next().is_none()); // the chunk is not full yet
/// let chunk = cutter.finish()?;
/// assert!(chunk.is_some_and(|chunk| chunk.last && chunk.records == 2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cutter {
    limits: Limits,
    scanner: Scanner,
    /// The first bytes, held until it is known whether they are a byte order mark.
    start: Option<BytesMut>,
    /// The first bytes of a CSV body, held until they tell its delimiter.
    prefix: Option<BytesMut>,
    pieces: Vec<Bytes>,
    /// Bytes in `pieces`.
    gathered: usize,
    /// Where the chunk being gathered begins.
    offset: u64,
    line: u64,
    column: u64,
    /// Body bytes behind us: `offset` plus what the chunk being gathered took of the body.
    position: u64,
    records: u64,
    /// Bytes of the record being read, so far.
    record: u64,
    /// Set while the record being read is too long to hold.
    skipping: Option<Skipping>,
    /// Line ends inside skipped records of this chunk.
    skipped_lines: Lines,
    oversized: Vec<Oversized>,
    /// The chunk is full: cut before the next byte, if there is one.
    full: bool,
    any_record: bool,
    /// What was said of a CSV body.
    dialect: Option<Dialect>,
    header: Option<Arc<Layout>>,
    /// The first record of the CSV body is still to tell its columns.
    wants_header: bool,
    ready: VecDeque<Chunk>,
}

impl Cutter {
    /// A cutter for one body.
    pub fn new(format: &Format, limits: Limits) -> Cutter {
        let mut dialect = None;
        let scanner = match format {
            Format::Ndjson | Format::Text(_) => Scanner::Lines(lines::Scanner::default()),
            Format::Json => Scanner::Json(json::Scanner::default()),
            Format::Csv(said) => {
                dialect = Some(said.clone());
                Scanner::Csv(csv::Scanner::new(said.marks(b',')))
            }
        };
        let mut cutter = Cutter {
            limits,
            scanner,
            start: Some(BytesMut::new()),
            prefix: None,
            pieces: Vec::new(),
            gathered: 0,
            offset: 0,
            line: 1,
            column: 1,
            position: 0,
            records: 0,
            record: 0,
            skipping: None,
            skipped_lines: Lines::new(format),
            oversized: Vec::new(),
            full: false,
            any_record: false,
            dialect,
            header: None,
            wants_header: false,
            ready: VecDeque::new(),
        };
        match &cutter.dialect {
            Some(dialect) if dialect.delimiter.is_none() => cutter.prefix = Some(BytesMut::new()),
            Some(_) => cutter.lay_out(),
            None => {}
        }
        cutter
    }

    /// Takes the next bytes of the body. A piece that holds whole chunks is sliced, not copied.
    ///
    /// # Errors
    /// The body cannot be cut beyond this point. Chunks that were complete before it still come
    /// out of [`Cutter::next`]; nothing more may be pushed.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), Malformed> {
        let Some(bytes) = self.after_mark(bytes)? else {
            return Ok(());
        };
        match self.after_sniffing(bytes) {
            Some(bytes) => self.scan(bytes),
            None => Ok(()),
        }
    }

    /// The next whole chunk that does not end the body.
    #[expect(clippy::should_implement_trait, reason = "None means not yet, not the end")]
    pub fn next(&mut self) -> Option<Chunk> {
        self.ready.pop_front()
    }

    /// Ends the body: its last chunk, with [`Chunk::last`] set. `None` if the body held no record
    /// (for CSV: not even a header; for JSON: not even an empty array). Chunks that
    /// [`Cutter::next`] has not given out yet come before this one.
    ///
    /// # Errors
    /// The body ends inside a JSON array or object, or inside a quoted CSV field that grew longer
    /// than a record may be.
    pub fn finish(&mut self) -> Result<Option<Chunk>, Malformed> {
        self.let_go()?;
        match &mut self.scanner {
            Scanner::Json(scanner) => match scanner.finish() {
                json::End::Nothing => return Ok(None),
                json::End::Whole => self.any_record = true,
                json::End::Open(message) => return Err(self.malformed_at(self.position, message)),
            },
            Scanner::Lines(scanner) => {
                if scanner.finish() {
                    self.record_ends(true)?;
                }
            }
            Scanner::Csv(scanner) => {
                let quote = scanner.open_quote();
                let open = scanner.finish();
                if let (Some(quote), Some(skipping)) = (quote, &self.skipping) {
                    return Err(skipping.never_closed(quote, self.record));
                }
                if let Some(record) = open {
                    self.record_ends(record)?;
                }
            }
        }
        if self.any_record || self.has_header_line() { Ok(Some(self.cut(true))) } else { Ok(None) }
    }

    /// Bytes held that no finished chunk has taken: at most a chunk and a record with its line end,
    /// beyond the piece pushed last. Before a CSV header, 64 KiB of blank lines and comments may stand in
    /// the chunk's place. Finished chunks not yet taken by [`Cutter::next`] are not counted.
    pub fn held(&self) -> usize {
        let held = |bytes: &Option<BytesMut>| bytes.as_ref().map_or(0, BytesMut::len);
        self.gathered + held(&self.start) + held(&self.prefix)
    }

    /// How a CSV body is written and what its columns are called, once that is known.
    pub fn header(&self) -> Option<&Arc<Layout>> {
        self.header.as_ref()
    }

    fn scan(&mut self, piece: Bytes) -> Result<(), Malformed> {
        // `from..at` are bytes of this piece that were scanned and not yet gathered.
        let (mut from, mut at) = (0, 0);
        while at < piece.len() {
            if self.full {
                self.gather(&piece, from, at);
                from = at;
                let chunk = self.cut(false);
                self.ready.push_back(chunk);
            }
            at += self.plain(&piece[at..]);
            if at == piece.len() {
                break;
            }
            match self.scanner.step(&piece[at..]) {
                Step::More => {
                    self.advance(piece.len() - at);
                    at = piece.len();
                }
                Step::Ends { end, record } => {
                    self.advance(end);
                    at += end;
                    // A record that lies whole in the piece needs no look at its bytes.
                    let plain = self.record <= self.limits.record_bytes as u64
                        && self.skipping.is_none()
                        && !self.wants_header;
                    if plain {
                        self.count(record);
                        continue;
                    }
                    self.gather(&piece, from, at);
                    from = at;
                    self.record_ends(record)?;
                }
                Step::Wrong { at: wrong, message } => {
                    self.gather(&piece, from, piece.len());
                    self.advance(wrong);
                    // Had the bytes come one by one, the length would have been seen first.
                    if self.record > self.limits.record_bytes as u64 {
                        self.skip()?;
                    }
                    return Err(self.malformed_at(self.position, message));
                }
            }
        }
        self.gather(&piece, from, at);
        if self.record > self.limits.record_bytes as u64 {
            self.skip()?;
        }
        Ok(())
    }

    /// Steps over CSV records that need no look, where no bound is near. Returns their bytes.
    fn plain(&mut self, bytes: &[u8]) -> usize {
        let Scanner::Csv(scanner) = &mut self.scanner else { return 0 };
        let limit = self.limits.record_bytes as u64;
        if self.wants_header || self.skipping.is_some() {
            return 0;
        }
        // Not so far that the chunk could be full or the record be too long on the way.
        let taken = usize::try_from(self.position - self.offset).unwrap_or(usize::MAX);
        let room = self.limits.chunk_bytes.saturating_sub(taken.saturating_add(1));
        let open = usize::try_from(limit.saturating_sub(self.record)).unwrap_or(0);
        let most_records = (self.limits.chunk_records as u64).saturating_sub(self.records);
        let plain = scanner.plain(bytes, room.min(open), most_records);
        self.position += plain.bytes as u64;
        self.record = match plain.open {
            Some(open) => open as u64,
            None => self.record + plain.bytes as u64,
        };
        self.records += plain.records;
        self.any_record |= plain.records > 0;
        plain.bytes
    }

    fn advance(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.record += bytes as u64;
    }

    /// Adds scanned bytes to the chunk, or drops them if they belong to a record being skipped.
    fn gather(&mut self, piece: &Bytes, from: usize, to: usize) {
        if from >= to {
            return;
        }
        if self.skipping.is_some() {
            self.skipped_lines.count(&piece[from..to]);
            return;
        }
        self.gathered += to - from;
        self.pieces.push(piece.slice(from..to));
    }

    /// A record has ended and all its bytes are gathered (or skipped).
    fn record_ends(&mut self, record: bool) -> Result<(), Malformed> {
        if self.record > self.limits.record_bytes as u64 {
            self.skip()?;
        }
        if let Some(Skipping { raw, lines_before, .. }) = self.skipping.take() {
            self.skipped_lines.after_return = false;
            let lines = self.skipped_lines.seen - lines_before;
            self.oversized.push(Oversized { at: self.gathered, raw, length: self.record, lines });
            self.count(true);
            return Ok(());
        }
        if self.wants_header {
            if record && self.take_header()? {
                self.count(true);
            }
            self.record = 0;
            if self.wants_header && self.gathered > PREAMBLE {
                let message =
                    format!("{PREAMBLE} bytes of blank lines and comments, and no header");
                return Err(self.malformed_at(self.offset, message));
            }
            return Ok(());
        }
        self.count(record);
        Ok(())
    }

    fn count(&mut self, record: bool) {
        self.record = 0;
        self.records += u64::from(record);
        self.any_record |= record;
        self.full = self.position - self.offset >= self.limits.chunk_bytes as u64
            || self.records >= self.limits.chunk_records as u64;
    }

    /// Line ends in whole records.
    fn lines_of(&self, bytes: &[u8]) -> u64 {
        let mut lines = self.skipped_lines.empty();
        lines.count(bytes);
        lines.seen
    }

    fn cut(&mut self, last: bool) -> Chunk {
        let bytes = concat(std::mem::take(&mut self.pieces));
        let lines = self.lines_of(&bytes) + std::mem::take(&mut self.skipped_lines.seen);
        let chunk = Chunk {
            offset: std::mem::replace(&mut self.offset, self.position),
            end: self.position,
            records: std::mem::take(&mut self.records),
            oversized: std::mem::take(&mut self.oversized),
            line: self.line,
            column: self.column,
            last,
            header: self.header.clone(),
            bytes,
        };
        self.line += lines;
        // Only JSON is ever cut inside a line.
        if matches!(self.scanner, Scanner::Json(_)) {
            self.column = match memchr::memrchr(b'\n', &chunk.bytes) {
                Some(at) => (chunk.bytes.len() - at) as u64,
                None => self.column + chunk.bytes.len() as u64,
            };
        }
        self.gathered = 0;
        self.full = false;
        chunk
    }

    /// An error at a place of the body that lies in what is gathered.
    fn malformed_at(&self, position: u64, message: impl Into<String>) -> Malformed {
        let skipped: u64 = self.oversized.iter().map(|record| record.length).sum();
        let gathered = position.saturating_sub(self.offset + skipped);
        let mut left = usize::try_from(gathered).unwrap_or(usize::MAX);
        let (mut line, mut column) = (self.line, self.column);
        let mut lines = self.skipped_lines.empty();
        line += self.skipped_lines.seen;
        for piece in &self.pieces {
            let before = &piece[..left.min(piece.len())];
            left -= before.len();
            lines.count(before);
            match self.last_line_end(before) {
                Some(at) => column = (before.len() - at) as u64,
                None => column += before.len() as u64,
            }
        }
        Malformed { line: line + lines.seen, column, message: message.into() }
    }

    fn last_line_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.scanner {
            Scanner::Csv(_) => memchr::memrchr2(b'\n', b'\r', bytes),
            Scanner::Lines(_) | Scanner::Json(_) => memchr::memrchr(b'\n', bytes),
        }
    }
}

/// The most bytes of blank lines and comments before a header: each line is a piece of its own.
const PREAMBLE: usize = 64 << 10;

/// One buffer of several; a single one is not copied.
fn concat(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}

/// The length of the JSON value or CSV record at the start of `bytes`, found the way the cutter
/// finds it: what a refused record is measured by.
pub(super) fn json_record(bytes: &[u8]) -> usize {
    json::value_length(bytes)
}

/// As [`json_record`], for CSV; the line end is counted in.
pub(super) fn csv_record(bytes: &[u8], marks: Marks) -> usize {
    let mut scanner = csv::Scanner::new(marks);
    match scanner.step(bytes) {
        Step::Ends { end, .. } => end,
        Step::More | Step::Wrong { .. } => bytes.len(),
    }
}
