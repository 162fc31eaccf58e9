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

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;

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

/// Room for keys that the journals of a process share (F3). A journal may always keep [`KeyRoom::OWN`] keys; what it
/// keeps beyond them comes out of the shared room, and once that is taken, each further key costs the journal that
/// brings it its own oldest one (F9). Clones are the same room.
#[derive(Clone, Debug)]
pub struct KeyRoom {
    shared: Arc<AtomicUsize>,
    limit: usize,
}

impl KeyRoom {
    /// Keys that every journal may keep, whatever the others do.
    pub const OWN: usize = 1000;

    /// What one key takes in memory, in bytes: its state, its slot in the table, and room to grow.
    pub const KEY_BYTES: u64 = 150;

    /// Room for `limit` keys beyond the journals' own.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::default(), limit }
    }

    /// The most keys that so many journals keep in this room.
    #[must_use]
    pub fn most(&self, journals: usize) -> usize {
        self.limit.saturating_add(journals.saturating_mul(Self::OWN))
    }

    fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.limit).then_some(taken + 1);
        self.shared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, keys: usize) {
        self.shared.fetch_sub(keys, Ordering::Relaxed);
    }
}

/// The index in memory: keys in the order of the log, oldest first.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    bounds: KeyBounds,
    /// Positions in `order`, counted from the first key ever inserted.
    table: HashTable<u64>,
    order: VecDeque<Entry>,
    /// How many keys left `order` at its front.
    gone: u64,
    /// Keys that are paid for out of the shared room: all beyond [`KeyRoom::OWN`].
    shared: usize,
}

impl KeyIndex {
    pub(crate) fn new(bounds: KeyBounds) -> Self {
        Self { bounds, table: HashTable::new(), order: VecDeque::new(), gone: 0, shared: 0 }
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        if self.order.len() >= self.bounds.count {
            self.drop_oldest();
        } else if self.order.len() >= KeyRoom::OWN {
            match self.bounds.room.take() {
                true => self.shared += 1,
                false => self.drop_oldest(),
            }
        }
        let place = self.gone + self.order.len() as u64;
        let Self { table, order, gone, .. } = self;
        let key_at = |place: u64| entry_at(order, *gone, place).map_or(0, |entry| entry.hash);
        match table.find_mut(slot(entry.hash), |known| key_at(*known) == entry.hash) {
            Some(known) => *known = place,
            None => {
                table.insert_unique(slot(entry.hash), place, |known| slot(key_at(*known)));
            }
        }
        order.push_back(entry);
    }

    /// Forgets what has left the window.
    pub(crate) fn expire(&mut self, now: i64) {
        while self.order.front().is_some_and(|entry| self.expired(entry.received_unix_micros, now))
        {
            self.pop();
        }
        if self.order.is_empty() && self.order.capacity() > KeyRoom::OWN {
            // A room that was given back is no room that is held.
            (self.order, self.table) = (VecDeque::new(), HashTable::new());
        }
    }

    fn expired(&self, received: i64, now: i64) -> bool {
        received.saturating_add(self.bounds.window_micros) < now
    }

    fn pop(&mut self) {
        self.drop_oldest();
        if self.shared > 0 {
            self.shared -= 1;
            self.bounds.room.give_back(1);
        }
    }

    fn drop_oldest(&mut self) {
        let Some(old) = self.order.pop_front() else { return };
        let place = self.gone;
        self.gone += 1;
        // A later record under the same key has taken over its slot.
        if let Ok(found) = self.table.find_entry(slot(old.hash), |known| *known == place) {
            found.remove();
        }
    }

    pub(crate) fn get(&mut self, hash: u128, now: i64) -> Option<KeyState> {
        self.expire(now);
        let at = |place: &u64| entry_at(&self.order, self.gone, *place);
        let found = |place: &u64| at(place).is_some_and(|entry| entry.hash == hash);
        self.table.find(slot(hash), found).and_then(at).map(|entry| entry.state)
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
        self.bounds.room.give_back(self.shared);
    }
}

fn entry_at(order: &VecDeque<Entry>, gone: u64, place: u64) -> Option<&Entry> {
    order.get(usize::try_from(place.checked_sub(gone)?).ok()?)
}

/// A key's hash is one already.
fn slot(hash: u128) -> u64 {
    (hash >> 64) as u64 ^ hash as u64
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
        bounds: &KeyBounds,
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
