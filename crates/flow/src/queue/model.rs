//! The queue's core under a scheduler that tries orders:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p forebay-flow --lib --target-dir target/shuttle queue::model`.
//!
//! Owns nothing: both locks of the queue are Shuttle's here, so that every order of critical sections can be met, and those
//! of the two sides overlap. What runs is the real core, its real futures and its real waiting lists; only timers and the
//! runtime are absent. A failure prints the schedule that leads to it. A lost wake is a deadlock, which Shuttle reports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::{
    Bound, Builder, Full, Lost, Priority, Queue, Receiver, Sender, SubmitError, Watermarks,
};

const SCHEDULES: usize = 10_000;

/// Runs `scenario` in so many random orders. The seed is Shuttle's, printed with a failure.
fn check(scenario: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(scenario, SCHEDULES);
}

impl<T> Queue<T> {
    /// Q1, Q2, Q4 and Q5 of the core; Q3 is seen by whoever waits for a sender.
    fn assert_invariants(&self) {
        let both = self.both();
        let (limit, used) = (self.rules.bound.limit(), both.back.used);
        assert!(limit == 0 || used <= limit, "Q1: {used} used of {limit}");
        if let Some(first) = both.back.line.first()
            && !both.back.closed
        {
            let (need, free) = (first.need, limit.saturating_sub(used));
            assert!(
                limit == 0 || need > free || (limit >= 8 && free < limit / 4),
                "Q2: {need} in line, {used} used"
            );
        }
        let counters = &both.back.counters;
        let lost = counters.dropped + counters.shed + counters.expired;
        let accounted = counters.received + lost + both.len() as u64;
        assert_eq!(counters.sent, accounted, "Q5: what was accepted is somewhere");
    }
}

fn queue(bound: usize) -> (Sender<u32>, Receiver<u32>) {
    Builder::new("model", Bound::items(bound), Full::Block).build()
}

