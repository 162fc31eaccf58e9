//! The shapes in which tasks and what they hold are usually leaked. Each is named, with its place.

use std::panic::Location;
use std::time::Duration;

use forebay_flow::budget::{Budget, Permit};
use forebay_flow::leak::{self, Checker, Leaks};
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::snapshot::{Config, Periodic};
use forebay_flow::{Cause, Ctx, Task, clock, dump};

const MIN: Duration = Duration::from_secs(60);

/// The one leaked task, as the report names it.
fn only(leaks: &Leaks, name: &str, line: u32) -> String {
    let [task] = &leaks.tasks[..] else { panic!("one task: {leaks}") };
    let said = leaks.to_string();
    assert!(said.contains(&format!("/{name} (spawned at ")), "{said}");
    assert!(said.contains(&format!("it/leak_shapes.rs:{line}:")), "{said}");
    task.waiting_on.clone().unwrap_or_default()
}

#[tokio::test]
async fn b90_blocked_on_a_queue_nobody_reads() {
    let ctx = Ctx::root("t");
    let (tx, unread) = queue::bounded::<u8>("unread", Bound::items(1), Full::Block);
    let line = line!() + 1;
    let task = ctx.spawn("uploader", async move { while tx.submit(1).await.is_ok() {} });
    let leaks = leak::check(&ctx).await.unwrap_err();
    assert_eq!(only(&leaks, "uploader", line), "room in queue `unread`");
    assert_eq!(leaks.stacks.len(), 1, "and where it stands: {leaks}");
    drop(unread); // what it waited for: the last reader goes, so it ends
    task.join().await.unwrap();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b90_waiting_on_a_context_nobody_cancels() {
    let ctx = Ctx::root("t");
    let request = ctx.child("request 7");
    let own = request.clone();
    let line = line!() + 1;
    let task = ctx.spawn("cleanup", async move { own.cancelled().await });
    let leaks = leak::check(&ctx).await.unwrap_err();
    assert_eq!(only(&leaks, "cleanup", line), "context `t/request 7`");
    request.cancel(Cause::Terminated);
    assert_eq!(task.join().await, Ok(Cause::Terminated));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn what_is_raced_with_the_context_is_what_a_task_waits_for() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded::<u8>("raced", Bound::items(1), Full::Block);
    let own = ctx.clone();
    let _run = ctx.spawn("runs", async move { own.run(rx.recv()).await.is_ok() });
    let own = ctx.clone();
    let _sleeps =
        ctx.spawn("sleeps", async move { own.run(tokio::time::sleep(MIN)).await.is_ok() });
    tokio::task::yield_now().await;
    let leaks = Checker::under(&ctx).look().unwrap_err();
    let waits: Vec<_> = leaks.tasks.iter().map(|task| task.waiting_on.as_deref()).collect();
    assert_eq!(waits, [Some("queue `raced`"), None]);
    drop(tx);
}

#[tokio::test]
async fn b90_holding_a_finished_requests_data() {
    let ctx = Ctx::root("t");
    let share = Budget::new("memory", 1000).share("bodies", 1000).unwrap();
    let (to_cache, cache) = queue::bounded::<Permit>("cache", Bound::items(8), Full::Block);
    let held = share.clone();
    let request = ctx.spawn("request", async move {
        let body = held.acquire(300).await.unwrap();
        to_cache.submit(body).await.unwrap();
    });
    request.join().await.unwrap();
    // The request has ended and nobody runs, but its body is still paid for.
    let leaks = Checker::under(&ctx).share(&share).check().await.unwrap_err();
    assert!(leaks.tasks.is_empty() && leaks.to_string().ends_with("300 bytes of memory/bodies"));
    // Held by a task, that is named too.
    let line = line!() + 1;
    let keeper = ctx.spawn("keeps", async move {
        let _kept = cache.recv().await;
        std::future::pending::<()>().await;
    });
    let leaks = Checker::under(&ctx).share(&share).check().await.unwrap_err();
    assert_eq!(only(&leaks, "keeps", line), "");
    assert_eq!(leaks.shares[0].used, 300);
    drop(keeper);
    Checker::under(&ctx).share(&share).check().await.unwrap();
}

const TIMER_LINE: u32 = line!() + 2;
fn arm_a_timer(ctx: &Ctx) -> Task<()> {
    ctx.spawn("timeout", tokio::time::sleep_until(clock::now() + 1000 * MIN))
}

#[tokio::test(start_paused = true)]
async fn b90_a_timer_per_loop() {
    let ctx = Ctx::root("t");
    let own = ctx.clone();
    let _looping = ctx.spawn("looping", async move {
        let mut armed = Vec::new();
        loop {
            armed.push(arm_a_timer(&own)); // and none is ever disarmed
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    tokio::task::yield_now().await; // the first snapshot sees the first of them
    let periodic = Periodic::new(Config { places: 100, stacks: 0, ..Config::default() });
    let mut reader = periodic.reader();
    let _snapshots = ctx.spawn("snapshots", periodic.run(ctx.clone()));
    let mut named_at = None;
    while named_at.is_none() {
        let snapshot = reader.changed().await;
        assert!(snapshot.number <= 3, "not in time: {snapshot:?}");
        let mine = |place: &Location<'_>| place.file().ends_with("it/leak_shapes.rs");
        let growing = snapshot.growing.iter().map(|growing| growing.key).find(|place| mine(place));
        named_at = growing.map(|place| (snapshot.number, place.line()));
    }
    // None, 49 and 109 of them had settled by then.
    assert_eq!(named_at, Some((3, TIMER_LINE)));
    let line = dump::take().groups.into_iter().find(|group| group.name == "timeout").unwrap();
    assert!(line.count > 100 && line.to_string().contains(" × timeout [idle, oldest "), "{line}");
}
