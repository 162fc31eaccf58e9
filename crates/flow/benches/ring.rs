//! The ring against rtrb, crossbeam's ArrayQueue, a channel and a locked queue: `cargo bench -p forebay-flow --bench ring`.
//!
//! Two threads on a ring fall into one of two gaits: far apart, or in lockstep on one line, which costs several times as
//! much; which it is in a round is half chance. So there are many short rounds, each measures every contestant once, in
//! an order and at addresses drawn anew, and what is read is each one's rate divided by rtrb's of the same round: median and quartiles.
//! Owns nothing.
#![expect(clippy::unwrap_used, reason = "a bench")]

use std::collections::VecDeque;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_queue::ArrayQueue;
use forebay_flow::clock;
use forebay_flow::ring::{self, Layout, Naive, Tuned, Uncached, Unfetched, Unpadded};
use parking_lot::Mutex;
use tokio::sync::mpsc;

const ROUNDS: usize = 201;
const SEED: u64 = 4;
const CAPACITY: usize = 1024;
const BATCH: usize = 64;
/// Items of one round, so that it takes some tenths of a millisecond.
const ONES: u64 = 100_000;
const BATCHED: u64 = 400_000;

/// Runs `produce` and `consume` on a thread each, from the moment both stand ready, and says how many nanoseconds one item
/// took.
fn paired(items: u64, produce: impl FnOnce() + Send, consume: impl FnOnce() -> u64) -> f64 {
    let (ready, go) = (AtomicBool::new(false), AtomicBool::new(false));
    let until = |flag: &AtomicBool| {
        while !flag.load(Ordering::Acquire) {
            spin_loop();
        }
    };
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            ready.store(true, Ordering::Release);
            until(&go);
            produce();
        });
        until(&ready);
        let began = clock::now();
        go.store(true, Ordering::Release);
        let sum = consume();
        let took = clock::now() - began;
        producer.join().unwrap();
        assert_eq!(sum, items * (items - 1) / 2);
        took.as_secs_f64() * 1e9 / items as f64
    })
}

fn one_by_one(
    mut push: impl FnMut(u64) -> bool + Send,
    mut pop: impl FnMut() -> Option<u64>,
) -> f64 {
    let produce = move || {
        for n in 0..ONES {
            while !push(n) {
                spin_loop();
            }
        }
    };
    paired(ONES, produce, move || {
        let (mut sum, mut seen) = (0, 0);
        while seen < ONES {
            match pop() {
                Some(n) => (sum, seen) = (sum + n, seen + 1),
                None => spin_loop(),
            }
        }
        sum
    })
}

