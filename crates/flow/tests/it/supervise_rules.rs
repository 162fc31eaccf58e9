//! Rules at their edges: what counts, what is refused, what is said about it.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::supervise::{
    Child, ChildState, ControlError, CoolDown, Directive, ExitContext, ExitReason, GiveUpReason,
    Heartbeat, Missed, Restart, Shutdown, StartError, Started, Strategy, Supervisor,
};
use forebay_flow::{Backoff, Cause, Ctx, Stopped, leak};
use parking_lot::Mutex;

use crate::rig::{Do, Rig, until};
use crate::supervise::{end, run};

const SEC: Duration = Duration::from_secs(1);

fn slowly(seconds: u32) -> Backoff {
    let pause = seconds * SEC;
    Backoff { initial: pause, max: pause, jitter: 0.0, ..Backoff::default() }
}

#[tokio::test(start_paused = true)]
async fn b08_a_permanent_child_restarts_whichever_way_it_ends_and_its_sibling_is_left_alone() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    // As a shutdown would end it, though nobody shut it down.
    let leaves = Child::new("leaves", |ctx: Ctx| async move {
        tokio::time::sleep(3 * SEC).await;
        drop(ctx);
        Err::<(), _>(Stopped::Cancelled(Cause::Shutdown))
    });
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .child(rig.child("a"))
        .child(rig.child("sibling"))
        .child(leaves);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +sibling1").await;
    for (life, how) in [Do::Return, Do::Fail, Do::Panic].into_iter().enumerate() {
        rig.tell("a", how);
        rig.expect(&format!("+a{}", life + 2)).await;
    }
    until(|| handle.children()[2].life == 2).await;
    let said: Vec<_> =
        rig.reports().into_iter().map(|r| (r.reason, r.will_restart, r.restarts)).collect();
    let cancelled = "cancelled: shutdown".to_owned();
    assert_eq!(
        said,
        [
            (ExitReason::Normal, true, 0),
            (ExitReason::Error("a failed".into()), true, 1),
            (ExitReason::Panicked("a panicked".into()), true, 2),
            (ExitReason::Error(cancelled), true, 0),
        ]
    );
    let lives: Vec<_> = handle.children().iter().map(|child| child.life).collect();
    assert_eq!(lives, [4, 1, 2]);
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn b17_failed_attempts_count_and_past_the_intensity_the_rest_is_stopped_then_the_supervisor()
{
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let causes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&causes);
    let asks_why = Child::new("asks why", move |ctx: Ctx| {
        let seen = Arc::clone(&seen);
        async move {
            let cause = ctx.cancelled().await;
            seen.lock().push(cause);
            Ok::<(), Stopped>(())
        }
    });
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .intensity(3, 10 * SEC)
        .child(rig.child("a"))
        .child(rig.child("b"))
        .child(asks_why)
        .child(rig.child("c"));
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1 +c1").await;
    rig.break_start("b", true);
    rig.tell("b", Do::Fail);
    let gave_up = running.join().await.unwrap().unwrap_err();
    assert_eq!(rig.take(), "!b2 !b3 !b4 -c1 -a1");
    assert_eq!(gave_up.child.as_deref(), Some("b"));
    let last = ExitReason::Error("broken".into());
    assert_eq!(gave_up.reason, GiveUpReason::Intensity { max: 3, period: 10 * SEC, last });
    assert_eq!(*causes.lock(), [Cause::Shutdown], "the rest is told that it shuts down");
    let attempts: Vec<_> = rig
        .reports()
        .into_iter()
        .map(|r| (r.child, r.context, r.will_restart))
        .take_while(|(child, ..)| child == "b")
        .map(|(_, context, will_restart)| (context, will_restart))
        .collect();
    let (start, running) = (ExitContext::Start, ExitContext::Running);
    assert_eq!(attempts, [(running, true), (start, true), (start, true), (start, false)]);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b17_as_many_as_the_intensity_allows_are_survived() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .intensity(3, 10 * SEC)
        .backoff(slowly(1))
        .child(rig.child("b"));
    let running = run(&ctx, supervisor);
    rig.expect("+b1").await;
    rig.break_start("b", true);
    rig.tell("b", Do::Fail);
    rig.expect("!b2 !b3").await;
    rig.break_start("b", false);
    rig.expect("+b4").await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b22_delete_and_restart_work_only_on_a_stopped_child_and_change_nothing_otherwise() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let mute = Child::new("mute", |ctx: Ctx| async move {
        ctx.cancelled().await;
        Ok::<(), Stopped>(())
    });
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .backoff(slowly(100))
        .child(rig.child("a"))
        .child(rig.child("looping"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +looping1").await;
    rig.tell("looping", Do::Fail);
    until(|| handle.children()[1].state == ChildState::Restarting).await;
    let starting = {
        let (handle, mute) = (handle.clone(), mute.ready_within(60 * SEC));
        ctx.spawn("starter", async move { handle.start_child(mute).await })
    };
    until(|| handle.counts().specs == 3).await;
    let before = handle.tree();
    for (name, refused) in [
        ("a", ControlError::Running),
        ("looping", ControlError::Restarting),
        ("mute", ControlError::Running),
        ("nobody", ControlError::NotFound),
    ] {
        assert_eq!(handle.delete_child(name).await, Err(refused.clone()), "{name}");
        assert_eq!(handle.restart_child(name).await, Err(refused), "{name}");
    }
    assert_eq!(handle.tree(), before);
    assert_eq!(rig.settled().await, "");
    handle.terminate_child("mute").await.unwrap();
    assert!(starting.join().await.unwrap().is_err());
    for name in ["a", "looping"] {
        handle.terminate_child(name).await.unwrap();
        assert_eq!(handle.restart_child(name).await, Ok(Started::Up(None)));
        handle.terminate_child(name).await.unwrap();
        handle.delete_child(name).await.unwrap();
        assert_eq!(handle.restart_child(name).await, Err(ControlError::NotFound));
        assert_eq!(handle.delete_child(name).await, Err(ControlError::NotFound));
    }
    assert_eq!(rig.take(), "-a1 +a2 -a2 +looping2 -looping2");
    // The name is free.
    handle.start_child(rig.child("a")).await.unwrap();
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b23_starting_a_known_name_says_which_runs_or_that_it_is_stopped() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne).backoff(slowly(100)).child(rig.child("a"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    let twin = || {
        let log = rig.clone();
        Child::new("a", move |_ctx: Ctx| {
            log.write("the twin was started".into());
            async { Ok::<(), Stopped>(()) }
        })
    };
    assert_eq!(handle.start_child(twin()).await, Err(StartError::AlreadyStarted { life: 1 }));
    handle.terminate_child("a").await.unwrap();
    assert_eq!(handle.start_child(twin()).await, Err(StartError::AlreadyPresent));
    handle.restart_child("a").await.unwrap();
    assert_eq!(handle.start_child(twin()).await, Err(StartError::AlreadyStarted { life: 2 }));
    rig.tell("a", Do::Fail);
    until(|| handle.children()[0].state == ChildState::Restarting).await;
    assert_eq!(handle.start_child(twin()).await, Err(StartError::AlreadyPresent));
    assert_eq!((handle.counts().specs, handle.children()[0].life), (1, 2));
    end(&ctx, running).await;
    assert_eq!(rig.take(), "-a1 +a2");
}

#[tokio::test(start_paused = true)]
async fn b24_children_stopped_by_request_return_at_the_next_restart_of_their_group_and_no_sooner() {
    for (strategy, after) in [
        (Strategy::OneForAll, "-d1 +a2 +b2 +c2 +d2"),
        (Strategy::RestForOne, "-d1 +b2 +c2 +d2"),
        (Strategy::OneForOne, "+b2"),
    ] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let supervisor = rig
            .supervisor(strategy)
            .child(rig.child("a"))
            .child(rig.child("b"))
            .child(rig.child("c"))
            .child(rig.child("d"));
        let handle = supervisor.handle();
        let running = run(&ctx, supervisor);
        rig.expect("+a1 +b1 +c1 +d1").await;
        handle.terminate_child("a").await.unwrap();
        handle.terminate_child("c").await.unwrap();
        assert_eq!(rig.settled().await, "-a1 -c1", "{strategy:?}");
        rig.tell("b", Do::Fail);
        rig.expect(after).await;
        assert_eq!(rig.settled().await, "", "{strategy:?}");
        end(&ctx, running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b24_one_stopped_while_its_group_waits_stays_down_and_comes_up_in_its_place_when_asked() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::OneForAll)
        .backoff(slowly(5))
        .child(rig.child("a"))
        .child(rig.child("b"))
        .child(rig.child("c"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1 +c1").await;
    rig.tell("b", Do::Fail);
    rig.expect("-c1 -a1").await;
    handle.terminate_child("a").await.unwrap();
    handle.terminate_child("c").await.unwrap();
    let again = handle.restart_child("c").await;
    assert_eq!(again, Ok(Started::Up(None)));
    assert_eq!(rig.take(), "+b2 +c2");
    assert_eq!(handle.children()[0].state, ChildState::Stopped);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b27_children_that_end_by_themselves_during_shutdown_do_not_change_its_outcome() {
    for how in [Do::Return, Do::Fail, Do::Panic] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let at_the_end = |name: &'static str, error: Directive| {
            Child::new(name, move |ctx: Ctx| async move {
                ctx.cancelled().await;
                Err::<(), _>(error)
            })
        };
        let slow = Child::new("slow", |ctx: Ctx| async move {
            ctx.cancelled().await;
            tokio::time::sleep(3 * SEC).await;
            Ok::<(), Stopped>(())
        });
        let supervisor = rig
            .supervisor(Strategy::OneForAll)
            .intensity(0, SEC)
            .child(rig.child("a"))
            .child(rig.child("b"))
            .child(at_the_end("ends the tree", Directive::TerminateTree))
            .child(at_the_end("ignores", Directive::Ignore))
            .child(slow);
        let running = run(&ctx, supervisor);
        rig.expect("+a1 +b1").await;
        ctx.cancel(Cause::Shutdown);
        tokio::time::sleep(SEC).await;
        rig.tell("a", how); // while the last one is still stopping
        assert_eq!(running.join().await.unwrap(), Ok(()));
        leak::check(&ctx).await.unwrap();
        assert_eq!(rig.take(), "-b1", "nobody was restarted");
        let reports = rig.reports();
        let said: Vec<_> = reports.iter().map(|report| report.child.as_str()).collect();
        assert_eq!(said, ["a", "slow", "ignores", "ends the tree", "b"]);
        assert!(reports.iter().all(|r| r.context == ExitContext::Stop && !r.will_restart));
    }
}

#[tokio::test(start_paused = true)]
async fn b29_killing_a_middle_supervisor_orphans_nobody_and_its_parent_rebuilds_it() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let (strings, leaves) = (Arc::new(Mutex::new(None)), rig.clone());
    let string = Arc::clone(&strings);
    // Killed without a word to it: its run is dropped.
    let middle = Child::new("middle", move |ctx: Ctx| {
        let (cut, mut is_cut) = tokio::sync::oneshot::channel::<()>();
        *string.lock() = Some(cut);
        let below = Supervisor::new("below", Strategy::OneForOne)
            .child(leaves.child("leaf"))
            .child(leaves.child("other"));
        async move {
            tokio::select! {
                gave_up = below.run(ctx) => gave_up.map_err(|gave_up| gave_up.to_string()),
                _ = &mut is_cut => Err("killed".to_owned()),
            }
        }
    });
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .child(rig.child("a"))
        .child(middle)
        .child(rig.child("z"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    until(|| ctx.live() == 6).await;
    rig.take();
    for life in 2..5 {
        strings.lock().take().unwrap().send(()).unwrap();
        rig.expect(&format!("+leaf{life} +other{life}")).await;
        assert_eq!(ctx.live(), 6, "two supervisors and four children, and nobody else");
    }
    let lives: Vec<_> = handle.children().into_iter().map(|c| (c.name, c.life)).collect();
    assert_eq!(lives, [("a".into(), 1), ("middle".into(), 4), ("z".into(), 1)]);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b29_a_middle_supervisor_that_gives_up_is_rebuilt_and_shown_so() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let middle = Supervisor::new("middle", Strategy::OneForOne)
        .intensity(0, SEC)
        .child(rig.child("leaf"))
        .child(rig.child("other"));
    let inner = middle.handle();
    let supervisor =
        rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(Child::supervisor(middle));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +leaf1 +other1").await;
    rig.tell("leaf", Do::Fail); // its intensity of zero ends the middle supervisor
    rig.expect("-other1 +leaf2 +other2").await;
    until(|| handle.children()[1].state == ChildState::Running).await;
    let middle = &handle.children()[1];
    assert_eq!((middle.restarts, middle.life, handle.children()[0].life), (1, 2, 1));
    let why = "supervisor `t/sup/middle` gave up: child `leaf` failed: leaf failed; more than 0 restarts in 1s";
    assert_eq!(middle.last_exit, Some(ExitReason::Error(why.into())));
    // Its handle leads to the new build.
    assert_eq!((inner.counts().active, inner.children()[0].life), (2, 1));
    inner.terminate_child("leaf").await.unwrap();
    assert_eq!(rig.take(), "-leaf2");
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b35_bad_flags_bad_specs_and_duplicates_are_refused_naming_the_field() {
    let rig = Rig::new();
    let sup = || rig.supervisor(Strategy::OneForOne).child(rig.child("first"));
    let backoff = Backoff::default();
    let cool = CoolDown { threshold: 5.0, half_life: SEC, pause: SEC };
    let beat = |within, missed| rig.child("a").heartbeat(Heartbeat { within, missed });
    let nested = || Child::supervisor(Supervisor::new("nested", Strategy::OneForOne));
    for (supervisor, at_fault) in [
        (Supervisor::new("", Strategy::OneForOne).child(rig.child("first")), "name"),
        (sup().intensity(1, Duration::ZERO), "intensity.period"),
        (sup().cool_down(CoolDown { threshold: f64::NAN, ..cool }), "cool_down.threshold"),
        (sup().cool_down(CoolDown { threshold: -1.0, ..cool }), "cool_down.threshold"),
        (sup().cool_down(CoolDown { half_life: Duration::ZERO, ..cool }), "cool_down.half_life"),
        (sup().cool_down(CoolDown { pause: Duration::ZERO, ..cool }), "cool_down.pause"),
        (sup().backoff(Backoff { jitter: 1.5, ..backoff }), "backoff.jitter"),
        (sup().backoff(Backoff { jitter: f64::NAN, ..backoff }), "backoff.jitter"),
        (sup().backoff(Backoff { max: Duration::ZERO, ..backoff }), "backoff.max"),
        (sup().child(rig.child("")), "child.name"),
        (sup().child(rig.child("first")), "child.name"),
        (sup().child(rig.child("a").ready_within(Duration::ZERO)), "child.ready_within"),
        (sup().child(beat(Duration::ZERO, Missed::Report)), "child.heartbeat"),
        (sup().child(beat(SEC, Missed::Restart).shutdown(Shutdown::Forever)), "child.shutdown"),
        (
            sup().child(nested().heartbeat(Heartbeat { within: SEC, missed: Missed::Report })),
            "child.heartbeat",
        ),
    ] {
        let handle = supervisor.handle();
        let gave_up = supervisor.run(Ctx::root("t")).await.unwrap_err();
        match &gave_up.reason {
            GiveUpReason::BadSpec { field, .. } if *field == at_fault => {}
            why => panic!("{at_fault}: {why:?}"),
        }
        assert_eq!(gave_up.child, None);
        assert!(gave_up.to_string().contains(at_fault), "{gave_up}");
        assert_eq!(handle.terminate_child("first").await, Err(ControlError::NotRunning));
    }
    assert_eq!(rig.take(), "", "nothing was started");

    let ctx = Ctx::root("t");
    let supervisor = sup();
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    for (child, at_fault) in [
        (rig.child(""), "child.name"),
        (rig.child("a").ready_within(Duration::ZERO), "child.ready_within"),
        (beat(Duration::ZERO, Missed::Report), "child.heartbeat"),
    ] {
        match handle.start_child(child).await {
            Err(StartError::BadSpec { field, problem }) if field == at_fault => {
                assert!(!problem.is_empty())
            }
            other => panic!("{at_fault}: {other:?}"),
        }
    }
    // Below another supervisor, the fault comes up with its place.
    let faulty = Supervisor::new("faulty", Strategy::OneForOne).intensity(1, Duration::ZERO);
    let refused = handle.start_child(Child::supervisor(faulty)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the child failed: supervisor `t/sup/faulty` gave up: intensity.period: is zero"
    );
    assert_eq!(handle.counts().specs, 1);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b40_every_report_carries_supervisor_context_reason_and_offender() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::RestForOne)
        .backoff(slowly(1))
        .child(rig.child("a"))
        .child(rig.child("b").restart(Restart::Transient))
        .child(rig.child("c").shutdown(Shutdown::Deadline(SEC)));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1 +c1").await;
    tokio::time::sleep(7 * SEC).await;
    rig.tell("c", Do::Ignore);
    tokio::time::sleep(SEC).await;
    rig.break_start("b", true);
    rig.tell("b", Do::Panic);
    rig.expect("!b2").await;
    rig.break_start("b", false);
    until(|| handle.counts().active == 3).await;
    handle.terminate_child("c").await.unwrap();
    rig.tell("b", Do::Return);
    until(|| handle.counts().active == 1).await;
    end(&ctx, running).await;
    let said: Vec<_> = rig
        .reports()
        .iter()
        .map(|r| {
            format!(
                "{} {} {:?} {}, restart {} after {}, lived {}",
                r.supervisor,
                r.child,
                r.context,
                r.reason,
                r.will_restart,
                r.restarts,
                r.lived.as_secs()
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "t/sup b Running panicked: b panicked, restart true after 0, lived 8",
            "t/sup c Stop was killed, restart true after 0, lived 9",
            "t/sup b Start failed: broken, restart true after 1, lived 0",
            "t/sup c Stop ended normally, restart false after 1, lived 0",
            "t/sup b Running ended normally, restart false after 2, lived 0",
            "t/sup a Stop ended normally, restart false after 0, lived 10",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn b44_b47_requests_to_a_supervisor_that_is_over_or_ends_are_refused_and_never_block() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let stubborn = rig.child("stubborn").shutdown(Shutdown::Deadline(2 * SEC));
    let supervisor = rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(stubborn);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +stubborn1").await;
    rig.tell("stubborn", Do::Ignore);
    tokio::time::sleep(SEC).await;
    ctx.cancel(Cause::Shutdown);
    for over in [false, true] {
        // First while it stops, then when it is over: at once.
        let plan = Supervisor::new("sup", Strategy::OneForOne);
        let all_refused = async {
            assert_eq!(handle.start_child(rig.child("b")).await, Err(StartError::NotRunning));
            assert_eq!(handle.restart_child("a").await, Err(ControlError::NotRunning));
            assert!(handle.delete_child("a").await.is_err());
            assert!(handle.reconfigure(plan).await.is_err());
        };
        tokio::time::timeout(SEC / 10, all_refused).await.unwrap();
        if !over {
            assert!(!running.is_finished());
            until(|| running.is_finished()).await;
        }
    }
    assert_eq!(running.join().await.unwrap(), Ok(()));
    assert_eq!(handle.terminate_child("a").await, Err(ControlError::NotRunning));
    assert_eq!(handle.tree().state, ChildState::Stopped);
    assert_eq!(handle.counts().active, 0);
    assert!(handle.children().iter().all(|child| child.state == ChildState::Stopped));
    leak::check(&ctx).await.unwrap();
    assert_eq!(rig.take(), "-a1");
}

#[tokio::test(start_paused = true)]
async fn b47_what_was_asked_before_the_run_is_done_in_order_after_the_plan_is_up() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::RestForOne).child(rig.child("a"));
    let handle = supervisor.handle();
    let early: Vec<_> = ["x", "y", "z"]
        .into_iter()
        .map(|name| {
            let (handle, child) = (handle.clone(), rig.child(name));
            ctx.spawn("early", async move { handle.start_child(child).await })
        })
        .collect();
    tokio::time::sleep(SEC).await;
    assert!(early.iter().all(|early| !early.is_finished()) && rig.peek().is_empty());
    let running = run(&ctx, supervisor);
    for early in early {
        assert_eq!(early.join().await.unwrap(), Ok(Started::Up(None)));
    }
    assert_eq!(rig.take(), "+a1 +x1 +y1 +z1");
    end(&ctx, running).await;
}
