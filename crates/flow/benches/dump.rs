//! A dump of 100,000 tasks, and what the others feel of it: `cargo bench -p forebay-flow --bench dump`.
//!
//! A dump can make others wait in three ways: it holds a lock of the registry (whoever spawns or ends a task waits), it holds
//! the lock of a task's own wait (that task waits), and it keeps a thread of the runtime in one poll. A lock is never held
//! across an await, so its longest poll bounds all three. It is taken in CPU time of its thread: the machine stops every
//! thread for milliseconds now and then, with a dump and without, and that is not the dump's doing.
//!
//! Beside that stands a victim, a thread that does nothing but spawn and end tasks. Of the time between two of its looks,
//! what it was on the CPU and what it waited for one (the second field of its `schedstat`) is taken out: what is left it
//! was blocked, and there is nothing to block it but the registry's locks. When the machine takes the CPU from the dump while
//! it holds one, the victim is blocked until the dump has it back: so what the dump was off the CPU in the same poll is
//! taken out, too; both figures are shown. A second one beside it would meet it there
//! without any dump, whenever the machine takes the CPU from the one that holds a lock. Owns nothing.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench beside bare Tokio")]

use std::fmt;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpu_time::ThreadTime;
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::{Ctx, Task, clock, debug, dump};
use tokio::runtime::{Builder, Runtime};

const CROWD: usize = 100_000;
const ROUND: Duration = Duration::from_secs(4);
/// Tasks a victim spawns and ends between two looks at its clocks, which cost as much as some of them.
const STRIDE: usize = 16;

/// A switch of threads is a microsecond of neither.
const INEXACT: Duration = Duration::from_micros(5);

/// Time this thread was on a CPU.
fn on_cpu() -> Duration {
    ThreadTime::now().as_duration()
}

/// What a thread spends neither on a CPU nor waiting for one.
struct Blocked {
    schedstat: Option<File>,
    wall: clock::Instant,
    busy: Duration,
}

impl Blocked {
    fn start() -> Self {
        // Not everywhere: without it, the wait for a CPU counts as well.
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let mut blocked = Self { schedstat, wall: clock::now(), busy: Duration::ZERO };
        blocked.lap();
        blocked
    }

    fn runnable(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let text = String::from_utf8_lossy(&text[..read.unwrap_or(0)]);
        let nanos = text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.unwrap_or(0))
    }

    /// Since the last call.
    fn lap(&mut self) -> Off {
        // Busy times before the wall's: what passes between is no block.
        let busy = on_cpu() + self.runnable();
        let ended = clock::now();
        let off = Off { began: self.wall, ended, busy: busy - self.busy };
        (self.wall, self.busy) = (ended, busy);
        off
    }
}

/// A while in which a thread was `busy`, and for the rest not.
struct Off {
    began: clock::Instant,
    ended: clock::Instant,
    busy: Duration,
}

impl Off {
    fn lasted(&self) -> Duration {
        (self.ended - self.began).saturating_sub(self.busy)
    }

    fn meets(&self, other: &Self) -> bool {
        self.began < other.ended && other.began < self.ended
    }
}

/// Who spawned and ended `tasks`, and each time it was blocked for longer than the clocks are inexact.
struct Victim {
    tasks: usize,
    blocked: Vec<Off>,
}

/// Spawns and ends tasks until told.
fn victim(over: &AtomicBool) -> Victim {
    let runtime = Builder::new_current_thread().build().unwrap();
    let ctx = Ctx::root("victim");
    runtime.block_on(async {
        let mut felt = Victim { tasks: 0, blocked: Vec::new() };
        let mut blocked = Blocked::start();
        while !over.load(Ordering::Relaxed) {
            for _ in 0..STRIDE {
                ctx.spawn("short", async {}).await.unwrap();
            }
            felt.tasks += STRIDE;
            felt.blocked.extend(Some(blocked.lap()).filter(|off| off.lasted() > INEXACT));
        }
        felt
    })
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
            0..5 => ctx.spawn("sends", async move {
                let _sent = full.submit(1).await;
            }),
            5..8 => ctx.spawn("receives", async move {
                quiet_rx.recv().await;
            }),
            _ => ctx.spawn("sleeps", tokio::time::sleep(Duration::from_secs(3600))),
        });
    }
    all
}

