//! A pool's books where they could go wrong: jobs whose end races with the pool's, and workers that end in odd ways.

use std::future::pending;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_flow::pool::{self, PoolError, PoolStats};
use forebay_flow::queue::{Bound, Full, Watermarks};
use forebay_flow::{Ctx, Scope, clock, leak};

use crate::rig::{until, until_on_thread};

const SEC: Duration = Duration::from_secs(1);

/// With the jobs queued and running, every job is in exactly one count.
fn reconciles(stats: &PoolStats) {
    let ended = stats.done + stats.failed + stats.panicked + stats.timed_out + stats.cancelled;
    let open = (stats.queued + stats.busy) as u64;
    assert_eq!(stats.submitted, ended + stats.dropped + stats.abandoned + open, "{stats:#?}");
}

/// Raises its flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ends_within_the_grace_of_a_drain_is_done_and_not_abandoned() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("ending", 1, Bound::items(4)).under(&ctx).tasks();
    let over = Arc::new(AtomicBool::new(false));
    let (queued, seen) = (Flag(Arc::clone(&over)), Arc::clone(&over));
    let running = pool.try_run(async move {
        // In the middle of its last poll when the drain gives up: the queued job is dropped after that.
        until_on_thread(|| seen.load(Ordering::Acquire));
        5
    });
    until(|| pool.stats().busy == 1).await;
    let queued = pool.try_run(async move {
        let _queued = queued;
        pending::<()>().await;
    });
    let drained = pool.drain(clock::now()).await;
    assert_eq!(running.unwrap().join().await, Ok(5));
    assert_eq!(queued.unwrap().join().await, Err(PoolError::Cancelled));
    assert_eq!((drained.finished, drained.abandoned), (1, 1));
    let stats = pool.stats();
    assert_eq!(
        (stats.done, stats.abandoned, stats.busy),
        (1, 1, 0),
        "who has a result is counted so"
    );
    reconciles(&stats);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_sheds_counts_what_it_refuses_no_more_than_any_other() {
    let shed = Full::Shed(Watermarks::default());
    let pool = pool::Builder::new("shedding", 1, Bound::items(10)).full(shed).tasks();
    let mut refused = 0;
    for _ in 0..20 {
        refused += u64::from(pool.try_submit(async {}) == Err(PoolError::Full));
    }
    assert!(refused > 0);
    until(|| pool.stats().done == 20 - refused).await;
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.dropped), (20 - refused, 0));
    reconciles(&stats);
}

/// Panics as it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped by the pool");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_nobody_takes_harms_no_job_taken_with_it_though_it_panics() {
    let pool = pool::Builder::new("brittle", 1, Bound::items(64)).tasks();
    // Short jobs, so that the worker comes to take several at once.
    for _ in 0..40 {
        assert_eq!(pool.run(async {}).await, Ok(()));
    }
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    pool.submit(async move { gate.await.unwrap() }).await.unwrap();
    until(|| pool.stats().busy == 1).await;
    let (leave, left) = tokio::sync::oneshot::channel();
    let brittle = pool.try_run(async move {
        // Its caller goes away while it runs.
        leave.send(()).unwrap();
        tokio::task::yield_now().await;
        Brittle
    });
    for _ in 0..20 {
        pool.submit(async {}).await.unwrap();
    }
    open.send(()).unwrap();
    left.await.unwrap();
    drop(brittle);
    until(|| pool.stats().done == 62).await;
    let stats = pool.stats();
    assert_eq!((stats.restarts, stats.abandoned), (0, 0));
    reconciles(&stats);
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_every_queued_job_though_one_panics_while_it_is_dropped() {
    let pool = pool::Builder::new("brittle", 1, Bound::items(8)).tasks();
    let _running = pool.try_run(pending::<()>()).unwrap();
    until(|| pool.stats().busy == 1).await;
    let queued: Vec<_> = (0..4)
        .map(|n| {
            let brittle = (n % 2 == 0).then(|| Brittle);
            let job = async move {
                let _brittle = brittle;
                pending::<()>().await;
            };
            pool.try_run(job).unwrap()
        })
        .collect();
    pool.stop();
    for job in queued {
        assert_eq!(job.join().await, Err(PoolError::Cancelled));
    }
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.abandoned, stats.busy), (5, 4, 1));
    reconciles(&stats);
}

#[tokio::test]
async fn a_replaced_thread_whose_result_panics_is_gone_and_takes_no_more_jobs() {
    let ctx = Ctx::root("t");
    let pool = pool::Builder::new("brittle", 1, Bound::items(64))
        .under(&ctx)
        .job_timeout(Duration::from_millis(100))
        .threads()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let stuck = pool.run(move || {
        until_on_thread(|| seen.load(Ordering::Acquire));
        Brittle
    });
    assert!(matches!(stuck.await, Err(PoolError::TimedOut)));
    until(|| pool.stats().stuck == 1).await;
    over.store(true, Ordering::Release);
    until(|| pool.stats().stuck == 0).await;
    let mut calls = 0;
    while calls < 100 {
        // An honest job may pass its timeout on a busy machine; it is counted all the same.
        calls += u64::from(pool.run(|| ()).await.is_ok());
    }
    let stats = pool.stats();
    assert_eq!((stats.done, stats.live), (100, 1));
    reconciles(&stats);
    let drained = pool.drain(clock::now() + 30 * SEC).await;
    assert_eq!(drained.abandoned, 0);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_workers_were_killed_answers_those_who_wait() {
    let scope = Scope::new(&Ctx::root("t"), "killed");
    let pool = pool::Builder::new("killed", 2, Bound::items(4)).under(scope.ctx()).tasks();
    let jobs: Vec<_> = (0..4).map(|_| pool.try_run(pending::<()>()).unwrap()).collect();
    until(|| pool.stats().busy == 2).await;
    let ctx = scope.ctx().clone();
    drop(scope);
    for job in jobs {
        let answer = tokio::time::timeout(SEC, job.join()).await;
        assert_eq!(answer, Ok(Err(PoolError::Cancelled)), "answered at all");
    }
    assert_eq!(pool.run(async {}).await, Err(PoolError::Stopped));
    let stats = pool.stats();
    assert_eq!((stats.abandoned, stats.live), (4, 0));
    reconciles(&stats);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_amid_short_jobs_counts_as_done_just_those_that_ran_to_their_end() {
    static RAN: AtomicU64 = AtomicU64::new(0);
    let mut abandoned = 0;
    for _ in 0..200 {
        RAN.store(0, Ordering::Relaxed);
        let pool = pool::Builder::new("short", 4, Bound::items(1000)).tasks();
        for _ in 0..500 {
            let job = async {
                (0..500).for_each(|_| spin_loop());
                RAN.fetch_add(1, Ordering::Relaxed);
            };
            pool.submit(job).await.unwrap();
        }
        let drained = pool.drain(clock::now()).await;
        let stats = pool.stats();
        assert_eq!((stats.done, stats.abandoned), (RAN.load(Ordering::Relaxed), drained.abandoned));
        assert_eq!((stats.submitted, stats.live), (500, 0));
        reconciles(&stats);
        abandoned += drained.abandoned;
    }
    println!("{abandoned} of 100,000 jobs abandoned");
}
