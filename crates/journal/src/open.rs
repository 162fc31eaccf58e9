//! Opening: reads what is on disk, in order (checkpoint, segments, keys, attempts), and hands the log to the journal.
//! Owns nothing afterwards.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{self, Slots};
use crate::disk::Disk;
use crate::error::Corruption;
use crate::format::{BLOCK_ALIGN, RECORD_HEADER};
use crate::keys::{Entry, KeyIndex, KeyState, Snapshots};
use crate::recovery::{self, Segment, Tail};
use crate::scan::BlockView;
use crate::{Attempts, Checkpoint, Lsn, OpenError, Options, Recovered};

/// What recovery hands to [`crate::Journal::open`].
pub(crate) struct Log {
    pub disk: Arc<dyn Disk>,
    pub uuid: uuid::Uuid,
    pub slots: Slots,
    pub snapshots: Snapshots,
    pub keys: KeyIndex,
    pub tail: Tail,
    pub segments: VecDeque<Segment>,
    pub attempts: Attempts,
    pub recovered: Recovered,
}

impl Log {
    pub(crate) fn recover(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
    ) -> Result<Self, OpenError> {
        remove_leftovers(&*disk, dir).map_err(OpenError::io("cleaning", dir))?;
        let read = checkpoint::read(&*disk, dir)
            .map_err(OpenError::io("reading the checkpoint in", dir))?;
        let candidates = recovery::candidates(&*disk, dir)?;
        let known = candidates.iter().find_map(|c| c.header.as_ref().map(|header| header.uuid));
        let uuid = read.uuid.or(known).or(options.identity).unwrap_or_else(uuid::Uuid::new_v4);
        let foreign =
            candidates.iter().find(|c| c.header.as_ref().is_some_and(|header| header.uuid != uuid));
        if let Some(foreign) = foreign {
            return Err(OpenError::Foreign(foreign.path.clone()));
        }
        let mut entries = Vec::new();
        let stated = read.checkpoint.as_ref().and_then(Checkpoint::highest).map(|lsn| lsn.0);
        let mut found =
            recovery::examine(candidates, stated, &mut |block| collect_keys(&block, &mut entries))?;
        check_front(&found, &read, dir)?;
        recovery::settle(&*disk, dir, &mut found)?;

        let tail = found.tail();
        let damaged = read.damaged;
        let slots = Slots::open(&*disk, dir, read, uuid)
            .map_err(OpenError::io("writing the checkpoint in", dir))?;
        let loaded = Snapshots::load(&*disk, dir, uuid, &options.keys);
        let (snapshots, old, damaged_snapshots) =
            loaded.map_err(OpenError::io("reading keys in", dir))?;
        let mut keys = KeyIndex::new(options.keys.clone());
        let first = found.segments.first().map_or(tail.lsn, |(segment, _)| segment.header.base);
        let old = old.into_iter().filter(|entry| entry.state.start.0 < first);
        old.chain(entries).for_each(|entry| keys.insert(entry));
        keys.expire(options.clock.unix_micros());
        let attempts =
            Attempts::open(disk.clone(), dir).map_err(OpenError::io("reading attempts in", dir))?;
        let recovered = Recovered {
            uuid,
            first: Lsn(first),
            tail: Lsn(tail.lsn),
            torn: found.torn,
            counters: tail.totals,
            checkpoint: slots.current.clone(),
            checkpoint_damaged: damaged,
            attempts: attempts.all(),
            keys: keys.len(),
            damaged_snapshots,
        };
        let segments = found.segments.into_iter().map(|(segment, _)| segment).collect();
        Ok(Self { disk, uuid, slots, snapshots, keys, tail, segments, attempts, recovered })
    }
}

fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.read_dir(dir)? {
        if entry.name.ends_with(".tmp") {
            disk.remove_file(&dir.join(entry.name))?;
        }
    }
    Ok(())
}

fn collect_keys(block: &BlockView<'_>, entries: &mut Vec<Entry>) {
    for record in block.records {
        let Some(key) = record.header.key else {
            continue;
        };
        let start = block.header.lsn + record.at as u64;
        let end = block.header.lsn + record.end as u64;
        debug_assert!(end - start >= RECORD_HEADER as u64);
        let state =
            KeyState { start: Lsn(start), end: Lsn(end), checksum: key.checksum, note: key.note };
        entries.push(Entry {
            hash: key.hash,
            state,
            received_unix_micros: record.header.received_unix_micros,
        });
    }
}

/// Nothing that the checkpoint still needs may be missing before the first segment.
pub(crate) fn check_front(
    found: &recovery::Found,
    read: &checkpoint::Read,
    dir: &Path,
) -> Result<(), OpenError> {
    let needed = read.floor;
    let (first, tail) = (found.segments.first().map(|(s, _)| s.header.base), found.tail().lsn);
    let reason = match first {
        // Of two slots the younger may be the damaged one, and the trim may have followed it.
        Some(first) if first > needed && !read.damaged => {
            "acknowledged data are missing at the front"
        }
        None if needed > 0 => "all segments are missing",
        _ => return Ok(()),
    };
    debug_assert!(tail % BLOCK_ALIGN == 0);
    let file = dir.display().to_string();
    Err(OpenError::Corrupt(Corruption {
        at: Lsn(needed.min(first.unwrap_or(0))),
        next: first.map(Lsn),
        file,
        reason,
    }))
}
