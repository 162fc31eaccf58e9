//! The synchronous core of the object store: paths, staging, publishing, listing. Blocking; the callers own the
//! thread.
//!
//! Owns the set of directories known to be durable. It never overwrites a file in place and never shows a name
//! before the bytes behind it are synced.
//!
//! ```text
//! put:  open .staging/N ─► write ─► fsync ─► link | rename to its name ─► fsync directory ─► unlink .staging/N
//! ```

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use chrono::DateTime;
use forebay_journal::disk::{Disk, DiskFile, Open, is_no_space, read_full};
use object_store::path::Path;
use object_store::{Error, ListResult, ObjectMeta, PutPayload, PutResult, Result};
use parking_lot::Mutex;

/// Where files stand before they have a name. In the root, so that a link or rename stays in one file system; the
/// leading dot keeps it out of listings.
const STAGING: &str = ".staging";

/// The most directories remembered as durable; past it they are forgotten and synced once more.
const SETTLED_MAX: usize = 1 << 16;

/// What `store` says in errors.
pub(super) const STORE: &str = "DiskStore";

/// What happens when the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// Fail with `AlreadyExists`.
    Create,
    /// Replace it atomically.
    Replace,
}

#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    writable: bool,
    staged: AtomicU64,
    settled: Mutex<HashSet<PathBuf>>,
    poisoned: AtomicBool,
}

/// A file that has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Staged {
    disk: Arc<dyn Disk>,
    pub(super) file: Arc<dyn DiskFile>,
    path: PathBuf,
    gone: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.gone {
            // What stays behind is swept at the next open.
            drop(self.disk.remove_file(&self.path));
        }
    }
}

impl Files {
    pub(super) fn open(disk: Arc<dyn Disk>, root: PathBuf, writable: bool) -> io::Result<Self> {
        let files = Self {
            disk,
            root,
            writable,
            staged: AtomicU64::new(0),
            settled: Mutex::new(HashSet::new()),
            poisoned: AtomicBool::new(false),
        };
        if writable {
            let staging = files.root.join(STAGING);
            files.disk.create_dir_all(&staging)?;
            for entry in files.disk.read_dir(&staging)? {
                files.disk.remove_file(&staging.join(entry.name))?;
            }
        }
        Ok(files)
    }

    pub(super) fn root(&self) -> &FsPath {
        &self.root
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Where an object stands. A `Path` has no empty, `.` or `..` parts, so it cannot leave the root.
    fn place(&self, location: &Path) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(location.parts().map(|part| part.as_ref().to_owned()));
        path
    }

    fn check(&self, location: &Path) -> Result<()> {
        if self.is_poisoned() {
            let source = "a directory could not be synced earlier, so what it shows may not be on disk; restart";
            return Err(Error::Generic { store: STORE, source: source.into() });
        }
        if location.parts().next().is_none_or(|part| part.as_ref() == STAGING) {
            let source = io::Error::from(io::ErrorKind::NotFound).into();
            return Err(Error::NotFound { path: location.to_string(), source });
        }
        Ok(())
    }

