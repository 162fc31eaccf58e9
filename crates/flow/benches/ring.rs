//! The ring against rtrb and crossbeam's ArrayQueue, in one run: `cargo bench -p forebay-flow --bench ring`.
//!
//! Every round measures every contestant once, in an order that turns; the table shows medians of items a second, and the
//! median over the rounds of each one's rate divided by rtrb's in the same round. Owns nothing.
#![expect(clippy::unwrap_used, reason = "a bench")]

use std::hint::{black_box, spin_loop};
use std::thread;

use crossbeam_queue::ArrayQueue;
use forebay_flow::clock;
use forebay_flow::ring::{self, Layout, Naive, Tuned, Uncached, Unpadded};

const ROUNDS: usize = 11;
const CAPACITY: usize = 1024;
const BATCH: usize = 64;

/// Runs `produce` and `consume` on a thread each and says how many items a second passed.
fn paired(items: u64, produce: impl FnOnce() + Send, consume: impl FnOnce() -> u64) -> f64 {
    let began = clock::now();
    let sum = thread::scope(|scope| {
        let producer = scope.spawn(produce);
        let sum = consume();
        producer.join().unwrap();
        sum
    });
    let seconds = (clock::now() - began).as_secs_f64();
    assert_eq!(sum, items * (items - 1) / 2);
    items as f64 / seconds
}

fn one_by_one(
    items: u64,
    mut push: impl FnMut(u64) -> bool + Send,
    mut pop: impl FnMut() -> Option<u64>,
) -> f64 {
    let produce = move || {
        for n in 0..items {
            while !push(n) {
                spin_loop();
            }
        }
    };
    paired(items, produce, move || {
        let (mut sum, mut seen) = (0, 0);
        while seen < items {
            match pop() {
                Some(n) => (sum, seen) = (sum + n, seen + 1),
                None => spin_loop(),
            }
        }
        sum
    })
}

fn in_batches(
    items: u64,
    mut push: impl FnMut(&[u64]) -> usize + Send,
    mut pop: impl FnMut(&mut [u64]) -> usize,
) -> f64 {
    let produce = move || {
        let mut batch = [0; BATCH];
        let mut next = 0;
        while next < items {
            let len = BATCH.min((items - next) as usize);
            for (slot, n) in batch[..len].iter_mut().zip(next..) {
                *slot = n;
            }
            let mut sent = 0;
            while sent < len {
                match push(&batch[sent..len]) {
                    0 => spin_loop(),
                    more => sent += more,
                }
            }
            next += len as u64;
        }
    };
    paired(items, produce, move || {
        let (mut sum, mut seen, mut batch) = (0, 0, [0; BATCH]);
        while seen < items {
            match pop(&mut batch) {
                0 => spin_loop(),
                len => {
                    sum += batch[..len].iter().sum::<u64>();
                    seen += len as u64;
                }
            }
        }
        sum
    })
}

/// Pushes and pops on one thread: the instructions alone, without the traffic between cores.
fn alone(
    items: u64,
    mut push: impl FnMut(u64) -> bool,
    mut pop: impl FnMut() -> Option<u64>,
) -> f64 {
    let began = clock::now();
    let mut sum = 0;
    for n in 0..items {
        assert!(push(black_box(n)));
        sum += pop().unwrap();
    }
    let seconds = (clock::now() - began).as_secs_f64();
    assert_eq!(sum, items * (items - 1) / 2);
    items as f64 / seconds
}

fn ours<L: Layout>() -> f64 {
    let (mut tx, mut rx) = ring::with_layout::<u64, L>(CAPACITY);
    one_by_one(400_000, move |n| tx.push(n).is_ok(), move || rx.pop())
}

fn ours_batched<L: Layout>() -> f64 {
    let (mut tx, mut rx) = ring::with_layout::<u64, L>(CAPACITY);
    in_batches(4_000_000, move |items| tx.push_slice(items), move |out| rx.pop_slice(out))
}

fn channel() -> f64 {
    let (mut tx, mut rx) = ring::channel("bench", CAPACITY);
    one_by_one(400_000, move |n| tx.try_push(n).is_ok(), move || rx.try_pop())
}

fn channel_batched() -> f64 {
    let (mut tx, mut rx) = ring::channel("bench", CAPACITY);
    in_batches(4_000_000, move |items| tx.push_slice(items), move |out| rx.pop_slice(out))
}

fn rtrb_single() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    one_by_one(400_000, move |n| tx.push(n).is_ok(), move || rx.pop().ok())
}

fn rtrb_batched() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    let push = move |items: &[u64]| tx.push_partial_slice(items).0.len();
    in_batches(4_000_000, push, move |out: &mut [u64]| rx.pop_partial_slice(out).0.len())
}

fn array_queue() -> f64 {
    let queue = ArrayQueue::new(CAPACITY);
    one_by_one(400_000, |n| queue.push(n).is_ok(), || queue.pop())
}

fn ours_alone() -> f64 {
    let (mut tx, mut rx) = ring::new(CAPACITY);
    alone(4_000_000, |n| tx.push(n).is_ok(), || rx.pop())
}

fn rtrb_alone() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    alone(4_000_000, |n| tx.push(n).is_ok(), || rx.pop().ok())
}

fn array_queue_alone() -> f64 {
    let queue = ArrayQueue::new(CAPACITY);
    alone(4_000_000, |n| queue.push(n).is_ok(), || queue.pop())
}

type Contestant = (&'static str, fn() -> f64);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The first contestant is the measure.
fn match_up(title: &str, contestants: &[Contestant]) {
    let mut rates = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for round in 0..ROUNDS {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let (_, run) = contestants[at];
            rates[at].push(run());
        }
    }
    println!("{title}");
    for ((name, _), own) in contestants.iter().zip(&rates) {
        let ratios = own.iter().zip(&rates[0]).map(|(own, first)| own / first).collect();
        let rate = median(own.clone());
        println!(
            "  {name:<28} {:>8.1} M/s  {:>6.2} ns  {:>5.2}",
            rate / 1e6,
            1e9 / rate,
            median(ratios)
        );
    }
}

fn main() {
    println!(
        "items of 8 bytes, capacity {CAPACITY}, {ROUNDS} rounds; last column: of rtrb's rate\n"
    );
    match_up(
        "one thread, push and pop",
        &[("rtrb", rtrb_alone), ("ring", ours_alone), ("crossbeam ArrayQueue", array_queue_alone)],
    );
    match_up(
        &format!("two threads, batches of {BATCH}"),
        &[
            ("rtrb", rtrb_batched),
            ("ring", ours_batched::<Tuned>),
            ("ring, indices not padded", ours_batched::<Unpadded>),
            ("ring, indices not cached", ours_batched::<Uncached>),
            ("ring, neither", ours_batched::<Naive>),
            ("ring::channel", channel_batched),
        ],
    );
    match_up(
        "two threads, one by one",
        &[
            ("rtrb", rtrb_single),
            ("ring", ours::<Tuned>),
            ("ring, indices not padded", ours::<Unpadded>),
            ("ring, indices not cached", ours::<Uncached>),
            ("ring, neither", ours::<Naive>),
            ("ring::channel", channel),
            ("crossbeam ArrayQueue", array_queue),
        ],
    );
}