fn in_batches(
    mut push: impl FnMut(&[u64]) -> usize + Send,
    mut pop: impl FnMut(&mut [u64]) -> usize,
) -> f64 {
    let produce = move || {
        let mut batch = [0; BATCH];
        let mut next = 0;
        while next < BATCHED {
            let len = BATCH.min((BATCHED - next) as usize);
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
    paired(BATCHED, produce, move || {
        let (mut sum, mut seen, mut batch) = (0, 0, [0; BATCH]);
        while seen < BATCHED {
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
fn alone(mut push: impl FnMut(u64) -> bool, mut pop: impl FnMut() -> Option<u64>) -> f64 {
    let began = clock::now();
    let mut sum = 0;
    for n in 0..ONES {
        assert!(push(black_box(n)));
        sum += pop().unwrap();
    }
    let took = clock::now() - began;
    assert_eq!(sum, ONES * (ONES - 1) / 2);
    took.as_secs_f64() * 1e9 / ONES as f64
}

fn ours<L: Layout>() -> f64 {
    let (mut tx, mut rx) = ring::with_layout::<u64, L>(CAPACITY);
    one_by_one(move |n| tx.push(n).is_ok(), move || rx.pop())
}

fn ours_batched<L: Layout>() -> f64 {
    let (mut tx, mut rx) = ring::with_layout::<u64, L>(CAPACITY);
    in_batches(move |items| tx.push_slice(items), move |out| rx.pop_slice(out))
}

fn ours_alone<L: Layout>() -> f64 {
    let (mut tx, mut rx) = ring::with_layout::<u64, L>(CAPACITY);
    alone(|n| tx.push(n).is_ok(), || rx.pop())
}

fn rtrb_single() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    one_by_one(move |n| tx.push(n).is_ok(), move || rx.pop().ok())
}

fn rtrb_batched() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    let push = move |items: &[u64]| tx.push_partial_slice(items).0.len();
    in_batches(push, move |out: &mut [u64]| rx.pop_partial_slice(out).0.len())
}

fn rtrb_alone() -> f64 {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    alone(|n| tx.push(n).is_ok(), || rx.pop().ok())
}

fn channel() -> f64 {
    let (mut tx, mut rx) = ring::channel("bench", CAPACITY);
    one_by_one(move |n| tx.try_push(n).is_ok(), move || rx.try_pop())
}

fn channel_batched() -> f64 {
    let (mut tx, mut rx) = ring::channel("bench", CAPACITY);
    in_batches(move |items| tx.push_slice(items), move |out| rx.pop_slice(out))
}

fn channel_alone() -> f64 {
    let (mut tx, mut rx) = ring::channel("bench", CAPACITY);
    alone(|n| tx.try_push(n).is_ok(), || rx.try_pop())
}

fn array_queue() -> f64 {
    let queue = ArrayQueue::new(CAPACITY);
    one_by_one(|n| queue.push(n).is_ok(), || queue.pop())
}

fn array_queue_alone() -> f64 {
    let queue = ArrayQueue::new(CAPACITY);
    alone(|n| queue.push(n).is_ok(), || queue.pop())
}

/// What one writes who has no ring: a bounded queue behind a lock.
#[derive(Default)]
struct Locked(Mutex<VecDeque<u64>>);

impl Locked {
    fn push(&self, n: u64) -> bool {
        let mut queue = self.0.lock();
        let room = queue.len() < CAPACITY;
        if room {
            queue.push_back(n);
        }
        room
    }

    fn pop(&self) -> Option<u64> {
        self.0.lock().pop_front()
    }

    fn push_slice(&self, items: &[u64]) -> usize {
        let mut queue = self.0.lock();
        let count = items.len().min(CAPACITY - queue.len());
        queue.extend(&items[..count]);
        count
    }

    fn pop_slice(&self, out: &mut [u64]) -> usize {
        let mut queue = self.0.lock();
        let count = out.len().min(queue.len());
        for (out, n) in out.iter_mut().zip(queue.drain(..count)) {
            *out = n;
        }
        count
    }
}

fn locked() -> f64 {
    let queue = Locked::default();
    one_by_one(|n| queue.push(n), || queue.pop())
}

fn locked_batched() -> f64 {
    let queue = Locked::default();
    in_batches(|items| queue.push_slice(items), |out| queue.pop_slice(out))
}

fn locked_alone() -> f64 {
    let queue = Locked::default();
    alone(|n| queue.push(n), || queue.pop())
}

#[expect(clippy::disallowed_methods, reason = "what the ring is measured against")]
fn tokio_channel() -> (mpsc::Sender<u64>, mpsc::Receiver<u64>) {
    mpsc::channel(CAPACITY)
}

/// Tokio's channel, whose ends are tried as the others are.
fn tokio_mpsc() -> f64 {
    let (tx, mut rx) = tokio_channel();
    one_by_one(move |n| tx.try_send(n).is_ok(), move || rx.try_recv().ok())
}

fn tokio_mpsc_alone() -> f64 {
    let (tx, mut rx) = tokio_channel();
    alone(|n| tx.try_send(n).is_ok(), || rx.try_recv().ok())
}

/// A name, and what takes one round and says how many nanoseconds an item took.
type Contestant = (&'static str, fn() -> f64);

/// The first quarter, the half and the third quarter.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

/// The first contestant is the measure.
fn match_up(title: &str, contestants: &[Contestant]) {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut order: Vec<_> = (0..contestants.len()).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for _ in 0..ROUNDS {
        rng.shuffle(&mut order);
        for &at in &order {
            let (_, run) = contestants[at];
            // Where the allocator puts a ring's memory, beside a line's begin or on it, is not to be one's luck for long.
            let shift = vec![0_u8; rng.usize(..8192)];
            times[at].push(run());
            drop(black_box(shift));
        }
    }
    println!("{title:<42} ns: quartiles          of rtrb's rate: quartiles");
    for ((name, _), own) in contestants.iter().zip(&times) {
        let rates = own.iter().zip(&times[0]).map(|(own, first)| first / own).collect();
        let ([a, b, c], [x, y, z]) = (quartiles(own.clone()), quartiles(rates));
        println!("  {name:<32} {a:>8.2} {b:>7.2} {c:>7.2}      {x:>7.2} {y:>6.2} {z:>6.2}");
    }
    println!();
}

fn main() {
    println!("items of 8 bytes, capacity {CAPACITY}, {ROUNDS} rounds in an order of seed {SEED}\n");
    match_up(
        "one thread, push and pop",
        &[
            ("rtrb", rtrb_alone),
            ("ring", ours_alone::<Tuned>),
            ("ring, nothing fetched ahead", ours_alone::<Unfetched>),
            ("ring::channel", channel_alone),
            ("crossbeam ArrayQueue", array_queue_alone),
            ("tokio mpsc", tokio_mpsc_alone),
            ("VecDeque in a Mutex", locked_alone),
        ],
    );
    match_up(
        &format!("two threads, batches of {BATCH}"),
        &[
            ("rtrb", rtrb_batched),
            ("ring", ours_batched::<Tuned>),
            ("ring, indices not padded", ours_batched::<Unpadded>),
            ("ring, indices not cached", ours_batched::<Uncached>),
            ("ring, nothing fetched ahead", ours_batched::<Unfetched>),
            ("ring, none of the three", ours_batched::<Naive>),
            ("ring::channel", channel_batched),
            ("VecDeque in a Mutex", locked_batched),
        ],
    );
    match_up(
        "two threads, one by one",
        &[
            ("rtrb", rtrb_single),
            ("ring", ours::<Tuned>),
            ("ring, indices not padded", ours::<Unpadded>),
            ("ring, indices not cached", ours::<Uncached>),
            ("ring, nothing fetched ahead", ours::<Unfetched>),
            ("ring, none of the three", ours::<Naive>),
            ("ring::channel", channel),
            ("crossbeam ArrayQueue", array_queue),
            ("tokio mpsc", tokio_mpsc),
            ("VecDeque in a Mutex", locked),
        ],
    );
}
