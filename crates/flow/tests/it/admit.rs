//! Admission: slots, rate, breaker, bulkhead, retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_flow::admit::breaker::{self, Breaker, CallError, Reason, State, Transition, Tripped};
use forebay_flow::admit::bulkhead::{self, Bulkhead, Refused};
use forebay_flow::admit::rate::{Bucket, NeverEnough, Quota, Rate};
use forebay_flow::admit::retry::{self, Budget, GiveUpReason, Jitter, Retry, Verdict};
use forebay_flow::admit::slots::{SlotError, Slots};
use forebay_flow::{Cause, Ctx, Stopped, budget, clock, tasks};
use parking_lot::Mutex;
use tokio::time::{advance, timeout};

use crate::rig::until;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

// Slots

#[tokio::test(start_paused = true)]
async fn b61_slots_serve_in_order_refuse_the_impossible_and_leak_nothing() {
    let (ctx, slots) = (Ctx::root("t"), Slots::new("renders", 10));
    let held = slots.acquire(&ctx, 4).await.unwrap();
    let large = {
        let (ctx, slots) = (ctx.clone(), slots.clone());
        ctx.clone().spawn("large", async move { slots.acquire(&ctx, 10).await })
    };
    until(|| slots.waiters() == 1).await;
    assert!(slots.try_acquire(1).is_none(), "a small one does not slip past the large");
    let impossible = slots.acquire(&ctx, 11).await.map(drop);
    assert_eq!(impossible, Err(SlotError::TooLarge), "at once, though others wait");
    let cancelled = slots.acquire_within(&ctx, 1, clock::now() + SEC).await.map(drop);
    assert_eq!(cancelled, Err(SlotError::TimedOut));
    drop(held);
    drop(large.join().await.unwrap().unwrap());
    assert_eq!((slots.used(), slots.waiters(), slots.capacity()), (0, 0, 10));
    assert!(budget::snapshot().iter().all(|share| share.share != "renders"), "they are no bytes");
}

#[tokio::test(start_paused = true)]
async fn b61_a_cancelled_context_never_acquires_slots_and_gives_its_place_up() {
    let (ctx, slots) = (Ctx::root("t"), Slots::new("renders", 1));
    let held = slots.try_acquire(1).unwrap();
    let waits = {
        let (ctx, slots) = (ctx.child("waits"), slots.clone());
        ctx.clone().spawn("waits", async move { slots.acquire(&ctx, 1).await.map(drop) })
    };
    until(|| slots.waiters() == 1).await;
    ctx.cancel(Cause::Shutdown);
    let stopped = Err(SlotError::Stopped(Stopped::Cancelled(Cause::Shutdown)));
    assert_eq!(waits.join().await.unwrap(), stopped);
    drop(held);
    assert_eq!(slots.acquire(&ctx, 1).await.map(drop), stopped, "although one is free");
    assert_eq!((slots.used(), slots.waiters()), (0, 0));
}

// Rate

#[tokio::test(start_paused = true)]
async fn b71_a_bucket_starts_full_refills_on_the_fake_clock_and_never_passes_its_burst() {
    let rate = Rate::new("calls", Quota { burst: 5, ..Quota::per_second(10) });
    assert_eq!(rate.available(), 5);
    assert!(rate.try_acquire(5));
    assert!(!rate.try_acquire(1));
    advance(99 * MS).await;
    assert_eq!(rate.available(), 0);
    advance(MS).await;
    assert_eq!(rate.available(), 1);
    advance(3600 * SEC).await;
    assert_eq!(rate.available(), 5);
    assert!(rate.try_acquire(5) && !rate.try_acquire(1));
}

