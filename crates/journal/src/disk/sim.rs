//! A disk in memory with a memory of what would survive a power cut. Deterministic from a seed.
//!
//! Fault model. There are two planes. The *live* plane is what a running process sees; the *durable* plane is what a
//! power cut leaves. Data reach the durable plane by `sync_data`, directory entries by `sync_dir`. At a cut, each
//! unsynced 512-byte sector and each unsynced change of a directory persists or not by the seed, in any combination;
//! a rename is one change. After a failed sync the sectors count as clean, as Linux has it: they never persist,
//! though the live plane still shows them. Handles and locks from before a cut are dead.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::{DirEntry, Disk, DiskFile, Metadata, Open};
use files::{Inode, SimFile};

/// Which error a full disk gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSpace {
    /// ENOSPC: the device is full.
    Device,
    /// EDQUOT: the quota is used up.
    Quota,
}

impl NoSpace {
    fn error(self) -> io::Error {
        match self {
            Self::Device => rustix::io::Errno::NOSPC.into(),
            Self::Quota => rustix::io::Errno::DQUOT.into(),
        }
    }
}

#[derive(Debug)]
struct PowerCut;

impl std::fmt::Display for PowerCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated power cut")
    }
}

impl std::error::Error for PowerCut {}

/// Whether an error is the simulated disk's way of saying that the power is out, or that the handle is from before.
#[must_use]
pub fn is_power_cut(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<PowerCut>())
}

fn power_cut() -> io::Error {
    io::Error::other(PowerCut)
}

/// A name's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

/// One atomic change of the name space that no `sync_dir` has covered yet.
#[derive(Debug)]
struct Change(Vec<(PathBuf, Option<Node>)>);

#[derive(Debug, Default)]
struct Plan {
    crash_after: Option<u64>,
    fail_sync_after: Option<u64>,
    no_space: Vec<(PathBuf, NoSpace)>,
    capacity: Option<(u64, NoSpace)>,
    short_writes: bool,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    life: u64,
    down: bool,
    operations: u64,
    next_inode: u64,
    clock: i64,
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
    inodes: BTreeMap<u64, Inode>,
    locks: BTreeSet<PathBuf>,
    plan: Plan,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk with one directory, `/`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Dir)]);
        let state = State {
            rng: Rng::with_seed(seed),
            life: 0,
            down: false,
            operations: 0,
            next_inode: 1,
            clock: 0,
            live: root.clone(),
            durable: root,
            pending: Vec::new(),
            inodes: BTreeMap::new(),
            locks: BTreeSet::new(),
            plan: Plan::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power now and comes up again: what was not synced persists or vanishes by `seed`. Clears all faults.
    pub fn crash(&self, seed: u64) {
        self.state.lock().crash(Rng::with_seed(seed));
    }

    /// Comes up again after [`SimDisk::crash_after`] struck; the same as [`SimDisk::crash`].
    pub fn restart(&self, seed: u64) {
        self.crash(seed);
    }

    /// Ends the process without a power cut (SIGKILL): locks are released and handles die, data stay.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.down = false;
        state.locks.clear();
        state.plan = Plan::default();
    }

    /// Lets `n` more changing operations succeed; each one after them fails until [`SimDisk::restart`].
    pub fn crash_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.plan.crash_after = Some(state.operations + n);
    }

    /// Changing operations so far (create, write, sync, rename, …); reads do not count.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Whether the power is out.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// Lets `n` more file syncs succeed, fails one with EIO, and lets the later ones succeed.
    pub fn fail_sync_after(&self, n: u64) {
        self.state.lock().plan.fail_sync_after = Some(n);
    }

    /// Creating and growing files below `prefix` fails.
    pub fn no_space_below(&self, prefix: &Path, kind: NoSpace) {
        self.state.lock().plan.no_space.push((prefix.to_owned(), kind));
    }

    /// Bounds the sum of file lengths; growing beyond it writes what fits, then fails.
    pub fn set_capacity(&self, bytes: u64, kind: NoSpace) {
        self.state.lock().plan.capacity = Some((bytes, kind));
    }

    /// Ends every shortage of space.
    pub fn clear_no_space(&self) {
        let mut state = self.state.lock();
        state.plan.no_space.clear();
        state.plan.capacity = None;
    }

    /// Makes the primitive write return early or be interrupted, by seed.
    pub fn short_writes(&self, on: bool) {
        self.state.lock().plan.short_writes = on;
    }

    /// Sets what new modification times say, in microseconds since 1970.
    pub fn set_clock(&self, unix_micros: i64) {
        self.state.lock().clock = unix_micros;
    }

    /// Flips one bit of a file on both planes; false if there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(Node::File(id)) = state.live.get(path).copied() else {
            return false;
        };
        state.inodes.get_mut(&id).is_some_and(|inode| inode.flip(offset, bit))
    }

    /// Sum of the lengths of all files that have a name.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used()
    }
}

