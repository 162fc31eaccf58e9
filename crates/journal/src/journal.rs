//! The journal as its owner sees it: open, positions, checkpoint, trim, close. Owns the state that appends, the
//! writer's turns and readers share; the work of each is in its own module.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::append::{Pending, Request};
use crate::cache::Cache;
use crate::checkpoint::Slots;
use crate::disk::Disk;
use crate::format::Totals;
use crate::keys::{KeyIndex, KeyRoom, KeyState, Snapshots};
use crate::open::Log;
use crate::recovery::Segment;
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

/// Is told durations. Called on a writer's thread: it counts, and returns at once.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(Duration) + Send + Sync>>);

impl Observer {
    /// Calls `observe` with each duration.
    pub fn new(observe: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    pub(crate) fn observe(&self, took: Duration) {
        if let Some(observe) = &self.0 {
            observe(took);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// How many idempotency keys are remembered, and for how long.
#[derive(Clone, Debug)]
pub struct KeyBounds {
    /// Keys at most. Each costs [`KeyRoom::KEY_BYTES`] of memory.
    pub count: usize,
    /// What all journals of the process keep together.
    pub room: KeyRoom,
    /// A key is forgotten this long after its record was received, in microseconds.
    pub window_micros: i64,
}

impl Default for KeyBounds {
    fn default() -> Self {
        let count = 1_000_000;
        Self { count, room: KeyRoom::new(count), window_micros: 24 * 3600 * 1_000_000 }
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
    /// Size of the longest segment in bytes; at most a quarter of `max_bytes`, if that is not below `segment_min`.
    pub segment_max: u64,
    /// A block takes requests until it holds this many bytes. More gives more throughput and longer waits.
    pub gather: usize,
    /// Bytes of the youngest blocks kept in memory for readers.
    pub cache: usize,
    /// The bounds of idempotency keys.
    pub keys: KeyBounds,
    /// The clock.
    pub clock: Clock,
    /// Told how long each group commit took to write and sync.
    pub synced: Observer,
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
            synced: Observer::default(),
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
        if lsn >= self.last_record_end { self.head } else { lsn }
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
        disk.create_dir_all(dir).map_err(OpenError::io("creating", dir))?;
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(lock_path.clone()),
            _ => OpenError::io("locking", &lock_path)(e),
        })?;
        let log = Log::recover(disk, dir, &options)?;
        let Log { disk, uuid, slots, snapshots, keys, tail, segments, attempts, recovered } = log;

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
            segment_max: options.segment_max.min(options.max_bytes / 4).max(options.segment_min),
        };
        let journal = Arc::new(Self {
            options,
            disk,
            dir: dir.to_owned(),
            uuid,
            writers: writers.clone(),
            state: Mutex::new(state),
            writer: Mutex::new(Writer::new(place, tail)),
            progress: watch::Sender::new(Progress { durable: tail.lsn, phase: Phase::Open }),
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
        Lsn(state.segments.front().map_or(state.head, |segment| segment.header.base))
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
        self.state.lock().segments.iter().map(|segment| segment.file_len).sum()
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

    /// Forgets the keys that have left the window, so that other journals have the room.
    pub fn expire_keys(&self) {
        let now = self.options.clock.unix_micros();
        self.state.lock().keys.expire(now);
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

    /// Waits until the journal is poisoned, and says why; `None` when it is closed instead. Cancel safe.
    pub async fn poisoned(&self) -> Option<String> {
        let mut progress = self.progress.subscribe();
        let over = |p: &Progress| matches!(p.phase, Phase::Poisoned(_) | Phase::Closed);
        match progress.wait_for(over).await.map(|p| p.phase.clone()) {
            Ok(Phase::Poisoned(why)) => Some(why),
            _ => None,
        }
    }

    /// Writes how far the sinks are, and syncs it; frees the bound up to the lowest position. Blocks on the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a position beyond the durable end or too many lanes; else what the disk
    /// says, and the last checkpoint still counts. A retry is safe.
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> io::Result<()> {
        let lowest = checkpoint.lowest();
        if checkpoint.highest().is_some_and(|highest| highest > self.durable()) {
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
            let victims: Vec<_> =
                state.segments.iter().take(sealed).take_while(below).cloned().collect();
            let (Some(first), Some(last)) = (victims.first(), victims.last()) else {
                return Ok(0);
            };
            let from = if snapshots.crowded() { 0 } else { first.header.base };
            let entries = state.keys.range(from, last.end);
            let range = from..last.end;
            (victims, entries, range)
        };
        let merged = snapshots.crowded();
        snapshots.write(&*self.disk, &self.dir, self.uuid, range, &entries)?;
        let mut freed = 0;
        for victim in victims {
            // Oldest first and each one synced, so that no crash leaves a hole between segments.
            match self.disk.remove_file(&victim.path) {
                // An earlier trim removed it, and failed after that.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
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
        let end = progress.wait_for(|p| !matches!(p.phase, Phase::Open | Phase::Closing)).await;
        match end.map(|p| p.phase.clone()) {
            Ok(Phase::Poisoned(why)) => Err(AppendError::Poisoned(why)),
            _ => Ok(()),
        }
    }
}
