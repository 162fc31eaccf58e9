//! Entries that kill: what is tried again, what is bisected, and what is remembered on disk (F8).
//!
//! ```text
//! whole ──ok──► done
//!   │ died
//! whole again ──ok──► done
//!   │ died
//! halves ──ok──► forgotten      one row ──died──► guilty: a dead letter
//!   └ died: its halves
//! ```
//!
//! A trial is written to the journal's attempts before it begins and after it ends. A mark that is
//! still there at the next start of the process is a trial that the process did not survive, or that
//! somebody killed it in; only the third such end of one range counts as a death. Guilty rows are on
//! disk before their dead letters are committed, so a repeated flush decides the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_flow::pool::PoolError;
use forebay_journal::Record;
use forebay_journal::disk::is_no_space;
use serde::{Deserialize, Serialize};

use super::LaneError;
use super::apply::{Applied, accepted_rows, apply, attempt};
use crate::engine::Inner;
use crate::sink::SinkError;
use crate::stream::Stream;
use crate::telemetry::Stage;

/// Deaths in one entry after which what is still untried is given up as a whole: it bounds a
/// bisection, and keeps its note within what the journal takes.
const MAX_DEATHS: u32 = 4096;

/// Ends of the process in one trial that count as a death.
const PROCESS_ENDS: u32 = 3;

/// Starts of a lane at one position, without getting past it, after which it marks every entry.
pub(super) const CAUTIOUS_AFTER: u32 = 3;

/// What is known of one entry. The journal keeps it as JSON under the entry's position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Trial {
    /// Lanes that started at this position.
    pub starts: u32,
    /// Deaths: of a worker, or of the process.
    deaths: u32,
    /// Deaths of the whole entry.
    whole: u32,
    /// The range on trial, and how often a trial of it began.
    trying: Option<(u32, u32, u32)>,
    /// Ranges still to be tried.
    pending: Vec<(u32, u32)>,
    /// Guilty rows, as ranges.
    guilty: Vec<(u32, u32)>,
    /// How often the entry less its guilty rows was begun.
    finals: u32,
}

impl Trial {
    pub fn parse(note: &[u8]) -> Trial {
        serde_json::from_slice(note).unwrap_or_default()
    }

    /// True when the entry has been on trial: it must not be run unmarked.
    pub fn suspect(&self) -> bool {
        self.deaths > 0 || self.trying.is_some()
    }

    fn guilty_rows(&self) -> BTreeSet<u32> {
        self.guilty.iter().flat_map(|(from, to)| *from..*to).collect()
    }

    /// The next range to try: one that was left over, one that is pending, or the whole entry.
    /// `None`: all is known. Counts the trial as begun.
    fn next(&mut self, rows: u32) -> Option<(u32, u32)> {
        if let Some((from, to, begun)) = self.trying {
            if begun < PROCESS_ENDS {
                self.trying = Some((from, to, begun + 1));
                return Some((from, to));
            }
            self.died((from, to), rows);
        }
        let range = match self.whole {
            0 | 1 => Some((0, rows)),
            _ => self.pending.pop(),
        };
        self.trying = range.map(|(from, to)| (from, to, 1));
        range
    }

    fn survived(&mut self) {
        self.trying = None;
    }

    fn died(&mut self, (from, to): (u32, u32), rows: u32) {
        self.trying = None;
        self.deaths += 1;
        let whole = (from, to) == (0, rows) && self.whole < 2;
        self.whole += u32::from(whole);
        if whole && self.whole == 1 {
            return;
        }
        if to - from <= 1 {
            self.convict(from, to);
        } else if self.deaths >= MAX_DEATHS {
            self.convict(from, to);
            for (from, to) in std::mem::take(&mut self.pending) {
                self.convict(from, to);
            }
        } else {
            let middle = from + (to - from) / 2;
            self.pending.push((middle, to));
            self.pending.push((from, middle));
        }
    }

    fn convict(&mut self, from: u32, to: u32) {
        match self.guilty.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => self.guilty.push((from, to)),
        }
    }
}

/// Transforms an entry, whatever it takes. `known`: what its position's note says; `marked`: every
/// trial is written down first, because the whole process may die in it.
pub(super) async fn settle(
    engine: Arc<Inner>,
    stream: Arc<Stream>,
    record: Record,
    known: Trial,
    marked: bool,
) -> Result<Applied, LaneError> {
    let mut trial = known;
    let rows = accepted_rows(&record);
    if !marked && !trial.suspect() {
        match run(&engine, &stream, &record, BTreeSet::new()).await? {
            Some(applied) => return Ok(applied),
            None => trial.died((0, rows), rows),
        }
    }
    while let Some(range) = trial.next(rows) {
        mark(&engine, &stream, &record, &trial).await?;
        if range == (0, rows) && trial.guilty.is_empty() && trial.whole < 2 {
            if let Some(applied) = run(&engine, &stream, &record, BTreeSet::new()).await? {
                trial.survived();
                mark(&engine, &stream, &record, &trial).await?;
                return Ok(applied);
            }
            trial.died(range, rows);
        } else if survives(&engine, &stream, &record, range).await? {
            trial.survived();
        } else {
            trial.died(range, rows);
        }
    }
    trial.finals += 1;
    if trial.finals > PROCESS_ENDS {
        trial.guilty = vec![(0, rows)];
    }
    mark(&engine, &stream, &record, &trial).await?;
    if let Some(applied) = run(&engine, &stream, &record, trial.guilty_rows()).await? {
        tracing::error!(
            stream = %stream.name,
            position = record.start.0,
            rows = trial.guilty_rows().len(),
            "rows that kill the transform become dead letters"
        );
        return Ok(applied);
    }
    // No row kills alone, yet the entry does: all of it is guilty.
    trial.guilty = vec![(0, rows)];
    mark(&engine, &stream, &record, &trial).await?;
    run(&engine, &stream, &record, trial.guilty_rows()).await?.ok_or_else(|| {
        let at = record.start.0;
        LaneError::Internal(format!("the entry at {at} kills its worker even as dead letters"))
    })
}

