//! Tasks and threads that wait for each other: found, told, and not seen where there are none.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::admit::Slots;
use forebay_flow::deadlock;
use forebay_flow::lock::{Mutex, sync};
use forebay_flow::queue::{self, Bound, Full, Receiver};
use forebay_flow::{Cause, Ctx, Task, clock, thread};
use tokio::time::sleep;

use crate::lock_rig::{names, unchecked};
use crate::rig::until;

const MS: Duration = Duration::from_millis(1);

type Pair = Arc<(Mutex<()>, Mutex<()>)>;

fn pair() -> Pair {
    Arc::new((Mutex::new("east", ()), Mutex::new("west", ())))
}

/// Two tasks that take two locks in different orders, and meet.
fn embrace(ctx: &Ctx, locks: &Pair) -> [Task<()>; 2] {
    let (left, right) = (Arc::clone(locks), Arc::clone(locks));
    [
        ctx.spawn("left", async move {
            let _first = left.0.lock().await;
            sleep(10 * MS).await;
            drop(left.1.lock().await);
        }),
        ctx.spawn("right", async move {
            let _first = right.1.lock().await;
            sleep(10 * MS).await;
            drop(right.0.lock().await);
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn two_tasks_with_two_locks_are_reported_both() {
    let (ctx, _unchecked) = unchecked("two");
    let locks = pair();
    let line = line!();
    let tasks = embrace(&ctx, &locks);
    sleep(5 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    sleep(15 * MS).await;
    let behind = Arc::clone(&locks);
    let _behind = ctx.spawn("behind", async move { drop(behind.0.lock().await) });
    sleep(3000 * MS).await;

    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!((names(cycle), cycle.behind), (vec!["left", "right"], 1));
    for (at, task) in cycle.tasks.iter().enumerate() {
        assert_eq!(task.id, tasks[at].id());
        assert!(task.location.file().ends_with("deadlock.rs") && task.location.line() < line);
        assert_eq!((task.age, task.waited), (3020 * MS, 3010 * MS));
        let (holds, waits_for) = [("east", "west"), ("west", "east")][at];
        assert_eq!(task.holds.len(), 1);
        assert_eq!(task.holds[0].what, format!("lock `{holds}`"));
        assert_eq!(task.holds[0].taken_at.is_some(), cfg!(debug_assertions));
        assert_eq!(task.waits_for, format!("lock `{waits_for}`"));
    }
    let story = cycle.to_string();
    assert!(
        story.starts_with("2 tasks wait for each other, and 1 more behind them\n  two/left (task "),
        "{story}"
    );
    assert!(story.contains(" 3 s old, spawned at ") && story.contains("deadlock.rs:"), "{story}");
    assert!(story.contains("and has waited 3 s for lock `west`\n  two/right (task "), "{story}");

    tasks[0].abort();
    until(|| deadlock::find_under(&ctx).is_empty()).await;
    let [_, right] = tasks;
    right.join().await.unwrap();
}

#[tokio::test]
async fn a_thread_and_a_task_in_a_blocking_lock_are_reported() {
    let (ctx, _unchecked) = unchecked("blocking");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let state = Arc::new(sync::Mutex::new("state", ()));
    let (tx, rx) = queue::bounded("work", Bound::items(1), Full::Block);
    let closes = tx.clone();
    let thread = thread::spawn(&ctx, "producer", {
        let state = Arc::clone(&state);
        move |_| {
            let _state = state.lock();
            // The second is left in the queue, and the third finds no room.
            while tx.submit_blocking(()).is_ok() {}
        }
    })
    .unwrap();
    let task = {
        let _inside = runtime.enter();
        ctx.spawn("consumer", async move {
            while rx.recv().await.is_some() {
                drop(state.lock());
            }
        })
    };
    // The look that found it: one let into the queue a moment ago goes on once more.
    let seen = std::cell::RefCell::new(Vec::new());
    until(|| {
        *seen.borrow_mut() = deadlock::find_under(&ctx);
        !seen.borrow().is_empty()
    })
    .await;
    let found = seen.into_inner();
    assert_eq!(names(&found[0]), ["producer", "consumer"]);
    let story = found[0].to_string();
    assert!(story.contains("\n  blocking/producer (thread "), "{story}");
    assert!(story.contains(" holds lock `state`"), "{story}");
    assert!(story.contains(" for room in queue `work`"), "{story}");
    assert!(story.contains(" holds the receiving end of queue `work` and has waited "), "{story}");
    closes.close();
    thread.join().await.unwrap();
    task.join().await.unwrap();
    runtime.shutdown_background();
}

/// Two tasks that each take one item and then hand on more than the other takes.
fn pipes(ctx: &Ctx) -> ([Task<()>; 2], [Receiver<u32>; 2]) {
    let (ask, asked) = queue::bounded("asks", Bound::items(1), Full::Block);
    let (answer, answered) = queue::bounded("answers", Bound::items(1), Full::Block);
    ask.try_submit(0).unwrap();
    answer.try_submit(0).unwrap();
    let spare = [asked.clone(), answered.clone()];
    let pipe = |from: Receiver<u32>, to: queue::Sender<u32>| async move {
        from.recv().await.unwrap();
        for n in 0..5 {
            to.submit(n).await.unwrap();
        }
        while from.recv().await.is_some() {}
    };
    ([ctx.spawn("asks", pipe(answered, ask)), ctx.spawn("answers", pipe(asked, answer))], spare)
}

#[tokio::test(start_paused = true)]
async fn tasks_that_fill_each_others_queues_are_reported() {
    let (ctx, _unchecked) = unchecked("queues");
    let (tasks, spare) = pipes(&ctx);
    drop(spare);
    sleep(10 * MS).await;
    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!((names(cycle), cycle.behind), (vec!["asks", "answers"], 0));
    assert_eq!(cycle.tasks[0].waits_for, "room in queue `asks`");
    assert_eq!(cycle.tasks[0].holds[0].what, "the receiving end of queue `answers`");
    drop(tasks);
}

#[tokio::test(start_paused = true)]
async fn full_queues_are_no_cycle_while_somebody_else_receives() {
    let (ctx, _unchecked) = unchecked("drained");
    let (tasks, [asked, _]) = pipes(&ctx);
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty(), "nobody knows who has the spare receivers");
    let helps = ctx.spawn("helps", async move {
        asked.recv().await.unwrap();
        sleep(1000 * MS).await;
        while asked.recv().await.is_some() {}
    });
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty(), "the helper goes on");
    sleep(2000 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    drop(tasks);
    helps.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_itself_is_reported() {
    let (ctx, _unchecked) = unchecked("self");
    let lock = Arc::new(Mutex::new("own", ()));
    let _task = ctx.spawn("twice", async move {
        let _guard = lock.lock().await;
        drop(lock.lock().await);
    });
    sleep(MS).await;
    let found = deadlock::find_under(&ctx);
    assert_eq!((found.len(), names(&found[0])), (1, vec!["twice"]));
    assert!(found[0].to_string().starts_with("one task waits for itself\n"));
}

#[tokio::test(start_paused = true)]
async fn tasks_that_each_keep_a_slot_and_want_another_are_reported() {
    let (ctx, _unchecked) = unchecked("slots");
    let slots = Slots::new("renders", 3);
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (own, slots) = (ctx.clone(), slots.clone());
            ctx.spawn("render", async move {
                let twice = async {
                    sleep(MS).await;
                    slots.acquire(&own, 1).await.map(drop)
                };
                slots.with(&own, 1, twice).await.unwrap().unwrap();
            })
        })
        .collect();
    sleep(10 * MS).await;
    let found = deadlock::find_under(&ctx);
    let [cycle] = &found[..] else { panic!("{found:?}") };
    assert_eq!((cycle.tasks.len(), cycle.behind), (3, 0));
    assert_eq!(cycle.tasks[0].holds[0].what, "budget `renders`");
    assert_eq!(cycle.tasks[0].waits_for, "budget `renders`");
    // One slot that comes back frees them all, one after the other.
    tasks[1].abort();
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    assert_eq!((slots.used(), slots.waiters()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn slots_are_no_cycle_while_one_holder_can_go_on_or_is_unknown() {
    let (ctx, _unchecked) = unchecked("free slots");
    let slots = Slots::new("renders", 3);
    let known = slots.try_acquire(1).unwrap();
    let unknown = slots.try_acquire(1).unwrap();
    let holder = {
        let (own, slots) = (ctx.clone(), slots.clone());
        let (known, rest) = (known, slots.try_acquire(1).unwrap());
        ctx.spawn("wants more", async move {
            let _kept = (known.kept(), rest.kept());
            slots.acquire(&own, 1).await.map(drop).unwrap();
        })
    };
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty(), "nobody said to keep the second");
    let sleeper = ctx.spawn("sleeps", async move {
        let _kept = unknown.kept();
        sleep(1000 * MS).await;
    });
    sleep(10 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty(), "the sleeper goes on");
    sleeper.join().await.unwrap();
    holder.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn kept_permits_are_counted_through_cuts_and_joins() {
    let (ctx, _unchecked) = unchecked("cuts");
    let slots = Slots::new("cuts", 10);
    let (own, inner) = (ctx.clone(), slots.clone());
    let task = ctx.spawn("cuts", async move {
        let mut kept = inner.try_acquire(8).unwrap().kept();
        let cut = kept.split(3);
        kept.merge(inner.try_acquire(2).unwrap());
        kept.shrink_to(4);
        drop(cut); // 4 are kept, none else is out
        kept.merge(inner.try_acquire(6).unwrap());
        drop(inner.acquire(&own, 1).await);
    });
    sleep(MS).await;
    assert_eq!(deadlock::find_under(&ctx).len(), 1);
    task.abort();
    task.join().await.unwrap_err();
    assert_eq!(slots.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chain_without_a_cycle_is_silent() {
    let (ctx, _unchecked) = unchecked("chain");
    let locks: Arc<Vec<_>> = Arc::new((0..10).map(|_| Mutex::new("link", ())).collect());
    let tasks: Vec<_> = (0..10_usize)
        .map(|n| {
            let locks = Arc::clone(&locks);
            ctx.spawn("link", async move {
                let _own = locks[n].lock().await;
                sleep(MS).await;
                match locks.get(n + 1) {
                    Some(next) => drop(next.lock().await),
                    None => sleep(1000 * MS).await, // and then all of them go
                }
            })
        })
        .collect();
    sleep(500 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    for task in tasks {
        task.join().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_with_a_deadline_of_its_own_is_no_deadlock() {
    let (ctx, _unchecked) = unchecked("deadline");
    let locks = pair();
    let (left, right) = (Arc::clone(&locks), Arc::clone(&locks));
    let _left = ctx.spawn("left", async move {
        let _first = left.0.lock().await;
        sleep(10 * MS).await;
        drop(left.1.lock_within(clock::now() + 1000 * MS).await);
    });
    let right = ctx.spawn("right", async move {
        let _first = right.1.lock().await;
        sleep(10 * MS).await;
        drop(right.0.lock().await);
    });
    sleep(500 * MS).await;
    assert!(deadlock::find_under(&ctx).is_empty());
    right.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_tests_side_by_side_do_not_see_each_other() {
    let ((here, _a), (there, _b)) = (unchecked("here"), unchecked("there"));
    let (mine, theirs) = (pair(), pair());
    let _mine = embrace(&here, &mine);
    sleep(100 * MS).await;
    assert_eq!(deadlock::find_under(&there).len(), 0);
    let _theirs = embrace(&there, &theirs);
    sleep(100 * MS).await;
    for ctx in [&here, &there] {
        let found = deadlock::find_under(ctx);
        assert_eq!(found.len(), 1);
        assert!(found[0].tasks.iter().all(|task| task.parent == ctx.path()));
    }
    assert!(deadlock::find().len() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_reports_a_cycle_once_when_it_was_there_at_two_looks() {
    let (ctx, _unchecked) = unchecked("watched");
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let watch = deadlock::watch(&ctx, 1000 * MS, move |cycle| sink.lock().push(cycle.clone()));
    let told = || told.lock().len();

    let locks = pair();
    let tasks = embrace(&ctx, &locks);
    sleep(1500 * MS).await;
    assert_eq!(told(), 0, "one look is not enough");
    until(|| told() == 1).await;
    sleep(10_000 * MS).await;
    assert_eq!(told(), 1, "each once");
    drop(tasks);
    let _again = embrace(&ctx, &pair());
    until(|| told() == 2).await;
    ctx.cancel(Cause::Shutdown);
    watch.join().await.unwrap();
}
