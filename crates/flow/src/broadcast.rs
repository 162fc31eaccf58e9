//! One to many, where nobody's slowness is anybody else's: each subscriber has a bounded outbox, a [`crate::ring`] of its own.
//!
//! Owns the outboxes. A subscriber whose outbox is full when an item comes is dropped: counted, logged, and told why and
//! how many it missed, after it has read what was in its outbox. From then on it costs the publisher nothing. A publish
//! never waits for a subscriber, and what it does is one clone and one push for each that is still in. It never lags
//! somebody silently, and it never skips an item: a subscriber gets all of them, or learns that it does not.
//!
//! ```text
//! publish ─► outbox ─► subscriber          room: pushed
//!         ─► outbox ─► subscriber          full: dropped, counted, told
//! ```
//!
//! Publishers of one broadcast take turns under a lock, so that all subscribers see one order.
//!
//! # Choosing a bound
//! An outbox of what is published while a subscriber that is still worth serving pauses. Memory: the bound times the
//! subscribers times an item; items behind an `Arc` are shared.
//!
//! # Cancel safety
//! [`Subscriber::recv`] takes an item only when it returns it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use crate::ring::{self, Receiver, Sender, TryPushError};
use crate::tasks::Name;
use crate::wait::wake_all;

const PRUNE_FROM: usize = 64;

/// The publishing side. Cloning shares it; when the last clone is dropped the subscribers read what is left and end.
pub struct Broadcast<T> {
    shared: Arc<Shared<T>>,
    owner: Arc<Owner<T>>,
}

struct Shared<T> {
    name: Arc<str>,
    outbox: usize,
    /// Items published so far; written under the lock of `state`.
    published: AtomicU64,
    state: Mutex<State<T>>,
}

struct State<T> {
    subscribers: Vec<Outbox<T>>,
    /// At so many, those who left are looked for: it spares a publisher that is silent for long.
    prune_at: usize,
    stats: Stats,
}

struct Outbox<T> {
    name: Name,
    sender: Sender<T>,
    evicted: Arc<AtomicBool>,
    delivered: u64,
}

/// Closes the broadcast when the last publisher goes.
struct Owner<T>(Arc<Shared<T>>);

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let gone = std::mem::take(&mut state.subscribers);
        drop(state);
        drop(gone);
    }
}

/// Counts of one broadcast, as plain data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers that are in now.
    pub subscribers: usize,
    /// Items published so far.
    pub published: u64,
    /// Pushes into an outbox so far, one for each item and subscriber: the work that publishing was.
    pub delivered: u64,
    /// Subscribers dropped so far because their outbox was full.
    pub evicted: u64,
    /// Subscribers that left by themselves so far.
    pub left: u64,
}

/// Why a subscriber gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its outbox was full: it was too slow. Subscribe again, and know that there is a gap.
    Slow {
        /// Items published since the last one it got.
        missed: u64,
    },
    /// The last publisher is gone, and everything was read.
    Closed,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { missed } => {
                write!(f, "dropped for being too slow: {missed} items were missed")
            }
            Self::Closed => f.write_str("the publisher is gone"),
        }
    }
}

impl std::error::Error for Gone {}

