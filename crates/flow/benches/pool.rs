//! `cargo bench -p forebay-flow --bench pool`: the task pool beside async-channel workers and JoinSet with a Semaphore, in
//! one run on a two-core runtime, rounds interleaved, medians. `ROUNDS` says how many,
//! `CASE` which (a part of its name), the argument `flow` leaves the others out.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench beside bare Tokio")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use forebay_flow::pool;
use forebay_flow::queue::Bound;
use forebay_flow::timer::Timer;
use forebay_flow::{Ctx, clock};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const JOBS: u64 = 1_000_000;
const BOUND: usize = 1024;

#[derive(Clone)]
enum Job {
    Trivial,
    Sleep(Timer),
}

impl Job {
    async fn run(self) {
        match self {
            Self::Trivial => {}
            Self::Sleep(timer) => timer.sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn flow(workers: usize, job: Job) {
    let pool = pool::Builder::new("bench", workers, Bound::items(BOUND)).tasks();
    for _ in 0..JOBS {
        match &job {
            Job::Trivial => pool.submit(async {}).await.unwrap(),
            Job::Sleep(_) => pool.submit(job.clone().run()).await.unwrap(),
        }
    }
    let drained = pool.drain(clock::now() + Duration::from_secs(60)).await;
    assert_eq!((drained.abandoned, pool.stats().done), (0, JOBS));
}

async fn channel(workers: usize, job: Job) {
    let (tx, rx) = async_channel::bounded::<Job>(BOUND);
    let mut set = JoinSet::new();
    for _ in 0..workers {
        let rx = rx.clone();
        set.spawn(async move {
            while let Ok(job) = rx.recv().await {
                job.run().await;
            }
        });
    }
    for _ in 0..JOBS {
        tx.send(job.clone()).await.unwrap();
    }
    drop(tx);
    while set.join_next().await.is_some() {}
}

async fn join_set(workers: usize, job: Job) {
    let slots = Arc::new(Semaphore::new(workers));
    let mut set = JoinSet::new();
    for _ in 0..JOBS {
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let job = job.clone();
        set.spawn(async move {
            job.run().await;
            drop(slot);
        });
        while set.try_join_next().is_some() {}
    }
    while set.join_next().await.is_some() {}
}

/// Nanoseconds a job, from inside a task of a runtime with two threads.
fn time<F>(run: F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let began = std::time::Instant::now();
    runtime.block_on(async { tokio::spawn(run).await.unwrap() });
    began.elapsed().as_nanos() as f64 / JOBS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let rounds = std::env::var("ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let case = std::env::var("CASE").unwrap_or_default();
    println!(
        "{:<26}{:>12}{:>16}{:>12}   (ns a job, median of {rounds})",
        "", "flow", "async-channel", "JoinSet"
    );
    let ctx = Ctx::root("bench");
    for (name, workers, job) in [
        ("trivial, 8 workers", 8, Job::Trivial),
        ("trivial, 1000 workers", 1000, Job::Trivial),
        ("1 ms sleeps, 1000 workers", 1000, Job::Sleep(Timer::fine(&ctx).unwrap())),
        ("the same, Tokio's timer", 1000, Job::Sleep(Timer::tokio())),
    ] {
        if !name.contains(&case) {
            continue;
        }
        let (mut ours, mut theirs, mut tasks) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            ours.push(time(flow(workers, job.clone())));
            if only.as_deref() != Some("flow") {
                theirs.push(time(channel(workers, job.clone())));
                tasks.push(time(join_set(workers, job.clone())));
            }
        }
        print!("{name:<26}{:>12.0}", median(ours));
        if !theirs.is_empty() {
            print!("{:>16.0}{:>12.0}", median(theirs), median(tasks));
        }
        println!();
    }
}
