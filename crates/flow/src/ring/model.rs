//! The ring and its bells under loom: every order of their steps, within a bound on preemptions.
//!
//! Owns nothing.

use loom::future::block_on;
use loom::thread;

use super::{TryPushError, channel, new};

/// Counts its drops; loom's own leak check sees the `Arc`.
struct Counted(#[expect(dead_code, reason = "held for its drop")] loom::sync::Arc<()>);

#[test]
fn items_arrive_once_and_in_order_through_a_ring_smaller_than_they() {
    loom::model(|| {
        let (mut tx, mut rx) = new(2);
        let producer = thread::spawn(move || {
            for n in 0..3 {
                while tx.push(n).is_err() {
                    thread::yield_now();
                }
            }
        });
        for n in 0..3 {
            loop {
                match rx.pop() {
                    Some(item) => break assert_eq!(item, n),
                    None => thread::yield_now(),
                }
            }
        }
        producer.join().unwrap();
        assert!(rx.is_empty());
    });
}

#[test]
fn batches_arrive_whole_across_the_end_of_the_buffer() {
    loom::model(|| {
        let (mut tx, mut rx) = new(3);
        let mut out = [0; 3];
        assert_eq!((tx.push_slice(&[7; 3]), rx.pop_slice(&mut out)), (3, 3));
        let producer = thread::spawn(move || {
            let mut items = [0, 1, 2, 3].as_slice();
            while !items.is_empty() {
                match tx.push_slice(items) {
                    0 => thread::yield_now(),
                    pushed => items = &items[pushed..],
                }
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 4 {
            match rx.pop_slice(&mut out) {
                0 => thread::yield_now(),
                count => seen.extend_from_slice(&out[..count]),
            }
        }
        producer.join().unwrap();
        assert_eq!(seen, [0, 1, 2, 3]);
    });
}

#[test]
fn what_is_left_is_dropped_once_whichever_half_goes_last() {
    loom::model(|| {
        let mark = loom::sync::Arc::new(());
        let (mut tx, mut rx) = new(2);
        let (first, second) = (Counted(mark.clone()), Counted(mark.clone()));
        let producer = thread::spawn(move || {
            assert!(tx.push(first).is_ok());
            assert!(tx.push(second).is_ok());
        });
        drop(rx.pop());
        drop(rx);
        producer.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&mark), 1);
    });
}

#[test]
fn no_ring_of_the_bell_is_lost_for_items() {
    loom::model(|| {
        let (mut tx, mut rx) = channel("model", 2);
        let producer = thread::spawn(move || {
            assert_eq!(tx.try_push(1), Ok(()));
            assert_eq!(tx.try_push(2), Ok(()));
        });
        block_on(async {
            assert_eq!(rx.pop().await, Some(1));
            assert_eq!(rx.pop().await, Some(2));
            assert_eq!(rx.pop().await, None);
        });
        producer.join().unwrap();
    });
}

#[test]
fn no_ring_of_the_bell_is_lost_for_room() {
    loom::model(|| {
        let (mut tx, mut rx) = channel("model", 1);
        let consumer = thread::spawn(move || {
            let mut last = 0;
            while last < 3 {
                match rx.try_pop() {
                    Some(item) => last = item,
                    None => thread::yield_now(),
                }
            }
        });
        block_on(async {
            for n in 1..=3 {
                assert_eq!(tx.push(n).await, Ok(()));
            }
        });
        consumer.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_room_hears_that_the_receiver_is_gone() {
    loom::model(|| {
        let (mut tx, rx) = channel("model", 1);
        assert_eq!(tx.try_push(1), Ok(()));
        let consumer = thread::spawn(move || drop(rx));
        assert_eq!(block_on(tx.push(2)), Err(TryPushError::Closed(2)));
        consumer.join().unwrap();
    });
}

#[test]
fn both_halves_wait_for_each_other_and_end() {
    loom::model(|| {
        let (mut tx, mut rx) = channel("model", 1);
        let producer = thread::spawn(move || {
            block_on(async {
                assert_eq!(tx.push(1).await, Ok(()));
                assert_eq!(tx.push(2).await, Ok(()));
            });
        });
        block_on(async {
            assert_eq!(rx.pop().await, Some(1));
            assert_eq!(rx.pop().await, Some(2));
            assert_eq!(rx.pop().await, None);
        });
        producer.join().unwrap();
    });
}
