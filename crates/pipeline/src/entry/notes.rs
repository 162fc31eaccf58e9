//! Notes of an envelope: what only some entries carry, so that the others pay one byte for it, or none.
//!
//! ```text
//! notes   count u8 · each: tag u8 · length u32 · bytes
//! 1       how the refused rows are read: format, header (each u32 length, UTF-8; header only where there is one)
//! 2       dead letters that the entry carries anew: stream UUID 16 · position u64 · row u64, repeated
//! ```
//!
//! A tag that is not known is skipped: a note is never needed to read the rows.

use bytes::Bytes;
use uuid::Uuid;

use super::{Cursor, EntryError, Meta, count32, damaged};

const READING: u8 = 1;
const REDRIVEN: u8 = 2;

/// Bytes of a [`LetterId`].
const LETTER: usize = 32;

/// The longest header that is kept, in bytes: an entry has it once.
pub const HEADER_BYTES: usize = 64 << 10;

/// How a refused row's bytes are to be read, should they be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The format's word.
    pub format: String,
    /// What stood once in the upload and is needed for each of its rows, as the codec wrote it; at most
    /// [`HEADER_BYTES`], left out beyond.
    pub header: Option<String>,
}

impl Reading {
    /// How a row is read that is kept as one JSON object.
    pub fn object() -> Reading {
        Reading { format: "ndjson".to_owned(), header: None }
    }
}

/// A dead letter's identity: the journal entry that it came in, and its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The stream's UUID: a recreated stream is another one.
    pub stream_id: Uuid,
    /// Where its entry begins.
    pub position: u64,
    /// Its data row, from 1.
    pub row: u64,
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.stream_id, self.position, self.row)
    }
}

impl std::str::FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<LetterId, String> {
        let wrong = || {
            let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
            format!("`{shown}` is no dead letter's id: STREAM-UUID:POSITION:ROW")
        };
        // The table's columns are signed.
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok());
        let mut parts = text.split(':');
        let id = parts.next().and_then(|text| Uuid::try_parse(text).ok());
        let numbers = (parts.next().and_then(number), parts.next().and_then(number));
        match (id, numbers, parts.next()) {
            (Some(stream_id), (Some(position), Some(row)), None) => {
                Ok(LetterId { stream_id, position, row })
            }
            _ => Err(wrong()),
        }
    }
}

/// True when an envelope needs notes, and so the newer format.
pub(super) fn any(meta: &Meta) -> bool {
    meta.reading.is_some() || !meta.redriven.is_empty()
}

pub(super) fn write(out: &mut Vec<u8>, meta: &Meta) {
    let mut notes: Vec<(u8, Vec<u8>)> = Vec::new();
    if let Some(reading) = &meta.reading {
        let mut bytes = Vec::new();
        let header = reading.header.as_ref().filter(|header| header.len() <= HEADER_BYTES);
        for text in std::iter::once(&reading.format).chain(header) {
            bytes.extend_from_slice(&length(text.len()).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        notes.push((READING, bytes));
    }
    if !meta.redriven.is_empty() {
        let mut bytes = Vec::with_capacity(meta.redriven.len() * LETTER);
        for letter in &meta.redriven {
            bytes.extend_from_slice(letter.stream_id.as_bytes());
            bytes.extend_from_slice(&letter.position.to_le_bytes());
            bytes.extend_from_slice(&letter.row.to_le_bytes());
        }
        notes.push((REDRIVEN, bytes));
    }
    out.push(notes.len() as u8);
    for (tag, bytes) in notes {
        out.push(tag);
        out.extend_from_slice(&length(bytes.len()).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// Notes are far below what a length can say; were one not, its reader finds damage, not garbage.
fn length(bytes: usize) -> u32 {
    count32(bytes).unwrap_or(u32::MAX)
}

pub(super) fn read(cursor: &mut Cursor<'_>, meta: &mut Meta) -> Result<(), EntryError> {
    let [count] = cursor.array()?;
    for _ in 0..count {
        let [tag] = cursor.array()?;
        let length = cursor.u32()? as usize;
        let bytes = cursor.take(length)?;
        match tag {
            READING => meta.reading = Some(read_reading(&bytes)?),
            REDRIVEN => meta.redriven = read_letters(&bytes)?,
            _ => {}
        }
    }
    Ok(())
}

fn read_reading(bytes: &Bytes) -> Result<Reading, EntryError> {
    let mut cursor = Cursor { payload: bytes, at: 0 };
    let format = read_text(&mut cursor)?;
    let header = if cursor.at < bytes.len() { Some(read_text(&mut cursor)?) } else { None };
    Ok(Reading { format, header })
}

fn read_text(cursor: &mut Cursor<'_>) -> Result<String, EntryError> {
    let length = cursor.u32()? as usize;
    let bytes = cursor.take(length)?;
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| damaged("a note is not UTF-8"))
}

fn read_letters(bytes: &Bytes) -> Result<Vec<LetterId>, EntryError> {
    if !bytes.len().is_multiple_of(LETTER) {
        return Err(damaged("the dead letters that it carries"));
    }
    let mut cursor = Cursor { payload: bytes, at: 0 };
    let mut letters = Vec::with_capacity(bytes.len() / LETTER);
    while cursor.at < bytes.len() {
        let stream_id = Uuid::from_bytes(cursor.array()?);
        letters.push(LetterId { stream_id, position: cursor.u64()?, row: cursor.u64()? });
    }
    Ok(letters)
}
