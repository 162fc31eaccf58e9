//! Idempotency keys: hash → where the original stands. Bounded by count and time; survives restarts and trimming.
//!
//! Retained segments hold their own keys, in the records. Before a segment is trimmed, its keys go to a snapshot file
//! `idem-<from>-<end>`, so the index is at any moment what the snapshots and the retained log say together.
//!
//! ```text
//! snapshot   0 magic "FBIDEM01" · 8 journal uuid · 24 end u64 · 32 count u32 · 36 crc of 0..36
//!            40 per key: hash u128, checksum u64, note u64, start u64, end u64, received i64
//!            crc u32 of the entries
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::{Disk, read_file, replace_file};
use crate::format::{array, crc_holds, seal_crc, u32_at, u64_at};
use crate::{KeyBounds, Lsn};

const MAGIC: [u8; 8] = *b"FBIDEM01";
const HEAD: usize = 40;
const ENTRY: usize = 56;
/// Snapshots are merged into one when there are more than this.
const MAX_FILES: usize = 16;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Where the original record begins.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The checksum that came with it.
    pub checksum: u64,
    /// The note that came with it.
    pub note: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub hash: u128,
    pub state: KeyState,
    pub received_unix_micros: i64,
}

/// What a key takes in memory at most, in bytes: its entry in the order and in the map, each after it has grown.
pub const KEY_BYTES: u64 = 240;
/// Keys that a journal remembers even where the room is used up by others.
pub const KEYS_KEPT: usize = 16;

/// Room for idempotency keys that several journals share; clones are the same room. A journal that finds none left
/// forgets its own oldest keys, so that one busy journal cannot make the others forget theirs.
#[derive(Clone, Debug)]
pub struct KeyRoom {
    used: Arc<AtomicUsize>,
    max: usize,
}

impl KeyRoom {
    /// Room for `max` keys, and [`KEYS_KEPT`] for each journal that comes too late.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// Keys that are remembered now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The index in memory: keys in the order of the log, oldest first.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    bounds: KeyBounds,
    room: KeyRoom,
    map: HashMap<u128, KeyState>,
    order: VecDeque<Entry>,
}

impl KeyIndex {
    pub(crate) fn new(bounds: KeyBounds, room: KeyRoom) -> Self {
        Self { bounds, room, map: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.map.insert(entry.hash, entry.state);
        self.order.push_back(entry);
        self.room.used.fetch_add(1, Ordering::Relaxed);
        while self.order.len() > self.bounds.count
            || (self.room.used() > self.room.max && self.order.len() > KEYS_KEPT)
        {
            self.pop();
        }
    }

    /// Forgets what has left the window.
    pub(crate) fn expire(&mut self, now: i64) {
        while self.order.front().is_some_and(|entry| self.expired(entry.received_unix_micros, now))
        {
            self.pop();
        }
    }

    fn expired(&self, received: i64, now: i64) -> bool {
        received.saturating_add(self.bounds.window_micros) < now
    }

    fn pop(&mut self) {
        let Some(old) = self.order.pop_front() else { return };
        self.room.used.fetch_sub(1, Ordering::Relaxed);
        if self.map.get(&old.hash).is_some_and(|state| state.start == old.state.start) {
            self.map.remove(&old.hash);
        }
    }

    pub(crate) fn get(&mut self, hash: u128, now: i64) -> Option<KeyState> {
        self.expire(now);
        self.map.get(&hash).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The keys whose record begins in a range of positions.
    pub(crate) fn range(&self, from: u64, to: u64) -> Vec<Entry> {
        let first = self.order.partition_point(|entry| entry.state.start.0 < from);
        self.order.range(first..).take_while(|entry| entry.state.start.0 < to).copied().collect()
    }

    fn oldest(&self) -> Option<u64> {
        self.order.front().map(|entry| entry.state.start.0)
    }
}

impl Drop for KeyIndex {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.order.len(), Ordering::Relaxed);
    }
}

/// The snapshot files of a journal, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    files: VecDeque<(u64, PathBuf)>,
}

/// Both ends stand in the name: a trim that was cut short and done again must not replace what the first one wrote.
fn name(from: u64, end: u64) -> String {
    format!("idem-{from:016x}-{end:016x}")
}

