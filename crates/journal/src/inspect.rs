//! `forebay journal verify`, `cat` and `repair`: looks at a journal's files without opening it for work.
//!
//! A repair never deletes: what it takes out goes to the quarantine first. Of a hole it makes a step: the segment
//! after it says where the one before it ends, so that recovery goes on there.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::checkpoint;
use crate::disk::{Disk, DiskFile, Open, read_full};
use crate::error::{Corruption, OpenError};
use crate::format::{BlockHeader, SEGMENT_HEADER, SegmentHeader, align_block};
use crate::recovery::{self, Candidate, segment_name};
use crate::scan::{offset, scan};
use crate::{Checkpoint, Lsn, Record, Torn};

/// One segment file as found.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// File name.
    pub file: String,
    /// Base position by its name.
    pub base: Lsn,
    /// The end of the blocks that hold; none if the header does not.
    pub end: Option<Lsn>,
    /// Blocks that hold.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
}

/// What a journal's files are like.
#[derive(Clone, Debug)]
pub struct Report {
    /// The journal's identity, if any file tells.
    pub uuid: Option<uuid::Uuid>,
    /// The segments, in order.
    pub segments: Vec<SegmentReport>,
    /// The youngest checkpoint that holds.
    pub checkpoint: Option<Checkpoint>,
    /// A tail that opening would cut; it was never acknowledged.
    pub torn: Option<Torn>,
    /// Damage that keeps the journal from opening.
    pub corruption: Option<Corruption>,
}

/// A range taken out by a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first position lost.
    pub from: Lsn,
    /// The first position after it that is readable, or where the log begins anew.
    pub to: Lsn,
    /// Where the damaged bytes are now, if there were any.
    pub quarantined: Option<PathBuf>,
}

/// Reads a whole journal and says how it is. Changes nothing; the journal should not be open.
///
/// # Errors
/// What the disk says.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Report, OpenError> {
    let read =
        checkpoint::read(disk, dir).map_err(OpenError::io("reading the checkpoint in", dir))?;
    let candidates = recovery::candidates(disk, dir)?;
    let known = candidates.iter().find_map(|c| c.header.as_ref().map(|header| header.uuid));
    let mut segments = Vec::new();
    for c in &candidates {
        let scanned = match &c.header {
            Some(header) => Some(
                scan(&*c.file, header, &mut |_| {}).map_err(OpenError::io("reading", &c.path))?,
            ),
            None => None,
        };
        segments.push(SegmentReport {
            file: file_name(&c.path),
            base: Lsn(c.base),
            end: scanned.as_ref().map(|s| Lsn(s.end)),
            blocks: scanned.as_ref().map_or(0, |s| s.blocks),
            records: scanned.as_ref().map_or(0, |s| s.records),
        });
    }
    let stated = read.checkpoint.as_ref().and_then(Checkpoint::highest).map(|lsn| lsn.0);
    let (torn, corruption) = match recovery::examine(candidates, stated, &mut |_| {}) {
        Ok(found) => {
            let front = crate::open::check_front(&found, &read, dir);
            (found.torn, front.err().and_then(corruption_of))
        }
        Err(OpenError::Corrupt(corruption)) => (None, Some(corruption)),
        Err(e) => return Err(e),
    };
    Ok(Report {
        uuid: read.uuid.or(known),
        segments,
        checkpoint: read.checkpoint,
        torn,
        corruption,
    })
}

fn corruption_of(e: OpenError) -> Option<Corruption> {
    if let OpenError::Corrupt(corruption) = e { Some(corruption) } else { None }
}

