//! The bytes on disk: segment headers, blocks, records, footers. Pure functions over slices; no I/O, no state.
//!
//! All integers are little endian; every structure has its own CRC32C; what is reserved is zero.
//!
//! ```text
//! segment file:  [ header 4 KiB ][ block ][ block ] … [ footer 4 KiB, once sealed ]
//!                  LSN of a block = base + file offset − 4 KiB
//!
//! header    0 magic "FBSEGM01" · 8 version u32 · 16 journal uuid · 32 number u64 · 40 base u64 · 48 previous end u64
//!           56 salt u64 · 64 previous block's checksum u32 · 72 durable u64 · 80 counters 4×u64 · 112 sequence u64
//!           120 created i64 (unix µs) · 4092 crc
//! block     0 magic "FBLOCK01" · 8 salt u64 · 16 lsn u64 · 24 first sequence u64 · 32 durable u64
//!           40 counters 4×u64, cumulative, this block included · 72 body length u32 · 76 records u32
//!           80 previous block's checksum u32 · 84 records' checksum u32 · 124 crc
//!           128 body, then zeros to the next 4 KiB
//! record    0 payload length u32 · 4 kind u8 · 5 flags u8 (1 = has key) · 8 received i64 (unix µs) · 16 key hash u128
//!           32 key checksum u64 · 40 key note u64 · 48 counters 4×u32 · 64 payload crc · 68 crc of 0..68
//!           72 payload, then zeros to the next 8
//! footer    0 magic "FBSEAL01" · 8 salt u64 · 16 end u64 · 24 entries u32 · 32 block lsn u64 … · 2048 key filter
//!           4092 crc
//! ```
//!
//! A block's checksum is its header's CRC. That covers the records' checksum, which covers the record headers, which
//! hold the payload CRCs: so the chain of blocks vouches for every byte, and each payload is summed once.
//! The *previous end* of a segment equals its base, unless a repair cut a hole between the two.

use crate::{Append, Key};

/// Blocks begin and end at multiples of this many bytes.
pub const BLOCK_ALIGN: u64 = 4096;
/// The longest payload of one record, in bytes.
pub const MAX_PAYLOAD: usize = 16 << 20;

pub(crate) const SEGMENT_HEADER: usize = 4096;
pub(crate) const FOOTER: usize = 4096;
pub(crate) const BLOCK_HEADER: usize = 128;
pub(crate) const RECORD_HEADER: usize = 72;
/// The longest block that a scan believes.
pub(crate) const MAX_BLOCK: u64 = 64 << 20;
const SEGMENT_MAGIC: [u8; 8] = *b"FBSEGM01";
const BLOCK_MAGIC: [u8; 8] = *b"FBLOCK01";
const FOOTER_MAGIC: [u8; 8] = *b"FBSEAL01";
const VERSION: u32 = 1;
const FOOTER_ENTRIES: usize = (2048 - 32) / 8;
const FILTER: std::ops::Range<usize> = 2048..4092;

pub(crate) type Totals = [u64; 4];

pub(crate) fn align_block(len: u64) -> u64 {
    len.div_ceil(BLOCK_ALIGN) * BLOCK_ALIGN
}

/// Bytes of a record in a block's body.
pub(crate) fn record_len(payload: usize) -> u64 {
    (RECORD_HEADER + payload.div_ceil(8) * 8) as u64
}

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

pub(crate) fn totals_at(bytes: &[u8], at: usize) -> Option<Totals> {
    Some([
        u64_at(bytes, at)?,
        u64_at(bytes, at + 8)?,
        u64_at(bytes, at + 16)?,
        u64_at(bytes, at + 24)?,
    ])
}

pub(crate) fn put_totals(bytes: &mut [u8], at: usize, totals: &Totals) {
    for (i, total) in totals.iter().enumerate() {
        put(bytes, at + 8 * i, &total.to_le_bytes());
    }
}

/// Writes the CRC32C of everything before `at` to `at`.
pub(crate) fn seal_crc(bytes: &mut [u8], at: usize) -> u32 {
    let crc = crc32c::crc32c(bytes.get(..at).unwrap_or_default());
    put(bytes, at, &crc.to_le_bytes());
    crc
}

