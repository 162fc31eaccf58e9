//! Models of the supervisor's inbox, run by shuttle under ten thousand schedules each:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p forebay-flow --lib --target-dir target/shuttle supervise::model`.
//!
//! What races in a supervisor is what comes to it: children that tell, handles that ask and give up asking, and its own
//! end, or that of the right to run it. Its decisions do not race (see `properties.rs`). Checked: no wake is lost (who
//! waits for ever is a deadlock, which shuttle reports), every request is taken, refused or withdrawn, exactly once, the
//! bound holds, and every event of a run is seen in its order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::inbox::Inbox;

const SCHEDULES: usize = 10_000;

type Mail = Inbox<(usize, usize), usize>;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(fut: F) -> F::Output {
    let mut fut = pin!(fut);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = fut.as_mut().poll(&mut cx) {
            return value;
        }
        thread::park();
    }
}

fn take(mail: &Mail, events: &mut VecDeque<(usize, usize)>) -> Option<usize> {
    block_on(poll_fn(|cx| mail.poll_take(cx, events)))
}

/// Asks; says whether it was accepted.
fn asks(mail: &Arc<Mail>, request: usize) -> thread::JoinHandle<bool> {
    let mail = Arc::clone(mail);
    thread::spawn(move || block_on(mail.ask(request)).is_ok())
}

#[test]
fn every_request_is_taken_or_refused_once_however_it_races_with_the_begin_and_the_end() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        let askers: Vec<_> = (0..4).map(|n| asks(&mail, n)).collect();
        let mut events = VecDeque::new();
        assert!(mail.begin());
        let taken: Vec<_> = (0..2).filter_map(|_| take(&mail, &mut events)).collect();
        let left = mail.end();
        assert!(left.len() <= 1, "the bound");
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap());
        let accepted = accepted.filter(|accepted| *accepted).count();
        let mut seen: Vec<_> = taken.into_iter().chain(left).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), accepted, "none is lost, none seen twice");
        assert!(accepted >= 2);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn b47_who_asks_before_a_run_that_never_comes_is_refused() {
    let run = || {
        let mail = Arc::new(Mail::new(2));
        let askers: Vec<_> = (0..4).map(|n| asks(&mail, n)).collect();
        let dropped = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || mail.end().len())
        };
        let in_the_inbox = dropped.join().unwrap();
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap()).filter(|a| *a).count();
        assert_eq!(accepted, in_the_inbox, "what was accepted was given back to be refused");
        assert!(mail.end().is_empty());
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn an_asker_that_gives_up_hands_its_turn_on() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let first = asks(&mail, 0);
        let fickle = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                let mut asking = Box::pin(mail.ask(1));
                let mut cx = Context::from_waker(Waker::noop());
                matches!(asking.as_mut().poll(&mut cx), Poll::Ready(Ok(())))
            })
        };
        let last = asks(&mail, 2);
        // Both that stay are served, whether the fickle one was in before them, between them, or not at all.
        let (mut events, mut seen) = (VecDeque::new(), Vec::new());
        while !(seen.contains(&0) && seen.contains(&2)) {
            seen.extend(take(&mail, &mut events));
        }
        assert!(first.join().unwrap() && last.join().unwrap());
        let accepted = fickle.join().unwrap();
        seen.extend(mail.end());
        assert_eq!(seen.contains(&1), accepted);
        assert_eq!(seen.len(), 2 + usize::from(accepted));
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn every_event_of_a_run_is_seen_in_its_order_beside_requests_and_no_wake_is_lost() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let told = Arc::new(AtomicUsize::new(0));
        let children: Vec<_> = (0..2)
            .map(|child| {
                let (mail, told) = (Arc::clone(&mail), Arc::clone(&told));
                thread::spawn(move || {
                    for word in 0..2 {
                        mail.tell((child, word));
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let asker = asks(&mail, 9);
        let (mut events, mut requests) = (VecDeque::new(), 0);
        while events.len() < 4 || requests < 1 {
            requests += usize::from(take(&mail, &mut events).is_some());
        }
        assert!(asker.join().unwrap());
        children.into_iter().for_each(|child| child.join().unwrap());
        for child in 0..2 {
            let words: Vec<_> =
                events.iter().filter(|(who, _)| *who == child).map(|(_, word)| *word).collect();
            assert_eq!(words, [0, 1]);
        }
        mail.end();
        mail.tell((0, 0));
        assert!(mail.begin());
        let mut cx = Context::from_waker(Waker::noop());
        events.clear();
        assert!(mail.poll_take(&mut cx, &mut events).is_pending(), "nothing of an earlier run");
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn a_rebuild_beside_askers_leaves_nobody_waiting_and_the_bound_holds() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let askers: Vec<_> = (0..3).map(|n| asks(&mail, n)).collect();
        let mut seen: Vec<_> = mail.end().into();
        assert!(mail.begin(), "rebuilt");
        // Refused by the first build or accepted by the second: each is told.
        let mut events = VecDeque::new();
        let server = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                let mut seen = Vec::new();
                loop {
                    match take(&mail, &mut events) {
                        Some(request) => seen.push(request),
                        None => return seen, // the word that all are done
                    }
                }
            })
        };
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap()).filter(|a| *a).count();
        mail.tell((0, 0));
        seen.extend(server.join().unwrap());
        seen.extend(mail.end());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), accepted);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}
