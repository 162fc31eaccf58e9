//! The journal's payload: one or more batches with everything needed to replay them.
//!
//! ```text
//! envelope   format u8 · schema version u32 · transform version u32 · row base u64
//!            received u64 · accepted u64 · rejected u64
//!            client · request id · tenant (each u16 length, UTF-8) [· notes] · memory u64 · batches u32
//! batch      received u64 · rejected u32 · rows u32 · numbers · message [· message of the rejected]
//! numbers    0 · first u32 (contiguous)   or   1 · length u32 · LEB128 gaps
//! message    metadata length u32 · body length u64 · padding to 8 · metadata · body
//! ```
//!
//! Format 2 has [notes](Reading), format 1 has none: entries without them stay readable by what knows
//! format 1 only. Little endian. A message is an Arrow IPC record batch (LZ4) without its schema, which the stream
//! keeps once by version. The journal's checksums vouch for the bytes; what is read is checked all
//! the same, so that a bug becomes an error and never a panic.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, UInt8Array, UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, UInt8Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, MetadataVersion, root_as_message};
use bytes::Bytes;

mod notes;
mod numbers;

pub use self::notes::{HEADER_BYTES, LetterId, Reading};
pub use self::numbers::Numbers;

use self::numbers::{read_varint, write_numbers};
use crate::record::{Batch, Code, Rejected};

/// The format of an entry without notes.
const PLAIN: u8 = 1;

/// The format of one with notes, and the newest there is.
const NOTED: u8 = 2;

/// A batch of at most this many bytes is not compressed: each of its buffers would cost an encoder
/// of many times its size.
const SMALL_BYTES: usize = 64 << 10;

/// Alignment of a message, in bytes.
const ALIGN: usize = 8;

/// The most bytes that one buffer of a message may decompress to: far more than a batch can hold,
/// far less than would bring the process down.
const BUFFER_BYTES: i64 = 1 << 31;

/// Who sent an entry's rows, and under which versions they were accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The version of the schema.
    pub schema_version: u32,
    /// The version of the transform.
    pub transform_version: u32,
    /// Rows of the upload that came before the chunk of this entry.
    pub row_base: u64,
    /// The client, as known: a token's name or an address. At most 64 KiB, cut beyond.
    pub client: String,
    /// The request's id. At most 64 KiB, cut beyond.
    pub request: String,
    /// The tenant. At most 64 KiB, cut beyond.
    pub tenant: String,
    /// How its refused rows are read; only where there are any.
    pub reading: Option<Reading>,
    /// The dead letters whose rows it carries anew.
    pub redriven: Vec<LetterId>,
}

/// Rows of an entry. F6: `received == accepted + rejected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records seen.
    pub received: u64,
    /// Rows that passed.
    pub accepted: u64,
    /// Rows refused, kept beside them.
    pub rejected: u64,
}

/// The envelope of an entry, without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who and under which versions.
    pub meta: Meta,
    /// How many rows.
    pub totals: Totals,
    /// What the rows took in memory when they were written, in bytes: what a budget is charged
    /// before they are read.
    pub memory: u64,
}

/// An entry, read back.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who and under which versions.
    pub meta: Meta,
    /// How many rows.
    pub totals: Totals,
    /// The batches, in the order pushed.
    pub batches: Vec<EntryBatch>,
}

/// One batch of an entry.
#[derive(Debug, Clone)]
pub struct EntryBatch {
    /// The good rows.
    pub rows: RecordBatch,
    /// The data row within the chunk of each of `rows`, from 1.
    pub numbers: Numbers,
    /// Records seen in the chunk.
    pub received: u64,
    /// Rows of the upload before this chunk: a row's number in the upload is this plus its number.
    pub base: u64,
    /// The refused rows, ascending; `row` is within the chunk.
    pub rejected: Vec<Rejected>,
}

/// An entry cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The payload begins with another format byte: it was written by a newer Forebay.
    #[error("entry format {0}: this version reads up to format {NOTED}")]
    Format(u8),
    /// The schema's version is not known.
    #[error("entry was accepted under schema version {0}, which is not kept any more")]
    Schema(u32),
    /// The bytes do not hold what they say.
    #[error("damaged entry: {0}")]
    Damaged(String),
    /// Arrow could not encode or decode the rows.
    #[error("entry: {0}")]
    Arrow(#[from] ArrowError),
}

fn damaged(what: impl Into<String>) -> EntryError {
    EntryError::Damaged(what.into())
}

static REJECTED: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(ArrowSchema::new(vec![
        Field::new("row", DataType::UInt64, false),
        Field::new("column", DataType::Utf8, true),
        Field::new("code", DataType::UInt8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
    ]))
});

/// The code's number on disk: its place in [`Code::ALL`], which only grows.
fn code_number(code: Code) -> u8 {
    Code::ALL
        .iter()
        .position(|other| *other == code)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(0)
}

