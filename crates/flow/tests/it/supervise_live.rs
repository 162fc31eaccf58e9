//! What happens while it runs: new settings, too many failures, missed heartbeats, children that let go.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::supervise::{
    Child, ChildState, ControlError, CoolDown, ExitContext, ExitReason, GiveUpReason, Heartbeat,
    Missed, ReconfigureError, Restart, Shutdown, StartError, Started, Strategy, Supervisor,
};
use forebay_flow::{Backoff, Cause, Ctx, Scope, Stopped, clock, leak, thread};
use parking_lot::Mutex;

use crate::rig::{Do, Rig, until};
use crate::supervise::{end, run};

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b36_a_faulty_reconfiguration_is_refused_and_changes_nothing() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor =
        rig.supervisor(Strategy::OneForAll).child(rig.child("a")).child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1").await;
    let plan = || Supervisor::new("sup", Strategy::OneForOne);
    for (faulty, at_fault) in [
        (plan().intensity(1, Duration::ZERO), "intensity.period"),
        (plan().child(rig.child("a")).child(rig.child("a")), "child.name"),
        (plan().child(rig.child("")), "child.name"),
        (Supervisor::new("other", Strategy::OneForOne).child(rig.child("a")), "name"),
    ] {
        match handle.reconfigure(faulty).await {
            Err(ReconfigureError::BadSpec { field, .. }) if field == at_fault => {}
            other => panic!("{at_fault}: {other:?}"),
        }
    }
    assert_eq!(handle.tree().strategy, Some(Strategy::OneForAll));
    rig.tell("a", Do::Fail);
    rig.expect("-b1 +a2 +b2").await; // still all for one
    end(&ctx, running).await;
    assert_eq!(handle.reconfigure(plan()).await, Err(ReconfigureError::NotRunning));
}

