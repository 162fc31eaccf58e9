//! Readers: the same records from memory and from disk, from any position, at the head, across trims and the end.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::task::{Context, Poll, Waker};

use forebay_journal::disk::NoSpace;
use forebay_journal::{AppendError, Checkpoint, Lsn, ReadError, cat};

use crate::rig::{Rig, block_at, keyed, plain};

#[test]
fn memory_disk_and_cat_give_the_same_records() {
    let mut rig = Rig::new(1);
    let mut all = Vec::new();
    for cache in [0, 10_000, 1 << 20] {
        rig.options.cache = cache;
        let (journal, recovered) = rig.open();
        for i in 0..30u8 {
            let append = if i % 3 == 0 {
                keyed(u128::from(i) + (cache as u128) * 100, vec![i; 40])
            } else {
                plain(vec![i; 900])
            };
            rig.try_put(&journal, append).unwrap();
            if i % 7 == 0 {
                rig.quiet();
            }
        }
        let live = rig.read(&journal, recovered.tail);
        assert_eq!(live.len(), 30);
        all.extend(live);
        drop(journal);
        rig.disk.kill();
    }
    let (journal, _) = rig.open();
    assert_eq!(rig.read(&journal, Lsn(0)), all);
    let mut catted = Vec::new();
    cat(&rig.disk, &rig.dir, Lsn(0), &mut |record| {
        catted.push(record);
        Ok(())
    })
    .unwrap();
    assert_eq!(catted, all);
    for (i, record) in all.iter().enumerate() {
        assert_eq!(rig.read(&journal, record.start).first(), Some(record), "from its start");
        assert_eq!(rig.read(&journal, record.end).first(), all.get(i + 1), "from its end");
        assert_eq!(
            rig.read(&journal, Lsn(record.start.0 + 1)).first(),
            all.get(i + 1),
            "from within it"
        );
    }
}

#[test]
fn a_reader_at_the_head_wakes_on_a_durable_append_and_not_before() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let mut reader = journal.reader(Lsn(0));
    let mut cx = Context::from_waker(Waker::noop());
    let mut append = Box::pin(journal.append(plain("one")));
    {
        let mut next = Box::pin(reader.next());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(append.as_mut().poll(&mut cx).is_pending());
        assert!(next.as_mut().poll(&mut cx).is_pending(), "F1: it is not durable yet");
    }
    // The dropped call consumed nothing.
    assert!(rig.writers.step());
    let Poll::Ready(Ok(record)) = Box::pin(reader.next()).as_mut().poll(&mut cx) else {
        panic!("no record")
    };
    assert_eq!(record.payload, "one");
    assert_eq!(reader.position(), record.end);
}

#[test]
fn a_reader_of_a_closed_or_poisoned_journal_gets_what_is_durable_and_then_the_end() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.put(&journal, "one");
    let mut reader = journal.reader(Lsn(0));
    rig.drive(journal.close()).unwrap();
    assert_eq!(rig.wait(reader.next()).unwrap().payload, "one");
    assert!(matches!(rig.wait(reader.next()), Err(ReadError::Closed)));

    let (journal, _) = rig.open();
    rig.put(&journal, "two");
    rig.disk.fail_sync_after(0);
    rig.try_put(&journal, plain("three")).unwrap_err();
    let mut reader = journal.reader(Lsn(0));
    assert_eq!(rig.wait(reader.next()).unwrap().payload, "one");
    assert_eq!(rig.wait(reader.next()).unwrap().payload, "two");
    assert!(matches!(rig.wait(reader.next()), Err(ReadError::Poisoned(_))));
}

#[test]
fn a_reader_below_the_trimmed_range_is_told_so() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    for _ in 0..12 {
        rig.put(&journal, vec![1; 3000]);
    }
    let mut early = journal.reader(Lsn(0));
    rig.wait(early.next()).unwrap();
    let end = journal.durable();
    journal.checkpoint(Checkpoint { positions: vec![(0, end)], counters: [0; 4] }).unwrap();
    journal.trim(end).unwrap();
    let Err(ReadError::Trimmed { at, first }) = rig.wait(journal.reader(Lsn(0)).next()) else {
        panic!()
    };
    assert_eq!((at, first), (Lsn(0), journal.first()));
    assert!(rig.wait(journal.reader(first).next()).is_ok());
}

#[test]
fn rot_behind_the_head_is_an_error_and_never_a_record() {
    let mut rig = Rig::new(1);
    rig.options.cache = 0;
    let (journal, _) = rig.open();
    rig.put(&journal, vec![1; 3000]);
    rig.put(&journal, vec![2; 3000]);
    assert!(rig.disk.flip_bit(&rig.last_segment(), block_at(4096) as u64 + 1000, 2));
    let mut reader = journal.reader(Lsn(4096));
    let Err(ReadError::Corrupt { at, .. }) = rig.wait(reader.next()) else { panic!("F1") };
    assert_eq!(at, Lsn(4096));
}

#[test]
fn f1_a_segment_whose_first_block_met_a_full_disk_is_found_by_readers_once_it_has_blocks() {
    let mut rig = Rig::new(1);
    // Nothing is served from memory, so that readers need the index of segments.
    rig.options.cache = 0;
    let (journal, _) = rig.open();
    // Room for the header of the next segment and not for a block in it.
    let mut sent = 0u8;
    while rig.segments().len() < 2 {
        rig.disk.set_capacity(rig.disk.used_bytes() + 4096, NoSpace::Device);
        match rig.try_put(&journal, plain(vec![sent; 100])) {
            Ok(_) => sent += 1,
            Err(error) => assert!(matches!(error, AppendError::DiskFull(_)), "{error}"),
        }
    }
    rig.disk.clear_no_space();
    for _ in 0..3 {
        rig.put(&journal, vec![sent; 100]);
        sent += 1;
    }
    let read: Vec<u8> = rig.payloads(&journal).iter().map(|payload| payload[0]).collect();
    assert_eq!(read, (0..sent).collect::<Vec<_>>());
}

#[test]
fn f5_whoever_waits_for_a_poisoned_journal_is_released_when_it_closes() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let mut waiting = Box::pin(journal.poisoned());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    rig.drive(journal.close()).unwrap();
    assert_eq!(rig.drive(waiting), None);
}
