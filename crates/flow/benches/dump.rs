//! A dump of 100,000 tasks, and what the others feel of it: `cargo bench -p forebay-flow --bench dump`.
//!
//! Probes keep polling, spawning and joining on the same two worker threads. Each notes the time between two of its own
//! steps; the longest is the longest pause. The rows without a dump are the machine's own floor. A machine that is itself
//! paused by its host has pauses of milliseconds there: then compare how often they pass a millisecond, and see the last
//! row of each round, where that is taken out: the dump's polls, each as its median over all dumps. Owns nothing.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench beside bare Tokio")]

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::{Ctx, Task, clock, debug, dump};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

const CROWD: usize = 100_000;
const ROUND: Duration = Duration::from_secs(3);

/// Times between steps, in nanoseconds: counted in sixteenths of powers of two, the longest exactly.
struct Gaps {
    counts: Vec<u64>,
    longest: u64,
    over_a_millisecond: u64,
}

impl Gaps {
    fn new() -> Self {
        Self { counts: vec![0; 64 * 16], longest: 0, over_a_millisecond: 0 }
    }

    fn note(&mut self, gap: Duration) {
        let nanos = (gap.as_nanos() as u64).max(16);
        let power = nanos.ilog2();
        self.counts[(power * 16) as usize + (nanos >> (power - 4)) as usize - 16] += 1;
        self.longest = self.longest.max(nanos);
        self.over_a_millisecond += u64::from(nanos > 1_000_000);
    }

    /// In microseconds, the lower edge of the bucket.
    fn quantile(&self, share: f64) -> f64 {
        let mut left = (self.counts.iter().sum::<u64>() as f64 * share) as u64;
        let found = self.counts.iter().position(|count| {
            let here = *count > left;
            left = left.saturating_sub(*count);
            here
        });
        let at = found.unwrap();
        ((16 + at as u64 % 16) << (at as u64 / 16) >> 4) as f64 / 1e3
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9} times, p50 {:>8.1} µs, p99.9 {:>8.1} µs, longest {:>8.1} µs, over 1 ms {:>5.1} a second",
            self.counts.iter().sum::<u64>(),
            self.quantile(0.5),
            self.quantile(0.999),
            self.longest as f64 / 1e3,
            self.over_a_millisecond as f64 / ROUND.as_secs_f64()
        )
    }
}

fn crowd(ctx: &Ctx) -> Vec<Task<()>> {
    let (full, full_rx) = queue::bounded::<u8>("full", Bound::items(1), Full::Block);
    let (quiet, quiet_rx) = queue::bounded::<u8>("quiet", Bound::items(1), Full::Block);
    full.try_submit(0).unwrap();
    let mut all = vec![ctx.spawn("keeper", async move {
        std::future::pending::<()>().await;
        drop((full_rx, quiet));
    })];
    for at in 0..CROWD {
        let (full, quiet_rx) = (full.clone(), quiet_rx.clone());
        all.push(match at % 10 {
            0..5 => ctx.spawn("sends", async move { full.submit(1).await.unwrap() }),
            5..8 => ctx.spawn("receives", async move {
                quiet_rx.recv().await.unwrap();
            }),
            _ => ctx.spawn("sleeps", tokio::time::sleep(Duration::from_secs(3600))),
        });
    }
    all
}

/// Runs the probes, and `meanwhile` over and over beside them; says what they felt.
fn round<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    title: &str,
    meanwhile: impl Fn() -> F + Send + 'static,
) {
    let (ctx, over) = (Ctx::root("probes"), Arc::new(AtomicBool::new(false)));
    let polling: Vec<_> = (0..2)
        .map(|_| {
            let over = Arc::clone(&over);
            ctx.spawn("polls", async move {
                let mut gaps = Gaps::new();
                while !over.load(Ordering::Relaxed) {
                    let before = clock::now();
                    yield_now().await;
                    gaps.note(clock::now() - before);
                }
                gaps
            })
        })
        .collect();
    let spawning = {
        let (over, ctx) = (Arc::clone(&over), ctx.clone());
        ctx.clone().spawn("spawns", async move {
            let mut gaps = Gaps::new();
            while !over.load(Ordering::Relaxed) {
                let before = clock::now();
                ctx.spawn("short", async {}).await.unwrap();
                gaps.note(clock::now() - before);
            }
            gaps
        })
    };
    let dumping = {
        let over = Arc::clone(&over);
        ctx.spawn("dumps", async move {
            let (mut answers, mut polls) = (Gaps::new(), Vec::<Vec<Duration>>::new());
            while !over.load(Ordering::Relaxed) {
                let before = clock::now();
                let mut at = 0;
                let mut dump = pin!(meanwhile());
                poll_fn(|cx| {
                    let before = clock::now();
                    let polled = dump.as_mut().poll(cx);
                    polls.resize(polls.len().max(at + 1), Vec::new());
                    polls[at].push(clock::now() - before);
                    at += 1;
                    polled
                })
                .await;
                answers.note(clock::now() - before);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (answers, polls)
        })
    };
    std::thread::sleep(ROUND);
    over.store(true, Ordering::Relaxed);
    println!("{title}");
    runtime.block_on(async {
        let (answers, polls) = dumping.await.unwrap();
        println!("  answers  {answers}");
        for probe in polling {
            println!("  polls    {}", probe.await.unwrap());
        }
        println!("  spawns   {}", spawning.await.unwrap());
        let medians = polls.into_iter().map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        let medians: Vec<_> = medians.collect();
        let (longest, sum) = (medians.iter().max().unwrap(), medians.iter().sum::<Duration>());
        println!("  its own  {} polls, {sum:.1?} in all, the longest {longest:.1?}", medians.len());
    });
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ctx = Ctx::root("bench");
    let _in = runtime.enter();
    let crowd = crowd(&ctx);
    while dump::take().groups[0].count < CROWD / 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{CROWD} tasks at three places, two worker threads\n");
    round(&runtime, "no dump", || async {});
    round(&runtime, "/debug/tasks", || async {
        let page = debug::respond("/debug/tasks", None).await.unwrap();
        let text = page.body;
        assert!(text.contains("× sends [waiting on room in queue `full`"), "{text}");
    });
    round(&runtime, "dump::take on a thread for blocking work", || async {
        let text = tokio::task::spawn_blocking(|| dump::take().to_string()).await.unwrap();
        assert!(text.contains("× sends [waiting on room in queue `full`"), "{text}");
    });
    round(&runtime, "no dump", || async {});
    drop(crowd);
}
