//! The byte budget.

use std::time::Duration;

use forebay_flow::budget::{Budget, Exhausted, ShareError, snapshot};
use forebay_flow::leak::Checker;
use forebay_flow::{Cause, Ctx, Stopped, clock, leak, tasks};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test]
async fn shares_never_sum_to_more_than_the_total_f3() {
    let budget = Budget::new("memory", 100);
    let intake = budget.share("intake", 60).unwrap();
    assert_eq!(
        budget.share("lanes", 50).unwrap_err(),
        ShareError::OverTotal { share: "lanes".into(), bytes: 50, left: 40 }
    );
    assert_eq!(
        budget.share("intake", 1).unwrap_err(),
        ShareError::Duplicate { share: "intake".into() }
    );
    let lanes = budget.share("lanes", 40).unwrap();
    let _all = intake.try_acquire(60).unwrap();
    assert!(intake.try_acquire(1).is_none());
    assert!(lanes.try_acquire(40).is_some(), "a full share does not touch another");
}

#[tokio::test(start_paused = true)]
async fn b61_a_large_acquire_is_not_starved_by_small_ones() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 10).share("s", 10).unwrap());
    let held = share.acquire(3).await.unwrap();
    let large = {
        let share = share.clone();
        ctx.spawn("large", async move { share.acquire(10).await })
    };
    until(|| share.waiters() == 1).await;
    assert!(share.try_acquire(1).is_none(), "a small one does not slip past");
    let small = {
        let share = share.clone();
        ctx.spawn("small", async move { share.acquire(1).await })
    };
    until(|| share.waiters() == 2).await;
    let seen = tasks::snapshot().into_iter().find(|task| task.id == large.id()).unwrap();
    assert_eq!(seen.waiting_on.as_deref(), Some("budget `s`"));
    drop(held);
    let large = large.join().await.unwrap().unwrap();
    assert_eq!((large.bytes(), share.used(), share.waiters()), (10, 10, 1));
    drop(large);
    assert_eq!(small.join().await.unwrap().unwrap().bytes(), 1);
    assert_eq!(share.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn b61_an_impossible_acquire_is_refused_at_once_and_blocks_nobody() {
    let share = Budget::new("m", 10).share("s", 10).unwrap();
    assert_eq!(share.acquire(11).await.unwrap_err(), Exhausted::TooLarge);
    assert_eq!(
        share.acquire_within(11, clock::now() + SEC).await.unwrap_err(),
        Exhausted::TooLarge
    );
    assert_eq!(share.acquire(10).await.unwrap().bytes(), 10);
}

#[tokio::test(start_paused = true)]
async fn b61_a_cancelled_acquire_leaks_nothing_and_lets_those_behind_pass() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 10).share("s", 10).unwrap());
    let held = share.acquire(5).await.unwrap();
    let began = clock::now();
    let large = {
        let share = share.clone();
        ctx.spawn("large", async move { share.acquire_within(8, began + 2 * SEC).await })
    };
    until(|| share.waiters() == 1).await;
    let small = {
        let share = share.clone();
        ctx.spawn("small", async move { share.acquire(5).await })
    };
    assert_eq!(large.join().await.unwrap().unwrap_err(), Exhausted::TimedOut);
    let small = small.join().await.unwrap().unwrap();
    assert_eq!(share.used(), 10);
    drop((held, small));
    assert_eq!((share.used(), share.waiters()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn b61_a_grant_to_a_wait_that_is_dropped_unseen_goes_to_the_next_f5() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 10).share("s", 10).unwrap());
    let held = share.acquire(10).await.unwrap();
    let mut first = Box::pin(share.acquire(10));
    assert!(
        std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    let second = {
        let share = share.clone();
        ctx.spawn("second", async move { share.acquire(10).await })
    };
    until(|| share.waiters() == 2).await;
    drop(held); // grants the first
    drop(first);
    drop(second.join().await.unwrap().unwrap());
    assert_eq!(share.used(), 0);
}

#[tokio::test]
async fn b61_an_already_cancelled_context_never_acquires() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 10).share("s", 10).unwrap());
    ctx.cancel(Cause::Shutdown);
    assert_eq!(ctx.run(share.acquire(1)).await.map(drop), Err(Stopped::Cancelled(Cause::Shutdown)));
    assert_eq!(share.used(), 0);
}

#[tokio::test]
async fn permits_split_merge_and_shrink_without_losing_a_byte() {
    let share = Budget::new("m", 100).share("s", 100).unwrap();
    let mut permit = share.acquire(50).await.unwrap();
    let part = permit.split(20);
    assert_eq!((permit.bytes(), part.bytes(), share.used()), (30, 20, 50));
    permit.merge(part);
    permit.shrink_to(10);
    assert_eq!((permit.bytes(), share.used()), (10, 10));
    permit.shrink_to(40);
    assert_eq!(permit.bytes(), 10, "shrinking never grows");
    permit.merge(share.try_acquire(90).unwrap());
    assert!(share.try_acquire(1).is_none());
    assert_eq!(share.used(), 100);
    let info = snapshot()
        .into_iter()
        .find(|info| info.budget == "m" && info.share == "s" && info.used == 100);
    assert_eq!(info.unwrap().peak, 100);
    drop(permit);
    assert_eq!(share.used(), 0);
}

#[tokio::test]
async fn an_outstanding_permit_is_a_leak() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 10).share("s", 10).unwrap());
    let permit = share.acquire(4).await.unwrap();
    let leaks = Checker::under(&ctx).share(&share).look().unwrap_err();
    assert_eq!((leaks.shares[0].share.as_str(), leaks.shares[0].used), ("s", 4));
    drop(permit);
    leak::Checker::under(&ctx).share(&share).check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_takers_with_random_deadlines_leave_the_share_as_it_was_f5() {
    let (ctx, share) = (Ctx::root("t"), Budget::new("m", 100).share("s", 100).unwrap());
    let takers: Vec<_> = (0..64_u64)
        .map(|n| {
            let share = share.clone();
            ctx.spawn("taker", async move {
                for round in 0..50 {
                    let deadline =
                        clock::now() + Duration::from_micros((n * 37 + round * 13) % 400);
                    if let Ok(permit) =
                        share.acquire_within(1 + (n * 7 + round) % 100, deadline).await
                    {
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                }
            })
        })
        .collect();
    for taker in takers {
        taker.join().await.unwrap();
    }
    assert_eq!((share.used(), share.waiters()), (0, 0));
}
