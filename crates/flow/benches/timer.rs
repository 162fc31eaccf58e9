//! `cargo bench -p forebay-flow --bench timer`: how late a sleep of 1 ms is, beside Tokio's, for 1, 1,000 and 10,000 tasks
//! that sleep again and again; what the timer costs while nobody sleeps, while long sleeps are under way, and for
//! timeouts that are given up. One run on a two-core runtime. `CASE` says which (a part of its name).
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench beside bare Tokio")]

use std::future::Future;
use std::time::{Duration, Instant};

use forebay_flow::Ctx;
use forebay_flow::timer::Timer;

const MS: Duration = Duration::from_millis(1);
/// How long each case sleeps.
const SECONDS: u32 = 2;

fn block_on<F: Future>(fut: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(fut)
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|text| text.parse().ok());
    // A hundredth of a second is the unit on every Linux there is.
    Duration::from_millis(10 * (field(11).unwrap_or(0_u64) + field(12).unwrap_or(0)))
}

/// Microseconds each sleep was late, sorted, and the processor time it took.
fn lateness(timer: &Timer, tasks: u32) -> (Vec<u32>, Duration) {
    let before = cpu();
    let mut late = block_on(async {
        let sleepers: Vec<_> = (0..tasks)
            .map(|_| {
                let timer = timer.clone();
                tokio::spawn(async move {
                    let mut late = Vec::new();
                    let began = Instant::now();
                    while began.elapsed() < MS * 1000 * SECONDS {
                        let began = Instant::now();
                        timer.sleep(MS).await;
                        let over = began.elapsed().checked_sub(MS).unwrap();
                        late.push(u32::try_from(over.as_micros()).unwrap());
                    }
                    late
                })
            })
            .collect();
        let mut all = Vec::new();
        for sleeper in sleepers {
            all.extend(sleeper.await.unwrap());
        }
        all
    });
    let spent = cpu() - before;
    late.sort_unstable();
    (late, spent)
}

fn late(name: &str, timer: &Timer) {
    for tasks in [1, 1_000, 10_000] {
        let (late, spent) = lateness(timer, tasks);
        let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
        let cost = spent.as_nanos() / late.len() as u128;
        println!(
            "{name:<8}{tasks:>8}{:>12}{:>10}{:>10}{:>10}{cost:>14}",
            late.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// Nanoseconds to start a timeout, poll it once, and give it up, one task on each of two threads.
fn given_up(timer: &Timer) -> u128 {
    const TIMES: u32 = 500_000;
    block_on(async {
        let began = Instant::now();
        let tasks = [(); 2].map(|()| {
            let timer = timer.clone();
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    let mut again = true;
                    let once = std::future::poll_fn(|cx| {
                        if std::mem::take(&mut again) {
                            cx.waker().wake_by_ref();
                            return std::task::Poll::Pending;
                        }
                        std::task::Poll::Ready(())
                    });
                    timer.timeout(MS * 100, once).await.unwrap();
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        began.elapsed().as_nanos() / u128::from(TIMES)
    })
}

/// Processor time while `tasks` sleep for long.
fn idle(timer: &Timer, tasks: u32) -> Duration {
    block_on(async {
        let sleepers: Vec<_> = (0..tasks)
            .map(|_| {
                let timer = timer.clone();
                tokio::spawn(async move { timer.sleep(MS * 3_600_000).await })
            })
            .collect();
        tokio::time::sleep(MS * 200).await;
        let before = cpu();
        tokio::time::sleep(MS * 2000).await;
        let spent = cpu() - before;
        for sleeper in sleepers {
            sleeper.abort();
        }
        spent
    })
}

fn main() {
    let case = std::env::var("CASE").unwrap_or_default();
    let ctx = Ctx::root("bench");
    let timers = [("flow", Timer::fine(&ctx).unwrap()), ("tokio", Timer::tokio())];
    if "late".contains(&case) {
        println!(
            "{:<8}{:>8}{:>12}{:>10}{:>10}{:>10}{:>14}",
            "1 ms", "tasks", "sleeps", "p50 µs", "p99 µs", "max µs", "cpu ns each"
        );
        timers.iter().for_each(|(name, timer)| late(name, timer));
    }
    if "given up".contains(&case) {
        for (name, timer) in &timers {
            println!("{name:<8}{:>8} ns a timeout of 100 ms that is given up", given_up(timer));
        }
    }
    if "idle".contains(&case) {
        for (name, timer) in &timers {
            for tasks in [0, 10_000] {
                let spent = idle(timer, tasks);
                println!(
                    "{name:<8}{tasks:>8} sleep for an hour: {spent:?} of processor time in 2 s"
                );
            }
        }
    }
}
