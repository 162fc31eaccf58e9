//! The writer's core: batches into blocks, blocks into segments. Synchronous; owns the open segment and the tail.
//!
//! One block is in flight at a time, so everything before a block is durable when it is written, and its header says
//! so. A segment becomes visible by rename only when its header is durable; a block is acknowledged only after both
//! its segment's directory entry and its own bytes are synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::Append;
use crate::disk::{Disk, DiskFile, Open, is_no_space};
use crate::format::{
    BLOCK_HEADER, BlockHeader, SEGMENT_HEADER, SegmentHeader, Totals, align_block, encode_footer,
    push_record, record_len,
};
use crate::recovery::{Segment, Tail, segment_name};
use crate::scan::{INDEX_STEP, offset};

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No room; the file is as it was before.
    NoSpace(io::Error),
    /// Anything else: what is durable is unknown.
    Broken(io::Error),
}

/// A durable block.
#[derive(Debug)]
pub(crate) struct Written {
    pub lsn: u64,
    pub end: u64,
    pub block: Bytes,
    /// Start and end of each record, in order of the batch.
    pub places: Vec<(u64, u64)>,
    pub totals: Totals,
    /// The segment that was begun for it.
    pub begun: Option<Segment>,
    /// Bytes of the segment file now.
    pub file_len: u64,
    /// Whether the block's position belongs into the sparse index.
    pub indexed: bool,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    capacity: u64,
    index: Vec<u64>,
    keys: Vec<u128>,
}

/// Where and how segments are made.
#[derive(Debug)]
pub(crate) struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub uuid: uuid::Uuid,
    pub segment_min: u64,
    pub segment_max: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    place: Place,
    tail: Tail,
    active: Option<Active>,
    next_size: u64,
    /// A segment that was begun and is not published yet: its first block may meet a full disk.
    begun: Option<Segment>,
    rng: fastrand::Rng,
}

impl Writer {
    pub(crate) fn new(place: Place, tail: Tail) -> Self {
        let seed = place.uuid.as_u64_pair();
        let rng = fastrand::Rng::with_seed(
            seed.0 ^ seed.1.rotate_left(17) ^ tail.lsn ^ tail.next_number << 48,
        );
        Self { next_size: place.segment_min, place, tail, active: None, begun: None, rng }
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Bytes that a batch takes as a block.
    fn block_len<'a>(batch: impl Iterator<Item = &'a Append>) -> u64 {
        align_block(BLOCK_HEADER as u64 + batch.map(|a| record_len(a.payload.len())).sum::<u64>())
    }

    /// Writes a batch as one block and syncs it. An empty batch gives the empty block.
    pub(crate) fn commit<'a>(
        &mut self,
        batch: impl Iterator<Item = &'a Append> + Clone,
        now: i64,
    ) -> Result<Written, Failure> {
        let len = Self::block_len(batch.clone());
        self.make_room(len, now)?;
        let Some(active) = &mut self.active else {
            return Err(Failure::Broken(io::Error::other("no open segment")));
        };
        let built = build(&self.tail, active.header.salt, len, batch.clone());
        let at = offset(active.header.base, self.tail.lsn);
        write_block(&*active.file, &built.block, at)?;
        active.file.sync_data().map_err(Failure::Broken)?;

        let lsn = self.tail.lsn;
        let indexed = active.index.last().is_none_or(|last| lsn >= last + INDEX_STEP);
        if indexed {
            active.index.push(lsn);
        }
        active.keys.extend(batch.filter_map(|a| a.key.map(|key| key.hash)));
        let end = lsn + len;
        self.tail.lsn = end;
        self.tail.previous_end = end;
        self.tail.last_checksum = built.checksum;
        self.tail.sequence += built.places.len() as u64;
        self.tail.totals = built.totals;
        self.tail.ends_empty = built.places.is_empty();
        self.tail.last_record_end =
            built.places.last().map_or(self.tail.last_record_end, |(_, end)| *end);
        Ok(Written {
            lsn,
            end,
            block: built.block,
            places: built.places,
            totals: built.totals,
            begun: self.begun.take(),
            file_len: at + len,
            indexed,
        })
    }

    /// Sees to it that the open segment has room for a block.
    fn make_room(&mut self, len: u64, now: i64) -> Result<(), Failure> {
        let base = self.active.as_ref().map(|active| active.header.base);
        let fits =
            |active: &Active| offset(active.header.base, self.tail.lsn) + len <= active.capacity;
        if self.active.as_ref().is_some_and(fits) || base == Some(self.tail.lsn) {
            return Ok(());
        }
        let capacity = self.next_size.max(SEGMENT_HEADER as u64 + len);
        let header = SegmentHeader {
            uuid: self.place.uuid,
            number: self.tail.next_number,
            base: self.tail.lsn,
            previous_end: self.tail.previous_end,
            salt: self.rng.u64(1..),
            previous_checksum: self.tail.last_checksum,
            durable: self.tail.lsn,
            totals: self.tail.totals,
            sequence: self.tail.sequence,
            created_unix_micros: now,
        };
        let (path, file) = begin(&*self.place.disk, &self.place.dir, &header)?;
        if let Some(old) = self.active.take() {
            seal(&old, self.tail.lsn)?;
        }
        self.begun = Some(Segment {
            path,
            end: header.base,
            file_len: SEGMENT_HEADER as u64,
            index: Vec::new(),
            header: header.clone(),
        });
        self.active = Some(Active { file, header, capacity, index: Vec::new(), keys: Vec::new() });
        self.tail.next_number += 1;
        self.next_size = (self.next_size * 2).min(self.place.segment_max);
        Ok(())
    }

    /// Lets go of the open file. The next commit would begin a new segment.
    pub(crate) fn close(&mut self) {
        self.active = None;
    }
}

