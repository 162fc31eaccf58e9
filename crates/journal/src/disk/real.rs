//! The kernel's file system. Owns no state but the optional faults of `[faults]`; never syncs unasked, except the
//! parents of directories that it creates.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use forebay_flow::clock::{self, Instant};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use super::{DirEntry, Disk, DiskFile, Metadata, Open, write_all};

/// Faults on purpose, for tests from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes are slowed to this rate, over all files of the disk.
    pub bytes_per_second: Option<u64>,
    /// Once this many bytes were written, each write and sync fails with EIO.
    pub error_after_bytes: Option<u64>,
    /// Once this many bytes were written, each write fails with ENOSPC.
    pub full_after_bytes: Option<u64>,
}

/// The kernel's file system.
#[derive(Clone, Debug, Default)]
pub struct RealDisk {
    meter: Option<Arc<Meter>>,
}

impl RealDisk {
    /// A disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with faults on purpose; clones share the counters.
    #[must_use]
    pub fn with_faults(faults: Faults) -> Self {
        Self { meter: Some(Arc::new(Meter { faults, state: Mutex::default() })) }
    }
}

#[derive(Debug, Default)]
struct MeterState {
    written: u64,
    free_at: Option<Instant>,
}

#[derive(Debug)]
struct Meter {
    faults: Faults,
    state: Mutex<MeterState>,
}

impl Meter {
    /// Charges a write; waits for its turn at the metered rate.
    fn charge(&self, bytes: usize) -> io::Result<()> {
        let wait = {
            let mut state = self.state.lock();
            state.written = state.written.saturating_add(bytes as u64);
            if self.faults.error_after_bytes.is_some_and(|max| state.written > max) {
                return Err(rustix::io::Errno::IO.into());
            }
            if self.faults.full_after_bytes.is_some_and(|max| state.written > max) {
                return Err(rustix::io::Errno::NOSPC.into());
            }
            let Some(rate) = self.faults.bytes_per_second else {
                return Ok(());
            };
            let now = clock::now();
            let start = state.free_at.map_or(now, |at| at.max(now));
            let end = start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            state.free_at = Some(end);
            end - now
        };
        std::thread::sleep(wait);
        Ok(())
    }

    fn check_sync(&self) -> io::Result<()> {
        let written = self.state.lock().written;
        match self.faults.error_after_bytes {
            Some(max) if written > max => Err(rustix::io::Errno::IO.into()),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    meter: Option<Arc<Meter>>,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Some(meter) = &self.meter {
            meter.charge(buf.len())?;
        }
        write_all(|rest, at| self.file.write_at(rest, at), buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(meter) = &self.meter {
            meter.check_sync()?;
        }
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::CreateNew => options.write(true).create_new(true),
            Open::CreateOrTruncate => options.write(true).create(true).truncate(true),
        };
        let file = options.open(path)?;
        Ok(Arc::new(RealFile { file, meter: self.meter.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.create_dir_all(parent)?;
        match std::fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(parent)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => metadata(&other?),
            };
            entries.push(DirEntry {
                name,
                is_dir: meta.is_dir,
                len: meta.len,
                modified_unix_micros: meta.modified_unix_micros,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Ok(metadata(&std::fs::metadata(path)?))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

fn metadata(meta: &std::fs::Metadata) -> Metadata {
    let micros = match meta.modified().map(|at| at.duration_since(UNIX_EPOCH)) {
        Ok(Ok(since)) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Ok(Err(before)) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        Err(_) => 0,
    };
    Metadata { len: meta.len(), is_dir: meta.is_dir(), modified_unix_micros: micros }
}
