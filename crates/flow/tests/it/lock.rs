//! Locks: who holds them, in what order they are taken, and what is told of it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_flow::lock::{self, LockError, Mutex, sync};
use forebay_flow::{Ctx, clock, tasks, thread};
use tokio::time::sleep;

use crate::rig::until;

const MS: Duration = Duration::from_millis(1);

fn poll_once<F: Future>(fut: Pin<&mut F>) -> Poll<F::Output> {
    fut.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn takers_exclude_each_other_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let both = Arc::new((Mutex::new("async", 0_u64), sync::Mutex::new("sync", 0_u64)));
    let work = {
        let both = Arc::clone(&both);
        async move {
            let ctx = Ctx::root("takers");
            let takers: Vec<_> = (0..8)
                .map(|_| {
                    let both = Arc::clone(&both);
                    ctx.spawn("taker", async move {
                        for _ in 0..500 {
                            let mut guard = both.0.lock().await;
                            let seen = *guard;
                            tokio::task::yield_now().await;
                            *guard = seen + 1;
                            *both.1.lock() += 1;
                        }
                    })
                })
                .collect();
            for taker in takers {
                taker.join().await.unwrap();
            }
        }
    };
    tokio::task::spawn_blocking(move || runtime.block_on(work)).await.unwrap();
    assert_eq!((*both.0.lock().await, *both.1.lock()), (4000, 4000));
    let info = format!("{:?}", both.0);
    assert!(info.contains("held: false"), "{info}");
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_they_came() {
    let ctx = Ctx::root("order");
    let lock = Arc::new(Mutex::new("line", Vec::new()));
    let held = lock.lock().await;
    let waiters: Vec<_> = (0..5)
        .map(|n| {
            let lock = Arc::clone(&lock);
            ctx.spawn("waiter", async move { lock.lock().await.push(n) })
        })
        .collect();
    sleep(MS).await;
    drop(held);
    for waiter in waiters {
        waiter.join().await.unwrap();
    }
    assert_eq!(Arc::into_inner(lock).unwrap().into_inner(), Some(vec![0, 1, 2, 3, 4]));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_passes_one_who_waits_but_not_for_long() {
    let lock = Mutex::new("passed", ());
    let held = lock.lock().await;
    let mut first = pin!(lock.lock());
    let mut second = pin!(lock.lock());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(held);
    // The lock is free, though the first was woken.
    let passes = lock.try_lock().unwrap();
    assert!(poll_once(first.as_mut()).is_pending());
    drop(passes);
    // The first has not waited for long.
    let passes = lock.try_lock().unwrap();
    tokio::time::advance(MS).await;
    assert!(poll_once(first.as_mut()).is_pending());
    drop(passes);
    assert!(lock.try_lock().is_none(), "it is kept for the first");
    let Poll::Ready(guard) = poll_once(first.as_mut()) else { panic!("it was its turn") };
    assert!(poll_once(second.as_mut()).is_pending());
    drop(guard);
    assert!(lock.try_lock().is_none(), "the second found itself passed, after as long");
    assert!(poll_once(second.as_mut()).is_ready());
}

#[tokio::test]
async fn one_that_is_woken_and_not_polled_is_passed_some_times_only() {
    let lock = Mutex::new("passed", ());
    let held = lock.lock().await;
    let mut first = Box::pin(lock.lock());
    let mut second = Box::pin(lock.lock());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(held);
    let passed = (0..100).take_while(|_| lock.try_lock().is_some()).count();
    assert_eq!(passed, 33, "the last of them leaves it kept");
    drop(first); // and goes to the second, woken now
    let passed = (0..100).take_while(|_| lock.try_lock().is_some()).count();
    assert_eq!(passed, 33);
    assert!(poll_once(second.as_mut()).is_ready());
    assert!(lock.try_lock().is_some());
}

/// The one that passes and the one that is passed may share a thread: then only the first can end it.
#[tokio::test(flavor = "current_thread")]
async fn a_task_that_never_pends_by_itself_lets_the_next_have_its_turn() {
    let ctx = Ctx::root("busy");
    let lock = Arc::new(Mutex::new("busy", 0));
    let held = lock.lock().await;
    let (waits, takes) = (Arc::clone(&lock), Arc::clone(&lock));
    let waiter = ctx.spawn("waiter", async move { *waits.lock().await });
    tokio::task::yield_now().await;
    let busy = ctx.spawn("busy", async move {
        for _ in 0..10_000 {
            *takes.lock().await += 1;
        }
    });
    drop(held);
    let turns_before = waiter.join().await.unwrap();
    assert!(turns_before < 100, "{turns_before}");
    busy.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_takes_the_lock_again_and_again_starves_nobody() {
    let ctx = Ctx::root("greedy");
    let lock = Arc::new(Mutex::new("greedy", 0));
    let takes = Arc::clone(&lock);
    let greedy = ctx.spawn("greedy", async move {
        loop {
            *takes.lock().await += 1;
            let _held = takes.lock().await;
            sleep(10 * MS).await; // and takes it again at once
        }
    });
    sleep(MS).await;
    let began = clock::now();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let lock = Arc::clone(&lock);
            ctx.spawn("waiter", async move { drop(lock.lock().await) })
        })
        .collect();
    for waiter in waiters {
        waiter.join().await.unwrap();
    }
    let waited = clock::now() - began;
    assert!(waited <= 60 * MS, "each was passed once at most: {waited:?}");
    greedy.abort();
}

#[tokio::test]
async fn a_cancelled_wait_leaks_nothing_and_hands_its_turn_on() {
    let lock = Mutex::new("cancelled", 7);
    let held = lock.try_lock().unwrap();
    let (mut first, mut second) = (Box::pin(lock.lock()), Box::pin(lock.lock()));
    let mut third = Box::pin(lock.lock());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    assert!(poll_once(third.as_mut()).is_pending());
    drop(second); // in line
    drop(held);
    drop(first); // its turn had come
    let Poll::Ready(third) = poll_once(third.as_mut()) else { panic!("it was the third's turn") };
    drop(third);
    assert_eq!(*lock.try_lock().unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_panic_under_the_lock_lets_it_go() {
    let ctx = Ctx::root("panic");
    let lock = Arc::new((Mutex::new("async", 1), sync::Mutex::new("sync", 2)));
    let inner = Arc::clone(&lock);
    let task = ctx.spawn("panics", async move {
        let _guards = (inner.0.lock().await, inner.1.lock());
        panic!("under the lock");
    });
    task.join().await.unwrap_err();
    assert_eq!((*lock.0.lock().await, *lock.1.lock()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_with_a_deadline_ends_at_it() {
    let lock = Mutex::new("deadline", ());
    let held = lock.lock().await;
    let deadline = clock::now() + 50 * MS;
    assert_eq!(lock.lock_within(deadline).await.map(drop), Err(LockError::TimedOut));
    assert_eq!(clock::now(), deadline);
    drop(held);
    lock.lock_within(deadline).await.map(drop).unwrap();

    let lock = sync::Mutex::new("deadline", ());
    std::thread::scope(|scope| {
        let held = lock.lock();
        let other = scope.spawn(|| lock.lock_for(MS).map(drop));
        assert_eq!(other.join().unwrap(), Err(LockError::TimedOut));
        drop(held);
        lock.lock_for(MS).map(drop).unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn the_registry_tells_waits_and_holders_by_place() {
    let ctx = Ctx::root("registry");
    let locks: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new("counted", ()))).collect();
    let line = line!() - 1;
    let info = || {
        let here = |info: &lock::LockInfo| info.name == "counted" && info.made_at.line() == line;
        lock::snapshot().into_iter().find(here).unwrap()
    };
    assert_eq!((info().locks, info().contended, info().holders.len()), (3, 0, 0));

    let holds = Arc::clone(&locks[0]);
    let holder = ctx.spawn("holder", async move {
        let _guard = holds.lock().await;
        sleep(300 * MS).await;
    });
    sleep(MS).await;
    for wait in [100, 1000] {
        let lock = Arc::clone(&locks[0]);
        drop(ctx.spawn("waiter", async move {
            let deadline = clock::now() + wait * MS;
            drop(lock.lock_within(deadline).await);
        }));
    }
    let waits = Arc::clone(&locks[0]);
    let waiter = ctx.spawn("waiter", async move { drop(waits.lock().await) });
    sleep(99 * MS).await;
    let now = info();
    assert_eq!((now.waiters, now.contended, now.wait), (1, 1, Duration::ZERO));
    assert_eq!(now.holders[0].task, holder.id());
    assert!(now.holders[0].who.starts_with("registry/holder (spawned at "), "{now:?}");
    assert_eq!(now.holders[0].since.is_some(), cfg!(debug_assertions));
    let shown = tasks::snapshot().into_iter().find(|task| task.id == waiter.id()).unwrap();
    assert_eq!(shown.waiting_on.as_deref(), Some("lock `counted`"));
    waiter.join().await.unwrap();
    let after = info();
    assert_eq!((after.waiters, after.wait, after.longest_wait), (0, 299 * MS, 299 * MS));
    assert!(after.holders.is_empty());
    drop(locks);
    assert_eq!(info().locks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_wait_for_the_same_lock_starts_anew() {
    let ctx = Ctx::root("anew");
    let lock = Arc::new(Mutex::new("again", ()));
    let (one, two) = (Arc::clone(&lock), Arc::clone(&lock));
    let first = lock.lock().await;
    let waiter = ctx.spawn("waiter", async move {
        drop(one.lock().await);
        sleep(10 * MS).await;
        drop(one.lock().await);
    });
    sleep(50 * MS).await;
    drop(first);
    sleep(5 * MS).await;
    let second = two.lock().await;
    sleep(50 * MS).await;
    let shown = tasks::snapshot().into_iter().find(|task| task.id == waiter.id()).unwrap();
    let waited = clock::now() - shown.waiting_since.unwrap();
    assert!(waited < 50 * MS, "{waited:?}");
    drop(second);
    waiter.join().await.unwrap();
}

#[tokio::test]
async fn a_thread_that_waits_shows_for_what() {
    let ctx = Ctx::root("thread");
    let lock = Arc::new(sync::Mutex::new("shown", ()));
    let (inner, guard) = (Arc::clone(&lock), lock.lock());
    let thread = thread::spawn(&ctx, "blocked", move |_| drop(inner.lock())).unwrap();
    let shows = || {
        tasks::snapshot().iter().any(|task| {
            task.parent == "thread" && task.waiting_on.as_deref() == Some("lock `shown`")
        })
    };
    for _ in 0..60_000 {
        if shows() {
            break;
        }
        std::thread::sleep(MS);
    }
    assert!(shows());
    drop(guard);
    thread.join().await.unwrap();
}

/// What only debug builds check.
#[cfg(debug_assertions)]
mod checked {
    use forebay_flow::TaskError;
    use forebay_flow::lock::{Checks, Report};

    use super::*;
    use crate::lock_rig::{checked, run};

    /// Two locks of each kind, made at a place for each.
    struct Locks {
        a: Mutex<()>,
        b: Mutex<()>,
        c: sync::Mutex<()>,
        d: sync::Mutex<()>,
    }

    fn locks() -> Arc<Locks> {
        Arc::new(Locks {
            a: Mutex::new("a", ()),
            b: Mutex::new("b", ()),
            c: sync::Mutex::new("c", ()),
            d: sync::Mutex::new("d", ()),
        })
    }

    #[tokio::test]
    async fn b62_an_inversion_is_reported_without_a_deadlock_with_both_orders() {
        let ctx = Ctx::root("inversion");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let (left, right) = (Arc::clone(&one), Arc::clone(&one));
        run(&ctx, "left", async move {
            let _first = left.a.lock().await;
            let _then = left.b.lock().await;
        })
        .await;
        assert!(told.is_empty());
        let line = line!();
        run(&ctx, "right", async move {
            let _first = right.b.lock().await;
            let _then = right.a.lock().await;
        })
        .await;
        let reports = told.take();
        let [Report::Inversion { orders }] = &reports[..] else { panic!("{reports:?}") };
        let order = |at: usize| {
            let order = &orders[at];
            (order.first.lock, order.then.lock, order.who.contains(["right", "left"][at]))
        };
        assert_eq!((order(0), order(1)), (("b", "a", true), ("a", "b", true)));
        assert_eq!(orders[0].first.taken_at.line(), line + 2);
        assert_eq!(orders[0].then.taken_at.line(), line + 3);
        assert_ne!(orders[0].first.made_at, orders[0].then.made_at);
        let text = reports[0].to_string();
        assert!(text.contains("took `b` at ") && text.contains("took `a` at "), "{text}");
    }

    #[tokio::test]
    async fn b62_an_inversion_is_reported_once() {
        let ctx = Ctx::root("once");
        let (_checked, told) = checked(&ctx, Checks::new());
        for _ in 0..3 {
            let locks = locks(); // of the same places
            run(&ctx, "both", async move {
                for _ in 0..3 {
                    drop((locks.a.lock().await, locks.b.lock().await));
                    drop((locks.b.lock().await, locks.a.lock().await));
                }
            })
            .await;
        }
        assert_eq!(told.take().len(), 1);
    }

    #[tokio::test]
    async fn b62_a_ring_of_three_locks_of_both_kinds_on_threads_is_reported() {
        let ctx = Ctx::root("ring");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        let takes: [fn(&Locks); 3] = [
            |locks| drop((locks.c.lock(), locks.d.lock())),
            |locks| drop((locks.a.try_lock(), locks.c.lock())),
            |_| (),
        ];
        for take in takes {
            let locks = Arc::clone(&locks);
            thread::spawn(&ctx, "thread", move |_| take(&locks)).unwrap().join().await.unwrap();
        }
        assert!(told.is_empty());
        run(&ctx, "task", async move {
            let under = |locks: &Locks| drop(locks.d.lock());
            under(&locks);
            let guard = locks.a.lock().await;
            under(&locks);
            drop(guard);
            let guard = locks.d.lock();
            let mut wait = pin!(locks.a.lock());
            assert!(poll_once(wait.as_mut()).is_ready());
            drop(guard);
        })
        .await;
        let reports = told.take();
        assert!(matches!(&reports[..], [Report::Inversion { orders }] if orders.len() >= 2));
    }

    #[tokio::test]
    async fn b62_checks_can_be_off() {
        let ctx = Ctx::root("off");
        let (_checked, told) = checked(&ctx, Checks::off());
        let locks = locks();
        run(&ctx, "both", async move {
            drop((locks.a.lock().await, locks.b.lock().await));
            drop((locks.b.lock().await, locks.a.lock().await));
        })
        .await;
        assert!(told.is_empty());
    }

    #[tokio::test]
    async fn b62_tests_side_by_side_do_not_see_each_others_reports() {
        let (here, there) = (Ctx::root("here"), Ctx::root("there"));
        let (_here, told_here) = checked(&here, Checks::new());
        let (_there, told_there) = checked(&there, Checks::new());
        for ctx in [&here, &there, &here.child("below")] {
            let locks = locks();
            run(ctx, "orderly", async move {
                drop((locks.a.lock().await, locks.b.lock().await));
            })
            .await;
        }
        let locks = locks();
        run(&there.child("below"), "both", async move {
            drop((locks.a.lock().await, locks.b.lock().await));
            drop((locks.b.lock().await, locks.a.lock().await));
        })
        .await;
        assert_eq!((told_here.take().len(), told_there.take().len()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn b63_a_task_that_locks_again_is_reported_and_can_have_an_error() {
        let ctx = Ctx::root("again");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(20 * MS)));
        let one = locks();
        let lock = Arc::clone(&one);
        run(&ctx, "bounded", async move {
            let _guard = lock.a.lock().await;
            let again = lock.a.lock_within(clock::now() + 30 * MS).await;
            assert_eq!(again.map(drop), Err(LockError::Relocked));
        })
        .await;
        let reports = told.take();
        let [Report::Relock { lock, held_at, held, who }] = &reports[..] else {
            panic!("{reports:?}")
        };
        assert_eq!((lock.lock, *held), ("a", 20 * MS));
        assert_eq!(lock.taken_at.line(), held_at.line() + 1);
        assert!(who.starts_with("again/bounded (spawned at "), "{who}");
        assert!(reports[0].to_string().contains("which it holds itself"));

        let lock = Arc::clone(&one);
        let stuck = ctx.spawn("unbounded", async move {
            let _guard = lock.b.lock().await;
            drop(lock.b.lock().await);
        });
        sleep(100 * MS).await;
        assert!(matches!(&told.take()[..], [Report::Relock { .. }]));
        stuck.abort();
        stuck.join().await.unwrap_err();
        assert!(one.b.try_lock().is_some());
    }

    #[tokio::test]
    async fn b63_a_thread_that_locks_again_is_refused_at_once() {
        let ctx = Ctx::root("again");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let locks = Arc::clone(&one);
        let thread = thread::spawn(&ctx, "twice", move |_| {
            let guard = locks.c.lock();
            assert_eq!(locks.c.lock_for(60_000 * MS).map(drop), Err(LockError::Relocked));
            drop(guard);
            let _guard = locks.c.lock();
            drop(locks.c.lock());
        });
        let error = thread.unwrap().join().await.unwrap_err();
        let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
        assert!(panic.message().contains("which it holds itself: taken at "), "{panic}");
        assert!(matches!(&told.take()[..], [Report::Relock { .. }, Report::Relock { .. }]));
        drop(one.c.lock());
    }

    #[tokio::test(start_paused = true)]
    async fn b63_two_branches_of_one_task_may_wait_for_each_other() {
        let ctx = Ctx::root("branches");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(20 * MS)));
        let locks = locks();
        run(&ctx, "joins", async move {
            let branch = || async {
                let _guard = locks.a.lock().await;
                sleep(10 * MS).await;
            };
            tokio::join!(branch(), branch());
        })
        .await;
        assert!(told.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn b64_a_long_wait_tells_the_holders_name_place_and_time() {
        let ctx = Ctx::root("long");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(100 * MS)));
        let locks = locks();
        let (holds, waits) = (Arc::clone(&locks), Arc::clone(&locks));
        let line = line!();
        let holder = ctx.spawn("holder", async move {
            let _guard = holds.a.lock().await;
            sleep(500 * MS).await;
        });
        sleep(50 * MS).await;
        let waiter = ctx.spawn("waiter", async move { drop(waits.a.lock().await) });
        sleep(99 * MS).await;
        assert!(told.is_empty());
        waiter.join().await.unwrap();
        holder.join().await.unwrap();
        let reports = told.take();
        let [Report::LongWait { lock, who, waited, holder, held_at, held, others }] = &reports[..]
        else {
            panic!("{reports:?}")
        };
        assert_eq!((lock.lock, *waited, *held), ("a", 100 * MS, 150 * MS));
        assert!(others.is_empty());
        assert_eq!((held_at.line(), lock.taken_at.line()), (line + 2, line + 6));
        assert!(who.starts_with("long/waiter (spawned at "), "{who}");
        assert!(holder.starts_with("long/holder (spawned at "), "{holder}");
    }

    #[tokio::test]
    async fn b64_a_thread_that_waits_long_tells_the_holder_too() {
        let ctx = Ctx::root("long");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(MS)));
        let locks = locks();
        let waits = Arc::clone(&locks);
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let holder = thread::spawn(&ctx, "holder", move |_| {
            let _guard = locks.c.lock();
            ready.send(()).unwrap();
            held.recv().unwrap_err();
        })
        .unwrap();
        is_ready.await.unwrap();
        let waiter = thread::spawn(&ctx, "waiter", move |_| drop(waits.c.lock())).unwrap();
        until(|| !told.is_empty()).await;
        drop(hold);
        waiter.join().await.unwrap();
        holder.join().await.unwrap();
        let reports = told.take();
        let [Report::LongWait { who, holder, .. }] = &reports[..] else { panic!("{reports:?}") };
        assert!(who.contains("long/waiter") && holder.contains("long/holder"), "{reports:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn b65_no_alarm_when_the_holder_just_left() {
        let ctx = Ctx::root("left");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(100 * MS)));
        let locks = locks();
        run(&ctx, "task", async move {
            let guard = locks.a.lock().await;
            let (mut next, mut after) = (pin!(locks.a.lock()), pin!(locks.a.lock()));
            poll_fn(|cx| {
                assert!(next.as_mut().poll(cx).is_pending());
                assert!(after.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            sleep(99 * MS).await;
            drop(guard);
            sleep(2 * MS).await;
            // The limit has passed for both; the lock is the next one's, which has not looked yet.
            poll_fn(|cx| {
                assert!(after.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(next.await);
            drop(after.await);
        })
        .await;
        assert!(told.is_empty(), "{:?}", told.take());
    }

    #[tokio::test]
    async fn b65_no_alarm_when_an_order_goes_through_a_released_lock() {
        let ctx = Ctx::root("released");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        run(&ctx, "task", async move {
            drop((locks.a.lock().await, locks.b.lock().await));
            // b is released before a is asked for.
            drop(locks.b.lock().await);
            drop(locks.a.lock().await);
            // a guard that ends in the middle
            let b = locks.b.lock().await;
            let d = locks.d.try_lock();
            drop(b);
            let mut wait = pin!(locks.a.lock());
            assert!(poll_once(wait.as_mut()).is_ready());
            drop(d);
            // nobody waits in a try
            let b = locks.b.lock().await;
            drop(locks.a.try_lock());
            drop(b);
        })
        .await;
        assert!(told.is_empty(), "{:?}", told.take());
    }

    #[tokio::test]
    async fn b65_no_alarm_for_two_orders_that_a_third_lock_keeps_apart() {
        let ctx = Ctx::root("gate");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        run(&ctx, "task", async move {
            let gate = locks.c.lock();
            let mut wait = pin!(async { drop((locks.a.lock().await, locks.b.lock().await)) });
            assert!(poll_once(wait.as_mut()).is_ready());
            let mut wait = pin!(async { drop((locks.b.lock().await, locks.a.lock().await)) });
            assert!(poll_once(wait.as_mut()).is_ready());
            drop(gate);
        })
        .await;
        assert!(told.is_empty(), "{:?}", told.take());
    }

    #[tokio::test]
    async fn b65_no_alarm_for_locks_of_one_place_that_differ() {
        let ctx = Ctx::root("differ");
        let (_checked, told) = checked(&ctx, Checks::new());
        let accounts: Vec<_> = (0..4).map(|_| sync::Mutex::new("account", ())).collect();
        run(&ctx, "task", async move {
            for pair in accounts.windows(2) {
                drop((pair[0].lock(), pair[1].lock()));
            }
        })
        .await;
        assert!(told.is_empty(), "{:?}", told.take());
    }
}
