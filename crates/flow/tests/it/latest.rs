//! The latest-value register.

use std::thread;
use std::time::Duration;

use forebay_flow::latest::Latest;
use forebay_flow::{Ctx, tasks};

use crate::rig::until;

#[test]
fn b79_concurrent_sets_leave_one_of_them_and_readers_see_it_whole_and_never_an_older_one() {
    const SETS: u64 = 3000;
    let register = Latest::new("position", [0_u64; 8]);
    let winner = thread::scope(|scope| {
        let setters: Vec<_> = (1..=3_u64)
            .map(|setter| {
                let register = register.clone();
                scope.spawn(move || {
                    // Each setter's values grow, so a reader that went back would see one shrink.
                    let mut last = (0, 0);
                    for n in 1..=SETS {
                        let value = setter * 1_000_000 + n;
                        last = (register.set([value; 8]), value);
                    }
                    last
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = register.reader();
                scope.spawn(move || {
                    let (mut version, mut seen) = (0, [0_u64; 4]);
                    while version < 3 * SETS {
                        let value = **reader.get();
                        assert!(value.iter().all(|part| *part == value[0]), "torn: {value:?}");
                        assert!(reader.version() >= version, "an older version after a newer");
                        version = reader.version();
                        let setter = (value[0] / 1_000_000) as usize;
                        assert!(value[0] >= seen[setter], "an older value after a newer");
                        seen[setter] = value[0];
                    }
                    reader.get()[0]
                })
            })
            .collect();
        let last = setters.into_iter().map(|setter| setter.join().unwrap()).max().unwrap();
        assert_eq!(last.0, 3 * SETS, "every set has a version of its own");
        for reader in readers {
            assert_eq!(reader.join().unwrap(), last.1);
        }
        last.1
    });
    assert_eq!(register.get()[0], winner);
}

#[test]
fn b79_an_update_loses_none_of_the_others() {
    let register = Latest::new("count", 0_u64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    register.update(|n| n + 1);
                }
            });
        }
    });
    assert_eq!((*register.get(), register.reader().version()), (4000, 4000));
}

#[test]
fn an_update_that_panics_changes_nothing() {
    let register = Latest::new("count", 1);
    let update = std::panic::AssertUnwindSafe(|| register.update(|_| panic!("no value")));
    assert!(std::panic::catch_unwind(update).is_err());
    assert_eq!((register.set(2), *register.get()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_the_next_value_and_gets_the_last_of_several() {
    let ctx = Ctx::root("t");
    let register = Latest::new("leader", "a");
    let mut reader = register.reader();
    let waiting = ctx.spawn("reader", async move {
        let value = **reader.changed().await;
        (value, reader)
    });
    until(|| {
        tasks::snapshot().iter().any(|task| {
            task.id == waiting.id() && task.waiting_on.as_deref() == Some("latest `leader`")
        })
    })
    .await;
    register.set("b");
    register.set("c");
    let (value, mut reader) = waiting.join().await.unwrap();
    assert_eq!((value, reader.has_changed()), ("c", false));
    let wait = tokio::time::timeout(Duration::from_secs(1), reader.changed()).await;
    assert!(wait.is_err(), "a value counts as new once");
    register.set("d");
    assert_eq!(**reader.changed().await, "d");
}

#[test]
fn a_replaced_value_is_dropped_when_its_last_reader_looks_again() {
    let mark = std::sync::Arc::new(());
    let register = Latest::new("mark", std::sync::Arc::clone(&mark));
    let mut reader = register.reader();
    register.set(std::sync::Arc::default());
    assert_eq!(std::sync::Arc::strong_count(&mark), 2);
    reader.get();
    assert_eq!(std::sync::Arc::strong_count(&mark), 1);
}
