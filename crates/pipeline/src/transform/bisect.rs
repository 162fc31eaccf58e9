//! Finding the rows that a batch fails on: a search by halves, as a state machine.
//!
//! It asks for one range at a time and is told the outcome, so the asking may outlive the process:
//! the state is written beside the range under trial, and a crash is the report "failed" (F8).

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A search for guilty rows among `0..n`. Ranges that pass come in ascending order.
///
/// Each guilty row costs at most about 2·log₂(n) trials; a row is called guilty only after it has
/// failed alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bisect {
    /// Ranges not yet settled, the next one last.
    pending: Vec<Pending>,
    guilty: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    range: Range<u32>,
    /// True for the first half of a failed range: the second is the next one pending.
    first: bool,
    /// True where the other half of a failed range has passed: trying this half whole would most
    /// likely fail, so it is halved at once.
    suspect: bool,
}

impl Bisect {
    /// A search among `rows` rows.
    pub fn new(rows: u32) -> Bisect {
        let whole = Pending { range: 0..rows, first: false, suspect: false };
        Bisect { pending: if rows == 0 { Vec::new() } else { vec![whole] }, guilty: Vec::new() }
    }

    /// The range to try next; `None` when every row is settled. The same until it is reported.
    #[expect(clippy::should_implement_trait, reason = "asking twice gives the same range")]
    pub fn next(&mut self) -> Option<Range<u32>> {
        while let Some(last) = self.pending.pop_if(|last| last.suspect && last.range.len() > 1) {
            self.halve(last.range);
        }
        self.pending.last().map(|last| last.range.clone())
    }

    /// Tells the outcome of the range that [`Bisect::next`] gave. Another range is ignored: it is the
    /// echo of an answer already taken.
    pub fn report(&mut self, range: Range<u32>, ok: bool) {
        let Some(tried) = self.pending.pop_if(|last| last.range == range) else { return };
        if ok {
            if let Some(sibling) = self.pending.last_mut().filter(|_| tried.first) {
                sibling.suspect = true;
            }
        } else if range.len() <= 1 {
            self.guilty.extend(range);
        } else {
            self.halve(range);
        }
    }

    /// The rows that failed alone, ascending.
    pub fn guilty(&self) -> &[u32] {
        &self.guilty
    }

    /// True when every row is settled.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    fn halve(&mut self, range: Range<u32>) {
        let middle = range.start + (range.end - range.start) / 2;
        self.pending.push(Pending { range: middle..range.end, first: false, suspect: false });
        self.pending.push(Pending { range: range.start..middle, first: true, suspect: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(rows: u32, bad: &[u32]) -> (Vec<u32>, usize) {
        let mut bisect = Bisect::new(rows);
        let mut trials = 0;
        let mut passed = Vec::new();
        while let Some(range) = bisect.next() {
            trials += 1;
            let ok = !bad.iter().any(|row| range.contains(row));
            if ok {
                passed.extend(range.clone());
            }
            bisect.report(range, ok);
        }
        assert!(passed.is_sorted(), "ranges that pass come in order");
        assert_eq!(passed.len() + bisect.guilty().len(), rows as usize, "F6: each row is settled");
        (bisect.guilty().to_vec(), trials)
    }

    #[test]
    fn one_guilty_row_of_thirty_two_thousand_takes_few_trials() {
        let (guilty, trials) = search(32_768, &[20_001]);
        assert_eq!(guilty, [20_001]);
        assert!(trials <= 32, "{trials} trials");
    }

    #[test]
    fn no_rows_need_no_trial() {
        assert_eq!(search(0, &[]), (vec![], 0));
        assert_eq!(search(1, &[0]), (vec![0], 1));
    }

    #[test]
    fn an_echo_of_an_old_answer_changes_nothing() {
        let mut bisect = Bisect::new(8);
        bisect.report(0..8, false);
        let before = bisect.clone();
        bisect.report(0..8, false);
        assert_eq!(bisect, before);
    }

    proptest! {
        #[test]
        fn exactly_the_guilty_rows_are_found(
            rows in 1_u32..500,
            bad in proptest::collection::btree_set(0_u32..500, 0..12),
        ) {
            let bad: Vec<u32> = bad.into_iter().filter(|row| *row < rows).collect();
            prop_assert_eq!(search(rows, &bad).0, bad);
        }

        #[test]
        fn a_search_goes_on_from_its_written_state(
            bad in 0_u32..100, stop in 0_usize..8,
        ) {
            let mut bisect = Bisect::new(100);
            for _ in 0..stop {
                let Some(range) = bisect.next() else { break };
                let ok = !range.contains(&bad);
                bisect.report(range, ok);
            }
            let text = serde_json::to_string(&bisect).unwrap_or_default();
            let mut again: Bisect = serde_json::from_str(&text).unwrap_or_else(|_| Bisect::new(0));
            while let Some(range) = again.next() {
                let ok = !range.contains(&bad);
                again.report(range, ok);
            }
            prop_assert_eq!(again.guilty(), &[bad]);
        }
    }
}
