//! One publisher, many subscribers, none of whom the others notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_flow::Ctx;
use forebay_flow::broadcast::{Broadcast, Gone};

/// Counts its clones: what a publish costs is one for each subscriber it serves.
struct Item {
    n: u64,
    clones: Arc<AtomicU64>,
}

impl Clone for Item {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::Relaxed);
        Self { n: self.n, clones: Arc::clone(&self.clones) }
    }
}

#[tokio::test(start_paused = true)]
async fn b78_the_publishers_cost_is_independent_of_slow_subscribers() {
    let clones = Arc::new(AtomicU64::new(0));
    let item = |n| Item { n, clones: Arc::clone(&clones) };
    let broadcast = Broadcast::new("ticks", 4);
    let slow: Vec<_> = (0..1000).map(|_| broadcast.subscribe("slow")).collect();
    let mut quick = broadcast.subscribe("quick");
    for n in 0..5 {
        broadcast.publish(item(n));
        assert_eq!(quick.recv().await.map(|item| item.n), Ok(n));
    }
    assert_eq!(clones.swap(0, Ordering::Relaxed), 5 * 1001, "each was served or found full once");
    let stats = broadcast.stats();
    assert_eq!((stats.subscribers, stats.evicted), (1, 1000));
    for n in 5..1005 {
        assert_eq!(broadcast.publish(item(n)), 1);
        assert_eq!(quick.recv().await.map(|item| item.n), Ok(n));
    }
    assert_eq!(clones.load(Ordering::Relaxed), 1000, "the thousand slow ones cost nothing more");
    assert_eq!(broadcast.stats().delivered, 4 * 1001 + 1 + 1000);
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn b78_the_evicted_one_reads_its_outbox_and_then_learns_why_and_how_many_it_missed() {
    let broadcast = Broadcast::new("ticks", 3);
    broadcast.publish(0); // before anybody came: nobody misses it
    let mut slow = broadcast.subscribe("slow");
    for n in 1..=3 {
        assert_eq!(broadcast.publish(n), 1);
    }
    assert_eq!(broadcast.publish(4), 0, "full: out");
    for n in 5..=10 {
        broadcast.publish(n);
    }
    for n in 1..=3 {
        assert_eq!(slow.recv().await, Ok(n));
    }
    assert_eq!(slow.recv().await, Err(Gone::Slow { missed: 7 }));
    assert_eq!(slow.try_recv(), Err(Gone::Slow { missed: 7 }), "it stays told");
    drop(broadcast);
    assert_eq!(slow.recv().await, Err(Gone::Slow { missed: 7 }));
}

#[tokio::test(start_paused = true)]
async fn b78_a_subscriber_that_waits_is_woken_and_one_that_left_costs_nothing() {
    let ctx = Ctx::root("t");
    let broadcast = Broadcast::new("ticks", 1);
    let mut waiting = broadcast.subscribe("waits");
    let leaves = broadcast.subscribe("leaves");
    let task = ctx.spawn("waits", async move {
        let mut seen = Vec::new();
        loop {
            match waiting.recv().await {
                Ok(n) => seen.push(n),
                Err(gone) => break (seen, gone),
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(broadcast.publish(1), 2);
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(leaves);
    assert_eq!(broadcast.publish(2), 1);
    let stats = broadcast.stats();
    assert_eq!((stats.left, stats.evicted, stats.subscribers), (1, 0, 1));
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(broadcast);
    assert_eq!(task.join().await.unwrap(), (vec![1, 2], Gone::Closed));
}

#[test]
fn subscribers_that_left_are_forgotten_although_nothing_is_published() {
    let broadcast = Broadcast::<u8>::new("ticks", 1);
    let stays = broadcast.subscribe("stays");
    for _ in 0..10_000 {
        drop(broadcast.subscribe("leaves"));
    }
    assert!(broadcast.stats().subscribers <= 64);
    assert_eq!(broadcast.publish(1), 1);
    drop(stays);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b78_two_publishers_are_heard_in_one_order_by_all_and_counts_reconcile() {
    const EACH: u64 = 2000;
    let ctx = Ctx::root("t");
    let broadcast = Broadcast::new("ticks", 64);
    let subscribers: Vec<_> = (0..4)
        .map(|_| {
            let mut subscriber = broadcast.subscribe("s");
            ctx.spawn("s", async move {
                let mut seen = Vec::new();
                loop {
                    match subscriber.recv().await {
                        Ok(item) => seen.push(item),
                        Err(_) => break (seen, subscriber),
                    }
                }
            })
        })
        .collect();
    let publishers: Vec<_> = (0..2_u64)
        .map(|publisher| {
            let broadcast = broadcast.clone();
            ctx.spawn("p", async move {
                for n in 0..EACH {
                    broadcast.publish((publisher, n));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().await.unwrap();
    }
    let delivered = broadcast.stats().delivered;
    drop(broadcast);
    let (mut got, mut longest) = (0, Vec::new());
    let mut orders = Vec::new();
    for subscriber in subscribers {
        let (seen, mut subscriber) = subscriber.join().await.unwrap();
        got += seen.len() as u64;
        // Asked again now that all is published, the count of what was missed is final.
        let missed = match subscriber.try_recv() {
            Err(Gone::Slow { missed }) => missed,
            other => {
                assert_eq!(other, Err(Gone::Closed));
                0
            }
        };
        assert_eq!(seen.len() as u64 + missed, 2 * EACH);
        if seen.len() > longest.len() {
            longest.clone_from(&seen);
        }
        orders.push(seen);
    }
    assert_eq!(got, delivered, "what was pushed was read");
    assert!(orders.iter().all(|order| longest.starts_with(order)), "one order for all");
}
