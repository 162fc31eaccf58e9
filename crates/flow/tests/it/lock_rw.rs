//! Reader-writer locks: who is let in, when, and what is left by those who give up or panic.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_flow::lock::{self, Access, LockError, RwLock, sync};
use forebay_flow::{Ctx, clock, tasks, thread};
use proptest::prelude::*;
use tokio::time::sleep;

use crate::rig::{until, until_on_thread};

const MS: Duration = Duration::from_millis(1);

fn poll_once<F: Future>(fut: Pin<&mut F>) -> Poll<F::Output> {
    fut.poll(&mut Context::from_waker(Waker::noop()))
}

/// Two halves that a writer never leaves different.
#[derive(Default)]
struct Pair(u64, u64);

impl Pair {
    fn add_one(&mut self) {
        self.0 += 1;
        std::hint::black_box(&mut *self);
        self.1 += 1;
    }

    fn is_whole(&self) -> bool {
        let one = std::hint::black_box(self).0;
        one == std::hint::black_box(self).1
    }
}

#[tokio::test]
async fn readers_never_see_half_a_write_and_no_write_is_lost() {
    const TASKS: usize = 8;
    const TURNS: usize = 1_500;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let locks = Arc::new((
        RwLock::new("async", Pair::default()),
        sync::RwLock::new("sync", Pair::default()),
    ));
    let writes = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let (own, counted) = (Arc::clone(&locks), Arc::clone(&writes));
    let work = async move {
        let ctx = Ctx::root("pairs");
        let task = |n: usize| {
            let (locks, writes) = (Arc::clone(&own), Arc::clone(&counted));
            let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(n as u64));
            ctx.spawn("task", async move {
                for _ in 0..TURNS {
                    match rng.u8(..8) {
                        0 => {
                            locks.0.write().await.add_one();
                            writes.0.fetch_add(1, Ordering::Relaxed);
                        }
                        1 => {
                            let mut guard = locks.0.write().await;
                            guard.0 += 1;
                            tokio::task::yield_now().await;
                            guard.1 += 1;
                            writes.0.fetch_add(1, Ordering::Relaxed);
                        }
                        2 => {
                            let guard = locks.0.read().await;
                            tokio::task::yield_now().await;
                            assert!(guard.is_whole());
                        }
                        3 => {
                            // Given up somewhere on its way.
                            let mut wait = Box::pin(locks.0.write());
                            drop(poll_once(wait.as_mut()));
                        }
                        4 => {
                            let mut wait = Box::pin(locks.0.read());
                            if let Poll::Ready(guard) = poll_once(wait.as_mut()) {
                                assert!(guard.is_whole());
                            }
                        }
                        5 => {
                            locks.1.write().add_one();
                            writes.1.fetch_add(1, Ordering::Relaxed);
                        }
                        6 => assert!(locks.1.read().is_whole()),
                        _ => assert!(locks.0.read().await.is_whole()),
                    }
                }
            })
        };
        let tasks: Vec<_> = (0..TASKS).map(task).collect();
        for task in tasks {
            task.join().await.unwrap();
        }
    };
    tokio::task::spawn_blocking(move || runtime.block_on(work)).await.unwrap();
    let locks = Arc::into_inner(locks).unwrap();
    let (one, two) = (locks.0.into_inner().unwrap(), locks.1.into_inner());
    let count = |writes: &AtomicUsize| writes.load(Ordering::Relaxed) as u64;
    assert_eq!((one.0, one.1), (count(&writes.0), count(&writes.0)));
    assert_eq!((two.0, two.1), (count(&writes.1), count(&writes.1)));
}