fn encode(uuid: uuid::Uuid, end: u64, entries: &[Entry]) -> Vec<u8> {
    let mut b = Vec::with_capacity(HEAD + entries.len() * ENTRY + 4);
    b.extend_from_slice(&MAGIC);
    b.extend_from_slice(uuid.as_bytes());
    b.extend_from_slice(&end.to_le_bytes());
    b.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    b.resize(HEAD, 0);
    seal_crc(&mut b, HEAD - 4);
    for entry in entries {
        b.extend_from_slice(&entry.hash.to_le_bytes());
        for value in
            [entry.state.checksum, entry.state.note, entry.state.start.0, entry.state.end.0]
        {
            b.extend_from_slice(&value.to_le_bytes());
        }
        b.extend_from_slice(&entry.received_unix_micros.to_le_bytes());
    }
    let crc = crc32c::crc32c(b.get(HEAD..).unwrap_or_default());
    b.extend_from_slice(&crc.to_le_bytes());
    b
}

fn decode(uuid: uuid::Uuid, b: &[u8]) -> Option<(u64, Vec<Entry>)> {
    if !b.starts_with(&MAGIC) || !crc_holds(b, HEAD - 4) || array(b, 8)? != *uuid.as_bytes() {
        return None;
    }
    let count = u32_at(b, 32)? as usize;
    let end = HEAD + count.checked_mul(ENTRY)?;
    let body = b.get(HEAD..end)?;
    if u32_at(b, end)? != crc32c::crc32c(body) {
        return None;
    }
    let entry = |e: &[u8]| {
        Some(Entry {
            hash: array(e, 0).map(u128::from_le_bytes)?,
            state: KeyState {
                checksum: u64_at(e, 16)?,
                note: u64_at(e, 24)?,
                start: Lsn(u64_at(e, 32)?),
                end: Lsn(u64_at(e, 40)?),
            },
            received_unix_micros: array(e, 48).map(i64::from_le_bytes)?,
        })
    };
    Some((u64_at(b, 24)?, body.chunks_exact(ENTRY).map(entry).collect::<Option<_>>()?))
}

impl Snapshots {
    /// Loads the snapshots; returns the entries in order of the log, and the names of files that do not hold.
    pub(crate) fn load(
        disk: &dyn Disk,
        dir: &Path,
        uuid: uuid::Uuid,
        bounds: KeyBounds,
    ) -> io::Result<(Self, Vec<Entry>, Vec<PathBuf>)> {
        let (mut snapshots, mut entries, mut damaged) = (Self::default(), Vec::new(), Vec::new());
        for found in disk.read_dir(dir)? {
            if !found.name.starts_with("idem-") || found.name.ends_with(".tmp") {
                continue;
            }
            let path = dir.join(&found.name);
            let max = HEAD + bounds.count.saturating_mul(ENTRY).saturating_mul(2) + 4;
            match decode(uuid, &read_file(disk, &path, max.max(found.len as usize))?) {
                Some((end, more)) => {
                    entries.extend(more);
                    snapshots.files.push_back((end, path));
                }
                None => damaged.push(path),
            }
        }
        snapshots.files.make_contiguous().sort();
        entries.sort_by_key(|entry: &Entry| entry.state.start);
        entries.dedup_by_key(|entry| entry.state.start);
        Ok((snapshots, entries, damaged))
    }

    /// Makes the keys of `entries`, all in `range`, durable outside of the log.
    pub(crate) fn write(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        uuid: uuid::Uuid,
        range: std::ops::Range<u64>,
        entries: &[Entry],
    ) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let path = dir.join(name(range.start, range.end));
        replace_file(disk, &path, &encode(uuid, range.end, entries))?;
        self.files.retain(|(_, old)| *old != path);
        self.files.push_back((range.end, path));
        Ok(())
    }

    /// Whether the next trim should write all keys into one file.
    pub(crate) fn crowded(&self) -> bool {
        self.files.len() > MAX_FILES
    }

    /// Removes the snapshots of which nothing is live, and after a merge those that it replaced.
    pub(crate) fn prune(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        index: &KeyIndex,
        merged: bool,
    ) -> io::Result<()> {
        let keep_from = index.oldest().unwrap_or(u64::MAX);
        let mut removed = false;
        while let Some((end, path)) = self.files.front() {
            // The youngest file is the merged one.
            let obsolete = if merged { self.files.len() > 1 } else { *end <= keep_from };
            if !obsolete {
                break;
            }
            disk.remove_file(path)?;
            self.files.pop_front();
            removed = true;
        }
        if removed { disk.sync_dir(dir) } else { Ok(()) }
    }
}
