//! Queues that drop and shed: what goes first, from which mark to which, and what is counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_flow::queue::{Bound, Builder, Full, Lost, Priority, SubmitError, Watermarks, bounded};
use forebay_flow::{Ctx, leak, queue};
use parking_lot::Mutex;

/// `(priority, number)`.
type Item = (Priority, u32);

fn shedding(bound: usize) -> (queue::Sender<Item>, queue::Receiver<Item>) {
    Builder::new("shed", Bound::items(bound), Full::Shed(Watermarks::default()))
        .priority(|(priority, _): &Item| *priority)
        .build()
}

#[test]
fn b72_shedding_starts_above_the_high_mark_and_ends_below_the_low_one() {
    let (tx, rx) =
        Builder::new("marks", Bound::items(10), Full::Shed(Watermarks::default())).build();
    for n in 0..9 {
        tx.try_submit(n).unwrap();
    }
    assert_eq!(tx.try_submit(9), Err(SubmitError::Shed(9)), "9 of 10 is above 80 per cent");
    for n in 0..5 {
        assert_eq!(rx.try_recv(), Some(n));
        assert_eq!(tx.try_submit(9), Err(SubmitError::Shed(9)), "{} left, still shedding", 8 - n);
    }
    assert_eq!((rx.try_recv(), tx.len()), (Some(5), 3));
    tx.try_submit(10).unwrap();
    assert_eq!((tx.info().shed, tx.info().rejected), (6, 0));
}

#[test]
fn b72_shedding_does_not_flap_while_the_queue_moves_between_the_marks() {
    let (tx, rx) =
        Builder::new("flap", Bound::items(100), Full::Shed(Watermarks::default())).build();
    let mut changes = 0;
    let mut shedding = false;
    let seed = 72;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Filled to the top and drained to the bottom three times, and between the marks it wavers.
    for _ in 0..3 {
        for fills in [true, false] {
            for _ in 0..2000 {
                if fills == random.bool() || random.u8(..3) == 0 {
                    let shed = tx.try_submit(0).is_err();
                    changes += u32::from(shed != shedding);
                    shedding = shed;
                } else {
                    assert!(rx.try_recv().is_none_or(|n| n == 0));
                }
                if !fills && tx.is_empty() || fills && shedding && tx.len() < 45 {
                    break;
                }
            }
            while !fills && rx.try_recv().is_some() {}
        }
    }
    assert!(changes >= 2, "it never shed");
    assert!(tx.info().shed > 0);
    let info = tx.info();
    // A change needs a way from one mark to the other: forty items at least.
    assert!(
        u64::from(changes) <= 2 + (info.sent + info.received) / 40,
        "{changes} changes: {info:?}"
    );
}

#[test]
fn b73_the_lowest_is_shed_first_and_the_highest_only_when_full_of_its_like() {
    use Priority::{High, Highest, Low, Lowest};
    let (tx, rx) = shedding(30);
    let mut number = 0;
    let mut submit = |priority| {
        number += 1;
        tx.try_submit((priority, number))
    };
    // The level at which each is refused for the first time, filling with the highest.
    let mut refused = Vec::new();
    for used in 0..=30 {
        for priority in [Lowest, Low, High] {
            if !refused.iter().any(|(seen, _)| *seen == priority) && used > 0 {
                match submit(priority) {
                    Ok(()) => {
                        // It shall not count: take it out again, newest of its like.
                        assert!(used < 30);
                        let mut rest: Vec<_> = std::iter::from_fn(|| rx.try_recv()).collect();
                        rest.pop();
                        for (priority, _) in rest {
                            submit(priority).unwrap();
                        }
                    }
                    Err(error) => {
                        assert!(matches!(error, SubmitError::Shed(_)));
                        refused.push((priority, used));
                    }
                }
            }
        }
        if used < 30 {
            submit(Highest).unwrap();
        }
    }
    assert_eq!(refused, [(Lowest, 25), (Low, 27), (High, 29)]);
    assert!(matches!(submit(Highest), Err(SubmitError::Full(_))), "full of its like");
    assert_eq!(tx.info().rejected, 1);
}

#[test]
fn b73_a_full_queue_pushes_out_the_newest_of_the_lowest_for_the_higher_and_keeps_the_order() {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let letters = Arc::clone(&lost);
    let (tx, rx) =
        Builder::new("push", Bound::items(4), Full::Shed(Watermarks::percent(100, 50).unwrap()))
            .priority(|(priority, _): &Item| *priority)
            .dead_letter(move |(_, number): Item, why| letters.lock().push((number, why)))
            .build();
    let mixed =
        [(Priority::Low, 1), (Priority::Lowest, 2), (Priority::High, 3), (Priority::Lowest, 4)];
    for item in mixed {
        tx.try_submit(item).unwrap();
    }
    assert_eq!(tx.try_submit((Priority::Lowest, 5)), Err(SubmitError::Full((Priority::Lowest, 5))));
    for number in [6, 7, 8] {
        tx.try_submit((Priority::Highest, number)).unwrap();
    }
    assert_eq!(*lost.lock(), [(4, Lost::Shed), (2, Lost::Shed), (1, Lost::Shed)]);
    let got: Vec<_> = std::iter::from_fn(|| rx.try_recv()).map(|(_, number)| number).collect();
    assert_eq!(got, [3, 6, 7, 8]);
    let info = tx.info();
    assert_eq!((info.sent, info.received, info.shed, info.rejected), (7, 4, 3, 1));
}

