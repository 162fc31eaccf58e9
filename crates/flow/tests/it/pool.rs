//! Pools: results, panics, stopping, draining, counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use forebay_flow::pool::{self, JoinHandle, PoolError, PoolStats, ThreadPool};
use forebay_flow::queue::Bound;
use forebay_flow::{Backoff, Cause, Ctx, clock, leak};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

fn reconciles(stats: &PoolStats) {
    let ended = stats.done + stats.panicked + stats.timed_out + stats.cancelled + stats.abandoned;
    assert_eq!(stats.submitted, ended + stats.queued as u64, "{stats:?}");
}

#[tokio::test]
async fn jobs_return_their_results_from_threads_of_their_own() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("own", 2, Bound::items(4)).under(&ctx).threads().unwrap();
    let here = std::thread::current().id();
    assert_ne!(pool.run(|| std::thread::current().id()).await.unwrap(), here);
    for n in 0..100 {
        assert_eq!(pool.run(move || n * n).await, Ok(n * n));
    }
    let stats = pool.stats();
    assert_eq!((stats.done, stats.busy, stats.workers), (101, 0, 2));
    let drained = pool.drain(clock::now() + SEC).await;
    assert_eq!((drained.finished, drained.abandoned), (0, 0));
    assert_eq!(pool.run(|| 1).await, Err(PoolError::Stopped));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b57_a_panic_is_the_jobs_result_and_the_worker_lives_on_f8() {
    let pool = ThreadPool::new("panics", 1, Bound::items(2)).unwrap();
    let error = pool.run(|| panic!("guilty row {}", 7)).await.unwrap_err();
    assert_eq!(error, PoolError::Panicked("guilty row 7".into()));
    assert_eq!(pool.run(|| 1).await, Ok(1));
    let stats = pool.stats();
    assert_eq!((stats.panicked, stats.done, stats.busy, stats.restarts), (1, 1, 0, 0));
    reconciles(&stats);
}

