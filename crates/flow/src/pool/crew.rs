//! What workers and handles share: the queue, the roster of workers, their sleep, the counts.
//!
//! Owns the jobs that a worker took and gave back, and the number of workers wanted. Knows nothing of what a job is. A job
//! is, at each moment, in exactly one place: the queue, the jobs given back, one worker's hands, or counted.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::Notify;

use super::bed::Bed;
use super::roster::{Place, Roster};
use super::slot::{Counts, Sum};
use super::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence};
use super::{Drained, PoolError, PoolStats, Settings, panic};
use crate::clock::{self, Instant};
use crate::ctx::{Cause, Ctx};
use crate::queue::{Lost, QueueInfo, Receiver, Sender, Submit};
use crate::tasks;

pub(super) struct Crew<J> {
    pub(super) set: Settings,
    pub(super) what: Arc<str>,
    pub(super) ctx: Ctx,
    /// Cancelled when the pool stops or drains: it cuts a backoff short.
    pub(super) hurry: Ctx,
    pub(super) queue: Receiver<J>,
    /// The queue holds nothing: a worker must wait in it to be given a job.
    rendezvous: bool,
    pub(super) bed: Bed,
    returned: Mutex<Returned<J>>,
    returned_len: AtomicUsize,
    pub(super) roster: Mutex<Roster>,
    pub(super) live: AtomicUsize,
    pub(super) wanted: AtomicUsize,
    lost: Arc<Losses>,
    pub(super) restarts: AtomicU64,
    pub(super) base: Counts,
    /// A worker left the roster.
    pub(super) gone: Notify,
    /// The number of workers wanted changed.
    pub(super) resized: Notify,
}

/// Where the jobs come from.
pub(super) struct Source<J> {
    pub(super) queue: Receiver<J>,
    pub(super) rendezvous: bool,
    pub(super) lost: Arc<Losses>,
}

/// Jobs the queue's policy dropped. Counted here and not asked of the queue, which counts a refused one as shed, too.
#[derive(Default)]
pub(super) struct Losses {
    /// Before they were in it.
    newest: AtomicU64,
    all: AtomicU64,
}

impl Losses {
    pub(super) fn count(&self, lost: Lost) {
        if lost == Lost::Newest {
            self.newest.fetch_add(1, Ordering::AcqRel);
        }
        self.all.fetch_add(1, Ordering::AcqRel);
    }
}

struct Returned<J> {
    jobs: VecDeque<J>,
    /// The pool stopped: what comes back is abandoned.
    over: bool,
}

