//! From a chunk to batches: the loop over records that all formats share. Owns the column
//! buffers, which live from chunk to chunk; keeps nothing of a chunk beyond its batches.
//!
//! F6: every record of a chunk comes out once, as a row or as a refused row.

use std::sync::Arc;

use super::csv_columns::Run;
use super::csv_index::Index;
use super::csv_rows::Fields;
use super::json::Reader;
use super::target::Target;
use super::text_rows::Matcher;
use super::{Chunk, Fallible, Fault, Format, Limits, Malformed, cut, shorten};
use crate::record::{Batch, Code, Rejected};
use crate::schema::{Schema, Type, Unknown};

/// A chunk longer than this is refused: offsets of a batch are 32 bits wide.
const CHUNK_BYTES: usize = 256 << 20;

/// Decodes the chunks of one stream under one schema. Cheap to keep, and better kept: it learns
/// the order of keys and the size of texts.
#[derive(Debug)]
pub struct Decoder {
    target: Target,
    limits: Limits,
    /// A row's size in the batch, beyond its text.
    width: usize,
    /// The last CSV layout seen, and whether its records may be read column by column.
    fields: Option<Fields>,
    /// The last pattern of lines of text seen.
    matcher: Option<Matcher>,
    columnar: bool,
    index: Index,
}

impl Decoder {
    /// A decoder of `schema`. Under [`Unknown::Keep`] the schema has the JSON column [`EXTRA`](super::EXTRA).
    pub fn new(schema: Arc<Schema>, unknown: Unknown, limits: Limits) -> Decoder {
        let width = schema.columns.iter().map(|column| width(column.ty)).sum();
        Decoder {
            target: Target::new(&schema, unknown, limits),
            limits,
            width,
            fields: None,
            columnar: false,
            index: Index::default(),
            matcher: None,
        }
    }

    /// Decodes a chunk into batches of at most [`Limits::cells`] cells.
    pub fn decode<'a>(&'a mut self, format: &'a Format, chunk: &'a Chunk) -> Decoding<'a> {
        self.target.unknown.clear();
        if let Some(layout) = &chunk.header
            && self.fields.as_ref().is_none_or(|fields| fields.layout != *layout)
        {
            let fields = Fields::new(layout, &self.target);
            self.columnar = self.target.takes_columns(&fields);
            self.fields = Some(fields);
        }
        if let Format::Text(pattern) = format
            && self.matcher.as_ref().is_none_or(|matcher| matcher.pattern != *pattern)
        {
            self.matcher = Some(Matcher::new(pattern, &self.target));
        }
        let utf8 = simdutf8::basic::from_utf8(&chunk.bytes).is_ok();
        self.index.clear();
        let columnar = self.columnar
            && utf8
            && matches!(format, Format::Csv(_))
            && chunk.header.is_some()
            && chunk.oversized.is_empty();
        Decoding {
            decoder: self,
            chunk,
            format,
            utf8,
            at: 0,
            seen: 0,
            oversized: 0,
            inside: false,
            columnar,
            line: 0,
            alone: 0,
            patience: 1,
            placed: Placed::default(),
            failed: false,
        }
    }

    /// What the rows of a chunk take once decoded, in bytes, from above but for DEFAULTs and
    /// names in [`EXTRA`](super::EXTRA): what a memory budget is charged.
    pub fn estimate(&self, chunk: &Chunk) -> usize {
        let rows = usize::try_from(chunk.records).unwrap_or(usize::MAX);
        // Each row also has its number, its span and up to one NULL mark a column.
        rows.saturating_mul(self.width + 12).saturating_add(chunk.bytes.len())
    }
}

fn width(ty: Type) -> usize {
    let value = match ty {
        Type::Boolean => 1,
        Type::SmallInt => 2,
        Type::Int | Type::Real | Type::Date | Type::Text | Type::Json => 4,
        Type::BigInt | Type::Double | Type::Timestamp => 8,
        Type::Decimal { .. } => 16,
    };
    value + size_of::<u32>()
}

