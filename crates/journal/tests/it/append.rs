//! Appending: group commit, cancellation, the bound, counters, poison, and the writer threads.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use forebay_journal::disk::RealDisk;
use forebay_journal::{
    AppendError, Appended, Checkpoint, Clock, Journal, Lsn, MAX_PAYLOAD, Options, Writers,
};

use crate::rig::{NOW, Rig, keyed, plain};

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + 'a>>;

fn start<'a>(future: impl Future<Output = Result<Appended, AppendError>> + 'a) -> Pending<'a> {
    let mut future: Pending<'a> = Box::pin(future);
    assert!(poll(&mut future).is_none(), "it waits");
    future
}

fn poll(future: &mut Pending<'_>) -> Option<Result<Appended, AppendError>> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[test]
fn requests_that_gather_share_one_block_and_one_sync() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.put(&journal, "first");
    let before = rig.disk.operations();
    let mut waiting: Vec<_> = (0..50).map(|i| start(journal.append(plain(vec![i; 10])))).collect();
    assert!(rig.writers.step());
    assert_eq!(rig.disk.operations() - before, 2, "one write and one sync");
    let ends: Vec<_> = waiting.iter_mut().map(|w| poll(w).unwrap().unwrap().end()).collect();
    assert!(ends.is_sorted_by(|a, b| a < b), "in the order of the calls");
    assert_eq!(journal.counters(), [51, 505, 0, 0]);
}

#[test]
fn a_block_takes_requests_only_up_to_the_gather_limit() {
    let mut rig = Rig::new(1);
    rig.options.gather = 2500;
    let (journal, _) = rig.open();
    let mut waiting: Vec<_> = (0..5).map(|_| start(journal.append(plain(vec![1; 1000])))).collect();
    assert!(rig.writers.step());
    assert_eq!(waiting.iter_mut().filter_map(poll).count(), 2);
    assert!(rig.writers.step());
    assert_eq!(waiting.iter_mut().skip(2).filter_map(poll).count(), 2);
}

#[test]
fn f5_a_future_dropped_before_its_record_was_gathered_leaves_nothing() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let first = start(journal.append(plain("kept")));
    let second = start(journal.append(keyed(1, "dropped")));
    let third = start(journal.append(plain("kept too")));
    let promised = journal.backlog();
    drop(second);
    assert!(journal.backlog() < promised);
    rig.drive(first).unwrap();
    rig.drive(third).unwrap();
    assert_eq!(rig.payloads(&journal), ["kept", "kept too"]);
    assert!(
        matches!(rig.try_put(&journal, keyed(1, "dropped")), Ok(Appended::New { .. })),
        "its key is free"
    );
}

#[test]
fn f5_a_future_dropped_after_its_record_was_gathered_leaves_the_record() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let append = start(journal.append(keyed(1, "stays")));
    assert!(rig.writers.step());
    drop(append);
    assert_eq!(rig.payloads(&journal), ["stays"]);
    assert!(matches!(rig.try_put(&journal, keyed(1, "stays")), Ok(Appended::Duplicate { .. })));
}

#[test]
fn f3_the_bound_refuses_and_a_checkpoint_makes_room() {
    let mut rig = Rig::new(1);
    rig.options.max_bytes = 128 << 10;
    let (journal, _) = rig.open();
    let mut acked = Vec::new();
    let refused = loop {
        match rig.try_put(&journal, plain(vec![1; 5000])) {
            Ok(appended) => acked.push(appended.end()),
            Err(e) => break e,
        }
        rig.quiet();
        assert!(journal.backlog() <= 128 << 10, "F3: idle blocks count too");
    };
    let AppendError::Full { backlog, max } = refused.clone() else { panic!("{refused}") };
    assert!(refused.is_retryable() && backlog <= max && max == 128 << 10);
    assert!(acked.len() >= 9, "{}", acked.len());

    let half = acked[acked.len() / 2];
    journal
        .checkpoint(Checkpoint {
            positions: vec![(0, half), (1, *acked.last().unwrap())],
            counters: [0; 4],
        })
        .unwrap();
    rig.put(&journal, vec![1; 5000]);
    let limit = (128 << 10) + 2 * rig.options.segment_max + 4 * 4096;
    assert!(journal.bytes_on_disk() <= limit, "{}", journal.bytes_on_disk());
    let before = journal.bytes_on_disk();
    assert!(journal.trim(Lsn(u64::MAX)).unwrap() > 0, "only what is below both lanes");
    assert!(journal.bytes_on_disk() < before);
    assert!(journal.first() <= half);
}

#[test]
fn f3_what_waits_counts_against_the_bound() {
    let mut rig = Rig::new(1);
    rig.options.max_bytes = 64 << 10;
    let (journal, _) = rig.open();
    let mut waiting = Vec::new();
    let refused = loop {
        let mut append: Pending<'_> = Box::pin(journal.append(plain(vec![1; 4000])));
        match poll(&mut append) {
            None => waiting.push(append),
            Some(outcome) => break outcome.unwrap_err(),
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }));
    for append in waiting {
        rig.drive(append).unwrap();
    }
    assert!(journal.backlog() <= 64 << 10);
}

