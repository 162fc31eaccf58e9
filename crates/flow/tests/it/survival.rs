//! The survival test: a million jobs on a thousand workers, with panics, hangs, a cancel in the middle and a drain that
//! must leave something behind. It prints its figures; `FLOW_SURVIVAL=10000x100` makes it small (for helgrind).

use std::future::pending;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use forebay_flow::pool::{self, PoolError, PoolStats};
use forebay_flow::queue::{Bound, Full};
use forebay_flow::{Cause, Ctx, Stopped, clock, leak};

use crate::rig::until;

const DEADLINE: Duration = Duration::from_millis(100);
/// The number of a job that never wakes.
const HANGS: u64 = 13;
/// A panic's text by which the test's hook knows not to print it.
const POISON: &str = "a job of the survival test";
/// What the process may grow by between the first tenth of the jobs and the last: a task's stack of state and a queue
/// that were there before do not grow, and the allocator's slack is far below this.
const GROWTH_KIB: u64 = 24 * 1024;

/// How many jobs on how many workers.
fn size() -> (u64, usize) {
    let text = std::env::var("FLOW_SURVIVAL").unwrap_or_else(|_| "1000000x1000".into());
    let (jobs, workers) = text.split_once('x').unwrap();
    (jobs.parse().unwrap(), workers.parse().unwrap())
}

/// Whether this process runs one test alone, as under nextest: else its memory is that of the others, too.
pub fn alone() -> bool {
    std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test")
}

/// Resident memory of this process; 0 where there is no procfs.
pub fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |kib| kib.parse().unwrap())
}

/// Ten thousand panics shall not fill the log; those of other tests are printed as ever.
pub fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<&str>();
            if text.is_none_or(|text| *text != POISON) {
                before(info);
            }
        }));
    });
}

fn reconciles(stats: &PoolStats) {
    let ended = stats.done + stats.failed + stats.panicked + stats.timed_out + stats.cancelled;
    assert_eq!(stats.submitted, ended + stats.dropped + stats.abandoned, "{stats:#?}");
    assert_eq!((stats.busy, stats.queued, stats.waiters, stats.live), (0, 0, 0, 0), "{stats:#?}");
}

/// The jobs by their ends as the jobs themselves saw it, beside the pool's figures.
#[derive(Debug, Default)]
struct Lives {
    made: AtomicU64,
    unstarted: AtomicU64,
    cut_off: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
}

/// One job's life. Dropped with it, once, whatever becomes of it.
struct Life(Arc<Lives>, fn(&Lives) -> &AtomicU64);

impl Life {
    fn begin(lives: &Arc<Lives>) -> Self {
        lives.made.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lives), |lives| &lives.unstarted)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_add(1, Ordering::Relaxed);
    }
}

/// What one job does, by its number: 1 % panic, 1 % never wake, 2 % wait a millisecond, the rest are short.
async fn job(n: u64, wave: Ctx, mut life: Life) -> Result<(), Stopped> {
    life.1 = |lives| &lives.cut_off;
    let ended = match n % 100 {
        7 => {
            life.1 = |lives| &lives.panicked;
            std::panic::panic_any(POISON)
        }
        HANGS => wave.run(pending()).await,
        29 | 71 => wave.run(tokio::time::sleep(Duration::from_millis(1))).await,
        _ => Ok(()),
    };
    life.1 = if ended.is_ok() { |lives| &lives.ok } else { |lives| &lives.failed };
    ended
}

