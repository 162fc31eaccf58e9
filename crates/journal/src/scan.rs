//! Walks the blocks of one segment file, from the header to the first block that does not hold, and looks behind
//! that for evidence. Reads only; decides nothing.

use std::io;

use crate::disk::{DiskFile, read_full};
use crate::format::{
    BLOCK_ALIGN, BlockHeader, FOOTER, Found, SEGMENT_HEADER, SegmentHeader, Totals, align_block,
    check_body, is_footer,
};

/// The positions of blocks are remembered at about this distance.
pub(crate) const INDEX_STEP: u64 = 256 << 10;

/// What a walk found.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    /// The end of the last block that holds: X.
    pub end: u64,
    pub last_checksum: u32,
    /// Sequence number of the next record.
    pub sequence: u64,
    pub totals: Totals,
    /// End of the last record, if there is one.
    pub last_record_end: Option<u64>,
    /// The highest durable LSN that a sound block states.
    pub durable: u64,
    /// Whether the last sound block is empty.
    pub ends_empty: bool,
    /// Positions of some blocks, about one per [`INDEX_STEP`].
    pub index: Vec<u64>,
    pub blocks: u64,
    pub records: u64,
    /// Bytes after X that are not zero and not the footer; counted to the last one of them.
    pub garbage: u64,
    pub later: Option<Later>,
}

/// Sound block headers after X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Later {
    /// Position of the first.
    pub first: u64,
    /// The highest durable LSN among them.
    pub durable: u64,
}

pub(crate) struct BlockView<'a> {
    pub header: &'a BlockHeader,
    pub bytes: &'a [u8],
    pub records: &'a [Found],
}

/// Why a block does not hold.
pub(crate) type Unsound = &'static str;

/// Reads the header of a segment file.
pub(crate) fn read_header(file: &dyn DiskFile) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = vec![0; SEGMENT_HEADER];
    let n = read_full(file, &mut bytes, 0)?;
    Ok(if n == SEGMENT_HEADER { SegmentHeader::decode(&bytes) } else { None })
}

pub(crate) fn offset(base: u64, lsn: u64) -> u64 {
    SEGMENT_HEADER as u64 + (lsn - base)
}

/// Reads the block at `lsn` into `buf` and checks it, all but the chain.
pub(crate) fn read_block(
    file: &dyn DiskFile,
    segment: &SegmentHeader,
    lsn: u64,
    buf: &mut Vec<u8>,
) -> io::Result<Result<(BlockHeader, Vec<Found>), Unsound>> {
    let at = offset(segment.base, lsn);
    buf.resize(BLOCK_ALIGN as usize, 0);
    if read_full(file, buf, at)? < buf.len() {
        return Ok(Err("the file ends"));
    }
    let Some(header) = BlockHeader::decode(buf) else {
        return Ok(Err("the block's header is rotten"));
    };
    if header.salt != segment.salt || header.lsn != lsn {
        return Ok(Err("the block is stale"));
    }
    let len = header.len() as usize;
    if len > buf.len() {
        let have = buf.len();
        buf.resize(len, 0);
        let rest = buf.get_mut(have..).unwrap_or_default();
        if read_full(file, rest, at + have as u64)? < len - have {
            return Ok(Err("the block is cut"));
        }
    }
    Ok(check_body(&header, buf).map(|found| (header, found)))
}

/// Walks a segment; `visit` sees each block that holds.
pub(crate) fn scan(
    file: &dyn DiskFile,
    segment: &SegmentHeader,
    visit: &mut dyn FnMut(BlockView<'_>),
) -> io::Result<Scanned> {
    let mut s = Scanned {
        end: segment.base,
        last_checksum: segment.previous_checksum,
        sequence: segment.sequence,
        totals: segment.totals,
        last_record_end: None,
        durable: segment.durable,
        ends_empty: true,
        index: Vec::new(),
        blocks: 0,
        records: 0,
        garbage: 0,
        later: None,
    };
    let mut buf = Vec::new();
    while let Ok((header, records)) = read_block(file, segment, s.end, &mut buf)? {
        if header.previous_checksum != s.last_checksum {
            break;
        }
        if s.index.last().is_none_or(|last| header.lsn >= last + INDEX_STEP) {
            s.index.push(header.lsn);
        }
        if let Some(last) = records.last() {
            s.last_record_end = Some(header.lsn + last.end as u64);
        }
        visit(BlockView { header: &header, bytes: &buf, records: &records });
        s.end = header.end();
        s.last_checksum = header.checksum;
        s.sequence = header.first_sequence + u64::from(header.records);
        s.totals = header.totals;
        s.durable = s.durable.max(header.durable);
        s.ends_empty = header.records == 0;
        s.blocks += 1;
        s.records += u64::from(header.records);
    }
    look_behind(file, segment, &mut s)?;
    Ok(s)
}

/// Looks at everything after X for sound block headers and for bytes that are not zero.
fn look_behind(file: &dyn DiskFile, segment: &SegmentHeader, s: &mut Scanned) -> io::Result<()> {
    let mut from = offset(segment.base, s.end);
    let mut buf = vec![0; BLOCK_ALIGN as usize];
    let n = read_full(file, &mut buf, from)?;
    if n == FOOTER && is_footer(&buf, segment.salt, s.end) {
        from += FOOTER as u64;
    }
    let start = from;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = read_full(file, &mut chunk, from)?;
        let Some(read) = chunk.get(..n).filter(|read| !read.is_empty()) else {
            return Ok(());
        };
        for (i, page) in read.chunks(BLOCK_ALIGN as usize).enumerate() {
            let at = from + i as u64 * BLOCK_ALIGN;
            if let Some(last) = page.iter().rposition(|byte| *byte != 0) {
                s.garbage = at + last as u64 + 1 - start;
                let lsn = segment.base + at - SEGMENT_HEADER as u64;
                note_later(s, segment, lsn, page);
            }
        }
        from += n as u64;
    }
}

fn note_later(s: &mut Scanned, segment: &SegmentHeader, lsn: u64, page: &[u8]) {
    let sound = BlockHeader::decode(page).filter(|h| h.salt == segment.salt && h.lsn == lsn);
    // The block at X itself may have a sound header over a rotten body; it is what is missing.
    if let Some(header) = sound.filter(|header| header.lsn > s.end) {
        let later = s.later.get_or_insert(Later { first: lsn, durable: 0 });
        later.durable = later.durable.max(header.durable);
    }
}

/// The highest durable LSN that any sound block header of a file states, whatever its salt: evidence from a segment
/// whose own header is rotten.
pub(crate) fn evidence_without_header(file: &dyn DiskFile, base: u64) -> io::Result<Option<u64>> {
    let mut durable = None;
    let mut from = SEGMENT_HEADER as u64;
    let mut page = vec![0; BLOCK_ALIGN as usize];
    while read_full(file, &mut page, from)? == page.len() {
        let lsn = base + from - SEGMENT_HEADER as u64;
        if let Some(header) = BlockHeader::decode(&page).filter(|h| h.lsn == lsn) {
            durable = durable.max(Some(header.durable));
            from += align_block(header.len());
        } else {
            from += BLOCK_ALIGN;
        }
    }
    Ok(durable)
}