impl<J: Send + 'static> Crew<J> {
    pub(super) fn new(set: Settings, ctx: Ctx, source: Source<J>) -> Arc<Self> {
        super::panic::keep_stacks();
        Arc::new(Self {
            what: Arc::from(set.name.as_ref()),
            hurry: ctx.child(""),
            ctx,
            queue: source.queue,
            rendezvous: source.rendezvous,
            bed: Bed::default(),
            returned: Mutex::new(Returned { jobs: VecDeque::new(), over: false }),
            returned_len: AtomicUsize::new(0),
            roster: Mutex::default(),
            live: AtomicUsize::new(0),
            wanted: AtomicUsize::new(set.workers),
            lost: source.lost,
            restarts: AtomicU64::new(0),
            base: Counts::default(),
            gone: Notify::new(),
            resized: Notify::new(),
            set,
        })
    }

    // Submitting.

    /// Hands `job` in, waiting in line under a policy that blocks, if the line is not full itself.
    pub(super) async fn submit(&self, jobs: &Sender<J>, job: J) -> Result<(), PoolError> {
        let mut handing = Handing { crew: self, submit: jobs.submit(job), over: false };
        let result = (&mut handing.submit).await;
        handing.over = true;
        result.map_err(|error| PoolError::refused(&error))?;
        self.bed.wake_one();
        Ok(())
    }

    pub(super) fn try_submit(&self, jobs: &Sender<J>, job: J) -> Result<(), PoolError> {
        jobs.try_submit(job).map_err(|error| PoolError::refused(&error))?;
        self.bed.wake_one();
        Ok(())
    }

    // Working.

    /// Waits for jobs and takes up to `most` of them. False: the worker shall end.
    pub(super) async fn next(
        &self,
        place: &Place,
        mut cancelled: Pin<&mut Cancelled<impl Future<Output = Cause>>>,
        most: usize,
        batch: &mut VecDeque<J>,
    ) -> bool {
        if self.rendezvous {
            return self.meet(place, cancelled, batch).await;
        }
        poll_fn(|cx| self.poll_next(place, cancelled.as_mut(), most, batch, cx)).await
    }

    fn poll_next(
        &self,
        place: &Place,
        mut cancelled: Pin<&mut Cancelled<impl Future<Output = Cause>>>,
        most: usize,
        batch: &mut VecDeque<J>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            if self.shall_end() {
                return Poll::Ready(false);
            }
            if self.take(place, most, batch) {
                if self.bed.get_up(&place.rest) && self.has_work() {
                    self.bed.wake_one();
                }
                return Poll::Ready(true);
            }
            if self.queue.is_closed() {
                // Looked at before it was closed: once more.
                return Poll::Ready(self.take(place, most, batch));
            }
            if cancelled.as_mut().watch(cx) {
                return Poll::Ready(false);
            }
            if self.bed.lie_down(&place.rest, cx.waker()) {
                tasks::note_wait("queue", &self.what);
                return Poll::Pending;
            }
        }
    }

    /// As [`Crew::next`], where a job changes hands only while the worker waits for it.
    async fn meet(
        &self,
        place: &Place,
        mut cancelled: Pin<&mut Cancelled<impl Future<Output = Cause>>>,
        batch: &mut VecDeque<J>,
    ) -> bool {
        loop {
            let mut resized = pin!(self.resized.notified());
            resized.as_mut().enable();
            if self.shall_end() {
                return false;
            }
            let mut next = self.queue.recv();
            let met = poll_fn(|cx| {
                if let Poll::Ready(job) = Pin::new(&mut next).poll(cx) {
                    return Poll::Ready(Some(job));
                }
                let over = self.ctx.is_cancelled() || cancelled.as_mut().watch(cx);
                if over || resized.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            })
            .await;
            match met {
                Some(Some(job)) => {
                    batch.push_back(job);
                    if self.hold(place, batch) {
                        return true;
                    }
                }
                Some(None) => return false,
                None => {}
            }
        }
    }

    fn shall_end(&self) -> bool {
        self.ctx.is_cancelled()
            || self.live.load(Ordering::Relaxed) > self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn has_work(&self) -> bool {
        self.returned_len.load(Ordering::SeqCst) > 0 || !self.queue.is_empty()
    }

    fn take(&self, place: &Place, most: usize, batch: &mut VecDeque<J>) -> bool {
        if self.returned_len.load(Ordering::SeqCst) > 0 {
            let mut returned = self.returned.lock();
            let jobs = most.min(returned.jobs.len());
            batch.extend(returned.jobs.drain(..jobs));
            self.returned_len.store(returned.jobs.len(), Ordering::SeqCst);
        }
        if batch.len() < most {
            self.queue.try_recv_many(batch, most - batch.len());
        }
        !batch.is_empty() && self.hold(place, batch)
    }

    /// Enters the batch in the worker's figures.
    fn hold(&self, place: &Place, batch: &mut VecDeque<J>) -> bool {
        if place.slot.take(batch.len() as u64) {
            return true;
        }
        // Left behind between two jobs: the pool is stopping.
        self.abandon(batch.len() as u64);
        self.let_go(batch.drain(..));
        false
    }

    /// Gives back what of the batch was not started, so that others may take it while this worker waits.
    pub(super) fn give_back(&self, place: &Place, batch: &mut VecDeque<J>) {
        if batch.is_empty() {
            return;
        }
        let jobs = batch.len() as u64;
        if !place.slot.give_back(jobs) {
            self.let_go(batch.drain(..)); // counted as abandoned
            return;
        }
        let mut returned = self.returned.lock();
        if returned.over {
            drop(returned);
            self.abandon(jobs);
            self.let_go(batch.drain(..));
            return;
        }
        returned.jobs.extend(batch.drain(..));
        self.returned_len.store(returned.jobs.len(), Ordering::SeqCst);
        drop(returned);
        // Who looks for returned jobs takes no lock to find none.
        fence(Ordering::SeqCst);
        self.bed.wake_one();
    }

    /// Drops what is left of a batch after the pool stopped.
    pub(super) fn abandon_batch(&self, place: &Place, batch: &mut VecDeque<J>) {
        if !batch.is_empty() && place.slot.give_back(batch.len() as u64) {
            self.abandon(batch.len() as u64);
        }
        self.let_go(batch.drain(..));
    }

    // Ending.

    /// Drops jobs that nobody runs. What one holds may panic as it goes, and takes no other with it.
    pub(super) fn let_go(&self, jobs: impl IntoIterator<Item = J>) {
        for job in jobs {
            if panic::catch(move || drop(job)).is_err() {
                tracing::error!(pool = %self.what, "a job panicked while it was dropped");
            }
        }
    }

    pub(super) fn abandon(&self, jobs: u64) {
        self.base.abandoned.fetch_add(jobs, Ordering::AcqRel);
    }

    pub(super) fn timed_out(&self, jobs: u64) {
        self.base.timed_out.fetch_add(jobs, Ordering::AcqRel);
    }

    /// Takes no more jobs; the accepted ones are still run.
    pub(super) fn close(&self) {
        self.queue.close();
        self.hurry.cancel(Cause::Shutdown);
        self.bed.wake_all();
        self.resized.notify_waiters();
    }

    /// Counts what still runs as abandoned. It may run on to its end, which nobody counts any more.
    fn leave_running_behind(&self) {
        let roster = self.roster.lock();
        let left = roster.workers.iter().map(|place| place.slot.leave()).sum();
        self.abandon(left);
    }

    /// Takes no more jobs and drops the queued ones, whose callers are answered `Cancelled`.
    pub(super) fn stop(&self, cause: Cause) {
        self.queue.close();
        self.ctx.cancel(cause);
        let returned = {
            let mut returned = self.returned.lock();
            returned.over = true;
            self.returned_len.store(0, Ordering::SeqCst);
            std::mem::take(&mut returned.jobs)
        };
        let queued = std::iter::from_fn(|| self.queue.try_recv());
        self.let_go(returned.into_iter().chain(queued).inspect(|_| self.abandon(1)));
        self.bed.wake_all();
    }

    /// Takes no more jobs, waits until the accepted ones have ended, and past `deadline` abandons the rest. With a `grace`
    /// what runs is aborted then, and has so long to be gone; without, it is left to itself. Only what runs even then is
    /// counted without having ended: a job that ends in its last poll is counted by its end.
    pub(super) async fn drain(&self, deadline: Instant, grace: Option<Duration>) -> Drained {
        let before = self.sum();
        self.close();
        if !self.empty(deadline).await {
            let gone = grace.map(|grace| self.empty(clock::now() + grace));
            self.give_up(gone).await;
        }
        let after = self.sum();
        Drained { finished: after.ended() - before.ended(), abandoned: after.abandoned }
    }

    /// Abandons what is left. What runs is aborted if it can be waited for until it is `gone`.
    pub(super) async fn give_up(&self, gone: Option<impl Future<Output = bool>>) {
        self.stop(Cause::Shutdown);
        if let Some(gone) = gone {
            self.ctx.kill(Cause::Shutdown);
            let _all = gone.await;
        }
        self.leave_running_behind();
    }

    /// Waits until no worker is on the roster.
    pub(super) async fn deserted(&self) {
        loop {
            let mut gone = pin!(self.gone.notified());
            gone.as_mut().enable();
            if self.roster.lock().workers.is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// Waits until no worker is on the roster, for `deadline` at most; true when none is.
    async fn empty(&self, deadline: Instant) -> bool {
        let gone = async {
            self.deserted().await;
            if self.roster.lock().stuck == 0 {
                // They have a moment of their own code left.
                self.ctx.idle().await;
            }
        };
        tokio::time::timeout_at(deadline, gone).await.is_ok()
    }

    // Telling.

    fn sum(&self) -> Sum {
        let roster = self.roster.lock();
        self.sum_of(&roster)
    }

    fn sum_of(&self, roster: &Roster) -> Sum {
        let mut sum = Sum::default();
        sum.add(&self.base);
        for place in &roster.workers {
            sum.add(&place.slot.counts);
        }
        sum
    }

    pub(super) fn stats(&self, queue: &QueueInfo) -> PoolStats {
        let roster = self.roster.lock();
        let sum = self.sum_of(&roster);
        let held: Vec<_> = roster.workers.iter().map(|place| place.slot.held()).collect();
        let busy = held.iter().filter(|held| **held > 0).count();
        let taken = usize::try_from(held.iter().sum::<u64>()).unwrap_or(usize::MAX);
        PoolStats {
            name: self.set.name.to_string(),
            workers: self.wanted.load(Ordering::Relaxed),
            live: roster.workers.len(),
            busy,
            queued: queue.items
                + self.returned_len.load(Ordering::SeqCst)
                + taken.saturating_sub(busy),
            waiters: queue.waiters,
            submitted: queue.sent + self.lost.newest.load(Ordering::Acquire),
            dropped: self.lost.all.load(Ordering::Acquire),
            done: sum.done,
            failed: sum.failed,
            panicked: sum.panicked,
            timed_out: sum.timed_out,
            cancelled: sum.cancelled,
            abandoned: sum.abandoned,
            restarts: self.restarts.load(Ordering::Acquire),
            stuck: roster.stuck,
            replaced: roster.replaced,
        }
    }
}

pin_project! {
    /// The pool's cancellation as one worker waits for it: it asks to be woken once in its life, and from then on the
    /// context's flag says all, since a worker always waits with the same waker.
    pub(super) struct Cancelled<F> {
        #[pin]
        cancelled: F,
        asked: bool,
    }
}

impl<F: Future<Output = Cause>> Cancelled<F> {
    pub(super) fn new(cancelled: F) -> Self {
        Self { cancelled, asked: false }
    }

    /// Asks to be woken; true when it is cancelled already. The caller looks at the flag first.
    pub(super) fn watch(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let this = self.project();
        !std::mem::replace(this.asked, true) && this.cancelled.poll(cx).is_ready()
    }
}

/// A submit under way. Dropped, it may have been let in all the same: then a worker must know.
struct Handing<'a, J: Send + 'static> {
    crew: &'a Crew<J>,
    submit: Submit<'a, J>,
    over: bool,
}

impl<J: Send + 'static> Drop for Handing<'_, J> {
    fn drop(&mut self) {
        if !self.over && self.submit.take_back().is_none() {
            self.crew.bed.wake_one();
        }
    }
}
