//! Bounded queues: none can be made without a name, a bound and a policy.
//!
//! Owns what was accepted until it is received. A close, a cancelled submit and a racing receiver agree on who has the
//! item: after a submit ends, the item is in the queue or in the caller's hands, never both, never neither. After
//! [`close`](Queue::close) what was accepted is drained. It never grows past its bound, it never hands out an item past its
//! deadline, and no submit sleeps on after its item is in.
//!
//! ```text
//! submit ─► room? ─yes─────────────────────────► accepted ─► recv
//!             └─no─► Block: wait in line ─let in─►┘    └─► lost: counted, and told to the dead letter and the receipt
//!                    Reject, Shed: handed back
//!                    DropNewest: the new is lost · DropOldest: the oldest is lost
//! ```
//!
//! # Block, drop, reject or shed
//!
//! | ask, in this order | then | because |
//! |---|---|---|
//! | May the sender be slowed down, and whoever feeds it? | [`Full::Block`], with [`submit_within`](Sender::submit_within) | pressure travels to the source, and nothing is lost |
//! | Does somebody wait for the answer who can be told no? | [`Full::Reject`] | a fast no can be retried elsewhere; a late yes is no use to anybody |
//! | Do some of them matter more than others? | [`Full::Shed`], with [`priority`](Builder::priority) | the important part keeps its room before there is none |
//! | Is only the latest of use? | [`Full::DropOldest`] | an old position is wrong, not late |
//! | Is any of them as good as another? | [`Full::DropNewest`] | a sample is a sample, and the queue is left in peace |
//!
//! Beside any of them: [`time_to_live`](Builder::time_to_live) where an answer is worthless after a while,
//! [`submit_until`](Sender::submit_until) where each request has a deadline of its own, and
//! [`max_waiting`](Builder::max_waiting) where every request is a sender.
//!
//! # Choosing a bound
//!
//! A queue evens out bursts. It does not make a slow receiver faster: one that is full most of the time adds only delay.
//! Little's law says how much. In a steady state
//!
//! ```text
//! items in the queue = items a second × seconds each spends in it
//! ```
//!
//! Read from left to right it is the delay that a bound promises: 1,000 items before a receiver of 500 a second are two
//! seconds for whoever comes last. Read from right to left it is the bound: callers give up after 200 ms and the receiver
//! does 500 a second, so the queue holds 100; a longer one works for callers who are gone. From below, the bound covers the
//! receiver's longest usual pause at the senders' usual rate: a pause of 20 ms at 500 a second asks for 10. Between the two
//! take the smaller. For a pool, two a worker: none idles between jobs, and none waits long. Zero is a rendezvous: the
//! sender knows that its item was taken up.
//!
//! A bound of eight and more lets waiting senders in by a quarter of it, so that a wake is paid once a batch: the larger the
//! bound, the cheaper the item. Below eight, each is let in alone.
//!
//! Where items differ in size, bound the bytes ([`weighted`]): then the bound is a share of the process's memory. Write the
//! sum into [`Builder::why`]; it stands in the queue's row of the [`snapshot`].

mod builder;
mod core;
mod handle;
mod intake;
mod items;
#[cfg(all(test, shuttle))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod model;
mod outlet;
mod pace;
mod policy;
mod receiver;
mod registry;
mod sender;
mod spin;
mod submit;
mod sync;

use std::fmt;

use crate::tasks::Name;

pub use self::builder::Builder;
pub use self::core::Queue;
pub use self::policy::{Full, Lost, Priority, Watermarks};
pub use self::receiver::{Receiver, Recv, RecvMany};
pub(crate) use self::registry::drained_by;
pub use self::registry::{QueueInfo, snapshot};
pub use self::sender::Sender;
pub use self::submit::{Receipt, Submit, SubmitUntil, SubmitWithin, Unsent};

/// How much a queue may hold, and in what unit. How to choose it: [module](self#choosing-a-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    unit: Unit,
    limit: u64,
}

/// What a bound counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Items, each weighing one.
    Items,
    /// Bytes, as the queue's weigher says (the item's own size where there is none).
    Bytes,
}

impl Unit {
    /// `items` or `bytes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Bytes => "bytes",
        }
    }
}

