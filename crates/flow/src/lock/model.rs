//! The async lock's core under loom: every order of the steps of its takers, within a bound on preemptions.
//!
//! Owns nothing. Checked: never two guards at once, no wake lost (loom calls a thread that waits for ever a deadlock), and
//! whoever gives up, before or after its turn came, leaves nothing behind.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use super::core::{Core, PASSES};

/// The lock's future, without names and clocks.
async fn take<T>(core: &Core<T>, due: bool) -> Box<T> {
    let mut ticket = None;
    poll_fn(|cx| {
        let value = match ticket {
            None => core.take_or_join(cx.waker()),
            Some(ticket) => core.poll(ticket, cx.waker(), || due).ok_or(ticket),
        };
        match value {
            Ok(value) => Poll::Ready(value),
            Err(own) => {
                ticket = Some(own);
                Poll::Pending
            }
        }
    })
    .await
}

fn add(core: &Core<u32>, due: bool) {
    let mut value = block_on(take(core, due));
    // Were two at this at once, one of the sums would be lost; were the value gone, there would be none.
    *value += 1;
    core.put_back(value);
}

fn take_turns(due: [bool; 3]) {
    loom::model(move || {
        let core = Arc::new(Core::new(0));
        let others: Vec<_> = due[1..]
            .iter()
            .map(|due| {
                let (core, due) = (Arc::clone(&core), *due);
                thread::spawn(move || add(&core, due))
            })
            .collect();
        add(&core, due[0]);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(core.take().map(|value| *value), Some(3));
    });
}

#[test]
fn takers_exclude_each_other_and_none_waits_for_ever() {
    take_turns([false; 3]);
}

#[test]
fn takers_of_whom_some_are_due_exclude_each_other_and_none_waits_for_ever() {
    take_turns([true; 3]);
    take_turns([true, false, false]);
}

#[test]
fn one_who_gives_up_hands_its_turn_on() {
    for due in [false, true] {
        loom::model(move || {
            let core = Arc::new(Core::new(0));
            let held = core.take().unwrap();
            let ticket = core.take_or_join(Waker::noop()).map(drop).unwrap_err();
            // Passed, and from now on due or not.
            assert!(core.poll(ticket, Waker::noop(), || due).is_none());
            let (waits, leaves) = (Arc::clone(&core), Arc::clone(&core));
            // In line behind the one that leaves, or before it has left, or after.
            let waits = thread::spawn(move || add(&waits, due));
            let leaves = thread::spawn(move || leaves.leave(ticket));
            core.put_back(held);
            waits.join().unwrap();
            leaves.join().unwrap();
            assert_eq!(core.take().map(|value| *value), Some(1), "free, and nobody in line");
        });
    }
}

#[test]
fn one_that_is_due_is_passed_by_nobody() {
    loom::model(|| {
        let core = Arc::new(Core::new(0));
        let held = core.take().unwrap();
        let ticket = core.take_or_join(Waker::noop()).map(drop).unwrap_err();
        assert!(core.poll(ticket, Waker::noop(), || true).is_none());
        let tries = Arc::clone(&core);
        let tries = thread::spawn(move || tries.take().is_none());
        core.put_back(held);
        assert!(tries.join().unwrap(), "it is kept for the one in line");
        let value = core.poll(ticket, Waker::noop(), || false).unwrap();
        core.put_back(value);
        assert!(core.take().is_some());
    });
}

#[test]
fn one_that_was_passed_often_has_it_kept_though_it_never_looked() {
    loom::model(|| {
        let core = Arc::new(Core::new(0));
        let held = core.take().unwrap();
        let ticket = core.take_or_join(Waker::noop()).map(drop).unwrap_err();
        core.put_back(held);
        for _ in 0..PASSES {
            let passes = core.take().unwrap();
            core.put_back(passes);
        }
        let passes = core.take().unwrap();
        let looks = Arc::clone(&core);
        // Before it is kept, or after.
        let looks = thread::spawn(move || looks.poll(ticket, Waker::noop(), || false));
        core.put_back(passes);
        let value = looks.join().unwrap().or_else(|| core.poll(ticket, Waker::noop(), || false));
        core.put_back(value.unwrap());
        assert!(core.take().is_some());
    });
}