#[tokio::test(start_paused = true)]
async fn b71_fractions_of_a_token_are_exact_for_ever() {
    let mut now = clock::now();
    for (tokens, per, step) in [
        (3_u32, SEC, Duration::from_nanos(7)),
        (7, Duration::from_nanos(1_000_003), Duration::from_nanos(13)),
        (1, 3600 * SEC, Duration::from_micros(999_983)),
        (u32::MAX, SEC, Duration::from_nanos(1)),
    ] {
        let mut bucket = Bucket::full(Quota { tokens, per, burst: u32::MAX }, now);
        assert_eq!(bucket.take(now, u32::MAX), Ok(None), "full at first");
        for _ in 0..10_000 {
            now += step;
            let _looks = bucket.available(now); // a look must not round anything away
        }
        let exact = u128::from(tokens) * (step * 10_000).as_nanos() / per.as_nanos();
        assert_eq!(u128::from(bucket.available(now)), exact, "{tokens} per {per:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn b71_the_wait_that_is_told_is_the_shortest_that_does() {
    let mut now = clock::now();
    let mut bucket = Bucket::full(Quota { burst: 4, ..Quota::per_second(3) }, now);
    bucket.take(now, 4).unwrap();
    for tokens in [1, 2, 3, 4, 1, 3] {
        let wait = bucket.take(now, tokens).unwrap().unwrap();
        let early = now + wait - Duration::from_nanos(1);
        assert_eq!(bucket.take(early, tokens), Ok(Some(Duration::from_nanos(1))));
        now += wait;
        assert_eq!(bucket.take(now, tokens), Ok(None));
    }
    assert_eq!(bucket.take(now, 5), Err(NeverEnough));
    let earlier = now - SEC;
    assert_eq!(bucket.available(earlier), 0, "a clock that went back gives nothing");
}

#[tokio::test(start_paused = true)]
async fn b71_a_cancelled_wait_returns_what_it_took_and_lets_those_behind_pass() {
    let ctx = Ctx::root("t");
    let rate = Rate::new("calls", Quota::per_second(10));
    assert!(rate.try_acquire(10));
    let began = clock::now();
    let waiter = |tokens| {
        let rate = rate.clone();
        ctx.spawn("waiter", async move {
            rate.acquire(tokens).await.map(|()| clock::now().duration_since(began))
        })
    };
    let large = waiter(10);
    until(|| rate.waiters() == 1).await;
    let seen = tasks::snapshot().into_iter().find(|task| task.id == large.id()).unwrap();
    assert_eq!(seen.waiting_on.as_deref(), Some("rate `calls`"));
    let small = waiter(6);
    until(|| rate.waiters() == 2).await;
    tokio::time::sleep_until(began + 500 * MS).await;
    assert!(!rate.try_acquire(1), "nobody slips past those in line");
    assert!(!small.is_finished(), "the large one is not starved");
    drop(large);
    let waited = small.join().await.unwrap().unwrap();
    assert!(waited >= 600 * MS && waited <= 602 * MS, "{waited:?}");
    assert_eq!((rate.available(), rate.waiters()), (0, 0));
    assert_eq!(rate.acquire(11).await, Err(NeverEnough));
}

#[tokio::test(start_paused = true)]
async fn b71_many_waiters_take_exactly_what_the_quota_gives() {
    let ctx = Ctx::root("t");
    let rate = Rate::new("calls", Quota { burst: 2, ..Quota::per_second(100) });
    let began = clock::now();
    let tasks: Vec<_> = (0..102)
        .map(|n| {
            let rate = rate.clone();
            ctx.spawn("w", async move {
                // Every third gives up early.
                let limit = if n % 3 == 0 { 20 * MS } else { 1000 * SEC };
                timeout(limit, rate.acquire(1)).await.is_ok()
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += u32::from(task.join().await.unwrap());
    }
    let elapsed = clock::now().duration_since(began);
    assert!(granted >= 68);
    let least = 10 * MS * (granted - 2);
    assert!(elapsed >= least && elapsed <= least + 150 * MS, "{granted} in {elapsed:?}");
    assert_eq!(rate.waiters(), 0);
}

// Breaker

fn settings() -> breaker::Config {
    breaker::Config {
        window: 10 * SEC,
        buckets: 10,
        min_samples: 4,
        failure_percent: 50,
        open_for: 5 * SEC,
        probes: 2,
        max_retry_after: 60 * SEC,
    }
}

type Changes = Arc<Mutex<Vec<Transition>>>;

fn breaker(settings: breaker::Config) -> (Breaker, Changes) {
    let changes = Changes::default();
    let heard = Arc::clone(&changes);
    let breaker =
        Breaker::new("peer", settings).on_transition(move |change| heard.lock().push(*change));
    (breaker, changes)
}

fn fail(breaker: &Breaker, times: u32) {
    (0..times).for_each(|_| breaker.admit().unwrap().failure());
}

fn steps(changes: &Changes) -> Vec<(State, State, Reason)> {
    changes.lock().iter().map(|change| (change.from, change.to, change.reason)).collect()
}

#[tokio::test(start_paused = true)]
async fn b66_it_opens_on_ratio_and_minimum_samples_probes_and_closes_each_an_event() {
    use State::{Closed, HalfOpen, Open};
    let (breaker, changes) = breaker(settings());
    fail(&breaker, 3);
    assert_eq!(breaker.state(), Closed, "three samples are too few, all failed as they are");
    breaker.admit().unwrap().success();
    assert_eq!(
        breaker.state(),
        Open,
        "the fourth sample made them enough, and three of four failed"
    );
    assert_eq!(breaker.admit().unwrap_err(), Tripped { retry_after: Some(5 * SEC) });
    advance(5 * SEC - MS).await;
    assert_eq!(breaker.admit().unwrap_err(), Tripped { retry_after: Some(MS) });
    advance(MS).await;
    let probes = [breaker.admit().unwrap(), breaker.admit().unwrap()];
    assert_eq!(breaker.state(), HalfOpen);
    for probe in probes {
        probe.success();
    }
    assert_eq!(breaker.state(), Closed);
    (0..5).for_each(|_| breaker.admit().unwrap().success());
    fail(&breaker, 4);
    assert_eq!(
        breaker.state(),
        Closed,
        "four of nine are not half, and what was before is forgotten"
    );
    fail(&breaker, 1);
    assert_eq!(
        steps(&changes),
        [
            (Closed, Open, Reason::Ratio { failures: 3, samples: 4 }),
            (Open, HalfOpen, Reason::Elapsed),
            (HalfOpen, Closed, Reason::ProbesPassed),
            (Closed, Open, Reason::Ratio { failures: 5, samples: 10 }),
        ]
    );
    let numbers: Vec<_> = changes.lock().iter().map(|change| change.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn b66_half_open_admits_exactly_the_probes() {
    let (breaker, changes) = breaker(settings());
    fail(&breaker, 4);
    advance(5 * SEC).await;
    let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
    for _ in 0..10 {
        assert_eq!(breaker.admit().unwrap_err(), Tripped { retry_after: None });
    }
    first.success();
    assert_eq!(breaker.admit().unwrap_err().retry_after, None, "a probe that ended is no new one");
    drop(second); // cancelled: its place is free
    let second = breaker.admit().unwrap();
    assert!(breaker.admit().is_err());
    second.success();
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(changes.lock().len(), 3);
}

#[test]
fn b66_half_open_admits_exactly_the_probes_to_racing_callers() {
    let (breaker, _changes) = breaker(breaker::Config { open_for: Duration::ZERO, ..settings() });
    fail(&breaker, 4);
    let passes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    passes.lock().extend(breaker.admit());
                }
            });
        }
    });
    assert_eq!(passes.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn b66_a_failed_probe_opens_again_and_old_passes_have_no_say() {
    let (breaker, changes) = breaker(settings());
    let old: Vec<_> = (0..3).map(|_| breaker.admit().unwrap()).collect();
    fail(&breaker, 4);
    advance(5 * SEC).await;
    let (good, bad) = (breaker.admit().unwrap(), breaker.admit().unwrap());
    for pass in old {
        pass.success();
    }
    assert_eq!(breaker.state(), State::HalfOpen, "successes of before close nothing");
    bad.failure();
    assert_eq!(breaker.state(), State::Open);
    good.success();
    assert_eq!(breaker.admit().unwrap_err(), Tripped { retry_after: Some(5 * SEC) });
    assert_eq!(changes.lock().last().unwrap().reason, Reason::ProbeFailed);
}

#[tokio::test(start_paused = true)]
async fn b66_outcomes_slide_out_of_the_window() {
    let (breaker, _changes) = breaker(settings());
    fail(&breaker, 3);
    advance(10 * SEC).await;
    fail(&breaker, 3);
    assert_eq!(breaker.state(), State::Closed, "the first three are out");
    advance(9 * SEC).await;
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open, "the last three are not");
    advance(5 * SEC).await;
    (0..2).for_each(|_| breaker.admit().unwrap().success());
    advance(1_000_000 * SEC).await;
    fail(&breaker, 3);
    assert_eq!(breaker.state(), State::Closed, "a long rest leaves nothing behind");
}

#[tokio::test(start_paused = true)]
async fn b66_a_call_counts_its_error_and_a_cancelled_one_nothing() {
    let (breaker, _changes) = breaker(breaker::Config { min_samples: 1, ..settings() });
    let never = breaker.call(std::future::pending::<Result<(), ()>>());
    assert!(timeout(SEC, never).await.is_err());
    assert_eq!(breaker.call(async { Ok::<_, ()>(1) }).await, Ok(1));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.call(async { Err::<(), _>("no") }).await, Err(CallError::Failed("no")));
    let refused = breaker.call(async { Ok::<_, ()>(1) }).await;
    assert_eq!(refused, Err(CallError::Tripped(Tripped { retry_after: Some(5 * SEC) })));
}

#[tokio::test(start_paused = true)]
async fn b67_a_peers_retry_after_is_honoured_to_the_moment_and_within_the_cap() {
    let (breaker, changes) = breaker(settings());
    let (late, hostile) = (breaker.admit().unwrap(), breaker.admit().unwrap());
    breaker.admit().unwrap().retry_after(20 * SEC);
    assert_eq!(breaker.admit().unwrap_err(), Tripped { retry_after: Some(20 * SEC) });
    advance(10 * SEC).await;
    late.retry_after(5 * SEC);
    let shorter = breaker.admit().unwrap_err().retry_after;
    assert_eq!(shorter, Some(10 * SEC), "a shorter one does not shorten");
    hostile.retry_after(1_000_000 * SEC);
    assert_eq!(breaker.admit().unwrap_err().retry_after, Some(60 * SEC), "capped");
    advance(60 * SEC - MS).await;
    assert!(breaker.admit().is_err());
    advance(MS).await;
    breaker.admit().unwrap().retry_after(7 * SEC);
    assert_eq!(breaker.admit().unwrap_err().retry_after, Some(7 * SEC), "of a probe, too");
    let reasons: Vec<_> = changes.lock().iter().map(|change| change.reason).collect();
    let expected = [Reason::RetryAfter(20 * SEC), Reason::Elapsed, Reason::RetryAfter(7 * SEC)];
    assert_eq!(reasons, expected);
}

// Bulkhead

fn bulkhead() -> Bulkhead<&'static str> {
    Bulkhead::new("tenants", bulkhead::Config { per_key: 2, max_waiting: 1, keys: 2 })
}

