//! The timer's handshakes under loom, every order of their steps:
//! `RUSTFLAGS="--cfg loom" cargo test -p forebay-flow --lib --release --target-dir target/loom timer::model`.
//!
//! Checked: who registers while the thread is about to rest is fired; a sleep that is given up, looked at by another task,
//! or overtaken by the timer's end while it fires is woken or gone, never both and never neither; and a place that fired
//! and belongs to another by now is left alone. Time stands still but where a test moves it. Owns nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use loom::thread;

use super::driver::{Driver, Looked, Place};

/// Wakes a thread of the model, and counts.
struct Bell {
    thread: thread::Thread,
    rung: AtomicUsize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell { thread: thread::current(), rung: AtomicUsize::new(0) });
    (Arc::clone(&bell), Waker::from(bell))
}

fn place(looked: Looked) -> Place {
    match looked {
        Looked::Waits(place) => place,
        Looked::Due | Looked::Closed => panic!("not registered"),
    }
}

fn is_due(looked: &Looked) -> bool {
    matches!(looked, Looked::Due)
}

#[test]
fn who_registers_while_the_thread_lies_down_is_fired() {
    loom::model(|| {
        let driver = Arc::new(Driver::new(1, 0));
        let (_far, waker) = bell();
        let far = place(driver.register(0, 1000, waker));
        let own = Arc::clone(&driver);
        let timer = thread::spawn(move || {
            own.set_alarm(bell().1);
            // Nobody rests until the far one in this model: were no ring heard, this would park for ever.
            while own.fire(0, &mut Vec::new()) != Some(5) {
                thread::park();
            }
            own.fire(5, &mut Vec::new());
        });
        let (_bell, waker) = bell();
        let near = place(driver.register(0, 5, waker.clone()));
        while !is_due(&driver.look(near, &waker)) {
            thread::park();
        }
        timer.join().unwrap();
        assert_eq!(driver.len(), 1);
        driver.cancel(far);
        assert_eq!(driver.len(), 0);
    });
}

#[test]
fn a_sleep_given_up_while_it_fires_leaves_the_next_in_its_place_alone() {
    loom::model(|| {
        let driver = Arc::new(Driver::new(1, 0));
        let (bell, waker) = bell();
        let first = place(driver.register(0, 5, waker.clone()));
        let own = Arc::clone(&driver);
        let timer = thread::spawn(move || {
            own.fire(5, &mut Vec::new());
        });
        let own = Arc::clone(&driver);
        let other = waker.clone();
        // Takes the same place when the first has left it.
        let next = thread::spawn(move || place(own.register(0, 9, other)));
        driver.cancel(first);
        timer.join().unwrap();
        let next = next.join().unwrap();
        assert_eq!(driver.len(), 1);
        assert!(bell.rung.load(Ordering::SeqCst) <= 1);
        assert!(matches!(driver.look(next, &waker), Looked::Waits(_)));
        driver.fire(9, &mut Vec::new());
        assert!(is_due(&driver.look(next, &waker)));
        drop(waker);
        assert_eq!((driver.len(), Arc::strong_count(&bell)), (0, 1), "no waker is left behind");
    });
}

#[test]
fn a_sleep_that_moved_to_another_task_wakes_that_one_or_is_seen_due() {
    loom::model(|| {
        let driver = Arc::new(Driver::new(1, 0));
        let (stale, waker) = bell();
        let sleep = place(driver.register(0, 5, waker));
        let own = Arc::clone(&driver);
        let timer = thread::spawn(move || {
            own.fire(5, &mut Vec::new());
        });
        let (fresh, waker) = bell();
        while !is_due(&driver.look(sleep, &waker)) {
            thread::park();
        }
        timer.join().unwrap();
        let rung = stale.rung.load(Ordering::SeqCst) + fresh.rung.load(Ordering::SeqCst);
        assert_eq!(rung, 1, "one of the two, once");
        drop(waker);
        assert_eq!((Arc::strong_count(&stale), Arc::strong_count(&fresh)), (1, 1));
    });
}

#[test]
fn whoever_sleeps_when_the_timer_ends_sees_it() {
    loom::model(|| {
        let driver = Arc::new(Driver::new(1, 0));
        let own = Arc::clone(&driver);
        let timer = thread::spawn(move || {
            own.fire(0, &mut Vec::new());
            own.close();
        });
        let (bell, waker) = bell();
        if let Looked::Waits(sleep) = driver.register(0, 5, waker.clone()) {
            while !matches!(driver.look(sleep, &waker), Looked::Closed) {
                thread::park();
            }
            driver.cancel(sleep);
        }
        timer.join().unwrap();
        drop(waker);
        assert_eq!((driver.len(), Arc::strong_count(&bell)), (0, 1));
    });
}
