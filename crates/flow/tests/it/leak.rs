//! Leak detection.

use std::time::Duration;

use forebay_flow::leak::{self, Checker};
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::tasks::Kind;
use forebay_flow::{Cause, Ctx, thread};
use tokio::sync::oneshot;

#[tokio::test]
async fn b48_the_check_retries_before_it_fails() {
    let ctx = Ctx::root("t");
    let ends_soon = ctx.spawn("ends-soon", tokio::time::sleep(Duration::from_millis(60)));
    assert!(Checker::under(&ctx).look().is_err());
    leak::check(&ctx).await.unwrap();
    assert!(ends_soon.is_finished());
}

#[tokio::test]
async fn b49_a_baseline_ignores_by_task_and_a_new_twin_is_still_reported() {
    let ctx = Ctx::root("t");
    let spawn = || ctx.spawn("twin", std::future::pending::<()>());
    let (old, mine) = (spawn(), |task: &forebay_flow::tasks::TaskInfo| task.parent != "t");
    let checker = Checker::new().ignore(mine);
    checker.look().unwrap();
    let new = spawn();
    let leaks = checker.look().unwrap_err();
    assert_eq!(leaks.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [new.id()]);
    drop((old, new));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b50_the_report_shows_name_owner_kind_and_place_and_can_be_filtered_by_them() {
    let ctx = Ctx::root("t");
    let (stop, stopped) = oneshot::channel::<()>();
    let task = ctx.child("part").spawn("stuck", std::future::pending::<()>());
    let thread = thread::spawn(&ctx, "writer", move |_ctx| stopped.blocking_recv()).unwrap();
    let leaks = Checker::under(&ctx).look().unwrap_err();
    let said = leaks.to_string();
    assert!(
        said.contains("t/part/stuck (spawned at ") && said.contains("tests/it/leak.rs:"),
        "{said}"
    );
    assert!(said.contains("t/writer"), "{said}");
    let only_tasks =
        Checker::under(&ctx).ignore(|task| task.kind == Kind::Thread).look().unwrap_err();
    assert_eq!(only_tasks.tasks.len(), 1);
    Checker::under(&ctx).ignore(|task| task.location.file().ends_with("leak.rs")).look().unwrap();
    drop(task);
    stop.send(()).unwrap();
    thread.join().await.unwrap().unwrap();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn b51_parallel_tests_do_not_see_each_others_tasks() {
    let (mine, other) = (Ctx::root("mine"), Ctx::root("other"));
    let task = other.spawn("theirs", std::future::pending::<()>());
    Checker::under(&mine).look().unwrap();
    assert!(Checker::under(&other).look().is_err());
    drop(task);
    leak::check(&other).await.unwrap();
}

#[tokio::test]
async fn a_leak_that_waits_on_a_queue_nobody_fills_says_so() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded::<u8>("never", Bound::items(1), Full::Block);
    let task = ctx.spawn("reader", async move { rx.recv().await });
    tokio::task::yield_now().await;
    let leaks = Checker::under(&ctx).look().unwrap_err();
    assert_eq!(leaks.tasks[0].waiting_on.as_deref(), Some("queue `never`"));
    ctx.cancel(Cause::Shutdown);
    drop((tx, task));
    leak::check(&ctx).await.unwrap();
}

/// What a run of this binary with one test in it leaves of orphans.
fn orphans_of(test: &str) -> Vec<String> {
    let dir = std::env::temp_dir().join(format!("flow-orphans-{}-{test}", std::process::id()));
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("FOREBAY_FLOW_ORPHANS", &dir)
        .env("FOREBAY_FLOW_TEST_CHILD", "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let files = std::fs::read_dir(&dir).into_iter().flatten();
    let notes = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    std::fs::remove_dir_all(&dir).ok();
    notes
}

/// Runs in a child process of the next test; by itself it does nothing.
#[tokio::test]
async fn leaves_an_orphan_where_it_is_asked_to() {
    if std::env::var_os("FOREBAY_FLOW_TEST_CHILD").is_none() {
        return;
    }
    let ctx = Ctx::root("suite");
    drop(ctx.spawn("let go", std::future::pending::<()>()));
    let owner = ctx.child("owner");
    let scope = forebay_flow::Scope::new(&owner, "scope");
    scope.spawn("owned", std::future::pending::<()>());
    let asked = ctx.child("asked");
    std::mem::forget(asked.spawn("asked", std::future::pending::<()>()));
    asked.cancel(forebay_flow::Cause::Shutdown);
    std::mem::forget(ctx.spawn("orphan", std::future::pending::<()>()));
    tokio::task::yield_now().await;
}

#[test]
fn a_task_that_only_its_runtimes_end_stops_is_noted_and_no_other() {
    let notes = orphans_of("leak::leaves_an_orphan_where_it_is_asked_to");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("suite/orphan (spawned at crates/flow/tests/it/leak.rs:"),
        "{notes:?}"
    );
}
