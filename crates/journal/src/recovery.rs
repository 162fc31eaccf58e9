//! What a restart finds, and what it does about it. The decision is a table, pure; the rest carries it out.
//!
//! Recovery walks the segments in order. Each walk ends at X, the end of the last block that holds. What follows X
//! decides:
//!
//! | row | the next segment file      | highest durable LSN stated later | verdict                       |
//! |-----|----------------------------|----------------------------------|-------------------------------|
//! | 1   | continues at X             | any                              | go on                         |
//! | 2   | none                       | none                             | end; what is left is torn     |
//! | 3   | none                       | ≤ X                              | end; later blocks are holes   |
//! | 4   | none                       | > X                              | corrupt in the middle         |
//! | 5   | begins after X             | none or ≤ X                      | end; later segments are holes |
//! | 6   | begins after X             | > X                              | corrupt: a range is missing   |
//! | 7   | begins before X            | any                              | corrupt: segments overlap     |
//! | 8   | header rotten              | none or ≤ X                      | end; the file was never used  |
//! | 9   | header rotten              | > X                              | corrupt: a header is rotten   |
//!
//! "Stated later" looks at the sound block headers after X in the same file, at all later segments, and at the
//! checkpoint: a checkpoint beyond X proves that data were lost. A hole was never acknowledged, because an
//! acknowledgement waits for everything before it.
//!
//! What is kept beyond the highest durable LSN is written again and synced before it counts: after a failed sync the
//! kernel shows pages that never reached the device, and calls them clean.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open, read_full};
use crate::error::{Corruption, OpenError};
use crate::format::{SegmentHeader, Totals};
use crate::scan::{BlockView, Scanned, evidence_without_header, offset, read_header, scan};
use crate::{Lsn, Torn};

/// What follows X by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    None,
    Continues,
    After,
    Before,
    Rotten,
}

/// What later blocks, segments and the checkpoint state, relative to X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stated {
    None,
    AtMost,
    Above,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// The log ends at X; everything after it is dropped.
    End,
    Corrupt(&'static str),
}

pub(crate) struct Row {
    pub next: Next,
    pub stated: &'static [Stated],
    pub verdict: Verdict,
}

const ANY: &[Stated] = &[Stated::None, Stated::AtMost, Stated::Above];
const NOT_ABOVE: &[Stated] = &[Stated::None, Stated::AtMost];

/// The table above, as data.
pub(crate) const TABLE: &[Row] = &[
    Row { next: Next::Continues, stated: ANY, verdict: Verdict::GoOn },
    Row { next: Next::None, stated: &[Stated::None], verdict: Verdict::End },
    Row { next: Next::None, stated: &[Stated::AtMost], verdict: Verdict::End },
    Row {
        next: Next::None,
        stated: &[Stated::Above],
        verdict: Verdict::Corrupt("acknowledged data are damaged"),
    },
    Row { next: Next::After, stated: NOT_ABOVE, verdict: Verdict::End },
    Row {
        next: Next::After,
        stated: &[Stated::Above],
        verdict: Verdict::Corrupt("acknowledged data are missing"),
    },
    Row {
        next: Next::Before,
        stated: ANY,
        verdict: Verdict::Corrupt("two segments hold the same range"),
    },
    Row { next: Next::Rotten, stated: NOT_ABOVE, verdict: Verdict::End },
    Row {
        next: Next::Rotten,
        stated: &[Stated::Above],
        verdict: Verdict::Corrupt("a segment's header is rotten"),
    },
];

pub(crate) fn decide(next: Next, stated: Stated) -> Verdict {
    let row = TABLE.iter().find(|row| row.next == next && row.stated.contains(&stated));
    row.map_or(Verdict::Corrupt("no row of the decision table"), |row| row.verdict)
}

/// A segment file and its header, if that is sound.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub path: PathBuf,
    /// The base that the name states.
    pub base: u64,
    pub header: Option<SegmentHeader>,
    pub file: Arc<dyn DiskFile>,
    pub len: u64,
}

/// A segment that is part of the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub header: SegmentHeader,
    /// The end of its last block.
    pub end: u64,
    /// Bytes of the file.
    pub file_len: u64,
    pub index: Vec<u64>,
}

