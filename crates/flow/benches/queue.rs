//! Nanoseconds an item through a bounded queue, beside other channels in the same run:
//! `cargo bench -p forebay-flow --bench queue [-- ITEMS ROUNDS PRODUCERS PLACE CONTESTANT]`, the last three to see one
//! alone: `1 task flow`.
//!
//! One consumer, 1 or 100 producers, bound 64, a Tokio runtime with two workers. All are tasks, or one of them runs in
//! `block_on` on the main thread, where each wake of it goes through the kernel: the consumer, or the only producer. The rounds of all
//! contestants take turns, so that a busy moment of the machine meets all of them; the median of the rounds is printed,
//! with the fastest and the slowest, and beside it the median of its share of the time that tokio's mpsc took in the same
//! round.
#![expect(clippy::unwrap_used, reason = "a bench")]
#![expect(
    clippy::disallowed_methods,
    reason = "tasks without an owner and the real clock: what is measured is the queue"
)]

use std::future::Future;
use std::time::Instant;

use forebay_flow::queue::{self, Bound, Full};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const BOUND: usize = 64;
/// Whose time the others' is set beside.
const YARDSTICK: &str = "tokio mpsc";

/// Who runs in the main thread's `block_on`; the others are tasks.
#[derive(Clone, Copy)]
enum OnMain {
    Consumer,
    Producer,
    Nobody,
}

/// What it is called, who runs where, and with how many producers.
type Place = (&'static str, OnMain, &'static [u64]);

const PLACES: [Place; 3] = [
    ("block_on", OnMain::Consumer, &[1, 100]),
    ("producer", OnMain::Producer, &[1]),
    ("task", OnMain::Nobody, &[1, 100]),
];

struct Race {
    runtime: Runtime,
    on_main: OnMain,
    producers: u64,
    /// Items of each producer.
    each: u64,
}

type Contestant = (&'static str, fn(&Race) -> u64);

const CONTESTANTS: [Contestant; 5] = [
    ("flow, recv", flow),
    ("flow, recv_many", flow_many),
    (YARDSTICK, tokio_mpsc),
    ("async-channel", async_channel),
    ("flume", flume),
];

fn main() {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |at: usize| args.get(at).map(|arg| arg.parse::<u64>().unwrap());
    let (items, rounds) = (number(0).unwrap_or(400_000), number(1).unwrap_or(7));
    let only = args.get(4).map_or("", String::as_str);
    println!(
        "{items} items, bound {BOUND}, {rounds} rounds; ns an item: median (fastest to slowest)"
    );
    for (place, on_main, numbers) in PLACES {
        for &producers in numbers {
            let wanted = number(2).is_none_or(|number| number == producers)
                && args.get(3).is_none_or(|arg| arg == place);
            if wanted {
                println!("{producers} producers, {}", on_main.as_str());
                compare(items, rounds, on_main, producers, only);
            }
        }
    }
}

impl OnMain {
    fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "the consumer in a block_on",
            Self::Producer => "the producer in a block_on",
            Self::Nobody => "the consumer in a task",
        }
    }
}

fn compare(items: u64, rounds: u64, on_main: OnMain, producers: u64, only: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let each = items / producers;
    let race = Race { runtime, on_main, producers, each };
    let contestants: Vec<_> =
        CONTESTANTS.into_iter().filter(|(name, _)| name.starts_with(only)).collect();
    let mut taken = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds as usize {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let (name, run) = contestants[at];
            let began = Instant::now();
            let sum = run(&race);
            let passed = began.elapsed();
            let each_sum = each * (each - 1) / 2;
            assert_eq!(sum, producers * each_sum, "{name}: nothing lost, nothing twice");
            // The first round warms up.
            if round > 0 {
                taken[at].push(passed.as_nanos() as f64 / items as f64);
            }
        }
    }
    let yardstick = contestants.iter().position(|(name, _)| *name == YARDSTICK);
    for ((name, _), own) in contestants.iter().zip(&taken) {
        let (fastest, own_median, slowest) = spread(own.clone());
        print!("  {name:<16} {own_median:>5.0}  ({fastest:.0} to {slowest:.0})");
        if let Some(beside) = yardstick.map(|at| &taken[at]) {
            let ratios = own.iter().zip(beside).map(|(own, beside)| own / beside).collect();
            print!("{:>8.2} of {YARDSTICK}", spread(ratios).1);
        }
        println!();
    }
}

/// The least, the median and the greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// Runs `consumer` and a `producer()` for each, until the consumer ends.
fn run<C, P>(race: &Race, consumer: C, producer: impl Fn() -> P) -> u64
where
    C: Future<Output = u64> + Send + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let runtime = &race.runtime;
    let start = || {
        for _ in 0..race.producers {
            runtime.spawn(producer());
        }
    };
    match race.on_main {
        OnMain::Consumer => {
            start();
            drop(producer);
            runtime.block_on(consumer)
        }
        OnMain::Producer => {
            let consumer = runtime.spawn(consumer);
            runtime.block_on(producer());
            drop(producer);
            runtime.block_on(consumer).unwrap()
        }
        OnMain::Nobody => {
            let consumer = runtime.spawn(consumer);
            start();
            drop(producer);
            runtime.block_on(consumer).unwrap()
        }
    }
}

/// A contestant: how its channel is made, how all items are summed up, and how one is sent.
macro_rules! contestant {
    ($name:ident, $channel:expr, |$rx:ident| $sum:expr, |$tx:ident, $n:ident| $send:expr) => {
        fn $name(race: &Race) -> u64 {
            let each = race.each;
            let ($tx, $rx) = $channel;
            run(race, async move { $sum }, move || {
                let $tx = $tx.clone();
                async move {
                    for $n in 0..each {
                        $send.await.unwrap();
                    }
                }
            })
        }
    };
}

/// Sums up what comes one by one, while it does.
macro_rules! sum_of {
    ($some:pat = $recv:expr => $n:ident) => {{
        let mut sum = 0;
        while let $some = $recv.await {
            sum += $n;
        }
        sum
    }};
}

contestant!(flow, our_queue(), |rx| sum_of!(Some(n) = rx.recv() => n), |tx, n| tx.submit(n));
contestant!(flow_many, our_queue(), |rx| sum_of_batches(rx).await, |tx, n| tx.submit(n));
contestant!(
    tokio_mpsc,
    mpsc::channel::<u64>(BOUND),
    |rx| {
        let mut rx = rx;
        sum_of!(Some(n) = rx.recv() => n)
    },
    |tx, n| tx.send(n)
);
contestant!(
    async_channel,
    async_channel::bounded::<u64>(BOUND),
    |rx| sum_of!(Ok(n) = rx.recv() => n),
    |tx, n| tx.send(n)
);
contestant!(
    flume,
    flume::bounded::<u64>(BOUND),
    |rx| sum_of!(Ok(n) = rx.recv_async() => n),
    |tx, n| tx.send_async(n)
);

fn our_queue() -> (queue::Sender<u64>, queue::Receiver<u64>) {
    queue::bounded("bench", Bound::items(BOUND), Full::Block)
}

async fn sum_of_batches(rx: queue::Receiver<u64>) -> u64 {
    let (mut sum, mut batch) = (0, Vec::with_capacity(BOUND));
    while rx.recv_many(&mut batch, BOUND).await > 0 {
        sum += batch.drain(..).sum::<u64>();
    }
    sum
}