#[tokio::test]
async fn a_pool_told_so_ends_the_worker_with_the_panic_and_restarts_it_after_a_pause_f8() {
    let ctx = Ctx::root("t");
    let backoff = Backoff { initial: Duration::from_millis(20), jitter: 0.0, ..Backoff::default() };
    let pool = pool::Builder::new("dies", 1, Bound::items(2))
        .under(&ctx)
        .panic_ends_worker(true)
        .backoff(backoff)
        .threads()
        .unwrap();
    let began = clock::now();
    assert!(matches!(pool.run(|| panic!("poison")).await, Err(PoolError::Panicked(_))));
    assert_eq!(pool.run(|| 1).await, Ok(1), "its next life serves on");
    assert!(clock::now() - began >= Duration::from_millis(20));
    assert_eq!(pool.stats().restarts, 1);
    assert!(pool.run(|| panic!("again")).await.is_err());
    until(|| pool.stats().restarts == 2).await;
    pool.drain(clock::now() + SEC).await;
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_workers_backoff() {
    let backoff = Backoff { initial: 600 * SEC, max: 600 * SEC, ..Backoff::default() };
    let pool = pool::Builder::new("slow", 1, Bound::items(4))
        .panic_ends_worker(true)
        .backoff(backoff)
        .threads()
        .unwrap();
    assert!(pool.run(|| panic!("poison")).await.is_err());
    let queued = pool.try_run(|| 5).unwrap();
    let drained = pool.drain(clock::now() + 5 * SEC).await;
    assert_eq!((drained.finished, drained.abandoned), (1, 0));
    assert_eq!(queued.join().await, Ok(5));
}

/// A pool of one worker that is held until the sender is sent to; the job's handle keeps it from being cancelled.
async fn held(ctx: &Ctx) -> (ThreadPool, mpsc::SyncSender<()>, JoinHandle<()>) {
    let pool = pool::Builder::new("held", 1, Bound::items(2)).under(ctx).threads().unwrap();
    let (release, hold) = mpsc::sync_channel::<()>(1);
    let job = pool.try_run(move || hold.recv().unwrap()).unwrap();
    until(|| pool.stats().busy == 1).await;
    (pool, release, job)
}

#[tokio::test]
async fn a_full_pool_says_so_and_a_dropped_queued_job_never_runs() {
    let ctx = Ctx::root("t");
    let (pool, release, _job) = held(&ctx).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let job = |ran: &Arc<AtomicUsize>| {
        let ran = Arc::clone(ran);
        move || ran.fetch_add(1, Ordering::SeqCst)
    };
    let dropped = pool.try_run(job(&ran)).unwrap();
    let kept = pool.try_run(job(&ran)).unwrap();
    assert_eq!(pool.try_run(job(&ran)).unwrap_err(), PoolError::Full);
    let late = pool.run_within(clock::now() + Duration::from_millis(20), job(&ran)).await;
    assert_eq!(late, Err(PoolError::TimedOut));
    drop(dropped);
    release.send(()).unwrap();
    assert_eq!(kept.join().await, Ok(0));
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    let stats = pool.stats();
    assert_eq!((stats.cancelled, stats.done), (1, 2));
    reconciles(&stats);
}

#[tokio::test]
async fn b56_stop_with_queued_jobs_returns_at_once_and_they_resolve_cancelled() {
    let ctx = Ctx::root("t");
    let (pool, release, _job) = held(&ctx).await;
    let queued = [pool.try_run(|| 1).unwrap(), pool.try_run(|| 2).unwrap()];
    pool.stop();
    // The worker is held all the while: nothing here waits for it.
    for job in queued {
        assert_eq!(job.join().await, Err(PoolError::Cancelled));
    }
    assert_eq!((pool.stats().busy, pool.stats().queued), (1, 0));
    release.send(()).unwrap();
    leak::check(&ctx).await.unwrap();
    let stats = pool.stats();
    assert_eq!((stats.abandoned, stats.done, stats.submitted), (2, 1, 3));
    reconciles(&stats);
}

#[tokio::test]
async fn a_drain_past_its_deadline_abandons_the_rest_and_counts_each_once() {
    let ctx = Ctx::root("t");
    let (pool, release, _job) = held(&ctx).await;
    let queued = pool.try_run(|| 1).unwrap();
    let drained = pool.drain(clock::now() + Duration::from_millis(30)).await;
    assert_eq!((drained.finished, drained.abandoned), (0, 2));
    assert_eq!(queued.join().await, Err(PoolError::Cancelled));
    release.send(()).unwrap();
    leak::check(&ctx).await.unwrap();
    let stats = pool.stats();
    assert_eq!((stats.abandoned, stats.done, stats.busy), (2, 0, 0));
    reconciles(&stats);
}

#[tokio::test]
async fn cancelling_the_context_above_ends_the_pool_and_answers_every_caller_f4() {
    let ctx = Ctx::root("t");
    let (pool, release, _job) = held(&ctx).await;
    let queued = pool.try_run(|| 1).unwrap();
    ctx.cancel(Cause::Shutdown);
    release.send(()).unwrap();
    assert_eq!(queued.join().await, Err(PoolError::Cancelled));
    assert_eq!(pool.run(|| 1).await, Err(PoolError::Stopped));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b55_submitters_racing_stop_lose_and_duplicate_nothing() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("race", 2, Bound::items(4)).under(&ctx).threads().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let submitters: Vec<_> = (0..10_000)
        .map(|_| {
            let (pool, ran) = (pool.clone(), Arc::clone(&ran));
            ctx.spawn("submitter", async move {
                let stop = pool.clone();
                let job = move || {
                    // In the middle of it all, and sure to be before the last was let in.
                    if ran.fetch_add(1, Ordering::SeqCst) == 500 {
                        stop.stop();
                    }
                };
                pool.run(job).await
            })
        })
        .collect();
    let (mut done, mut cancelled, mut stopped) = (0, 0, 0);
    for submitter in submitters {
        match submitter.join().await.unwrap() {
            Ok(()) => done += 1,
            Err(PoolError::Cancelled) => cancelled += 1,
            Err(PoolError::Stopped) => stopped += 1,
            Err(other) => panic!("{other}"),
        }
    }
    leak::check(&ctx).await.unwrap();
    let stats = pool.stats();
    assert_eq!(done + cancelled + stopped, 10_000);
    assert_eq!((stats.done, ran.load(Ordering::SeqCst)), (done, usize::try_from(done).unwrap()));
    assert_eq!(stats.abandoned + stats.cancelled, cancelled);
    assert!((501..600).contains(&done) && stopped > 9_000, "{stats:?}");
    reconciles(&stats);
}

#[tokio::test]
async fn b55_a_job_that_submits_to_its_own_stopped_pool_is_told_stopped() {
    let pool = ThreadPool::new("self", 2, Bound::items(2)).unwrap();
    let (again, barrier) = (pool.clone(), Arc::new(Barrier::new(2)));
    let inside = Arc::clone(&barrier);
    let job = pool
        .try_run(move || {
            inside.wait();
            inside.wait();
            again.try_run(|| 1).map(|_| ()).unwrap_err()
        })
        .unwrap();
    barrier.wait();
    pool.stop();
    barrier.wait();
    assert_eq!(job.join().await, Ok(PoolError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_task_pool_stops_a_job_at_its_deadline_and_isolates_panics() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("async", 2, Bound::items(4)).under(&ctx).job_timeout(SEC).tasks();
    assert_eq!(pool.run(async { 5 }).await, Ok(5));
    assert_eq!(pool.run(std::future::pending::<()>()).await, Err(PoolError::TimedOut));
    let panicked = pool.run(async { panic!("bad") }).await;
    assert_eq!(panicked, Err::<(), _>(PoolError::Panicked("bad".into())));
    let stats = pool.stats();
    assert_eq!((stats.done, stats.timed_out, stats.panicked, stats.busy), (1, 1, 1, 0));
    reconciles(&stats);
    drop(pool);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_pools_drain_aborts_what_is_left_and_counts_it() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("async", 1, Bound::items(4)).under(&ctx).tasks();
    let stuck = pool.try_run(std::future::pending::<()>()).unwrap();
    let queued = pool.try_run(async { 1 }).unwrap();
    let drained = pool.drain(clock::now() + SEC).await;
    assert_eq!((drained.finished, drained.abandoned), (0, 2));
    assert_eq!(
        (stuck.join().await, queued.join().await),
        (Err(PoolError::Cancelled), Err(PoolError::Cancelled))
    );
    leak::check(&ctx).await.unwrap();
    reconciles(&pool.stats());
}