/// Polls a few times at most, then gives up: a `select!` that another arm won. The item, if it was not sent.
fn submit_or_cancel(tx: &Sender<u32>, item: u32, polls: usize) -> Result<(), u32> {
    let mut submit = tx.submit(item);
    let mut left = polls;
    let ended = block_on(std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(result) = std::pin::Pin::new(&mut submit).poll(cx) {
            return Poll::Ready(Some(result));
        }
        left -= 1;
        if left == 0 {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    match ended {
        Some(result) => result.map_err(SubmitError::into_item),
        None => submit.take_back().map_or(Ok(()), Err),
    }
}

fn drain(rx: &Receiver<u32>) -> Vec<u32> {
    let mut got = Vec::new();
    while let Some(item) = block_on(rx.recv()) {
        rx.assert_invariants();
        got.push(item);
    }
    got
}

/// Two producers of three items each, some cancelled, one or two consumers, a close in the middle if `close`.
fn producers_and_consumers(bound: usize, consumers: usize, close: bool) {
    let (tx, rx) = queue(bound);
    let sent = Arc::new(Mutex::new(BTreeSet::new()));
    let mut threads = Vec::new();
    for p in 0..2 {
        let (tx, sent) = (tx.clone(), Arc::clone(&sent));
        threads.push(thread::spawn(move || {
            let mut mine = Vec::new();
            for n in 0..3 {
                let item = 10 * p + n;
                let outcome = match n {
                    1 => submit_or_cancel(&tx, item, 2),
                    _ => block_on(tx.submit(item)).map_err(SubmitError::into_item),
                };
                tx.assert_invariants();
                match outcome {
                    Ok(()) => mine.push(item),
                    Err(back) => assert_eq!(back, item, "a refused submit hands its own item back"),
                }
            }
            sent.lock().extend(mine);
            Vec::new()
        }));
    }
    for _ in 0..consumers {
        let rx = rx.clone();
        threads.push(thread::spawn(move || drain(&rx)));
    }
    drop(rx);
    if close {
        tx.close();
    }
    drop(tx);
    let mut got = Vec::new();
    for thread in threads {
        got.extend(thread.join().unwrap());
    }
    let all: BTreeSet<_> = got.iter().copied().collect();
    assert_eq!(all.len(), got.len(), "no item comes twice");
    assert_eq!(all, *sent.lock(), "what was sent comes, what was handed back does not");
}

#[test]
fn b83_b84_no_order_of_submit_cancel_and_receive_strands_loses_or_doubles() {
    check(|| producers_and_consumers(1, 1, false));
    check(|| producers_and_consumers(4, 2, false));
    check(|| producers_and_consumers(8, 2, false));
}

#[test]
fn b84_no_order_leaves_a_sender_asleep_whose_item_was_accepted() {
    check(|| {
        let (tx, rx) = queue(8);
        let done = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (tx, done) = (tx.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    for item in 0..4 {
                        block_on(tx.submit(item)).unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..12 {
            block_on(rx.recv()).unwrap();
            rx.assert_invariants();
            // Nothing more is received until all are awake. Shuttle's bound on steps ends a wait in vain.
            while (done.load(Ordering::SeqCst) as u64) < rx.info().sent {
                thread::yield_now();
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn b83_no_order_of_a_close_among_submits_and_receives_loses_or_doubles() {
    check(|| producers_and_consumers(2, 2, true));
}

#[test]
fn b52_no_order_of_submits_and_receives_strands_a_rendezvous() {
    check(|| producers_and_consumers(0, 2, false));
}

#[test]
fn b84_no_order_in_which_a_receive_is_dropped_strands_the_next_receiver() {
    check(|| {
        let (tx, rx) = queue(4);
        let received = Arc::new(AtomicUsize::new(0));
        let dropping = {
            let (rx, received) = (rx.clone(), Arc::clone(&received));
            thread::spawn(move || {
                let mut receive = Box::pin(rx.recv());
                let item = block_on(std::future::poll_fn(|cx| match receive.as_mut().poll(cx) {
                    Poll::Ready(item) => Poll::Ready(item),
                    Poll::Pending => Poll::Ready(None),
                }));
                thread::yield_now();
                received.fetch_add(usize::from(item.is_some()), Ordering::SeqCst);
            })
        };
        let staying = {
            let received = Arc::clone(&received);
            thread::spawn(move || {
                while block_on(rx.recv()).is_some() {
                    received.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        // One item alone: a second would wake the one that the first left stranded.
        block_on(tx.submit(0)).unwrap();
        // Before anything is closed, which would wake a stranded receiver. Shuttle's bound on steps ends a wait in vain.
        while received.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        drop(tx);
        dropping.join().unwrap();
        staying.join().unwrap();
    });
}

#[test]
fn b55_when_the_last_receiver_goes_in_any_order_each_item_is_received_orphaned_or_handed_back() {
    check(|| {
        let orphans = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&orphans);
        let (tx, rx) = Builder::new("model", Bound::items(1), Full::Block)
            .dead_letter(move |_: u32, why| {
                assert_eq!(why, Lost::Orphaned);
                count.fetch_add(1, Ordering::SeqCst);
            })
            .build();
        let producer = thread::spawn(move || {
            (0..4).filter(|item| block_on(tx.submit(*item)).is_err()).count()
        });
        let received = usize::from(block_on(rx.recv()).is_some());
        drop(rx);
        let back = producer.join().unwrap();
        assert_eq!(received + back + orphans.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn b73_no_order_of_shedding_submits_loses_count() {
    check(|| {
        let rank = |item: &u32| if *item >= 10 { Priority::Highest } else { Priority::Lowest };
        let full = Full::Shed(Watermarks::percent(50, 25).unwrap());
        let (tx, rx) = Builder::new("model", Bound::items(2), full).priority(rank).build();
        let threads: Vec<_> = [0, 10]
            .into_iter()
            .map(|first| {
                let tx = tx.clone();
                thread::spawn(move || {
                    (first..first + 3).filter(|item| tx.try_submit(*item).is_err()).count() as u64
                })
            })
            .collect();
        let got = rx.try_recv().into_iter().count() as u64;
        let back: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let info = tx.info();
        assert_eq!(info.received, got);
        assert!(info.items <= 2, "Q1");
        // Refused and pushed out are counted alike: what was accepted is what came neither back nor is pushed out.
        assert_eq!(info.rejected + info.shed + info.received + info.items as u64, 6);
        assert!(back <= info.rejected + info.shed);
    });
}
