//! The store that syncs: the order of its operations, what it refuses, and that it behaves as object stores do.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use bytes::Bytes;
use forebay_journal::disk::{DirEntry, Disk, DiskFile, Metadata, NoSpace, Open, RealDisk, SimDisk};
use forebay_pipeline::sink::delta::{DeltaOptions, DeltaSink, lake_url};
use forebay_pipeline::sink::disk_store::{DiskStore, is_full};
use forebay_pipeline::sink::{Sink, SinkError};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode};

use crate::support::{APP, THREADS, assert_exactly, flush, threads};

/// What was asked of a disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    Write(PathBuf),
    SyncFile(PathBuf),
    Name { from: PathBuf, to: PathBuf },
    SyncDir(PathBuf),
}

type Ops = Arc<Mutex<Vec<Op>>>;

/// A disk that writes down what it is asked.
#[derive(Debug, Default)]
struct Recorder {
    disk: RealDisk,
    ops: Ops,
    /// Who opened files.
    openers: Arc<Mutex<HashSet<ThreadId>>>,
    no_dir_syncs: Arc<AtomicBool>,
}

#[derive(Debug)]
struct RecordedFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    ops: Ops,
}

impl Recorder {
    fn note(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }
}

impl DiskFile for RecordedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.ops.lock().unwrap().push(Op::Write(self.path.clone()));
        self.file.write_all_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.ops.lock().unwrap().push(Op::SyncFile(self.path.clone()));
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl Disk for Recorder {
    fn open(&self, path: &FsPath, mode: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.openers.lock().unwrap().insert(std::thread::current().id());
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(RecordedFile { file, path: path.to_owned(), ops: Arc::clone(&self.ops) }))
    }
    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.note(Op::Name { from: from.to_owned(), to: to.to_owned() });
        self.disk.rename(from, to)
    }
    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.note(Op::Name { from: from.to_owned(), to: to.to_owned() });
        self.disk.link(from, to)
    }
    fn remove_file(&self, path: &FsPath) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn create_dir_all(&self, path: &FsPath) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn remove_dir_all(&self, path: &FsPath) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &FsPath) -> io::Result<()> {
        if self.no_dir_syncs.load(Ordering::Relaxed) {
            return Err(io::Error::other("EIO on purpose"));
        }
        self.disk.sync_dir(path)?;
        self.note(Op::SyncDir(path.to_owned()));
        Ok(())
    }
    fn read_dir(&self, path: &FsPath) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn metadata(&self, path: &FsPath) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }
    fn lock(&self, path: &FsPath) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

/// Every name was given to a synced file, and its directory was synced after it. Returns the names, in order.
fn assert_synced(ops: &[Op]) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let Op::Name { from, to } = op else { continue };
        let synced = ops[..at].iter().rposition(|op| *op == Op::SyncFile(from.clone()));
        let written = ops[..at].iter().rposition(|op| *op == Op::Write(from.clone()));
        assert!(
            synced.is_some() && synced > written,
            "F1: {} was named before it was synced",
            to.display()
        );
        let dir = Op::SyncDir(to.parent().unwrap().to_owned());
        assert!(ops[at..].contains(&dir), "F1: the directory of {} was not synced", to.display());
        names.push(to.clone());
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_commit_returns_after_its_files_and_then_its_log_entry_are_synced() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let ops = Arc::clone(&recorder.ops);
    let store = DiskStore::open(Arc::new(recorder), dir.path().to_owned(), &threads()).unwrap();
    let options = DeltaOptions { checkpoint_every: 3, ..DeltaOptions::standalone().unwrap() };
    let sink = DeltaSink::new(Arc::new(store), &lake_url("t").unwrap(), options).unwrap();
    for n in 0..4 {
        ops.lock().unwrap().clear();
        sink.commit(flush(n * 10, n * 10 + 10)).await.unwrap();
        let names = assert_synced(&ops.lock().unwrap());
        let entry =
            names.iter().position(|name| name.extension().is_some_and(|e| e == "json")).unwrap();
        let data = names.iter().position(|name| name.to_string_lossy().contains("part-")).unwrap();
        assert!(data < entry, "the entry refers to the file: {names:?}");
        let checkpoint = names.iter().any(|name| name.to_string_lossy().contains("checkpoint"));
        assert_eq!(checkpoint, n == 2, "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_a_checkpoint_reads_a_long_log_with_no_more_threads_than_the_store_has() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let openers = Arc::clone(&recorder.openers);
    let store = DiskStore::open(Arc::new(recorder), dir.path().to_owned(), &threads()).unwrap();
    let options = DeltaOptions { checkpoint_every: 40, ..DeltaOptions::standalone().unwrap() };
    let sink = DeltaSink::new(Arc::new(store), &lake_url("t").unwrap(), options).unwrap();
    openers.lock().unwrap().clear();
    for n in 0..40 {
        sink.commit(flush(n * 10, n * 10 + 10)).await.unwrap();
    }
    assert!(dir.path().join("t/_delta_log/_last_checkpoint").is_file());
    let openers = openers.lock().unwrap().len();
    assert!(openers <= THREADS, "F3: {openers} threads opened files");
}

#[tokio::test]
async fn f1_what_a_killed_process_left_unsynced_is_synced_when_it_is_first_seen() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("t/_delta_log");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("0.json"), "{}").unwrap();
    let recorder = Recorder::default();
    let ops = Arc::clone(&recorder.ops);
    let store = DiskStore::open(Arc::new(recorder), dir.path().to_owned(), &threads()).unwrap();
    assert_eq!(store.get(&"t/_delta_log/0.json".into()).await.unwrap().meta.size, 2);
    for dir in [dir.path().to_owned(), dir.path().join("t"), log] {
        assert!(ops.lock().unwrap().contains(&Op::SyncDir(dir.clone())), "{}", dir.display());
    }
    let before = ops.lock().unwrap().len();
    store.get(&"t/_delta_log/0.json".into()).await.unwrap();
    assert_eq!(ops.lock().unwrap().len(), before, "once is enough");
}

