//! Attempts per position: what the owner was about to do where, on disk, so that work which kills the whole process
//! is known after the restart (F8). Owns the file `attempts`; never reads the notes.
//!
//! ```text
//! entry   0 length of note u32 · 4 magic u32 · 8 lsn u64 · 16 note · crc u32 of all before
//! ```
//!
//! Entries are appended and synced; the last one of a position counts; a torn tail is cut at open. Clearing rewrites
//! the file by rename.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Lsn;
use crate::disk::{Disk, DiskFile, Open, read_file, replace_file};
use crate::format::{seal_crc, u32_at, u64_at};

const MAGIC: u32 = 0x5454_4146;
const HEAD: usize = 16;
/// Bytes of a note at most.
const MAX_NOTE: usize = 64 << 10;
/// Positions that may be marked at once.
const MAX_MARKS: usize = 4096;
/// The file is rewritten when it is this much longer than what counts in it.
const SLACK: u64 = 256 << 10;
const MAX_FILE: usize = MAX_MARKS * (MAX_NOTE + HEAD + 4) + SLACK as usize;

/// The marks of a journal. All methods block on the disk; what returned `Ok` survives SIGKILL and a power cut.
pub struct Attempts {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    notes: BTreeMap<Lsn, Vec<u8>>,
    file: Option<Arc<dyn DiskFile>>,
    len: u64,
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Attempts {
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        let path = dir.join("attempts");
        let bytes = match read_file(&*disk, &path, MAX_FILE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let (notes, used) = decode(&bytes);
        // Also when all of it holds: after a failed sync it may be in the page cache only.
        if used > 0 || used < bytes.len() {
            replace_file(&*disk, &path, &encode(&notes))?;
        }
        let state = State { notes, file: None, len: 0 };
        Ok(Self { disk, path, state: Mutex::new(state) })
    }

    /// Notes what is about to be done at a position; the last note of a position counts.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a note over 64 KiB or too many positions, else what the disk says; the
    /// old note then still counts, unless the write went through unseen.
    pub fn mark(&self, lsn: Lsn, note: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if note.len() > MAX_NOTE
            || (state.notes.len() >= MAX_MARKS && !state.notes.contains_key(&lsn))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "note too long or too many marks",
            ));
        }
        let live: u64 = state.notes.values().map(|note| (note.len() + HEAD + 4) as u64).sum();
        if state.file.is_none() || state.len > live * 2 + SLACK {
            self.rewrite(&mut state)?;
        }
        let Some(file) = state.file.clone() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let entry = encode_entry(lsn, note);
        let written = file.write_all_at(&entry, state.len).and_then(|()| file.sync_data());
        if let Err(e) = written {
            // What the file holds is unknown: the next mark starts a new one.
            state.file = None;
            return Err(e);
        }
        state.len += entry.len() as u64;
        state.notes.insert(lsn, note.to_vec());
        Ok(())
    }

    /// All marks, by position.
    #[must_use]
    pub fn all(&self) -> Vec<(Lsn, Vec<u8>)> {
        self.state.lock().notes.iter().map(|(lsn, note)| (*lsn, note.clone())).collect()
    }

    /// Forgets the marks below a position.
    ///
    /// # Errors
    /// What the disk says; the marks then still count.
    pub fn clear_below(&self, lsn: Lsn) -> io::Result<()> {
        let mut state = self.state.lock();
        let kept = state.notes.split_off(&lsn);
        let cleared = std::mem::replace(&mut state.notes, kept);
        if cleared.is_empty() {
            return Ok(());
        }
        let done = self.rewrite(&mut state);
        if done.is_err() {
            state.notes.extend(cleared);
        }
        done
    }

    fn rewrite(&self, state: &mut State) -> io::Result<()> {
        state.file = None;
        let bytes = encode(&state.notes);
        replace_file(&*self.disk, &self.path, &bytes)?;
        state.file = Some(self.disk.open(&self.path, Open::Write)?);
        state.len = bytes.len() as u64;
        Ok(())
    }
}

fn encode_entry(lsn: Lsn, note: &[u8]) -> Vec<u8> {
    let mut b = Vec::with_capacity(HEAD + note.len() + 4);
    b.extend_from_slice(&u32::try_from(note.len()).unwrap_or(u32::MAX).to_le_bytes());
    b.extend_from_slice(&MAGIC.to_le_bytes());
    b.extend_from_slice(&lsn.0.to_le_bytes());
    b.extend_from_slice(note);
    let end = b.len();
    b.resize(end + 4, 0);
    seal_crc(&mut b, end);
    b
}

fn encode(notes: &BTreeMap<Lsn, Vec<u8>>) -> Vec<u8> {
    notes.iter().flat_map(|(lsn, note)| encode_entry(*lsn, note)).collect()
}

/// The marks of a file, and the bytes that hold.
fn decode(bytes: &[u8]) -> (BTreeMap<Lsn, Vec<u8>>, usize) {
    let (mut notes, mut at) = (BTreeMap::new(), 0);
    while let Some((lsn, note, len)) = bytes.get(at..).and_then(decode_entry) {
        notes.insert(lsn, note.to_vec());
        at += len;
    }
    (notes, at)
}

fn decode_entry(b: &[u8]) -> Option<(Lsn, &[u8], usize)> {
    let len = u32_at(b, 0)? as usize;
    if len > MAX_NOTE || u32_at(b, 4)? != MAGIC {
        return None;
    }
    let end = HEAD + len;
    let crc = crc32c::crc32c(b.get(..end)?);
    (u32_at(b, end)? == crc).then_some((Lsn(u64_at(b, 8)?), b.get(HEAD..end)?, end + 4))
}