/// The log as found.
#[derive(Debug)]
pub(crate) struct Found {
    pub segments: Vec<(Segment, Scanned)>,
    /// Files after the end, to be removed.
    pub dropped: Vec<Candidate>,
    pub torn: Option<Torn>,
}

pub(crate) fn segment_name(base: u64) -> String {
    format!("seg-{base:016x}.log")
}

pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let hex = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None }
}

/// Opens every segment file of a directory, in order of base.
pub(crate) fn candidates(disk: &dyn Disk, dir: &Path) -> Result<Vec<Candidate>, OpenError> {
    let mut all = Vec::new();
    for entry in disk.read_dir(dir).map_err(OpenError::io("listing", dir))? {
        let Some(base) = parse_segment_name(&entry.name) else {
            continue;
        };
        let path = dir.join(&entry.name);
        let file = disk.open(&path, Open::Read).map_err(OpenError::io("opening", &path))?;
        let header = read_header(&*file).map_err(OpenError::io("reading", &path))?;
        all.push(Candidate { path, base, header, file, len: entry.len });
    }
    Ok(all)
}

/// Walks the candidates and applies the table. Changes nothing on disk.
pub(crate) fn examine(
    candidates: Vec<Candidate>,
    checkpoint: Option<u64>,
    visit: &mut dyn FnMut(BlockView<'_>),
) -> Result<Found, OpenError> {
    for c in &candidates {
        if c.header.as_ref().is_some_and(|header| header.base != c.base) {
            return Err(corrupt(c.base, None, &c.path, "a segment's name and header disagree"));
        }
    }
    let mut found = Found { segments: Vec::new(), dropped: Vec::new(), torn: None };
    let mut rest = candidates.into_iter().peekable();
    while let Some(candidate) = rest.next() {
        let Some(header) = candidate.header.clone() else {
            // Only the first file gets here: a rotten one further on ends the walk before it. A journal that was ever
            // trimmed has a sound header, so a rotten one that does not begin at zero is no torn birth.
            let stated = stated_by(std::slice::from_ref(&candidate))?.max(checkpoint);
            let above = relative(stated, candidate.base) == Stated::Above;
            if above || candidate.base > 0 || rest.peek().is_some() {
                let next = rest.peek().map(|c| c.base);
                return Err(corrupt(
                    candidate.base,
                    next,
                    &candidate.path,
                    "a segment's header is rotten",
                ));
            }
            found.dropped.push(candidate);
            return Ok(found);
        };
        let reading = OpenError::io("reading", &candidate.path);
        let scanned = scan(&*candidate.file, &header, visit).map_err(reading)?;
        let x = scanned.end;
        let next = match rest.peek() {
            None => Next::None,
            Some(c) => match &c.header {
                None => Next::Rotten,
                Some(h) if h.previous_end == x => Next::Continues,
                Some(h) if h.base < x => Next::Before,
                Some(_) => Next::After,
            },
        };
        let verdict = if next == Next::Continues {
            Verdict::GoOn
        } else {
            let later: Vec<Candidate> = rest.by_ref().collect();
            let stated = stated_by(&later)?.max(scanned.later.map(|l| l.durable)).max(checkpoint);
            let verdict = decide(next, relative(stated, x));
            if let Verdict::Corrupt(reason) = verdict {
                let next = scanned
                    .later
                    .map(|l| l.first)
                    .or(later.first().map(|c| c.base))
                    .filter(|n| *n >= x);
                return Err(corrupt(x, next, &candidate.path, reason));
            }
            found.dropped = later;
            verdict
        };
        if verdict == Verdict::End && (scanned.garbage > 0 || !found.dropped.is_empty()) {
            let files: u64 = found.dropped.iter().map(|c| c.len).sum();
            found.torn = Some(Torn { at: Lsn(x), bytes: scanned.garbage + files });
        }
        let segment = Segment {
            path: candidate.path,
            end: x,
            file_len: candidate.len,
            index: scanned.index.clone(),
            header,
        };
        found.segments.push((segment, scanned));
    }
    Ok(found)
}

fn corrupt(at: u64, next: Option<u64>, path: &Path, reason: &'static str) -> OpenError {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    OpenError::Corrupt(Corruption { at: Lsn(at), next: next.map(Lsn), file, reason })
}

fn relative(stated: Option<u64>, x: u64) -> Stated {
    match stated {
        None => Stated::None,
        Some(durable) if durable <= x => Stated::AtMost,
        Some(_) => Stated::Above,
    }
}

/// The highest durable LSN that segments state, in their headers or their blocks.
fn stated_by(candidates: &[Candidate]) -> Result<Option<u64>, OpenError> {
    let mut stated = None;
    for c in candidates {
        let reading = OpenError::io("reading", &c.path);
        let blocks = evidence_without_header(&*c.file, c.base).map_err(reading)?;
        stated = stated.max(blocks).max(c.header.as_ref().map(|h| h.durable));
    }
    Ok(stated)
}

/// Carries out the end of the log: cuts the torn tail, removes what was never used, and makes what is kept durable.
pub(crate) fn settle(disk: &dyn Disk, dir: &Path, found: &mut Found) -> Result<(), OpenError> {
    // Newest first and each one synced, so that a crash in between leaves no hole.
    for candidate in found.dropped.drain(..).rev() {
        disk.remove_file(&candidate.path).map_err(OpenError::io("removing", &candidate.path))?;
        disk.sync_dir(dir).map_err(OpenError::io("syncing", dir))?;
    }
    let durable = found.segments.iter().map(|(_, s)| s.durable).max().unwrap_or(0);
    let last = found.segments.len().saturating_sub(1);
    for (i, (segment, scanned)) in found.segments.iter_mut().enumerate() {
        if segment.end <= durable && (i != last || scanned.garbage == 0) {
            continue;
        }
        let cut = i == last && scanned.garbage > 0;
        let len = rewrite(disk, segment, durable, cut)
            .map_err(OpenError::io("settling", &segment.path))?;
        segment.file_len = len;
    }
    disk.sync_dir(dir).map_err(OpenError::io("syncing", dir))
}

/// Writes again what may only be in the page cache, and cuts the file at its end.
fn rewrite(disk: &dyn Disk, segment: &Segment, durable: u64, cut: bool) -> io::Result<u64> {
    let file = disk.open(&segment.path, Open::Write)?;
    let base = segment.header.base;
    let end = offset(base, segment.end);
    let mut at = offset(base, durable.max(base));
    let mut buf = vec![0; 1 << 20];
    if at == offset(base, base) {
        // The header may be as young as the first block.
        at = 0;
    }
    while at < end {
        let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..n).unwrap_or_default();
        if read_full(&*file, part, at)? < n {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(part, at)?;
        at += n as u64;
    }
    if cut && file.len()? > end {
        file.set_len(end)?;
    }
    file.sync_data()?;
    file.len()
}

/// What the writer needs to go on: position, chain, sequence and totals at the end of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    pub lsn: u64,
    /// Where the segment before the next one ends; not `lsn` if the last segment is empty and follows a hole.
    pub previous_end: u64,
    pub last_record_end: u64,
    pub last_checksum: u32,
    pub sequence: u64,
    pub totals: Totals,
    pub next_number: u64,
    pub ends_empty: bool,
}