#[tokio::test(start_paused = true)]
async fn b68_one_tenant_at_its_limit_does_not_delay_another() {
    let (ctx, tenants) = (Ctx::root("t"), bulkhead());
    let began = clock::now();
    let held = [tenants.enter(&ctx, "a").await.unwrap(), tenants.try_enter("a").unwrap()];
    let waits = {
        let (ctx, tenants) = (ctx.clone(), tenants.clone());
        ctx.clone().spawn("waits", async move { tenants.enter(&ctx, "a").await.map(drop) })
    };
    tokio::time::sleep(MS).await;
    assert_eq!(tenants.enter(&ctx, "a").await.map(drop), Err(Refused::Full), "one waits already");
    for _ in 0..100 {
        let other = tenants.enter(&ctx, "b").await.unwrap();
        assert_eq!(other.key(), &"b");
    }
    assert_eq!(clock::now().duration_since(began), MS, "b never waited");
    assert!(!waits.is_finished());
    drop(held);
    assert_eq!(waits.join().await.unwrap(), Ok(()));
    assert_eq!(tenants.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn b68_keys_are_bounded_and_forgotten_with_their_last_entry_or_waiter() {
    let (ctx, tenants) = (Ctx::root("t"), bulkhead());
    let (a, b) = (tenants.try_enter("a").unwrap(), tenants.try_enter("b").unwrap());
    assert_eq!(tenants.try_enter("c").map(drop), Err(Refused::TooManyKeys));
    assert_eq!(tenants.enter(&ctx, "c").await.map(drop), Err(Refused::TooManyKeys));
    drop(b);
    let c = tenants.try_enter("c").unwrap();
    drop((a, c));
    assert_eq!(tenants.keys(), 0);
    let held = [tenants.try_enter("a").unwrap(), tenants.try_enter("a").unwrap()];
    assert!(timeout(SEC, tenants.enter(&ctx, "a")).await.is_err());
    drop(held);
    assert_eq!(tenants.keys(), 0, "the cancelled wait left nothing");
    ctx.cancel(Cause::Shutdown);
    let stopped = Refused::Stopped(Stopped::Cancelled(Cause::Shutdown));
    assert_eq!(tenants.enter(&ctx, "a").await.map(drop), Err(stopped));
    assert_eq!(tenants.keys(), 0);
}

// Retry

fn retry(attempts: u32, budget: &Budget) -> Retry {
    let settings = retry::Config { base: 100 * MS, cap: 10 * SEC, attempts };
    Retry::new(settings, budget.clone(), Jitter::seeded(1))
}

#[tokio::test(start_paused = true)]
async fn b69_retries_never_pass_the_share_of_requests_whatever_fails() {
    let ctx = Ctx::root("t");
    for (percent, reserve) in [(10, 0), (25, 3), (0, 2), (100, 0)] {
        let budget = Budget::new(percent, reserve);
        let retry = retry(10, &budget);
        let made = AtomicU32::new(0);
        let mut requests = 0;
        for round in 0..300_u32 {
            requests += 1;
            // All fail, or every third call succeeds, or all succeed: it holds after each request.
            let ended = retry
                .run(
                    &ctx,
                    |_| {
                        let n = made.fetch_add(1, Ordering::Relaxed);
                        let good = round > 200 || (round > 100 && n.is_multiple_of(3));
                        async move { if good { Ok(()) } else { Err("down") } }
                    },
                    |_| Verdict::Again,
                )
                .await;
            let retries = made.load(Ordering::Relaxed) - requests;
            assert!(retries <= reserve + requests * percent / 100, "{retries} of {requests}");
            if let Err(gave_up) = ended {
                assert_eq!(gave_up.error, Some("down"));
            }
        }
        assert!(made.load(Ordering::Relaxed) > requests, "it does retry");
    }
}

#[tokio::test(start_paused = true)]
async fn b69_a_budget_is_shared_and_what_it_saves_is_bounded() {
    let budget = Budget::new(10, 1);
    let other = budget.clone();
    (0..1_000_000).for_each(|_| budget.request());
    assert_eq!(other.available(), 101);
    let spent = (0..1000).filter(|_| other.try_retry()).count();
    assert_eq!((spent, budget.available()), (101, 0));
    let gave_up = retry(5, &Budget::new(0, 0))
        .run(&Ctx::root("t"), |_| async { Err::<(), _>("down") }, |_| Verdict::Again)
        .await
        .unwrap_err();
    assert_eq!((gave_up.attempts, gave_up.reason), (1, GiveUpReason::Budget));
}

#[test]
fn b70_full_jitter_stays_within_its_bounds_is_spread_and_is_seedable() {
    let settings = retry::Config { base: 100 * MS, cap: SEC, attempts: 9 };
    let ceilings: Vec<_> = (1..=6).map(|n| settings.ceiling(n).as_millis()).collect();
    assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(settings.ceiling(u32::MAX), SEC);
    let draw = |seed| {
        let mut jitter = Jitter::seeded(seed);
        (0..4000).map(|_| jitter.up_to(SEC)).collect::<Vec<_>>()
    };
    let seed = 1843;
    println!("seed {seed}");
    let pauses = draw(seed);
    assert_eq!(pauses, draw(seed));
    assert_ne!(pauses, draw(seed + 1));
    assert!(pauses.iter().all(|pause| *pause <= SEC));
    let mut tenths = [0; 10];
    for pause in &pauses {
        tenths[(pause.as_millis() / 100).min(9) as usize] += 1;
    }
    // 400 are expected in each; the seed is fixed, so this holds always or never.
    assert!(tenths.iter().all(|count| (300..500).contains(count)), "{tenths:?}");
    assert_eq!(Jitter::new().up_to(Duration::ZERO), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn b70_pauses_follow_the_jitter_and_the_peers_word() {
    let (ctx, budget) = (Ctx::root("t"), Budget::new(0, 100));
    let began = clock::now();
    let gave_up = retry(4, &budget)
        .run(&ctx, |n| async move { Err::<(), _>(n) }, |_| Verdict::Again)
        .await
        .unwrap_err();
    assert_eq!((gave_up.error, gave_up.attempts), (Some(4), 4));
    assert_eq!(gave_up.reason, GiveUpReason::Attempts);
    let mut jitter = Jitter::seeded(1);
    let pauses: Duration = [100, 200, 400].into_iter().map(|ms| jitter.up_to(ms * MS)).sum();
    let waited = clock::now().duration_since(began);
    assert!(waited >= pauses && waited <= pauses + 4 * MS, "{waited:?} for {pauses:?}");

    let began = clock::now();
    let after = retry(2, &budget)
        .run(&ctx, |_| async { Err::<(), _>(()) }, |()| Verdict::After(3 * SEC))
        .await;
    assert_eq!(after.unwrap_err().attempts, 2);
    let waited = clock::now().duration_since(began);
    assert!(waited >= 3 * SEC && waited <= 3101 * MS, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_ends_at_a_final_error_a_deadline_a_cancel_and_an_impudent_peer() {
    let (ctx, budget) = (Ctx::root("t"), Budget::new(0, 100));
    let retry = retry(5, &budget);
    let run = async |ctx: &Ctx, verdict| {
        let failed = retry.run(ctx, |_| async { Err::<(), _>("no") }, move |_| verdict).await;
        let gave_up = failed.unwrap_err();
        (gave_up.attempts, gave_up.reason)
    };
    assert_eq!(run(&ctx, Verdict::Final).await, (1, GiveUpReason::Final));
    assert_eq!(run(&ctx, Verdict::After(11 * SEC)).await, (1, GiveUpReason::TooLong));
    let short = ctx.with_deadline(clock::now() + SEC);
    let began = clock::now();
    assert_eq!(run(&short, Verdict::After(2 * SEC)).await, (1, GiveUpReason::TooLong));
    assert_eq!(clock::now(), began, "it does not wait for what cannot be");
    assert_eq!(budget.available(), 100, "what was not made was not paid");
    let child = ctx.child("c");
    child.cancel(Cause::Shutdown);
    let stopped = GiveUpReason::Stopped(Stopped::Cancelled(Cause::Shutdown));
    assert_eq!(run(&child, Verdict::Again).await.1, stopped);
}
