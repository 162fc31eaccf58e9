//! Leak detection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use forebay_flow::leak::{self, Checker};
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::tasks::{Kind, TaskInfo};
use forebay_flow::{Cause, Ctx, thread};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

#[tokio::test]
async fn b48_a_task_that_ends_between_two_looks_is_no_leak() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    static END: Mutex<Option<oneshot::Sender<()>>> = Mutex::new(None);
    // Sees every task that a look finds, so it counts the looks at a single one.
    fn ends_at_the_third(_task: &TaskInfo) -> bool {
        if LOOKS.fetch_add(1, Ordering::Relaxed) == 2 {
            END.lock().take().unwrap().send(()).unwrap();
        }
        false
    }
    let ctx = Ctx::root("t");
    let (end, ended) = oneshot::channel();
    *END.lock() = Some(end);
    let task = ctx.spawn("ends-soon", ended);
    Checker::under(&ctx).ignore(ends_at_the_third).check().await.unwrap();
    assert_eq!(LOOKS.load(Ordering::Relaxed), 3, "the fourth look found nobody");
    assert!(task.is_finished());
}

#[tokio::test]
async fn b48_a_task_that_stays_is_looked_at_ten_times_before_it_is_a_leak() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    fn counts(_task: &TaskInfo) -> bool {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        false
    }
    let ctx = Ctx::root("t");
    let task = ctx.spawn("stays", std::future::pending::<()>());
    let leaks = Checker::under(&ctx).ignore(counts).check().await.unwrap_err();
    assert_eq!(LOOKS.load(Ordering::Relaxed), 10);
    assert_eq!(leaks.tasks[0].id, task.id());
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
    assert!(said.contains("  task t/part/stuck") && said.contains("  thread t/writer"), "{said}");
    let only_tasks =
        Checker::under(&ctx).ignore(|task| task.kind == Kind::Thread).look().unwrap_err();
    assert_eq!(only_tasks.tasks.len(), 1);
    Checker::under(&ctx).ignore(|task| task.location.file().ends_with("leak.rs")).look().unwrap();
    drop(task);
    stop.send(()).unwrap();
    thread.join().await.unwrap().unwrap();
    leak::check(&ctx).await.unwrap();
}

async fn forgets_somebody(never: &Notify) {
    never.notified().await;
}

#[tokio::test]
async fn b50_the_report_shows_where_a_leaked_task_stands() {
    let ctx = Ctx::root("t");
    let task = ctx.spawn("stands", async { forgets_somebody(&Notify::new()).await });
    let leaks = leak::check(&ctx).await.unwrap_err();
    let said = leaks.to_string();
    assert_eq!(leaks.stacks.iter().map(|stack| stack.task).collect::<Vec<_>>(), [task.id()]);
    let place = |text: &str| {
        let lines = include_str!("leak.rs").lines();
        let at = lines.enumerate().find(|(_, line)| line.trim_end().ends_with(text)).unwrap().0;
        format!("leak.rs:{}:", at + 1)
    };
    assert!(said.contains("  task t/stands (spawned at "), "{said}");
    assert!(said.contains(&place("never.notified().await;")), "the awaiting line: {said}");
    drop(task);
    leak::check(&ctx).await.unwrap();
}

#[test]
fn b51_two_tests_at_once_each_see_their_own_tasks_alone() {
    let (ctx, together) = (Ctx::root("t"), Arc::new(Barrier::new(2)));
    let test = |name: &'static str, leaks: bool| {
        let together = Arc::clone(&together);
        thread::spawn(&ctx, name, move |_ctx| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let own = Ctx::root(name);
                let forgotten = leaks.then(|| own.spawn("forgotten", std::future::pending::<()>()));
                together.wait();
                let found = leak::check(&own).await;
                together.wait();
                drop(forgotten);
                found.map_err(|leaks| leaks.tasks.iter().map(|task| task.parent.clone()).collect())
            })
        })
        .unwrap()
    };
    let (clean, leaking) = (test("clean-test", false), test("leaking-test", true));
    assert_eq!(clean.join_blocking().unwrap(), Ok::<_, Vec<_>>(()));
    assert_eq!(leaking.join_blocking().unwrap(), Err(vec!["leaking-test".to_owned()]));
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
