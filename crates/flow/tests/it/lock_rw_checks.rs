//! Reader-writer locks: what the checks of debug builds and the deadlock detector tell of them.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::deadlock;
use forebay_flow::lock::{Mutex, RwLock, sync};
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::{Ctx, clock, thread};
use tokio::time::sleep;

use crate::lock_rig::{names, unchecked};
use crate::rig::until;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_for_many_readers_is_stuck_with_any_one_of_them() {
    let (ctx, _unchecked) = unchecked("readers");
    let locks = Arc::new((RwLock::new("table", ()), Mutex::new("file", ())));
    let reader = |name: &'static str, then_file: bool| {
        let locks = Arc::clone(&locks);
        ctx.spawn(name, async move {
            let _table = locks.0.read().await;
            sleep(10 * MS).await;
            match then_file {
                true => drop(locks.1.lock().await),
                false => sleep(1000 * MS).await,
            }
        })
    };
    let _readers = [reader("idle", false), reader("stuck", true), reader("idle", false)];
    let writes = Arc::clone(&locks);
    let writer = ctx.spawn("writer", async move {
        let _file = writes.1.lock().await;
        sleep(5 * MS).await;
        drop(writes.0.write().await);
    });
    sleep(8 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty(), "all three go on");
    sleep(10 * MS).await;
    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!((names(cycle), cycle.behind), (vec!["stuck", "writer"], 0));
    let (stuck, writer_is) = (&cycle.tasks[0], &cycle.tasks[1]);
    assert_eq!((&*stuck.holds[0].what, &*stuck.waits_for), ("read lock `table`", "lock `file`"));
    assert_eq!(
        (&*writer_is.holds[0].what, &*writer_is.waits_for),
        ("lock `file`", "write lock `table`")
    );
    assert_eq!(stuck.holds[0].taken_at.is_some(), cfg!(debug_assertions));
    writer.abort();
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_readers_than_are_found_without_a_lock_are_all_seen() {
    let (ctx, _unchecked) = unchecked("many readers");
    let locks = Arc::new((RwLock::new("table", ()), Mutex::new("file", ())));
    let file = locks.1.lock().await;
    let readers: Vec<_> = (0..40)
        .map(|_| {
            let locks = Arc::clone(&locks);
            ctx.spawn("reader", async move {
                let _table = locks.0.read().await;
                drop(locks.1.lock().await);
            })
        })
        .collect();
    sleep(MS).await;
    let writes = Arc::clone(&locks);
    let writer = ctx.spawn("writer", async move {
        let _file = writes.1.lock().await;
        drop(writes.0.write().await);
    });
    sleep(MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    // All but the last give up: the writer gets the file, and waits for that one alone.
    readers[..39].iter().for_each(|reader| reader.abort());
    let moved = Arc::clone(&locks);
    let _moved = ctx.spawn("moved", async move {
        let _table = moved.0.read().await;
        drop(moved.1.lock().await);
    });
    sleep(MS).await;
    let last = readers.last().unwrap();
    last.abort();
    sleep(MS).await;
    drop(file);
    sleep(MS).await;
    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!(names(cycle), ["writer", "moved"]);
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_a_writer_in_line_is_stuck_with_it() {
    let (ctx, _unchecked) = unchecked("behind");
    let lock = Arc::new(RwLock::new("table", ()));
    let (one, two) = (Arc::clone(&lock), Arc::clone(&lock));
    let _again = ctx.spawn("reads again", async move {
        let _table = one.read().await;
        sleep(10 * MS).await;
        drop(one.read().await);
    });
    sleep(MS).await;
    let writer = ctx.spawn("writer", async move { drop(two.write().await) });
    sleep(100 * MS).await;
    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!(names(cycle), ["reads again", "writer"]);
    let story = cycle.to_string();
    assert!(story.contains(" holds read lock `table`"), "{story}");
    assert!(story.contains(" has waited 91 ms for read lock `table`"), "{story}");
    assert!(
        story.contains("old, spawned at ") && story.contains(" for write lock `table`"),
        "{story}"
    );
    writer.abort();
    until(|| deadlock::find_under(&ctx).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_a_writer_that_will_give_up_is_not_stuck() {
    let (ctx, _unchecked) = unchecked("gives up");
    let lock = Arc::new(RwLock::new("table", ()));
    let (one, two) = (Arc::clone(&lock), Arc::clone(&lock));
    let again = ctx.spawn("reads again", async move {
        let _table = one.read().await;
        sleep(10 * MS).await;
        drop(one.read().await);
    });
    sleep(MS).await;
    let writer = ctx.spawn("writer", async move {
        two.write_within(clock::now() + 500 * MS).await.map(drop).unwrap_err();
    });
    sleep(100 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    again.join().await.unwrap();
    writer.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_who_reads_and_asks_to_write_waits_for_itself() {
    let (ctx, _unchecked) = unchecked("upgrade");
    let lock = Arc::new(RwLock::new("own", ()));
    let _task = ctx.spawn("upgrades", async move {
        let _guard = lock.read().await;
        drop(lock.write().await);
    });
    sleep(MS).await;
    let found = deadlock::find_under(&ctx);
    assert_eq!((found.len(), names(&found[0])), (1, vec!["upgrades"]));
    assert!(found[0].to_string().starts_with("one task waits for itself\n"));
}

#[tokio::test(start_paused = true)]
async fn readers_of_two_locks_are_no_cycle_without_a_writer() {
    let (ctx, _unchecked) = unchecked("no writer");
    let locks = Arc::new((RwLock::new("east", ()), RwLock::new("west", ())));
    let (one, two) = (Arc::clone(&locks), Arc::clone(&locks));
    let left = ctx.spawn("left", async move {
        let _first = one.0.read().await;
        sleep(10 * MS).await;
        drop(one.1.read().await);
    });
    let right = ctx.spawn("right", async move {
        let _first = two.1.read().await;
        sleep(10 * MS).await;
        drop(two.0.read().await);
    });
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    left.join().await.unwrap();
    right.join().await.unwrap();
}

#[tokio::test]
async fn threads_in_blocking_reader_writer_locks_are_reported() {
    let (ctx, _unchecked) = unchecked("blocking");
    let state = Arc::new(sync::RwLock::new("state", ()));
    let (tx, rx) = queue::bounded("work", Bound::items(1), Full::Block);
    let closes = tx.clone();
    let reads = Arc::clone(&state);
    let producer = thread::spawn(&ctx, "producer", move |_| {
        let _state = reads.read();
        while tx.submit_blocking(()).is_ok() {}
    })
    .unwrap();
    until(|| waits(&ctx, "producer")).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    let writes = Arc::clone(&state);
    let consumer = thread::spawn(&ctx, "consumer", move |_| {
        while rx.recv_blocking().is_some() {
            drop(writes.write());
        }
    })
    .unwrap();
    // The look that found it: one let into the queue a moment ago goes on once more.
    let seen = std::cell::RefCell::new(Vec::new());
    until(|| {
        *seen.borrow_mut() = deadlock::find_under(&ctx);
        !seen.borrow().is_empty()
    })
    .await;
    let found = seen.into_inner();
    assert_eq!(names(&found[0]), ["producer", "consumer"]);
    assert_eq!(found[0].tasks[0].holds[0].what, "read lock `state`");
    assert_eq!(found[0].tasks[1].waits_for, "write lock `state`");
    closes.close();
    producer.join().await.unwrap();
    consumer.join().await.unwrap();
}

fn waits(ctx: &Ctx, name: &str) -> bool {
    let shown = forebay_flow::tasks::snapshot();
    shown.iter().any(|t| t.parent == ctx.path() && t.name == name && t.waiting_on.is_some())
}

/// What only debug builds check.
#[cfg(debug_assertions)]
mod checked {
    use forebay_flow::TaskError;
    use forebay_flow::lock::{Access, Checks, LockError, Report};

    use super::*;
    use crate::lock_rig::{checked, run};

    struct Locks {
        a: RwLock<()>,
        b: RwLock<()>,
        c: sync::RwLock<()>,
        d: sync::RwLock<()>,
        gate: RwLock<()>,
    }

    fn locks() -> Arc<Locks> {
        Arc::new(Locks {
            a: RwLock::new("a", ()),
            b: RwLock::new("b", ()),
            c: sync::RwLock::new("c", ()),
            d: sync::RwLock::new("d", ()),
            gate: RwLock::new("gate", ()),
        })
    }

    #[tokio::test]
    async fn b62_two_reads_in_opposite_orders_are_an_inversion_for_a_writer_may_come() {
        let ctx = Ctx::root("reads");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        run(&ctx, "task", async move {
            drop((locks.a.read().await, locks.b.read().await));
            drop((locks.b.read().await, locks.a.read().await));
        })
        .await;
        let reports = told.take();
        let [Report::Inversion { orders }] = &reports[..] else { panic!("{reports:?}") };
        let seen: Vec<_> =
            orders.iter().map(|order| (order.first.lock, order.then.access)).collect();
        assert_eq!(seen, [("b", Access::Read), ("a", Access::Read)]);
        let text = reports[0].to_string();
        assert!(
            text.contains("took `b` to read at ") && text.contains("then `a` to read at "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn b62_reads_and_writes_of_threads_and_tasks_stand_in_one_order() {
        let ctx = Ctx::root("both");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        let threads = Arc::clone(&locks);
        thread::spawn(&ctx, "thread", move |_| drop((threads.c.read(), threads.d.write())))
            .unwrap()
            .join()
            .await
            .unwrap();
        assert!(told.take().is_empty());
        run(&ctx, "task", async move { drop((locks.d.read(), locks.c.write())) }).await;
        let reports = told.take();
        assert!(matches!(&reports[..], [Report::Inversion { orders }] if orders.len() == 2));
    }

    #[tokio::test]
    async fn b63_one_who_reads_again_is_told_though_no_writer_came() {
        let ctx = Ctx::root("reread");
        let (_checked, told) = checked(&ctx, Checks::new());
        let locks = locks();
        let threads = Arc::clone(&locks);
        let line = line!();
        run(&ctx, "task", async move {
            let outer = locks.a.read().await;
            let inner = locks.a.read().await;
            drop((outer, inner));
            drop(locks.a.read().await);
        })
        .await;
        let reports = told.take();
        let [Report::Reread { lock, held_at, who, .. }] = &reports[..] else {
            panic!("{reports:?}")
        };
        assert_eq!((lock.lock, held_at.line(), lock.taken_at.line()), ("a", line + 2, line + 3));
        assert!(who.starts_with("reread/task (spawned at "), "{who}");
        assert!(reports[0].to_string().contains("which it reads already: taken at "));
        let twice = move |_| drop((threads.c.read(), threads.c.read()));
        thread::spawn(&ctx, "thread", twice).unwrap().join().await.unwrap();
        assert!(matches!(&told.take()[..], [Report::Reread { .. }]));
    }

    #[tokio::test]
    async fn b63_a_thread_that_keeps_itself_out_is_refused_at_once() {
        let ctx = Ctx::root("again");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let twice: [fn(&Locks); 3] = [
            |locks| drop((locks.c.read(), locks.c.write())),
            |locks| drop((locks.c.write(), locks.c.read())),
            |locks| drop((locks.c.write(), locks.c.write())),
        ];
        for twice in twice {
            let locks = Arc::clone(&one);
            let thread = thread::spawn(&ctx, "twice", move |_| twice(&locks));
            let error = thread.unwrap().join().await.unwrap_err();
            let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
            let message = panic.message();
            assert!(message.contains("which it holds itself: taken at "), "{message}");
            assert!(matches!(&told.take()[..], [Report::Relock { .. }]));
        }
        let locks = Arc::clone(&one);
        let thread = thread::spawn(&ctx, "twice", move |_| {
            let guard = locks.c.read();
            assert_eq!(locks.c.write_for(60_000 * MS).map(drop), Err(LockError::Relocked));
            drop(guard);
            let _guard = locks.c.write();
            assert_eq!(locks.c.read_for(60_000 * MS).map(drop), Err(LockError::Relocked));
        });
        thread.unwrap().join().await.unwrap();
        drop(one.c.try_write().unwrap());
    }

    #[tokio::test]
    async fn b63_a_thread_that_reads_again_behind_a_writer_is_refused_at_once() {
        let ctx = Ctx::root("between");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let (reads, writes) = (Arc::clone(&one), Arc::clone(&one));
        let (go, goes) = std::sync::mpsc::sync_channel::<()>(1);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let reader = thread::spawn(&ctx, "reader", move |_| {
            let _guard = reads.c.read();
            ready.send(()).unwrap();
            goes.recv().unwrap();
            assert_eq!(reads.c.read_for(60_000 * MS).map(drop), Err(LockError::Relocked));
            drop(reads.c.read());
        })
        .unwrap();
        is_ready.await.unwrap();
        let writer = thread::spawn(&ctx, "writer", move |_| drop(writes.c.write())).unwrap();
        // From when on it keeps readers out.
        until(|| waits(&ctx, "writer") && one.c.try_read().is_none()).await;
        go.send(()).unwrap();
        let error = reader.join().await.unwrap_err();
        let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
        let message = panic.message();
        assert!(message.contains("asks for `c` to read at "), "{message}");
        writer.join().await.unwrap();
        let relocks = told.take().into_iter().filter(|told| matches!(told, Report::Relock { .. }));
        assert_eq!(relocks.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn b63_a_task_that_keeps_itself_out_is_told_once_the_wait_is_long() {
        let ctx = Ctx::root("again");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(20 * MS)));
        let one = locks();
        let lock = Arc::clone(&one);
        let stuck = ctx.spawn("upgrades", async move {
            let _guard = lock.a.read().await;
            drop(lock.a.write().await);
        });
        sleep(100 * MS).await;
        let reports = told.take();
        let [Report::Relock { lock, .. }] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((lock.lock, lock.access), ("a", Access::Write));
        stuck.abort();
        stuck.join().await.unwrap_err();
        assert!(one.a.try_write().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn b64_a_long_wait_to_write_tells_the_place_of_every_reader() {
        let ctx = Ctx::root("long");
        let (_checked, told) = checked(&ctx, Checks::new().long_wait(Some(100 * MS)));
        let locks = locks();
        let line = line!();
        let readers: Vec<_> = (0..3)
            .map(|n| {
                let locks = Arc::clone(&locks);
                ctx.spawn(format!("reader{n}"), async move {
                    sleep(n * MS).await;
                    let _guard = locks.a.read().await;
                    sleep(500 * MS).await;
                })
            })
            .collect();
        sleep(50 * MS).await;
        drop(locks.a.write().await);
        for reader in readers {
            reader.join().await.unwrap();
        }
        let reports = told.take();
        assert!(reports.is_empty(), "the writer is not below the context: {reports:?}");

        let readers: Vec<_> = (0..3)
            .map(|n| {
                let locks = Arc::clone(&locks);
                ctx.spawn(format!("reader{n}"), async move {
                    sleep(n * MS).await;
                    let _guard = locks.a.read().await;
                    sleep(500 * MS).await;
                })
            })
            .collect();
        sleep(50 * MS).await;
        let writes = Arc::clone(&locks);
        run(&ctx, "writer", async move { drop(writes.a.write().await) }).await;
        for reader in readers {
            reader.join().await.unwrap();
        }
        let reports = told.take();
        let [Report::LongWait { lock, who, holder, held_at, held, others, .. }] = &reports[..]
        else {
            panic!("{reports:?}")
        };
        assert_eq!((lock.lock, *held, others.len()), ("a", 150 * MS, 2));
        assert!(
            who.starts_with("long/writer") && holder.starts_with("long/reader0"),
            "{reports:?}"
        );
        assert!(
            others[0].who.starts_with("long/reader1") && others[1].who.starts_with("long/reader2")
        );
        assert!(held_at.line() > line + 15 && others[1].taken_at == Some(*held_at));
        let text = reports[0].to_string();
        assert!(
            text.contains("; and long/reader2 (spawned at ") && text.contains(", reading for "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn b65_no_alarm_for_readers_that_a_writing_gate_keeps_apart() {
        let ctx = Ctx::root("gate");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let locks = Arc::clone(&one);
        run(&ctx, "kept apart", async move {
            let gate = locks.gate.write().await;
            drop((locks.a.read().await, locks.b.write().await));
            drop(gate);
            let gate = locks.gate.read().await;
            drop((locks.b.read().await, locks.a.write().await));
            drop(gate);
        })
        .await;
        assert!(told.take().is_empty());
        run(&ctx, "not apart", async move {
            // Two may hold such a gate at once.
            let gate = one.gate.read().await;
            drop((one.a.read().await, one.b.write().await));
            drop(gate);
        })
        .await;
        assert!(matches!(&told.take()[..], [Report::Inversion { .. }]));
    }

    #[tokio::test]
    async fn b65_no_alarm_for_two_tasks_that_read_and_for_reads_in_turn() {
        let ctx = Ctx::root("reads");
        let (_checked, told) = checked(&ctx, Checks::new());
        let one = locks();
        let locks = Arc::clone(&one);
        let outer = ctx.spawn("outer", async move {
            let _guard = locks.a.read().await;
            std::future::pending::<()>().await;
        });
        until(|| one.a.try_write().is_none()).await;
        let locks = Arc::clone(&one);
        run(&ctx, "inner", async move {
            drop(locks.a.read().await);
            drop(locks.a.read().await);
            drop(locks.a.try_read());
        })
        .await;
        assert!(told.take().is_empty());
        outer.abort();
    }
}
