//! Files of the simulated disk: two planes of bytes and the sectors in which they may differ.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};

use super::{State, power_cut};
use crate::disk::{DiskFile, write_all};

/// What a disk writes or not, never half.
const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    pub(super) modified: i64,
    pub(super) open: usize,
}

impl Inode {
    pub(super) fn new(modified: i64) -> Self {
        Self { live: Vec::new(), durable: Vec::new(), dirty: BTreeSet::new(), modified, open: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = self.live.get(from..) else {
            return 0;
        };
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        n
    }

    fn write(&mut self, buf: &[u8], offset: usize, now: i64) {
        let end = offset + buf.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        if let Some(to) = self.live.get_mut(offset..end) {
            to.copy_from_slice(buf);
        }
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
        self.modified = now;
    }

    pub(super) fn set_len(&mut self, len: usize, now: i64) {
        let (old, new) = (self.live.len().min(len), self.live.len().max(len));
        self.live.resize(len, 0);
        // Both a cut tail that comes back and an extension that does not are possible until a sync.
        self.dirty.extend(old / SECTOR..new.div_ceil(SECTOR));
        self.modified = now;
    }

    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.live, &mut self.durable, sector);
        }
    }

    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let dirty = std::mem::take(&mut self.dirty);
        if !dirty.is_empty() {
            let (short, long) =
                (self.durable.len().min(self.live.len()), self.durable.len().max(self.live.len()));
            let len = match rng.u8(0..3) {
                0 => self.durable.len(),
                1 => self.live.len(),
                _ => rng.usize(short..=long),
            };
            self.durable.resize(len, 0);
            for sector in dirty {
                if rng.bool() {
                    copy_sector(&self.live, &mut self.durable, sector);
                }
            }
        }
        self.live = self.durable.clone();
        self.open = 0;
    }

    pub(super) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mask = 1u8 << (bit % 8);
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= mask;
        }
        self.live.get_mut(at).is_some_and(|byte| {
            *byte ^= mask;
            true
        })
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(from.len()).min(to.len());
    if let (Some(from), Some(to)) = (from.get(start..end), to.get_mut(start..end)) {
        to.copy_from_slice(from);
    }
}

/// A handle.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) path: PathBuf,
    pub(super) id: u64,
    pub(super) life: u64,
    pub(super) write: bool,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.life == self.life && !state.down { Ok(state) } else { Err(power_cut()) }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.write { self.state() } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// The primitive write: as short as the seed says, interrupted as often.
    fn write_some(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.writable()?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut n = buf.len();
        if state.plan.short_writes {
            if state.rng.u8(0..4) == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            n = state.rng.usize(1..=n);
        }
        let len = state.inodes.get(&self.id).map_or(0, Inode::len);
        let growth = (offset + n as u64).saturating_sub(len);
        if growth > 0 {
            state.refuse_growth(&self.path)?;
            if let Some((capacity, kind)) = state.plan.capacity {
                let over = growth.saturating_sub(capacity.saturating_sub(state.used()));
                n = n.saturating_sub(usize::try_from(over).unwrap_or(usize::MAX));
                if n == 0 {
                    return Err(kind.error());
                }
            }
        }
        let clock = state.clock;
        if let (Some(inode), Some(part)) = (state.inodes.get_mut(&self.id), buf.get(..n)) {
            inode.write(part, at, clock);
        }
        Ok(n)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state()?;
        Ok(state.inodes.get(&self.id).map_or(0, |inode| inode.read(buf, offset)))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.writable()?.step()?;
        write_all(|rest, at| self.write_some(rest, at), buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        let fails = match &mut state.plan.fail_sync_after {
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        };
        if fails {
            state.plan.fail_sync_after = None;
        }
        let Some(inode) = state.inodes.get_mut(&self.id) else {
            return Ok(());
        };
        if fails {
            inode.dirty.clear();
            return Err(rustix::io::Errno::IO.into());
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes.get(&self.id).map_or(0, Inode::len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len as u64 > state.inodes.get(&self.id).map_or(0, Inode::len) {
            state.refuse_growth(&self.path)?;
        }
        state.step()?;
        let clock = state.clock;
        if let Some(inode) = state.inodes.get_mut(&self.id) {
            inode.set_len(len, clock);
        }
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life
            && let Some(inode) = state.inodes.get_mut(&self.id)
        {
            inode.open = inode.open.saturating_sub(1);
        }
    }
}