#[test]
fn b73_nothing_is_pushed_out_for_one_that_would_not_fit_even_then() {
    let (tx, rx) =
        Builder::new("heavy", Bound::bytes(10), Full::Shed(Watermarks::percent(100, 50).unwrap()))
            .weigher(|(_, weight): &Item| *weight as usize)
            .priority(|(priority, _): &Item| *priority)
            .build();
    tx.try_submit((Priority::Lowest, 4)).unwrap();
    tx.try_submit((Priority::Highest, 6)).unwrap();
    assert!(matches!(tx.try_submit((Priority::Highest, 5)), Err(SubmitError::Full(_))));
    tx.try_submit((Priority::High, 3)).unwrap();
    let got: Vec<_> = std::iter::from_fn(|| rx.try_recv()).map(|(_, weight)| weight).collect();
    assert_eq!(got, [6, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b75_drop_oldest_keeps_the_newest_under_concurrent_producers() {
    const BOUND: usize = 16;
    const EACH: u32 = 2000;
    let ctx = Ctx::root("t");
    let lost = Arc::new(Mutex::new(Vec::new()));
    let letters = Arc::clone(&lost);
    let (tx, rx) = Builder::new("newest", Bound::items(BOUND), Full::DropOldest)
        .dead_letter(move |item: (u32, u32), why| {
            assert_eq!(why, Lost::Oldest);
            letters.lock().push(item);
        })
        .build();
    let producers: Vec<_> = (0..4)
        .map(|p| {
            let tx = tx.clone();
            ctx.spawn("producer", async move {
                for n in 0..EACH {
                    tx.submit((p, n)).await.unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.join().await.unwrap();
    }
    let kept: Vec<_> = std::iter::from_fn(|| rx.try_recv()).collect();
    assert_eq!(kept.len(), BOUND);
    let lost = std::mem::take(&mut *lost.lock());
    let all: BTreeSet<_> = kept.iter().chain(&lost).copied().collect();
    assert_eq!((all.len(), lost.len() as u64), (4 * EACH as usize, tx.info().dropped));
    for p in 0..4 {
        // Of each producer the kept are the end of what it sent, in order.
        let mine: Vec<_> = kept.iter().filter(|(by, _)| *by == p).map(|(_, n)| *n).collect();
        assert_eq!(mine, (EACH - mine.len() as u32..EACH).collect::<Vec<_>>(), "producer {p}");
    }
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b76_drop_newest_counts_exactly_under_concurrent_producers() {
    let ctx = Ctx::root("t");
    let (tx, rx) = bounded("oldest", Bound::items(8), Full::DropNewest);
    let producers: Vec<_> = (0..4)
        .map(|p| {
            let tx = tx.clone();
            ctx.spawn("producer", async move {
                for n in 0..1000 {
                    tx.submit(p * 1000 + n).await.unwrap();
                }
            })
        })
        .collect();
    let consumer = ctx.spawn("consumer", async move {
        let mut got = 0;
        while rx.recv().await.is_some() {
            got += 1;
        }
        got
    });
    for producer in producers {
        producer.join().await.unwrap();
    }
    let info = tx.info();
    assert_eq!(info.sent + info.dropped, 4000);
    assert_eq!(info.blocked, 0);
    tx.close();
    assert_eq!(consumer.join().await.unwrap(), info.sent);
}

#[test]
fn a_rendezvous_that_drops_the_oldest_has_none_and_drops_the_new() {
    let (tx, rx) = bounded("nobody", Bound::items(0), Full::DropOldest);
    tx.try_submit(1).unwrap();
    assert_eq!((tx.info().dropped, tx.len(), rx.try_recv()), (1, 0, None));
}

#[test]
fn what_a_policy_means_stands_in_the_registry() {
    let row = |full: Full| {
        let (tx, _rx) = bounded::<u8>("row", Bound::items(1), full);
        let info = tx.info();
        (info.policy, info.who_waits, info.failure_mode)
    };
    let policies = [
        Full::Block,
        Full::Reject,
        Full::DropNewest,
        Full::DropOldest,
        Full::Shed(Watermarks::default()),
    ];
    let rows: BTreeSet<_> = policies.into_iter().map(row).collect();
    assert_eq!(rows.len(), policies.len(), "each says its own");
    assert_eq!(row(Full::Block).1, "the sender");
}
