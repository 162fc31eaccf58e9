//! Idempotency keys: duplicates, conflicts, the window, restarts, trimming (F2).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use forebay_journal::disk::Disk;
use forebay_journal::{Append, AppendError, Appended, Checkpoint, Journal, Key, KeyRoom, Lsn};

use crate::rig::{NOW, Rig, keyed, plain};

#[test]
fn f2_a_retry_is_answered_with_the_place_and_the_note_of_the_original() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    assert_eq!(journal.lookup(5), None);
    let Appended::New { start, end } = rig.try_put(&journal, keyed(5, "bytes")).unwrap() else {
        panic!()
    };
    let again = rig.try_put(&journal, keyed(5, "bytes")).unwrap();
    assert_eq!(again, Appended::Duplicate { start, end, note: 9 });
    let known = journal.lookup(5).unwrap();
    assert_eq!((known.start, known.end, known.checksum, known.note), (start, end, 7, 9));
    assert_eq!(rig.payloads(&journal).len(), 1);
}

#[test]
fn f2_a_duplicate_in_flight_waits_for_the_sync_of_the_original() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let mut original = Box::pin(journal.append(keyed(5, "bytes")));
    let mut retry = Box::pin(journal.append(keyed(5, "bytes")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(original.as_mut().poll(&mut cx).is_pending());
    assert!(retry.as_mut().poll(&mut cx).is_pending(), "it does not answer early");
    let other = Key { hash: 5, checksum: 8, note: 0 };
    let conflict = rig.try_put(&journal, Append { key: Some(other), ..plain("other") });
    assert_eq!(conflict, Err(AppendError::Conflict), "a conflict is known at once");
    let new = rig.drive(original).unwrap();
    assert_eq!(rig.drive(retry).unwrap().end(), new.end());
    assert_eq!(rig.payloads(&journal).len(), 1);
}

#[test]
fn f2_the_duplicate_of_a_cancelled_original_takes_its_place() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let mut original = Box::pin(journal.append(keyed(5, "bytes")));
    let mut retry = Box::pin(journal.append(keyed(5, "bytes")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(original.as_mut().poll(&mut cx).is_pending());
    assert!(retry.as_mut().poll(&mut cx).is_pending());
    drop(original);
    assert!(matches!(rig.drive(retry), Ok(Appended::New { .. })));
    assert_eq!(rig.payloads(&journal).len(), 1);
}

#[test]
fn other_bytes_under_a_known_key_are_a_conflict() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.try_put(&journal, keyed(5, "bytes")).unwrap();
    let other = Append { key: Some(Key { hash: 5, checksum: 8, note: 0 }), ..plain("other") };
    assert_eq!(rig.try_put(&journal, other.clone()), Err(AppendError::Conflict));
    rig.disk.crash(1);
    let (journal, _) = rig.open();
    assert_eq!(rig.try_put(&journal, other), Err(AppendError::Conflict), "after a restart too");
}

#[test]
fn f2_keys_survive_trimming_and_restarts_and_their_files_stay_few() {
    let rig = Rig::new(1);
    let mut places = Vec::new();
    for round in 0..40u128 {
        let (journal, recovered) = rig.open();
        assert_eq!(recovered.keys, places.len());
        assert!(recovered.damaged_snapshots.is_empty());
        for i in 0..6 {
            let hash = round * 10 + i;
            let appended = rig.try_put(&journal, keyed(hash, vec![1; 3000])).unwrap();
            places.push((hash, appended.end()));
        }
        let end = journal.durable();
        journal.checkpoint(Checkpoint { positions: vec![(0, end)], counters: [0; 4] }).unwrap();
        journal.trim(end).unwrap();
        drop(journal);
        if round % 2 == 0 { rig.disk.crash(round as u64) } else { rig.disk.kill() }
    }
    let (journal, recovered) = rig.open();
    assert!(recovered.first > Lsn(300_000), "{}", recovered.first);
    for (hash, end) in places {
        assert_eq!(journal.lookup(hash).map(|known| known.end), Some(end), "key {hash}");
    }
    let files = rig
        .disk
        .read_dir(&rig.dir)
        .unwrap()
        .into_iter()
        .filter(|e| e.name.starts_with("idem-"))
        .count();
    assert!((1..=20).contains(&files), "{files}");
}

#[test]
fn keys_are_forgotten_after_the_window_and_beyond_the_count_oldest_first() {
    let mut rig = Rig::new(1);
    rig.options.keys.window_micros = 1000;
    rig.options.keys.count = 3;
    let (journal, _) = rig.open();
    for hash in 0..5 {
        rig.try_put(&journal, keyed(hash, "x")).unwrap();
    }
    let known: Vec<_> = (0..5).filter(|hash| journal.lookup(*hash).is_some()).collect();
    assert_eq!(known, [2, 3, 4]);
    rig.clock.store(NOW + 1000, Ordering::Relaxed);
    assert!(journal.lookup(4).is_some(), "to the end of the window");
    rig.clock.store(NOW + 1001, Ordering::Relaxed);
    assert!(journal.lookup(4).is_none());
    assert!(matches!(rig.try_put(&journal, keyed(4, "x")), Ok(Appended::New { .. })));
    let late = Append { received_unix_micros: NOW + 2000, ..keyed(4, "x") };
    assert!(
        matches!(rig.try_put(&journal, late), Ok(Appended::New { .. })),
        "received before the window"
    );
    drop(journal);
    rig.disk.kill();
    assert_eq!(rig.open().1.keys, 1);
}

#[test]
fn fault_25_a_clock_that_goes_backwards_keeps_keys_longer_and_breaks_nothing() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.try_put(&journal, keyed(1, "x")).unwrap();
    rig.clock.store(i64::MIN, Ordering::Relaxed);
    rig.try_put(&journal, keyed(2, "x")).unwrap();
    assert!(journal.lookup(1).is_some());
    rig.clock.store(i64::MAX, Ordering::Relaxed);
    assert!(journal.lookup(1).is_none());
    rig.try_put(&journal, keyed(3, "x")).unwrap();
    drop(journal);
    rig.disk.kill();
    assert_eq!(rig.open().1.counters[0], 3);
}

