//! The fine timer: never early, never lost, nothing left behind.
//!
//! No test asserts how late a sleep is: a busy machine may be late as it likes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use forebay_flow::timer::{Elapsed, RESOLUTION, Sleep, Timer};
use forebay_flow::{Cause, Clock, Ctx, clock, leak, tasks};
use parking_lot::Mutex;

use crate::rig::{until, until_on_thread};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn poll(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

/// Writes its number down when woken.
struct Scribe(u64, Arc<Mutex<Vec<u64>>>);

impl Wake for Scribe {
    fn wake(self: Arc<Self>) {
        self.1.lock().push(self.0);
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (Arc::clone(&count), Waker::from(count))
}

/// Resident memory of this process in KiB; 0 where there is no procfs.
fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |kib| kib.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleep_fires_and_never_before_its_deadline() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let sleepers: Vec<_> = (0..1000_u64)
        .map(|n| {
            let timer = timer.clone();
            ctx.spawn("sleeper", async move {
                // From nothing to beyond the first level's slots, on ticks and between.
                let nap = Duration::from_micros(n * 17 % 20_011);
                for _ in 0..3 {
                    let began = clock::now();
                    timer.sleep(nap).await;
                    assert!(clock::now() - began >= nap);
                    let deadline = clock::now() + nap;
                    timer.sleep_until(deadline).await;
                    assert!(clock::now() >= deadline);
                }
            })
        })
        .collect();
    for sleeper in sleepers {
        sleeper.join().await.unwrap();
    }
    assert_eq!(timer.sleeping(), 0);
    drop(timer);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn a_sleep_counts_from_when_it_was_made_and_is_ready_when_that_is_past() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let mut past = timer.sleep_until(clock::now() - MS);
    let mut nothing = timer.sleep(Duration::ZERO);
    let mut soon = timer.sleep(MS);
    std::thread::sleep(2 * MS);
    for sleep in [&mut past, &mut nothing, &mut soon] {
        assert_eq!(poll(sleep, Waker::noop()), Poll::Ready(()));
        assert_eq!(poll(sleep, Waker::noop()), Poll::Ready(()), "and stays so");
    }
    assert_eq!(timer.sleeping(), 0, "none was ever entered");
}

#[test]
fn a_sleep_dropped_before_it_fires_leaves_nothing_and_wakes_nobody() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let (count, waker) = counter();
    let mut sleeps: Vec<_> = (0..1000).map(|n| timer.sleep(HOUR + n * MS)).collect();
    for sleep in &mut sleeps {
        assert!(poll(sleep, &waker).is_pending());
    }
    assert_eq!((timer.sleeping(), Arc::strong_count(&count)), (1000, 1002));
    sleeps.truncate(400);
    assert_eq!((timer.sleeping(), Arc::strong_count(&count)), (400, 402));
    sleeps.clear();
    assert_eq!((timer.sleeping(), Arc::strong_count(&count)), (0, 2));
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    // One that was never polled was never there.
    drop(timer.sleep(MS));
    assert_eq!(timer.sleeping(), 0);
}

#[test]
fn a_hundred_thousand_in_random_order_fire_in_the_order_of_their_deadlines() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let began = clock::now();
    let mut sleeps: Vec<_> = (0..100_000)
        .map(|_| {
            // None is due before all are entered, unless the machine takes its time; and it does not matter.
            let micros = rng.u64(300_000..800_000);
            let waker = Waker::from(Arc::new(Scribe(micros, Arc::clone(&woken))));
            (timer.sleep_until(began + Duration::from_micros(micros)), waker)
        })
        .collect();
    for (sleep, waker) in &mut sleeps {
        let due = poll(sleep, waker).is_ready();
        assert!(!due || clock::now() >= began + 300 * MS);
        if due {
            waker.wake_by_ref();
        }
    }
    let entered = clock::now() - began;
    until_on_thread(|| woken.lock().len() == 100_000);
    assert_eq!(timer.sleeping(), 0);
    for (sleep, waker) in &mut sleeps {
        assert!(poll(sleep, waker).is_ready());
    }
    let woken = woken.lock();
    let tick = u64::try_from(RESOLUTION.as_micros()).unwrap() + 1;
    let mut latest = 0;
    for micros in &*woken {
        // What was entered late was woken then.
        let late = u128::from(*micros) < entered.as_micros();
        assert!(late || *micros + tick >= latest, "{micros} after {latest}");
        latest = latest.max(*micros);
    }
}