pub(crate) fn crc_holds(bytes: &[u8], at: usize) -> bool {
    bytes.get(..at).is_some_and(|covered| u32_at(bytes, at) == Some(crc32c::crc32c(covered)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub uuid: uuid::Uuid,
    pub number: u64,
    pub base: u64,
    pub previous_end: u64,
    pub salt: u64,
    pub previous_checksum: u32,
    pub durable: u64,
    pub totals: Totals,
    pub sequence: u64,
    pub created_unix_micros: i64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; SEGMENT_HEADER];
        put(&mut b, 0, &SEGMENT_MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 16, self.uuid.as_bytes());
        put(&mut b, 32, &self.number.to_le_bytes());
        put(&mut b, 40, &self.base.to_le_bytes());
        put(&mut b, 48, &self.previous_end.to_le_bytes());
        put(&mut b, 56, &self.salt.to_le_bytes());
        put(&mut b, 64, &self.previous_checksum.to_le_bytes());
        put(&mut b, 72, &self.durable.to_le_bytes());
        put_totals(&mut b, 80, &self.totals);
        put(&mut b, 112, &self.sequence.to_le_bytes());
        put(&mut b, 120, &self.created_unix_micros.to_le_bytes());
        seal_crc(&mut b, SEGMENT_HEADER - 4);
        b
    }

    pub(crate) fn decode(b: &[u8]) -> Option<Self> {
        let b = b.get(..SEGMENT_HEADER)?;
        if !b.starts_with(&SEGMENT_MAGIC)
            || !crc_holds(b, SEGMENT_HEADER - 4)
            || u32_at(b, 8)? != VERSION
        {
            return None;
        }
        Some(Self {
            uuid: uuid::Uuid::from_bytes(array(b, 16)?),
            number: u64_at(b, 32)?,
            base: u64_at(b, 40)?,
            previous_end: u64_at(b, 48)?,
            salt: u64_at(b, 56)?,
            previous_checksum: u32_at(b, 64)?,
            durable: u64_at(b, 72)?,
            totals: totals_at(b, 80)?,
            sequence: u64_at(b, 112)?,
            created_unix_micros: array(b, 120).map(i64::from_le_bytes)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub salt: u64,
    pub lsn: u64,
    pub first_sequence: u64,
    pub durable: u64,
    pub totals: Totals,
    pub body_len: u32,
    pub records: u32,
    pub previous_checksum: u32,
    pub records_checksum: u32,
    /// The header's own CRC, which is the block's checksum in the chain.
    pub checksum: u32,
}

impl BlockHeader {
    /// Bytes of the whole block, padding included.
    pub(crate) fn len(&self) -> u64 {
        align_block(BLOCK_HEADER as u64 + u64::from(self.body_len))
    }

    pub(crate) fn end(&self) -> u64 {
        self.lsn + self.len()
    }

    /// Writes the header into the first bytes of a block, and returns the block's checksum.
    pub(crate) fn encode(&self, b: &mut [u8]) -> u32 {
        put(b, 0, &BLOCK_MAGIC);
        put(b, 8, &self.salt.to_le_bytes());
        put(b, 16, &self.lsn.to_le_bytes());
        put(b, 24, &self.first_sequence.to_le_bytes());
        put(b, 32, &self.durable.to_le_bytes());
        put_totals(b, 40, &self.totals);
        put(b, 72, &self.body_len.to_le_bytes());
        put(b, 76, &self.records.to_le_bytes());
        put(b, 80, &self.previous_checksum.to_le_bytes());
        put(b, 84, &self.records_checksum.to_le_bytes());
        seal_crc(b, BLOCK_HEADER - 4)
    }

    pub(crate) fn decode(b: &[u8]) -> Option<Self> {
        let b = b.get(..BLOCK_HEADER)?;
        if !b.starts_with(&BLOCK_MAGIC) || !crc_holds(b, BLOCK_HEADER - 4) {
            return None;
        }
        let header = Self {
            salt: u64_at(b, 8)?,
            lsn: u64_at(b, 16)?,
            first_sequence: u64_at(b, 24)?,
            durable: u64_at(b, 32)?,
            totals: totals_at(b, 40)?,
            body_len: u32_at(b, 72)?,
            records: u32_at(b, 76)?,
            previous_checksum: u32_at(b, 80)?,
            records_checksum: u32_at(b, 84)?,
            checksum: u32_at(b, BLOCK_HEADER - 4)?,
        };
        let sane = header.len() <= MAX_BLOCK && header.lsn.checked_add(MAX_BLOCK).is_some();
        sane.then_some(header)
    }
}

/// A record's header as it stands in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub payload_len: usize,
    pub kind: u8,
    pub received_unix_micros: i64,
    pub key: Option<Key>,
    pub counters: [u32; 4],
    pub payload_crc: u32,
}

impl RecordHeader {
    pub(crate) fn decode(b: &[u8]) -> Option<Self> {
        let b = b.get(..RECORD_HEADER)?;
        if !crc_holds(b, RECORD_HEADER - 4) {
            return None;
        }
        let key = Key {
            hash: array(b, 16).map(u128::from_le_bytes)?,
            checksum: u64_at(b, 32)?,
            note: u64_at(b, 40)?,
        };
        Some(Self {
            payload_len: u32_at(b, 0)? as usize,
            kind: *b.get(4)?,
            received_unix_micros: array(b, 8).map(i64::from_le_bytes)?,
            key: (*b.get(5)? & 1 == 1).then_some(key),
            counters: [u32_at(b, 48)?, u32_at(b, 52)?, u32_at(b, 56)?, u32_at(b, 60)?],
            payload_crc: u32_at(b, 64)?,
        })
    }
}

/// Appends a record to a block under construction and folds its header into the records' checksum.
pub(crate) fn push_record(block: &mut Vec<u8>, append: &Append, records_checksum: u32) -> u32 {
    let mut b = [0u8; RECORD_HEADER];
    put(&mut b, 0, &u32::try_from(append.payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    put(&mut b, 4, &[append.kind, u8::from(append.key.is_some())]);
    put(&mut b, 8, &append.received_unix_micros.to_le_bytes());
    if let Some(key) = &append.key {
        put(&mut b, 16, &key.hash.to_le_bytes());
        put(&mut b, 32, &key.checksum.to_le_bytes());
        put(&mut b, 40, &key.note.to_le_bytes());
    }
    for (i, counter) in append.counters.iter().enumerate() {
        put(&mut b, 48 + 4 * i, &counter.to_le_bytes());
    }
    put(&mut b, 64, &crc32c::crc32c(&append.payload).to_le_bytes());
    seal_crc(&mut b, RECORD_HEADER - 4);
    block.extend_from_slice(&b);
    block.extend_from_slice(&append.payload);
    block.resize(block.len().next_multiple_of(8), 0);
    crc32c::crc32c_append(records_checksum, &b)
}

/// A record found in a block: its header and where its parts stand in the block.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub header: RecordHeader,
    /// Offset of the record in the block.
    pub at: usize,
    /// Offset just after the record.
    pub end: usize,
}

impl Found {
    pub(crate) fn payload(&self) -> std::ops::Range<usize> {
        self.at + RECORD_HEADER..self.at + RECORD_HEADER + self.header.payload_len
    }
}

/// The record at an offset of a block, if its header is sound and it lies within `body_end`.
pub(crate) fn record_at(block: &[u8], at: usize, body_end: usize) -> Option<Found> {
    let header = RecordHeader::decode(block.get(at..body_end)?)?;
    let end = at + usize::try_from(record_len(header.payload_len)).ok()?;
    (end <= body_end).then_some(Found { header, at, end })
}

/// Checks a whole block against its header: every record, their number, and their checksum.
pub(crate) fn check_body(header: &BlockHeader, block: &[u8]) -> Result<Vec<Found>, &'static str> {
    let body_end = BLOCK_HEADER + header.body_len as usize;
    let (mut at, mut checksum, mut found) = (BLOCK_HEADER, 0, Vec::new());
    while at < body_end {
        let record = record_at(block, at, body_end).ok_or("a record's header is rotten")?;
        let payload = block.get(record.payload()).ok_or("a record is cut")?;
        if crc32c::crc32c(payload) != record.header.payload_crc {
            return Err("a payload is rotten");
        }
        checksum =
            crc32c::crc32c_append(checksum, block.get(at..at + RECORD_HEADER).unwrap_or_default());
        at = record.end;
        found.push(record);
    }
    if found.len() != header.records as usize || checksum != header.records_checksum {
        return Err("the records are not those of the header");
    }
    Ok(found)
}

/// A footer: hints for a reader in a hurry. Rebuildable, never authoritative.
pub(crate) fn encode_footer(
    salt: u64,
    end: u64,
    blocks: &[u64],
    keys: impl Iterator<Item = u128>,
) -> Vec<u8> {
    let mut b = vec![0; FOOTER];
    put(&mut b, 0, &FOOTER_MAGIC);
    put(&mut b, 8, &salt.to_le_bytes());
    put(&mut b, 16, &end.to_le_bytes());
    let step = blocks.len().div_ceil(FOOTER_ENTRIES).max(1);
    let mut entries = 0u32;
    for (i, lsn) in blocks.iter().step_by(step).enumerate() {
        put(&mut b, 32 + 8 * i, &lsn.to_le_bytes());
        entries += 1;
    }
    put(&mut b, 24, &entries.to_le_bytes());
    for key in keys {
        for bit in filter_bits(key) {
            if let Some(byte) = b.get_mut(FILTER.start + bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    seal_crc(&mut b, FOOTER - 4);
    b
}

/// Whether these bytes are the whole footer of the segment with this salt, ending at this position.
pub(crate) fn is_footer(b: &[u8], salt: u64, end: u64) -> bool {
    b.get(..FOOTER).is_some_and(|b| {
        b.starts_with(&FOOTER_MAGIC)
            && crc_holds(b, FOOTER - 4)
            && u64_at(b, 8) == Some(salt)
            && u64_at(b, 16) == Some(end)
    })
}

fn filter_bits(key: u128) -> [usize; 2] {
    let bits = (FILTER.end - FILTER.start) as u128 * 8;
    [(key % bits) as usize, ((key >> 64) % bits) as usize]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_checksum_is_crc32c_as_in_rfc_3720() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8A91_36AA);
    }

    fn block(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_HEADER];
        let mut checksum = 0;
        for payload in payloads {
            let append = Append {
                kind: 7,
                received_unix_micros: -5,
                key: Some(Key { hash: 1 << 100, checksum: 9, note: 11 }),
                counters: [1, 2, 3, 4],
                payload: Bytes::copy_from_slice(payload),
            };
            checksum = push_record(&mut bytes, &append, checksum);
        }
        let header = BlockHeader {
            salt: 3,
            lsn: 8192,
            first_sequence: 5,
            durable: 4096,
            totals: [1, 2, 3, 4],
            body_len: u32::try_from(bytes.len() - BLOCK_HEADER).unwrap(),
            records: u32::try_from(payloads.len()).unwrap(),
            previous_checksum: 77,
            records_checksum: checksum,
            checksum: 0,
        };
        header.encode(&mut bytes);
        bytes.resize(usize::try_from(header.len()).unwrap(), 0);
        bytes
    }

    #[test]
    fn a_block_decodes_to_what_was_encoded() {
        let bytes = block(&[b"one", b"", b"three and more"]);
        let header = BlockHeader::decode(&bytes).unwrap();
        assert_eq!((header.lsn, header.durable, header.previous_checksum), (8192, 4096, 77));
        let found = check_body(&header, &bytes).unwrap();
        let payloads: Vec<_> = found.iter().map(|f| bytes.get(f.payload()).unwrap()).collect();
        assert_eq!(payloads, [&b"one"[..], b"", b"three and more"]);
        assert_eq!(found[0].header.key.unwrap().hash, 1 << 100);
        assert_eq!(found[0].header.received_unix_micros, -5);
    }

    #[test]
    fn every_flipped_bit_that_counts_is_noticed() {
        let whole = block(&[b"payload!", b"12345678"]);
        let used = BLOCK_HEADER + BlockHeader::decode(&whole).unwrap().body_len as usize;
        for at in 0..used {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let sound =
                    BlockHeader::decode(&bytes).is_some_and(|h| check_body(&h, &bytes).is_ok());
                assert!(!sound, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn the_layout_of_a_segment_header_is_pinned() {
        let header = SegmentHeader {
            uuid: uuid::Uuid::from_u128(1),
            number: 2,
            base: 3,
            previous_end: 3,
            salt: 4,
            previous_checksum: 5,
            durable: 6,
            totals: [7, 8, 9, 10],
            sequence: 11,
            created_unix_micros: 12,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), header);
        assert_eq!(u32_at(&bytes, 4092).unwrap(), crc32c::crc32c(&bytes[..4092]));
        assert_eq!(
            crc32c::crc32c(&bytes),
            0x48674BC7,
            "the residue of any CRC32C-sealed structure"
        );
    }
}