/// Calls `each` with every readable record that starts at `from` or later, in order, across damage.
///
/// # Errors
/// What the disk says, or what `each` returns.
pub fn cat(
    disk: &dyn Disk,
    dir: &Path,
    from: Lsn,
    each: &mut dyn FnMut(Record) -> io::Result<()>,
) -> Result<(), OpenError> {
    for c in recovery::candidates(disk, dir)? {
        let Some(header) = &c.header else { continue };
        let mut result = Ok(());
        let scanned = scan(&*c.file, header, &mut |block| {
            for found in block.records {
                let start = Lsn(block.header.lsn + found.at as u64);
                if start < from || result.is_err() {
                    continue;
                }
                result = each(Record {
                    start,
                    end: Lsn(block.header.lsn + found.end as u64),
                    kind: found.header.kind,
                    received_unix_micros: found.header.received_unix_micros,
                    key_hash: found.header.key.map(|key| key.hash),
                    counters: found.header.counters,
                    payload: Bytes::copy_from_slice(
                        block.bytes.get(found.payload()).unwrap_or_default(),
                    ),
                });
            }
        });
        scanned.and(result).map_err(OpenError::io("reading", &c.path))?;
    }
    Ok(())
}

/// Takes damaged ranges out of a journal until it opens, and says exactly what was lost. Copies go to `quarantine`.
/// Holds the journal's lock.
///
/// # Errors
/// [`OpenError::Locked`] while the journal is open; [`OpenError::Corrupt`] for damage that no repair bridges.
pub fn repair(disk: &dyn Disk, dir: &Path, quarantine: &Path) -> Result<Vec<Lost>, OpenError> {
    let lock_path = dir.join("LOCK");
    let _lock = disk.lock(&lock_path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(lock_path.clone()),
        _ => OpenError::io("locking", &lock_path)(e),
    })?;
    disk.create_dir_all(quarantine).map_err(OpenError::io("creating", quarantine))?;
    let mut lost = Vec::new();
    loop {
        let read =
            checkpoint::read(disk, dir).map_err(OpenError::io("reading the checkpoint in", dir))?;
        let stated = read.checkpoint.as_ref().and_then(Checkpoint::highest).map(|lsn| lsn.0);
        let candidates = recovery::candidates(disk, dir)?;
        let known = read.uuid.or(candidates.iter().find_map(|c| c.header.as_ref().map(|h| h.uuid)));
        let Some(uuid) = known else { return Ok(lost) };
        let files = candidates.len();
        let mut patient = Patient { disk, dir, quarantine, uuid, stated, files: VecDeque::new() };
        let corruption = match recovery::examine(candidates, stated, &mut |_| {}) {
            Ok(_) => return Ok(lost),
            Err(OpenError::Corrupt(corruption)) => corruption,
            Err(e) => return Err(e),
        };
        patient.files = recovery::candidates(disk, dir)?.into();
        // Each round moves the first damage up by a block or takes a file away; the bound is for our own mistakes.
        if lost.len() > files * (1 << 16) {
            return Err(OpenError::Corrupt(corruption));
        }
        lost.push(patient.treat(corruption)?);
    }
}

struct Patient<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    quarantine: &'a Path,
    uuid: uuid::Uuid,
    stated: Option<u64>,
    files: VecDeque<Candidate>,
}

