//! What the checks found, as values that read as sentences.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// One lock, and where it was taken or asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub lock: &'static str,
    /// Where it was made.
    pub made_at: &'static Location<'static>,
    /// Where it was taken or asked for.
    pub taken_at: &'static Location<'static>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at {} (made at {})", self.lock, self.taken_at, self.made_at)
    }
}

/// That one lock was asked for while another was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The lock held.
    pub first: Taken,
    /// The lock asked for.
    pub then: Taken,
    /// Which task or thread did so.
    pub who: String,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} took {}, then {}", self.who, self.first, self.then)
    }
}

/// What a check of a debug build found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Locks are taken in orders that close a ring, so that their takers can end up waiting for each other. Nobody need
    /// have waited yet. Orders that a third lock, held in both, keeps apart are no inversion.
    Inversion {
        /// The order just seen, and the earlier ones that lead from its second lock back to its first.
        orders: Vec<Order>,
    },
    /// A task or thread waits for a lock that it holds itself. For a thread that is certain, and the call panics. A task
    /// may hold the lock in one branch of a `join!` and wait in the other, so this is said only after the limit of a
    /// long wait, and the wait goes on.
    Relock {
        /// The lock, and where it was asked for again.
        lock: Taken,
        /// Where it was taken before.
        held_at: &'static Location<'static>,
        /// Since then.
        held: Duration,
        /// Who.
        who: String,
    },
    /// Somebody waits for longer than the limit, and the lock is held.
    LongWait {
        /// The lock, and where it is waited for.
        lock: Taken,
        /// Who waits.
        who: String,
        /// For how long so far.
        waited: Duration,
        /// Who holds it.
        holder: String,
        /// Where that one took it.
        held_at: &'static Location<'static>,
        /// How long ago.
        held: Duration,
    },
}

impl Report {
    /// What makes two reports the same finding: the kind, and the places.
    pub(super) fn places(&self) -> (u8, Vec<&'static Location<'static>>) {
        match self {
            Self::Inversion { orders } => {
                let mut places: Vec<_> = orders.iter().map(|order| order.first.made_at).collect();
                places.sort();
                (0, places)
            }
            Self::Relock { lock, held_at, .. } => (1, vec![lock.made_at, lock.taken_at, held_at]),
            Self::LongWait { lock, held_at, .. } => (2, vec![lock.made_at, lock.taken_at, held_at]),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inversion { orders } => {
                f.write_str("locks are taken in orders that can deadlock:")?;
                orders.iter().try_for_each(|order| write!(f, "\n  {order}"))
            }
            Self::Relock { lock, held_at, held, who } => write!(
                f,
                "{who} asks for {lock}, which it holds itself: taken at {held_at}, {} ms ago",
                held.as_millis()
            ),
            Self::LongWait { lock, who, waited, holder, held_at, held } => write!(
                f,
                "{who} has waited {} ms for {lock}; {holder} holds it: taken at {held_at}, {} ms ago",
                waited.as_millis(),
                held.as_millis()
            ),
        }
    }
}
