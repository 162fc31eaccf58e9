//! Many children: the supervisor's work grows with their number and no faster. Counted, never timed.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_flow::supervise::{Child, Restart, Strategy, Supervisor};
use forebay_flow::{Cause, Ctx, Stopped, clock};

/// Counts how often `fut` is polled.
async fn counting<F: Future>(polls: Arc<AtomicU64>, fut: F) -> F::Output {
    let mut fut = pin!(fut);
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        fut.as_mut().poll(cx)
    })
    .await
}

fn idle(n: usize, ends: bool) -> Child {
    Child::new(format!("c{n}"), move |ctx: Ctx| async move {
        if ends {
            // All in the moment of the shutdown, by themselves.
            return ctx.run(tokio::time::sleep(Duration::from_secs(3600))).await;
        }
        ctx.cancelled().await;
        Ok::<(), Stopped>(())
    })
    .restart(Restart::Temporary)
}

/// Polls of the supervisor, and reports of exits, from its start to its end.
async fn work(n: usize, dynamic: bool, ends: bool) -> (u64, u64) {
    let (ctx, polls, reports) = (Ctx::root("t"), Arc::default(), Arc::new(AtomicU64::new(0)));
    let told = Arc::clone(&reports);
    let mut supervisor = Supervisor::new("sup", Strategy::OneForOne).on_exit(move |_| {
        told.fetch_add(1, Ordering::Relaxed);
    });
    if !dynamic {
        supervisor = (0..n).map(|n| idle(n, ends)).fold(supervisor, Supervisor::child);
    }
    let handle = supervisor.handle();
    let counted = counting(Arc::clone(&polls), supervisor.run(ctx.clone()));
    let running = ctx.spawn("supervisor", counted);
    if dynamic {
        for n in 0..n {
            handle.start_child(idle(n, ends)).await.unwrap();
        }
    }
    let end = clock::now() + Duration::from_secs(3600);
    while handle.counts().active < n {
        tokio::task::yield_now().await;
    }
    if ends {
        tokio::time::sleep_until(end - Duration::from_millis(1)).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await.unwrap(), Ok(()));
    assert_eq!((handle.counts().active, ctx.live()), (0, 0));
    (polls.load(Ordering::Relaxed), reports.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn b38_so_many_times_as_many_children_cost_so_many_times_the_polls() {
    for (most, dynamic, ends) in
        [(100, false, false), (10, false, true), (10, true, false), (10, true, true)]
    {
        let (few, reports) = work(1000, dynamic, ends).await;
        assert_eq!(reports, 1000);
        let (many, reports) = work(1000 * most, dynamic, ends).await;
        assert_eq!(reports, 1000 * most as u64, "each child's end is reported once");
        println!(
            "{most} times as many (dynamic {dynamic}, end together {ends}): {few} -> {many} polls"
        );
        assert!(many <= most as u64 * few * 11 / 10 + 100, "{few} polls became {many}");
        // One to start, one to tell, one to hear of the end: a handful for each child.
        assert!(many <= 5 * 1000 * most as u64, "{many} polls");
    }
}

#[tokio::test]
async fn a_supervisors_run_is_a_small_future() {
    let run = Supervisor::new("sup", Strategy::OneForOne).run(Ctx::root("t"));
    let size = size_of_val(&run);
    assert!(size <= 8 * 1024, "{size} bytes");
}