#[test]
fn one_that_passes_the_first_leaves_it_awake_or_wakes_it() {
    loom::model(|| {
        let core = Arc::new(Core::new(0));
        let held = core.take().unwrap();
        let (waits, passes) = (Arc::clone(&core), Arc::clone(&core));
        let waits = thread::spawn(move || add(&waits, false));
        let passes = thread::spawn(move || {
            if let Some(mut value) = passes.take() {
                *value += 10;
                passes.put_back(value);
            }
        });
        core.put_back(held);
        waits.join().unwrap();
        passes.join().unwrap();
        assert!(matches!(core.take().map(|value| *value), Some(1 | 11)));
    });
}

/// The reader-writer core.
mod rw {
    use super::*;
    use crate::lock::holders::Access;
    use crate::lock::rwcore::{Core, Got};

    async fn take<T>(core: &Core<T>, access: Access) -> Got<T> {
        let mut ticket = None;
        poll_fn(|cx| {
            let got = match ticket {
                None => core.take_or_join(access, cx.waker()),
                Some(ticket) => core.poll(ticket, access, cx.waker()).ok_or(ticket),
            };
            match got {
                Ok(got) => Poll::Ready(got),
                Err(own) => {
                    ticket = Some(own);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn give_back<T>(core: &Core<T>, got: Got<T>) {
        match got {
            Got::Read(shared) => core.put_back_shared(shared),
            Got::Write(taken) => core.put_back(taken),
        }
    }

    fn add(core: &Core<u32>) {
        let Got::Write(mut taken) = block_on(take(core, Access::Write)) else {
            panic!("asked to write")
        };
        *taken.value += 1;
        core.put_back(taken);
    }

    fn read(core: &Core<u32>) -> u32 {
        let Got::Read(shared) = block_on(take(core, Access::Read)) else { panic!("asked to read") };
        // Were a writer at it, the box would be empty.
        let value = *shared.as_deref().unwrap();
        core.put_back_shared(shared);
        value
    }

    #[test]
    fn writers_exclude_all_and_none_waits_for_ever() {
        loom::model(|| {
            let core = Arc::new(Core::new(0));
            let (reads, writes) = (Arc::clone(&core), Arc::clone(&core));
            let reads = thread::spawn(move || read(&reads));
            let writes = thread::spawn(move || add(&writes));
            add(&core);
            assert!(reads.join().unwrap() <= 2);
            writes.join().unwrap();
            assert_eq!(read(&core), 2);
            assert!(core.take(Access::Write).is_some(), "free");
        });
    }

    #[test]
    fn two_readers_leave_and_the_writer_is_woken_by_the_last() {
        loom::model(|| {
            let core = Arc::new(Core::new(0));
            let [one, two] = [(); 2].map(|()| core.take(Access::Read).unwrap());
            let (writes, leaves) = (Arc::clone(&core), Arc::clone(&core));
            let writes = thread::spawn(move || add(&writes));
            let leaves = thread::spawn(move || give_back(&leaves, one));
            give_back(&core, two);
            writes.join().unwrap();
            leaves.join().unwrap();
            assert_eq!(read(&core), 1);
        });
    }

    #[test]
    fn a_writer_that_gives_up_frees_the_reader_behind_it() {
        loom::model(|| {
            let core = Arc::new(Core::new(0));
            let held = core.take(Access::Read).unwrap();
            let ticket = core.take_or_join(Access::Write, Waker::noop()).map(drop).unwrap_err();
            let (reads, leaves) = (Arc::clone(&core), Arc::clone(&core));
            let reads = thread::spawn(move || read(&reads));
            let leaves = thread::spawn(move || leaves.leave(ticket, Access::Write));
            give_back(&core, held);
            reads.join().unwrap();
            leaves.join().unwrap();
            assert!(core.take(Access::Write).is_some(), "free, and nobody in line");
        });
    }

    #[test]
    fn a_reader_that_gives_up_frees_the_writer_behind_it() {
        loom::model(|| {
            let core = Arc::new(Core::new(0));
            let held = core.take(Access::Write).unwrap();
            let ticket = core.take_or_join(Access::Read, Waker::noop()).map(drop).unwrap_err();
            let (writes, leaves) = (Arc::clone(&core), Arc::clone(&core));
            let writes = thread::spawn(move || add(&writes));
            // Before its turn came, or after.
            let leaves = thread::spawn(move || leaves.leave(ticket, Access::Read));
            give_back(&core, held);
            writes.join().unwrap();
            leaves.join().unwrap();
            assert_eq!(read(&core), 1);
        });
    }
}