/// The batches of one chunk. A chunk without records has none.
#[derive(Debug)]
pub struct Decoding<'a> {
    decoder: &'a mut Decoder,
    chunk: &'a Chunk,
    format: &'a Format,
    /// The whole chunk is UTF-8; else each record is looked at by itself.
    utf8: bool,
    at: usize,
    /// Records behind us.
    seen: u64,
    /// Oversized records behind us.
    oversized: usize,
    /// JSON: inside the body's array.
    inside: bool,
    /// CSV: plain records are read column by column.
    columnar: bool,
    /// The next line of the decoder's index.
    line: usize,
    /// Records to read one by one before plain ones are looked for again, and how many the next time.
    alone: u32,
    patience: u32,
    placed: Placed,
    failed: bool,
}

/// The most records that are read alone between two looks for plain ones.
const MOST_ALONE: u32 = 32;

/// What a batch gathers beside its columns.
#[derive(Debug)]
struct Rows {
    numbers: Vec<u32>,
    spans: Vec<(u32, u32)>,
    rejected: Vec<Rejected>,
}

/// How far lines were counted in a chunk.
#[derive(Debug, Default)]
struct Placed {
    at: usize,
    lines: u64,
    /// Where the last of them begins, if it begins in the chunk.
    line_start: Option<usize>,
}

