//! What was promised to clients, and whether the table keeps it.

use std::collections::BTreeMap;

/// What is known of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Acknowledged: in the table exactly once.
    Must,
    /// Sent once without an answer: in the table at most once.
    May,
}

/// Rows by number, and what was promised for each.
#[derive(Debug, Default)]
pub struct Obligations {
    rows: BTreeMap<i64, Promise>,
}

/// What the ledger said in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Rows that nobody accounts for.
    pub difference: i64,
    /// Rows still in the journal.
    pub in_journal: u64,
}

impl Obligations {
    /// The rows were acknowledged.
    pub fn acknowledged(&mut self, rows: std::ops::Range<i64>) {
        for row in rows {
            self.rows.insert(row, Promise::Must);
        }
    }

    /// The rows were sent and nothing is known of them. An earlier acknowledgement stands.
    pub fn unknown(&mut self, rows: std::ops::Range<i64>) {
        for row in rows {
            self.rows.entry(row).or_insert(Promise::May);
        }
    }

    /// Rows acknowledged so far.
    pub fn acknowledged_rows(&self) -> usize {
        self.rows.values().filter(|promise| **promise == Promise::Must).count()
    }

    /// Holds the table against what was promised: `found` is how often each row is in it.
    ///
    /// # Errors
    /// The first rows that are lost, doubled or made up.
    pub fn check(&self, found: &BTreeMap<i64, u64>) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (row, promise) in &self.rows {
            match (promise, found.get(row).copied().unwrap_or(0)) {
                (Promise::Must, 1) | (Promise::May, 0 | 1) => {}
                (Promise::Must, 0) => {
                    wrong.push(format!("F1: row {row} was acknowledged and is lost"))
                }
                (_, times) => wrong.push(format!("F2: row {row} is there {times} times")),
            }
        }
        for row in found.keys().filter(|row| !self.rows.contains_key(row)) {
            wrong.push(format!("row {row} was never sent"));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(10);
        Err(wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_sees_a_lost_a_doubled_and_a_made_up_row() {
        let mut promised = Obligations::default();
        promised.acknowledged(0..3);
        promised.unknown(2..4);
        let table = |rows: &[(i64, u64)]| rows.iter().copied().collect::<BTreeMap<_, _>>();
        assert!(promised.check(&table(&[(0, 1), (1, 1), (2, 1)])).is_ok());
        assert!(promised.check(&table(&[(0, 1), (1, 1), (2, 1), (3, 1)])).is_ok());
        assert!(promised.check(&table(&[(0, 1), (1, 1)])).is_err(), "row 2 was acknowledged");
        assert!(promised.check(&table(&[(0, 1), (1, 2), (2, 1)])).is_err(), "row 1 is doubled");
        assert!(promised.check(&table(&[(0, 1), (1, 1), (2, 1), (9, 1)])).is_err(), "row 9");
    }
}
