//! A journal on a simulated disk whose writer runs only when told to, on the test's thread.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_journal::disk::{Disk, DiskFile, Open, SimDisk};
use forebay_journal::{
    Append, AppendError, Appended, Clock, Journal, Key, Lsn, OpenError, Options, Record, Recovered,
    Writers,
};

pub const NOW: i64 = 1_700_000_000_000_000;

pub struct Rig {
    pub disk: SimDisk,
    pub dir: PathBuf,
    pub writers: Writers,
    pub clock: Arc<AtomicI64>,
    pub options: Options,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub fn new(seed: u64) -> Self {
        let clock = Arc::new(AtomicI64::new(NOW));
        let now = clock.clone();
        let mut options = Options::new(1 << 20, Clock::new(move || now.load(Ordering::Relaxed)));
        options.segment_min = 16 << 10;
        options.segment_max = 32 << 10;
        options.cache = 16 << 10;
        options.identity = Some(uuid::Uuid::from_u128(u128::from(seed) | 1 << 80));
        Self {
            disk: SimDisk::new(seed),
            dir: PathBuf::from("/journals/one"),
            writers: Writers::start(&forebay_flow::Ctx::root("test"), 0).unwrap(),
            clock,
            options,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    pub fn try_open(&self) -> Result<(Arc<Journal>, Recovered), OpenError> {
        Journal::open(Arc::new(self.disk.clone()), &self.dir, self.options.clone(), &self.writers)
    }

    #[track_caller]
    pub fn open(&self) -> (Arc<Journal>, Recovered) {
        self.try_open().unwrap()
    }

    /// Runs the writer until the future is ready.
    #[track_caller]
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            assert!(self.writers.step(), "F5: a wait with nobody to end it");
        }
    }

    /// Waits for a future that reads from disk.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    #[track_caller]
    pub fn put(&self, journal: &Arc<Journal>, payload: impl Into<Bytes>) -> Appended {
        self.drive(journal.append(plain(payload))).unwrap()
    }

    pub fn try_put(&self, journal: &Arc<Journal>, append: Append) -> Result<Appended, AppendError> {
        self.drive(journal.append(append))
    }

    /// Fires the idle timers and lets the writer act on them.
    pub fn quiet(&self) {
        self.writers.tick_idle();
        while self.writers.step() {}
    }

    /// Everything durable from a position on.
    #[track_caller]
    pub fn read(&self, journal: &Arc<Journal>, from: Lsn) -> Vec<Record> {
        let mut reader = journal.reader(from);
        let mut records = Vec::new();
        while let Some(record) = self.wait(reader.try_next()).unwrap() {
            records.push(record);
        }
        records
    }

    #[track_caller]
    pub fn payloads(&self, journal: &Arc<Journal>) -> Vec<Bytes> {
        self.read(journal, journal.first()).into_iter().map(|record| record.payload).collect()
    }

    /// Names of the segment files, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        let entries = self.disk.read_dir(&self.dir).unwrap();
        entries
            .into_iter()
            .filter(|e| e.name.starts_with("seg-"))
            .map(|e| self.dir.join(e.name))
            .collect()
    }

    pub fn last_segment(&self) -> PathBuf {
        self.segments().pop().unwrap()
    }

    pub fn bytes_of(&self, path: &std::path::Path) -> Vec<u8> {
        forebay_journal::disk::read_file(&self.disk, path, usize::MAX).unwrap()
    }

    /// Replaces a file's bytes, durably.
    pub fn rewrite(&self, path: &std::path::Path, bytes: &[u8]) {
        let file: Arc<dyn DiskFile> = self.disk.open(path, Open::CreateOrTruncate).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
        self.disk.sync_dir(&self.dir).unwrap();
    }
}

pub fn plain(payload: impl Into<Bytes>) -> Append {
    let payload = payload.into();
    let len = u32::try_from(payload.len()).unwrap();
    Append { kind: 1, received_unix_micros: NOW, key: None, counters: [1, len, 0, 0], payload }
}

pub fn keyed(hash: u128, payload: impl Into<Bytes>) -> Append {
    Append { key: Some(Key { hash, checksum: 7, note: 9 }), ..plain(payload) }
}

/// Offset in a segment file of the block at a distance from the base.
pub const fn block_at(distance: usize) -> usize {
    4096 + distance
}

/// Writes the CRC of a structure anew after a change: the CRC stands at `crc` and covers all before it.
pub fn reseal(bytes: &mut [u8], crc: usize) {
    let sum = crc32c::crc32c(&bytes[..crc]);
    bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
}
