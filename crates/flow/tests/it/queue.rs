//! Queues: policies, bounds, closing, cancellation.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_flow::queue::{self, Bound, Full, SubmitError};
use forebay_flow::{Ctx, clock, leak, tasks};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn block_makes_the_sender_wait_and_counts_for_how_long() {
    let (ctx, (tx, rx)) =
        (Ctx::root("t"), queue::bounded("blocking", Bound::items(1), Full::Block));
    tx.submit(1).await.unwrap();
    let waiting = {
        let tx = tx.clone();
        ctx.spawn("sender", async move { tx.submit(2).await })
    };
    tokio::time::sleep(3 * SEC).await;
    let seen = tasks::snapshot().into_iter().find(|task| task.id == waiting.id()).unwrap();
    assert_eq!(seen.waiting_on.as_deref(), Some("room in queue `blocking`"));
    assert_eq!(tx.info().waiters, 1);
    assert!(
        (tx.info().blocked_seconds - 3.0).abs() < 0.1,
        "those still waiting count: {:?}",
        tx.info()
    );
    assert_eq!(rx.recv().await, Some(1));
    waiting.join().await.unwrap().unwrap();
    tokio::time::sleep(SEC).await;
    let info = tx.info();
    assert_eq!(
        (info.sent, info.blocked, info.depth, info.capacity, info.policy),
        (2, 1, 1, 1, "block")
    );
    assert!((info.blocked_seconds - 3.0).abs() < 0.1, "{info:?}");
}

#[tokio::test]
async fn b53_a_full_queue_that_does_not_wait_hands_the_item_back_and_counts_it() {
    for full in [Full::Block, Full::Reject] {
        let (tx, _rx) = queue::bounded("full", Bound::items(2), full);
        tx.try_submit("a").unwrap();
        tx.try_submit("b").unwrap();
        assert_eq!(tx.try_submit("c"), Err(SubmitError::Full("c")));
        assert_eq!((tx.info().rejected, tx.info().sent), (1, 2));
    }
    let (tx, _rx) = queue::bounded("full", Bound::items(1), Full::Reject);
    tx.submit(1).await.unwrap();
    assert_eq!(
        tx.submit(2).await,
        Err(SubmitError::Full(2)),
        "under `Reject` a submit does not wait either"
    );
}

#[tokio::test]
async fn b52_a_bound_of_zero_is_a_rendezvous() {
    let (ctx, (tx, rx)) =
        (Ctx::root("t"), queue::bounded("rendezvous", Bound::items(0), Full::Block));
    assert_eq!(tx.try_submit(1), Err(SubmitError::Full(1)), "nobody waits for it");
    let receiver = ctx.spawn("receiver", async move { (rx.recv().await, rx.recv().await) });
    until(|| tx.info().receivers_waiting == 1).await;
    tx.try_submit(1).unwrap();
    assert_eq!(tx.try_submit(2), Err(SubmitError::Full(2)), "one receiver, one item");
    tx.submit(3).await.unwrap();
    assert_eq!(receiver.join().await.unwrap(), (Some(1), Some(3)));
}