fn on_disk() -> (tempfile::TempDir, DiskStore) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        DiskStore::open(Arc::new(RealDisk::new()), dir.path().join("lake"), &threads()).unwrap();
    (dir, store)
}

async fn names(store: &DiskStore, prefix: &str) -> Vec<String> {
    let prefix = Path::from(prefix);
    store.list(Some(&prefix)).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

#[tokio::test]
async fn create_refuses_a_taken_name_and_overwrite_replaces_it() {
    let (_dir, store) = on_disk();
    let at = Path::from("a/b/c");
    store.put_opts(&at, "one".into(), PutMode::Create.into()).await.unwrap();
    let taken = store.put_opts(&at, "two".into(), PutMode::Create.into()).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { .. })), "{taken:?}");
    assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "one");
    store.put(&at, "three".into()).await.unwrap();
    assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "three");
    assert_eq!(names(&store, "a").await, ["a/b/c"]);
}

#[tokio::test]
async fn ranges_heads_and_conditions_are_those_of_an_object_store() {
    let (_dir, store) = on_disk();
    let at = Path::from("object");
    let tag = store.put(&at, "0123456789".into()).await.unwrap().e_tag.unwrap();
    assert_eq!(store.get_range(&at, 2..5).await.unwrap(), "234");
    assert_eq!(store.get_range(&at, 8..99).await.unwrap(), "89");
    assert_eq!(store.get_ranges(&at, &[0..1, 9..10]).await.unwrap(), ["0", "9"]);
    assert!(store.get_range(&at, 10..11).await.is_err());
    assert!(store.get_ranges(&at, &[0..1, 9..11]).await.is_err());
    let meta = store.head(&at).await.unwrap();
    assert_eq!((meta.size, meta.e_tag.as_deref()), (10, Some(tag.as_str())));
    let same = GetOptions { if_none_match: Some(tag.clone()), ..GetOptions::default() };
    assert!(matches!(store.get_opts(&at, same).await, Err(Error::NotModified { .. })));
    let other = GetOptions { if_match: Some("\"0-0\"".to_owned()), ..GetOptions::default() };
    assert!(matches!(store.get_opts(&at, other).await, Err(Error::Precondition { .. })));
    for missing in ["none", "object/below", ".staging/0"] {
        assert!(
            matches!(store.get(&missing.into()).await, Err(Error::NotFound { .. })),
            "{missing}"
        );
    }
}

