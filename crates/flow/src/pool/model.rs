//! Models of the pool's synchronous core, run by shuttle under ten thousand schedules each:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p forebay-flow --lib --target-dir target/shuttle pool::model`.
//!
//! Checked: no wake is lost (a worker that sleeps for ever beside a job is a deadlock, which shuttle reports), every job
//! runs once, and every job is counted once however its end races with a drain or a timeout. The queue is a plain one
//! under a lock; the loop of a worker is that of [`Crew::next`](super::crew). The whole pool is in `books_model`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use shuttle::thread;

use super::bed::{Bed, Rest};
use super::slot::{Counts, Ran, Slot, Sum};
use super::sync::{AtomicU64, Mutex, Ordering};

const SCHEDULES: usize = 10_000;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[derive(Default)]
struct Model {
    bed: Bed,
    jobs: Mutex<(VecDeque<u64>, bool)>,
    ran: AtomicU64,
}

impl Model {
    fn submit(&self, job: u64) {
        self.jobs.lock().0.push_back(job);
        self.bed.wake_one();
    }

    fn close(&self) {
        self.jobs.lock().1 = true;
        self.bed.wake_all();
    }

    fn take(&self, most: usize) -> Vec<u64> {
        let mut jobs = self.jobs.lock();
        let most = most.min(jobs.0.len());
        jobs.0.drain(..most).collect()
    }

    /// Works until the queue is closed and empty; holds what it took in `slot`.
    fn work(&self, slot: &Slot, most: usize, gives_back: bool) {
        let rest = Arc::new(Rest::default());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            let mut batch = self.take(most);
            if batch.is_empty() {
                if self.jobs.lock().1 && self.jobs.lock().0.is_empty() {
                    self.bed.get_up(&rest);
                    return;
                }
                if self.bed.lie_down(&rest, &waker) {
                    thread::park();
                }
                continue;
            }
            slot.take(batch.len() as u64);
            if self.bed.get_up(&rest) && !self.jobs.lock().0.is_empty() {
                self.bed.wake_one();
            }
            if gives_back && batch.len() > 1 {
                let back = batch.split_off(1);
                if slot.give_back(back.len() as u64) {
                    self.jobs.lock().0.extend(back);
                    self.bed.wake_one();
                }
            }
            for job in batch {
                self.ran.fetch_add(job, Ordering::SeqCst);
                slot.end(Ran::Done);
            }
        }
    }
}

fn done(slots: &[Arc<Slot>]) -> Sum {
    let mut sum = Sum::default();
    for slot in slots {
        sum.add(&slot.counts);
    }
    sum
}

fn workers(
    model: &Arc<Model>,
    batches: &[(usize, bool)],
) -> Vec<(Arc<Slot>, thread::JoinHandle<()>)> {
    let start = |&(most, gives_back): &(usize, bool)| {
        let (model, slot) = (Arc::clone(model), Arc::new(Slot::default()));
        let own = Arc::clone(&slot);
        (slot, thread::spawn(move || model.work(&own, most, gives_back)))
    };
    batches.iter().map(start).collect()
}

#[test]
fn no_wake_is_lost_and_every_job_runs_once() {
    let run = || {
        let model = Arc::new(Model::default());
        let workers = workers(&model, &[(1, false), (2, true)]);
        let submitters: Vec<_> = [[1, 10], [100, 1000]]
            .map(|jobs| {
                let model = Arc::clone(&model);
                thread::spawn(move || jobs.into_iter().for_each(|job| model.submit(job)))
            })
            .into_iter()
            .collect();
        for submitter in submitters {
            submitter.join().unwrap();
        }
        model.close();
        let slots: Vec<_> = workers
            .into_iter()
            .map(|(slot, thread)| {
                thread.join().unwrap();
                slot
            })
            .collect();
        assert_eq!(model.ran.load(Ordering::SeqCst), 1111);
        assert_eq!(done(&slots).done, 4);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn jobs_submitted_one_by_one_are_done_though_nothing_closes_the_queue() {
    let run = || {
        let model = Arc::new(Model::default());
        let workers = workers(&model, &[(2, true), (2, false)]);
        for job in [1, 10, 100] {
            model.submit(job);
        }
        // Were a wake lost, this would wait for ever.
        while model.ran.load(Ordering::SeqCst) != 111 {
            thread::yield_now();
        }
        model.close();
        for (_, thread) in workers {
            thread.join().unwrap();
        }
    };
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn a_drain_that_leaves_workers_behind_counts_each_job_once() {
    let run = || {
        let slot = Arc::new(Slot::default());
        let own = Arc::clone(&slot);
        let worker = thread::spawn(move || {
            let mut back = 0;
            let mut lost = 0;
            for batch in [3_u64, 2] {
                if !own.take(batch) {
                    lost += batch; // what the crew counts as abandoned at once
                    own.back();
                    continue;
                }
                own.end(Ran::Done);
                if own.give_back(1) {
                    back += 1;
                }
                for _ in 2..batch {
                    own.end(Ran::Failed);
                }
                if own.is_left() {
                    own.back();
                }
            }
            back + lost
        });
        let left = slot.leave();
        let elsewhere = worker.join().unwrap();
        let mut sum = Sum::default();
        sum.add(&slot.counts);
        assert_eq!(sum.done + sum.failed + left + elsewhere, 5);
    };
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn a_timeout_takes_the_job_it_saw_or_none() {
    let run = || {
        let slot = Arc::new(Slot::default());
        slot.take(1);
        let seen = slot.seen();
        let own = Arc::clone(&slot);
        let worker = thread::spawn(move || {
            let first = own.end(Ran::Done);
            if !first {
                return (first, false);
            }
            own.take(1);
            (first, own.end(Ran::Done))
        });
        let timed_out = slot.leave_if(seen);
        let (first, second) = worker.join().unwrap();
        assert_eq!(
            (timed_out == 1, second),
            (!first, first),
            "the second job is never taken for the first"
        );
        let base = Counts::default();
        base.fold(&slot.counts);
        assert_eq!(base.done.load(Ordering::SeqCst) + timed_out, 1 + u64::from(first));
    };
    shuttle::check_random(run, SCHEDULES);
}