/// Runs the whole entry less its guilty rows; `None` where its worker died.
async fn run(
    engine: &Inner,
    stream: &Arc<Stream>,
    record: &Record,
    guilty: BTreeSet<u32>,
) -> Result<Option<Applied>, LaneError> {
    let (job_stream, job_record) = (Arc::clone(stream), record.clone());
    let marker = engine.config.faults.panic_on.clone();
    let job = move || apply(&job_stream, &job_record, &guilty, marker.as_deref());
    outcome(stream, engine.transformers.run(job).await)
}

/// True when the transform of a range ends normally.
async fn survives(
    engine: &Inner,
    stream: &Arc<Stream>,
    record: &Record,
    (from, to): (u32, u32),
) -> Result<bool, LaneError> {
    let (job_stream, job_record) = (Arc::clone(stream), record.clone());
    let marker = engine.config.faults.panic_on.clone();
    let job = move || attempt(&job_stream, &job_record, from..to, marker.as_deref());
    Ok(outcome(stream, engine.transformers.run(job).await)?.is_some())
}

fn outcome<T>(
    stream: &Stream,
    result: Result<Result<T, LaneError>, PoolError>,
) -> Result<Option<T>, LaneError> {
    match result {
        Ok(done) => done.map(Some),
        Err(PoolError::Panicked(panic)) => {
            stream.metrics.error(Stage::Transform);
            tracing::error!(stream = %stream.name, %panic, "a transform worker died");
            Ok(None)
        }
        Err(error) => Err(LaneError::Internal(error.to_string())),
    }
}

/// Writes the trial down; durable on return.
pub(super) async fn mark(
    engine: &Inner,
    stream: &Arc<Stream>,
    record: &Record,
    trial: &Trial,
) -> Result<(), LaneError> {
    note(engine, stream, record.start, trial).await
}

/// As [`mark`], for a position.
pub(super) async fn note(
    engine: &Inner,
    stream: &Arc<Stream>,
    at: forebay_journal::Lsn,
    trial: &Trial,
) -> Result<(), LaneError> {
    let note = serde_json::to_vec(trial).map_err(|error| LaneError::Internal(error.to_string()))?;
    let stream = Arc::clone(stream);
    let job = move || stream.journal.attempts().mark(at, &note);
    let done = engine.files.run(job).await;
    done.map_err(|error| LaneError::Internal(error.to_string()))?.map_err(
        |error| match is_no_space(&error) {
            // A full disk is waited out like a full sink.
            true => SinkError::Full(format!("the attempts file: {error}")).into(),
            false => LaneError::Internal(format!("the attempts file: {error}")),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a trial of `rows` rows in which those of `bad` kill; returns the guilty and the deaths.
    fn bisect(rows: u32, bad: &[u32]) -> (Vec<u32>, u32) {
        let mut trial = Trial::default();
        while let Some((from, to)) = trial.next(rows) {
            // As after a restart: all there is to know is in the note.
            trial = Trial::parse(&serde_json::to_vec(&trial).unwrap_or_default());
            if bad.iter().any(|row| (from..to).contains(row)) {
                trial.died((from, to), rows);
            } else if (from, to) == (0, rows) {
                break;
            } else {
                trial.survived();
            }
        }
        (trial.guilty_rows().into_iter().collect(), trial.deaths)
    }

    #[test]
    fn f8_a_bisection_finds_exactly_the_guilty_rows() {
        for bad in [vec![0], vec![999], vec![500, 501], vec![3, 400, 401, 998], vec![]] {
            assert_eq!(bisect(1000, &bad).0, bad);
        }
        assert_eq!(bisect(1, &[0]).0, vec![0]);
        assert!(bisect(1000, &[7]).1 <= 13, "two deaths of the whole, ten of halves, one row");
    }

    #[test]
    fn f8_a_bisection_ends_even_if_every_row_kills() {
        let bad: Vec<u32> = (0..20_000).collect();
        let (guilty, deaths) = bisect(20_000, &bad);
        assert_eq!(guilty, bad);
        assert!(deaths <= MAX_DEATHS + 1, "{deaths}");
    }

    #[test]
    fn f8_a_range_left_over_by_a_killed_process_is_tried_again_before_it_counts() {
        let mut trial = Trial { whole: 2, deaths: 2, pending: vec![(4, 5)], ..Trial::default() };
        assert_eq!(trial.next(10), Some((4, 5)));
        assert_eq!(trial.next(10), Some((4, 5)));
        assert_eq!(trial.next(10), Some((4, 5)));
        assert_eq!(trial.next(10), None);
        assert_eq!(trial.guilty_rows(), BTreeSet::from([4]));
    }
}
