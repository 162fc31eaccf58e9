//! What a queue does when it has no room, and the arithmetic of shedding.
//!
//! Owns nothing that lives in a queue but the number of priorities being shed. No I/O, no clock.

use std::fmt;

/// What happens to a submit when the queue is full. Each variant says who pays.
///
/// | policy | who waits | what is lost | for |
/// |---|---|---|---|
/// | `Block` | the sender | nothing | work that must be done, from senders that may be slowed down |
/// | `Reject` | nobody; the sender's caller hears no | nothing here: the item comes back | requests: a fast no beats a late yes |
/// | `DropNewest` | nobody | the new item, unseen | samples and traces, where the first seen matter |
/// | `DropOldest` | nobody | the oldest item, unseen | states and positions, where only the latest matter |
/// | `Shed` | nobody; callers of low priority hear no first | low priorities, before the queue is full | mixed traffic that must keep its important part |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `submit` waits in line: pressure goes back to the sender, and through it to whoever feeds the sender.
    ///
    /// Nothing is lost. A slow receiver slows every sender. Those in line are let in together once a quarter of the bound is
    /// free (with a bound of 8 and more), or at once where the receiver is slow, so that a wake is paid for once a batch. A
    /// submit ends when its item is in, and none is refused or timed out while there is room for it and those before it.
    Block,
    /// `submit` hands the item back at once ([`SubmitError::Full`](super::SubmitError::Full)): the sender tells its own
    /// caller no, or does without.
    Reject,
    /// The new item is dropped and counted in `dropped`; the sender is not told. What lies in the queue stays.
    DropNewest,
    /// The oldest items are dropped and counted in `dropped` until the new one fits; their senders are not told.
    DropOldest,
    /// Above the high watermark submits of the lowest priority are handed back
    /// ([`SubmitError::Shed`](super::SubmitError::Shed)), and more priorities the closer the queue is to full; the highest
    /// is refused only by a queue that is full of its like, for it pushes out what is of lower priority, newest first.
    /// All of it is counted in `shed`.
    ///
    /// Priorities come from [`Builder::priority`](super::Builder::priority); without it all are the lowest.
    Shed(Watermarks),
}

impl Full {
    /// `block`, `reject`, `drop_newest`, `drop_oldest` or `shed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reject => "reject",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Shed(_) => "shed",
        }
    }

    /// Who waits when the queue is full, in words for the queue table.
    #[must_use]
    pub fn who_waits(self) -> &'static str {
        match self {
            Self::Block => "the sender",
            Self::Reject => "nobody; the sender's caller is told no",
            Self::DropNewest | Self::DropOldest => "nobody",
            Self::Shed(_) => "nobody; callers of low priority are told no first",
        }
    }

    /// What goes wrong when the queue stays full, in words for the queue table.
    #[must_use]
    pub fn failure_mode(self) -> &'static str {
        match self {
            Self::Block => "senders slow down to the receiver's rate",
            Self::Reject => "submits are handed back",
            Self::DropNewest => "new items are lost, counted",
            Self::DropOldest => "the oldest items are lost, counted",
            Self::Shed(_) => "low priorities are refused, then pushed out, counted",
        }
    }
}

/// Where shedding starts and ends, in per cent of the bound. The distance between them keeps it from flapping.
///
/// ```
/// use forebay_flow::queue::Watermarks;
/// assert_eq!(Watermarks::default(), Watermarks::percent(80, 40).unwrap());
/// assert_eq!(Watermarks::percent(40, 80), None);
/// ```
///
/// # Choosing a bound
/// High: what is left above it takes the important traffic's burst while the rest is refused. Low: so far below that a
/// receiver has made real headway before refused callers may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    high: u8,
    low: u8,
}

impl Watermarks {
    /// Shedding starts above `high` per cent and ends below `low` per cent. `None` unless `0 < low < high <= 100`.
    #[must_use]
    pub const fn percent(high: u8, low: u8) -> Option<Self> {
        if 0 < low && low < high && high <= 100 { Some(Self { high, low }) } else { None }
    }

    /// The mark above which shedding starts, in per cent of the bound.
    #[must_use]
    pub const fn high(self) -> u8 {
        self.high
    }

    /// The mark below which shedding ends, in per cent of the bound.
    #[must_use]
    pub const fn low(self) -> u8 {
        self.low
    }
}

impl Default for Watermarks {
    /// 80 and 40 per cent.
    fn default() -> Self {
        Self { high: 80, low: 40 }
    }
}