impl<T: Clone + Send> Broadcast<T> {
    /// A broadcast of `name` whose subscribers each have an outbox of `outbox` items (zero counts as one). How to choose it:
    /// [module](self#choosing-a-bound).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use forebay_flow::broadcast::{Broadcast, Gone};
    /// let prices = Broadcast::new("prices", 2);
    /// let (mut quick, mut slow) = (prices.subscribe("quick"), prices.subscribe("slow"));
    /// for price in 1..=4 {
    ///     prices.publish(price);
    ///     assert_eq!(quick.recv().await, Ok(price));
    /// }
    /// assert_eq!((slow.recv().await, slow.recv().await), (Ok(1), Ok(2)));
    /// assert_eq!(slow.recv().await, Err(Gone::Slow { missed: 2 }));
    /// # }
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Name>, outbox: usize) -> Self {
        let shared = Arc::new(Shared {
            name: Arc::from(name.into().as_ref()),
            outbox,
            published: AtomicU64::new(0),
            state: Mutex::new(State {
                subscribers: Vec::new(),
                prune_at: PRUNE_FROM,
                stats: Stats::default(),
            }),
        });
        Self { owner: Arc::new(Owner(Arc::clone(&shared))), shared }
    }

    /// A subscriber for what is published from now on. `name` says who it is when it is dropped.
    #[must_use]
    pub fn subscribe(&self, name: impl Into<Name>) -> Subscriber<T> {
        let (sender, receiver) = ring::channel(self.shared.name.to_string(), self.shared.outbox);
        let evicted = Arc::new(AtomicBool::new(false));
        let outbox =
            Outbox { name: name.into(), sender, evicted: Arc::clone(&evicted), delivered: 0 };
        let mut state = self.shared.state.lock();
        let since = self.shared.published.load(Ordering::Relaxed);
        let left = state.prune();
        state.subscribers.push(outbox);
        drop(state);
        drop(left);
        Subscriber { receiver, evicted, shared: Arc::clone(&self.shared), next: since }
    }

    /// Hands `item` to every subscriber that has room, drops those that have none, and says how many got it. It waits for
    /// no subscriber; at most for another publisher's turn.
    pub fn publish(&self, item: T) -> usize {
        let mut wakers = Vec::new();
        let mut out = Vec::new();
        let mut state = self.shared.state.lock();
        self.shared.published.fetch_add(1, Ordering::Release);
        let State { subscribers, stats, .. } = &mut *state;
        stats.published += 1;
        let mut at = 0;
        while let Some(outbox) = subscribers.get_mut(at) {
            match outbox.push(item.clone()) {
                Ok(waker) => {
                    wakers.extend(waker);
                    at += 1;
                }
                Err(TryPushError::Full(_)) => {
                    stats.evicted += 1;
                    outbox.evicted.store(true, Ordering::Release);
                    out.push((subscribers.swap_remove(at), true));
                }
                Err(TryPushError::Closed(_)) => {
                    stats.left += 1;
                    out.push((subscribers.swap_remove(at), false));
                }
            }
        }
        let delivered = subscribers.len();
        stats.delivered += delivered as u64;
        drop(state);
        wake_all(wakers);
        for (outbox, slow) in out {
            if slow {
                tracing::warn!(broadcast = %self.shared.name, subscriber = %outbox.name, delivered = outbox.delivered, "subscriber dropped: its outbox was full");
            }
        }
        delivered
    }

    /// Its counts now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.state.lock();
        Stats { subscribers: state.subscribers.len(), ..state.stats }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }
}

impl<T: Send> State<T> {
    /// Takes out who left, once their number may have doubled since the last look: constant work per subscribe.
    fn prune(&mut self) -> Vec<Outbox<T>> {
        if self.subscribers.len() < self.prune_at {
            return Vec::new();
        }
        let (left, stay) = std::mem::take(&mut self.subscribers)
            .into_iter()
            .partition(|outbox| outbox.sender.is_closed());
        let left: Vec<_> = left;
        self.subscribers = stay;
        self.stats.left += left.len() as u64;
        self.prune_at = (2 * self.subscribers.len()).max(PRUNE_FROM);
        left
    }
}

impl<T: Send> Outbox<T> {
    fn push(&mut self, item: T) -> Result<Option<Waker>, TryPushError<T>> {
        let waker = self.sender.push_unrung(item)?;
        self.delivered += 1;
        Ok(waker)
    }
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), owner: Arc::clone(&self.owner) }
    }
}

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("name", &self.shared.name)
            .field("publishers", &Arc::strong_count(&self.owner))
            .finish_non_exhaustive()
    }
}

/// The receiving side. Dropping it leaves the broadcast; the publisher notices at its next item.
pub struct Subscriber<T> {
    receiver: Receiver<T>,
    evicted: Arc<AtomicBool>,
    shared: Arc<Shared<T>>,
    /// How many items had been published before the one it gets next.
    next: u64,
}

impl<T: Clone + Send> Subscriber<T> {
    /// Waits for the next item.
    ///
    /// # Errors
    /// [`Gone`] once nothing more comes, after what was in the outbox; then each time.
    ///
    /// # Cancel safety
    /// An item is taken only when it is returned.
    pub async fn recv(&mut self) -> Result<T, Gone> {
        match self.receiver.pop().await {
            Some(item) => Ok(self.got(item)),
            None => Err(self.gone()),
        }
    }

    /// The next item, if there is one now.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub fn try_recv(&mut self) -> Result<Option<T>, Gone> {
        let over = self.receiver.is_closed(); // before the look, or a last item could slip between
        match self.receiver.try_pop() {
            Some(item) => Ok(Some(self.got(item))),
            None if over => Err(self.gone()),
            None => Ok(None),
        }
    }

    fn got(&mut self, item: T) -> T {
        self.next += 1;
        item
    }

    fn gone(&self) -> Gone {
        if self.evicted.load(Ordering::Acquire) {
            Gone::Slow { missed: self.shared.published.load(Ordering::Acquire) - self.next }
        } else {
            Gone::Closed
        }
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("broadcast", &self.shared.name)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