impl Bound {
    /// At most `limit` items. Zero is a rendezvous: an item is accepted only when a receiver waits for it.
    #[must_use]
    pub const fn items(limit: usize) -> Self {
        Self { unit: Unit::Items, limit: limit as u64 }
    }

    /// At most `limit` bytes.
    #[must_use]
    pub const fn bytes(limit: usize) -> Self {
        Self { unit: Unit::Bytes, limit: limit as u64 }
    }

    /// The limit in its unit.
    #[must_use]
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// The unit.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.unit
    }
}

/// Why an item was not accepted; it comes back inside.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError<T> {
    /// No room now. A later retry may succeed.
    Full(T),
    /// The queue is closed: for good.
    Closed(T),
    /// Heavier than the whole bound: for good.
    TooHeavy(T),
    /// No room until the deadline, or the deadline had passed before. A later retry may succeed.
    TimedOut(T),
    /// Its priority is being shed: the queue is past its high watermark. A later retry may succeed; an early one adds to
    /// the load.
    Shed(T),
}

impl<T> SubmitError<T> {
    /// The item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item)
            | Self::Closed(item)
            | Self::TooHeavy(item)
            | Self::TimedOut(item)
            | Self::Shed(item) => item,
        }
    }

    /// The item, and the rest of the error.
    fn into_parts(self) -> (T, SubmitError<()>) {
        match self {
            Self::Full(item) => (item, SubmitError::Full(())),
            Self::Closed(item) => (item, SubmitError::Closed(())),
            Self::TooHeavy(item) => (item, SubmitError::TooHeavy(())),
            Self::TimedOut(item) => (item, SubmitError::TimedOut(())),
            Self::Shed(item) => (item, SubmitError::Shed(())),
        }
    }

    /// Whether the same submit may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Full(_) | Self::TimedOut(_) | Self::Shed(_))
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the queue is closed",
            Self::TooHeavy(_) => "the item is heavier than the queue's bound",
            Self::TimedOut(_) => "the queue stayed full until the deadline",
            Self::Shed(_) => "the queue sheds this priority",
        }
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::TooHeavy(_) => "TooHeavy(..)",
            Self::TimedOut(_) => "TimedOut(..)",
            Self::Shed(_) => "Shed(..)",
        })
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<T> std::error::Error for SubmitError<T> {}

/// A queue of `name`, bounded by `bound`, that does `full` when there is no room. In bytes, each item weighs its own size.
/// How to choose the bound: [module](self#choosing-a-bound). [`Builder`] has more to say about it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::queue::{self, Bound, Full, SubmitError};
/// let (tx, rx) = queue::bounded("uploads", Bound::items(1), Full::Reject);
/// tx.submit(1).await.unwrap();
/// assert_eq!(tx.try_submit(2), Err(SubmitError::Full(2))); // the item comes back
/// tx.close();
/// assert_eq!(rx.recv().await, Some(1)); // what was accepted is drained
/// assert_eq!(rx.recv().await, None);
/// # }
/// ```
#[must_use]
pub fn bounded<T: Send + 'static>(
    name: impl Into<Name>,
    bound: Bound,
    full: Full,
) -> (Sender<T>, Receiver<T>) {
    Builder::new(name, bound, full).build()
}

/// A queue bounded by `bytes`, each item weighing what `weigh` says (asked once, at submit). How to choose the bound:
/// [module](self#choosing-a-bound).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::queue::{self, Full, SubmitError};
/// let (tx, _rx) = queue::weighted("bodies", 1 << 20, Full::Reject, |body: &Vec<u8>| body.len());
/// tx.submit(vec![0; 1 << 19]).await.unwrap();
/// assert!(matches!(tx.try_submit(vec![0; 1 << 20]), Err(SubmitError::Full(_))));
/// assert!(matches!(tx.try_submit(vec![0; 2 << 20]), Err(SubmitError::TooHeavy(_))));
/// # }
/// ```
#[must_use]
pub fn weighted<T: Send + 'static>(
    name: impl Into<Name>,
    bytes: usize,
    full: Full,
    weigh: impl Fn(&T) -> usize + Send + Sync + 'static,
) -> (Sender<T>, Receiver<T>) {
    Builder::new(name, Bound::bytes(bytes), full).weigher(weigh).build()
}