/// Runs the victims, and `dump` over and over beside them; says what they felt.
fn round<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    title: &str,
    dump: impl Fn() -> F + Send + 'static,
) {
    let (ctx, over) = (Ctx::root("dumps"), Arc::new(AtomicBool::new(false)));
    let victim = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || victim(&over))
    };
    let dumping = {
        let over = Arc::clone(&over);
        ctx.spawn("dumps", async move {
            let (mut answers, mut longest, mut polls) = (Vec::new(), Duration::ZERO, 0);
            let mut taken_off = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let before = clock::now();
                let mut dump = pin!(dump());
                poll_fn(|cx| {
                    let (began, before) = (clock::now(), on_cpu());
                    let polled = dump.as_mut().poll(cx);
                    let busy = on_cpu() - before;
                    let off = Off { began, ended: clock::now(), busy };
                    taken_off.extend(Some(off).filter(|off| off.lasted() > INEXACT));
                    longest = longest.max(busy);
                    polls += 1;
                    polled
                })
                .await;
                answers.push(clock::now() - before);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answers.sort_unstable();
            (answers, longest, polls, taken_off)
        })
    };
    std::thread::sleep(ROUND);
    over.store(true, Ordering::Relaxed);
    let (answers, longest, polls, taken_off) = runtime.block_on(dumping).unwrap();
    let Victim { tasks, blocked } = victim.join().unwrap();
    let all: Vec<_> = blocked.iter().map(Off::lasted).collect();
    let by_dump = |off: &Off| {
        let meanwhile = taken_off.iter().filter(|other| other.meets(off));
        off.lasted().saturating_sub(meanwhile.map(Off::lasted).max().unwrap_or_default())
    };
    let by_dump: Vec<_> = blocked.iter().map(by_dump).collect();
    println!("{title}");
    println!(
        "  {} answers, {:.1?} in the middle, {:.1?} at most",
        answers.len(),
        answers[answers.len() / 2],
        answers[answers.len() - 1]
    );
    println!("  its longest poll of {polls}: {longest:.1?} on the CPU");
    println!("  who spawned and ended {tasks} tasks meanwhile was blocked {} times", all.len());
    println!("    {}", Spread::of(all));
    let spread = Spread::of(by_dump);
    println!("    {spread}, without the machine's pauses");
    let most = longest.max(spread.most);
    println!("  longest pause of others: {:.0} µs\n", most.as_secs_f64() * 1e6);
}

/// Some times in short.
struct Spread {
    middle: Duration,
    p99: Duration,
    most: Duration,
    over_a_millisecond: usize,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        Self {
            middle: at(50),
            p99: at(99),
            most: times.last().copied().unwrap_or_default(),
            over_a_millisecond: times.iter().filter(|time| time.as_micros() > 1000).count(),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { middle, p99, most, over_a_millisecond: over } = self;
        write!(f, "{middle:.1?} in the middle, p99 {p99:.1?}, {most:.1?} at most, {over} over 1 ms")
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ctx = Ctx::root("bench");
    let _in = runtime.enter();
    let crowd = crowd(&ctx);
    while dump::take().groups[0].count < CROWD / 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{CROWD} tasks at three places, two worker threads, one more that spawns\n");
    round(&runtime, "no dump", || async {});
    round(&runtime, "/debug/tasks", || async {
        let page = debug::respond("/debug/tasks", None).await.unwrap();
        let text = page.body;
        assert!(text.contains("× sends [waiting on room in queue `full`"), "{text}");
    });
    let named = |n| ctx.spawn(format!("named {n}"), std::future::pending::<()>());
    let many: Vec<_> = (0..2 * dump::MAX_NAMED_GROUPS).map(named).collect();
    round(&runtime, "/debug/tasks?limit=1000&format=json, a thousand groups more", || async {
        let page = debug::respond("/debug/tasks", Some("limit=1000&format=json")).await.unwrap();
        assert!(page.body.matches("\"longest_wait_ms\"").count() == 1000);
    });
    drop(many);
    round(&runtime, "no dump", || async {});
    drop(crowd);
}