impl State {
    fn crash(&mut self, mut rng: Rng) {
        for Change(entries) in std::mem::take(&mut self.pending) {
            if rng.bool() {
                for (path, node) in entries {
                    set(&mut self.durable, path, node);
                }
            }
        }
        let orphans: Vec<PathBuf> =
            self.durable.keys().filter(|p| !self.has_parents(p)).cloned().collect();
        for path in orphans {
            self.durable.remove(&path);
        }
        self.live = self.durable.clone();
        for inode in self.inodes.values_mut() {
            inode.crash(&mut rng);
        }
        self.life += 1;
        self.down = false;
        self.locks.clear();
        self.plan = Plan::default();
        self.rng = rng;
        self.collect();
    }

    fn has_parents(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|parent| self.durable.get(parent) == Some(&Node::Dir))
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(Inode::len).sum()
    }

    /// Counts one changing operation, or fails if the power is out.
    fn step(&mut self) -> io::Result<()> {
        if self.down {
            return Err(power_cut());
        }
        if self.plan.crash_after.is_some_and(|at| self.operations >= at) {
            self.down = true;
            return Err(power_cut());
        }
        self.operations += 1;
        Ok(())
    }

    fn up(&self) -> io::Result<()> {
        if self.down { Err(power_cut()) } else { Ok(()) }
    }

    fn refuse_growth(&self, path: &Path) -> io::Result<()> {
        match self.plan.no_space.iter().find(|(prefix, _)| path.starts_with(prefix)) {
            Some((_, kind)) => Err(kind.error()),
            None => Ok(()),
        }
    }

    fn change(&mut self, entries: Vec<(PathBuf, Option<Node>)>) {
        for (path, node) in &entries {
            set(&mut self.live, path.clone(), *node);
        }
        self.pending.push(Change(entries));
    }

    /// Makes the pending changes in `dir` durable, and the earlier ones that they build on.
    fn sync_dir(&mut self, dir: &Path) {
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (Change(entries), chosen) in self.pending.iter().zip(&mut chosen).rev() {
            if entries.iter().any(|(path, _)| path.parent() == Some(dir) || wanted.contains(path)) {
                *chosen = true;
                wanted.extend(entries.iter().map(|(path, _)| path.clone()));
            }
        }
        let mut kept = Vec::new();
        for (change, chosen) in std::mem::take(&mut self.pending).into_iter().zip(chosen) {
            if chosen {
                for (path, node) in change.0 {
                    set(&mut self.durable, path, node);
                }
            } else {
                kept.push(change);
            }
        }
        self.pending = kept;
        self.collect();
    }

    /// Forgets files that no name, pending change or handle refers to.
    fn collect(&mut self) {
        let pending = self
            .pending
            .iter()
            .flat_map(|Change(entries)| entries.iter().filter_map(|(_, node)| *node));
        let named: BTreeSet<u64> = (self.live.values().copied())
            .chain(self.durable.values().copied())
            .chain(pending)
            .filter_map(|node| if let Node::File(id) = node { Some(id) } else { None })
            .collect();
        self.inodes.retain(|id, inode| inode.open > 0 || named.contains(id));
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.live.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.live.get(parent)) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.parent_exists(path)?;
        self.refuse_growth(path)?;
        self.step()?;
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, Inode::new(self.clock));
        self.change(vec![(path.to_owned(), Some(Node::File(id)))]);
        Ok(id)
    }

    fn truncate(&mut self, id: u64) -> io::Result<()> {
        self.step()?;
        let clock = self.clock;
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.set_len(0, clock);
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        match self.live.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Dir) => {
                Ok(Metadata { len: 0, is_dir: true, modified_unix_micros: self.clock })
            }
            Some(Node::File(id)) => {
                let (len, modified) =
                    self.inodes.get(id).map_or((0, 0), |inode| (inode.len(), inode.modified));
                Ok(Metadata { len, is_dir: false, modified_unix_micros: modified })
            }
        }
    }
}

