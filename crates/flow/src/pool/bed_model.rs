//! The bed under loom, which knows what the machine may reorder where shuttle does not:
//! `RUSTFLAGS="--cfg loom" cargo test -p forebay-flow --lib --release --target-dir target/loom pool::bed_model`.
//!
//! Checked: no wake is lost although a submit pays for no fence. A lost one is a worker that sleeps for ever beside a job,
//! which loom reports as a deadlock. Owns nothing.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::thread;

use super::bed::{Bed, Rest};
use super::sync::{AtomicUsize, Mutex, Ordering, fence};

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[derive(Default)]
struct Model {
    bed: Bed,
    /// As the queue: who looks takes its lock.
    queue: Mutex<usize>,
    /// As the jobs given back: who looks reads the length first, without the lock.
    returned: Mutex<usize>,
    returned_len: AtomicUsize,
}

impl Model {
    fn submit(&self) {
        *self.queue.lock() += 1;
        self.bed.wake_one();
    }

    fn give_back(&self) {
        {
            let mut returned = self.returned.lock();
            *returned += 1;
            self.returned_len.store(*returned, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        self.bed.wake_one();
    }

    fn take(&self) -> bool {
        if self.returned_len.load(Ordering::SeqCst) > 0 {
            let mut returned = self.returned.lock();
            if *returned > 0 {
                *returned -= 1;
                self.returned_len.store(*returned, Ordering::SeqCst);
                return true;
            }
        }
        let mut queue = self.queue.lock();
        let some = *queue > 0;
        *queue -= usize::from(some);
        some
    }

    /// Takes `jobs` and ends; what it leaves is another's.
    fn work(&self, jobs: usize) {
        let rest = Arc::new(Rest::default());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for _ in 0..jobs {
            while !self.take() {
                if self.bed.lie_down(&rest, &waker) {
                    thread::park();
                }
            }
            if self.bed.get_up(&rest) && self.has_work() {
                self.bed.wake_one();
            }
        }
    }

    fn has_work(&self) -> bool {
        self.returned_len.load(Ordering::SeqCst) > 0 || *self.queue.lock() > 0
    }
}

#[test]
fn a_worker_that_lies_down_while_a_job_is_submitted_gets_it() {
    loom::model(|| {
        let model = Arc::new(Model::default());
        let own = Arc::clone(&model);
        let worker = thread::spawn(move || own.work(2));
        model.submit();
        model.submit();
        worker.join().unwrap();
    });
}

#[test]
fn a_worker_that_lies_down_while_a_job_is_given_back_gets_it() {
    loom::model(|| {
        let model = Arc::new(Model::default());
        let own = Arc::clone(&model);
        let worker = thread::spawn(move || own.work(1));
        model.give_back();
        worker.join().unwrap();
    });
}

#[test]
fn two_workers_get_one_job_each() {
    let mut limited = loom::model::Builder::new();
    limited.preemption_bound = Some(2);
    limited.check(|| {
        let model = Arc::new(Model::default());
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let own = Arc::clone(&model);
                thread::spawn(move || own.work(1))
            })
            .collect();
        model.submit();
        model.submit();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}
