//! Significant children, and the end of a supervisor whose work is done.

use std::time::Duration;

use forebay_flow::supervise::{
    AutoShutdown, Child, ChildState, ControlError, EndsItself, ExitReason, GaveUp,
    ReconfigureError, Restart, Significant, StartError, Started, Strategy, Supervisor,
};
use forebay_flow::{Backoff, Ctx, Task, leak};

use crate::rig::{Do, Rig, until};
use crate::supervise::end;

const SEC: Duration = Duration::from_secs(1);

fn auto(rig: &Rig, strategy: Strategy, rule: AutoShutdown) -> Supervisor<EndsItself> {
    rig.supervisor(strategy).auto_shutdown(rule)
}

fn run<A: 'static>(ctx: &Ctx, supervisor: Supervisor<A>) -> Task<Result<(), GaveUp>> {
    ctx.spawn("supervisor", supervisor.run(ctx.clone()))
}

/// Waits for an end that nobody asked for, and checks that it was clean.
async fn ends_itself(ctx: &Ctx, running: Task<Result<(), GaveUp>>) {
    let ended = tokio::time::timeout(60 * SEC, running.join()).await.unwrap();
    assert_eq!(ended.unwrap(), Ok(()));
    assert!(!ctx.is_cancelled());
    leak::check(ctx).await.unwrap();
}

#[test]
fn b31_illegal_combinations_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}

#[tokio::test(start_paused = true)]
async fn b31_what_the_types_cannot_see_is_refused_naming_the_field() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let plain = rig.supervisor(Strategy::OneForOne).child(rig.child("a"));
    let handle = plain.handle();
    let running = run(&ctx, plain);
    rig.expect("+a1").await;
    // A dynamic one under a supervisor that may not end itself.
    let refused = handle.start_significant(Significant::transient(rig.child("s"))).await;
    assert!(
        matches!(refused, Err(StartError::BadSpec { field: "auto_shutdown", .. })),
        "{refused:?}"
    );
    assert_eq!(handle.counts().specs, 1);
    end(&ctx, running).await;
    rig.take();

    // A rule that goes while a significant child stays.
    let ctx = Ctx::root("t");
    let auto = auto(&rig, Strategy::OneForOne, AutoShutdown::AnySignificant)
        .significant(Significant::transient(rig.child("s")));
    let handle = auto.handle();
    let running = run(&ctx, auto);
    rig.expect("+s1").await;
    let without = Supervisor::new("sup", Strategy::OneForOne);
    match handle.reconfigure(without).await {
        Err(ReconfigureError::BadSpec { field: "auto_shutdown", .. }) => {}
        other => panic!("{other:?}"),
    }
    // It still holds.
    rig.tell("s", Do::Return);
    ends_itself(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b32_any_significant_fires_on_any_temporary_exit_or_a_clean_transient_one() {
    for (temporary, how) in
        [(true, Do::Return), (true, Do::Fail), (true, Do::Panic), (false, Do::Return)]
    {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let significant = if temporary { Significant::temporary } else { Significant::transient };
        let supervisor = auto(&rig, Strategy::OneForOne, AutoShutdown::AnySignificant)
            .child(rig.child("a"))
            .significant(significant(rig.child("s")))
            .significant(Significant::transient(rig.child("other")));
        let running = run(&ctx, supervisor);
        rig.expect("+a1 +s1 +other1").await;
        rig.tell("s", how);
        ends_itself(&ctx, running).await;
        assert_eq!(rig.take(), "-other1 -a1");
    }
}

#[tokio::test(start_paused = true)]
async fn b32_any_significant_does_not_fire_on_termination_by_request_nor_on_a_restarted_failure() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = auto(&rig, Strategy::OneForOne, AutoShutdown::AnySignificant)
        .child(rig.child("a").restart(Restart::Transient))
        .significant(Significant::transient(rig.child("t")))
        .significant(Significant::temporary(rig.child("u")));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +t1 +u1").await;
    rig.tell("t", Do::Fail);
    rig.expect("+t2").await;
    rig.tell("a", Do::Return); // not significant
    handle.terminate_child("t").await.unwrap();
    handle.terminate_child("u").await.unwrap();
    assert_eq!(handle.restart_child("u").await, Err(ControlError::NotFound));
    handle.restart_child("t").await.unwrap();
    assert_eq!(rig.settled().await, "-t2 -u1 +t3");
    assert!(!running.is_finished());
    // One that is started later counts as well.
    let late = Significant::temporary(rig.child("late"));
    assert_eq!(handle.start_significant(late).await, Ok(Started::Up(None)));
    rig.tell("late", Do::Fail);
    ends_itself(&ctx, running).await;
    assert_eq!(rig.take(), "+late1 -t3");
}

