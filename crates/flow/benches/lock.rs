//! Locks against the bare ones they are measured by: `cargo bench -p forebay-flow --bench lock`.
//!
//! Free locks on one thread, taken and let go; then two threads on one lock. Every round measures every contestant once,
//! in an order that turns; the table shows medians, and the median over the rounds of each one's time above the first's
//! in the same round. Words after `--` choose the tables whose titles have them all. Owns nothing.
#![expect(clippy::unwrap_used, reason = "a bench")]

mod duel;

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;

use forebay_flow::{Ctx, clock, lock};

use self::duel::{Contestant, match_up};

const ROUNDS: usize = 15;
const FREE: u64 = 4_000_000;
const SHARED: u64 = 4_000_000;

/// Nanoseconds a turn.
fn timed(turns: u64, work: impl FnOnce()) -> f64 {
    let began = clock::now();
    work();
    (clock::now() - began).as_secs_f64() * 1e9 / turns as f64
}

/// On a task of flow, where a lock has a holder to write down.
fn in_task<F: Future<Output = f64> + Send + 'static>(work: F) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ctx = Ctx::root("bench");
    runtime.block_on(async { ctx.spawn("bench", work).join().await.unwrap() })
}

/// A loop over `$take`, an expression that takes `$lock` and gives its guard.
macro_rules! free {
    ($new:expr, |$lock:ident| $take:expr) => {
        free!($new, $lock, *$take += 1)
    };
    (read $new:expr, |$lock:ident| $take:expr) => {
        free!($new, $lock, black_box(*$take))
    };
    ($new:expr, $lock:ident, $turn:expr) => {
        || {
            in_task(async {
                let $lock = black_box($new);
                let began = clock::now();
                for _ in 0..FREE {
                    $turn;
                }
                (clock::now() - began).as_secs_f64() * 1e9 / FREE as f64
            })
        }
    };
}

/// Two threads, half of the turns each.
fn shared<L: Send + Sync + 'static>(lock: L, turn: fn(&L)) -> f64 {
    let (lock, both) = (Arc::new(lock), Barrier::new(2));
    timed(SHARED, || {
        let other = Arc::clone(&lock);
        let half = |lock: &L| {
            both.wait();
            (0..SHARED / 2).for_each(|_| turn(lock));
        };
        let thread = thread::scope(|scope| {
            let thread = scope.spawn(|| half(&other));
            half(&lock);
            thread.join()
        });
        thread.unwrap();
    })
}

/// Two tasks on a runtime of two threads, half of the turns each.
macro_rules! shared_tasks {
    ($new:expr) => {
        shared_tasks!($new, |lock, n| *lock.lock().await += 1)
    };
    ($new:expr, |$lock:ident, $n:ident| $turn:expr) => {
        || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let lock = Arc::new($new);
            let ctx = Ctx::root("bench");
            timed(SHARED, || {
                runtime.block_on(async {
                    let task = || {
                        let $lock = Arc::clone(&lock);
                        ctx.spawn("bench", async move {
                            for $n in 0..SHARED / 2 {
                                black_box($n);
                                $turn;
                            }
                        })
                    };
                    let (one, two) = (task(), task());
                    one.join().await.unwrap();
                    two.join().await.unwrap();
                });
            })
        }
    };
}

/// One turn in eight writes.
macro_rules! mostly_read {
    ($new:expr) => {
        shared_tasks!($new, |lock, n| {
            if n % 8 == 0 {
                *lock.write().await += 1;
            } else {
                black_box(*lock.read().await);
            }
        })
    };
}

/// One table, unless the command line names words that its title lacks.
fn round(title: &str, contestants: &[Contestant]) {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if wanted.iter().all(|word| title.contains(word)) {
        match_up(ROUNDS, title, contestants);
    }
}

fn main() {
    println!("a lock taken and let go, {ROUNDS} rounds; last column: above the first\n");
    round(
        "free, blocking",
        &[
            ("parking_lot", free!(parking_lot::Mutex::new(0_u64), |lock| lock.lock())),
            ("std", free!(std::sync::Mutex::new(0_u64), |lock| lock.lock().unwrap())),
            (
                "lock::sync::Mutex",
                free!(lock::sync::Mutex::new("bench", 0_u64), |lock| lock.lock()),
            ),
        ],
    );
    round(
        "free, async",
        &[
            ("tokio", free!(tokio::sync::Mutex::new(0_u64), |lock| lock.lock().await)),
            ("lock::Mutex", free!(lock::Mutex::new("bench", 0_u64), |lock| lock.lock().await)),
        ],
    );
    round(
        "free, blocking, to read",
        &[
            ("parking_lot", free!(read parking_lot::RwLock::new(0_u64), |lock| lock.read())),
            (
                "lock::sync::RwLock",
                free!(read lock::sync::RwLock::new("bench", 0_u64), |lock| lock.read()),
            ),
        ],
    );
    round(
        "free, blocking, to write",
        &[
            ("parking_lot", free!(parking_lot::RwLock::new(0_u64), |lock| lock.write())),
            (
                "lock::sync::RwLock",
                free!(lock::sync::RwLock::new("bench", 0_u64), |lock| lock.write()),
            ),
        ],
    );
    round(
        "free, async, to read",
        &[
            ("tokio", free!(read tokio::sync::RwLock::new(0_u64), |lock| lock.read().await)),
            (
                "lock::RwLock",
                free!(read lock::RwLock::new("bench", 0_u64), |lock| lock.read().await),
            ),
        ],
    );
    round(
        "free, async, to write",
        &[
            ("tokio", free!(tokio::sync::RwLock::new(0_u64), |lock| lock.write().await)),
            ("lock::RwLock", free!(lock::RwLock::new("bench", 0_u64), |lock| lock.write().await)),
        ],
    );
    round(
        "two threads on one, blocking",
        &[
            ("parking_lot", || shared(parking_lot::Mutex::new(0_u64), |lock| *lock.lock() += 1)),
            ("lock::sync::Mutex", || {
                shared(lock::sync::Mutex::new("bench", 0_u64), |lock| *lock.lock() += 1)
            }),
        ],
    );
    round(
        "two tasks on two threads, async",
        &[
            ("tokio", shared_tasks!(tokio::sync::Mutex::new(0_u64))),
            ("lock::Mutex", shared_tasks!(lock::Mutex::new("bench", 0_u64))),
        ],
    );
    round(
        "two threads on one, blocking, to read",
        &[
            ("parking_lot", || {
                shared(parking_lot::RwLock::new(0_u64), |lock| {
                    black_box(*lock.read());
                })
            }),
            ("lock::sync::RwLock", || {
                shared(lock::sync::RwLock::new("bench", 0_u64), |lock| {
                    black_box(*lock.read());
                })
            }),
        ],
    );
    round(
        "two tasks on two threads, async, seven of eight read",
        &[
            ("tokio", mostly_read!(tokio::sync::RwLock::new(0_u64))),
            ("lock::RwLock", mostly_read!(lock::RwLock::new("bench", 0_u64))),
        ],
    );
}