#[test]
fn f3_f9_a_journal_with_many_keys_leaves_room_for_the_keys_of_others_and_gives_back_what_it_took() {
    const ROOM: usize = 50;
    let all = (KeyRoom::OWN + ROOM) as u128;
    let mut greedy = Rig::new(1);
    let mut other = Rig::new(2);
    let room = KeyRoom::new(ROOM);
    greedy.options.keys.room = room.clone();
    other.options.keys.room = room.clone();
    let (journal, _) = greedy.open();
    (0..all + 10).for_each(|hash| stored(&greedy, &journal, hash));
    assert!(journal.lookup(9).is_none(), "F3: the room is taken, so its own oldest key goes");
    assert!(journal.lookup(10).is_some());

    let (modest, _) = other.open();
    (0..KeyRoom::OWN as u128).for_each(|hash| stored(&other, &modest, hash));
    assert!(modest.lookup(0).is_some(), "F9: a journal's own keys need no room of others");
    stored(&other, &modest, 1 << 70);
    assert!(modest.lookup(0).is_none());

    drop(journal);
    greedy.disk.kill();
    stored(&other, &modest, 2 << 70);
    assert!(modest.lookup(1).is_some(), "there is room again");
}

/// Appends a record under a key, and says that it is stored.
fn stored(rig: &Rig, journal: &Arc<Journal>, hash: u128) {
    rig.try_put(journal, keyed(hash, "x")).unwrap();
    let done = Checkpoint { positions: vec![(0, journal.durable())], counters: [0; 4] };
    journal.checkpoint(done).unwrap();
    journal.trim(journal.durable()).unwrap();
}