#[tokio::test(start_paused = true)]
async fn b33_all_significant_only_the_last_fires() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: 5 * SEC, max: 5 * SEC, jitter: 0.0, ..Backoff::default() };
    let supervisor = auto(&rig, Strategy::OneForOne, AutoShutdown::AllSignificant)
        .backoff(backoff)
        .child(rig.child("a"))
        .significant(Significant::transient(rig.child("s")))
        .significant(Significant::temporary(rig.child("t")))
        .significant(Significant::transient(rig.child("u")));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +s1 +t1 +u1").await;
    rig.tell("s", Do::Return);
    rig.tell("u", Do::Fail);
    until(|| handle.children().iter().any(|child| child.state == ChildState::Restarting)).await;
    // The last that is up, but one is to come back.
    rig.tell("t", Do::Fail);
    rig.expect("+u2").await;
    assert!(!running.is_finished());
    rig.tell("u", Do::Return);
    ends_itself(&ctx, running).await;
    assert_eq!(rig.take(), "-a1");
}

#[tokio::test(start_paused = true)]
async fn b33_termination_by_request_is_never_the_last() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = auto(&rig, Strategy::OneForOne, AutoShutdown::AllSignificant)
        .significant(Significant::transient(rig.child("s")))
        .significant(Significant::transient(rig.child("t")));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+s1 +t1").await;
    rig.tell("t", Do::Return);
    until(|| handle.counts().active == 1).await;
    handle.terminate_child("s").await.unwrap();
    assert_eq!(rig.settled().await, "-s1");
    assert!(!running.is_finished());
    handle.restart_child("s").await.unwrap();
    rig.tell("s", Do::Return);
    ends_itself(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b34_a_significant_child_killed_by_a_siblings_group_restart_does_not_fire() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = auto(&rig, Strategy::OneForAll, AutoShutdown::AnySignificant)
        .child(rig.child("a"))
        .significant(Significant::transient(rig.child("s")))
        .significant(Significant::temporary(rig.child("t")));
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +s1 +t1").await;
    rig.tell("a", Do::Fail);
    // They end cleanly, and the temporary one for good; yet nothing fires.
    rig.expect("-t1 -s1 +a2 +s2").await;
    assert_eq!(rig.settled().await, "");
    assert!(!running.is_finished());
    rig.tell("s", Do::Return);
    ends_itself(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b34_a_nested_auto_shutdown_escalates_only_if_that_supervisor_is_itself_significant() {
    for escalates in [true, false] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let inner = Supervisor::new("inner", Strategy::OneForOne)
            .auto_shutdown(AutoShutdown::AnySignificant)
            .significant(Significant::temporary(rig.child("leaf")));
        let inner = Child::supervisor(inner);
        let top = auto(&rig, Strategy::OneForOne, AutoShutdown::AnySignificant);
        let top = top.child(rig.child("a"));
        let top = if escalates {
            top.significant(Significant::transient(inner))
        } else {
            top.child(inner.restart(Restart::Transient))
        };
        let handle = top.handle();
        let running = run(&ctx, top);
        rig.expect("+a1 +leaf1").await;
        rig.tell("leaf", Do::Return);
        if escalates {
            ends_itself(&ctx, running).await;
            assert_eq!(rig.take(), "-a1");
        } else {
            until(|| handle.children()[1].state == ChildState::Stopped).await;
            assert_eq!(handle.children()[1].last_exit, Some(ExitReason::Normal));
            assert_eq!(rig.settled().await, "");
            end(&ctx, running).await;
        }
    }
}