#[tokio::test(start_paused = true)]
async fn b36_who_runs_runs_on_under_new_settings_the_added_are_not_started_the_removed_not_stopped()
{
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::OneForAll)
        .child(rig.child("a"))
        .child(rig.child("b"))
        .child(rig.child("gone"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1 +gone1").await;
    let plan = rig
        .supervisor(Strategy::OneForOne)
        .intensity(1, 10 * SEC)
        .child(rig.child("b").restart(Restart::Transient))
        .child(rig.child("a"))
        .child(rig.child("new"));
    handle.reconfigure(plan).await.unwrap();
    assert_eq!(rig.settled().await, "", "nobody was started or stopped");
    let seen: Vec<_> = handle.children().into_iter().map(|c| (c.name, c.state, c.life)).collect();
    let up = |name: &str| (name.to_owned(), ChildState::Running, 1);
    let new = ("new".to_owned(), ChildState::Stopped, 0);
    assert_eq!(seen, [up("a"), up("b"), up("gone"), new]);
    assert_eq!(handle.tree().strategy, Some(Strategy::OneForOne));
    // The new rule for one that runs.
    rig.tell("b", Do::Return);
    until(|| handle.children()[1].state == ChildState::Stopped).await;
    // The added one is started on request, the removed one is still supervised.
    handle.restart_child("new").await.unwrap();
    rig.tell("gone", Do::Fail);
    rig.expect("+new1 +gone2").await;
    // The new intensity; the restart before it counts.
    rig.tell("a", Do::Fail);
    let gave_up = running.join().await.unwrap().unwrap_err();
    assert!(matches!(gave_up.reason, GiveUpReason::Intensity { max: 1, .. }), "{gave_up}");
    assert_eq!(rig.take(), "-new1 -gone2");
}

#[tokio::test(start_paused = true)]
async fn b36_a_child_is_started_from_the_new_plan_the_next_time_also_when_rebuilt() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let leaf = |version: &'static str| {
        let rig = rig.clone();
        Child::new("leaf", move |ctx: Ctx| {
            rig.write(version.into());
            async move { ctx.run(std::future::pending::<()>()).await }
        })
        .shutdown(Shutdown::Brutal)
    };
    let inner = |version| {
        Supervisor::new("inner", Strategy::OneForOne)
            .backoff(Backoff::NONE)
            .intensity(0, SEC)
            .child(rig.child("a"))
            .child(leaf(version))
    };
    let plan = inner("v1");
    let handle = plan.handle();
    let top = Supervisor::new("top", Strategy::OneForOne).backoff(Backoff::NONE);
    let running = run(&ctx, top.child(Child::supervisor(plan)));
    rig.expect("+a1 v1").await;
    let next = inner("v2");
    let unused = next.handle();
    handle.reconfigure(next).await.unwrap();
    assert_eq!(unused.terminate_child("a").await, Err(ControlError::NotRunning));
    handle.terminate_child("leaf").await.unwrap();
    handle.restart_child("leaf").await.unwrap();
    rig.expect("v2").await;
    rig.tell("a", Do::Fail); // its intensity of zero has it rebuilt
    rig.expect("+a2 v2").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b36_a_stopped_child_that_is_temporary_from_now_on_can_be_started_once_more() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let plan = |restart| rig.supervisor(Strategy::OneForOne).child(rig.child("a").restart(restart));
    let supervisor = plan(Restart::Permanent);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    handle.terminate_child("a").await.unwrap();
    handle.reconfigure(plan(Restart::Temporary)).await.unwrap();
    assert_eq!(handle.restart_child("a").await, Ok(Started::Up(None)));
    // And the other way round, while it runs.
    handle.reconfigure(plan(Restart::Permanent)).await.unwrap();
    rig.tell("a", Do::Fail);
    rig.expect("-a1 +a2 +a3").await;
    handle.reconfigure(plan(Restart::Temporary)).await.unwrap();
    rig.tell("a", Do::Fail);
    until(|| handle.counts().specs == 0).await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_whose_context_is_killed_from_outside_ends_too() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let scope = Scope::new(&ctx, "scope");
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(Some(held)));
    let strays = Child::new("strays", move |ctx: Ctx| {
        let held = held.lock().take().unwrap();
        std::mem::forget(thread::spawn(&ctx, "deaf", move |_ctx| held.recv().is_err()));
        async move {
            ctx.ready();
            ctx.cancelled().await;
            Ok::<(), Stopped>(())
        }
    });
    let supervisor = rig.supervisor(Strategy::OneForOne).child(strays.ready_within(60 * SEC));
    let handle = supervisor.handle();
    // Its run is no task of the context that is killed.
    let running = ctx.spawn("supervisor", supervisor.run(scope.ctx().clone()));
    until(|| handle.children().first().is_some_and(|c| c.state == ChildState::Running)).await;
    drop(scope);
    let ended = tokio::time::timeout(60 * SEC, running.join()).await.unwrap();
    assert_eq!(ended.unwrap(), Ok(()));
    drop(release);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b41_past_the_threshold_restarts_pause_while_siblings_run_then_the_count_starts_anew() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let cool_down = CoolDown { threshold: 3.5, half_life: 10 * SEC, pause: 60 * SEC };
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .cool_down(cool_down)
        .child(rig.child("a"))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1").await;
    // Far enough apart, failures never add up.
    for life in 2..20 {
        rig.tell("a", Do::Fail);
        rig.expect(&format!("+a{life}")).await;
        tokio::time::sleep(10 * SEC).await;
    }
    for round in 0..2 {
        // Old failures weigh little by now: after the pause, nothing.
        let first = 20 + 4 * round;
        tokio::time::sleep(300 * SEC).await;
        for life in first..first + 3 {
            rig.tell("a", Do::Fail);
            rig.expect(&format!("+a{life}")).await;
        }
        let tripped = clock::now();
        rig.tell("a", Do::Fail);
        until(|| handle.children()[0].state == ChildState::Restarting).await;
        tokio::time::sleep(59 * SEC).await;
        assert_eq!(rig.take(), "", "no restart while it cools down");
        assert_eq!(handle.children()[1].state, ChildState::Running, "the sibling runs on");
        rig.expect(&format!("+a{}", first + 3)).await;
        assert_eq!((clock::now() - tripped).as_secs(), 60);
    }
    end(&ctx, running).await;
}