/// Builds a payload.
pub struct EntryWriter {
    meta: Meta,
    totals: Totals,
    batches: u32,
    memory: u64,
    body: Vec<u8>,
    options: IpcWriteOptions,
    small: IpcWriteOptions,
    context: IpcWriteContext,
}

impl std::fmt::Debug for EntryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryWriter").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl EntryWriter {
    /// An entry without batches.
    pub fn new(meta: Meta) -> EntryWriter {
        let small = IpcWriteOptions::try_new(ALIGN, false, MetadataVersion::V5).unwrap_or_default();
        let lz4 = Some(CompressionType::LZ4_FRAME);
        let options = small.clone().try_with_compression(lz4).unwrap_or_default();
        EntryWriter {
            meta,
            totals: Totals::default(),
            batches: 0,
            memory: 0,
            body: Vec::new(),
            options,
            small,
            context: IpcWriteContext::default(),
        }
    }

    /// Adds a batch. All batches of an entry have the schema of `schema_version`.
    ///
    /// # Errors
    /// Arrow cannot encode the rows, or the batch's counts disagree (F6); the entry is then unusable.
    pub fn push(&mut self, batch: &Batch) -> Result<&mut EntryWriter, EntryError> {
        let rows = batch.rows.num_rows();
        let rejected = batch.rejected.len();
        if batch.received != (rows + rejected) as u64 || batch.numbers.len() != rows {
            return Err(damaged(format!(
                "F6: {} records received, {rows} accepted ({} numbered), {rejected} rejected",
                batch.received,
                batch.numbers.len(),
            )));
        }
        self.totals.received += batch.received;
        self.totals.accepted += rows as u64;
        self.totals.rejected += rejected as u64;
        self.batches += 1;
        let refused: usize =
            batch.rejected.iter().map(|row| row.raw.len() + row.message.len()).sum();
        self.memory += (batch.rows.get_array_memory_size() + refused) as u64;
        self.body.extend_from_slice(&batch.received.to_le_bytes());
        self.body.extend_from_slice(&count32(rejected)?.to_le_bytes());
        self.body.extend_from_slice(&count32(rows)?.to_le_bytes());
        write_numbers(&mut self.body, &Numbers::of(&batch.numbers))?;
        self.message(&batch.rows)?;
        if rejected > 0 {
            self.message(&rejected_rows(&batch.rejected)?)?;
        }
        Ok(self)
    }

    fn message(&mut self, rows: &RecordBatch) -> Result<(), EntryError> {
        self.context.set_reserve_scratch(true);
        let mut dictionaries = DictionaryTracker::new(false);
        let small = rows.get_array_memory_size() <= SMALL_BYTES;
        let (_, encoded) = IpcDataGenerator::default().encode(
            rows,
            &mut dictionaries,
            if small { &self.small } else { &self.options },
            &mut self.context,
        )?;
        self.body.extend_from_slice(&count32(encoded.ipc_message.len())?.to_le_bytes());
        self.body.extend_from_slice(&(encoded.arrow_data.len() as u64).to_le_bytes());
        pad(&mut self.body);
        self.body.extend_from_slice(&encoded.ipc_message);
        pad(&mut self.body);
        self.body.extend_from_slice(&encoded.arrow_data);
        Ok(())
    }

    /// Notes how the refused rows are to be read.
    pub fn note_reading(&mut self, reading: Reading) {
        self.meta.reading = Some(reading);
    }

    /// The payload, and the rows it holds.
    pub fn finish(self) -> (Bytes, Totals) {
        let texts = self.meta.client.len() + self.meta.request.len() + self.meta.tenant.len();
        let mut out = Vec::with_capacity(self.body.len() + texts + 128);
        let noted = notes::any(&self.meta);
        out.push(if noted { NOTED } else { PLAIN });
        out.extend_from_slice(&self.meta.schema_version.to_le_bytes());
        out.extend_from_slice(&self.meta.transform_version.to_le_bytes());
        out.extend_from_slice(&self.meta.row_base.to_le_bytes());
        for count in [self.totals.received, self.totals.accepted, self.totals.rejected] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for text in [&self.meta.client, &self.meta.request, &self.meta.tenant] {
            let text = short(text);
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        if noted {
            notes::write(&mut out, &self.meta);
        }
        out.extend_from_slice(&self.memory.to_le_bytes());
        out.extend_from_slice(&self.batches.to_le_bytes());
        pad(&mut out);
        out.extend_from_slice(&self.body);
        (Bytes::from(out), self.totals)
    }
}

/// A text cut to what a u16 can count.
fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(usize::from(u16::MAX))).unwrap_or(text)
}

