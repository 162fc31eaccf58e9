//! Strategies, restarts, order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_flow::supervise::{
    Child, ChildState, Directive, ExitReason, GaveUp, GiveUpReason, Restart, Shutdown, Strategy,
    Supervisor,
};
use forebay_flow::{Backoff, Cause, Ctx, Stopped, Task, clock, leak};

use crate::rig::{Do, Rig, until, until_on_thread};

const SEC: Duration = Duration::from_secs(1);

pub fn run(ctx: &Ctx, supervisor: Supervisor) -> Task<Result<(), GaveUp>> {
    ctx.spawn("supervisor", supervisor.run(ctx.clone()))
}

/// Cancels, waits for a clean end, and checks that nothing is left.
pub async fn end(ctx: &Ctx, running: Task<Result<(), GaveUp>>) {
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await.unwrap(), Ok(()));
    leak::check(ctx).await.unwrap();
}

fn abc(rig: &Rig, strategy: Strategy) -> Supervisor {
    rig.supervisor(strategy).child(rig.child("a")).child(rig.child("b")).child(rig.child("c"))
}

#[tokio::test(start_paused = true)]
async fn b01_children_start_in_order_and_each_waits_for_the_one_before_to_be_ready() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let slow = rig.clone();
    let slow = Child::new("slow", move |ctx: Ctx| {
        let rig = slow.clone();
        async move {
            rig.write("spawned".into());
            tokio::time::sleep(SEC).await;
            rig.write("ready".into());
            ctx.ready();
            ctx.cancelled().await;
            Ok::<(), Stopped>(())
        }
    });
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .child(rig.child("a"))
        .child(slow.ready_within(60 * SEC))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    until(|| rig.peek() == "+a1 spawned").await;
    let states: Vec<_> = handle.children().iter().map(|child| child.state).collect();
    assert_eq!(states, [ChildState::Running, ChildState::Starting, ChildState::Stopped]);
    rig.expect("+a1 spawned ready +b1").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b02_a_failed_first_start_stops_the_started_siblings_and_says_which_child_and_why() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    rig.break_start("c", true);
    let gave_up = abc(&rig, Strategy::OneForOne).run(ctx.clone()).await.unwrap_err();
    assert_eq!(gave_up.child.as_deref(), Some("c"));
    assert_eq!(gave_up.reason, GiveUpReason::StartFailed(ExitReason::Error("broken".into())));
    assert_eq!(
        gave_up.to_string(),
        "supervisor `t/sup` gave up: child `c` did not start: failed: broken"
    );
    assert_eq!(rig.take(), "+a1 +b1 !c1 -b1 -a1");
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_never_ready_fails_its_start_at_the_limit_f5() {
    let ctx = Ctx::root("t");
    let mute =
        Child::new("mute", |ctx: Ctx| async move { ctx.run(std::future::pending::<()>()).await })
            .ready_within(3 * SEC);
    let began = clock::now();
    let gave_up =
        Supervisor::new("sup", Strategy::OneForOne).child(mute).run(ctx.clone()).await.unwrap_err();
    assert_eq!(gave_up.reason, GiveUpReason::StartFailed(ExitReason::NotReady(3 * SEC)));
    assert_eq!((clock::now() - began).as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn b09_a_transient_child_restarts_only_after_a_failure_and_its_spec_stays() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor =
        rig.supervisor(Strategy::OneForOne).child(rig.child("a").restart(Restart::Transient));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    rig.tell("a", Do::Fail);
    rig.expect("+a2").await;
    rig.tell("a", Do::Return);
    until(|| handle.children()[0].state == ChildState::Stopped).await;
    assert_eq!(rig.settled().await, "");
    assert_eq!(handle.children()[0].last_exit, Some(ExitReason::Normal));
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b10_a_temporary_child_never_restarts_and_its_spec_vanishes() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor =
        rig.supervisor(Strategy::OneForOne).child(rig.child("a").restart(Restart::Temporary));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    rig.tell("a", Do::Fail);
    until(|| handle.children().is_empty()).await;
    assert_eq!(rig.settled().await, "");
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b11_temporary_bystanders_of_a_group_restart_stay_dead_and_cost_no_intensity() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::OneForAll)
        .intensity(1, 10 * SEC)
        .child(rig.child("a"))
        .child(rig.child("t").restart(Restart::Temporary))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +t1 +b1").await;
    rig.tell("a", Do::Fail);
    rig.expect("-b1 -t1 +a2 +b2").await;
    assert_eq!(handle.counts().specs, 2);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b12_one_for_one_replaces_only_the_failed_child() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running = run(&ctx, abc(&rig, Strategy::OneForOne));
    rig.expect("+a1 +b1 +c1").await;
    rig.tell("b", Do::Fail);
    rig.expect("+b2").await;
    assert_eq!(rig.settled().await, "");
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b13_one_for_all_stops_all_in_reverse_and_restarts_all_in_order() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running = run(&ctx, abc(&rig, Strategy::OneForAll));
    rig.expect("+a1 +b1 +c1").await;
    rig.tell("b", Do::Fail);
    rig.expect("-c1 -a1 +a2 +b2 +c2").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b14_rest_for_one_stops_the_later_in_reverse_and_restarts_the_tail_in_order() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running = run(&ctx, abc(&rig, Strategy::RestForOne).child(rig.child("d")));
    rig.expect("+a1 +b1 +c1 +d1").await;
    rig.tell("b", Do::Fail);
    rig.expect("-d1 -c1 +b2 +c2 +d2").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b15_a_start_that_fails_inside_a_one_for_all_restart_stops_the_restarted_again() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: SEC, max: SEC, jitter: 0.0, ..Backoff::default() };
    let running = run(&ctx, abc(&rig, Strategy::OneForAll).backoff(backoff));
    rig.expect("+a1 +b1 +c1").await;
    rig.break_start("b", true);
    rig.tell("c", Do::Fail);
    rig.expect("-b1 -a1 +a2 !b2 -a2").await;
    rig.break_start("b", false);
    rig.expect("+a3 +b3 +c2").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b16_inside_a_rest_for_one_restart_only_the_failed_child_and_its_tail_wait() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: SEC, max: SEC, jitter: 0.0, ..Backoff::default() };
    let running = run(&ctx, abc(&rig, Strategy::RestForOne).backoff(backoff));
    rig.expect("+a1 +b1 +c1").await;
    rig.break_start("b", true);
    rig.tell("a", Do::Fail);
    rig.expect("-c1 -b1 +a2 !b2").await;
    rig.break_start("b", false);
    rig.expect("+b3 +c2").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b18_restarts_further_apart_than_the_period_never_trip_it() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running =
        run(&ctx, rig.supervisor(Strategy::OneForOne).intensity(1, SEC).child(rig.child("a")));
    rig.expect("+a1").await;
    for life in 2..20 {
        rig.tell("a", Do::Fail);
        rig.expect(&format!("+a{life}")).await;
        tokio::time::sleep(SEC + Duration::from_millis(1)).await;
    }
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b18_intensity_zero_trips_at_the_first_restart() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running =
        run(&ctx, rig.supervisor(Strategy::OneForOne).intensity(0, SEC).child(rig.child("a")));
    rig.expect("+a1").await;
    rig.tell("a", Do::Return);
    assert!(matches!(
        running.join().await.unwrap().unwrap_err().reason,
        GiveUpReason::Intensity { max: 0, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn the_pause_before_a_restart_grows_and_a_stable_run_resets_it() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: SEC, max: 60 * SEC, jitter: 0.0, stable_after: 30 * SEC };
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .intensity(100, SEC)
        .backoff(backoff)
        .child(rig.child("a"));
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    let mut pauses = Vec::new();
    for life in 2..=5 {
        if life == 5 {
            tokio::time::sleep(31 * SEC).await;
        }
        let failed = clock::now();
        rig.tell("a", Do::Fail);
        rig.expect(&format!("+a{life}")).await;
        pauses.push((clock::now() - failed).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 1]);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b25_deadline_is_polite_then_kills_brutal_kills_at_once_forever_waits() {
    for (shutdown, seconds) in
        [(Shutdown::Deadline(7 * SEC), 7), (Shutdown::Brutal, 0), (Shutdown::Forever, 600)]
    {
        let ctx = Ctx::root("t");
        let stubborn = Child::new("stubborn", |_ctx: Ctx| async {
            tokio::time::sleep(600 * SEC).await;
            Ok::<(), Stopped>(())
        });
        let supervisor =
            Supervisor::new("sup", Strategy::OneForOne).child(stubborn.shutdown(shutdown));
        let handle = supervisor.handle();
        let running = run(&ctx, supervisor);
        until(|| handle.counts().active == 1).await;
        let began = clock::now();
        end(&ctx, running).await;
        let took = (clock::now() - began).as_secs();
        assert!(took.abs_diff(seconds) <= 1, "{shutdown:?} took {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn b26_the_stop_order_is_the_exact_reverse_of_the_start() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running = run(&ctx, abc(&rig, Strategy::OneForOne).child(rig.child("d")));
    rig.expect("+a1 +b1 +c1 +d1").await;
    end(&ctx, running).await;
    assert_eq!(rig.take(), "-d1 -c1 -b1 -a1");
}

#[tokio::test(start_paused = true)]
async fn b26_dynamic_children_stop_in_parallel_under_one_timer() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    for name in ["a", "b", "c", "d"] {
        let child = rig.child(name).shutdown(Shutdown::Deadline(5 * SEC));
        handle.start_child(child).await.unwrap();
        rig.tell(name, Do::Ignore);
    }
    tokio::time::sleep(SEC).await;
    let began = clock::now();
    end(&ctx, running).await;
    assert_eq!((clock::now() - began).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn b29_aborting_a_supervisor_takes_the_whole_tree_with_it_f4() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let middle = Supervisor::new("middle", Strategy::OneForOne).child(rig.child("leaf"));
    let supervisor =
        rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(Child::supervisor(middle));
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +leaf1").await;
    drop(running);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b30_a_rebuilt_supervisor_restarts_static_children_and_forgets_dynamic_ones() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let middle = Supervisor::new("middle", Strategy::OneForOne)
        .intensity(0, SEC)
        .backoff(Backoff::NONE)
        .child(rig.child("fixed"));
    let inner = middle.handle();
    let running = run(&ctx, rig.supervisor(Strategy::OneForOne).child(Child::supervisor(middle)));
    rig.expect("+fixed1").await;
    inner.start_child(rig.child("dynamic")).await.unwrap();
    rig.expect("+dynamic1").await;
    rig.tell("fixed", Do::Fail);
    rig.expect("-dynamic1 +fixed2").await;
    assert_eq!(rig.settled().await, "");
    assert_eq!(inner.counts().specs, 1);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b42_a_panic_is_a_failure_with_its_own_reason_f8() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let running = run(
        &ctx,
        rig.supervisor(Strategy::OneForOne).child(rig.child("a").restart(Restart::Transient)),
    );
    rig.expect("+a1").await;
    rig.tell("a", Do::Panic);
    rig.expect("+a2").await;
    assert_eq!(rig.reports()[0].reason, ExitReason::Panicked("a panicked".into()));
    end(&ctx, running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b43_a_hung_child_is_named_as_unstopped_and_the_supervisor_still_exits() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let release = std::sync::Arc::new(std::sync::Barrier::new(2));
    let hold = std::sync::Arc::clone(&release);
    let blocks = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&blocks);
    let hung = Child::new("hung", move |ctx: Ctx| {
        let (hold, blocks) = (std::sync::Arc::clone(&hold), std::sync::Arc::clone(&blocks));
        async move {
            ctx.ready();
            tokio::task::yield_now().await; // lets the supervisor, woken on this thread, run first
            blocks.store(true, Ordering::Release); // before, an abort would still reach it
            hold.wait(); // blocks its thread: neither a cancel nor an abort reaches it
            Ok::<(), Stopped>(())
        }
    });
    let hung = hung.ready_within(60 * SEC).shutdown(Shutdown::Brutal);
    let supervisor = rig.supervisor(Strategy::OneForOne).child(hung);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    // Not by a timer: the thread that is blocked may be the one that drove the timers, and no other takes over before
    // something wakes it.
    until_on_thread(|| {
        seen.load(Ordering::Acquire)
            && handle.children().first().is_some_and(|child| child.state == ChildState::Running)
    });
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await.unwrap(), Ok(()));
    let reports = rig.reports();
    assert_eq!((reports[0].child.as_str(), &reports[0].reason), ("hung", &ExitReason::Unstopped));
    assert_eq!(ctx.live(), 1, "the leak is seen");
    release.wait();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b45_a_child_that_returns_cancelled_while_not_cancelled_is_restarted() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let log = rig.clone();
    let child = Child::new("a", move |ctx: Ctx| {
        log.write("+".into());
        async move {
            tokio::time::sleep(SEC).await;
            ctx.run(std::future::ready(()))
                .await
                .and(Err::<(), _>(Stopped::Cancelled(Cause::Shutdown)))
        }
    });
    let running = run(&ctx, rig.supervisor(Strategy::OneForOne).child(child));
    rig.expect("+ +").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b46_a_child_can_ask_not_to_be_restarted_or_for_the_end_of_the_tree() {
    for (directive, ends) in [(Directive::DoNotRestart, false), (Directive::TerminateTree, true)] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let child = Child::new("asks", move |_ctx: Ctx| async move { Err::<(), _>(directive) });
        let supervisor = rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(child);
        let handle = supervisor.handle();
        let running = run(&ctx, supervisor);
        if ends {
            let gave_up = running.join().await.unwrap().unwrap_err();
            assert_eq!(
                (gave_up.child.as_deref(), gave_up.reason),
                (Some("asks"), GiveUpReason::Directed)
            );
            assert_eq!(rig.take(), "+a1 -a1");
        } else {
            until(|| {
                handle.children().get(1).is_some_and(|child| child.state == ChildState::Stopped)
            })
            .await;
            assert_eq!(handle.children()[1].last_exit, Some(ExitReason::DoNotRestart));
            end(&ctx, running).await;
        }
    }
}