#[tokio::test]
async fn a_long_object_is_read_in_pieces() {
    let (_dir, store) = on_disk();
    let at = Path::from("long");
    let bytes: Bytes = (0..9_000_001u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    store.put(&at, bytes.clone().into()).await.unwrap();
    let pieces: Vec<Bytes> =
        store.get(&at).await.unwrap().into_stream().try_collect().await.unwrap();
    assert!(pieces.len() > 1);
    assert!(pieces.concat() == bytes);
}

#[tokio::test]
async fn listings_are_sorted_and_end_at_their_prefix() {
    let (_dir, store) = on_disk();
    for at in ["t/b", "t/a/2", "t/a/1", "t-x/1", "u"] {
        store.put(&at.into(), at.into()).await.unwrap();
    }
    assert_eq!(names(&store, "t").await, ["t/a/1", "t/a/2", "t/b"]);
    assert_eq!(names(&store, "missing").await, [""; 0]);
    let after = Path::from("t/a/1");
    let rest: Vec<_> =
        store.list_with_offset(Some(&"t".into()), &after).try_collect().await.unwrap();
    assert_eq!(rest.len(), 2);
    let top = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(top.common_prefixes, [Path::from("t"), Path::from("t-x")]);
    assert_eq!(top.objects.len(), 1, "staging is no object");
}

#[tokio::test]
async fn objects_are_copied_renamed_and_deleted() {
    let (_dir, store) = on_disk();
    let (a, b, c) = (Path::from("x/a"), Path::from("y/b"), Path::from("z/c"));
    store.put(&a, "a".into()).await.unwrap();
    store.copy(&a, &b).await.unwrap();
    assert!(matches!(store.copy_if_not_exists(&a, &b).await, Err(Error::AlreadyExists { .. })));
    store.rename_if_not_exists(&b, &c).await.unwrap();
    assert!(matches!(store.head(&b).await, Err(Error::NotFound { .. })));
    // A copy stays what it was when the original is replaced.
    store.put(&a, "changed".into()).await.unwrap();
    assert_eq!(store.get(&c).await.unwrap().bytes().await.unwrap(), "a");
    store.delete(&a).await.unwrap();
    assert!(matches!(store.delete(&a).await, Err(Error::NotFound { .. })));
    store.remove_prefix(&"z".into()).await.unwrap();
    store.remove_prefix(&"z".into()).await.unwrap();
    assert_eq!(names(&store, "z").await, [""; 0]);
}

#[tokio::test]
async fn a_multipart_upload_is_seen_whole_or_not_at_all() {
    let (_dir, store) = on_disk();
    let at = Path::from("big");
    let mut upload = store.put_multipart(&at).await.unwrap();
    let (first, second) = (upload.put_part("hello ".into()), upload.put_part("world".into()));
    second.await.unwrap();
    first.await.unwrap();
    assert!(store.head(&at).await.is_err());
    upload.complete().await.unwrap();
    assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "hello world");

    let mut holed = store.put_multipart(&"holed".into()).await.unwrap();
    drop(holed.put_part("lost".into()));
    assert!(holed.complete().await.is_err(), "a part was never written");
    let mut aborted = store.put_multipart(&"aborted".into()).await.unwrap();
    aborted.put_part("x".into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(std::fs::read_dir(store.root().join(".staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn unfinished_puts_are_swept_at_open_and_a_reader_beside_touches_nothing() {
    let (_dir, store) = on_disk();
    let stray = store.root().join(".staging/77");
    std::fs::write(&stray, "half").unwrap();
    let reader =
        DiskStore::read_only(Arc::new(RealDisk::new()), store.root().to_owned(), &threads())
            .unwrap();
    assert!(stray.exists());
    assert!(matches!(
        reader.put(&"x".into(), "x".into()).await,
        Err(Error::PermissionDenied { .. })
    ));
    DiskStore::open(Arc::new(RealDisk::new()), store.root().to_owned(), &threads()).unwrap();
    assert!(!stray.exists());
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_errors_and_leaves_no_half_object() {
    let disk = Arc::new(SimDisk::new(3));
    let store = DiskStore::open(Arc::clone(&disk) as _, "/lake".into(), &threads()).unwrap();
    let sink = DeltaSink::new(
        Arc::new(store.clone()),
        &lake_url("t").unwrap(),
        DeltaOptions::standalone().unwrap(),
    )
    .unwrap();
    sink.commit(flush(0, 10)).await.unwrap();
    disk.no_space_below(FsPath::new("/lake"), NoSpace::Device);
    let full = store.put(&"x".into(), "x".into()).await.unwrap_err();
    assert!(is_full(&full), "{full:?}");
    assert!(matches!(sink.commit(flush(10, 20)).await, Err(SinkError::Full(_))));
    disk.clear_no_space();
    assert!(matches!(store.head(&"x".into()).await, Err(Error::NotFound { .. })));
    sink.commit(flush(10, 20)).await.unwrap();
    assert_exactly(&sink, 20).await;
    assert_eq!(sink.position(APP).await.unwrap().unwrap().end, 20);
}

#[tokio::test]
async fn f1_after_a_directory_failed_to_sync_nothing_is_believed_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let failing = Arc::clone(&recorder.no_dir_syncs);
    let store = DiskStore::open(Arc::new(recorder), dir.path().to_owned(), &threads()).unwrap();
    store.put(&"t/a".into(), "a".into()).await.unwrap();
    failing.store(true, Ordering::Relaxed);
    let failed = store.put(&"t/b".into(), "b".into()).await;
    assert!(failed.is_err(), "{failed:?}");
    assert!(store.is_poisoned());
    failing.store(false, Ordering::Relaxed);
    assert!(store.get(&"t/b".into()).await.is_err(), "it may vanish");
    assert!(store.list(None).next().await.is_some_and(|first| first.is_err()));
}