fn count32(count: usize) -> Result<u32, EntryError> {
    u32::try_from(count).map_err(|_| damaged(format!("{count} does not fit 32 bits")))
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn rejected_rows(rejected: &[Rejected]) -> Result<RecordBatch, ArrowError> {
    let rows: UInt64Array = rejected.iter().map(|row| Some(row.row)).collect();
    let columns: StringArray = rejected.iter().map(|row| row.column.as_deref()).collect();
    let codes: UInt8Array = rejected.iter().map(|row| Some(code_number(row.code))).collect();
    let messages: StringArray = rejected.iter().map(|row| Some(row.message.as_str())).collect();
    let raws: BinaryArray = rejected.iter().map(|row| Some(row.raw.as_ref())).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(rows),
        Arc::new(columns),
        Arc::new(codes),
        Arc::new(messages),
        Arc::new(raws),
    ];
    RecordBatch::try_new(Arc::clone(&REJECTED), arrays)
}

/// Reads the envelope alone: cheap, whatever the size of the entry.
///
/// # Errors
/// Another format, or damage in the envelope.
pub fn meta(payload: &Bytes) -> Result<Header, EntryError> {
    Cursor { payload, at: 0 }.header().map(|(header, _)| header)
}

/// Reads an entry. Buffers that did not compress are shared with the payload, not copied.
///
/// # Errors
/// Another format, a schema version that `schema` does not know, or damage.
pub fn read(
    payload: &Bytes,
    schema: impl Fn(u32) -> Option<SchemaRef>,
) -> Result<Entry, EntryError> {
    let mut cursor = Cursor { payload, at: 0 };
    let (Header { meta, totals, .. }, count) = cursor.header()?;
    let schema = schema(meta.schema_version).ok_or(EntryError::Schema(meta.schema_version))?;
    cursor.align();
    let mut batches = Vec::new();
    let base = meta.row_base;
    let mut seen = Totals::default();
    for _ in 0..count {
        let batch = cursor.batch(&schema, base)?;
        seen.received = seen.received.saturating_add(batch.received);
        seen.accepted += batch.rows.num_rows() as u64;
        seen.rejected += batch.rejected.len() as u64;
        batches.push(batch);
    }
    if seen != totals {
        return Err(damaged(format!("F6: the envelope counts {totals:?}, the batches {seen:?}")));
    }
    Ok(Entry { meta, totals, batches })
}

/// A reading position in a payload.
struct Cursor<'a> {
    payload: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, length: usize) -> Result<Bytes, EntryError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.payload.len());
        let Some(end) = end else {
            return Err(damaged(format!("{length} bytes at {} run past its end", self.at)));
        };
        let bytes = self.payload.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let found = self.payload.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).copied();
        self.at += N;
        found.ok_or_else(|| damaged("it ends too early"))
    }

    fn u32(&mut self) -> Result<u32, EntryError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, EntryError> {
        let length = u16::from_le_bytes(self.array()?);
        let bytes = self.take(usize::from(length))?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| damaged("a text is not UTF-8"))
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(ALIGN);
    }

    /// The envelope and the number of batches.
    fn header(&mut self) -> Result<(Header, u32), EntryError> {
        let [format] = self.array()?;
        if !matches!(format, PLAIN | NOTED) {
            return Err(EntryError::Format(format));
        }
        let (schema_version, transform_version) = (self.u32()?, self.u32()?);
        let row_base = self.u64()?;
        let totals = Totals { received: self.u64()?, accepted: self.u64()?, rejected: self.u64()? };
        let (client, request, tenant) = (self.text()?, self.text()?, self.text()?);
        let texts = Meta { client, request, tenant, ..Meta::default() };
        let mut meta = Meta { schema_version, transform_version, row_base, ..texts };
        if format == NOTED {
            notes::read(self, &mut meta)?;
        }
        let memory = self.u64()?;
        Ok((Header { meta, totals, memory }, self.u32()?))
    }

    fn batch(&mut self, schema: &SchemaRef, base: u64) -> Result<EntryBatch, EntryError> {
        let received = self.u64()?;
        let refused = self.u32()? as usize;
        let count = self.u32()? as usize;
        let numbers = self.numbers(count)?;
        let rows = self.message(schema, count)?;
        let rejected = match refused {
            0 => Vec::new(),
            _ => read_rejected(&self.message(&REJECTED, refused)?)?,
        };
        Ok(EntryBatch { rows, numbers, received, base, rejected })
    }

    fn numbers(&mut self, count: usize) -> Result<Numbers, EntryError> {
        let [tag] = self.array()?;
        match tag {
            0 => self.u32().map(Numbers::From),
            1 => {
                let length = self.u32()? as usize;
                let bytes = self.take(length)?;
                // Each number takes a byte at least: a wrong count cannot ask for much.
                let mut numbers = Vec::with_capacity(count.min(length));
                let mut before = 0_u32;
                let mut rest = bytes.as_ref();
                while !rest.is_empty() {
                    let gap;
                    (gap, rest) = read_varint(rest).ok_or_else(|| damaged("row numbers"))?;
                    before = before.checked_add(gap).ok_or_else(|| damaged("row numbers"))?;
                    numbers.push(before);
                }
                if numbers.len() != count {
                    return Err(damaged(format!("{} numbers for {count} rows", numbers.len())));
                }
                Ok(Numbers::Listed(numbers))
            }
            other => Err(damaged(format!("row numbers of kind {other}"))),
        }
    }

    fn message(&mut self, schema: &SchemaRef, rows: usize) -> Result<RecordBatch, EntryError> {
        let metadata = self.u32()? as usize;
        let body = usize::try_from(self.u64()?).map_err(|_| damaged("a length"))?;
        self.align();
        let metadata = self.take(metadata)?;
        self.align();
        let body = self.take(body)?;
        let batch = decode(&metadata, body, schema)?;
        if batch.num_rows() != rows {
            return Err(damaged(format!("{} rows where {rows} are due", batch.num_rows())));
        }
        Ok(batch)
    }
}

