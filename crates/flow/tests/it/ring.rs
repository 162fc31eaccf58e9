//! The ring: what its two halves promise, one by one and across threads. Small enough for valgrind and miri.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use forebay_flow::ring::{self, Closed, Full, TryPushError};
use forebay_flow::{Ctx, tasks};

use crate::rig::until;

/// Items through a ring across threads; under valgrind each costs a microsecond or more.
const MANY: u64 = 20_000;

#[test]
fn a_ring_holds_exactly_its_capacity_whatever_it_is() {
    for capacity in [0, 1, 2, 3, 5, 8, 13] {
        let (mut tx, mut rx) = ring::new(capacity);
        let bound = capacity.max(1);
        assert_eq!((tx.capacity(), rx.capacity(), tx.free()), (bound, bound, bound));
        for round in 0..5 {
            for n in 0..bound {
                assert_eq!(tx.push(round * 100 + n), Ok(()));
            }
            assert_eq!(tx.push(7), Err(Full(7)), "the item comes back");
            assert_eq!((tx.free(), rx.len()), (0, bound));
            for n in 0..bound {
                assert_eq!(rx.pop(), Some(round * 100 + n));
            }
            assert_eq!((rx.pop(), rx.is_empty(), tx.free()), (None, true, bound));
        }
    }
}

#[test]
fn slices_wrap_around_the_end_of_the_buffer() {
    let (mut tx, mut rx) = ring::new(6);
    let (mut next_in, mut next_out) = (0_u32, 0_u32);
    for step in [1_u32, 5, 6, 2, 7, 3, 4, 9, 1, 6, 6, 5] {
        let items: Vec<_> = (next_in..next_in + step).collect();
        let pushed = tx.push_slice(&items);
        assert_eq!(pushed, items.len().min(6 - (next_in - next_out) as usize));
        next_in += u32::try_from(pushed).unwrap();
        let mut out = [u32::MAX; 4];
        let popped = rx.pop_slice(&mut out);
        for item in &out[..popped] {
            assert_eq!(*item, next_out);
            next_out += 1;
        }
        assert!(out[popped..].iter().all(|item| *item == u32::MAX), "nothing past what was said");
    }
    let left = (next_in - next_out) as usize;
    let popped = rx.pop_batch(usize::MAX, |item| {
        assert_eq!(item, next_out);
        next_out += 1;
    });
    assert_eq!((popped, next_out), (left, next_in));
}

#[test]
fn a_batch_takes_what_fits_and_leaves_the_rest_in_the_iterator() {
    let (mut tx, mut rx) = ring::new(3);
    let mut items = (0..5).map(Box::new);
    assert_eq!(tx.push_batch(&mut items), 3);
    assert_eq!(items.next().as_deref(), Some(&3), "the fourth was not lost");
    let mut seen = Vec::new();
    assert_eq!(rx.pop_batch(2, |item| seen.push(*item)), 2);
    assert_eq!(tx.push_batch(&mut items), 1);
    assert_eq!(rx.pop_batch(9, |item| seen.push(*item)), 2);
    assert_eq!(seen, [0, 1, 2, 4]);
}

#[test]
fn items_of_any_size_pass_many_times_around_a_long_buffer() {
    fn around<const SIZE: usize>() {
        let (mut tx, mut rx) = ring::new::<[u8; SIZE]>(700);
        let (mut next_in, mut next_out) = (0_usize, 0_usize);
        let item = |n: usize| [n.to_le_bytes()[0]; SIZE];
        for step in [700, 1, 333, 64, 512, 699].into_iter().cycle().take(30) {
            while next_in < next_out + step {
                tx.push(item(next_in)).unwrap();
                next_in += 1;
            }
            for _ in 0..step.div_ceil(2) {
                assert_eq!(rx.pop(), Some(item(next_out)));
                next_out += 1;
            }
        }
        assert_eq!(rx.len(), next_in - next_out);
    }
    around::<1>();
    around::<24>();
    around::<64>();
    around::<200>();
}

#[test]
fn a_ring_that_no_memory_holds_is_refused() {
    for capacity in [usize::MAX, usize::MAX / 2, 1 << (usize::BITS - 1)] {
        assert!(catch_unwind(|| ring::new::<u64>(capacity)).is_err());
    }
}

#[test]
fn items_without_a_size_are_counted_like_others() {
    let (mut tx, mut rx) = ring::new(3);
    assert_eq!(tx.push_slice(&[(); 5]), 3);
    assert_eq!((rx.pop_slice(&mut [(); 2]), rx.pop(), rx.pop()), (2, Some(()), None));
}