/// One poll of `fut`; `None` while it is pending.
async fn poll_once<F: Future>(mut fut: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match fut.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn submit_within_gives_the_item_back_at_its_deadline() {
    let (tx, rx) = queue::bounded("deadline", Bound::items(1), Full::Block);
    tx.submit(1).await.unwrap();
    let began = clock::now();
    assert_eq!(tx.submit_within(2, began + 2 * SEC).await, Err(SubmitError::TimedOut(2)));
    assert_eq!((clock::now() - began).as_secs(), 2);
    assert_eq!((rx.recv().await, rx.try_recv()), (Some(1), None));
    tx.submit_within(3, clock::now()).await.unwrap();
}

#[tokio::test]
async fn b75_drop_oldest_keeps_the_newest_and_counts_the_dropped() {
    let (tx, rx) = queue::bounded("newest", Bound::items(3), Full::DropOldest);
    for n in 0..10 {
        tx.submit(n).await.unwrap();
    }
    assert_eq!(tx.info().dropped, 7);
    assert_eq!(
        [rx.try_recv(), rx.try_recv(), rx.try_recv(), rx.try_recv()],
        [Some(7), Some(8), Some(9), None]
    );
}

#[tokio::test]
async fn b76_drop_newest_never_blocks_and_counts_exactly() {
    let (tx, rx) = queue::bounded("oldest", Bound::items(3), Full::DropNewest);
    for n in 0..10 {
        tx.submit(n).await.unwrap();
    }
    assert_eq!((tx.info().dropped, tx.info().sent), (7, 3));
    assert_eq!(
        [rx.try_recv(), rx.try_recv(), rx.try_recv(), rx.try_recv()],
        [Some(0), Some(1), Some(2), None]
    );
}

#[tokio::test(start_paused = true)]
async fn b77_an_item_heavier_than_the_bound_is_refused_at_once() {
    let (tx, rx) = queue::weighted("bytes", 10, Full::Block, |text: &String| text.len());
    assert!(
        matches!(tx.submit("x".repeat(11)).await, Err(SubmitError::TooHeavy(item)) if item.len() == 11)
    );
    tx.submit("x".repeat(7)).await.unwrap();
    assert!(matches!(tx.try_submit("x".repeat(4)), Err(SubmitError::Full(_))));
    tx.try_submit("x".repeat(3)).unwrap();
    assert_eq!(
        (tx.info().depth, tx.info().capacity, tx.info().unit, tx.info().items),
        (10, 10, "bytes", 2)
    );
    drop(rx.recv().await);
    assert_eq!(tx.info().depth, 3);
}

#[tokio::test(start_paused = true)]
async fn a_heavy_item_that_waits_is_not_overtaken_by_light_ones() {
    let (ctx, (tx, rx)) =
        (Ctx::root("t"), queue::weighted("fair", 10, Full::Block, |weight: &usize| *weight));
    tx.submit(6).await.unwrap();
    let heavy = {
        let tx = tx.clone();
        ctx.spawn("heavy", async move { tx.submit(9).await })
    };
    until(|| tx.info().waiters == 1).await;
    assert_eq!(
        tx.try_submit(1),
        Err(SubmitError::Full(1)),
        "it would fit, but another is first in line"
    );
    assert_eq!((rx.recv().await, rx.recv().await), (Some(6), Some(9)));
    heavy.join().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn b82_submit_all_returns_exactly_the_unsent_rest() {
    let (tx, rx) = queue::bounded("all", Bound::items(3), Full::Block);
    let unsent = tx.submit_all(0..8, clock::now() + SEC).await.unwrap_err();
    assert_eq!(unsent.rest, [3, 4, 5, 6, 7]);
    assert_eq!(unsent.reason, SubmitError::TimedOut(()));
    let error: Box<dyn std::error::Error> = unsent.into();
    assert_eq!(
        error.to_string(),
        "the queue stayed full until the deadline: 5 items not submitted"
    );
    drop(tx);
    let mut got = Vec::new();
    while let Some(n) = rx.recv().await {
        got.push(n);
    }
    assert_eq!(got, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b83_closing_under_many_producers_and_consumers_loses_and_duplicates_nothing() {
    for round in 0..20 {
        let ctx = Ctx::root("t");
        let (tx, rx) = queue::bounded("close", Bound::items(4), Full::Block);
        let producers: Vec<_> = (0..8_u32)
            .map(|p| {
                let tx = tx.clone();
                ctx.spawn("producer", async move {
                    let mut accepted = Vec::new();
                    for n in 0..200 {
                        match tx.submit(p * 1000 + n).await {
                            Ok(()) => accepted.push(p * 1000 + n),
                            Err(error) => {
                                assert!(matches!(error, SubmitError::Closed(item) if item == p * 1000 + n));
                                break;
                            }
                        }
                    }
                    accepted
                })
            })
            .collect();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let rx = rx.clone();
                ctx.spawn("consumer", async move {
                    let mut got = Vec::new();
                    while let Some(n) = rx.recv().await {
                        got.push(n);
                    }
                    got
                })
            })
            .collect();
        until(|| tx.info().sent >= round * 70).await;
        tx.close();
        let (mut accepted, mut got) = (BTreeSet::new(), Vec::new());
        for producer in producers {
            accepted.extend(producer.join().await.unwrap());
        }
        for consumer in consumers {
            got.extend(consumer.join().await.unwrap());
        }
        assert_eq!(got.len(), accepted.len());
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), accepted);
        leak::check(&ctx).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b84_a_cancelled_submit_has_either_sent_or_kept_the_item_f5() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded("select", Bound::items(1), Full::Block);
    let consumer = ctx.spawn("consumer", async move {
        let mut got = Vec::new();
        while let Some(n) = rx.recv().await {
            got.push(n);
            tokio::task::yield_now().await;
        }
        got
    });
    let producers: Vec<_> = (0..4_u32)
        .map(|p| {
            let tx = tx.clone();
            ctx.spawn("producer", async move {
                let (mut sent, mut kept) = (Vec::new(), Vec::new());
                for n in (0..500).map(|n| p * 1000 + n) {
                    let mut submit = tx.submit(n);
                    let outcome = tokio::select! {
                        result = &mut submit => Some(result),
                        () = tokio::task::yield_now() => None,
                    };
                    match outcome {
                        Some(result) => {
                            result.unwrap();
                            sent.push(n);
                        }
                        None => match submit.take_back() {
                            Some(item) => kept.push(item),
                            None => sent.push(n),
                        },
                    }
                }
                (sent, kept)
            })
        })
        .collect();
    let (mut sent, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for producer in producers {
        let (s, k) = producer.join().await.unwrap();
        sent.extend(s);
        kept.extend(k);
    }
    drop(tx);
    let got: BTreeSet<_> = consumer.join().await.unwrap().into_iter().collect();
    assert_eq!(got, sent);
    assert!(sent.is_disjoint(&kept));
    assert_eq!(sent.len() + kept.len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn b84_a_submit_given_up_in_line_keeps_its_item_and_leaves_its_place_to_the_next_f5() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("drop", Bound::items(1), Full::Block));
    tx.submit(1).await.unwrap();
    let mut first = Box::pin(tx.submit(2));
    assert!(
        std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    let second = {
        let tx = tx.clone();
        ctx.spawn("second", async move { tx.submit(3).await })
    };
    until(|| tx.info().waiters == 2).await;
    assert_eq!(first.take_back(), Some(2), "it was not sent, and its place goes to the next");
    assert_eq!(rx.recv().await, Some(1));
    second.join().await.unwrap().unwrap();
    assert_eq!(rx.recv().await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn b84_a_submit_let_in_while_nobody_polls_it_has_sent_f5() {
    let (tx, rx) = queue::bounded("let in", Bound::items(1), Full::Block);
    tx.submit(1).await.unwrap();
    let mut second = Box::pin(tx.submit(2));
    assert!(poll_once(second.as_mut()).await.is_none());
    assert_eq!(rx.recv().await, Some(1)); // makes room, and lets the waiting item in
    assert_eq!(second.take_back(), None, "sent, so not kept");
    assert_eq!((rx.try_recv(), rx.try_recv()), (Some(2), None));
    let mut third = Box::pin(tx.submit_within(3, clock::now() + SEC));
    poll_once(third.as_mut()).await.unwrap().unwrap();
    assert_eq!(third.take_back(), None);
}

#[tokio::test(start_paused = true)]
async fn b84_a_dropped_receive_hands_its_wake_to_the_next_receiver_f5() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("wake", Bound::items(4), Full::Block));
    let mut first = Box::pin(rx.recv());
    assert!(
        std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    let second = {
        let rx = rx.clone();
        ctx.spawn("second", async move { rx.recv().await })
    };
    until(|| tx.info().receivers_waiting == 2).await;
    tx.submit(7).await.unwrap(); // wakes the first
    drop(first);
    assert_eq!(second.join().await.unwrap(), Some(7));
}

#[tokio::test]
async fn when_the_last_receiver_goes_submitters_are_refused_and_the_rest_is_counted_as_dropped() {
    let (tx, rx) = queue::bounded("orphan", Bound::items(4), Full::Block);
    tx.submit(1).await.unwrap();
    drop(rx);
    assert_eq!(tx.submit(2).await, Err(SubmitError::Closed(2)));
    assert_eq!((tx.info().dropped, tx.info().items), (1, 0));
}

#[tokio::test]
async fn a_thread_can_receive_and_submit_blocking() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded("in", Bound::items(2), Full::Block);
    let (back, results) = queue::bounded("out", Bound::items(1), Full::Block);
    let thread = forebay_flow::thread::spawn(&ctx, "doubler", move |_ctx| {
        let mut count = 0;
        while let Some(n) = rx.recv_blocking() {
            back.submit_blocking(n * 2).unwrap();
            count += 1;
        }
        count
    })
    .unwrap();
    for n in 0..100 {
        tx.submit(n).await.unwrap();
        assert_eq!(results.recv().await, Some(n * 2));
    }
    drop(tx);
    assert_eq!(thread.join().await, Ok(100));
    leak::check(&ctx).await.unwrap();
}

/// Between threads of their own, and between a `block_on` and a task beside it: there whoever waits may spin first.
#[test]
fn b83_what_passes_between_threads_that_wait_for_each_other_comes_once_and_in_order() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let ctx = Ctx::root("t");
    for bound in [0, 1, 8, 64] {
        let (tx, rx) = queue::bounded("between", Bound::items(bound), Full::Block);
        let sender = forebay_flow::thread::spawn(&ctx, "sender", move |_ctx| {
            (0..2_000).filter(|n| tx.submit_blocking(*n).is_ok()).count()
        });
        let came: Vec<_> = std::iter::from_fn(|| rx.recv_blocking()).collect();
        assert_eq!(came, (0..2_000).collect::<Vec<_>>(), "two threads, bound {bound}");
        assert_eq!(sender.unwrap().join_blocking(), Ok(2_000));

        let (tx, rx) = queue::bounded("there", Bound::items(bound), Full::Block);
        let (back, returned) = queue::bounded("back", Bound::items(bound), Full::Block);
        let echo = async move {
            while let Some(n) = rx.recv().await {
                back.submit(n).await.unwrap();
            }
        };
        let echo = {
            let _inside = runtime.enter();
            ctx.spawn("echo", echo)
        };
        let came = runtime.block_on(async {
            let send = async {
                for n in 0..2_000 {
                    tx.submit(n).await.unwrap();
                }
                tx.close();
            };
            let receive = async {
                let mut came = Vec::new();
                while let Some(n) = returned.recv().await {
                    came.push(n);
                }
                came
            };
            tokio::join!(send, receive).1
        });
        assert_eq!(came, (0..2_000).collect::<Vec<_>>(), "a block_on, bound {bound}");
        runtime.block_on(echo.join()).unwrap();
    }
}

#[tokio::test]
async fn the_registry_shows_live_queues_with_their_reason_and_forgets_dead_ones() {
    let (tx, rx) = queue::Builder::<u8>::new("registered-here", Bound::items(9), Full::Reject)
        .why("a test")
        .build();
    let find = || queue::snapshot().into_iter().find(|queue| queue.name == "registered-here");
    let info = find().unwrap();
    assert_eq!((info.capacity, info.policy, info.unit, info.why), (9, "reject", "items", "a test"));
    drop((tx, rx));
    assert_eq!(find(), None);
}
