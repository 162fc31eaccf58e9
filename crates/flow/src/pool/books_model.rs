//! The pool itself under shuttle: its queue, its workers' whole loop, its end; ten thousand schedules of each window in which
//! a job's end meets that of its worker or of the pool.
//!
//! Checked in each: the books are exact. Every job handed in is in one count, and in the one that its own body saw, unless
//! the pool had to leave it behind while it ran. Only what needs a clock is not here: a deadline is any moment, the watch's
//! look comes at any time, and an abort is the checker's.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::{future, thread};

use super::crew::Crew;
use super::job::{self, TaskJob, ThreadJob};
use super::roster::Seat;
use super::{Builder, PoolError, PoolStats, tasks, threads};
use crate::ctx::Cause;
use crate::queue::{Bound, Full, Sender};
use crate::tasks::Name;

const SCHEDULES: usize = 10_000;

/// The ends of jobs as they saw them.
#[derive(Default)]
struct Lives {
    ok: AtomicU64,
    panicked: AtomicU64,
    /// Dropped before their end, perhaps unstarted.
    cut_off: AtomicU64,
}

/// One job's life: `cut_off` unless told otherwise.
struct Life(Arc<Lives>, fn(&Lives) -> &AtomicU64);

impl Life {
    fn of(lives: &Arc<Lives>) -> Self {
        Self(Arc::clone(lives), |lives| &lives.cut_off)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_add(1, Ordering::Relaxed);
    }
}

impl Lives {
    fn of(&self) -> (u64, u64, u64) {
        let [ok, panicked, cut_off] = [&self.ok, &self.panicked, &self.cut_off];
        (
            ok.load(Ordering::Relaxed),
            panicked.load(Ordering::Relaxed),
            cut_off.load(Ordering::Relaxed),
        )
    }
}

/// What a job does in the middle of its body.
#[derive(Clone, Copy)]
enum Does {
    Ends,
    /// Waits once, woken at once.
    Waits,
    Panics,
    Hangs,
}

async fn body(does: Does, mut life: Life) {
    thread::yield_now();
    match does {
        Does::Ends => {}
        Does::Waits => future::yield_now().await,
        Does::Hangs => pending().await,
        Does::Panics => {
            life.1 = |lives| &lives.panicked;
            // Past the panic hook, which would print ten thousand of them.
            resume_unwind(Box::new("a job's panic"));
        }
    }
    life.1 = |lives| &lives.ok;
    drop(life);
    thread::yield_now();
}

fn builder(workers: usize) -> Builder {
    Builder::new(Name::Borrowed("modelled"), workers, Bound::items(4))
}

struct Tasks {
    crew: Arc<Crew<TaskJob>>,
    jobs: Sender<TaskJob>,
    workers: Vec<future::JoinHandle<()>>,
    lives: Arc<Lives>,
}

impl Tasks {
    fn start(builder: Builder) -> Self {
        let (crew, jobs) = builder.crew::<TaskJob>();
        let hired = crew.hire().into_iter();
        let workers = hired.map(|(_, seat)| future::spawn(tasks::supervise(seat))).collect();
        Self { crew, jobs, workers, lives: Arc::default() }
    }

    fn submit(&self, does: Does) -> Result<(), PoolError> {
        let job = job::untold(body(does, Life::of(&self.lives)));
        self.crew.try_submit(&self.jobs, job)
    }

    fn stats(&self) -> PoolStats {
        self.crew.stats(&self.jobs.info())
    }

    /// Aborts the workers, as a killed context does, and waits until they are gone.
    async fn gone(&self) -> bool {
        self.workers.iter().for_each(future::JoinHandle::abort);
        self.crew.deserted().await;
        true
    }

    /// Waits for the workers; then everything has ended, and as the jobs saw it. `refused`: jobs handed in in vain.
    fn settles(self, refused: u64) {
        for worker in self.workers.iter() {
            while !worker.is_finished() {
                thread::yield_now();
            }
        }
        let stats = self.stats();
        let (ok, panicked, cut_off) = self.lives.of();
        assert_eq!((stats.done, stats.panicked), (ok, panicked), "{stats:#?}");
        assert_eq!(stats.abandoned + stats.dropped + refused, cut_off, "{stats:#?}");
        reconciles(&stats);
    }
}

fn reconciles(stats: &PoolStats) {
    let ended = stats.done + stats.failed + stats.panicked + stats.timed_out + stats.cancelled;
    assert_eq!(stats.submitted, ended + stats.dropped + stats.abandoned, "{stats:#?}");
    assert_eq!((stats.busy, stats.queued, stats.live, stats.stuck), (0, 0, 0, 0), "{stats:#?}");
}