impl Decoding<'_> {
    /// Names that have no column and had a value so far: at most a few dozen of them.
    pub fn unknown_columns(&self) -> &[String] {
        &self.decoder.target.unknown
    }

    fn batch(&mut self) -> Result<Option<Batch>, Malformed> {
        self.check()?;
        let columns = self.decoder.target.columns.builders.len().max(1);
        let most = (self.decoder.limits.cells / columns).max(1);
        let left = usize::try_from(self.chunk.records.saturating_sub(self.seen));
        let expected = left.unwrap_or(most).min(most);
        self.decoder.target.columns.reserve(expected);
        let mut out = Rows {
            numbers: Vec::with_capacity(expected),
            spans: Vec::with_capacity(expected),
            rejected: Vec::new(),
        };
        let mut received = 0;
        while received < most && !self.decoder.target.columns.is_full() {
            let run = self.run(most - received, &mut out);
            if run > 0 {
                received += run;
                continue;
            }
            let start = self.next_record();
            if let Some(refused) = self.take_oversized(start) {
                received += 1;
                out.rejected.push(refused);
                continue;
            }
            let Some(start) = start else { break };
            received += 1;
            self.seen += 1;
            let (end, done) = self.record(start);
            match done {
                Ok(()) => {
                    out.numbers.push(self.seen as u32);
                    out.spans.push((start as u32, (end - start) as u32));
                }
                Err(fault) => {
                    self.decoder.target.columns.undo_row();
                    out.rejected.push(self.refuse(start, end, *fault));
                }
            }
        }
        if received == 0 {
            return Ok(None);
        }
        let rows =
            self.decoder.target.columns.finish().map_err(|error| {
                self.malformed(format!("the columns do not fit together: {error}"))
            })?;
        let Rows { numbers, spans, rejected } = out;
        Ok(Some(Batch { rows, numbers, spans, rejected, received: received as u64 }))
    }

    /// Reads the plain CSV records that come next column by column, at most `most` of them. Returns how
    /// many there were; none if the next one is to be read alone.
    fn run(&mut self, most: usize, out: &mut Rows) -> usize {
        if !self.columnar {
            return 0;
        }
        if self.alone > 0 {
            self.alone -= 1;
            return 0;
        }
        let Decoder { target, index, fields: Some(fields), .. } = &mut *self.decoder else {
            return 0;
        };
        let bytes = &self.chunk.bytes[..];
        // Lines that were read alone, and blank ones, are behind us.
        while self.line < index.len() && index.start(self.line).is_some_and(|at| at < self.at) {
            self.line += 1;
        }
        if self.line >= index.len() {
            index.build(bytes, self.at, fields.layout.marks);
            self.line = 0;
            if index.len() == 0 {
                // Quotes in every record: what is looked for in vain is looked for less often.
                self.alone = self.patience - 1;
                self.patience = (self.patience * 2).min(MOST_ALONE);
                return 0;
            }
            self.patience = 1;
        }
        let lines = index.alike(self.line, most, fields.all.len());
        if lines == 0 || index.start(self.line) != Some(self.at) {
            return 0;
        }
        let run = Run { bytes, index, line: self.line, lines };
        let mut faults = target.csv_run(run, fields);
        let first = self.seen;
        let mut refused = Vec::new();
        for (at, (start, end)) in run.spans().enumerate() {
            match faults.remove(&at) {
                None => {
                    out.numbers.push((first + at as u64 + 1) as u32);
                    out.spans.push((start as u32, (end - start) as u32));
                }
                Some(fault) => refused.push((at, start, end, fault)),
            }
        }
        self.at = index.start(self.line + lines).unwrap_or(bytes.len());
        self.line += lines;
        for (at, start, end, fault) in refused {
            self.seen = first + at as u64 + 1;
            let record = self.chunk.bytes.slice(start..end);
            let misfit = self.decoder.fields.as_ref().and_then(|fields| fields.misfit(&record));
            out.rejected.push(self.refuse(start, end, *misfit.unwrap_or(fault)));
        }
        self.seen = first + lines as u64;
        lines
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.chunk.bytes.len() > CHUNK_BYTES {
            return Err(self.malformed(format!("a chunk is longer than {CHUNK_BYTES} bytes")));
        }
        if matches!(self.format, Format::Csv(_)) && self.chunk.header.is_none() {
            return Err(self.malformed("a CSV chunk without its header".to_owned()));
        }
        Ok(())
    }

    fn malformed(&self, message: String) -> Malformed {
        Malformed { line: self.chunk.line, column: 1, message }
    }

    /// Where the next record begins, past blank lines and what stands between JSON records.
    fn next_record(&mut self) -> Option<usize> {
        let bytes = &self.chunk.bytes[..];
        loop {
            match (bytes.get(self.at)?, self.format) {
                (b'\n', _) => self.at += 1,
                (b' ' | b'\t' | b'\r', Format::Ndjson | Format::Text(_)) => {
                    let line = &bytes[self.at..];
                    let end = memchr::memchr(b'\n', line).unwrap_or(line.len());
                    if !cut::is_blank(&line[..end]) {
                        return Some(self.at);
                    }
                    self.at += end;
                }
                (b'\r', _) => self.at += 1,
                (byte, Format::Csv(_)) => {
                    let layout = self.chunk.header.as_ref()?;
                    if layout.marks.comment != Some(*byte) {
                        return Some(self.at);
                    }
                    let line = &bytes[self.at..];
                    self.at += memchr::memchr2(b'\n', b'\r', line).unwrap_or(line.len());
                }
                (b' ' | b'\t' | b']', Format::Json) => self.at += 1,
                (b',', Format::Json) => {
                    self.inside = true;
                    self.at += 1;
                }
                // The first bracket of a body opens its array; a later one begins a record.
                (b'[', Format::Json) if !self.inside => {
                    self.inside = true;
                    self.at += 1;
                }
                _ => return Some(self.at),
            }
        }
    }

    /// The oversized record that stood before `start`, if it was not given out yet.
    fn take_oversized(&mut self, start: Option<usize>) -> Option<Rejected> {
        let record = self.chunk.oversized.get(self.oversized)?;
        if start.is_some_and(|start| start < record.at) {
            return None;
        }
        self.oversized += 1;
        self.seen += 1;
        let message = format!(
            "the record has {} bytes, the limit is {}; only its beginning is kept",
            record.length, self.decoder.limits.record_bytes
        );
        let (row, raw) = (self.seen, record.raw.clone());
        Some(Rejected { row, column: None, code: Code::RowTooLarge, message, raw })
    }

    /// Reads one record: where it ends (without its line end), and whether it is a row.
    fn record(&mut self, start: usize) -> (usize, Fallible<()>) {
        let rest = &self.chunk.bytes[start..];
        let target = &mut self.decoder.target;
        let depth = self.decoder.limits.depth;
        match self.format {
            Format::Ndjson => {
                let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                self.at = start + length + 1;
                let line = &rest[..length];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let done = checked(line, self.utf8)
                    .and_then(|()| target.json_line(&mut Reader::new(line, 0, depth)));
                (start + line.len(), done)
            }
            Format::Text(_) => {
                let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                self.at = start + length + 1;
                let line = &rest[..length];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let Some(matcher) = &mut self.decoder.matcher else {
                    return (
                        self.at,
                        Err(Fault::new(Code::NoMatch, "a chunk without its pattern")),
                    );
                };
                let done = checked(line, self.utf8).and_then(|()| target.text_line(line, matcher));
                (start + line.len(), done)
            }
            Format::Json => {
                let whole = |rest| cut::json_record(rest);
                let record = if self.utf8 { rest } else { &rest[..whole(rest)] };
                let mut reader = Reader::new(record, 0, depth);
                let done = checked(record, self.utf8).and_then(|()| target.json_row(&mut reader));
                let length = if done.is_ok() { reader.at } else { whole(rest).max(1) };
                self.at = start + length;
                (self.at, done)
            }
            Format::Csv(_) => {
                let Some(fields) = &self.decoder.fields else {
                    self.at = self.chunk.bytes.len();
                    return (self.at, Err(Fault::new(Code::Syntax, "a chunk without its layout")));
                };
                let whole = |rest| cut::csv_record(rest, fields.layout.marks);
                let record = if self.utf8 { rest } else { &rest[..whole(rest)] };
                let done = checked(record, self.utf8).and_then(|()| target.csv_row(record, fields));
                let length = match &done {
                    Ok(length) => *length,
                    Err(_) => whole(rest),
                };
                self.at = start + length;
                let mut record = &rest[..length];
                record = record.strip_suffix(b"\n").unwrap_or(record);
                record = record.strip_suffix(b"\r").unwrap_or(record);
                (start + record.len(), done.map(drop))
            }
        }
    }

    #[cold]
    fn refuse(&mut self, start: usize, end: usize, fault: Fault) -> Rejected {
        let raw = self.chunk.bytes.slice(start..end);
        let message = match (fault.at, self.format) {
            (None, _) => fault.message,
            (Some(at), Format::Json | Format::Csv(_)) => {
                let (line, column) = self.place(start + at);
                format!("line {line}, column {column}: {}", fault.message)
            }
            (Some(at), Format::Ndjson) => {
                let hint = if at >= raw.len() {
                    "; each line is a record of its own (send records of many lines as \
                     application/json)"
                } else {
                    ""
                };
                format!("column {}: {}{hint}", at + 1, fault.message)
            }
            (Some(at), Format::Text(_)) => format!("column {}: {}", at + 1, fault.message),
        };
        let column = fault.column.map(|column| shorten(&column));
        Rejected { row: self.seen, column, code: fault.code, message, raw }
    }

    /// The line and column in the body of a byte of the chunk. Looks only at what lies between it and
    /// the one asked for before, which must not lie behind it.
    fn place(&mut self, at: usize) -> (u64, u64) {
        let bytes = &self.chunk.bytes[..];
        let at = at.min(bytes.len());
        let fresh = bytes.get(self.placed.at..at).unwrap_or_default();
        let returns = matches!(self.format, Format::Csv(_));
        for end in memchr::memchr2_iter(b'\n', b'\r', fresh) {
            let end = self.placed.at + end;
            // The CR of a CRLF ends no line, and in JSON none does.
            let feed = bytes.get(end) == Some(&b'\n');
            if feed || returns && bytes.get(end + 1) != Some(&b'\n') {
                self.placed.lines += 1;
                self.placed.line_start = Some(end + 1);
            }
        }
        self.placed.at = at;
        let skipped = self.chunk.oversized.iter().take(self.oversized);
        let skipped: u64 = skipped.map(|record| record.lines).sum();
        let column = match self.placed.line_start {
            Some(start) => (at - start) as u64 + 1,
            None => self.chunk.column + at as u64,
        };
        (self.chunk.line + self.placed.lines + skipped, column)
    }
}

impl Iterator for Decoding<'_> {
    type Item = Result<Batch, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.batch();
        self.failed = batch.is_err();
        batch.transpose()
    }
}

/// Judges the encoding of one record, unless the whole chunk was found good.
fn checked(record: &[u8], utf8: bool) -> Fallible<()> {
    if utf8 {
        return Ok(());
    }
    simdutf8::compat::from_utf8(record).map(drop).map_err(|error| {
        let mut fault = Fault::syntax(error.valid_up_to(), "the bytes are not UTF-8");
        fault.code = Code::InvalidUtf8;
        fault
    })
}
