//! Groups and fan-out.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_flow::group::{Missing, Refused};
use forebay_flow::pool;
use forebay_flow::queue::Bound;
use forebay_flow::{Cause, Ctx, Group, GroupError, Stopped, clock, fan_out, leak};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b59_results_come_in_the_order_of_spawning_however_long_each_takes() {
    let ctx = Ctx::root("t");
    let mut group = Group::new(&ctx, "g", 100);
    for n in 0..50_u32 {
        let spawned = group.spawn(async move {
            tokio::time::sleep((50 - n) * SEC).await;
            Ok::<_, ()>(n)
        });
        spawned.await.unwrap();
    }
    assert_eq!(group.finish().await, Ok((0..50).collect()));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b59_the_first_error_cancels_the_rest_and_skips_the_queued() {
    let ctx = Ctx::root("t");
    let mut group = Group::<(), &str>::new(&ctx, "g", 2);
    let (began, own) = (clock::now(), group.ctx().clone());
    group.spawn(pending()).await.unwrap();
    let failing = async {
        tokio::time::sleep(SEC).await;
        Err("first")
    };
    group.spawn(failing).await.unwrap();
    let queued = group.spawn(async { panic!("ran though it was queued") }).await;
    assert!(matches!(queued, Err(Refused::Stopped(_))), "{queued:?}");
    assert!(matches!(group.try_spawn(async { Err("later") }), Err(Refused::Stopped(_))));
    assert_eq!(own.cause(), Some(Cause::Failed("a task failed".into())));
    assert_eq!(group.finish().await, Err(GroupError::Failed("first")));
    assert_eq!(clock::now() - began, SEC);
    assert!(!ctx.is_cancelled(), "only the group is");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b59_the_limit_is_never_passed() {
    let ctx = Ctx::root("t");
    let mut group = Group::new(&ctx, "g", 3);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n in 0..500_usize {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let task = async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        };
        match group.try_spawn(task) {
            Ok(()) => {}
            Err(refused) => group.spawn(refused.into_inner()).await.unwrap(),
        }
    }
    assert_eq!(group.finish().await.unwrap().len(), 500);
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b59_a_limit_of_zero_always_refuses_and_gives_the_task_back() {
    let mut group = Group::<u32, ()>::new(&Ctx::root("t"), "g", 0);
    let back = group.spawn(async { Ok(5) }).await.unwrap_err();
    assert!(matches!(back, Refused::Full(_)));
    assert_eq!(back.into_inner().await, Ok(5));
    assert!(matches!(group.try_spawn(async { Ok(5) }), Err(Refused::Full(_))));
    assert_eq!(group.finish().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_group_is_its_error_with_the_stack_and_cancels_the_rest() {
    let ctx = Ctx::root("t");
    let mut group = Group::<(), ()>::new(&ctx, "g", 2);
    group.spawn(pending()).await.unwrap();
    group.spawn(async { panic!("guilty") }).await.unwrap();
    let Err(GroupError::Panicked(panic)) = group.finish().await else { panic!("no panic") };
    assert_eq!(panic.message(), "guilty");
    assert!(panic.stack().is_some());
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_ends_with_its_context_and_a_dropped_one_aborts_its_tasks() {
    let ctx = Ctx::root("t");
    let mut group = Group::<(), ()>::new(&ctx.child("above"), "g", 2);
    group.spawn(pending()).await.unwrap();
    group.ctx().cancel(Cause::Shutdown);
    let stopped = Stopped::Cancelled(Cause::Shutdown);
    assert_eq!(group.finish().await, Err(GroupError::Stopped(stopped)));

    let mut group = Group::<(), ()>::new(&ctx.with_deadline(clock::now() + SEC), "g", 2);
    group.spawn(pending()).await.unwrap();
    assert_eq!(group.finish().await, Err(GroupError::Stopped(Stopped::DeadlineExceeded)));

    let mut group = Group::<(), ()>::new(&ctx, "g", 2);
    group.spawn(pending()).await.unwrap();
    assert_eq!(ctx.live(), 1);
    drop(group);
    until(|| ctx.live() == 0).await;
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b81_at_the_deadline_what_is_finished_returns_and_the_rest_is_cancelled_and_named() {
    let ctx = Ctx::root("t");
    let began = clock::now();
    // Two at a time, 1 s, 2 s, …: by 6.5 s four have ended, two run, two never started.
    let partial = fan_out(&ctx, "f", began + 6 * SEC + SEC / 2, 2, 1..=8_u32, |n, _| async move {
        tokio::time::sleep(n * SEC).await;
        n * 10
    });
    let partial = partial.await;
    assert_eq!(clock::now() - began, 6 * SEC + SEC / 2);
    assert_eq!(partial.finished, [(1, 10), (2, 20), (3, 30), (4, 40)]);
    let (cut, never) = (Missing::Unfinished, Missing::NotStarted);
    assert_eq!(partial.missing, [(5, cut.clone()), (6, cut), (7, never.clone()), (8, never)]);
    assert!(!partial.is_complete());
    until(|| ctx.live() == 0).await;
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b81_a_fan_out_that_is_done_early_returns_early_and_names_its_panics() {
    let ctx = Ctx::root("t");
    let began = clock::now();
    let partial = fan_out(&ctx, "f", began + 60 * SEC, 8, ["a", "b", "c"], |name, _| async move {
        tokio::time::sleep(SEC).await;
        assert!(name != "b", "no b");
        name.to_owned()
    });
    let partial = partial.await;
    assert_eq!(clock::now() - began, SEC);
    assert_eq!(partial.finished, [("a", "a".to_owned()), ("c", "c".to_owned())]);
    assert_eq!(partial.missing, [("b", Missing::Panicked("no b".into()))]);
    let nothing = fan_out(&ctx, "f", began + 60 * SEC, 0, ["a"], |_, _| async {}).await;
    assert_eq!(nothing.missing, [("a", Missing::NotStarted)]);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b81_a_cancel_from_above_ends_a_fan_out_and_so_does_dropping_it() {
    let ctx = Ctx::root("t");
    let deadline = clock::now() + 60 * SEC;
    let request = ctx.child("request");
    let canceller = request.clone();
    let cancel = ctx.spawn("cancel", async move {
        tokio::time::sleep(SEC).await;
        canceller.cancel(Cause::Terminated);
    });
    let partial = fan_out(&request, "f", deadline, 2, [1, 2, 3], |_, _| pending::<()>()).await;
    assert_eq!(partial.missing.len(), 3);
    assert!(clock::now() < deadline);
    cancel.join().await.unwrap();
    let dropped = fan_out(&ctx, "f", deadline, 2, [1, 2, 3], |_, _| pending::<()>());
    assert!(tokio::time::timeout(SEC, dropped).await.is_err());
    until(|| ctx.live() == 0).await;
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b85_deadlines_shrink_through_groups_fan_outs_and_pools_and_never_grow() {
    let began = clock::now();
    let root = Ctx::root("t");
    let request = root.with_deadline(began + 5 * SEC);
    let pool =
        pool::Builder::new("p", 2, Bound::items(4)).under(&root).job_timeout(60 * SEC).tasks();
    let mut group = Group::new(&request, "g", 4);
    let (ctx, inner_pool) = (group.ctx().clone(), pool.clone());
    assert_eq!(ctx.deadline(), Some(began + 5 * SEC));
    let task = async move {
        // Asks for more than is left, and gets what is left; asks for less, and gets that.
        let longer = fan_out(&ctx, "f", began + 50 * SEC, 2, ["far"], move |_, ctx| {
            let pool = inner_pool.clone();
            async move {
                let shorter = ctx.with_deadline(began + 2 * SEC);
                let within = shorter.deadline().unwrap();
                let late = pool.run_within(within, pending::<()>()).await;
                (
                    ctx.deadline(),
                    shorter.with_deadline(began + 9 * SEC).deadline(),
                    late,
                    clock::now(),
                )
            }
        });
        Ok::<_, ()>(longer.await)
    };
    group.spawn(task).await.unwrap();
    let mut partial = group.finish().await.unwrap().remove(0);
    let (_, (fan, shorter, late, at)) = partial.finished.remove(0);
    assert_eq!(fan, Some(began + 5 * SEC));
    assert_eq!((shorter, at), (Some(began + 2 * SEC), began + 2 * SEC));
    assert_eq!(late, Err(forebay_flow::pool::PoolError::TimedOut));
    let over = fan_out(&request, "f", began + 50 * SEC, 1, [1], |_, _| pending::<()>()).await;
    assert_eq!((over.missing.len(), clock::now()), (1, began + 5 * SEC));
    pool.drain(clock::now()).await;
    leak::check(&root).await.unwrap();
}
