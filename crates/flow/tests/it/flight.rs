//! Single flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_flow::flight::Flight;
use forebay_flow::{Ctx, Task, tasks};
use tokio::sync::oneshot;

use crate::rig::until;

type Answer = Result<u32, String>;

/// Calls that count their starts and end when they are told.
#[derive(Clone)]
struct Rig {
    flight: Flight<&'static str, u32>,
    starts: Arc<AtomicUsize>,
    ctx: Ctx,
}

impl Rig {
    fn new() -> Self {
        Self { flight: Flight::new("f"), starts: Arc::default(), ctx: Ctx::root("t") }
    }

    /// A caller whose call, if it starts one, answers what `told` brings; zero is a panic.
    fn call(&self, told: oneshot::Receiver<u32>) -> Task<Answer> {
        let rig = self.clone();
        self.ctx.spawn("caller", async move {
            let answer = rig.flight.run("key", || {
                rig.starts.fetch_add(1, Ordering::Relaxed);
                async move {
                    match told.await {
                        Ok(0) => panic!("zero"),
                        Ok(n) => n,
                        Err(_) => u32::MAX,
                    }
                }
            });
            answer.await.map_err(|panicked| panicked.to_string())
        })
    }

    fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }
}

/// Answers the largest number at once, if its caller is the one that starts the call.
fn untold() -> oneshot::Receiver<u32> {
    oneshot::channel().1
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn b60_concurrent_callers_of_one_key_share_one_call() {
    let rig = Rig::new();
    let (tell, told) = oneshot::channel();
    let mut callers = vec![rig.call(told)];
    settle().await;
    callers.extend((0..9).map(|_| rig.call(untold())));
    settle().await;
    let last = callers.last().unwrap().id();
    let seen = tasks::snapshot().into_iter().find(|task| task.id == last).unwrap();
    assert_eq!(seen.waiting_on.as_deref(), Some("flight `f`"));
    tell.send(7).unwrap();
    for caller in callers {
        assert_eq!(caller.join().await.unwrap(), Ok(7));
    }
    assert_eq!((rig.starts(), rig.flight.len()), (1, 0));
    assert_eq!(rig.call(untold()).join().await.unwrap(), Ok(u32::MAX));
    assert_eq!(rig.starts(), 2, "nothing is cached");
}

#[tokio::test(start_paused = true)]
async fn b60_other_keys_do_not_wait() {
    let flight = Flight::new("f");
    let mut stuck = Box::pin(flight.run(1, std::future::pending));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut stuck).await.is_err());
    assert_eq!(flight.run(2, || async { 5 }).await, Ok(5));
}

#[tokio::test(start_paused = true)]
async fn b60_a_panic_reaches_every_waiter_and_the_next_caller_starts_anew() {
    let rig = Rig::new();
    let (tell, told) = oneshot::channel();
    let callers: Vec<_> =
        std::iter::once(rig.call(told)).chain((0..3).map(|_| rig.call(untold()))).collect();
    settle().await;
    tell.send(0).unwrap();
    for caller in callers {
        assert_eq!(caller.join().await.unwrap(), Err("zero".to_owned()));
    }
    assert_eq!(rig.call(untold()).join().await.unwrap(), Ok(u32::MAX));
}

#[tokio::test(start_paused = true)]
async fn b60_forget_starts_anew_and_the_old_calls_end_does_not_evict_the_new_one() {
    let rig = Rig::new();
    let ((tell_old, old), (tell_new, new)) = (oneshot::channel(), oneshot::channel());
    let old = rig.call(old);
    settle().await;
    assert!(rig.flight.forget(&"key"));
    assert!(!rig.flight.forget(&"key"));
    let new = rig.call(new);
    settle().await;
    assert_eq!(rig.starts(), 2);
    tell_old.send(1).unwrap();
    assert_eq!(old.join().await.unwrap(), Ok(1), "who was in gets the old result");
    let joins_new = rig.call(untold());
    settle().await;
    assert_eq!((rig.starts(), rig.flight.len()), (2, 1), "the new call is still there to join");
    tell_new.send(2).unwrap();
    assert_eq!(new.join().await.unwrap(), Ok(2));
    assert_eq!(joins_new.join().await.unwrap(), Ok(2));
    assert!(rig.flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn b88_a_cancelled_leader_hands_the_same_call_over_to_a_waiter() {
    let rig = Rig::new();
    let (tell, told) = oneshot::channel();
    let leader = rig.call(told);
    settle().await;
    let waiters: Vec<_> = (0..3).map(|_| rig.call(untold())).collect();
    settle().await;
    drop(leader);
    settle().await;
    tell.send(9).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.join().await.unwrap(), Ok(9));
    }
    assert_eq!(rig.starts(), 1, "it went on where it stood");
}

#[tokio::test(start_paused = true)]
async fn b88_an_heir_that_is_cancelled_before_it_takes_over_hands_on() {
    let flight = Flight::new("f");
    let (tell, told) = oneshot::channel::<u32>();
    let mut leader = Box::pin(flight.run("key", || async { told.await.unwrap() }));
    let mut heir = Box::pin(flight.run("key", std::future::pending));
    std::future::poll_fn(|cx| {
        assert!(leader.as_mut().poll(cx).is_pending());
        assert!(heir.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    let ctx = Ctx::root("t");
    let last = {
        let flight = flight.clone();
        ctx.spawn("last", async move { flight.run("key", std::future::pending).await })
    };
    settle().await;
    drop(leader); // wakes the heir, which never polls again
    drop(heir);
    settle().await;
    tell.send(3).unwrap();
    assert_eq!(last.join().await.unwrap(), Ok(3));
}

#[tokio::test(start_paused = true)]
async fn b88_when_every_caller_is_cancelled_the_call_is_dropped() {
    let rig = Rig::new();
    let (tell, told) = oneshot::channel();
    let callers = [rig.call(told), rig.call(untold())];
    settle().await;
    drop(callers);
    until(|| tell.is_closed()).await;
    assert!(rig.flight.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b88_callers_that_come_and_are_cancelled_at_random_all_end_and_leave_nothing() {
    let (ctx, flight) = (Ctx::root("t"), Flight::new("f"));
    let callers: Vec<_> = (0..64_u64)
        .map(|n| {
            let flight = flight.clone();
            ctx.spawn("caller", async move {
                for round in 0..100 {
                    let call = flight.run(round % 3, || async {
                        for _ in 0..5 {
                            tokio::task::yield_now().await;
                        }
                        1_u8
                    });
                    let limit = Duration::from_micros((n * 37 + round * 13) % 300);
                    if let Ok(answer) = tokio::time::timeout(limit, call).await {
                        assert_eq!(answer, Ok(1));
                    }
                }
                // One without a limit: it must be served, whoever was cancelled before it.
                flight.run(0, || async { 1_u8 }).await
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().await.unwrap(), Ok(1));
    }
    assert!(flight.is_empty());
}
