//! Locks, attempts, and the disks themselves.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay_journal::disk::{
    Disk, Faults, NoSpace, Open, RealDisk, SimDisk, is_power_cut, read_file,
};
use forebay_journal::{Clock, Journal, Lsn, OpenError, Options, Writers};

use crate::rig::{NOW, Rig};

#[test]
fn a_second_journal_on_the_same_directory_is_refused() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    assert!(matches!(rig.try_open(), Err(OpenError::Locked(_))));
    drop(journal);
    rig.open();
}

/// Holds a lock for another test, in another process, when that test says so.
#[test]
fn hold_a_lock_for_the_test_of_two_processes() {
    let Ok(path) = std::env::var("FOREBAY_TEST_LOCK") else {
        return;
    };
    let _lock = RealDisk::new().lock(Path::new(&path)).unwrap();
    println!("\nlocked");
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn fault_25_a_second_process_finds_the_lock_held_until_the_first_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::hold_a_lock_for_the_test_of_two_processes", "--nocapture"])
        .env("FOREBAY_TEST_LOCK", dir.path().join("LOCK"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    let writers = Writers::start(&forebay_flow::Ctx::root("test"), 0).unwrap();
    let options = Options::new(1 << 20, Clock::new(|| NOW));
    let open = || Journal::open(Arc::new(RealDisk::new()), dir.path(), options.clone(), &writers);
    assert!(matches!(open(), Err(OpenError::Locked(_))));
    child.kill().unwrap();
    child.wait().unwrap();
    open().unwrap();
}

#[test]
fn f8_attempts_survive_a_kill_and_a_power_cut_until_they_are_cleared() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let attempts = journal.attempts();
    attempts.mark(Lsn(10), b"first").unwrap();
    attempts.mark(Lsn(20), b"").unwrap();
    attempts.mark(Lsn(10), b"second").unwrap();
    assert!(attempts.mark(Lsn(1), &[0; 100_000]).is_err());
    rig.disk.crash(3);
    let expected = vec![(Lsn(10), b"second".to_vec()), (Lsn(20), Vec::new())];
    let (journal, recovered) = rig.open();
    assert_eq!(recovered.attempts, expected);
    journal.attempts().clear_below(Lsn(20)).unwrap();
    rig.disk.crash(4);
    let (journal, recovered) = rig.open();
    assert_eq!(recovered.attempts, expected[1..]);
    for _ in 0..20_000 {
        journal.attempts().mark(Lsn(20), &[1; 100]).unwrap();
    }
    let len = rig.disk.metadata(&rig.dir.join("attempts")).unwrap().len;
    assert!(len < 1 << 20, "F3: {len}");
    // A torn last mark does not hide the ones before it.
    rig.disk.kill();
    let path = rig.dir.join("attempts");
    let mut bytes = rig.bytes_of(&path);
    bytes.extend_from_slice(&[5, 0, 0, 0]);
    rig.rewrite(&path, &bytes);
    assert_eq!(rig.open().1.attempts, [(Lsn(20), vec![1; 100])]);
}

/// What any disk does; both are held to it.
fn conforms(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir_all(&dir).unwrap();
    disk.create_dir_all(&dir).unwrap();
    let path = dir.join("file");
    assert_eq!(disk.open(&path, Open::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.open(&path, Open::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
    let file = disk.open(&path, Open::CreateNew).unwrap();
    assert_eq!(disk.open(&path, Open::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"hello", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read_file(disk, &path, 100).unwrap(), b"\0\0\0hello");
    assert_eq!(read_file(disk, &path, 4).unwrap(), b"\0\0\0h");
    file.set_len(5).unwrap();
    assert_eq!(file.len().unwrap(), 5);
    let mut buf = [9; 10];
    assert_eq!(file.read_at(&mut buf, 3).unwrap(), 2);
    assert_eq!(file.read_at(&mut buf, 50).unwrap(), 0);
    assert!(disk.open(&path, Open::Read).unwrap().write_all_at(b"x", 0).is_err());

    let other = dir.join("other");
    disk.link(&path, &other).unwrap();
    assert_eq!(disk.link(&path, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.remove_file(&path).unwrap();
    assert_eq!(disk.metadata(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.metadata(&other).unwrap().len, 5);
    disk.rename(&other, &path).unwrap();
    disk.sync_dir(&dir).unwrap();
    assert!(disk.open(&path, Open::CreateOrTruncate).unwrap().is_empty().unwrap());
    let names: Vec<_> = disk.read_dir(root.join("a").as_path()).unwrap();
    assert_eq!((names.len(), names[0].name.as_str(), names[0].is_dir), (1, "b", true));
    assert!(disk.metadata(&dir).unwrap().is_dir);

    let lock = disk.lock(&root.join("LOCK")).unwrap();
    assert_eq!(disk.lock(&root.join("LOCK")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    disk.lock(&root.join("LOCK")).unwrap();
    disk.remove_dir_all(&root.join("a")).unwrap();
    assert_eq!(disk.read_dir(&dir).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_real_and_the_simulated_disk_conform() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&RealDisk::new(), dir.path());
    conforms(&SimDisk::new(1), Path::new("/"));
}

#[test]
fn the_simulated_disk_forgets_what_was_not_synced_by_seed() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let run = || {
            let disk = SimDisk::new(0);
            let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
            file.write_all_at(&[1; 1024], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_all_at(&[2; 1024], 0).unwrap();
            disk.rename(Path::new("/f"), Path::new("/g")).unwrap();
            disk.crash(seed);
            assert!(is_power_cut(&file.read_at(&mut [0], 0).unwrap_err()), "old handles are dead");
            let f = read_file(&disk, Path::new("/f"), 9999).ok();
            let g = read_file(&disk, Path::new("/g"), 9999).ok();
            assert!(f.is_some() != g.is_some(), "a rename is atomic");
            let bytes = f.clone().or(g).unwrap();
            assert_eq!(bytes.len(), 1024);
            (f.is_some(), bytes[0], bytes[512])
        };
        let outcome = run();
        assert_eq!(outcome, run(), "the same seed, the same end");
        outcomes.insert(outcome);
    }
    assert_eq!(outcomes.len(), 8, "every combination happens");
}

#[test]
fn the_simulated_disk_runs_out_of_space_and_loses_pages_of_a_failed_sync() {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.set_capacity(700, NoSpace::Device);
    let full = file.write_all_at(&[1; 1000], 0).unwrap_err();
    assert_eq!((full.kind(), file.len().unwrap()), (io::ErrorKind::StorageFull, 700));
    disk.clear_no_space();
    disk.fail_sync_after(0);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    disk.crash(1);
    assert_ne!(
        read_file(&disk, Path::new("/f"), 999).unwrap(),
        vec![1; 700],
        "the second sync proved nothing"
    );
}

#[test]
fn a_real_disk_with_faults_fails_after_so_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::with_faults(Faults {
        bytes_per_second: Some(1 << 30),
        error_after_bytes: Some(1000),
        full_after_bytes: None,
    });
    let file = disk.open(&dir.path().join("f"), Open::CreateNew).unwrap();
    file.write_all_at(&[1; 1000], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.write_all_at(&[1], 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
}
