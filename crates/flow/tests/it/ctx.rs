//! Contexts, tasks, scopes.

use std::time::Duration;

use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::tasks::{self, State, TaskInfo};
use forebay_flow::{Abandoned, Cause, Ctx, Scope, Stopped, TaskError, clock, leak, thread};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test]
async fn cancelling_a_parent_reaches_every_descendant_with_its_cause_and_no_one_else() {
    let root = Ctx::root("root");
    let (left, right) = (root.child("left"), root.child("right"));
    let leaf = left.child("mid").child("leaf");
    left.cancel(Cause::Failed("disk".into()));
    left.cancel(Cause::Shutdown);
    assert_eq!(leaf.cause(), Some(Cause::Failed("disk".into())), "the first cause stays");
    assert!(!root.is_cancelled() && !right.is_cancelled());
    assert_eq!(
        left.child("late").cause(),
        leaf.cause(),
        "a child of a cancelled one is born cancelled"
    );
    assert_eq!((leaf.path().as_str(), leaf.name()), ("root/left/mid/leaf", "leaf"));
}

#[tokio::test(start_paused = true)]
async fn b85_deadlines_shrink_down_the_chain_and_never_grow() {
    let now = clock::now();
    let outer = Ctx::root("t").with_deadline(now + 5 * SEC);
    assert_eq!(outer.with_deadline(now + 9 * SEC).deadline(), Some(now + 5 * SEC));
    let inner = outer.with_deadline(now + 2 * SEC).child("c");
    assert_eq!(inner.deadline(), Some(now + 2 * SEC));
    assert_eq!(inner.run(std::future::pending::<()>()).await, Err(Stopped::DeadlineExceeded));
    assert_eq!(clock::now() - now, 2 * SEC);
    assert!(!inner.is_cancelled(), "a passed deadline is no cancellation");
    assert_eq!((inner.path().as_str(), outer.name()), ("t/c", "t"));
}

#[tokio::test]
async fn a_context_that_is_over_never_polls_the_future() {
    let ctx = Ctx::root("t");
    ctx.cancel(Cause::Shutdown);
    assert_eq!(
        ctx.run(async { panic!("polled") }).await,
        Err::<(), _>(Stopped::Cancelled(Cause::Shutdown))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cancel_is_missed_however_it_races_with_the_wait() {
    for _ in 0..500 {
        let ctx = Ctx::root("t");
        let child = ctx.child("c");
        let waiter = ctx.spawn("waiter", async move { child.cancelled().await });
        ctx.cancel(Cause::Other("race"));
        assert_eq!(waiter.join().await, Ok(Cause::Other("race")));
    }
}

#[tokio::test]
async fn a_panic_is_the_tasks_result_f8() {
    let ctx = Ctx::root("t");
    let task = ctx.spawn("bad", async { panic!("oh no") });
    assert_eq!(task.join().await, Err::<(), _>(TaskError::Panicked("oh no".into())));
    let thread = thread::spawn(&ctx, "bad", |_ctx| panic!("oh no")).unwrap();
    assert_eq!(thread.join().await, Err::<(), _>(TaskError::Panicked("oh no".into())));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn dropping_the_handle_of_a_task_aborts_it_f4() {
    let ctx = Ctx::root("t");
    let (held, gone) = tokio::sync::oneshot::channel::<()>();
    let task = ctx.spawn("task", async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    assert_eq!(ctx.live(), 1);
    drop(task);
    assert!(gone.await.is_err(), "what it held is dropped");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn dropping_the_handle_of_a_thread_cancels_its_context() {
    let ctx = Ctx::root("t");
    let thread = thread::spawn(&ctx, "thread", |ctx| {
        while !ctx.is_cancelled() {
            std::thread::yield_now();
        }
    });
    drop(thread);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn the_registry_tells_name_parent_place_and_polls() {
    let ctx = Ctx::root("registry-test");
    let task = ctx.child("part").spawn("polled", async {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    });
    let find = || tasks::snapshot().into_iter().find(|info| info.id == task.id()).unwrap();
    until(|| find().polls == 5).await;
    let info = find();
    assert_eq!((info.name.as_ref(), info.parent.as_str()), ("polled", "registry-test/part"));
    assert!(info.location.file().ends_with("ctx.rs") && info.since_last_poll.is_some());
    assert_eq!(tasks::counts_by_name().get("polled"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_scope_waits_for_its_tasks_then_aborts_the_rest_and_says_how_many() {
    let ctx = Ctx::root("t");
    let scope = Scope::new(&ctx, "conns");
    for n in 0..5 {
        scope.spawn("quick", tokio::time::sleep(n * SEC));
    }
    scope.spawn("stuck", std::future::pending::<()>());
    scope.spawn("bad", async { panic!("bad conn") });
    assert_eq!(scope.len(), 7);
    until(|| scope.panicked() == 1).await;
    let began = clock::now();
    assert_eq!(scope.finish(began + 10 * SEC).await, Abandoned(1));
    assert_eq!((clock::now() - began).as_secs(), 10);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn a_dropped_scope_takes_its_tasks_along_also_those_spawned_below_f4() {
    let ctx = Ctx::root("t");
    let scope = Scope::new(&ctx, "conns");
    let below = scope.ctx().child("deep");
    let kept = below.spawn("deep", std::future::pending::<()>());
    scope.spawn("conn", std::future::pending::<()>());
    drop(scope);
    assert_eq!(kept.join().await, Err(TaskError::Cancelled(Cause::Dropped)));
    below.spawn("late", std::future::pending::<()>()).join().await.unwrap_err();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn contexts_of_many_requests_leave_nothing_in_their_parent() {
    let ctx = Ctx::root("t");
    for _ in 0..1000 {
        let request = ctx.child("request").with_deadline(clock::now() + SEC);
        request.spawn("work", async {}).join().await.unwrap();
    }
    assert_eq!(ctx.live(), 0);
    ctx.cancel(Cause::Shutdown);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocked_in_its_first_poll_still_ends_with_its_scope() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded::<u8>("gate", Bound::items(1), Full::Block);
    let scope = Scope::new(&ctx, "scope");
    scope.spawn("blocks", async move {
        tokio::task::block_in_place(|| rx.recv_blocking());
        std::future::pending::<()>().await;
    });
    let seen = |wanted: fn(&TaskInfo) -> bool| {
        let tasks = tasks::snapshot();
        tasks.iter().any(|task| task.parent == "t/scope" && task.name == "blocks" && wanted(task))
    };
    until(|| seen(|task| task.waiting_on.is_some())).await;
    tx.try_submit(1).unwrap();
    until(|| seen(|task| task.state == State::Idle && task.waiting_on.is_none())).await;
    drop(scope);
    leak::check(&ctx).await.unwrap();
}