/// How much an item matters under [`Full::Shed`]. It decides who is refused, never who is served first: what was accepted
/// is received in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Refused first: retries, prefetches, batch work.
    #[default]
    Lowest,
    /// Refused second.
    Low,
    /// Refused only near the bound.
    High,
    /// Refused only by a queue full of its like: health checks, what keeps the service itself alive.
    Highest,
}

impl Priority {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    /// Its place from the lowest, from 0.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Why an item that a queue had taken was never received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// It was new and the queue full, under [`Full::DropNewest`].
    Newest,
    /// It was the oldest and the queue full, under [`Full::DropOldest`].
    Oldest,
    /// One of higher priority took its room, under [`Full::Shed`].
    Shed,
    /// Its deadline or its time to live passed while it lay in the queue.
    Expired,
    /// The last receiver went while it lay in the queue.
    Orphaned,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "dropped as the newest: the queue was full",
            Self::Oldest => "dropped as the oldest: the queue was full",
            Self::Shed => "shed: one of higher priority took its room",
            Self::Expired => "expired in the queue",
            Self::Orphaned => "left in the queue by its last receiver",
        })
    }
}

impl std::error::Error for Lost {}

/// How many priorities are shed just now, counted from the lowest.
///
/// ```text
/// begins:  low ───────── high ──────── bound        Lowest begins at high; Low and High in thirds from there to the
/// Lowest   ends           begins                    bound; each ends as far below its beginning as low lies below high
/// Low          ends           begins
/// High             ends           begins
/// Highest                             full
/// ```
#[derive(Debug, Default)]
pub(super) struct Shedding {
    shed: usize,
}

impl Shedding {
    /// Brings it up to date; called whenever `used` changed.
    pub(super) fn update(&mut self, marks: Watermarks, used: u64, limit: u64) {
        while self.shed + 1 < Priority::COUNT && used > begins(marks, self.shed, limit) {
            self.shed += 1;
        }
        while let Some(top) = self.shed.checked_sub(1)
            && used < ends(marks, top, limit)
        {
            self.shed = top;
        }
    }

    pub(super) fn sheds(&self, priority: Priority) -> bool {
        priority.index() < self.shed
    }
}

fn share(limit: u64, percent: u8) -> u64 {
    let percent = u64::from(percent);
    limit / 100 * percent + limit % 100 * percent / 100
}

fn begins(marks: Watermarks, level: usize, limit: u64) -> u64 {
    let high = share(limit, marks.high);
    let steps = (Priority::COUNT - 1) as u64;
    // Divided first: a limit in bytes may be close to the largest number there is.
    let above = limit.saturating_sub(high);
    high + above / steps * level as u64 + above % steps * level as u64 / steps
}

fn ends(marks: Watermarks, level: usize, limit: u64) -> u64 {
    let gap = share(limit, marks.high) - share(limit, marks.low);
    // A tiny bound still has to end somewhere above nothing.
    (begins(marks, level, limit) - gap).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shed_at(shedding: &mut Shedding, used: u64) -> usize {
        shedding.update(Watermarks::default(), used, 100);
        shedding.shed
    }

    #[test]
    fn b72_each_priority_is_shed_from_its_own_mark_until_as_far_below_as_low_is_below_high() {
        let mut shedding = Shedding::default();
        let up: Vec<_> =
            [80, 81, 86, 87, 93, 94, 100].map(|used| shed_at(&mut shedding, used)).into();
        assert_eq!(up, [0, 1, 1, 2, 2, 3, 3], "the highest is never shed by a mark");
        let down: Vec<_> =
            [94, 80, 54, 53, 52, 46, 45, 40, 39].map(|used| shed_at(&mut shedding, used)).into();
        assert_eq!(down, [3, 3, 3, 3, 2, 2, 1, 1, 0]);
    }

    #[test]
    fn b72_the_marks_hold_at_every_bound_without_overflow() {
        for limit in [1, 2, 3, 5, 7, 10, 64, 1000, u64::MAX] {
            for level in 0..Priority::COUNT - 1 {
                let marks = Watermarks::default();
                assert!(begins(marks, level, limit) <= limit, "{limit} {level}");
                assert!(
                    ends(marks, level, limit) <= begins(marks, level, limit).max(1),
                    "{limit} {level}"
                );
            }
            let mut shedding = Shedding::default();
            shedding.update(Watermarks::default(), limit, limit);
            shedding.update(Watermarks::default(), 0, limit);
            assert_eq!(shedding.shed, 0, "an empty queue of {limit} sheds nothing");
        }
    }
}