    fn check_write(&self, location: &Path) -> Result<()> {
        self.check(location)?;
        if self.writable {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into();
        Err(Error::PermissionDenied { path: location.to_string(), source })
    }

    /// Makes what this process finds in a directory durable, once: it may be the last act of a process that was
    /// killed between link and fsync, seen in the page cache and not yet on disk.
    fn settle(&self, dir: &FsPath) -> io::Result<()> {
        if !self.writable || self.settled.lock().contains(dir) {
            return Ok(());
        }
        let inside = dir.strip_prefix(&self.root).unwrap_or(FsPath::new(""));
        let mut at = self.root.clone();
        let mut chain = vec![at.clone()];
        for part in inside {
            at.push(part);
            chain.push(at.clone());
        }
        for dir in chain {
            if !self.settled.lock().contains(&dir) {
                self.sync_dir(&dir)?;
                let mut settled = self.settled.lock();
                if settled.len() >= SETTLED_MAX {
                    settled.clear();
                }
                settled.insert(dir);
            }
        }
        Ok(())
    }

    /// After a failed sync the directory shows names that may not be on disk, and a second sync proves nothing.
    fn sync_dir(&self, dir: &FsPath) -> io::Result<()> {
        self.disk.sync_dir(dir).inspect_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                self.poisoned.store(true, Ordering::Release);
            }
        })
    }

    pub(super) fn stage(&self, location: &Path) -> Result<Staged> {
        self.check_write(location)?;
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(STAGING).join(number.to_string());
        let file = self.disk.open(&path, Open::CreateNew).map_err(|e| error(location, e))?;
        Ok(Staged { disk: Arc::clone(&self.disk), file, path, gone: false })
    }

    /// Syncs a staged file and gives it its name; durable on return.
    pub(super) fn publish(
        &self,
        mut staged: Staged,
        location: &Path,
        how: Publish,
    ) -> Result<PutResult> {
        let size = self.finish(&mut staged, location, how).map_err(|e| error(location, e))?;
        let meta = self.disk.metadata(&self.place(location)).map_err(|e| error(location, e))?;
        Ok(PutResult { e_tag: Some(e_tag(meta.modified_unix_micros, size)), version: None })
    }

    fn finish(&self, staged: &mut Staged, location: &Path, how: Publish) -> io::Result<u64> {
        staged.file.sync_data()?;
        let size = staged.file.len()?;
        let to = self.place(location);
        let dir = to.parent().unwrap_or(&self.root);
        self.disk.create_dir_all(dir)?;
        self.settle(dir)?;
        match how {
            Publish::Create => self.disk.link(&staged.path, &to)?,
            Publish::Replace => {
                self.disk.rename(&staged.path, &to)?;
                staged.gone = true;
            }
        }
        self.sync_dir(dir)?;
        Ok(size)
    }

    pub(super) fn put(
        &self,
        location: &Path,
        payload: &PutPayload,
        how: Publish,
    ) -> Result<PutResult> {
        let staged = self.stage(location)?;
        let mut at = 0;
        for chunk in payload {
            staged.file.write_all_at(chunk, at).map_err(|e| error(location, e))?;
            at += chunk.len() as u64;
        }
        self.publish(staged, location, how)
    }

    /// Opens an object and tells what it is.
    pub(super) fn head(&self, location: &Path) -> Result<(Arc<dyn DiskFile>, ObjectMeta)> {
        self.check(location)?;
        let path = self.place(location);
        let opened = || {
            let meta = self.disk.metadata(&path)?;
            if meta.is_dir {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.settle(path.parent().unwrap_or(&self.root))?;
            let file = self.disk.open(&path, Open::Read)?;
            let size = file.len()?;
            Ok((file, object(location.clone(), meta.modified_unix_micros, size)))
        };
        opened().map_err(|e| error(location, e))
    }

    pub(super) fn remove(&self, location: &Path) -> Result<()> {
        self.check_write(location)?;
        self.disk.remove_file(&self.place(location)).map_err(|e| error(location, e))
    }

    /// Removes a directory with all it holds; durable on return. Missing is fine.
    pub(super) fn remove_prefix(&self, prefix: &Path) -> Result<()> {
        self.check_write(prefix)?;
        let dir = self.place(prefix);
        let removed = match self.disk.remove_dir_all(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => Err(e),
            Ok(()) => self.sync_dir(dir.parent().unwrap_or(&self.root)),
        };
        self.settled.lock().retain(|known| !known.starts_with(&dir));
        removed.map_err(|e| error(prefix, e))
    }

    pub(super) fn copy(&self, from: &Path, to: &Path, how: Publish) -> Result<()> {
        self.check_write(to)?;
        let (_, _) = self.head(from)?;
        let source = self.place(from);
        let mut staged = self.stage(to)?;
        // The staged name becomes a second link to the source: contents are never changed in place.
        let swap = self
            .disk
            .remove_file(&staged.path)
            .and_then(|()| self.disk.link(&source, &staged.path));
        swap.map_err(|e| error(from, e))?;
        staged.file = self.disk.open(&staged.path, Open::Read).map_err(|e| error(to, e))?;
        self.publish(staged, to, how).map(drop)
    }

    /// Objects under a prefix, sorted by location; those after `offset` only. Holds the whole listing in memory.
    pub(super) fn list(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
    ) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut todo = vec![prefix.cloned().unwrap_or_default()];
        while let Some(dir) = todo.pop() {
            for (location, entry) in self.entries(&dir)? {
                if entry.is_dir {
                    todo.push(location);
                } else if offset.is_none_or(|offset| location > *offset) {
                    found.push(object(location, entry.modified_unix_micros, entry.len));
                }
            }
        }
        found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    pub(super) fn list_one(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        for (location, entry) in self.entries(&prefix)? {
            if entry.is_dir {
                result.common_prefixes.push(location);
            } else {
                result.objects.push(object(location, entry.modified_unix_micros, entry.len));
            }
        }
        Ok(result)
    }

    fn entries(&self, dir: &Path) -> Result<Vec<(Path, forebay_journal::disk::DirEntry)>> {
        if dir.parts().next().is_some() {
            self.check(dir)?;
        }
        let path = self.place(dir);
        let read = || {
            if !self.disk.metadata(&path)?.is_dir {
                return Ok(Vec::new());
            }
            self.settle(&path)?;
            self.disk.read_dir(&path)
        };
        let entries = match read() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|e| error(dir, e))?,
        };
        let top = dir.parts().next().is_none();
        let visible = entries.into_iter().filter(|entry| !(top && entry.name == STAGING));
        // A name that no location can spell was not put here by this store.
        Ok(visible
            .filter_map(|entry| {
                let name = if top { entry.name.clone() } else { format!("{dir}/{}", entry.name) };
                Path::parse(name).ok().map(|location| (location, entry))
            })
            .collect())
    }
}

/// Reads a range of a file; shorter than the range only when the file is.
pub(super) fn read(file: &dyn DiskFile, location: &Path, range: Range<u64>) -> Result<Bytes> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    let mut buffer = vec![0; len];
    let done = read_full(file, &mut buffer, range.start).map_err(|e| error(location, e))?;
    buffer.truncate(done);
    Ok(buffer.into())
}

fn object(location: Path, modified_unix_micros: i64, size: u64) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: DateTime::from_timestamp_micros(modified_unix_micros).unwrap_or_default(),
        size,
        e_tag: Some(e_tag(modified_unix_micros, size)),
        version: None,
    }
}

fn e_tag(modified_unix_micros: i64, size: u64) -> String {
    format!("\"{modified_unix_micros:x}-{size:x}\"")
}

/// Keeps the `io::Error` as the source, so that a full disk is recognised above.
pub(super) fn error(location: &Path, source: io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::NotFound { path, source: source.into() }
        }
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: STORE, source: Box::new(AtPath { path, source }) },
    }
}

/// An I/O error and the object it happened at.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
struct AtPath {
    path: String,
    source: io::Error,
}

/// Whether the device or the quota is full, anywhere in an error's chain of causes.
pub fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_no_space) {
            return true;
        }
        cause = error.source();
    }
    false
}