#[test]
fn thousands_on_one_tick_are_all_woken_once() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let (count, waker) = counter();
    let deadline = clock::now() + 100 * MS;
    let mut sleeps: Vec<_> = (0..20_000).map(|_| timer.sleep_until(deadline)).collect();
    let entered = sleeps.iter_mut().filter_map(|s| poll(s, &waker).is_pending().then_some(()));
    let entered = entered.count();
    until_on_thread(|| timer.sleeping() == 0);
    until_on_thread(|| count.0.load(Ordering::SeqCst) == entered);
    assert!(sleeps.iter_mut().all(|sleep| poll(sleep, &waker).is_ready()));
    drop((sleeps, waker));
    until_on_thread(|| Arc::strong_count(&count) == 1);
}

#[test]
fn a_sleep_wakes_who_polled_it_last() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let ((first, one), (second, two)) = (counter(), counter());
    let mut long = timer.sleep(HOUR);
    assert!(poll(&mut long, &one).is_pending() && poll(&mut long, &two).is_pending());
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 3));
    let mut sleep = timer.sleep(50 * MS);
    // On a busy machine it may be over before the second poll.
    if poll(&mut sleep, &one).is_pending() && poll(&mut sleep, &two).is_pending() {
        until_on_thread(|| second.0.load(Ordering::SeqCst) == 1);
        assert_eq!(first.0.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_waker_that_panics_or_sleeps_itself_holds_up_no_other() {
    /// What a waker may do, and what happens when it is dropped: all of it comes back to the timer.
    struct Busybody(Timer, Mutex<Option<Sleep>>);
    impl Wake for Busybody {
        fn wake(self: Arc<Self>) {
            let mut another = self.0.sleep(HOUR);
            assert!(poll(&mut another, Waker::noop()).is_pending());
            *self.1.lock() = Some(another);
            panic!("woken");
        }
    }
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let (count, waker) = counter();
    let deadline = clock::now() + 50 * MS;
    let busybody = || Waker::from(Arc::new(Busybody(timer.clone(), Mutex::default())));
    let mut sleeps: Vec<_> = (0..100).map(|_| timer.sleep_until(deadline)).collect();
    let mut entered = 0;
    for (n, sleep) in sleeps.iter_mut().enumerate() {
        let busybody = if n % 2 == 0 { waker.clone() } else { busybody() };
        entered += usize::from(poll(sleep, &busybody).is_pending() && n % 2 == 0);
    }
    until_on_thread(|| count.0.load(Ordering::SeqCst) == entered);
    until_on_thread(|| timer.sleeping() == 0);
}

#[tokio::test]
async fn a_runtime_that_is_shut_down_with_sleeps_under_way_takes_them_along() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let sleepers: Vec<_> = {
        let _entered = runtime.enter();
        let sleeper = |_| {
            let timer = timer.clone();
            ctx.spawn("sleeper", async move { timer.sleep(HOUR).await })
        };
        (0..1000).map(sleeper).collect()
    };
    until(|| timer.sleeping() == 1000).await;
    runtime.shutdown_background();
    until(|| timer.sleeping() == 0).await;
    for sleeper in sleepers {
        sleeper.join().await.unwrap_err();
    }
    // It serves other runtimes as before.
    timer.sleep(MS).await;
    drop(timer);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn a_timers_thread_is_its_owners_and_ends_with_the_last_handle() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let line = line!() - 1;
    let leaks = leak::Checker::under(&ctx).look().unwrap_err();
    let thread = &leaks.tasks[0];
    assert_eq!((&*thread.name, thread.kind), ("timer", tasks::Kind::Thread));
    assert_eq!((thread.location.file(), thread.location.line()), (file!(), line));
    let sleep = timer.sleep(20 * MS);
    drop(timer);
    assert_eq!(ctx.live(), 1, "a sleep holds it, too");
    sleep.await;
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sleeps_of_a_timer_that_ended_go_on_with_tokios() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let began = clock::now();
    let under_way = ctx.spawn("sleeper", {
        let timer = timer.clone();
        async move { timer.sleep(HOUR).await }
    });
    until(|| timer.sleeping() == 1).await;
    ctx.cancel(Cause::Shutdown);
    until_on_thread(|| timer.sleeping() == 0);
    // Paused time: an hour on Tokio's clock is over at once, and one on real time would not be.
    under_way.join().await.unwrap();
    timer.sleep(HOUR).await;
    assert!(clock::now() - began >= 2 * HOUR - 60_000 * MS);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tokios_timer_follows_the_paused_clock() {
    let timer = Timer::tokio();
    let began = clock::now();
    timer.sleep(HOUR).await;
    timer.sleep_until(began + 2 * HOUR).await;
    assert_eq!(clock::now() - began, 2 * HOUR);
    assert_eq!(timer.timeout(HOUR, std::future::pending::<()>()).await, Err(Elapsed));
    assert_eq!(clock::now() - began, 3 * HOUR);
    assert_eq!(timer.sleeping(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fine_timer_heeds_neither_the_wall_nor_a_paused_clock() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let wall = Clock::fake(0);
    let mut sleep = timer.sleep_until(clock::now() + HOUR);
    assert!(poll(&mut sleep, Waker::noop()).is_pending());
    wall.jump(i64::MAX);
    wall.advance(2 * HOUR);
    tokio::time::advance(2 * HOUR).await;
    assert!(poll(&mut sleep, Waker::noop()).is_pending());
    assert_eq!(timer.sleeping(), 1);
    // And one made after the jump is as long as ever.
    #[expect(clippy::disallowed_methods, reason = "real time, beside a paused clock")]
    let began = std::time::Instant::now();
    timer.sleep(5 * MS).await;
    assert!(began.elapsed() >= 5 * MS);
}

#[tokio::test]
async fn a_timeout_gives_the_result_or_says_that_the_time_is_over_and_leaves_nothing() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    assert_eq!(timer.timeout(HOUR, async { 5 }).await, Ok(5));
    assert_eq!(timer.timeout(Duration::ZERO, async { 5 }).await, Ok(5), "what is ready wins");
    let guard = Arc::new(());
    let held = Arc::clone(&guard);
    let never = async move {
        std::future::pending::<()>().await;
        drop(held);
    };
    assert_eq!(timer.timeout_at(clock::now() + MS, never).await, Err(Elapsed));
    assert_eq!(Arc::strong_count(&guard), 1);
    let mut given_up = Box::pin(timer.timeout(HOUR, std::future::pending::<()>()));
    assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(timer.sleeping(), 1);
    drop(given_up);
    assert_eq!(timer.sleeping(), 0);
}

#[tokio::test]
async fn b90_a_task_that_sleeps_is_seen_waiting_on_its_timer() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx.child("app")).unwrap();
    for (timer, seen) in [(timer, "timer `t/app`"), (Timer::tokio(), "timer `tokio`")] {
        let _sleeper = ctx.spawn("sleeper", async move { timer.sleep(HOUR).await });
        until(|| {
            let tasks = leak::Checker::under(&ctx).look().unwrap_err().tasks;
            tasks.iter().any(|task| task.waiting_on.as_deref() == Some(seen))
        })
        .await;
    }
}

#[tokio::test]
async fn a_task_of_sleeps_that_are_over_lets_others_run() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let past = clock::now() - MS;
    let greedy = ctx.spawn("greedy", async move {
        loop {
            timer.sleep_until(past).await;
        }
    });
    // On one thread this ends only if the other gives way.
    ctx.spawn("other", async {}).join().await.unwrap();
    drop(greedy);
}

#[test]
fn memory_is_that_of_the_sleeps_under_way() {
    let ctx = Ctx::root("t");
    let timer = Timer::fine(&ctx).unwrap();
    let round = || {
        let mut sleeps: Vec<_> = (0..10_000).map(|_| timer.sleep(HOUR)).collect();
        for sleep in &mut sleeps {
            assert!(poll(sleep, Waker::noop()).is_pending());
        }
        assert_eq!(timer.sleeping(), 10_000);
    };
    (0..5).for_each(|_| round());
    let before = rss_kib();
    // Two million sleeps given up: kept, they would be a hundred megabytes.
    (0..200).for_each(|_| round());
    let grown = rss_kib().saturating_sub(before);
    println!("memory {before} KiB, {grown} KiB more after two million sleeps");
    assert_eq!(timer.sleeping(), 0);
    assert!(grown < 32 * 1024, "grown by {grown} KiB");
}