/// Beats every second until told to stop beating.
fn beating(name: &'static str, silent: &Arc<Mutex<bool>>, rig: &Rig) -> Child {
    let (silent, rig) = (Arc::clone(silent), rig.clone());
    Child::new(name, move |ctx: Ctx| {
        let (silent, rig) = (Arc::clone(&silent), rig.clone());
        rig.write(format!("+{name}"));
        async move {
            ctx.run(async {
                loop {
                    tokio::time::sleep(SEC).await;
                    if !*silent.lock() {
                        ctx.child("deeper").beat();
                    }
                }
            })
            .await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_missed_heartbeat_is_reported_once_per_silence() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let (silent, said) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
    let reports = Arc::clone(&said);
    let heartbeat = Heartbeat { within: 3 * SEC, missed: Missed::Report };
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .on_stuck(move |report| reports.lock().push((clock::now(), report.clone())))
        .child(beating("a", &silent, &rig).heartbeat(heartbeat));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    tokio::time::sleep(100 * SEC).await;
    assert!(said.lock().is_empty(), "a child that keeps its promise is never reported");
    for silence in 1..=2 {
        *silent.lock() = true;
        let since = clock::now();
        until(|| said.lock().len() == silence).await;
        let (at, report) = said.lock()[silence - 1].clone();
        assert!(at - since <= 3 * SEC, "as soon as the promise is broken: {:?}", at - since);
        assert_eq!((report.supervisor.as_str(), report.child.as_str()), ("t/sup", "a"));
        assert_eq!((report.silent, report.will_stop), (3 * SEC, false));
        assert!(handle.children()[0].stuck);
        tokio::time::sleep(50 * SEC).await;
        assert_eq!(said.lock().len(), silence, "once");
        *silent.lock() = false;
        until(|| !handle.children()[0].stuck).await;
    }
    assert_eq!((rig.take().as_str(), handle.children()[0].restarts), ("+a", 0));
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stuck_child_is_stopped_by_its_rule_and_counts_as_failed() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let said = Arc::new(Mutex::new(0));
    let reports = Arc::clone(&said);
    let heartbeat = Heartbeat { within: 3 * SEC, missed: Missed::Restart };
    // It waits for what never comes, and does not look at its context.
    let log = rig.clone();
    let stuck = Child::new("stuck", move |_ctx: Ctx| {
        log.write("+stuck".into());
        std::future::pending::<Result<(), Stopped>>()
    });
    let stuck = stuck.heartbeat(heartbeat).shutdown(Shutdown::Deadline(2 * SEC));
    let supervisor = rig
        .supervisor(Strategy::OneForAll)
        .intensity(1, 60 * SEC)
        .on_stuck(move |_| *reports.lock() += 1)
        .child(rig.child("a"))
        .child(stuck.restart(Restart::Transient));
    let began = clock::now();
    let gave_up = run(&ctx, supervisor).join().await.unwrap().unwrap_err();
    assert_eq!(gave_up.child.as_deref(), Some("stuck"));
    assert!(
        matches!(gave_up.reason, GiveUpReason::Intensity { last: ExitReason::Stuck(silent), .. } if silent == 3 * SEC)
    );
    assert_eq!(rig.take(), "+a1 +stuck -a1 +a2 +stuck -a2");
    assert_eq!((clock::now() - began).as_secs(), 10, "two lives of 3 s, each 2 s in stopping");
    assert_eq!(*said.lock(), 2);
    let first = &rig.reports()[0];
    assert_eq!(
        (first.reason.clone(), first.context),
        (ExitReason::Stuck(3 * SEC), ExitContext::Running)
    );
}

#[tokio::test(start_paused = true)]
async fn b28_a_child_that_detaches_cannot_hang_termination() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let outside = Ctx::root("elsewhere");
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(Some(held)));
    let far = outside.clone();
    let detaches = Child::new("detaches", move |ctx: Ctx| {
        let (far, held) = (far.clone(), held.lock().take());
        async move {
            // A task nobody holds, one that was taken out of the tree with the child's context, and a thread that looks
            // at nothing.
            std::mem::forget(ctx.spawn("forgotten", std::future::pending::<()>()));
            let own = ctx.clone();
            std::mem::forget(far.spawn("moved out", async move {
                let _kept = own;
                std::future::pending::<()>().await;
            }));
            if let Some(held) = held {
                let thread = thread::spawn(&ctx, "deaf", move |_ctx| held.recv().is_err());
                std::mem::forget(thread);
            }
            ctx.ready();
            ctx.cancelled().await;
            Ok::<(), Stopped>(())
        }
    });
    // Waited for without limit: by that rule a thread could hold up everything.
    let detaches = detaches.ready_within(60 * SEC).shutdown(Shutdown::Forever);
    let supervisor = rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(detaches);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    until(|| handle.counts().active == 2).await;
    let began = clock::now();
    handle.terminate_child("detaches").await.unwrap();
    handle.restart_child("detaches").await.unwrap();
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await.unwrap(), Ok(()));
    assert!(clock::now() - began <= 3 * SEC, "{:?}", clock::now() - began);
    assert_eq!(rig.take(), "+a1 -a1");
    // What could not be stopped is seen, by name; the forgotten task is gone.
    let left = leak::check(&ctx).await.unwrap_err().tasks;
    assert_eq!(left.iter().map(|task| &*task.name).collect::<Vec<_>>(), ["deaf"]);
    drop(release);
    leak::check(&ctx).await.unwrap();
    outside.cancel(Cause::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn b39_temporary_children_retain_nothing_they_were_started_with() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let argument = Arc::new([0_u8; 1000]);
    let child = |name: &'static str, restart| {
        let (argument, rig) = (Arc::clone(&argument), rig.clone());
        Child::new(name, move |ctx: Ctx| {
            let length = argument.len(); // it is used, and not kept
            rig.write(format!("+{name} {length}"));
            async move { ctx.run(std::future::pending::<()>()).await }
        })
        .restart(restart)
    };
    let supervisor = rig.supervisor(Strategy::OneForAll).child(child("fixed", Restart::Temporary));
    let handle = supervisor.handle();
    assert_eq!(Arc::strong_count(&argument), 2);
    let running = run(&ctx, supervisor);
    rig.expect("+fixed 1000").await;
    handle.start_child(child("dynamic", Restart::Temporary)).await.unwrap();
    rig.expect("+dynamic 1000").await;
    assert_eq!((handle.counts().active, Arc::strong_count(&argument)), (2, 1));
    // One that may be restarted must keep it; one that was refused must not.
    handle.start_child(child("kept", Restart::Transient)).await.unwrap();
    let twice = handle.start_child(child("dynamic", Restart::Temporary)).await;
    assert_eq!(twice, Err(StartError::AlreadyStarted { life: 1 }));
    assert_eq!(Arc::strong_count(&argument), 2);
    handle.terminate_child("kept").await.unwrap();
    handle.delete_child("kept").await.unwrap();
    assert_eq!(Arc::strong_count(&argument), 1);
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn b44_remove_and_wait_is_ok_twice_times_out_and_refuses_what_is_not_its_own() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let (one, two) = (rig.supervisor(Strategy::OneForOne), rig.supervisor(Strategy::OneForOne));
    let (handle, other) = (one.handle(), two.handle());
    let one = run(&ctx, one.child(rig.child("a")));
    rig.expect("+a1").await;
    let two = run(&ctx, two.child(rig.child("b")));
    rig.expect("+b1").await;
    let (a, b) = (handle.child("a").unwrap(), other.child("b").unwrap());
    assert!(handle.child("b").is_none());
    assert_eq!(handle.remove_child(&b, clock::now() + SEC).await, Err(ControlError::Foreign));
    assert_eq!(other.counts().active, 1);
    assert_eq!(handle.remove_child(&a, clock::now() + SEC).await, Ok(()));
    assert_eq!((rig.take().as_str(), handle.counts().specs), ("-a1", 0));
    assert_eq!(handle.remove_child(&a, clock::now() + SEC).await, Ok(()), "twice");
    // A later child of that name is another one.
    assert_eq!(handle.start_child(rig.child("a")).await, Ok(Started::Up(None)));
    assert_eq!(handle.remove_child(&a, clock::now() + SEC).await, Ok(()));
    assert_eq!((rig.take().as_str(), handle.counts().active), ("+a2", 1));
    // It does not end in time; it is removed all the same, later.
    let stubborn = rig.child("stubborn").shutdown(Shutdown::Deadline(5 * SEC));
    handle.start_child(stubborn).await.unwrap();
    rig.tell("stubborn", Do::Ignore);
    tokio::time::sleep(SEC).await;
    let stubborn = handle.child("stubborn").unwrap();
    let began = clock::now();
    assert_eq!(
        handle.remove_child(&stubborn, clock::now() + SEC).await,
        Err(ControlError::TimedOut)
    );
    assert_eq!((clock::now() - began).as_secs(), 1);
    assert_eq!(handle.remove_child(&stubborn, clock::now() + 60 * SEC).await, Ok(()));
    assert_eq!((clock::now() - began).as_secs(), 5);
    assert_eq!(handle.counts().specs, 1);
    let a = handle.child("a").unwrap();
    ctx.cancel(Cause::Shutdown);
    one.join().await.unwrap().unwrap();
    two.join().await.unwrap().unwrap();
    assert_eq!(handle.remove_child(&a, clock::now() + SEC).await, Err(ControlError::NotRunning));
}