fn set(plane: &mut BTreeMap<PathBuf, Node>, path: PathBuf, node: Option<Node>) {
    match node {
        Some(node) => plane.insert(path, node),
        None => plane.remove(&path),
    };
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.up()?;
        let id = match (mode, state.file(path)) {
            (Open::Read | Open::Write, found) => found?,
            (Open::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::CreateOrTruncate, Ok(id)) => {
                state.truncate(id)?;
                id
            }
            (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => state.create(path)?,
            (_, Err(e)) => return Err(e),
        };
        if let Some(inode) = state.inodes.get_mut(&id) {
            inode.open += 1;
        }
        let life = state.life;
        Ok(Arc::new(SimFile {
            state: self.state.clone(),
            path: path.to_owned(),
            id,
            life,
            write: mode != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        state.parent_exists(to)?;
        let node = *state.live.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.step()?;
        let mut entries = vec![(from.to_owned(), None), (to.to_owned(), Some(node))];
        for (path, child) in &state.live {
            if let (true, Ok(rest)) = (path != from && node == Node::Dir, path.strip_prefix(from)) {
                entries.push((path.clone(), None));
                entries.push((to.join(rest), Some(*child)));
            }
        }
        state.change(entries);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        let id = state.file(from)?;
        state.parent_exists(to)?;
        if state.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.step()?;
        state.change(vec![(to.to_owned(), Some(Node::File(id)))]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        state.file(path)?;
        state.step()?;
        state.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        let missing: Vec<PathBuf> =
            path.ancestors().filter(|p| !state.live.contains_key(*p)).map(Path::to_owned).collect();
        for dir in missing.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
            state.parent_exists(&dir)?;
            state.refuse_growth(&dir)?;
            state.step()?;
            state.change(vec![(dir.clone(), Some(Node::Dir))]);
            if let Some(parent) = dir.parent() {
                state.step()?;
                state.sync_dir(parent);
            }
        }
        match state.live.get(path) {
            Some(Node::Dir) => Ok(()),
            _ => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        if !state.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.step()?;
        let entries: Vec<_> =
            state.live.keys().filter(|p| p.starts_with(path)).map(|p| (p.clone(), None)).collect();
        for entry in entries.into_iter().rev() {
            state.change(vec![entry]);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.up()?;
        if state.live.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.step()?;
        state.sync_dir(path);
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        state.up()?;
        if state.live.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut entries = Vec::new();
        for child in state.live.keys().filter(|p| p.parent() == Some(path)) {
            let meta = state.metadata(child)?;
            let Some(name) = child.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            entries.push(DirEntry {
                name: name.to_owned(),
                is_dir: meta.is_dir,
                len: meta.len,
                modified_unix_micros: meta.modified_unix_micros,
            });
        }
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.state.lock();
        state.up()?;
        state.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        state.up()?;
        if state.locks.contains(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if state.file(path).is_err() {
            state.create(path)?;
        }
        state.locks.insert(path.to_owned());
        Ok(Box::new(SimLock { state: self.state.clone(), path: path.to_owned(), life: state.life }))
    }
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}
