//! The journal as its owner sees it: open, positions, checkpoint, trim, close. Owns the state that appends, the
//! writer's turns and readers share; the work of each is in its own module.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::append::{Pending, Request};
use crate::cache::Cache;
use crate::checkpoint::{self, Slots};
use crate::disk::Disk;
use crate::error::Corruption;
use crate::format::{BLOCK_ALIGN, RECORD_HEADER, Totals};
use crate::keys::{Entry, KeyIndex, KeyState, Snapshots};
use crate::recovery::{self, Segment, Tail};
use crate::scan::BlockView;
use crate::writer::{Place, Writer};
use crate::{AppendError, Attempts, Checkpoint, Lsn, OpenError, Writers};

/// Where the journal learns the time: microseconds since 1970. It may go backwards.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// A clock that calls `now`.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn unix_micros(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How many idempotency keys are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct KeyBounds {
    /// Keys at most. Each costs about 200 bytes of memory.
    pub count: usize,
    /// A key is forgotten this long after its record was received, in microseconds.
    pub window_micros: i64,
}

impl Default for KeyBounds {
    fn default() -> Self {
        Self {
            count: 1_000_000,
            window_micros: 24 * 3600 * 1_000_000,
        }
    }
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bound of the backlog in bytes: what lies between the checkpoint and the head. The files may take two
    /// segments more, since space is freed by whole segments, and 4 KiB for each.
    pub max_bytes: u64,
    /// Size of the first segment in bytes; each next one is twice as long.
    pub segment_min: u64,
    /// Size of the longest segment in bytes.
    pub segment_max: u64,
    /// A block takes requests until it holds this many bytes. More gives more throughput and longer waits.
    pub gather: usize,
    /// Bytes of the youngest blocks kept in memory for readers.
    pub cache: usize,
    /// The bounds of idempotency keys.
    pub keys: KeyBounds,
    /// The clock.
    pub clock: Clock,
    /// The identity of a journal that is made new; random if none.
    pub identity: Option<uuid::Uuid>,
}

impl Options {
    /// The defaults, with a bound and a clock.
    #[must_use]
    pub fn new(max_bytes: u64, clock: Clock) -> Self {
        Self {
            max_bytes,
            segment_min: 1 << 20,
            segment_max: 64 << 20,
            gather: 2 << 20,
            cache: 8 << 20,
            keys: KeyBounds::default(),
            clock,
            identity: None,
        }
    }
}

/// A torn tail, cut off at open. Nothing in it was ever acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where the log ends now.
    pub at: Lsn,
    /// Bytes on disk that were dropped.
    pub bytes: u64,
}

/// What was found at open.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The journal's identity, for the sinks' application ids.
    pub uuid: uuid::Uuid,
    /// The first position retained.
    pub first: Lsn,
    /// The end of the log.
    pub tail: Lsn,
    /// What was cut off, if anything.
    pub torn: Option<Torn>,
    /// Cumulative sums of the records' counters.
    pub counters: [u64; 4],
    /// The youngest checkpoint; the default one if there was none.
    pub checkpoint: Checkpoint,
    /// A checkpoint slot did not hold: the checkpoint may be older than the last one written.
    pub checkpoint_damaged: bool,
    /// Marks of attempts.
    pub attempts: Vec<(Lsn, Vec<u8>)>,
    /// Keys remembered.
    pub keys: usize,
    /// Snapshots of keys that do not hold; their keys are forgotten.
    pub damaged_snapshots: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Closing,
    Closed,
    Poisoned(String),
}

/// What readers and waiters watch.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub durable: u64,
    pub phase: Phase,
}

#[derive(Debug)]
pub(crate) struct State {
    pub phase: Phase,
    pub queue: VecDeque<Request>,
    pub next_request: u64,
    /// Bytes that the queue and the batch in flight may take as blocks, at most.
    pub promised: u64,
    pub scheduled: bool,
    pub idle_armed: bool,
    pub idle_due: bool,
    pub head: u64,
    pub last_record_end: u64,
    pub released: u64,
    pub totals: Totals,
    pub segments: VecDeque<Segment>,
    pub keys: KeyIndex,
    pub pending: HashMap<u128, Pending>,
    pub cache: Cache,
}

impl State {
    pub(crate) fn backlog(&self) -> u64 {
        self.head.saturating_sub(self.released) + self.promised
    }

    /// A position moved over what waits for nobody: the padding and the empty blocks after the last record.
    fn floor(&self, lsn: u64) -> u64 {
        if lsn >= self.last_record_end {
            self.head
        } else {
            lsn
        }
    }
}

#[derive(Debug)]
struct Upkeep {
    slots: Slots,
    snapshots: Snapshots,
}