impl Patient<'_> {
    fn treat(&self, corruption: Corruption) -> Result<Lost, OpenError> {
        let named = self.files.iter().position(|c| file_name(&c.path) == corruption.file);
        let Some((i, sick)) = named.and_then(|i| self.files.get(i).map(|c| (i, c))) else {
            return Err(OpenError::Corrupt(corruption));
        };
        let x = corruption.at.0;
        let next = self.files.get(i + 1);
        let rotten_or_foreign =
            |c: &Candidate| c.header.as_ref().is_none_or(|h| h.base < x || h.base != c.base);
        let done = if rotten_or_foreign(sick) && sick.header.is_none() {
            self.move_away(sick, next.map_or(x, |c| c.base))
        } else if let Some(next) = next.filter(|next| rotten_or_foreign(next)) {
            self.move_away(next, x)
        } else {
            let y = corruption.next.map(|lsn| lsn.0).or(self.stated.map(align_block));
            let Some(y) = y.filter(|y| *y > x) else {
                return Err(OpenError::Corrupt(corruption));
            };
            self.bridge(sick, next, x, y)
        };
        done.map_err(OpenError::io("repairing", &sick.path))
    }

    /// Moves a whole file into the quarantine.
    fn move_away(&self, sick: &Candidate, to: u64) -> io::Result<Lost> {
        let target = self.quarantine.join(file_name(&sick.path));
        copy(self.disk, &*sick.file, 0, sick.len, &target)?;
        self.disk.sync_dir(self.quarantine)?;
        self.disk.remove_file(&sick.path)?;
        self.disk.sync_dir(self.dir)?;
        let (from, to) = (sick.base.min(to), sick.base.max(to));
        Ok(Lost { from: Lsn(from), to: Lsn(to), quarantined: Some(target) })
    }

    /// Cuts `[x, y)` out: copies it away, lets a segment begin at `y` that follows `x`, then cuts the sick file.
    fn bridge(
        &self,
        sick: &Candidate,
        next: Option<&Candidate>,
        x: u64,
        y: u64,
    ) -> io::Result<Lost> {
        let Some(header) = &sick.header else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (from, file_end) = (offset(header.base, x), sick.file.len()?);
        let bad_end = offset(header.base, y).min(file_end);
        let mut quarantined = None;
        if bad_end > from {
            let target = self.quarantine.join(format!("lsn-{x:016x}-{y:016x}"));
            copy(self.disk, &*sick.file, from, bad_end, &target)?;
            self.disk.sync_dir(self.quarantine)?;
            quarantined = Some(target);
        }
        match next.filter(|next| next.base == y) {
            Some(next) => self.begin_at(
                y,
                x,
                next.header.as_ref().unwrap_or(header),
                &*next.file,
                SEGMENT_HEADER as u64,
            )?,
            None => self.begin_at(y, x, header, &*sick.file, offset(header.base, y))?,
        }
        let file = self.disk.open(&sick.path, Open::Write)?;
        file.set_len(from)?;
        file.sync_data()?;
        Ok(Lost { from: Lsn(x), to: Lsn(y), quarantined })
    }

    /// Makes the segment that begins at `y`, follows `x`, and holds the blocks of `file` from an offset on.
    fn begin_at(
        &self,
        y: u64,
        x: u64,
        old: &SegmentHeader,
        file: &dyn DiskFile,
        from: u64,
    ) -> io::Result<()> {
        let mut page = vec![0; SEGMENT_HEADER];
        let n = read_full(file, &mut page, from)?;
        let first = page.get(..n).and_then(BlockHeader::decode).filter(|b| b.lsn == y);
        let header = SegmentHeader {
            uuid: self.uuid,
            base: y,
            previous_end: x,
            previous_checksum: first
                .as_ref()
                .map_or(old.previous_checksum, |b| b.previous_checksum),
            sequence: first.as_ref().map_or(old.sequence, |b| b.first_sequence),
            ..old.clone()
        };
        let path = self.dir.join(segment_name(y));
        let tmp = path.with_extension("tmp");
        let to = self.disk.open(&tmp, Open::CreateOrTruncate)?;
        to.write_all_at(&header.encode(), 0)?;
        copy_into(file, from, file.len()?, &*to, SEGMENT_HEADER as u64)?;
        to.sync_data()?;
        self.disk.rename(&tmp, &path)?;
        self.disk.sync_dir(self.dir)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn copy(disk: &dyn Disk, file: &dyn DiskFile, from: u64, to: u64, target: &Path) -> io::Result<()> {
    let out = disk.open(target, Open::CreateOrTruncate)?;
    copy_into(file, from, to, &*out, 0)?;
    out.sync_data()
}

fn copy_into(
    file: &dyn DiskFile,
    mut from: u64,
    to: u64,
    out: &dyn DiskFile,
    mut at: u64,
) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    while from < to {
        let n = usize::try_from(to - from).unwrap_or(usize::MAX).min(buf.len());
        let read = read_full(file, buf.get_mut(..n).unwrap_or_default(), from)?;
        if read == 0 {
            return Ok(());
        }
        out.write_all_at(buf.get(..read).unwrap_or_default(), at)?;
        from += read as u64;
        at += read as u64;
    }
    Ok(())
}
