//! What a child can say with its start, and what a slow start holds up.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::supervise::{
    Child, ChildState, ControlError, Directive, Elsewhere, ExitContext, ExitReason, GiveUpReason,
    Restart, StartError, Started, Strategy, Supervisor,
};
use forebay_flow::{Backoff, Cause, Ctx, Stopped, clock, leak};
use parking_lot::Mutex;

use crate::rig::{Do, Rig, until};
use crate::supervise::{end, run};

const SEC: Duration = Duration::from_secs(1);

/// A child that ends with `error` before it is ready.
fn says<E>(name: &'static str, error: E) -> Child
where
    E: std::error::Error + Clone + Send + Sync + 'static,
{
    Child::new(name, move |_ctx: Ctx| {
        let error = error.clone();
        async move { Err::<(), _>(error) }
    })
    .ready_within(60 * SEC)
}

/// A child that is ready after `delay`.
fn slow(name: &'static str, delay: Duration) -> Child {
    Child::new(name, move |ctx: Ctx| async move {
        if ctx.run(tokio::time::sleep(delay)).await.is_ok() {
            ctx.ready();
        }
        ctx.cancelled().await;
        Ok::<(), Stopped>(())
    })
    .ready_within(2 * delay)
}

#[tokio::test(start_paused = true)]
async fn b03_ignore_from_start_keeps_a_spec_without_instance_and_drops_a_temporary_or_dynamic_one()
{
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let supervisor = rig
            .supervisor(strategy)
            .child(says("permanent", Directive::Ignore))
            .child(says("transient", Directive::Ignore).restart(Restart::Transient))
            .child(says("temporary", Directive::Ignore).restart(Restart::Temporary))
            .child(rig.child("a"));
        let handle = supervisor.handle();
        let running = run(&ctx, supervisor);
        rig.expect("+a1").await;
        let kept: Vec<_> = handle
            .children()
            .into_iter()
            .map(|child| (child.name, child.state, child.last_exit))
            .collect();
        let ignored =
            |name: &str| (name.to_owned(), ChildState::Stopped, Some(ExitReason::Ignored));
        assert_eq!(kept[..2], [ignored("permanent"), ignored("transient")]);
        assert_eq!((kept.len(), kept[2].0.as_str()), (3, "a"));
        for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
            let dynamic = says("dynamic", Directive::Ignore).restart(restart);
            assert_eq!(handle.start_child(dynamic).await, Ok(Started::Ignored));
            assert_eq!(handle.counts().specs, 3, "{restart:?} is not kept");
        }
        // It costs no restart, and the one that was kept can be asked again.
        assert_eq!(handle.restart_child("permanent").await, Ok(Started::Ignored));
        assert!(rig.reports().iter().all(|r| !r.will_restart && r.context == ExitContext::Start));
        end(&ctx, running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b04_a_supervisors_own_init_may_say_ignore_or_error_and_nothing_is_left() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let with_init = |said: Result<(), Directive>| {
        rig.supervisor(Strategy::OneForOne)
            .init(move |ctx: Ctx| async move {
                ctx.ready(); // not its own: nobody hears it
                std::mem::forget(ctx.spawn("stray", std::future::pending::<()>()));
                said
            })
            .child(rig.child("a"))
    };
    // At the root: ignore is a clean end, an error is not.
    assert_eq!(with_init(Err(Directive::Ignore)).run(ctx.clone()).await, Ok(()));
    let gave_up = with_init(Err(Directive::TerminateTree)).run(ctx.clone()).await.unwrap_err();
    assert_eq!(
        (gave_up.child, gave_up.reason),
        (None, GiveUpReason::Init("terminate the tree".into()))
    );
    let panics = rig
        .supervisor(Strategy::OneForOne)
        .init(|_ctx: Ctx| async { panic!("no config") as Result<(), Stopped> });
    assert_eq!(
        panics.run(ctx.clone()).await.unwrap_err().reason,
        GiveUpReason::Init("panicked: no config".into())
    );
    // Below another: as any child's start.
    let top = Supervisor::new("top", Strategy::OneForOne)
        .child(Child::supervisor(with_init(Err(Directive::Ignore))))
        .child(rig.child("b"));
    let handle = top.handle();
    let running = run(&ctx, top);
    rig.expect("+b1").await;
    assert_eq!(handle.children()[0].last_exit, Some(ExitReason::Ignored));
    assert_eq!(handle.children()[0].state, ChildState::Stopped);
    end(&ctx, running).await;
    assert_eq!(rig.take(), "-b1", "the child below an init that said no was never started");
}

#[tokio::test(start_paused = true)]
async fn b04_init_runs_before_the_children_of_every_build_and_a_shutdown_cuts_it_short() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let log = rig.clone();
    let inner = rig
        .supervisor(Strategy::OneForOne)
        .intensity(0, SEC)
        .init(move |_ctx: Ctx| {
            log.write("init".into());
            async { Ok::<(), Stopped>(()) }
        })
        .child(rig.child("a"));
    let top = Supervisor::new("top", Strategy::OneForOne).backoff(Backoff::NONE);
    let running = run(&ctx, top.child(Child::supervisor(inner)));
    rig.expect("init +a1").await;
    rig.tell("a", Do::Fail);
    rig.expect("init +a2").await;
    end(&ctx, running).await;

    let ctx = Ctx::root("t");
    let endless = Supervisor::new("sup", Strategy::OneForOne)
        .init(|_ctx: Ctx| std::future::pending::<Result<(), Stopped>>())
        .child(rig.child("b"));
    let running = run(&ctx, endless);
    tokio::time::sleep(SEC).await;
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn b06_start_information_reaches_the_caller_and_does_not_disturb_restarts() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let lives = Arc::new(Mutex::new(0_u16));
    let child = |name: &'static str| {
        let (lives, rig) = (Arc::clone(&lives), rig.clone());
        Child::new(name, move |ctx: Ctx| {
            let port = {
                let mut lives = lives.lock();
                *lives += 1;
                8000 + *lives
            };
            rig.write(format!("{name}:{port}"));
            async move {
                ctx.ready_with(port);
                ctx.ready_with("only the first counts");
                ctx.run(tokio::time::sleep(SEC)).await
            }
        })
        .ready_within(60 * SEC)
    };
    // In the plan nobody takes the information.
    let fixed = [child("fixed")];
    let supervisor = fixed.into_iter().fold(rig.supervisor(Strategy::OneForOne), Supervisor::child);
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("fixed:8001").await;
    let port = |started: Started| match started {
        Started::Up(Some(info)) => *info.get::<u16>().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(port(handle.start_child(child("dynamic")).await.unwrap()), 8002);
    rig.expect("dynamic:8002 fixed:8003 dynamic:8004").await;
    handle.terminate_child("dynamic").await.unwrap();
    assert_eq!(port(handle.restart_child("dynamic").await.unwrap()), 8005);
    assert_eq!(handle.counts().active, 2);
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn b07_already_started_elsewhere_passes_through_with_that_identity() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne).child(rig.child("a"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1").await;
    let holder = Elsewhere("pid 4711".into());
    assert_eq!(
        handle.start_child(says("lock", holder.clone())).await,
        Err(StartError::Elsewhere("pid 4711".into()))
    );
    assert_eq!(handle.counts().specs, 1, "no spec is kept");
    // By another way to the same start: a stopped child asked again.
    let moved = Arc::new(Mutex::new(None));
    let (found, rig2) = (Arc::clone(&moved), rig.clone());
    let child = Child::new("lock", move |ctx: Ctx| {
        let (found, rig) = (found.lock().clone(), rig2.clone());
        async move {
            if let Some(elsewhere) = found {
                return Err(elsewhere);
            }
            rig.write("+lock".into());
            ctx.ready();
            ctx.cancelled().await;
            Ok(())
        }
    });
    handle.start_child(child.ready_within(60 * SEC)).await.unwrap();
    handle.terminate_child("lock").await.unwrap();
    *moved.lock() = Some(holder.clone());
    assert_eq!(handle.restart_child("lock").await, Err(ControlError::Elsewhere("pid 4711".into())));
    assert_eq!(handle.children()[1].state, ChildState::Stopped);
    end(&ctx, running).await;
    // In the plan it is a failed start.
    let gave_up = Supervisor::new("sup", Strategy::OneForOne)
        .child(says("lock", holder))
        .run(Ctx::root("t"))
        .await
        .unwrap_err();
    assert_eq!(gave_up.reason, GiveUpReason::StartFailed(ExitReason::Elsewhere("pid 4711".into())));
}

#[tokio::test(start_paused = true)]
async fn b46_a_directive_before_ready_counts_in_the_plan_in_a_restart_and_in_a_dynamic_start() {
    // In the plan.
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .child(rig.child("a"))
        .child(says("asks", Directive::TerminateTree))
        .child(rig.child("never"));
    let gave_up = supervisor.run(ctx.clone()).await.unwrap_err();
    assert_eq!((gave_up.child.as_deref(), gave_up.reason), (Some("asks"), GiveUpReason::Directed));
    assert_eq!(rig.take(), "+a1 -a1");

    let supervisor = rig
        .supervisor(Strategy::OneForOne)
        .child(says("asks", Directive::DoNotRestart))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+b1").await;
    assert_eq!(handle.children()[0].state, ChildState::Stopped);
    assert_eq!(handle.children()[0].restarts, 0);

    // In a dynamic start: whoever asked is told, and the tree ends.
    assert_eq!(
        handle.start_child(says("asks too", Directive::TerminateTree)).await,
        Err(StartError::Failed(ExitReason::TerminateTree))
    );
    let gave_up = running.join().await.unwrap().unwrap_err();
    assert_eq!(
        (gave_up.child.as_deref(), gave_up.reason),
        (Some("asks too"), GiveUpReason::Directed)
    );
    assert_eq!(rig.take(), "-b1");

    // In a restart, where it must not count as one more failure.
    for directive in [Directive::TerminateTree, Directive::DoNotRestart, Directive::Ignore] {
        let (ctx, rig) = (Ctx::root("t"), Rig::new());
        let (log, up) = (rig.clone(), Arc::new(Mutex::new(false)));
        let child = Child::new("asks", move |ctx: Ctx| {
            let again = std::mem::replace(&mut *up.lock(), true);
            log.write("+".into());
            async move {
                if again {
                    return Err(directive.into());
                }
                ctx.ready();
                Err(Box::<dyn std::error::Error + Send + Sync>::from("failed"))
            }
        });
        let supervisor = rig.supervisor(Strategy::OneForOne).intensity(1, 10 * SEC);
        let supervisor = supervisor.child(child.ready_within(60 * SEC));
        let handle = supervisor.handle();
        let running = run(&ctx, supervisor);
        if directive == Directive::TerminateTree {
            assert_eq!(running.join().await.unwrap().unwrap_err().reason, GiveUpReason::Directed);
        } else {
            until(|| handle.children().first().is_some_and(|c| c.state == ChildState::Stopped))
                .await;
            assert_eq!(rig.settled().await, "+ +");
            end(&ctx, running).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b19_a_slow_start_or_stop_of_one_child_holds_up_no_request_about_another() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor =
        rig.supervisor(Strategy::OneForOne).child(rig.child("a")).child(rig.child("stubborn"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +stubborn1").await;
    let asks = |name: &'static str| handle.start_child(slow(name, 30 * SEC));
    rig.tell("stubborn", Do::Ignore);
    tokio::time::sleep(SEC).await;
    let stops = async { handle.terminate_child("stubborn").await };
    let began = clock::now();
    let quick = async {
        until(|| handle.counts().specs == 4).await;
        handle.terminate_child("a").await.unwrap();
        handle.restart_child("a").await.unwrap();
        handle.start_child(rig.child("b")).await.unwrap();
        handle.terminate_child("b").await.unwrap();
        handle.delete_child("b").await.unwrap();
        rig.tell("a", Do::Fail);
        rig.expect("-a1 +a2 +b1 -b1 +a3").await;
        clock::now() - began
    };
    let (one, two, stopped, took) = tokio::join!(asks("one"), asks("two"), stops, quick);
    assert!(took < SEC, "{took:?}");
    assert_eq!((one, two, stopped), (Ok(Started::Up(None)), Ok(Started::Up(None)), Ok(())));
    // Side by side, too.
    assert_eq!((clock::now() - began).as_secs(), 30);
    end(&ctx, running).await;
}

#[tokio::test(start_paused = true)]
async fn under_a_group_strategy_a_new_child_waits_until_those_before_it_are_up() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let backoff = Backoff { initial: 5 * SEC, max: 5 * SEC, jitter: 0.0, ..Backoff::default() };
    let supervisor = rig
        .supervisor(Strategy::RestForOne)
        .backoff(backoff)
        .child(rig.child("a"))
        .child(rig.child("b"));
    let handle = supervisor.handle();
    let running = run(&ctx, supervisor);
    rig.expect("+a1 +b1").await;
    let began = clock::now();
    rig.tell("a", Do::Fail);
    rig.expect("-b1").await;
    handle.start_child(rig.child("c")).await.unwrap();
    assert_eq!((clock::now() - began).as_secs(), 5);
    rig.expect("+a2 +b2 +c1").await;
    assert_eq!(
        handle.start_child(rig.child("b")).await,
        Err(StartError::AlreadyStarted { life: 2 })
    );
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn f3_a_full_inbox_makes_who_asks_wait_and_refuses_nothing() {
    let (ctx, rig) = (Ctx::root("t"), Rig::new());
    let supervisor = rig.supervisor(Strategy::OneForOne);
    let handle = supervisor.handle();
    // More than fit, all before the run.
    let asked: Vec<_> = (0..2000)
        .map(|n| {
            let handle = handle.clone();
            ctx.spawn("asks", async move { handle.terminate_child(&n.to_string()).await })
        })
        .collect();
    tokio::time::sleep(SEC).await;
    assert!(asked.iter().all(|asked| !asked.is_finished()), "they wait for the run");
    let running = run(&ctx, supervisor);
    for asked in asked {
        assert_eq!(asked.join().await.unwrap(), Err(ControlError::NotFound));
    }
    end(&ctx, running).await;
}
