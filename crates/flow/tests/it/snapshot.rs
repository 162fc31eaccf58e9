//! The periodic snapshot: its numbers, its gauges, and the growth it names.

use std::future::pending;
use std::panic::Location;
use std::time::Duration;

use forebay_flow::latest::Reader;
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::snapshot::{Config, Periodic, Snapshot};
use forebay_flow::{Cause, Ctx, leak};

const SEC: Duration = Duration::from_secs(1);
const MIN: Duration = Duration::from_secs(60);

async fn next(reader: &mut Reader<Snapshot>) -> Snapshot {
    Snapshot::clone(reader.changed().await)
}

#[tokio::test(start_paused = true)]
async fn b89_a_leaking_place_is_named_in_the_third_snapshot_and_no_longer_once_it_is_mended() {
    let ctx = Ctx::root("t");
    let first = line!();
    let steady: Vec<_> = (0..500).map(|_| ctx.spawn("steady", pending::<()>())).collect();
    let leak = || ctx.spawn("leaks", pending::<()>());
    let leaks_at = line!() - 1;
    let comes_and_goes = || ctx.spawn("short", pending::<()>());
    let here = |place: &&Location<'_>| {
        place.file().ends_with("it/snapshot.rs") && (first..first + 10).contains(&place.line())
    };
    let growing = |snapshot: &Snapshot| -> Vec<u32> {
        let places = snapshot.growing.iter().map(|growing| growing.key);
        places.filter(here).map(|place| place.line()).collect()
    };

    let periodic = Periodic::new(Config { places: 100, stacks: 0, ..Config::default() });
    let mut reader = periodic.reader();
    assert_eq!(reader.get().number, 0);
    let running = ctx.spawn("snapshots", periodic.run(ctx.clone()));
    assert!(growing(&next(&mut reader).await).is_empty());
    let (mut leaked, mut named) = (Vec::new(), Vec::new());
    for round in 1..=6 {
        tokio::time::sleep(MIN).await;
        leaked.extend((0..30).filter(|_| round < 5).map(|_| leak()));
        tokio::time::sleep(3 * MIN + 30 * SEC).await;
        // Ever more of them, but none lives for a minute.
        let _short: Vec<_> = (0..1000 * round).map(|_| comes_and_goes()).collect();
        let snapshot = next(&mut reader).await;
        assert_eq!(snapshot.number, round as u64 + 1);
        named.push(growing(&snapshot));
    }
    // 30, 60, 90 and 120 of them, and then no more.
    assert_eq!(named, [vec![], vec![], vec![leaks_at], vec![leaks_at], vec![], vec![]]);
    ctx.cancel(Cause::Shutdown);
    assert_eq!(running.join().await, Ok(Ok(())));
    drop((leaked, steady));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_counts_by_state_and_keeps_the_largest_places() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded::<u8>("snapshot-quiet", Bound::items(1), Full::Block);
    let waiting: Vec<_> = (0..3000)
        .map(|_| {
            let rx = rx.clone();
            ctx.spawn("takes", async move { rx.recv().await })
        })
        .collect();
    let _idle: Vec<_> = (0..2000).map(|_| ctx.spawn("idler", pending::<()>())).collect();
    let periodic = Periodic::new(Config { places: 100, stacks: 0, ..Config::default() });
    let mut reader = periodic.reader();
    let running = ctx.spawn("snapshots", periodic.run(ctx.clone()));
    next(&mut reader).await;
    let snapshot = next(&mut reader).await;
    drop(running);
    let ours = snapshot.places.iter().filter(|at| ["takes", "idler"].contains(&&*at.name));
    let ours: Vec<_> = ours.map(|at| (&*at.name, at.count)).collect();
    assert_eq!(ours, [("takes", 3000), ("idler", 2000)]);
    let all = snapshot.tasks + snapshot.threads;
    assert_eq!(snapshot.running + snapshot.waiting + snapshot.idle, all);
    assert!(snapshot.waiting >= 3000 && snapshot.idle >= 2000);
    assert!(snapshot.oldest >= 5 * MIN);
    let gauges = snapshot.gauges();
    let of = |name: &'static str| gauges.iter().filter(move |gauge| gauge.name == name);
    assert_eq!(of("flow_tasks").map(|gauge| gauge.value).sum::<f64>(), all as f64);
    assert!(of("flow_tasks_by_place").any(|gauge| {
        gauge.value == 3000.0 && gauge.labels.contains(&("name", "takes".to_owned()))
    }));
    let narrow = Periodic::new(Config { places: 1, stacks: 0, ..Config::default() });
    let mut reader = narrow.reader();
    let _running = ctx.spawn("snapshots", narrow.run(ctx.clone()));
    let snapshot = next(&mut reader).await;
    let [largest] = &snapshot.places[..] else { panic!("one: {snapshot:?}") };
    assert_eq!(largest.count + snapshot.elsewhere, snapshot.tasks + snapshot.threads);
    drop((waiting, tx));
}

#[inline(never)]
async fn stands_here() {
    std::future::poll_fn::<(), _>(|cx| {
        let _kept = cx.waker().clone();
        std::task::Poll::Pending
    })
    .await;
}

#[tokio::test]
async fn stacks_are_counted_by_a_hash_that_stays_and_speak_for_their_whole_group() {
    let ctx = Ctx::root("t");
    let _tasks: Vec<_> = (0..5000).map(|_| ctx.spawn("stands", stands_here())).collect();
    let periodic = Periodic::new(Config { every: SEC, stacks: 100, ..Config::default() });
    let mut reader = periodic.reader();
    let _running = ctx.spawn("snapshots", periodic.run(ctx.clone()));
    let mut seen = Vec::new();
    for _ in 0..50 {
        let snapshot = next(&mut reader).await;
        assert!(snapshot.stacks.len() <= 100);
        let ours = snapshot.stacks.iter().find(|at| at.leaf().contains("it/snapshot.rs"));
        seen.extend(ours.map(|at| (at.hash, at.count)));
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(seen, [(seen[0].0, 5000); 2]);
}
