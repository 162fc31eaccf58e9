//! The conservation of rows (F6): what the journal counted against what the sink counted.
//!
//! ```text
//! received = accepted + rejected
//! accepted = stored + filtered + dead-lettered later + in the journal
//! rejected = dead-lettered at the door (+ refused with the whole request: counted apart)
//! ```
//!
//! The left sides are cumulative counters in the journal's blocks, written with the rows; the right
//! sides are counts in the sink's own commits. Neither is computed from the other.

use crate::sink::Counts;
use crate::stream::Progress;

/// The journal's cumulative row counters, in the order of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Rows accepted.
    pub accepted: u64,
    /// Rows refused and kept as dead letters.
    pub rejected: u64,
}

impl Totals {
    /// From the journal's counters.
    pub fn from_counters(counters: [u64; 4]) -> Totals {
        Totals { accepted: counters[0], rejected: counters[1] }
    }

    /// As the journal stores them.
    pub fn to_counters(self) -> [u64; 4] {
        [self.accepted, self.rejected, 0, 0]
    }

    /// One record's own counters.
    pub fn from_record(counters: [u32; 4]) -> Totals {
        Totals { accepted: counters[0].into(), rejected: counters[1].into() }
    }

    /// The sum of both.
    pub fn plus(self, other: Totals) -> Totals {
        Totals {
            accepted: self.accepted + other.accepted,
            rejected: self.rejected + other.rejected,
        }
    }
}

/// One stream's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The stream.
    pub stream: String,
    /// Rows received since the journal began: accepted and rejected.
    pub received: u64,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows refused.
    pub rejected: u64,
    /// Rows in the table.
    pub stored: u64,
    /// Rows that the transform's WHERE left out.
    pub filtered: u64,
    /// Accepted rows that became dead letters in the transform.
    pub dead_lettered_later: u64,
    /// Refused rows kept as dead letters.
    pub dead_lettered_at_door: u64,
    /// Accepted rows that wait in the journal.
    pub in_journal: u64,
    /// Refused rows that wait in the journal.
    pub rejected_in_journal: u64,
    /// What is unaccounted for. Not zero is a bug.
    pub difference: i64,
}

/// The line of a stream whose journal counted `head` and whose lane stands at `progress`.
pub fn row(stream: &str, head: Totals, progress: &Progress) -> LedgerRow {
    let Counts { stored, filtered, dead_later, dead_at_door } = progress.counts;
    LedgerRow {
        stream: stream.to_owned(),
        received: head.accepted + head.rejected,
        accepted: head.accepted,
        rejected: head.rejected,
        stored,
        filtered,
        dead_lettered_later: dead_later,
        dead_lettered_at_door: dead_at_door,
        in_journal: head.accepted.saturating_sub(progress.passed.accepted),
        rejected_in_journal: head.rejected.saturating_sub(progress.passed.rejected),
        difference: difference(progress),
    }
}

/// Rows that passed the lane and are in no count of the sink, or are there too often.
pub fn difference(progress: &Progress) -> i64 {
    let counts = progress.counts;
    let gone = counts.stored + counts.filtered + counts.dead_later;
    let accepted = progress.passed.accepted as i64 - gone as i64;
    let rejected = progress.passed.rejected as i64 - counts.dead_at_door as i64;
    if accepted == 0 { rejected } else { accepted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_a_row_that_the_sink_did_not_count_shows_as_a_difference() {
        let counts = Counts { stored: 5, filtered: 2, dead_later: 1, dead_at_door: 3 };
        let passed = Totals { accepted: 8, rejected: 3 };
        let mut progress = Progress { committed: 10, counts, passed };
        assert_eq!(difference(&progress), 0);
        progress.counts.stored = 4;
        assert_eq!(difference(&progress), 1);
        progress.counts = Counts { dead_at_door: 4, ..counts };
        assert_eq!(difference(&progress), -1);
    }

    #[test]
    fn f6_rows_past_the_lane_are_counted_as_in_the_journal() {
        let counts = Counts { stored: 8, ..Counts::default() };
        let progress =
            Progress { committed: 10, counts, passed: Totals { accepted: 8, rejected: 0 } };
        let row = row("s", Totals { accepted: 20, rejected: 1 }, &progress);
        assert_eq!((row.in_journal, row.rejected_in_journal, row.difference), (12, 1, 0));
    }
}
