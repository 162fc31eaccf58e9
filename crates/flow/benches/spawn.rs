//! What the registry costs: `cargo bench -p forebay-flow --bench spawn`.
//!
//! Spawning a task and waiting for it, and polling one, with the registry and bare, on a runtime of one thread and on one of
//! two. Every round measures every contestant once, in an order that turns; the table shows medians, and the median over the rounds
//! of each one's time above the first's in the same round. Owns nothing.
#![expect(clippy::unwrap_used, reason = "a bench")]
#![expect(clippy::disallowed_methods, reason = "bare tasks are what is measured against")]

mod duel;

use std::future::{Future, poll_fn};
use std::task::Poll;

use forebay_flow::{Ctx, Scope, clock};
use tokio::runtime::{Builder, Runtime};

use self::duel::match_up;

const ROUNDS: usize = 11;
const COUNT: u64 = 1_000_000;
/// Tasks alive at once.
const BATCH: u64 = 1_000;

/// Nanoseconds a piece, on a runtime of its own.
fn timed<const THREADS: usize>(work: impl Future<Output = ()>) -> f64 {
    let runtime: Runtime = match THREADS {
        1 => Builder::new_current_thread().build().unwrap(),
        _ => Builder::new_multi_thread().worker_threads(THREADS).build().unwrap(),
    };
    let began = clock::now();
    runtime.block_on(work);
    (clock::now() - began).as_secs_f64() * 1e9 / COUNT as f64
}

/// From a task, as programs spawn.
fn spawning<const THREADS: usize, F: Future<Output = ()> + Send + 'static>(
    batch: impl Fn() -> F + Send + 'static,
) -> f64 {
    timed::<THREADS>(async move {
        let all = async move {
            for _ in 0..COUNT / BATCH {
                batch().await;
            }
        };
        tokio::spawn(all).await.unwrap();
    })
}

fn spawn_bare<const THREADS: usize>() -> f64 {
    spawning::<THREADS, _>(|| async {
        let tasks: Vec<_> = (0..BATCH).map(|n| tokio::spawn(async move { n })).collect();
        for task in tasks {
            task.await.unwrap();
        }
    })
}

fn spawn_owned<const THREADS: usize>() -> f64 {
    let ctx = Ctx::root("bench");
    spawning::<THREADS, _>(move || {
        let ctx = ctx.clone();
        async move {
            let tasks: Vec<_> = (0..BATCH).map(|n| ctx.spawn("task", async move { n })).collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
    })
}

fn spawn_scoped<const THREADS: usize>() -> f64 {
    let ctx = Ctx::root("bench");
    spawning::<THREADS, _>(move || {
        let scope = Scope::new(&ctx, "scope");
        async move {
            for _ in 0..BATCH {
                scope.spawn("task", async {});
            }
            scope.ctx().idle().await;
        }
    })
}

/// Is polled so many times, each time by way of the runtime's queue.
async fn polls(count: u64) {
    let mut left = count;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn poll_bare<const THREADS: usize>() -> f64 {
    timed::<THREADS>(async { tokio::spawn(polls(COUNT)).await.unwrap() })
}

fn poll_registered<const THREADS: usize>() -> f64 {
    timed::<THREADS>(async { Ctx::root("bench").spawn("task", polls(COUNT)).await.unwrap() })
}

fn main() {
    println!("{COUNT} each, {ROUNDS} rounds; last column: above the first\n");
    on::<1>("one thread");
    on::<2>("two threads");
}

fn on<const THREADS: usize>(runtime: &str) {
    match_up(
        ROUNDS,
        &format!("a task spawned, run, and waited for; {runtime}"),
        &[
            ("tokio::spawn", spawn_bare::<THREADS>),
            ("Ctx::spawn", spawn_owned::<THREADS>),
            ("Scope::spawn", spawn_scoped::<THREADS>),
        ],
    );
    match_up(
        ROUNDS,
        &format!("a poll; {runtime}"),
        &[("tokio::spawn", poll_bare::<THREADS>), ("Ctx::spawn", poll_registered::<THREADS>)],
    );
}