impl Found {
    pub(crate) fn tail(&self) -> Tail {
        let Some((segment, scanned)) = self.segments.last() else {
            return Tail { ends_empty: true, ..Tail::default() };
        };
        let first = self.segments.first().map_or(0, |(s, _)| s.header.base);
        Tail {
            lsn: scanned.end,
            previous_end: if scanned.blocks == 0 {
                segment.header.previous_end
            } else {
                scanned.end
            },
            last_record_end: self
                .segments
                .iter()
                .rev()
                .find_map(|(_, s)| s.last_record_end)
                .unwrap_or(first),
            last_checksum: scanned.last_checksum,
            sequence: scanned.sequence,
            totals: scanned.totals,
            next_number: segment.header.number + 1,
            ends_empty: scanned.ends_empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_exactly_one_row() {
        for next in [Next::None, Next::Continues, Next::After, Next::Before, Next::Rotten] {
            for stated in ANY {
                let rows = TABLE
                    .iter()
                    .filter(|row| row.next == next && row.stated.contains(stated))
                    .count();
                assert_eq!(rows, 1, "{next:?} {stated:?}");
            }
        }
    }

    #[test]
    fn nothing_acknowledged_is_ever_cut() {
        for next in [Next::None, Next::After, Next::Before, Next::Rotten] {
            assert!(matches!(decide(next, Stated::Above), Verdict::Corrupt(_)), "F1 {next:?}");
        }
    }
}