/// A journal: one directory, one writer at a time, any number of readers.
pub struct Journal {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    dir: PathBuf,
    uuid: uuid::Uuid,
    pub(crate) writers: Writers,
    pub(crate) state: Mutex<State>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) progress: watch::Sender<Progress>,
    upkeep: Mutex<Upkeep>,
    attempts: Attempts,
    pub(crate) lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.dir)
            .field("uuid", &self.uuid)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens a journal, or makes one: locks the directory, recovers the log, cuts a torn tail, makes what is kept
    /// durable. Blocks on the disk; reads everything that is retained.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if somebody has it open, [`OpenError::Corrupt`] if something acknowledged cannot be
    /// read, [`OpenError::Foreign`] if a file is of another journal, [`OpenError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        writers: &Writers,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        disk.create_dir_all(dir)
            .map_err(OpenError::io("creating", dir))?;
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(lock_path.clone()),
            _ => OpenError::io("locking", &lock_path)(e),
        })?;
        let log = Log::recover(disk, dir, &options)?;
        let Log {
            disk,
            uuid,
            slots,
            snapshots,
            keys,
            tail,
            segments,
            attempts,
            recovered,
        } = log;

        let state = State {
            phase: Phase::Open,
            queue: VecDeque::new(),
            next_request: 0,
            promised: 0,
            scheduled: false,
            idle_armed: false,
            idle_due: false,
            head: tail.lsn,
            last_record_end: tail.last_record_end,
            released: recovered.first.0,
            totals: tail.totals,
            segments,
            keys,
            pending: HashMap::new(),
            cache: Cache::new(options.cache),
        };
        let place = Place {
            disk: disk.clone(),
            dir: dir.to_owned(),
            uuid,
            segment_min: options.segment_min,
            segment_max: options.segment_max,
        };
        let journal = Arc::new(Self {
            options,
            disk,
            dir: dir.to_owned(),
            uuid,
            writers: writers.clone(),
            state: Mutex::new(state),
            writer: Mutex::new(Writer::new(place, tail)),
            progress: watch::Sender::new(Progress {
                durable: tail.lsn,
                phase: Phase::Open,
            }),
            upkeep: Mutex::new(Upkeep { slots, snapshots }),
            attempts,
            lock: Mutex::new(Some(lock)),
        });
        if let Some(lowest) = recovered.checkpoint.lowest() {
            let mut state = journal.state.lock();
            state.released = state.released.max(state.floor(lowest.0));
        }
        if !tail.ends_empty {
            journal.arm_idle(&mut journal.state.lock());
        }
        Ok((journal, recovered))
    }

    /// The journal's identity.
    #[must_use]
    pub fn uuid(&self) -> uuid::Uuid {
        self.uuid
    }

    /// Everything below this position is on the device.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.state.lock().head)
    }

    /// The end of the last durable record; [`Journal::durable`] may lie beyond it, since blocks are padded.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.state.lock().last_record_end)
    }

    /// The first position retained.
    #[must_use]
    pub fn first(&self) -> Lsn {
        let state = self.state.lock();
        Lsn(state
            .segments
            .front()
            .map_or(state.head, |segment| segment.header.base))
    }

    /// Bytes between the checkpoint and the head, those promised to waiting appends included.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.state.lock().backlog()
    }

    /// The bound of the backlog, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Bytes of the segment files.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        self.state
            .lock()
            .segments
            .iter()
            .map(|segment| segment.file_len)
            .sum()
    }

    /// Cumulative sums of the durable records' counters, since the journal's birth.
    #[must_use]
    pub fn counters(&self) -> [u64; 4] {
        self.state.lock().totals
    }

    /// The checkpoint last written.
    #[must_use]
    pub fn last_checkpoint(&self) -> Checkpoint {
        self.upkeep.lock().slots.current.clone()
    }

    /// What is known of a key, if its record is durable and within the window.
    #[must_use]
    pub fn lookup(&self, hash: u128) -> Option<KeyState> {
        let now = self.options.clock.unix_micros();
        self.state.lock().keys.get(hash, now)
    }

    /// The marks of attempts.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Whether a failed write or sync has poisoned the journal.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Poisoned(_))
    }

    /// Waits until the journal is poisoned, and says why; waits for ever if that never happens. Cancel safe.
    pub async fn poisoned(&self) -> String {
        let mut progress = self.progress.subscribe();
        let seen = progress
            .wait_for(|p| matches!(p.phase, Phase::Poisoned(_)))
            .await;
        match seen.map(|p| p.phase.clone()) {
            Ok(Phase::Poisoned(why)) => why,
            _ => std::future::pending().await,
        }
    }

    /// Writes how far the sinks are, and syncs it; frees the bound up to the lowest position. Blocks on the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a position beyond the durable end or too many lanes; else what the disk
    /// says, and the last checkpoint still counts. A retry is safe.
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> io::Result<()> {
        let lowest = checkpoint.lowest();
        if checkpoint
            .highest()
            .is_some_and(|highest| highest > self.durable())
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a checkpoint beyond the durable end",
            ));
        }
        let slots = &mut self.upkeep.lock().slots;
        let at = lowest.map_or(0, |lowest| self.state.lock().floor(lowest.0));
        let floor = slots.floor.max(at);
        slots.write(&*self.disk, &self.dir, checkpoint, floor)?;
        let mut state = self.state.lock();
        state.released = state.released.max(floor);
        Ok(())
    }

    /// Removes the segments that lie wholly below `lsn` and below the checkpoint; their keys stay known. Returns the
    /// bytes given back. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says; what could not be removed is tried again by the next trim.
    pub fn trim(&self, lsn: Lsn) -> io::Result<u64> {
        let mut upkeep = self.upkeep.lock();
        let floor = upkeep.slots.floor;
        let snapshots = &mut upkeep.snapshots;
        let now = self.options.clock.unix_micros();
        let (victims, entries, range) = {
            let mut state = self.state.lock();
            state.keys.expire(now);
            let limit = lsn.0.min(floor);
            let sealed = state.segments.len().saturating_sub(1);
            let below = |segment: &&Segment| segment.end <= limit;
            let victims: Vec<_> = state
                .segments
                .iter()
                .take(sealed)
                .take_while(below)
                .cloned()
                .collect();
            let (Some(first), Some(last)) = (victims.first(), victims.last()) else {
                return Ok(0);
            };
            let from = if snapshots.crowded() {
                0
            } else {
                first.header.base
            };
            let entries = state.keys.range(from, last.end);
            let range = from..last.end;
            (victims, entries, range)
        };
        let merged = snapshots.crowded();
        snapshots.write(&*self.disk, &self.dir, self.uuid, range, &entries)?;
        let mut freed = 0;
        for victim in victims {
            // Oldest first and each one synced, so that no crash leaves a hole between segments.
            self.disk.remove_file(&victim.path)?;
            self.disk.sync_dir(&self.dir)?;
            self.state.lock().segments.pop_front();
            freed += victim.file_len;
        }
        let keys = &self.state.lock().keys;
        snapshots.prune(&*self.disk, &self.dir, keys, merged && !entries.is_empty())?;
        Ok(freed)
    }

    /// Refuses new appends, writes those that wait, then the empty block that vouches for the last one, and releases
    /// the lock. Cancel safe: the closing goes on.
    ///
    /// # Errors
    /// [`AppendError::Poisoned`] if the last writes failed.
    pub async fn close(self: &Arc<Self>) -> Result<(), AppendError> {
        let mut progress = self.progress.subscribe();
        self.begin_close();
        let end = progress
            .wait_for(|p| !matches!(p.phase, Phase::Open | Phase::Closing))
            .await;
        match end.map(|p| p.phase.clone()) {
            Ok(Phase::Poisoned(why)) => Err(AppendError::Poisoned(why)),
            _ => Ok(()),
        }
    }
}