/// Decodes one IPC message. Arrow's decoder asserts what it was promised, so the promises (offsets,
/// lengths, counts) are checked first.
fn decode(metadata: &[u8], body: Bytes, schema: &SchemaRef) -> Result<RecordBatch, EntryError> {
    let message = root_as_message(metadata).map_err(|error| damaged(error.to_string()))?;
    let batch = message
        .header_as_record_batch()
        .ok_or_else(|| damaged("a message that is no record batch"))?;
    let rows = batch.length();
    if rows < 0 {
        return Err(damaged("a negative count of rows"));
    }
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(damaged("buffers of a kind that no column has"));
    }
    for node in batch.nodes().iter().flatten() {
        if node.length() != rows || node.null_count() < 0 || node.null_count() > rows {
            return Err(damaged("a column's length is not the batch's"));
        }
    }
    for buffer in batch.buffers().iter().flatten() {
        let start = usize::try_from(buffer.offset()).ok();
        let end = buffer.offset().checked_add(buffer.length());
        let range = start.zip(end.and_then(|end| usize::try_from(end).ok()));
        let bytes = range.and_then(|(start, end)| body.get(start..end));
        let Some(bytes) = bytes else { return Err(damaged("a buffer runs past its message")) };
        if bytes.is_empty() || batch.compression().is_none() {
            continue;
        }
        let size = bytes.first_chunk::<8>().map(|size| i64::from_le_bytes(*size));
        if !size.is_some_and(|size| (-1..=BUFFER_BYTES).contains(&size)) {
            return Err(damaged("a buffer's uncompressed size"));
        }
    }
    let body = Buffer::from(body);
    let version = message.version();
    // Arrow still asserts on buffers shorter than the rows need: that, too, is damage.
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let none = HashMap::new();
        RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), &none, &version)?
            .with_require_alignment(false)
            .read_record_batch()
    }));
    Ok(decoded.map_err(|_| damaged("a buffer is shorter than its rows"))??)
}

fn read_rejected(rows: &RecordBatch) -> Result<Vec<Rejected>, EntryError> {
    let [numbers, columns, codes, messages, raws] = rows.columns() else {
        return Err(damaged("rejected rows"));
    };
    let numbers = numbers.as_primitive_opt::<UInt64Type>();
    let columns = columns.as_string_opt::<i32>();
    let codes = codes.as_primitive_opt::<UInt8Type>();
    let messages = messages.as_string_opt::<i32>();
    let raws = raws.as_binary_opt::<i32>();
    let (Some(numbers), Some(columns), Some(codes), Some(messages), Some(raws)) =
        (numbers, columns, codes, messages, raws)
    else {
        return Err(damaged("rejected rows"));
    };
    let whole = Bytes::from_owner(Owned(raws.values().clone()));
    let offsets = raws.value_offsets();
    (0..rows.num_rows())
        .map(|row| {
            let code = Code::ALL.get(usize::from(codes.value(row))).copied();
            let code = code.ok_or_else(|| damaged(format!("code {}", codes.value(row))))?;
            let bound =
                |at: usize| offsets.get(at).and_then(|offset| usize::try_from(*offset).ok());
            let range = bound(row).zip(bound(row + 1));
            let (start, end) = range.ok_or_else(|| damaged("a rejected row's bytes"))?;
            Ok(Rejected {
                row: numbers.value(row),
                column: columns.is_valid(row).then(|| columns.value(row).to_owned()),
                code,
                message: messages.value(row).to_owned(),
                raw: whole.slice(start..end),
            })
        })
        .collect()
}

/// A buffer as `Bytes` can hold it.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
