//! A local object store that really syncs: what it acknowledges survives a power cut.
//!
//! The stock local store never calls fsync, and stages then links, so that a wrapper cannot sync in between. Here
//! every object is written to a staged file, synced, given its name by link or rename, and the directory is synced,
//! before a put returns. A directory this process did not write yet is synced when it is first looked into.
//!
//! Owns the tree below its root while open for writing (the caller holds the data directory's lock). It never
//! overwrites a file in place. All file work runs on the threads of one pool: a checkpoint that reads a hundred entries
//! of the log asks for all of them at once, and must not start a hundred threads for it. What waits for a place holds no
//! thread. A dropped future does not stop work that has begun, so the outcome of a cancelled put is unknown.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_flow::pool::ThreadPool;
use forebay_journal::disk::{Disk, DiskFile};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, RenameTargetMode, Result,
};

mod files;
mod upload;

pub use files::is_full;
use files::{Files, Publish, STORE};

/// Objects up to this size are read at once; longer ones in pieces of it.
const READ_PIECE: u64 = 4 << 20;

/// Deletions in flight of one `delete_stream`.
const DELETES: usize = 8;

/// An object store over a directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskStore {
    files: Arc<Files>,
    threads: ThreadPool,
}

impl DiskStore {
    /// Opens a directory for reading and writing, creates it if missing, and sweeps what unfinished puts left.
    /// Blocking; later work runs on `threads`, whose jobs must wait for nothing but disks.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: Arc<dyn Disk>, root: PathBuf, threads: &ThreadPool) -> io::Result<Self> {
        let threads = threads.clone();
        Ok(Self { files: Arc::new(Files::open(disk, root, true)?), threads })
    }

    /// Opens a directory for reading, beside the process that may be writing it. Touches nothing.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read_only(disk: Arc<dyn Disk>, root: PathBuf, threads: &ThreadPool) -> io::Result<Self> {
        let threads = threads.clone();
        Ok(Self { files: Arc::new(Files::open(disk, root, false)?), threads })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &FsPath {
        self.files.root()
    }

    /// Whether syncing a directory failed: what the store shows may not be on disk, everything is refused, and only
    /// a new process may read what is really there.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.files.is_poisoned()
    }

    /// Removes everything under a prefix, durably. Missing is fine.
    ///
    /// # Errors
    /// Those of the disk; part of it may be gone then.
    pub async fn remove_prefix(&self, prefix: &Path) -> Result<()> {
        let prefix = prefix.clone();
        self.with(move |files| files.remove_prefix(&prefix)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let files = Arc::clone(&self.files);
        on(&self.threads, move || work(&files)).await
    }

    fn listing(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned(), offset.cloned());
        let all = async move {
            store.with(move |files| files.list(prefix.as_ref(), offset.as_ref())).await
        };
        stream::once(all).map_ok(|found| stream::iter(found).map(Ok)).try_flatten().boxed()
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskStore({})", self.files.root().display())
    }
}

/// Runs file work on the pool.
async fn on<T: Send + 'static>(
    threads: &ThreadPool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match threads.run(work).await {
        Ok(result) => result,
        Err(source) => Err(Error::Generic { store: STORE, source: source.into() }),
    }
}

fn no_attributes(attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    Err(Error::NotImplemented {
        operation: "attributes of objects".into(),
        implementer: STORE.into(),
    })
}

/// The bytes of a range, in pieces.
fn pieces(
    threads: ThreadPool,
    file: Arc<dyn DiskFile>,
    location: Path,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(range.start, move |at| {
        let (threads, file) = (threads.clone(), Arc::clone(&file));
        let (location, end) = (location.clone(), range.end);
        async move {
            if at >= end {
                return Ok(None);
            }
            let to = end.min(at.saturating_add(READ_PIECE));
            let read = move || files::read(&*file, &location, at..to);
            let piece = on(&threads, read).await?;
            // A file cut short under a reader ends the stream; the length then tells.
            Ok((!piece.is_empty()).then(|| (piece.clone(), at + piece.len() as u64)))
        }
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for DiskStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        no_attributes(&opts.attributes)?;
        let how = match opts.mode {
            PutMode::Create => Publish::Create,
            PutMode::Overwrite => Publish::Replace,
            PutMode::Update(_) => {
                let operation = "put by compare and swap".into();
                return Err(Error::NotImplemented { operation, implementer: STORE.into() });
            }
        };
        let location = location.clone();
        self.with(move |files| files.put(&location, &payload, how)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        no_attributes(&opts.attributes)?;
        let place = location.clone();
        let staged = self.with(move |files| files.stage(&place)).await?;
        Ok(Box::new(upload::Upload::new(self.clone(), location.clone(), staged)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let place = location.clone();
        let (file, meta, range, first) = self
            .with(move |files| {
                let (file, meta) = files.head(&place)?;
                options.check_preconditions(&meta)?;
                let range = match &options.range {
                    Some(range) => range
                        .as_range(meta.size)
                        .map_err(|source| Error::Generic { store: STORE, source: source.into() })?,
                    None => 0..meta.size,
                };
                let small = !options.head && range.end - range.start <= READ_PIECE;
                let first =
                    if small { Some(files::read(&*file, &place, range.clone())?) } else { None };
                Ok((file, meta, range, first))
            })
            .await?;
        let bytes = match first {
            Some(bytes) => stream::once(std::future::ready(Ok(bytes))).boxed(),
            None => pieces(self.threads.clone(), file, location.clone(), range.clone()),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(bytes),
            meta,
            range,
            attributes: Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (place, ranges) = (location.clone(), ranges.to_vec());
        self.with(move |files| {
            let (file, meta) = files.head(&place)?;
            let read = |range: Range<u64>| {
                if range.start > range.end || range.end > meta.size {
                    let source = format!("{place}: bytes {range:?} of {}", meta.size);
                    return Err(Error::Generic { store: STORE, source: source.into() });
                }
                files::read(&*file, &place, range)
            };
            ranges.into_iter().map(read).collect()
        })
        .await
    }

    /// Removes objects. A power cut may bring some back: nothing here depends on a name being gone.
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let place = location.clone();
                    store.with(move |files| files.remove(&place)).await?;
                    Ok(location)
                }
            })
            .buffered(DELETES)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned();
        self.with(move |files| files.list_one(prefix.as_ref())).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let how = match options.mode {
            CopyMode::Create => Publish::Create,
            CopyMode::Overwrite => Publish::Replace,
        };
        let (from, to) = (from.clone(), to.clone());
        self.with(move |files| files.copy(&from, &to, how)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let how = match options.target_mode {
            RenameTargetMode::Create => Publish::Create,
            RenameTargetMode::Overwrite => Publish::Replace,
        };
        let (from, to) = (from.clone(), to.clone());
        self.with(move |files| {
            files.copy(&from, &to, how)?;
            if from == to { Ok(()) } else { files.remove(&from) }
        })
        .await
    }
}
