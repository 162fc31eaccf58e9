//! The task dump: groups, ages, real stacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::tasks::State;
use forebay_flow::{Ctx, dump, leak, tasks};
use tokio::sync::{Notify, oneshot};

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

/// The groups of this test's own tasks: other tests of the same process have other names.
fn groups(prefix: &str) -> Vec<dump::Group> {
    let mut groups = dump::take().groups;
    groups.retain(|group| group.name.starts_with(prefix));
    groups
}

fn polled(id: u64) -> bool {
    tasks::snapshot()
        .iter()
        .any(|task| task.id == id && task.polls > 0 && task.state == State::Idle)
}

#[tokio::test(start_paused = true)]
async fn tasks_at_three_places_are_three_groups_with_what_they_wait_for() {
    let ctx = Ctx::root("t");
    let (full, full_rx) = queue::bounded::<u8>("dump-full", Bound::items(1), Full::Block);
    let (_quiet, quiet_rx) = queue::bounded::<u8>("dump-quiet", Bound::items(1), Full::Block);
    full.submit(0).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..5000 {
        let full = full.clone();
        all.push(ctx.spawn("crowd-send", async move {
            let _sent = full.submit(1).await;
        }));
    }
    tokio::time::advance(SEC).await;
    for _ in 0..3000 {
        let quiet_rx = quiet_rx.clone();
        all.push(ctx.spawn("crowd-recv", async move {
            let _got = quiet_rx.recv().await;
        }));
    }
    for _ in 0..2000 {
        all.push(ctx.spawn("crowd-sleep", tokio::time::sleep(3600 * SEC)));
    }
    // Every one has been polled once the last one has: the runtime has one queue.
    until(|| {
        groups("crowd").iter().map(|group| group.count).collect::<Vec<_>>() == [5000, 3000, 2000]
    })
    .await;
    tokio::time::advance(5 * SEC).await;
    let mut groups = dump::gather().await.groups;
    groups.retain(|group| group.name.starts_with("crowd"));
    let waits: Vec<_> = groups.iter().map(|group| group.waiting_on.as_deref()).collect();
    assert_eq!(waits, [Some("room in queue `dump-full`"), Some("queue `dump-quiet`"), None]);
    assert!(groups.iter().all(|group| group.state == State::Idle));
    assert!(groups[0].oldest >= groups[1].oldest + SEC && groups[1].oldest >= 5 * SEC);
    assert!(groups[0].longest_wait >= Some(5 * SEC) && groups[2].longest_wait.is_none());
    drop((all, full_rx));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn a_dump_lets_the_others_run_while_it_gathers() {
    let ctx = Ctx::root("t");
    let idle: Vec<_> =
        (0..10_000).map(|_| ctx.spawn("bystander", std::future::pending::<()>())).collect();
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    let other = ctx.spawn("other", async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    until(|| turns.load(Ordering::Relaxed) > 0).await;
    let before = turns.load(Ordering::Relaxed);
    let dump = dump::gather().await;
    let turns = turns.load(Ordering::Relaxed) - before;
    assert!(turns >= dump.tasks / 256, "{turns} turns while {} were looked at", dump.tasks);
    drop((idle, other));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn names_made_at_run_time_do_not_make_groups_without_end() {
    let ctx = Ctx::root("t");
    let spawn = |at| ctx.spawn(format!("named-{at}"), std::future::pending::<()>());
    let tasks: Vec<_> = (0..5000).map(spawn).collect();
    let here = |group: &&dump::Group| group.location.file().ends_with("it/dump.rs");
    let dump = dump::take();
    let ours = dump.groups.iter().filter(here).filter(|group| group.name.starts_with("named-"));
    let named = ours.map(|group| group.count).sum::<usize>();
    let various = dump.groups.iter().filter(here).find(|group| group.name == dump::VARIOUS);
    assert!(named <= dump::MAX_NAMED_GROUPS && named + various.unwrap().count >= 5000);
    assert!(dump.to_string().contains("× (various) [idle"));
    drop(tasks);
    leak::check(&ctx).await.unwrap();
}

async fn inner(never: &Notify) {
    never.notified().await; // the awaiting line
}

async fn outer(never: &Notify) {
    inner(never).await;
}

fn line_of(text: &str) -> String {
    let at = include_str!("dump.rs")
        .lines()
        .position(|line| line.contains(text) && !line.contains('"'))
        .unwrap();
    format!("dump.rs:{}:", at + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_of_an_idle_task_names_the_awaiting_line_and_who_called_it() {
    let ctx = Ctx::root("t");
    let task = ctx.spawn("stands-at", async { outer(&Notify::new()).await });
    until(|| polled(task.id())).await;
    let said = loop {
        // Other tests may have many groups: this one's turn among them is what is waited for.
        let mut dump = dump::gather().await;
        dump.add_stacks(1).await;
        let found = dump.groups.into_iter().find(|group| group.name == "stands-at").unwrap();
        if !found.stacks.is_empty() {
            break found;
        }
    };
    let [leaf] = &said.stacks[0].leaves[..] else { panic!("one leaf: {said}") };
    let places: Vec<_> = leaf.iter().map(|frame| frame.place.as_deref().unwrap()).collect();
    assert!(places[0].contains(&line_of(".await; // the awaiting line")), "{said}");
    assert!(places[1].contains(&line_of("inner(never).await;")), "{said}");
    assert_eq!(places.len(), 3, "nothing of the runtime is left: {said}");
    assert!(said.to_string().contains("1 × stands-at [idle"), "{said}");
    drop(task);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn being_asked_for_its_stack_neither_loses_a_wake_nor_changes_what_the_task_does() {
    let ctx = Ctx::root("t");
    let (go, gone) = oneshot::channel();
    let task = ctx.spawn("asked", async move {
        tokio::select! {
            _never = std::future::pending::<()>() => unreachable!(),
            got = gone => got,
        }
    });
    until(|| polled(task.id())).await;
    for _ in 0..3 {
        let mut dump = dump::gather().await;
        dump.add_stacks(1).await;
    }
    go.send(7).unwrap();
    assert_eq!(task.join().await, Ok(Ok(7)));
}

#[tokio::test]
async fn a_task_that_keeps_no_waker_has_a_stack_without_leaves() {
    let ctx = Ctx::root("t");
    let task = ctx.spawn("wakeless", std::future::pending::<()>());
    until(|| polled(task.id())).await;
    let mut dump = dump::gather().await;
    dump.add_stacks(1).await;
    let group = dump.groups.iter().find(|group| group.name == "wakeless").unwrap();
    assert!(group.to_string().contains("no leaf kept a waker"), "{group}");
    drop(task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_stuck_inside_its_poll_shows_as_running_and_for_how_long() {
    let ctx = Ctx::root("t");
    let (free, freed) = std::sync::mpsc::sync_channel::<()>(1);
    let task = ctx.spawn("stuck-in-poll", async move { freed.recv().unwrap() });
    let long = Duration::from_millis(20);
    until(|| groups("stuck-in-poll").iter().any(|group| group.longest_poll > Some(long))).await;
    let group = groups("stuck-in-poll").remove(0);
    assert!(group.to_string().contains("[running for "), "{group}");
    free.send(()).unwrap();
    task.join().await.unwrap();
}
