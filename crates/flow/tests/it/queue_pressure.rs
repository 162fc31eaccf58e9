//! Queues under pressure: lines of waiting submitters, the low-water rule, batches, stops.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_flow::queue::{self, Bound, Builder, Full, Receiver, Sender, SubmitError};
use forebay_flow::{Ctx, Task, clock, leak};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b52_at_a_rendezvous_a_waiting_submit_ends_when_its_item_is_received() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("meet", Bound::items(0), Full::Block));
    let sender = {
        let tx = tx.clone();
        ctx.spawn("sender", async move { tx.submit(1).await })
    };
    until(|| tx.info().waiters == 1).await;
    tokio::time::sleep(SEC).await;
    assert!(!sender.is_finished(), "nobody came");
    assert_eq!(tx.len(), 0, "and the queue holds nothing");
    assert_eq!(rx.recv().await, Some(1));
    sender.join().await.unwrap().unwrap();
    assert_eq!(rx.try_recv(), None);
}

#[tokio::test(start_paused = true)]
async fn b52_two_waiting_receivers_meet_two_submitters() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("pairs", Bound::items(0), Full::Block));
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let rx = rx.clone();
            ctx.spawn("receiver", async move { rx.recv().await })
        })
        .collect();
    until(|| tx.info().receivers_waiting == 2).await;
    tx.try_submit(1).unwrap();
    tx.try_submit(2).unwrap();
    assert_eq!(tx.try_submit(3), Err(SubmitError::Full(3)));
    let mut got = BTreeSet::new();
    for receiver in receivers {
        got.extend(receiver.join().await.unwrap());
    }
    assert_eq!(got, BTreeSet::from([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn b54_blocked_submitters_are_capped_and_the_next_gets_its_item_back_counted() {
    let ctx = Ctx::root("t");
    let (tx, rx) = Builder::new("capped", Bound::items(1), Full::Block).max_waiting(2).build();
    tx.submit(0).await.unwrap();
    let waiting: Vec<_> = (1..=2)
        .map(|n| {
            let tx = tx.clone();
            ctx.spawn("waiting", async move { tx.submit(n).await })
        })
        .collect();
    until(|| tx.info().waiters == 2).await;
    assert_eq!(tx.submit(3).await, Err(SubmitError::Full(3)));
    assert_eq!((tx.info().rejected, tx.info().blocked), (1, 2));
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(rx.recv().await);
    }
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2]);
    for waiting in waiting {
        waiting.join().await.unwrap().unwrap();
    }
    tx.submit(4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b55_ten_thousand_submitters_racing_a_stop_lose_and_duplicate_nothing() {
    const SUBMITTERS: u32 = 10_000;
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded("stop", Bound::items(64), Full::Block);
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|n| {
            let tx = tx.clone();
            ctx.spawn("submitter", async move {
                match tx.submit(n).await {
                    Ok(()) => Ok(n),
                    Err(SubmitError::Closed(item)) => Err(item),
                    Err(other) => panic!("{other:?}"),
                }
            })
        })
        .collect();
    let consumer = {
        let rx = rx.clone();
        ctx.spawn("consumer", async move {
            let mut got = Vec::new();
            while let Some(n) = rx.recv().await {
                got.push(n);
                if got.len() == 5000 {
                    rx.close();
                }
            }
            got
        })
    };
    let (mut sent, mut back) = (BTreeSet::new(), BTreeSet::new());
    for submitter in submitters {
        match submitter.join().await.unwrap() {
            Ok(n) => sent.insert(n),
            Err(n) => back.insert(n),
        };
    }
    let got = consumer.join().await.unwrap();
    assert_eq!(got.len(), sent.len(), "nothing twice");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), sent);
    assert_eq!(sent.len() + back.len(), SUBMITTERS as usize);
    assert!(sent.is_disjoint(&back));
    assert_eq!(tx.submit(0).await, Err(SubmitError::Closed(0)), "for good");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_submitter_is_stranded_whatever_the_bound_and_the_number_of_submitters() {
    let ctx = Ctx::root("t");
    for bound in [1, 2, 3, 4, 5, 16, 63, 64, 65, 200] {
        for submitters in [1, 2, 31, 32, 33, 100] {
            let (tx, rx) = queue::bounded("strand", Bound::items(bound), Full::Block);
            for n in 0..bound {
                tx.submit(n).await.unwrap();
            }
            let waiting: Vec<_> = (0..submitters)
                .map(|n| {
                    let tx = tx.clone();
                    ctx.spawn("waiting", async move { tx.submit(bound + n).await })
                })
                .collect();
            until(|| tx.info().waiters == submitters).await;
            // As many receives as there are items, and not one poll more: what is owed must be paid by then.
            for _ in 0..bound + submitters {
                rx.try_recv().unwrap();
            }
            for waiting in waiting {
                let joined = tokio::time::timeout(SEC, waiting.join()).await;
                joined
                    .unwrap_or_else(|_| panic!("stranded: bound {bound}, {submitters} submitters"))
                    .unwrap()
                    .unwrap();
            }
            assert_eq!((tx.len(), tx.info().waiters), (0, 0));
        }
    }
}

