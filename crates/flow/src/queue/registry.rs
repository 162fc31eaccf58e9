//! The registry of live queues.
//!
//! Owns weak references only: a queue leaves when its last half is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::core::Queue;

/// One live queue, as plain data: the row that answers what every queue must answer. Is it bounded (`capacity`, `unit`)?
/// Who waits when it is full (`who_waits`)? Is that acceptable (`why`, and the figures)? How does it fail (`failure_mode`)?
///
/// At any moment `sent = received + items + expired + lost`, where the lost are those counted in `dropped` and `shed` that
/// had been accepted before.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name; several queues may share one.
    pub name: String,
    /// `items` or `bytes`.
    pub unit: &'static str,
    /// The bound in that unit.
    pub capacity: u64,
    /// What it holds now in that unit.
    pub depth: u64,
    /// Items in it now.
    pub items: usize,
    /// What it does when full.
    pub policy: &'static str,
    /// Who waits when it is full, in words.
    pub who_waits: &'static str,
    /// What goes wrong when it stays full, in words.
    pub failure_mode: &'static str,
    /// Why this bound and policy.
    pub why: &'static str,
    /// After how long an item expires; `None` when none does but by a deadline of its own.
    pub time_to_live: Option<Duration>,
    /// Submitters waiting in line.
    pub waiters: usize,
    /// Receivers waiting for an item.
    pub receivers_waiting: usize,
    /// Whether it is closed.
    pub closed: bool,
    /// Items accepted so far.
    pub sent: u64,
    /// Items received so far.
    pub received: u64,
    /// Submits that had to wait so far.
    pub blocked: u64,
    /// Seconds they waited in sum, those still waiting included.
    pub blocked_seconds: f64,
    /// Items dropped so far: by policy, or left when the last receiver went.
    pub dropped: u64,
    /// Submits refused so far, full or too heavy.
    pub rejected: u64,
    /// Items shed by priority so far: submits handed back, and items pushed out by more important ones.
    pub shed: u64,
    /// Items that expired in it so far.
    pub expired: u64,
}

trait Watched: Send + Sync {
    fn info(&self) -> QueueInfo;
    fn key(&self) -> usize;
    fn drained_by(&self) -> Vec<u64>;
}

impl<T: Send> Watched for Queue<T> {
    fn info(&self) -> QueueInfo {
        self.info_now()
    }

    fn key(&self) -> usize {
        Arc::as_ptr(&self.name).cast::<u8>() as usize
    }

    fn drained_by(&self) -> Vec<u64> {
        self.drained_by_now()
    }
}

/// Somebody receives, nobody knows who: no task of ours, or nobody yet.
pub(crate) const SOMEBODY: u64 = u64::MAX;

/// For every live queue, by the address of the name that its waiters note, the tasks that last received with each of its
/// live receivers.
pub(crate) fn drained_by() -> Vec<(usize, Vec<u64>)> {
    live().iter().map(|queue| (queue.key(), queue.drained_by())).collect()
}

fn live() -> Vec<Arc<dyn Watched>> {
    QUEUES.lock().iter().filter_map(Weak::upgrade).collect()
}

static QUEUES: Mutex<Vec<Weak<dyn Watched>>> = Mutex::new(Vec::new());

pub(super) fn register<T: Send + 'static>(queue: &Arc<Queue<T>>) {
    let weak = Arc::downgrade(queue);
    let mut queues = QUEUES.lock();
    queues.retain(|queue| queue.strong_count() > 0);
    queues.push(weak);
}

/// Every live queue of the process, in the order of making. Takes each queue's lock for a moment.
#[must_use]
pub fn snapshot() -> Vec<QueueInfo> {
    live().iter().map(|queue| queue.info()).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::queue::{self, Bound, Full};
    use crate::{Ctx, clock};

    #[tokio::test(start_paused = true)]
    async fn a_queue_knows_the_tasks_that_last_received_from_it_by_the_name_its_waiters_note() {
        let ctx = Ctx::root("t");
        let (tx, rx) = queue::bounded("drained", Bound::items(8), Full::Block);
        let key = Arc::as_ptr(&rx.name).cast::<u8>() as usize;
        let drained = || {
            let all = drained_by();
            let (_, mut by) = all.into_iter().find(|(queue, _)| *queue == key).unwrap();
            by.sort_unstable();
            by
        };
        let other = rx.clone();
        assert_eq!(drained(), [SOMEBODY, SOMEBODY]);
        let task = ctx.spawn("drains", async move {
            while let Some(n) = other.recv().await {
                tokio::time::sleep_until(clock::now() + Duration::from_secs(n)).await;
            }
        });
        tx.submit(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(drained(), [task.id(), SOMEBODY]);
        assert_eq!(rx.try_recv(), None, "outside of a task of ours");
        assert_eq!(drained(), [task.id(), SOMEBODY]);
        drop(tx);
        task.join().await.unwrap();
        assert_eq!(drained(), [SOMEBODY]);
    }
}