/// The pool's figures are those of the jobs: none was lost, run twice or counted for another. By their ends, not in sum
/// alone: a pool of tasks counts as abandoned only what did not come to an end ("The books" in the pool's documentation).
fn agrees(stats: &PoolStats, lives: &Lives) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (unstarted, cut_off) = (of(&lives.unstarted), of(&lives.cut_off));
    assert_eq!(of(&lives.made), stats.submitted, "{lives:?} {stats:#?}");
    assert_eq!(
        (of(&lives.ok), of(&lives.failed), of(&lives.panicked)),
        (stats.done, stats.failed, stats.panicked),
        "{lives:?} {stats:#?}"
    );
    let unended = stats.timed_out + stats.dropped + stats.abandoned;
    assert_eq!(unstarted + cut_off, unended, "{lives:?} {stats:#?}");
    assert!(unstarted >= stats.dropped && cut_off >= stats.timed_out, "{lives:?} {stats:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_survives_a_million_jobs_that_panic_hang_overflow_and_are_cancelled() {
    hush();
    let (jobs, workers) = size();
    let began = clock::now();
    let ctx = Ctx::root("survival");
    let pool = pool::Builder::new("survival", workers, Bound::items(4 * workers))
        .under(&ctx)
        .full(Full::DropNewest)
        .job_timeout(DEADLINE)
        .tasks();
    let (first, second) = (ctx.child("first wave"), ctx.child("second wave"));
    let lives = Arc::new(Lives::default());
    let mut settled_kib = 0;
    for n in 0..jobs {
        let wave = if n < jobs / 2 { &first } else { &second };
        pool.submit(job(n, wave.clone(), Life::begin(&lives))).await.unwrap();
        if n == jobs / 10 {
            settled_kib = rss_kib();
        }
        if n == jobs / 2 {
            // Cancelled in the middle: what waits of the first wave ends with an error of its own.
            first.cancel(Cause::Terminated);
        }
        // A submitter that outran the pool would see most of its jobs dropped: it looks now and then.
        if n.is_multiple_of(workers as u64) {
            until(|| pool.stats().queued < 3 * workers).await;
        }
    }
    let fed = clock::now() - began;
    let grown_kib = rss_kib().saturating_sub(settled_kib);
    // More than the pool can hold, and than can end in time: some overflow, and the drain has to leave some behind.
    let mut hung = 0;
    while pool.stats().dropped == 0 {
        for _ in 0..workers {
            pool.submit(job(HANGS, second.clone(), Life::begin(&lives))).await.unwrap();
        }
        hung += workers as u64;
    }
    let drained = pool.drain(clock::now() + DEADLINE / 4).await;
    let stats = pool.stats();
    assert_eq!(pool.submit(async {}).await, Err(PoolError::Stopped));
    leak::check(&ctx).await.unwrap();
    println!(
        "survival: {jobs} jobs on {workers} workers, fed in {fed:.1?}, over after {:.1?}",
        clock::now() - began
    );
    println!(
        "survival: submitted {} = done {} + failed {} + panicked {} + timed out {} + dropped {} + abandoned {}",
        stats.submitted,
        stats.done,
        stats.failed,
        stats.panicked,
        stats.timed_out,
        stats.dropped,
        stats.abandoned
    );
    println!("survival: memory {settled_kib} KiB after a tenth, {grown_kib} KiB more at the end");
    reconciles(&stats);
    agrees(&stats, &lives);
    assert_eq!(stats.submitted, jobs + hung);
    assert_eq!(stats.restarts, 0, "no worker died of a job");
    assert_eq!(drained.abandoned, stats.abandoned);
    assert!(stats.done > jobs / 2 && stats.failed > 0 && stats.timed_out > 0, "{stats:#?}");
    assert!(stats.panicked > jobs / 200 && stats.dropped > 0 && stats.abandoned > 0, "{stats:#?}");
    assert!(grown_kib < GROWTH_KIB || !alone(), "memory grew by {grown_kib} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b87_a_pool_of_threads_survives_loops_and_sleeps_that_never_look_up() {
    hush();
    let jobs: u64 = 2_000;
    let ctx = Ctx::root("survival");
    let pool = pool::Builder::new("stuck", 16, Bound::items(64))
        .under(&ctx)
        .job_timeout(DEADLINE)
        .max_stuck(32)
        .threads()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ran = Arc::new(AtomicU64::new(0));
    for n in 0..jobs {
        let (over, ran) = (Arc::clone(&over), Arc::clone(&ran));
        let job = move || {
            ran.fetch_add(1, Ordering::Relaxed);
            match n % 200 {
                7 | 107 => std::panic::panic_any(POISON),
                // A loop without a look at anything, and a sleep on the pool's own thread.
                13 => {
                    while !over.load(Ordering::Relaxed) {
                        spin_loop();
                    }
                }
                113 => {
                    while !over.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                _ => {}
            }
        };
        pool.submit(job).await.unwrap();
    }
    let stuck = jobs / 100;
    until(|| ran.load(Ordering::Relaxed) == jobs).await;
    until(|| pool.stats().stuck as u64 >= stuck).await;
    // On a busy machine an honest job may pass its timeout, too.
    until(|| pool.stats().timed_out >= stuck && pool.stats().live == 16).await;
    let mut tries = 0;
    while let Err(error) = pool.run(|| ()).await {
        tries += 1;
        assert!(
            error == PoolError::TimedOut && tries < 100,
            "what stands in their place serves on"
        );
    }
    over.store(true, Ordering::Relaxed);
    until(|| pool.stats().stuck == 0).await;
    let drained = pool.drain(clock::now() + Duration::from_secs(30)).await;
    let stats = pool.stats();
    println!("survival on threads: {stats:?}");
    assert_eq!(drained.abandoned, 0);
    assert!(stats.panicked > 0 && stats.replaced >= stuck, "{stats:#?}");
    reconciles(&stats);
    leak::check(&ctx).await.unwrap();
}
