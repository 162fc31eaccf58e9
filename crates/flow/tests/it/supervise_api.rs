//! Requests to a running supervisor.

use std::time::Duration;

use forebay_flow::supervise::{
    Child, ChildState, ControlError, ExitReason, Restart, StartError, Strategy, Supervisor,
};
use forebay_flow::{Backoff, Cause, Ctx, Stopped, clock, leak};

use crate::rig::{Do, Rig, until};
use crate::supervise::{end, run};

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b05_a_failed_dynamic_start_returns_the_error_and_stores_no_spec() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.break_start("a", true);
    let error = handle.start_child(rig.child("a")).await.unwrap_err();
    assert_eq!(error, StartError::Failed(ExitReason::Error("broken".into())));
    assert_eq!(handle.counts().specs, 0);
    rig.break_start("a", false);
    handle.start_child(rig.child("a")).await.unwrap();
    assert_eq!(rig.take(), "!a1 +a2");
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b19_between_attempts_a_looping_child_can_be_terminated_and_the_supervisor_stopped() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: 100 * SEC, max: 100 * SEC, jitter: 0.0, ..Backoff::default() };
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .backoff(backoff)
        .child(rig.child("a"))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1").await;
    rig.tell("a", Do::Fail);
    rig.tell("b", Do::Fail);
    until(|| handle.children().iter().all(|child| child.state == ChildState::Restarting)).await;
    let began = clock::now();
    handle.terminate_child("a").await.unwrap();
    assert_eq!(handle.children()[0].state, ChildState::Stopped);
    end(&ctx, running).await;
    assert!(clock::now() - began < SEC);
    assert_eq!(rig.take(), "");
}

#[tokio::test(start_paused = true)]
async fn b20_while_looping_a_child_is_restarting_and_refuses_start_restart_and_delete() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: 100 * SEC, max: 100 * SEC, jitter: 0.0, ..Backoff::default() };
    let supervisor = rig.supervisor(Strategy::OneForOne).backoff(backoff).child(rig.child("a"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    rig.tell("a", Do::Fail);
    until(|| handle.children()[0].state == ChildState::Restarting).await;
    assert_eq!(handle.counts().active, 0);
    assert_eq!(handle.start_child(rig.child("a")).await, Err(StartError::AlreadyPresent));
    assert_eq!(handle.restart_child("a").await, Err(ControlError::Restarting));
    assert_eq!(handle.delete_child("a").await, Err(ControlError::Restarting));
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b21_terminate_keeps_the_spec_is_idempotent_and_never_triggers_a_restart() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor =
        rig.supervisor(Strategy::OneForAll).child(rig.child("a")).child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1").await;
    handle.terminate_child("a").await.unwrap();
    handle.terminate_child("a").await.unwrap();
    assert_eq!(rig.settled().await, "-a1");
    assert_eq!(handle.terminate_child("x").await, Err(ControlError::NotFound));
    assert_eq!((handle.counts().specs, handle.counts().active), (2, 1));
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b37_counts_are_right_also_in_the_middle_of_a_restart() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: 5 * SEC, max: 5 * SEC, jitter: 0.0, ..Backoff::default() };
    let nested = rig.supervisor(Strategy::OneForOne).child(rig.child("leaf"));
    let supervisor = forebay_flow::supervise::Supervisor::new("top", Strategy::RestForOne)
        .backoff(backoff)
        .child(rig.child("a"))
        .child(rig.child("b"))
        .child(Child::supervisor(nested));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1 +leaf1").await;
    until(|| handle.counts().active == 3).await;
    assert_eq!(
        (handle.counts().specs, handle.counts().supervisors, handle.counts().workers),
        (3, 1, 2)
    );
    rig.tell("b", Do::Fail);
    rig.expect("-leaf1").await;
    until(|| handle.children()[2].state == ChildState::Restarting).await;
    assert_eq!((handle.counts().specs, handle.counts().active), (3, 1));
    rig.expect("+b2 +leaf2").await;
    until(|| handle.counts().active == 3).await;
    assert_eq!(handle.children()[1].restarts, 1);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b47_a_start_before_the_run_waits_for_it() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne).child(rig.child("a"));
    let handle = supervisor.handle();
    let early = {
        let (handle, child) = (handle.clone(), rig.child("early"));
        ctx.spawn("early", async move { handle.start_child(child).await })
    };
    tokio::time::sleep(SEC).await;
    assert!(!early.is_finished());
    let running = run(&ctx, supervisor);
    early.join().await.unwrap().unwrap();
    assert_eq!(rig.take(), "+a1 +early1");
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_starting_child_can_be_terminated_and_its_starter_is_told() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    let mute = Child::new("mute", |ctx: Ctx| async move {
        ctx.cancelled().await;
        Ok::<(), Stopped>(())
    });
    let starter = {
        let (handle, child) = (handle.clone(), mute.ready_within(60 * SEC));
        ctx.spawn("starter", async move { handle.start_child(child).await })
    };
    until(|| handle.children().first().is_some_and(|child| child.state == ChildState::Starting))
        .await;
    handle.terminate_child("mute").await.unwrap();
    assert_eq!(starter.join().await.unwrap(), Err(StartError::Failed(ExitReason::Killed)));
    assert_eq!(handle.counts().specs, 0);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_child_spawned_does_not_outlive_it_f4() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let kept = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let keep = std::sync::Arc::clone(&kept);
    let child = Child::new("parent", move |ctx: Ctx| {
        let task = ctx.spawn("stray", std::future::pending::<()>());
        keep.lock().push(task); // even when its handle is kept elsewhere
        async move {
            ctx.cancelled().await;
            Ok::<(), Stopped>(())
        }
    });
    let supervisor = rig.supervisor(Strategy::OneForOne).child(child.restart(Restart::Temporary));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    until(|| kept.lock().len() == 1).await;
    handle.terminate_child("parent").await.unwrap();
    assert!(kept.lock()[0].is_finished());
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b47_a_start_on_a_supervisor_that_never_runs_is_refused_when_it_is_dropped() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let nested = rig.supervisor(Strategy::OneForOne);
    let plain = Supervisor::new("plain", Strategy::OneForOne);
    for (handle, drop_it) in [
        (plain.handle(), Box::new(move || drop(plain)) as Box<dyn FnOnce()>),
        (nested.handle(), Box::new(move || drop(Child::supervisor(nested)))),
    ] {
        let early = {
            let (handle, child) = (handle.clone(), rig.child("early"));
            ctx.spawn("early", async move { handle.start_child(child).await })
        };
        tokio::time::sleep(SEC).await;
        assert!(!early.is_finished(), "it waits while the run may still come");
        drop_it();
        let answer = tokio::time::timeout(SEC, early.join()).await.unwrap();
        assert_eq!(answer.unwrap(), Err(StartError::NotRunning));
        assert_eq!(handle.terminate_child("x").await, Err(ControlError::NotRunning));
    }
}