#[test]
fn a_drain_that_gives_up_while_jobs_end_wait_hang_and_panic() {
    let run = || {
        let pool = Tasks::start(builder(2));
        for does in [Does::Ends, Does::Waits, Does::Panics, Does::Hangs] {
            pool.submit(does).unwrap();
        }
        pool.crew.close();
        // The deadline is any moment from here on.
        thread::yield_now();
        future::block_on(pool.crew.give_up(Some(pool.gone())));
        assert_eq!(pool.stats().live, 0);
        pool.settles(0);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn submitters_race_a_stop_and_a_resize() {
    let run = || {
        let pool = Arc::new(Tasks::start(builder(2)));
        let submitters: Vec<_> = [[Does::Ends, Does::Waits], [Does::Ends, Does::Panics]]
            .map(|jobs| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    jobs.into_iter().filter(|does| pool.submit(*does).is_err()).count()
                })
            })
            .into_iter()
            .collect();
        pool.crew.want(1);
        pool.crew.stop(Cause::Shutdown);
        let refused = submitters.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
        Arc::into_inner(pool).unwrap().settles(refused as u64);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn a_queue_that_drops_while_its_workers_are_killed() {
    let run = || {
        let pool = Tasks::start(builder(1).full(Full::DropOldest));
        for does in [Does::Waits, Does::Ends, Does::Hangs, Does::Ends, Does::Ends, Does::Ends] {
            pool.submit(does).unwrap();
        }
        // No drain and no stop: the last to go sees to the queue.
        future::block_on(pool.gone());
        pool.settles(0);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

/// The same on threads: what runs cannot be aborted there, and a watch may count it before its end.
struct Threads {
    crew: Arc<Crew<ThreadJob>>,
    jobs: Sender<ThreadJob>,
    lives: Arc<Lives>,
}

fn start(seat: Seat<ThreadJob>) -> thread::JoinHandle<()> {
    thread::spawn(move || threads::supervise(&seat))
}

impl Threads {
    fn start(builder: Builder) -> (Arc<Self>, Vec<thread::JoinHandle<()>>) {
        let (crew, jobs) = builder.crew::<ThreadJob>();
        let workers = crew.hire().into_iter().map(|(_, seat)| start(seat)).collect();
        (Arc::new(Self { crew, jobs, lives: Arc::default() }), workers)
    }

    fn submit(&self, does: Does) -> Result<(), PoolError> {
        let life = Life::of(&self.lives);
        self.crew.try_submit(&self.jobs, job::loose(move || future::block_on(body(does, life))))
    }

    /// The watch looks, and finds everything late that runs.
    fn look(&self) -> Vec<thread::JoinHandle<()>> {
        let watched = threads::look(&self.crew, u64::MAX, 0);
        watched.hired.into_iter().map(|(_, seat)| start(seat)).collect()
    }

    fn settles(&self, refused: u64) {
        let stats = self.crew.stats(&self.jobs.info());
        let (ok, panicked, cut_off) = self.lives.of();
        // Left behind while they ran on to an end of their own.
        let ran_on = ok + panicked - (stats.done + stats.panicked);
        assert!(stats.done <= ok && stats.panicked <= panicked, "{stats:#?}");
        assert_eq!(stats.timed_out + stats.abandoned + refused, cut_off + ran_on, "{stats:#?}");
        reconciles(&stats);
    }
}

fn watched(workers: usize, max_stuck: usize) -> Builder {
    builder(workers).job_timeout(std::time::Duration::ZERO).max_stuck(max_stuck)
}

#[test]
fn timeouts_and_replaced_threads_while_jobs_end_and_panic() {
    let run = || {
        let (pool, mut workers) = Threads::start(watched(1, 1));
        for does in [Does::Ends, Does::Panics, Does::Ends] {
            pool.submit(does).unwrap();
        }
        workers.extend(pool.look());
        workers.extend(pool.look());
        pool.crew.close();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        pool.settles(0);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn a_drain_that_gives_up_beside_a_watch_that_looks() {
    let run = || {
        let (pool, mut workers) = Threads::start(watched(2, 1));
        for does in [Does::Ends, Does::Ends, Does::Panics] {
            pool.submit(does).unwrap();
        }
        let own = Arc::clone(&pool);
        let watch = thread::spawn(move || own.look());
        let own = Arc::clone(&pool);
        let late = thread::spawn(move || own.submit(Does::Ends).is_err());
        pool.crew.close();
        future::block_on(pool.crew.give_up(None::<std::future::Ready<bool>>));
        workers.extend(watch.join().unwrap());
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        pool.settles(u64::from(late.join().unwrap()));
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}