/// What recovery hands to [`Journal::open`].
struct Log {
    disk: Arc<dyn Disk>,
    uuid: uuid::Uuid,
    slots: Slots,
    snapshots: Snapshots,
    keys: KeyIndex,
    tail: Tail,
    segments: VecDeque<Segment>,
    attempts: Attempts,
    recovered: Recovered,
}

impl Log {
    fn recover(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Self, OpenError> {
        remove_leftovers(&*disk, dir).map_err(OpenError::io("cleaning", dir))?;
        let read = checkpoint::read(&*disk, dir)
            .map_err(OpenError::io("reading the checkpoint in", dir))?;
        let candidates = recovery::candidates(&*disk, dir)?;
        let known = candidates
            .iter()
            .find_map(|c| c.header.as_ref().map(|header| header.uuid));
        let uuid = read
            .uuid
            .or(known)
            .or(options.identity)
            .unwrap_or_else(uuid::Uuid::new_v4);
        let foreign = candidates
            .iter()
            .find(|c| c.header.as_ref().is_some_and(|header| header.uuid != uuid));
        if let Some(foreign) = foreign {
            return Err(OpenError::Foreign(foreign.path.clone()));
        }
        let mut entries = Vec::new();
        let stated = read
            .checkpoint
            .as_ref()
            .and_then(Checkpoint::highest)
            .map(|lsn| lsn.0);
        let mut found = recovery::examine(candidates, stated, &mut |block| {
            collect_keys(&block, &mut entries)
        })?;
        check_front(&found, &read, dir)?;
        recovery::settle(&*disk, dir, &mut found)?;

        let tail = found.tail();
        let damaged = read.damaged;
        let slots = Slots::open(&*disk, dir, read, uuid)
            .map_err(OpenError::io("writing the checkpoint in", dir))?;
        let loaded = Snapshots::load(&*disk, dir, uuid, options.keys);
        let (snapshots, old, damaged_snapshots) =
            loaded.map_err(OpenError::io("reading keys in", dir))?;
        let mut keys = KeyIndex::new(options.keys);
        let first = found
            .segments
            .first()
            .map_or(tail.lsn, |(segment, _)| segment.header.base);
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
        let segments = found
            .segments
            .into_iter()
            .map(|(segment, _)| segment)
            .collect();
        Ok(Self {
            disk,
            uuid,
            slots,
            snapshots,
            keys,
            tail,
            segments,
            attempts,
            recovered,
        })
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
        let state = KeyState {
            start: Lsn(start),
            end: Lsn(end),
            checksum: key.checksum,
            note: key.note,
        };
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
    let (first, tail) = (
        found.segments.first().map(|(s, _)| s.header.base),
        found.tail().lsn,
    );
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