#[tokio::test(start_paused = true)]
async fn many_read_at_once_and_a_writer_waits_for_the_last() {
    let ctx = Ctx::root("many");
    let lock = Arc::new(RwLock::new("many", 0));
    let reading = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (1..=50)
        .map(|n| {
            let (lock, reading) = (Arc::clone(&lock), Arc::clone(&reading));
            ctx.spawn("reader", async move {
                let guard = lock.read().await;
                reading.fetch_add(1, Ordering::Relaxed);
                sleep(n * MS).await;
                assert_eq!(*guard, 0);
                reading.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let began = clock::now();
    assert_eq!(reading.load(Ordering::Relaxed), 50);
    assert!(lock.try_write().is_none());
    *lock.write().await += 1;
    assert_eq!((clock::now() - began, reading.load(Ordering::Relaxed)), (50 * MS, 0));
    for reader in readers {
        reader.join().await.unwrap();
    }
    assert_eq!(*lock.try_read().unwrap(), 1);
}

#[tokio::test]
async fn threads_read_at_once() {
    let ctx = Ctx::root("threads");
    let lock = Arc::new(sync::RwLock::new("threads", ()));
    let all = Arc::new(std::sync::Barrier::new(12));
    let threads: Vec<_> = (0..12)
        .map(|_| {
            let (lock, all) = (Arc::clone(&lock), Arc::clone(&all));
            // None comes on before all of them read.
            let read = move |_| {
                let _guard = lock.read();
                all.wait();
            };
            thread::spawn(&ctx, "reader", read).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join().await.unwrap();
    }
    drop(lock.try_write().unwrap());
}

#[tokio::test(start_paused = true)]
async fn readers_and_writers_are_served_in_the_order_they_came() {
    let ctx = Ctx::root("order");
    let lock = Arc::new(RwLock::new("line", ()));
    let log = Arc::new(parking_lot::Mutex::new(String::new()));
    let held = lock.write().await;
    let waiters: Vec<_> = "rrwrwwrr"
        .chars()
        .map(|kind| {
            let (lock, log) = (Arc::clone(&lock), Arc::clone(&log));
            ctx.spawn("waiter", async move {
                if kind == 'r' {
                    let _guard = lock.read().await;
                    log.lock().push('(');
                    sleep(MS).await;
                    log.lock().push(')');
                } else {
                    let _guard = lock.write().await;
                    log.lock().push('[');
                    sleep(MS).await;
                    log.lock().push(']');
                }
            })
        })
        .collect();
    sleep(MS).await;
    drop(held);
    assert!(lock.try_read().is_none(), "it was let in, and the third waits to write");
    for waiter in waiters {
        waiter.join().await.unwrap();
    }
    assert_eq!(*log.lock(), "(())[]()[][](())");
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_not_starved_by_readers_without_end() {
    let ctx = Ctx::root("starved");
    let lock = Arc::new(RwLock::new("busy", ()));
    let written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|n| {
            let (lock, written) = (Arc::clone(&lock), Arc::clone(&written));
            ctx.spawn("reader", async move {
                // Each holds its guard when another comes: the lock is never free by itself.
                sleep(n * 4 * MS).await;
                while !written.load(Ordering::Relaxed) {
                    let _guard = lock.read().await;
                    sleep(10 * MS).await;
                }
            })
        })
        .collect();
    sleep(101 * MS).await;
    let began = clock::now();
    drop(lock.write().await);
    assert!(clock::now() - began <= 10 * MS, "no longer than the longest of those before it");
    written.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().await.unwrap();
    }
}

#[tokio::test]
async fn a_blocking_writer_is_not_starved_by_readers_without_end() {
    let ctx = Ctx::root("starved");
    let lock = Arc::new(sync::RwLock::new("busy", false));
    let reads = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (lock, reads) = (Arc::clone(&lock), Arc::clone(&reads));
            let read = move |_| {
                loop {
                    let guard = lock.read();
                    let seen = reads.fetch_add(1, Ordering::Relaxed);
                    // Until another has come, or the writer keeps it out.
                    for _ in 0..1_000 {
                        if *guard || reads.load(Ordering::Relaxed) != seen + 1 {
                            break;
                        }
                        std::thread::yield_now();
                    }
                    if *guard {
                        break;
                    }
                }
            };
            thread::spawn(&ctx, "reader", read).unwrap()
        })
        .collect();
    until(|| reads.load(Ordering::Relaxed) > 100).await;
    let writes = Arc::clone(&lock);
    let writer = thread::spawn(&ctx, "writer", move |_| *writes.write() = true).unwrap();
    writer.join().await.unwrap();
    for reader in readers {
        reader.join().await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    let lock = RwLock::new("cancelled", 7);
    let held = lock.try_read().unwrap();
    let mut writer = Box::pin(lock.write());
    let (mut one, mut two) = (Box::pin(lock.read()), Box::pin(lock.read()));
    assert!(poll_once(writer.as_mut()).is_pending());
    assert!(poll_once(one.as_mut()).is_pending(), "behind the writer");
    assert!(poll_once(two.as_mut()).is_pending());
    drop(writer);
    let (one, two) = (poll_once(one.as_mut()), poll_once(two.as_mut()));
    assert!(one.is_ready() && two.is_ready(), "beside the one that reads");
    drop((held, one, two));
    assert_eq!(*lock.try_write().unwrap(), 7);
}

#[tokio::test]
async fn a_turn_that_was_not_seen_goes_to_the_next() {
    let lock = RwLock::new("cancelled", 7);
    let held = lock.try_write().unwrap();
    let mut readers: Vec<_> = (0..2).map(|_| Box::pin(lock.read())).collect();
    let (mut first, mut second) = (Box::pin(lock.write()), Box::pin(lock.write()));
    let mut last = Box::pin(lock.read());
    readers.iter_mut().for_each(|reader| assert!(poll_once(reader.as_mut()).is_pending()));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    assert!(poll_once(last.as_mut()).is_pending());
    drop(held); // both readers are let in
    let Poll::Ready(guard) = poll_once(readers[0].as_mut()) else { panic!("it may read") };
    drop(readers.remove(1)); // let in, and never looked
    assert!(poll_once(first.as_mut()).is_pending());
    drop(guard); // the first writer's turn
    drop(first);
    drop(second); // its turn had come from the first
    assert!(poll_once(last.as_mut()).is_ready());
    assert!(lock.try_write().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_panic_under_the_lock_lets_it_go_and_does_not_poison_it() {
    let ctx = Ctx::root("panic");
    let locks = Arc::new((RwLock::new("async", 1), sync::RwLock::new("sync", 2)));
    for write in [false, true] {
        let inner = Arc::clone(&locks);
        let task = ctx.spawn("panics", async move {
            let _read = (!write).then_some((inner.0.try_read(), inner.1.read()));
            let _written = write.then_some((inner.0.try_write(), inner.1.write()));
            panic!("under the lock");
        });
        task.join().await.unwrap_err();
        assert_eq!((*locks.0.write().await, *locks.1.write()), (1, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_with_a_deadline_ends_at_it() {
    let lock = RwLock::new("deadline", ());
    let held = lock.write().await;
    let deadline = clock::now() + 50 * MS;
    let both = tokio::join!(lock.read_within(deadline), lock.write_within(deadline));
    assert_eq!(both.0.map(drop), Err(LockError::TimedOut));
    assert_eq!(both.1.map(drop), Err(LockError::TimedOut));
    assert_eq!(clock::now(), deadline);
    drop(held);
    lock.read_within(deadline).await.map(drop).unwrap();
    lock.write_within(deadline).await.map(drop).unwrap();

    let lock = sync::RwLock::new("deadline", ());
    std::thread::scope(|scope| {
        let held = lock.read();
        let writes = scope.spawn(|| lock.write_for(MS).map(drop));
        assert_eq!(writes.join().unwrap(), Err(LockError::TimedOut));
        scope.spawn(|| lock.read_for(MS).map(drop)).join().unwrap().unwrap();
        drop(held);
        let held = lock.write_for(MS).unwrap();
        let reads = scope.spawn(|| lock.read_for(MS).map(drop));
        assert_eq!(reads.join().unwrap(), Err(LockError::TimedOut));
        assert!(scope.spawn(|| lock.try_read().is_none()).join().unwrap());
        drop(held);
        lock.read_for(MS).map(drop).unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_task_that_keeps_itself_out_has_an_error_at_its_deadline() {
    let ctx = Ctx::root("relocked");
    let _unchecked = lock::Checks::off().report_to(&ctx, |_| ());
    let own = Arc::new(RwLock::new("own", ()));
    let task = ctx.spawn("again", async move {
        let soon = || clock::now() + 10 * MS;
        let guard = own.read().await;
        assert_eq!(own.write_within(soon()).await.map(drop), Err(LockError::Relocked));
        drop(guard);
        let guard = own.write().await;
        assert_eq!(own.read_within(soon()).await.map(drop), Err(LockError::Relocked));
        drop(guard);
        let elsewhere = own.read().await;
        drop(own.read_within(soon()).await.unwrap());
        drop(elsewhere);
        drop(own.write_within(soon()).await.unwrap());
    });
    task.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_registry_tells_readers_and_who_waits_for_them() {
    let ctx = Ctx::root("registry");
    let lock = Arc::new(RwLock::new("rw read", ()));
    let info = || lock::snapshot().into_iter().find(|info| info.name == "rw read").unwrap();
    let reader = |held| {
        let lock = Arc::clone(&lock);
        ctx.spawn("reader", async move {
            let _guard = lock.read().await;
            sleep(held).await;
        })
    };
    let readers = [reader(300 * MS), reader(200 * MS)];
    sleep(MS).await;
    let (reads, writes) = (Arc::clone(&lock), Arc::clone(&lock));
    let writer = ctx.spawn("writer", async move {
        let _guard = writes.write().await;
        sleep(100 * MS).await;
    });
    sleep(MS).await;
    let late = ctx.spawn("late", async move { drop(reads.read().await) });
    sleep(MS).await;
    let now = info();
    assert_eq!((now.locks, now.waiters, now.contended, now.kind), (1, 2, 2, lock::Kind::RwLock));
    let mut ids: Vec<_> = now.holders.iter().map(|holder| holder.task).collect();
    ids.sort_unstable();
    assert_eq!(ids, readers.each_ref().map(forebay_flow::Task::id));
    for holder in &now.holders {
        assert!(holder.who.starts_with("registry/reader (spawned at "), "{now:?}");
        assert_eq!(holder.access, Access::Read);
        assert_eq!(holder.taken_at.is_some(), cfg!(debug_assertions));
    }
    let waits = |id| {
        let shown = tasks::snapshot().into_iter().find(|task| task.id == id).unwrap();
        shown.waiting_on.unwrap()
    };
    assert_eq!(
        (&*waits(writer.id()), &*waits(late.id())),
        ("write lock `rw read`", "read lock `rw read`")
    );
    sleep(320 * MS).await;
    let now = info();
    assert_eq!((now.waiters, now.holders.len()), (1, 1));
    assert_eq!((now.holders[0].task, now.holders[0].access), (writer.id(), Access::Write));
    late.join().await.unwrap();
    let after = info();
    assert_eq!((after.waiters, after.holders.len()), (0, 0));
    assert_eq!((after.wait, after.longest_wait), ((299 + 398) * MS, 398 * MS));
}

#[tokio::test]
async fn a_thread_that_waits_shows_for_what_and_whom() {
    let ctx = Ctx::root("thread");
    let lock = Arc::new(sync::RwLock::new("rw shown", ()));
    let (inner, guard) = (Arc::clone(&lock), lock.read());
    let thread = thread::spawn(&ctx, "blocked", move |_| drop(inner.write())).unwrap();
    until_on_thread(|| {
        tasks::snapshot().iter().any(|task| {
            task.parent == "thread" && task.waiting_on.as_deref() == Some("write lock `rw shown`")
        })
    });
    let info = lock::snapshot().into_iter().find(|info| info.name == "rw shown").unwrap();
    assert_eq!((info.waiters, info.holders.len()), (1, 1));
    assert_eq!(info.holders[0].access, Access::Read);
    drop(guard);
    thread.join().await.unwrap();
}

/// What the lock should do, told simply: everyone in the order they came.
#[derive(Default)]
struct Reference {
    /// Who came, and whether to write.
    line: Vec<(usize, bool)>,
    /// Who was let in: holds, or has not looked.
    inside: Vec<(usize, bool)>,
}

impl Reference {
    fn let_in(&mut self) {
        while let Some((id, writes)) = self.line.first().copied() {
            let free = self.inside.is_empty() || !writes && self.inside.iter().all(|(_, w)| !w);
            if !free {
                break;
            }
            self.inside.push((id, writes));
            self.line.remove(0);
        }
    }

    fn comes(&mut self, id: usize, writes: bool) {
        self.line.push((id, writes));
        self.let_in();
    }

    fn goes(&mut self, id: usize) {
        self.line.retain(|(other, _)| *other != id);
        self.inside.retain(|(other, _)| *other != id);
        self.let_in();
    }

    fn is_inside(&self, id: usize) -> bool {
        self.inside.iter().any(|(other, _)| *other == id)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Comes {
        writes: bool,
    },
    /// One of those who came looks whether it is his turn.
    Looks(prop::sample::Index),
    Goes(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<bool>().prop_map(|writes| Step::Comes { writes }),
        3 => any::<prop::sample::Index>().prop_map(Step::Looks),
        2 => any::<prop::sample::Index>().prop_map(Step::Goes),
    ]
}

enum Waits<'a> {
    Read(Pin<Box<lock::ReadLock<'a, u32>>>),
    Write(Pin<Box<lock::WriteLock<'a, u32>>>),
    Reads(#[expect(dead_code, reason = "held")] lock::ReadGuard<'a, u32>),
    Writes(#[expect(dead_code, reason = "held")] lock::WriteGuard<'a, u32>),
}

impl Waits<'_> {
    fn look(&mut self) -> bool {
        match self {
            Waits::Read(wait) => match poll_once(wait.as_mut()) {
                Poll::Ready(guard) => *self = Waits::Reads(guard),
                Poll::Pending => return false,
            },
            Waits::Write(wait) => match poll_once(wait.as_mut()) {
                Poll::Ready(guard) => *self = Waits::Writes(guard),
                Poll::Pending => return false,
            },
            Waits::Reads(_) | Waits::Writes(_) => (),
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whoever_comes_looks_and_goes_is_let_in_as_the_reference_says(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let lock = RwLock::new("steps", 0);
        let mut reference = Reference::default();
        let mut all: Vec<(usize, Waits<'_>)> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Comes { writes } => {
                    let mut wait = match writes {
                        true => Waits::Write(Box::pin(lock.write())),
                        false => Waits::Read(Box::pin(lock.read())),
                    };
                    reference.comes(id, writes);
                    prop_assert_eq!(wait.look(), reference.is_inside(id));
                    all.push((id, wait));
                }
                Step::Looks(at) if !all.is_empty() => {
                    let at = at.index(all.len());
                    let (id, wait) = &mut all[at];
                    prop_assert_eq!(wait.look(), reference.is_inside(*id));
                }
                Step::Goes(at) if !all.is_empty() => {
                    let (id, wait) = all.swap_remove(at.index(all.len()));
                    drop(wait);
                    reference.goes(id);
                }
                Step::Looks(_) | Step::Goes(_) => (),
            }
        }
        drop(all);
        prop_assert_eq!(lock.into_inner(), Some(0));
    }
}