/// One poll.
macro_rules! poll {
    ($future:expr) => {
        std::future::poll_fn(|cx| std::task::Poll::Ready($future.poll(cx))).await
    };
}

/// Lets every task run that can, without moving the clock.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A queue of `bound` items, full, and as many tasks as said that wait to submit the next numbers.
async fn full_with_waiting(
    ctx: &Ctx,
    bound: usize,
    submitters: usize,
) -> (Sender<usize>, Receiver<usize>, Vec<Task<Result<(), SubmitError<usize>>>>) {
    let (tx, rx) = queue::bounded("pressed", Bound::items(bound), Full::Block);
    for n in 0..bound {
        tx.submit(n).await.unwrap();
    }
    let submit = |n| {
        let tx = tx.clone();
        ctx.spawn("waiting", async move { tx.submit(bound + n).await })
    };
    let waiting = (0..submitters).map(submit).collect();
    settle().await;
    assert_eq!(tx.info().waiters, submitters);
    (tx, rx, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_sender_whose_item_was_accepted_is_never_left_asleep() {
    for bound in [1, 4, 7, 8, 16, 64] {
        for submitters in [1, 3, 20, 100] {
            let ctx = Ctx::root("t");
            let (tx, rx, waiting) = full_with_waiting(&ctx, bound, submitters).await;
            for taken in 1..=bound + submitters {
                assert_eq!(rx.try_recv(), Some(taken - 1));
                // The receiver sits on it, for as long as it likes.
                settle().await;
                let ended = waiting.iter().filter(|waiting| waiting.is_finished()).count();
                assert_eq!(
                    ended,
                    submitters - tx.info().waiters,
                    "bound {bound}, {submitters} submitters, {taken} taken: the accepted have ended"
                );
                assert_eq!(tx.len(), bound + ended - taken, "and their items are in");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_is_let_in_when_a_quarter_of_the_bound_is_free_and_then_as_far_as_it_fits() {
    let ctx = Ctx::root("t");
    let (tx, rx, _waiting) = full_with_waiting(&ctx, 64, 20).await;
    for n in 0..15 {
        assert_eq!(rx.try_recv(), Some(n));
    }
    assert_eq!((tx.len(), tx.info().waiters), (49, 20));
    assert_eq!(rx.try_recv(), Some(15));
    assert_eq!((tx.len(), tx.info().waiters), (64, 4));
    for n in 16..32 {
        assert_eq!(rx.try_recv(), Some(n));
    }
    assert_eq!((tx.len(), tx.info().waiters), (52, 0));
}

#[tokio::test(start_paused = true)]
async fn a_small_bound_lets_in_at_once() {
    let ctx = Ctx::root("t");
    let (tx, rx, _waiting) = full_with_waiting(&ctx, 7, 2).await;
    assert_eq!(rx.try_recv(), Some(0));
    assert_eq!((tx.len(), tx.info().waiters), (7, 1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_lets_in_at_each_receive() {
    let ctx = Ctx::root("t");
    let (tx, rx, waiting) = full_with_waiting(&ctx, 64, 3).await;
    tokio::time::sleep(SEC).await;
    assert_eq!(rx.recv().await, Some(0));
    settle().await;
    assert!(waiting[0].is_finished() && !waiting[1].is_finished());
    assert_eq!((tx.len(), tx.info().waiters), (64, 2));
    tokio::time::sleep(SEC).await;
    assert_eq!(rx.recv().await, Some(1));
    settle().await;
    assert!(waiting[1].is_finished() && !waiting[2].is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_line_is_let_in_by_the_first_receive_after_a_millisecond_at_whatever_pace_they_come() {
    for pace in [20, 60, 100, 300, 450, 900, 999, 1_000].map(Duration::from_micros) {
        let ctx = Ctx::root("t");
        let (_tx, rx, waiting) = full_with_waiting(&ctx, 400, 1).await;
        let mut passed = Duration::ZERO;
        while !waiting[0].is_finished() {
            assert!(passed < Duration::from_millis(1), "a take each {pace:?}: {passed:?} in line");
            tokio::time::advance(pace).await;
            passed += pace;
            assert!(rx.try_recv().is_some());
            settle().await;
        }
        assert!(passed >= Duration::from_millis(1), "a take each {pace:?}: after {passed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_submit_that_is_polled_lets_itself_in_so_none_times_out_while_there_is_room() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded("late", Bound::items(64), Full::Block);
    for n in 0..64 {
        tx.submit(n).await.unwrap();
    }
    let late = {
        let tx = tx.clone();
        ctx.spawn("late", async move { tx.submit_within(64, clock::now() + SEC).await })
    };
    settle().await;
    let mut polled = Box::pin(tx.submit(65));
    assert!(poll!(polled.as_mut()).is_pending());
    assert_eq!((rx.try_recv(), rx.try_recv()), (Some(0), Some(1)));
    assert_eq!((tx.len(), tx.info().waiters), (62, 2), "below the low-water mark");
    assert!(poll!(polled.as_mut()).is_ready(), "with the one before it");
    assert_eq!((tx.len(), tx.info().waiters), (64, 0));
    late.join().await.unwrap().unwrap();
    let late = {
        let tx = tx.clone();
        ctx.spawn("late", async move { tx.submit_within(66, clock::now() + SEC).await })
    };
    settle().await;
    assert_eq!(rx.try_recv(), Some(2));
    assert_eq!(late.join().await.unwrap(), Ok(()), "at its deadline it finds the room");
    for n in 3..=66 {
        assert_eq!(rx.try_recv(), Some(n), "in order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_submit_lets_the_line_in_before_itself_and_is_refused_only_without_room() {
    let ctx = Ctx::root("t");
    let (tx, rx, waiting) = full_with_waiting(&ctx, 64, 1).await;
    assert_eq!(tx.try_submit(99), Err(SubmitError::Full(99)));
    assert_eq!((rx.try_recv(), rx.try_recv()), (Some(0), Some(1)));
    assert_eq!(tx.info().waiters, 1);
    tx.try_submit(65).unwrap();
    assert_eq!(tx.try_submit(99), Err(SubmitError::Full(99)));
    settle().await;
    assert!(waiting[0].is_finished());
    for n in 2..=65 {
        assert_eq!(rx.recv().await, Some(n), "in order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_heavy_first_in_line_waits_for_as_much_as_it_needs_and_no_longer() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::weighted("heavy", 100, Full::Block, |weight: &usize| *weight);
    for _ in 0..10 {
        tx.submit(10).await.unwrap();
    }
    let heavy = {
        let tx = tx.clone();
        ctx.spawn("heavy", async move { tx.submit(55).await })
    };
    settle().await;
    for _ in 0..5 {
        assert_eq!(rx.try_recv(), Some(10));
    }
    assert_eq!((tx.info().depth, tx.info().waiters), (50, 1));
    assert_eq!(rx.try_recv(), Some(10));
    assert_eq!((tx.info().depth, tx.info().waiters), (95, 0));
    heavy.join().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_depth_is_exact_and_the_bound_is_full_use_whatever_was_taken_at_once() {
    let (tx, rx) = queue::bounded("exact", Bound::items(64), Full::Reject);
    for n in 0..40 {
        tx.try_submit(n).unwrap();
    }
    let mut batch = Vec::new();
    assert_eq!(rx.recv_many(&mut batch, 3).await, 3);
    assert_eq!(rx.recv().await, Some(3));
    let info = tx.info();
    assert_eq!((info.depth, info.items, info.sent, info.received), (36, 36, 40, 4));
    for n in 40..68 {
        tx.try_submit(n).unwrap();
    }
    assert_eq!(tx.try_submit(99), Err(SubmitError::Full(99)));
    for n in 4..68 {
        assert_eq!((rx.len(), rx.try_recv()), (68 - n, Some(n)));
    }
    assert!(rx.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_heavy_submit_that_gives_up_lets_the_light_ones_behind_it_in() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::weighted("heavy", 10, Full::Block, |weight: &usize| *weight);
    tx.submit(6).await.unwrap();
    let heavy = {
        let tx = tx.clone();
        ctx.spawn("heavy", async move { tx.submit_within(9, clock::now() + SEC).await })
    };
    until(|| tx.info().waiters == 1).await;
    let light = {
        let tx = tx.clone();
        ctx.spawn("light", async move { tx.submit(2).await })
    };
    until(|| tx.info().waiters == 2).await;
    assert_eq!(heavy.join().await.unwrap(), Err(SubmitError::TimedOut(9)));
    light.join().await.unwrap().unwrap();
    assert_eq!((rx.try_recv(), rx.try_recv(), rx.try_recv()), (Some(6), Some(2), None));
}

#[tokio::test(start_paused = true)]
async fn b82_submit_all_says_exactly_what_was_not_sent_when_the_receiver_is_slow_or_gone() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("all", Bound::items(2), Full::Block));
    let receiver = ctx.spawn("receiver", async move {
        let mut got = Vec::new();
        for _ in 0..3 {
            got.extend(rx.recv().await);
            tokio::time::sleep(SEC).await;
        }
        got.extend(std::iter::from_fn(|| rx.try_recv()));
        got
    });
    let unsent = tx.submit_all(0..20, clock::now() + 60 * SEC).await.unwrap_err();
    let got = receiver.join().await.unwrap();
    let sent: Vec<_> = (0..unsent.rest[0]).collect();
    assert_eq!(unsent.rest, (unsent.rest[0]..20).collect::<Vec<_>>());
    assert_eq!(unsent.reason, SubmitError::Closed(()));
    assert_eq!(unsent.reason, SubmitError::Closed(()));
    assert!(!unsent.reason.may_retry());
    assert_eq!(got.len() as u64 + tx.info().dropped, sent.len() as u64);
    assert_eq!(got, sent[..got.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_received_in_order_up_to_its_limit_and_makes_room() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("batch", Bound::items(4), Full::Block));
    let sender = ctx.spawn("sender", async move {
        for n in 0..10 {
            tx.submit(n).await.unwrap();
        }
    });
    until(|| rx.info().waiters == 1).await;
    let mut batch = vec![100];
    assert_eq!(rx.recv_many(&mut batch, 3).await, 3);
    assert_eq!(batch, [100, 0, 1, 2], "appended");
    assert_eq!(rx.recv_many(&mut batch, 0).await, 0);
    while rx.recv_many(&mut batch, 64).await > 0 {}
    assert_eq!(batch.split_off(1), (0..10).collect::<Vec<_>>());
    sender.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_never_empty_does_not_starve_other_tasks() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("busy", Bound::items(4), Full::Block));
    let busy = ctx.spawn("busy", async move {
        loop {
            tx.submit(1).await.unwrap();
            rx.recv().await.unwrap();
        }
    });
    // Were it not to yield, this would never be polled again.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn the_counts_of_a_queue_reconcile() {
    let (tx, rx) = queue::bounded("counts", Bound::items(3), Full::DropOldest);
    for n in 0..8 {
        tx.submit(n).await.unwrap();
    }
    assert_eq!(rx.recv().await, Some(5));
    let info = tx.info();
    assert_eq!((info.sent, info.received, info.dropped, info.items), (8, 1, 5, 2));
    drop(rx);
    let info = tx.info();
    assert_eq!(info.sent, info.received + info.dropped + info.items as u64);
}
