//! The ring of the last events.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use forebay_flow::recent::Recent;

#[test]
fn it_holds_the_last_events_with_their_numbers() {
    let recent = Recent::new(3);
    assert!(recent.snapshot().events.is_empty());
    for n in 0..5 {
        assert_eq!(recent.record(n * 10), Some(n));
    }
    let snapshot = recent.snapshot();
    assert_eq!(snapshot.events, [(2, 20), (3, 30), (4, 40)]);
    assert_eq!((snapshot.missing, snapshot.given_up, recent.capacity()), (0, 0, 3));
}

#[test]
fn b80_a_snapshot_is_consistent_while_writers_write() {
    const WRITERS: usize = 3;
    const EVENTS: u64 = 20_000;
    let recent = Recent::new(64);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let recent = recent.clone();
                // An event is four times the same number, and each writer's numbers follow each other.
                scope.spawn(move || {
                    for n in 0..EVENTS {
                        recent.record((writer, [n; 4]));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut last_end = 0;
            loop {
                let over = done.load(Ordering::Acquire);
                let snapshot = recent.snapshot();
                assert!(snapshot.events.len() <= 64);
                assert!(snapshot.events.windows(2).all(|pair| pair[0].0 < pair[1].0));
                let mut next = [None; WRITERS];
                for (_, (writer, event)) in &snapshot.events {
                    assert!(event.iter().all(|part| *part == event[0]), "torn: {event:?}");
                    // Within the window nothing of one writer may be left out, unless it was given up and counted.
                    if let Some(expected) = next[*writer].replace(event[0] + 1)
                        && snapshot.given_up == 0
                    {
                        assert_eq!(event[0], expected, "a hole in {snapshot:?}");
                    }
                }
                if let Some((number, _)) = snapshot.events.last() {
                    assert!(*number >= last_end, "an older snapshot after a newer");
                    last_end = *number;
                }
                if over {
                    break snapshot;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        let last = reader.join().unwrap();
        assert!(last.events.iter().any(|(_, (_, event))| event[0] == EVENTS - 1));
    });
}

/// Its copy stops until it is let go.
struct Slow {
    gate: Arc<(Barrier, Barrier)>,
    n: u64,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        if self.n == 0 {
            self.gate.0.wait();
            self.gate.1.wait();
        }
        Self { gate: Arc::clone(&self.gate), n: self.n }
    }
}

#[test]
fn b80_a_reader_that_stops_in_the_middle_blocks_no_writer_and_costs_no_event() {
    let gate = Arc::new((Barrier::new(2), Barrier::new(2)));
    let event = |n| Slow { gate: Arc::clone(&gate), n };
    let recent = Recent::new(4);
    recent.record(event(0));
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| recent.snapshot());
        gate.0.wait(); // the reader has the first slot in hand
        for n in 1..=10 {
            assert!(recent.record(event(n)).is_some());
            written.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(written.load(Ordering::Relaxed), 10, "all ten while the reader stood still");
        gate.1.wait();
        assert!(reader.join().unwrap().events.len() <= 1);
    });
    let snapshot = recent.snapshot();
    let events: Vec<_> = snapshot.events.iter().map(|(_, event)| event.n).collect();
    // Numbers that met the held slot were skipped: the window holds that much less, and the newest are all there.
    assert_eq!(events, [8, 9, 10][3 - events.len()..]);
    assert!(!events.is_empty());
    assert_eq!(snapshot.given_up, 0);
}

#[test]
fn b80_an_event_is_given_up_only_when_every_try_met_a_held_slot() {
    let gate = Arc::new((Barrier::new(2), Barrier::new(2)));
    let event = |n| Slow { gate: Arc::clone(&gate), n };
    let recent = Recent::new(1);
    recent.record(event(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| recent.snapshot());
        gate.0.wait();
        assert_eq!(recent.record(event(1)), None, "it says so");
        gate.1.wait();
        reader.join().unwrap();
    });
    recent.record(event(2));
    assert_eq!(recent.snapshot().given_up, 1, "and it is counted");
}
