//! Pools at their limits: full lines, resizing, stopping, stuck threads, panics and what is known of them.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use forebay_flow::pool::{self, JoinHandle, PoolError, PoolStats, TaskPool, ThreadPool};
use forebay_flow::queue::{Bound, Full};
use forebay_flow::{Cause, Ctx, clock, leak};
use tokio::sync::Semaphore;

use crate::rig::until;
use crate::survival::hush;

const SEC: Duration = Duration::from_secs(1);

fn reconciles(stats: &PoolStats) {
    let ended = stats.done + stats.failed + stats.panicked + stats.timed_out + stats.cancelled;
    let open = (stats.queued + stats.busy) as u64;
    assert_eq!(stats.submitted, ended + stats.dropped + stats.abandoned + open, "{stats:#?}");
}

/// A task pool whose jobs wait for the gate.
struct Gated {
    ctx: Ctx,
    pool: TaskPool,
    gate: Arc<Semaphore>,
}

impl Gated {
    fn new(workers: usize, bound: usize, blocked: usize) -> Self {
        let ctx = Ctx::root("t");
        let pool = pool::Builder::new("gated", workers, Bound::items(bound))
            .under(&ctx)
            .max_waiting(blocked)
            .tasks();
        Self { ctx, pool, gate: Arc::new(Semaphore::new(0)) }
    }

    fn job(&self) -> impl Future<Output = ()> + Send + use<> {
        let gate = Arc::clone(&self.gate);
        async move { gate.acquire().await.unwrap().forget() }
    }

    /// Starts a submitter that may have to wait.
    fn submitter(&self) -> forebay_flow::Task<Result<(), PoolError>> {
        let (pool, job) = (self.pool.clone(), self.job());
        self.ctx.spawn("submitter", async move { pool.submit(job).await })
    }
}

#[tokio::test(start_paused = true)]
async fn b54_one_submitter_more_than_may_wait_is_refused_at_once() {
    let t = Gated::new(1, 1, 2);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    t.pool.submit(t.job()).await.unwrap();
    let waiting = [t.submitter(), t.submitter()];
    until(|| t.pool.stats().waiters == 2).await;
    assert_eq!(t.pool.submit(t.job()).await, Err(PoolError::Full));
    assert_eq!(t.pool.run(async {}).await, Err(PoolError::Full));
    assert_eq!(t.pool.try_submit(t.job()), Err(PoolError::Full));
    assert_eq!(t.pool.stats().waiters, 2, "the refused one left no trace");
    drop(t.submitter());
    t.gate.add_permits(4);
    for submitter in waiting {
        assert_eq!(submitter.join().await, Ok(Ok(())));
    }
    until(|| t.pool.stats().done == 4).await;
    let stats = t.pool.stats();
    assert_eq!((stats.submitted, stats.waiters), (4, 0));
    reconciles(&stats);
}