#[test]
fn f3_a_stream_that_is_stored_as_it_comes_never_fills_up() {
    let mut rig = Rig::new(1);
    rig.options.max_bytes = 64 << 10;
    let (journal, _) = rig.open();
    for i in 0..200u32 {
        let end = rig.put(&journal, vec![1; 3000]).end();
        if i % 5 == 0 {
            rig.quiet();
        }
        journal.checkpoint(Checkpoint { positions: vec![(0, end)], counters: [0; 4] }).unwrap();
        journal.trim(end).unwrap();
        assert_eq!(journal.backlog(), 0);
        assert!(journal.bytes_on_disk() <= (64 << 10) + 2 * rig.options.segment_max);
    }
    assert_eq!(journal.counters()[0], 200, "F6: counters outlive trimming");
    drop(journal);
    rig.disk.crash(3);
    let (journal, recovered) = rig.open();
    assert_eq!(recovered.counters, [200, 600_000, 0, 0], "F6");
    assert_eq!(journal.backlog(), 0);
}

#[test]
fn a_payload_that_can_never_fit_is_too_large() {
    let mut rig = Rig::new(1);
    let (journal, _) = rig.open();
    assert!(matches!(
        rig.try_put(&journal, plain(vec![0; 1 << 20])),
        Err(AppendError::TooLarge { .. })
    ));
    drop(journal);
    rig.disk.kill();
    rig.options.max_bytes = 1 << 30;
    let (journal, _) = rig.open();
    rig.put(&journal, vec![3; MAX_PAYLOAD]);
    assert!(matches!(
        rig.try_put(&journal, plain(vec![0; MAX_PAYLOAD + 1])),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(rig.payloads(&journal)[0].len(), MAX_PAYLOAD);
    rig.disk.crash(1);
    assert_eq!(rig.open().1.counters[1], MAX_PAYLOAD as u64);
}

#[test]
fn f10_close_writes_what_waits_and_refuses_what_comes() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    let waiting = start(journal.append(plain("waits")));
    let mut closing = Box::pin(journal.close());
    assert!(closing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(rig.try_put(&journal, plain("late")), Err(AppendError::Closed));
    rig.drive(closing).unwrap();
    rig.drive(waiting).unwrap();
    rig.drive(journal.close()).unwrap();
    let (again, recovered) = rig.open();
    assert_eq!((rig.payloads(&again).len(), recovered.torn), (1, None), "the lock is free");
}

#[test]
fn a_journal_that_only_opens_and_closes_does_not_grow() {
    let rig = Rig::new(1);
    rig.put(&rig.open().0, "one");
    rig.disk.kill();
    let (journal, _) = rig.open();
    rig.quiet();
    rig.drive(journal.close()).unwrap();
    let size = rig.disk.used_bytes();
    for _ in 0..5 {
        let (journal, _) = rig.open();
        rig.quiet();
        rig.drive(journal.close()).unwrap();
    }
    assert_eq!(rig.disk.used_bytes(), size);
}

#[test]
fn a_quiet_journal_writes_the_empty_block_once() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.put(&journal, "one");
    let head = journal.durable();
    rig.quiet();
    assert_eq!(journal.durable().0, head.0 + 4096);
    rig.quiet();
    rig.quiet();
    assert_eq!(journal.durable().0, head.0 + 4096);
    rig.put(&journal, "two");
    rig.quiet();
    assert_eq!(rig.payloads(&journal), ["one", "two"]);
}

#[test]
fn stopped_writers_answer_instead_of_hanging() {
    let rig = Rig::new(1);
    let (journal, _) = rig.open();
    rig.put(&journal, "one");
    rig.writers.stop();
    assert_eq!(rig.try_put(&journal, plain("late")), Err(AppendError::Closed));
    rig.drive(journal.close()).unwrap();
}

#[test]
fn threads_write_for_many_journals_of_a_real_disk_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let writers = Writers::start(&forebay_flow::Ctx::root("test"), 2).unwrap();
    let open = |i: usize| {
        let options = Options::new(8 << 20, Clock::new(|| NOW));
        Journal::open(
            Arc::new(RealDisk::new()),
            &dir.path().join(format!("j{i}")),
            options,
            &writers,
        )
        .unwrap()
    };
    let journals: Vec<_> = (0..8).map(|i| open(i).0).collect();
    runtime.block_on(async {
        for round in 0..5u8 {
            for journal in &journals {
                let (a, b) = tokio::join!(
                    journal.append(plain(vec![round; 5000])),
                    journal.append(plain("b"))
                );
                assert!(a.unwrap().end() <= b.unwrap().end());
            }
        }
        for journal in &journals {
            // The idle timer of real threads: the empty block comes by itself.
            let last = journal.append(plain("last")).await.unwrap().end();
            let mut reader = journal.reader(last);
            while journal.durable().0 < last.0.next_multiple_of(4096) + 4096 {
                let nothing =
                    tokio::time::timeout(std::time::Duration::from_millis(5), reader.next()).await;
                assert!(nothing.is_err(), "an empty block holds no record");
            }
            journal.close().await.unwrap();
        }
    });
    drop(journals);
    let (journal, recovered) = open(3);
    assert_eq!((recovered.counters[0], recovered.torn), (11, None));
    drop(journal);
    writers.stop();
}
