//! The threads of all journals of the process: few that write, few that read. Owns the run queue and the idle timers; a
//! journal is in the run queue at most once and is written by one thread at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay_flow::Ctx;
use forebay_flow::clock::{self, Instant};
use forebay_flow::pool::{self, ThreadPool};
use forebay_flow::queue::Bound;
use forebay_flow::thread::{self, Thread};
use parking_lot::{Condvar, Mutex};

use crate::Journal;

/// Threads that read what is no longer in memory, beside those that write: each waits for the disk.
const READERS: usize = 2;

/// Reads that wait for a thread.
pub const READS_WAITING: usize = 4 * READERS;

/// Why so many.
pub const READ_WHY: &str = "a lane reads one chunk at a time; who waits holds no memory";

/// The shared threads. Clones are handles to the same threads.
#[derive(Clone, Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    /// Absent in a simulation, where the caller's thread reads.
    readers: Option<ThreadPool>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    threads: Mutex<Vec<Thread<()>>>,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Arc<Journal>>,
    /// Quiet journals, by when they became quiet: one fixed delay, so the order of arrival is the order of time.
    quiet: VecDeque<(Instant, Weak<Journal>)>,
    stopping: bool,
}

impl Writers {
    /// Starts `threads` threads that write, and two that read, under `ctx`, which owns them; [`Writers::stop`] ends
    /// them. With none, [`Writers::step`] and [`Writers::tick_idle`] do the work on the caller's thread, and who reads
    /// waits for the disk: for simulations.
    ///
    /// # Errors
    /// When a thread cannot be started; those already started are stopped.
    pub fn start(ctx: &Ctx, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            threads: Mutex::default(),
        });
        let readers = match threads {
            0 => None,
            _ => Some(
                pool::Builder::new("journal-read", READERS, Bound::items(READS_WAITING))
                    .why(READ_WHY)
                    .under(ctx)
                    .threads()?,
            ),
        };
        let writers = Self { shared, readers };
        for i in 0..threads {
            let shared = writers.shared.clone();
            match thread::spawn(ctx, format!("journal-writer-{i}"), move |_| shared.run()) {
                Ok(thread) => writers.shared.threads.lock().push(thread),
                Err(e) => {
                    writers.stop();
                    return Err(e);
                }
            }
        }
        Ok(writers)
    }

    /// Finishes what is queued, then ends and joins the threads; blocks until then. Close the journals first:
    /// appends after this fail as closed.
    pub fn stop(&self) {
        if let Some(readers) = &self.readers {
            readers.stop();
        }
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_all();
        for thread in std::mem::take(&mut *self.shared.threads.lock()) {
            // A panic of a turn is caught and poisons its journal, so there is nothing to learn here.
            drop(thread.join_blocking());
        }
        while self.step() {}
    }

    /// The pool that reads; `None` without threads.
    #[must_use]
    pub fn readers(&self) -> Option<&ThreadPool> {
        self.readers.as_ref()
    }

    /// Runs one turn of one journal on this thread; false if none was ready.
    pub fn step(&self) -> bool {
        let next = self.shared.queue.lock().ready.pop_front();
        next.inspect(|journal| self.shared.serve(journal)).is_some()
    }

    /// Treats every quiet journal as quiet for long enough now.
    pub fn tick_idle(&self) {
        let quiet = std::mem::take(&mut self.shared.queue.lock().quiet);
        for journal in quiet.iter().filter_map(|(_, journal)| journal.upgrade()) {
            journal.went_idle();
        }
    }

    /// Puts a journal into the run queue; false once the threads are stopped.
    pub(crate) fn schedule(&self, journal: Arc<Journal>) -> bool {
        let mut queue = self.shared.queue.lock();
        if queue.stopping {
            return false;
        }
        queue.ready.push_back(journal);
        drop(queue);
        self.shared.wake.notify_one();
        true
    }

    /// Wakes the journal after `IDLE`, if it is still quiet then.
    pub(crate) fn arm_idle(&self, journal: &Arc<Journal>) {
        let mut queue = self.shared.queue.lock();
        if !queue.stopping {
            queue.quiet.push_back((clock::now() + IDLE, Arc::downgrade(journal)));
            drop(queue);
            self.shared.wake.notify_one();
        }
    }
}

/// A journal that is quiet for this long writes the empty block.
pub(crate) const IDLE: Duration = Duration::from_millis(50);

enum Work {
    Turn(Arc<Journal>),
    Idle(Weak<Journal>),
    Stop,
}

impl Shared {
    fn run(&self) {
        loop {
            match self.next() {
                Work::Turn(journal) => self.serve(&journal),
                Work::Idle(journal) => {
                    if let Some(journal) = journal.upgrade() {
                        journal.went_idle();
                    }
                }
                Work::Stop => return,
            }
        }
    }

    fn next(&self) -> Work {
        let mut queue = self.queue.lock();
        loop {
            if let Some(journal) = queue.ready.pop_front() {
                return Work::Turn(journal);
            }
            if queue.stopping {
                return Work::Stop;
            }
            match queue.quiet.front().map(|(due, _)| due.saturating_duration_since(clock::now())) {
                None => self.wake.wait(&mut queue),
                Some(Duration::ZERO) => {
                    if let Some((_, journal)) = queue.quiet.pop_front() {
                        return Work::Idle(journal);
                    }
                }
                Some(wait) => {
                    self.wake.wait_for(&mut queue, wait);
                }
            }
        }
    }

    fn serve(&self, journal: &Arc<Journal>) {
        if journal.turn_caught() {
            // Behind the others, so that a busy journal does not starve them (F9).
            self.queue.lock().ready.push_back(journal.clone());
            self.wake.notify_one();
        }
    }
}