struct Built {
    block: Bytes,
    places: Vec<(u64, u64)>,
    totals: Totals,
    checksum: u32,
}

fn build<'a>(tail: &Tail, salt: u64, len: u64, batch: impl Iterator<Item = &'a Append>) -> Built {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut block = Vec::with_capacity(len);
    block.resize(BLOCK_HEADER, 0);
    let (mut places, mut totals, mut records_checksum) = (Vec::new(), tail.totals, 0);
    for append in batch {
        let start = tail.lsn + block.len() as u64;
        records_checksum = push_record(&mut block, append, records_checksum);
        places.push((start, tail.lsn + block.len() as u64));
        for (total, more) in totals.iter_mut().zip(append.counters) {
            *total = total.wrapping_add(u64::from(more));
        }
    }
    let header = BlockHeader {
        salt,
        lsn: tail.lsn,
        first_sequence: tail.sequence,
        durable: tail.lsn,
        totals,
        body_len: u32::try_from(block.len() - BLOCK_HEADER).unwrap_or(u32::MAX),
        records: u32::try_from(places.len()).unwrap_or(u32::MAX),
        previous_checksum: tail.last_checksum,
        records_checksum,
        checksum: 0,
    };
    let checksum = header.encode(&mut block);
    block.resize(len, 0);
    Built { block: Bytes::from(block), places, totals, checksum }
}

/// Writes a block; without room for it, cuts the file back to where it was.
fn write_block(file: &dyn DiskFile, block: &[u8], at: u64) -> Result<(), Failure> {
    match file.write_all_at(block, at) {
        Ok(()) => Ok(()),
        Err(e) if is_no_space(&e) => match file.set_len(at).and_then(|()| file.sync_data()) {
            Ok(()) => Err(Failure::NoSpace(e)),
            Err(worse) => Err(Failure::Broken(worse)),
        },
        Err(e) => Err(Failure::Broken(e)),
    }
}

/// Makes a segment file with a durable header under a durable name.
fn begin(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
) -> Result<(PathBuf, Arc<dyn DiskFile>), Failure> {
    let path = dir.join(segment_name(header.base));
    let tmp = path.with_extension("tmp");
    let made = disk.open(&tmp, Open::CreateOrTruncate).and_then(|file| {
        file.write_all_at(&header.encode(), 0)?;
        Ok(file)
    });
    let file = match made {
        Ok(file) => file,
        Err(e) if is_no_space(&e) => {
            drop(disk.remove_file(&tmp));
            return Err(Failure::NoSpace(e));
        }
        Err(e) => return Err(Failure::Broken(e)),
    };
    file.sync_data().map_err(Failure::Broken)?;
    disk.rename(&tmp, &path).map_err(Failure::Broken)?;
    disk.sync_dir(dir).map_err(Failure::Broken)?;
    Ok((path, file))
}

/// Writes the footer after the last block. It is a hint, so it is not synced, and does without room.
fn seal(active: &Active, end: u64) -> Result<(), Failure> {
    let footer = encode_footer(active.header.salt, end, &active.index, active.keys.iter().copied());
    match active.file.write_all_at(&footer, offset(active.header.base, end)) {
        Err(e) if !is_no_space(&e) => Err(Failure::Broken(e)),
        _ => Ok(()),
    }
}