#[test]
fn what_is_left_is_dropped_once_with_the_last_half() {
    let mark = Arc::new(());
    let (mut tx, mut rx) = ring::new(4);
    for _ in 0..4 {
        tx.push(Arc::clone(&mark)).unwrap();
    }
    drop(rx.pop());
    tx.push(Arc::clone(&mark)).unwrap();
    drop(tx);
    assert_eq!(Arc::strong_count(&mark), 5, "the consumer may still want them");
    drop(rx);
    assert_eq!(Arc::strong_count(&mark), 1);
}

#[test]
fn a_panic_in_a_batch_loses_and_doubles_nothing_but_the_item_in_hand() {
    let (mut tx, mut rx) = ring::new(4);
    let pushed = catch_unwind(AssertUnwindSafe(|| {
        tx.push_batch(&mut (0..4).map(|n| if n == 2 { panic!("third") } else { Box::new(n) }))
    }));
    assert!(pushed.is_err());
    assert_eq!(rx.len(), 2, "those before the panic are in");
    tx.push(Box::new(9)).unwrap();
    let popped = catch_unwind(AssertUnwindSafe(|| {
        rx.pop_batch(4, |item| assert!(*item != 1, "second"));
    }));
    assert!(popped.is_err());
    assert_eq!((rx.pop().as_deref(), rx.pop()), (Some(&9), None));
}

#[test]
fn two_threads_exchange_items_one_by_one_in_order() {
    let (mut tx, mut rx) = ring::new(7);
    thread::scope(|scope| {
        let producer = scope.spawn(move || {
            for n in 0..MANY {
                let mut item = Box::new(n);
                while let Err(Full(back)) = tx.push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for n in 0..MANY {
            let item = loop {
                match rx.pop() {
                    Some(item) => break item,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*item, n);
        }
        producer.join().unwrap();
    });
}

#[test]
fn two_threads_exchange_slices_in_order() {
    let (mut tx, mut rx) = ring::new(100);
    thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let (mut next, mut size) = (0, 1);
            while next < MANY {
                let items: Vec<_> = (next..MANY.min(next + size)).collect();
                let pushed = tx.push_slice(&items) as u64;
                next += pushed;
                size = size % 37 + 1;
                if pushed == 0 {
                    thread::yield_now();
                }
            }
        });
        let (mut next, mut out) = (0, [0; 29]);
        while next < MANY {
            let popped = rx.pop_slice(&mut out);
            for item in &out[..popped] {
                assert_eq!(*item, next);
                next += 1;
            }
            if popped == 0 {
                thread::yield_now();
            }
        }
        producer.join().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tasks_that_wait_for_each_other_exchange_everything_in_order() {
    let ctx = Ctx::root("t");
    let (mut tx, mut rx) = ring::channel("samples", 3);
    let producer = ctx.spawn("producer", async move {
        for n in 0..MANY {
            tx.push(Box::new(n)).await.unwrap();
        }
    });
    for n in 0..MANY {
        assert_eq!(rx.pop().await.as_deref(), Some(&n));
    }
    assert_eq!(rx.pop().await, None);
    producer.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_half_says_what_it_waits_for() {
    let ctx = Ctx::root("t");
    let (mut tx, mut rx) = ring::channel("lines", 1);
    let waiting = ctx.spawn("consumer", async move { (rx.ready().await, rx) });
    until(|| {
        tasks::snapshot().iter().any(|task| {
            task.id == waiting.id() && task.waiting_on.as_deref() == Some("ring `lines`")
        })
    })
    .await;
    assert_eq!(tx.try_push(1), Ok(()));
    let (count, rx) = waiting.join().await.unwrap();
    assert_eq!(count, 1);
    drop(rx);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_goes_hands_the_waiting_item_back() {
    let ctx = Ctx::root("t");
    let (mut tx, rx) = ring::channel("lines", 1);
    tx.try_push(1).unwrap();
    assert_eq!(tx.try_push(2), Err(TryPushError::Full(2)));
    let waiting = ctx.spawn("producer", async move { (tx.push(3).await, tx.room().await, tx) });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!waiting.is_finished());
    drop(rx);
    let (pushed, room, mut tx) = waiting.join().await.unwrap();
    assert_eq!((pushed, room), (Err(TryPushError::Closed(3)), Err(Closed)));
    assert_eq!(tx.try_push(4), Err(TryPushError::Closed(4)));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_for_room_or_items_loses_nothing() {
    let (mut tx, mut rx) = ring::channel("lines", 1);
    let short = Duration::from_millis(5);
    assert!(tokio::time::timeout(short, rx.pop()).await.is_err());
    tx.push(1).await.unwrap();
    assert!(tokio::time::timeout(short, tx.room()).await.is_err());
    assert_eq!(rx.pop().await, Some(1));
    assert_eq!(tx.room().await, Ok(1));
    tx.push(2).await.unwrap();
    drop(tx);
    assert!(rx.is_closed());
    assert_eq!((rx.pop().await, rx.pop().await), (Some(2), None), "what was pushed is drained");
}
