//! The file-system seam: what the journal, and everything else that must survive a power cut, asks of a disk.
//!
//! Two implementations: [`RealDisk`] (the kernel) and [`SimDisk`] (memory, with a live and a durable plane and
//! faults from a seed). Neither owns anything of the journal's; neither syncs behind the caller's back, except
//! where a method says so.

mod real;
mod sim;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::{Faults, RealDisk};
pub use sim::{NoSpace, SimDisk, is_power_cut};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
    /// A file created, or cut to nothing if it exists, for reading and writing.
    CreateOrTruncate,
}

/// What is known of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; of a directory, whatever the file system says.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Last modification, in microseconds since 1970 (UTC).
    pub modified_unix_micros: i64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name, without the directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes.
    pub len: u64,
    /// Last modification, in microseconds since 1970 (UTC).
    pub modified_unix_micros: i64,
}

/// What the journal (and everything that must survive a power cut) asks of a file system. Blocking; callers own the
/// thread.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file. Creating one does not make its directory entry durable: see [`Disk::sync_dir`].
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames, replacing `to`. Atomic, and durable only after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a hard link; [`io::ErrorKind::AlreadyExists`] if `to` exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents, and syncs each parent in which it made an entry.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all it holds.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// What is known of a path.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Takes an exclusive lock on a file, which is created if missing; released on drop.
    /// [`io::ErrorKind::WouldBlock`] when somebody holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Blocking; positions are explicit, so one handle serves many threads.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset; returns fewer bytes than asked only at the end of the file or when interrupted.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at an offset; short writes and interruptions are continued. After an error any part of it
    /// may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes data and length durable (fdatasync). After an error what is durable is unknown, and a second call that
    /// succeeds proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes, or as many as the file has from `offset`; returns how many.
///
/// # Errors
/// Those of [`DiskFile::read_at`], save interruption.
pub fn read_full(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads a whole file of at most `max` bytes; a longer one is cut there.
///
/// # Errors
/// Those of opening and reading.
pub fn read_file(disk: &dyn Disk, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(max);
    let mut bytes = vec![0; len];
    let n = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Replaces a file by rename: writes `<path>.tmp`, syncs it, renames it, syncs the directory. A crash leaves the old
/// content or the new one.
///
/// # Errors
/// Those of the steps; the old content is still there unless the last step failed.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = Path::new(&name);
    let file = disk.open(tmp, Open::CreateOrTruncate)?;
    let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
    if let Err(e) = written {
        drop(disk.remove_file(tmp));
        return Err(e);
    }
    disk.rename(tmp, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Whether an error says that the device or the quota is full.
#[must_use]
pub fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Continues short and interrupted writes until all of `buf` is written.
fn write_all(
    mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
    buf: &[u8],
    offset: u64,
) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
        match write(rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
