//! Time in queues: time to live, and items that end with their request.

use std::sync::Arc;
use std::time::Duration;

use forebay_flow::queue::{self, Bound, Builder, Full, Lost, SubmitError};
use forebay_flow::{Ctx, clock};
use parking_lot::Mutex;

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b74_an_expired_item_is_dropped_at_dequeue_counted_and_never_run() {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let letters = Arc::clone(&lost);
    let (tx, rx) = Builder::new("ttl", Bound::items(8), Full::Block)
        .time_to_live(2 * SEC)
        .dead_letter(move |item: u32, why| letters.lock().push((item, why)))
        .build();
    tx.submit(1).await.unwrap();
    tokio::time::sleep(SEC).await;
    tx.submit(2).await.unwrap();
    assert_eq!(tx.info().time_to_live, Some(2 * SEC));
    tokio::time::sleep(SEC).await;
    assert_eq!(rx.recv().await, Some(2), "the first is two seconds old");
    assert_eq!(*lost.lock(), [(1, Lost::Expired)]);
    let info = tx.info();
    assert_eq!((info.sent, info.received, info.expired, info.dropped), (2, 1, 1, 0));
    tx.submit(3).await.unwrap();
    tokio::time::sleep(3 * SEC).await;
    assert_eq!(rx.try_recv(), None);
    drop(tx);
    assert_eq!(rx.recv().await, None);
    assert_eq!(rx.info().expired, 2);
}

#[tokio::test(start_paused = true)]
async fn b74_what_expired_takes_no_room_from_what_lives() {
    for full in [Full::Block, Full::Reject, Full::DropNewest, Full::DropOldest] {
        let (tx, rx) = Builder::new("room", Bound::items(2), full).time_to_live(SEC).build();
        tx.submit(1).await.unwrap();
        tx.submit(2).await.unwrap();
        tokio::time::sleep(SEC).await;
        tx.try_submit(3).unwrap();
        let info = tx.info();
        assert_eq!((info.expired, info.dropped, info.items), (2, 0, 1), "{full:?}");
        assert_eq!(rx.try_recv(), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn b74_time_spent_in_line_does_not_count_as_time_in_the_queue() {
    let (ctx, (tx, rx)) = (
        Ctx::root("t"),
        Builder::new("line", Bound::items(1), Full::Block).time_to_live(10 * SEC).build(),
    );
    tx.submit(1).await.unwrap();
    let waiting = {
        let tx = tx.clone();
        ctx.spawn("waiting", async move { tx.submit(2).await })
    };
    tokio::time::sleep(9 * SEC).await;
    assert_eq!(rx.recv().await, Some(1));
    waiting.join().await.unwrap().unwrap();
    tokio::time::sleep(9 * SEC).await;
    assert_eq!(rx.recv().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn b86_an_item_past_its_requests_deadline_is_not_received_and_its_sender_learns() {
    let (tx, rx) = queue::bounded("requests", Bound::items(8), Full::Block);
    let now = clock::now();
    let late = tx.submit_until("late", now + SEC).await.unwrap();
    let timely = tx.submit_until("timely", now + 9 * SEC).await.unwrap();
    tokio::time::sleep(2 * SEC).await;
    assert_eq!(rx.recv().await, Some("timely"));
    assert_eq!(late.outcome().await, Err(Lost::Expired));
    assert_eq!(timely.outcome().await, Ok(()));
    assert_eq!((tx.info().expired, tx.info().received), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn b86_who_waits_for_the_outcome_takes_the_item_out_at_the_deadline_though_nobody_receives() {
    let (tx, _rx) = queue::bounded("stuck", Bound::items(8), Full::Block);
    let began = clock::now();
    tx.submit("stays").await.unwrap();
    let receipt = tx.submit_until("goes", began + 5 * SEC).await.unwrap();
    assert_eq!(receipt.outcome().await, Err(Lost::Expired));
    assert!((clock::now() - began) < 6 * SEC);
    assert_eq!((tx.len(), tx.info().expired), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn b86_an_item_deep_in_the_queue_that_expired_makes_room() {
    let (tx, rx) = queue::bounded("deep", Bound::items(2), Full::Reject);
    tx.submit("old").await.unwrap();
    let receipt = tx.submit_until("short", clock::now() + SEC).await.unwrap();
    assert!(matches!(tx.try_submit("no"), Err(SubmitError::Full("no"))));
    tokio::time::sleep(SEC).await;
    tx.try_submit("new").unwrap();
    assert_eq!((rx.try_recv(), rx.try_recv(), rx.try_recv()), (Some("old"), Some("new"), None));
    assert_eq!(receipt.outcome().await, Err(Lost::Expired));
}

#[tokio::test(start_paused = true)]
async fn b86_a_request_that_is_over_or_ends_in_line_gets_its_item_back() {
    let (tx, rx) = queue::bounded("over", Bound::items(1), Full::Block);
    let over = tx.submit_until(1, clock::now()).await.map(drop);
    assert!(matches!(over, Err(SubmitError::TimedOut(1))), "there is room, and it is too late");
    tx.submit(2).await.unwrap();
    let began = clock::now();
    let ended = tx.submit_until(3, began + SEC).await.map(drop);
    assert!(matches!(ended, Err(SubmitError::TimedOut(3))));
    assert!(clock::now() - began < 2 * SEC);
    assert_eq!((rx.try_recv(), rx.try_recv()), (Some(2), None));
}

#[tokio::test(start_paused = true)]
async fn b86_a_receipt_says_orphaned_when_the_last_receiver_goes() {
    let (tx, rx) = queue::bounded("orphans", Bound::items(4), Full::Block);
    let receipt = tx.submit_until(1, clock::now() + SEC).await.unwrap();
    drop(rx);
    assert_eq!(receipt.outcome().await, Err(Lost::Orphaned));
}

#[tokio::test(start_paused = true)]
async fn b86_expired_items_let_waiting_submitters_in() {
    let (ctx, (tx, rx)) = (Ctx::root("t"), queue::bounded("line", Bound::items(1), Full::Block));
    let receipt = tx.submit_until(1, clock::now() + SEC).await.unwrap();
    let waiting = {
        let tx = tx.clone();
        ctx.spawn("waiting", async move { tx.submit(2).await })
    };
    until(|| tx.info().waiters == 1).await;
    assert_eq!(receipt.outcome().await, Err(Lost::Expired));
    waiting.join().await.unwrap().unwrap();
    assert_eq!(rx.try_recv(), Some(2));
}