#[tokio::test(start_paused = true)]
async fn b54_a_submitter_that_goes_away_makes_room_in_the_line() {
    let t = Gated::new(1, 1, 1);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    t.pool.submit(t.job()).await.unwrap();
    let waiting = t.submitter();
    until(|| t.pool.stats().waiters == 1).await;
    drop(waiting);
    until(|| t.pool.stats().waiters == 0).await;
    let next = t.submitter();
    until(|| t.pool.stats().waiters == 1).await;
    t.gate.add_permits(3);
    assert_eq!(next.join().await, Ok(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn b54_where_nobody_may_wait_a_submitter_of_many_is_not_refused_while_there_is_room() {
    let t = Gated::new(1, 256, 0);
    // More than Tokio lets one task do before it must give way: giving way is no waiting for room.
    for _ in 0..1000 {
        until(|| t.pool.stats().queued < 128).await;
        assert_eq!(t.pool.submit(async {}).await, Ok(()));
    }
    for _ in 0..200 {
        assert_eq!(t.pool.submit(async {}).await, Ok(()));
    }
    until(|| t.pool.stats().done == 1200).await;
}

#[tokio::test(start_paused = true)]
async fn b84_a_submit_that_is_dropped_after_its_job_was_let_in_counts_and_one_dropped_before_does_not()
 {
    let t = Gated::new(1, 1, 8);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    t.pool.submit(t.job()).await.unwrap();
    let mut waits = Box::pin(t.pool.submit(t.job()));
    let mut leaves = Box::pin(t.pool.submit(t.job()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(
        waits.as_mut().poll(&mut cx).is_pending() && leaves.as_mut().poll(&mut cx).is_pending()
    );
    assert_eq!(t.pool.stats().waiters, 2);
    drop(leaves);
    // The worker takes the queued one, and lets in whose submitter is never polled again.
    t.gate.add_permits(1);
    until(|| t.pool.stats().waiters == 0).await;
    drop(waits);
    t.gate.add_permits(2);
    until(|| t.pool.stats().done == 3).await;
    let stats = t.pool.stats();
    assert_eq!((stats.submitted, stats.queued, stats.busy), (3, 0, 0));
    reconciles(&stats);
}

#[tokio::test(start_paused = true)]
async fn b53_a_full_pool_refuses_drops_or_waits_as_its_policy_says_and_counts() {
    for (full, told) in [(Full::Reject, Err(PoolError::Full)), (Full::DropNewest, Ok(()))] {
        let ctx = Ctx::root("t");
        let pool = pool::Builder::new("p", 1, Bound::items(1)).under(&ctx).full(full).tasks();
        pool.submit(pending::<()>()).await.unwrap();
        until(|| pool.stats().busy == 1).await;
        pool.submit(async {}).await.unwrap();
        assert_eq!(pool.submit(async {}).await, told);
        let stats = pool.stats();
        assert_eq!(stats.dropped, u64::from(told.is_ok()));
        assert_eq!(stats.submitted, 2 + stats.dropped);
        reconciles(&stats);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_pool_without_a_queue_takes_a_job_only_when_a_worker_is_free() {
    let t = Gated::new(1, 0, 8);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    assert_eq!(t.pool.try_submit(t.job()), Err(PoolError::Full));
    t.pool.resize(2);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 2).await;
    t.pool.resize(1);
    t.gate.add_permits(2);
    until(|| t.pool.stats().live == 1).await;
    assert_eq!(t.pool.run(async { 5 }).await, Ok(5));
    t.pool.drain(clock::now() + SEC).await;
    leak::check(&t.ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b58_a_task_pool_that_grows_admits_who_waits_and_one_that_shrinks_interrupts_nobody() {
    let t = Gated::new(1, 1, 8);
    t.pool.submit(t.job()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    t.pool.submit(t.job()).await.unwrap();
    let waiting = t.submitter();
    until(|| t.pool.stats().waiters == 1).await;
    t.pool.resize(3);
    assert_eq!(waiting.join().await, Ok(Ok(())), "room was made by the new workers");
    until(|| t.pool.stats().busy == 3).await;
    t.pool.resize(1);
    tokio::time::sleep(SEC).await;
    let stats = t.pool.stats();
    assert_eq!((stats.workers, stats.live, stats.busy), (1, 3, 3), "all three still run");
    t.gate.add_permits(3);
    until(|| t.pool.stats().live == 1).await;
    let stats = t.pool.stats();
    assert_eq!((stats.done, stats.busy, t.ctx.live()), (3, 0, 1));
    reconciles(&stats);
}

#[tokio::test(start_paused = true)]
async fn b58_idle_workers_that_are_too_many_end_at_once() {
    // They wait in another way where there is no queue.
    for bound in [8, 0] {
        let t = Gated::new(100, bound, 8);
        until(|| t.ctx.live() == 100).await;
        t.pool.resize(10);
        until(|| t.ctx.live() == 10).await;
        t.pool.resize(0);
        until(|| t.ctx.live() == 1).await;
        assert_eq!(t.pool.run(async { 5 }).await, Ok(5), "one worker at least is left");
    }
}

#[tokio::test]
async fn b58_a_pool_of_threads_grows_and_shrinks_likewise() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("threads", 1, Bound::items(4)).under(&ctx).threads().unwrap();
    let (release, hold) = mpsc::sync_channel::<()>(3);
    let hold = Arc::new(parking_lot::Mutex::new(hold));
    let all = Arc::new(Barrier::new(4));
    for _ in 0..3 {
        let (hold, all) = (Arc::clone(&hold), Arc::clone(&all));
        let job = move || {
            all.wait();
            hold.lock().recv().unwrap();
        };
        pool.submit(job).await.unwrap();
    }
    until(|| pool.stats().busy == 1).await;
    pool.resize(3).unwrap();
    // Passes only when three run at once.
    tokio::task::spawn_blocking(move || all.wait()).await.unwrap();
    pool.resize(1).unwrap();
    assert_eq!(pool.stats().live, 3);
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    until(|| pool.stats().live == 1 && pool.stats().done == 3).await;
    until(|| ctx.live() == 1).await;
    assert_eq!(pool.run(|| 5).await, Ok(5));
    pool.drain(clock::now() + 30 * SEC).await;
    pool.resize(4).unwrap();
    assert_eq!(pool.stats().live, 0, "a stopped pool stays stopped");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b55_ten_thousand_submitters_racing_stop_lose_and_duplicate_nothing() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("race", 100, Bound::items(16)).under(&ctx).tasks();
    let ran = Arc::new(AtomicUsize::new(0));
    let submitters: Vec<_> = (0..10_000)
        .map(|n: usize| {
            let (pool, ran, stop) = (pool.clone(), Arc::clone(&ran), pool.clone());
            let job = async move {
                if n.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                if ran.fetch_add(1, Ordering::SeqCst) == 500 {
                    stop.stop();
                }
            };
            ctx.spawn("submitter", async move { pool.submit(job).await })
        })
        .collect();
    let (mut accepted, mut stopped) = (0, 0);
    for submitter in submitters {
        match submitter.join().await.unwrap() {
            Ok(()) => accepted += 1,
            Err(PoolError::Stopped) => stopped += 1,
            Err(other) => panic!("{other}"),
        }
    }
    until(|| pool.stats().live == 0).await;
    let stats = pool.stats();
    assert_eq!((accepted + stopped, stats.submitted), (10_000, accepted));
    assert_eq!(stats.done, ran.load(Ordering::SeqCst) as u64);
    assert_eq!(stats.done + stats.abandoned, accepted);
    // A hundred workers may each be in the middle of one.
    assert!((501..1000).contains(&stats.done) && stopped > 8_000, "{stats:?}");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b55_a_running_task_that_submits_to_its_stopped_pool_is_told_stopped() {
    let pool = TaskPool::new("self", 1, Bound::items(2));
    let again = pool.clone();
    let (go, gone) = tokio::sync::oneshot::channel();
    let job = pool.try_run(async move {
        gone.await.unwrap();
        (again.submit(async {}).await, again.try_run(async {}).map(drop), again.run(async {}).await)
    });
    until(|| pool.stats().busy == 1).await;
    pool.stop();
    go.send(()).unwrap();
    let stopped = || Err(PoolError::Stopped);
    assert_eq!(job.unwrap().join().await, Ok((stopped(), stopped(), stopped())));
}

/// A hundred jobs queued behind one that never ends.
async fn queued_behind(t: &Gated) -> Vec<JoinHandle<()>> {
    t.pool.submit(pending::<()>()).await.unwrap();
    until(|| t.pool.stats().busy == 1).await;
    (0..100).map(|_| t.pool.try_run(async {}).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn b56_stop_returns_at_once_and_what_was_queued_resolves_cancelled() {
    let t = Gated::new(1, 128, 8);
    let queued = queued_behind(&t).await;
    let began = clock::now();
    t.pool.stop();
    for job in queued {
        assert_eq!(job.join().await, Err(PoolError::Cancelled));
    }
    let drained = t.pool.drain(clock::now() + Duration::from_millis(100)).await;
    assert!(clock::now() - began < Duration::from_millis(250));
    assert_eq!(drained.abandoned, 101);
    let stats = t.pool.stats();
    assert_eq!((stats.submitted, stats.abandoned, stats.busy), (101, 101, 0));
    reconciles(&stats);
    leak::check(&t.ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b56_a_cancel_from_above_answers_the_queued_though_every_worker_is_busy() {
    let t = Gated::new(1, 128, 8);
    let queued = queued_behind(&t).await;
    let began = clock::now();
    t.ctx.cancel(Cause::Shutdown);
    for job in queued {
        assert_eq!(job.join().await, Err(PoolError::Cancelled));
    }
    assert!(clock::now() - began < Duration::from_millis(250));
    let stats = t.pool.stats();
    assert_eq!((stats.abandoned, stats.busy), (100, 1), "the running one is left to run");
    reconciles(&stats);
}

/// A pool whose workers take sixteen jobs at once by now: each full batch was twice the last. On a busy machine one may have
/// taken too long for that, so whoever needs it tries several times.
async fn warm(workers: usize) -> Gated {
    let t = Gated::new(workers, 256, 8);
    let jobs = 15 * workers;
    for _ in 0..jobs {
        t.pool.submit(async {}).await.unwrap();
    }
    until(|| t.pool.stats().done == jobs as u64).await;
    t
}

#[tokio::test(start_paused = true)]
async fn b56_a_job_that_stops_its_pool_keeps_none_of_those_taken_with_it() {
    for n in 0..50 {
        let t = warm(1).await;
        let (stop, waits) = (t.pool.clone(), t.job());
        let stopper = t.pool.try_run(async move {
            stop.stop();
            if n % 2 == 0 {
                waits.await;
            }
        });
        let behind: Vec<_> = (0..10).map(|_| t.pool.try_run(async {}).unwrap()).collect();
        for job in behind {
            let answered = tokio::time::timeout(SEC, job.join()).await;
            assert_eq!(answered, Ok(Err(PoolError::Cancelled)));
        }
        t.gate.add_permits(1);
        assert_eq!(stopper.unwrap().join().await, Ok(()));
        until(|| t.pool.stats().live == 0).await;
        let stats = t.pool.stats();
        assert_eq!((stats.done, stats.abandoned, stats.queued), (16, 10, 0));
        reconciles(&stats);
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Disk(u32);

#[inline(never)]
fn guilty(code: u32) {
    std::panic::panic_any(Disk(code));
}

#[tokio::test]
async fn b57_a_panics_error_matches_kind_and_cause_and_carries_the_stack() {
    // While a hook is changed, as that does, a stack may be lost: now, not in the middle.
    hush();
    let threads = ThreadPool::new("threads", 1, Bound::items(2)).unwrap();
    let tasks = TaskPool::new("tasks", 1, Bound::items(2));
    for error in [
        threads.run(|| guilty(7)).await.unwrap_err(),
        tasks.run(async { guilty(7) }).await.unwrap_err(),
    ] {
        let PoolError::Panicked(message) = &error else { panic!("{error}") };
        assert_eq!(message.payload::<Disk>(), Some(Disk(7)));
        assert_eq!(message.payload::<String>(), None);
        let stack = message.stack().unwrap().to_string();
        assert!(stack.contains("guilty"), "{stack}");
        assert_eq!(error.to_string(), "the job panicked: a panic without a message");
    }
    let text = tasks.run(async { panic!("row {}", 7) }).await.unwrap_err();
    assert_eq!(text, PoolError::Panicked("row 7".into()));
    for stats in [threads.stats(), tasks.stats()] {
        assert_eq!((stats.busy, stats.done), (0, 0));
        reconciles(&stats);
    }
}

struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("while it was dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_while_it_is_dropped_harms_no_worker() {
    let pool = pool::Builder::new("fragile", 1, Bound::items(2)).job_timeout(SEC).tasks();
    let fragile = Fragile;
    let dropped_at_its_end = pool.run(async move {
        let _fragile = fragile;
    });
    assert!(matches!(dropped_at_its_end.await, Err(PoolError::Panicked(_))));
    let fragile = Fragile;
    let cut_off = pool.run(async move {
        let _fragile = fragile;
        pending::<()>().await;
    });
    assert_eq!(cut_off.await, Err(PoolError::TimedOut));
    assert_eq!(pool.run(async { 5 }).await, Ok(5));
    let stats = pool.stats();
    assert_eq!((stats.panicked, stats.timed_out, stats.done, stats.restarts), (1, 1, 1, 0));
    reconciles(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waits_holds_up_none_of_those_taken_with_it() {
    for _ in 0..50 {
        let t = warm(2).await;
        t.pool.submit(t.job()).await.unwrap();
        for _ in 0..10 {
            t.pool.submit(async {}).await.unwrap();
        }
        until(|| t.pool.stats().done == 40).await;
        let stats = t.pool.stats();
        assert_eq!((stats.busy, stats.queued), (1, 0));
        reconciles(&stats);
        t.gate.add_permits(1);
        until(|| t.pool.stats().done == 41).await;
    }
}

#[tokio::test]
async fn jobs_without_a_caller_are_counted_as_done_or_failed() {
    let threads = ThreadPool::new("threads", 1, Bound::items(8)).unwrap();
    let tasks = TaskPool::new("tasks", 1, Bound::items(8));
    threads.submit(|| Err::<(), _>("no")).await.unwrap();
    threads.try_submit(|| Ok::<_, ()>(())).unwrap();
    tasks.submit(async { Err::<(), _>("no") }).await.unwrap();
    tasks.try_submit(async {}).unwrap();
    let deadline = clock::now() + 30 * SEC;
    assert_eq!(threads.drain(deadline).await.abandoned, 0);
    assert_eq!(tasks.drain(deadline).await.abandoned, 0);
    for stats in [threads.stats(), tasks.stats()] {
        assert_eq!((stats.done, stats.failed), (1, 1));
        reconciles(&stats);
    }
}

#[tokio::test]
async fn b87_a_stuck_thread_is_replaced_up_to_a_bound_and_ends_when_its_job_returns() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("stuck", 2, Bound::items(4))
        .under(&ctx)
        .job_timeout(Duration::from_millis(300))
        .max_stuck(1)
        .threads()
        .unwrap();
    let (release, hold) = mpsc::sync_channel::<()>(2);
    let hold = Arc::new(parking_lot::Mutex::new(hold));
    let stuck = || {
        let hold = Arc::clone(&hold);
        pool.try_run(move || hold.lock().recv().unwrap()).unwrap()
    };
    let (first, second) = (stuck(), stuck());
    assert_eq!(first.join().await, Err(PoolError::TimedOut));
    assert_eq!(second.join().await, Err(PoolError::TimedOut));
    until(|| pool.stats().replaced == 1).await;
    let stats = pool.stats();
    assert_eq!((stats.stuck, stats.live, stats.timed_out, stats.busy), (1, 2, 2, 0));
    assert_eq!(pool.run(|| 5).await, Ok(5), "the one in its place serves");
    release.send(()).unwrap();
    release.send(()).unwrap();
    until(|| pool.stats().stuck == 0).await;
    // Two run at once again: the thread that was not replaced is back.
    let both = Arc::new(Barrier::new(2));
    let meet = || {
        let both = Arc::clone(&both);
        pool.try_run(move || both.wait().is_leader()).unwrap()
    };
    let (first, second) = (meet(), meet());
    assert_ne!(first.join().await.unwrap(), second.join().await.unwrap());
    let drained = pool.drain(clock::now() + 30 * SEC).await;
    assert_eq!((drained.finished, drained.abandoned), (0, 0));
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.done, stats.timed_out), (5, 3, 2));
    reconciles(&stats);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b87_a_stuck_thread_does_not_hold_up_the_pools_end() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("stuck", 1, Bound::items(4))
        .under(&ctx)
        .job_timeout(Duration::from_millis(200))
        .threads()
        .unwrap();
    let (release, hold) = mpsc::sync_channel::<()>(1);
    pool.submit(move || hold.recv().unwrap()).await.unwrap();
    let behind = pool.try_run(|| 5).unwrap();
    let drained = pool.drain(clock::now() + 30 * SEC).await;
    assert_eq!(behind.join().await, Ok(5), "ran on the thread in its place");
    assert_eq!((drained.finished, drained.abandoned), (2, 0));
    assert_eq!(pool.stats().stuck, 1);
    until(|| ctx.live() == 1).await;
    let leaks = leak::Checker::under(&ctx).look().unwrap_err();
    assert_eq!(leaks.tasks[0].name, "stuck-0", "the stuck one is still to be seen");
    release.send(()).unwrap();
    leak::check(&ctx).await.unwrap();
    assert_eq!(pool.stats().stuck, 0);
}
