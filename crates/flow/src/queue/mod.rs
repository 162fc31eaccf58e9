//! Bounded queues: none can be made without a name, a bound and a policy.
//!
//! Owns what was accepted until it is received. One lock per queue orders everything, so a close, a cancelled submit and
//! a racing receiver agree on who has the item: after a submit ends, the item is in the queue or in the caller's hands,
//! never both, never neither. After [`Sender::close`] what was accepted is drained. It never grows past its bound.
//!
//! ```text
//! submit ─► room? ─yes─► accepted ─► recv
//!             └─no─► policy: wait in line · hand back · drop the new · drop the old
//! ```
//!
//! Choosing a bound: enough to cover the receiver's longest pause at the sender's usual rate, and small enough that what
//! lies in the queue is still wanted when its turn comes. For a pool, twice its workers.

mod core;
mod receiver;
mod registry;
mod sender;

use std::fmt;
use std::sync::Arc;

use crate::tasks::Name;

pub use self::receiver::{Receiver, Recv};
pub use self::registry::{QueueInfo, Registry, registry};
pub use self::sender::{Sender, Submit, SubmitWithin, Unsent};

/// How much a queue may hold, and in what unit.
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

/// What happens to a submit when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `submit` waits in line: pressure goes back to the sender.
    Block,
    /// `submit` hands the item back at once: the sender tells its own caller no.
    Reject,
    /// The new item is dropped and counted; the sender is not told.
    DropNewest,
    /// The oldest items are dropped and counted until the new one fits; the sender is not told.
    DropOldest,
}

impl Full {
    /// `block`, `reject`, `drop_newest` or `drop_oldest`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reject => "reject",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
        }
    }
}

/// Why an item was not accepted; it comes back inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SubmitError<T> {
    /// No room now. A later retry may succeed.
    Full(T),
    /// The queue is closed: for good.
    Closed(T),
    /// Heavier than the whole bound: for good.
    TooHeavy(T),
    /// No room until the deadline. A later retry may succeed.
    TimedOut(T),
}

/// The error of [`Sender::try_submit`], which is never `TimedOut`.
pub type TrySubmitError<T> = SubmitError<T>;

impl<T> SubmitError<T> {
    /// The item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::TooHeavy(item) | Self::TimedOut(item) => {
                item
            }
        }
    }

    /// Whether the same submit may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Full(_) | Self::TimedOut(_))
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the queue is closed",
            Self::TooHeavy(_) => "the item is heavier than the queue's bound",
            Self::TimedOut(_) => "the queue stayed full until the deadline",
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
    let weigh: fn(&T) -> usize = match bound.unit {
        Unit::Items => |_| 1,
        Unit::Bytes => |_| size_of::<T>(),
    };
    Options::new(name, bound, full).weigher(weigh).build()
}

/// A queue bounded by `bytes`, each item weighing what `weigh` says (asked once, at submit).
#[must_use]
pub fn weighted<T: Send + 'static>(
    name: impl Into<Name>,
    bytes: usize,
    full: Full,
    weigh: impl Fn(&T) -> usize + Send + Sync + 'static,
) -> (Sender<T>, Receiver<T>) {
    Options::new(name, Bound::bytes(bytes), full).weigher(weigh).build()
}

/// A queue in the making, for what [`bounded`] and [`weighted`] leave at its default.
pub struct Options<T> {
    name: Name,
    bound: Bound,
    full: Full,
    why: &'static str,
    weigh: Option<core::Weigher<T>>,
}

impl<T: Send + 'static> Options<T> {
    /// The three things no queue is without.
    #[must_use]
    pub fn new(name: impl Into<Name>, bound: Bound, full: Full) -> Self {
        Self { name: name.into(), bound, full, why: "", weigh: None }
    }

    /// Why this bound and this policy, in a sentence for the queue table.
    #[must_use]
    pub fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    /// What an item weighs, in the bound's unit.
    #[must_use]
    pub fn weigher(mut self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// Makes the queue and enters it in the registry.
    #[must_use]
    pub fn build(self) -> (Sender<T>, Receiver<T>) {
        let weigh = self.weigh.unwrap_or_else(|| match self.bound.unit {
            Unit::Items => Box::new(|_| 1),
            Unit::Bytes => Box::new(|_| size_of::<T>()),
        });
        let shared = Arc::new(core::Shared::new(self.name, self.bound, self.full, self.why, weigh));
        registry::register(&shared);
        (Sender::first(Arc::clone(&shared)), Receiver::first(shared))
    }
}

impl<T> fmt::Debug for Options<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}
