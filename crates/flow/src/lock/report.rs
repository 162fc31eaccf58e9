//! What the checks found, as values that read as sentences.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::holders::Access;
use super::place::Holder;
use crate::clock;

/// One lock, and where it was taken or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// Its name.
    pub lock: &'static str,
    /// Where it was made.
    pub made_at: &'static Location<'static>,
    /// To read, to write, or alone as a mutex is.
    pub access: Access,
    /// Where it was taken or asked for.
    pub taken_at: &'static Location<'static>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.access {
            Access::Lock => "",
            Access::Read => " to read",
            Access::Write => " to write",
        };
        write!(f, "`{}`{to} at {} (made at {})", self.lock, self.taken_at, self.made_at)
    }
}

/// That one lock was asked for while another was held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum Report {
    /// Locks are taken in orders that close a ring, so that their takers can end up waiting for each other. Nobody need
    /// have waited yet. Orders that a third lock, held in both and not only to read, keeps apart are no inversion. Those
    /// of readers count: two readers do not wait for each other, but each does for a writer in line before it.
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
    /// A task or thread asks to read what it reads already. A writer that comes between the two has it wait for itself:
    /// the writer for the first guard, the second for the writer. Told at once, for no wait need show it; harmless where
    /// the two are branches of a `join!`.
    Reread {
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
        /// Who holds it; of several readers the one that has for the longest.
        holder: String,
        /// Where that one took it.
        held_at: &'static Location<'static>,
        /// How long ago.
        held: Duration,
        /// The other readers, in the order they came, up to seven.
        others: Vec<Holder>,
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
            Self::Reread { lock, held_at, .. } => (3, vec![lock.made_at, lock.taken_at, held_at]),
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
            Self::Reread { lock, held_at, held, who } => write!(
                f,
                "{who} asks for {lock}, which it reads already: taken at {held_at}, {} ms ago; with a writer in line \
                 between the two it waits for itself",
                held.as_millis()
            ),
            Self::LongWait { lock, who, waited, holder, held_at, held, others } => {
                write!(
                    f,
                    "{who} has waited {} ms for {lock}; {holder} holds it: taken at {held_at}, {} ms ago",
                    waited.as_millis(),
                    held.as_millis()
                )?;
                others.iter().try_for_each(|other| write!(f, "; and {other}"))
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.who)?;
        if self.access == Access::Read {
            f.write_str(", reading")?;
        }
        if let Some(since) = self.since {
            let held = clock::now().saturating_duration_since(since);
            write!(f, " for {:.1} s", held.as_secs_f64())?;
        }
        self.taken_at.map_or(Ok(()), |at| write!(f, ", taken at {at}"))
    }
}
