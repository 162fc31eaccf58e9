//! One run of a lane, from the sink's position until it is cancelled or something fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use forebay_flow::budget::Permit;
use forebay_flow::{Ctx, Instant};
use forebay_journal::{Lsn, Reader, Record};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;

use super::apply::Applied;
use super::commit::commit;
use super::gather::Gather;
use super::poison::{CAUTIOUS_AFTER, Trial, note, settle};
use super::{LaneError, recover};
use crate::engine::Inner;
use crate::entry;
use crate::sink::SinkError;
use crate::stream::Stream;
use crate::telemetry::Stage;

/// Flushes that somebody waits for come no closer together than this.
const COALESCE: Duration = Duration::from_millis(250);

/// What a lane holds for each byte of an entry's rows while it transforms them: decoded, and
/// transformed. Afterwards it holds what the rows take.
const ROW_AMPLIFICATION: u64 = 2;

type Sequence = FuturesOrdered<BoxFuture<'static, Result<(Applied, Permit), LaneError>>>;

pub(super) struct Run {
    engine: Arc<Inner>,
    stream: Arc<Stream>,
    reader: Reader,
    wanted: watch::Receiver<u64>,
    /// A record that waits for its permit.
    held: Option<(Record, u64)>,
    /// Transforms under way, in entry order.
    sequence: Sequence,
    /// Applied entries that wait for room in the gather, or for one of their schema.
    ready: VecDeque<(Applied, Permit)>,
    gather: Gather,
    commit: Option<(BoxFuture<'static, Result<(), LaneError>>, Instant)>,
    last_commit: Option<Instant>,
    trials: BTreeMap<Lsn, Trial>,
    /// Up to here every entry is marked before it runs, and flushed alone.
    cautious_until: u64,
    /// The sink failed last time: gather one entry at a time until it takes one, so that stalled
    /// lanes hold little of what the others need.
    thin: bool,
}

impl Run {
    /// Finds the sink's position and takes up the journal from there.
    pub async fn start(
        ctx: &Ctx,
        engine: &Arc<Inner>,
        stream: &Arc<Stream>,
        thin: bool,
    ) -> Result<Run, LaneError> {
        let progress = recover(stream).await?;
        stream.progress.send_replace(progress);
        let from = Lsn(progress.committed);
        let end = stream.head();
        let marks = stream.journal.attempts().all();
        let mut trials: BTreeMap<Lsn, Trial> =
            marks.into_iter().map(|(at, note)| (at, Trial::parse(&note))).collect();
        let mut cautious_until = 0;
        // A sink that failed is no death of the lane.
        if progress.committed < end && !thin {
            let trial = trials.entry(from).or_default();
            trial.starts += 1;
            if trial.starts >= CAUTIOUS_AFTER {
                cautious_until = end;
            }
            note(engine, stream, from, trial).await?;
        }
        tracing::debug!(stream = %stream.name, from = from.0, end, lane = ctx.name(), "lane starts");
        Ok(Run {
            engine: Arc::clone(engine),
            stream: Arc::clone(stream),
            reader: stream.journal.reader(from),
            wanted: stream.wanted.subscribe(),
            held: None,
            sequence: FuturesOrdered::new(),
            ready: VecDeque::new(),
            gather: Gather::at(progress.committed),
            commit: None,
            last_commit: None,
            trials,
            cautious_until,
            thin,
        })
    }

    /// Goes on until `ctx` is cancelled. What is in flight then is given up: it is in the journal.
    pub async fn go(&mut self, ctx: &Ctx) -> Result<(), LaneError> {
        loop {
            self.admit_held();
            self.take_ready();
            self.start_commit_if_due();
            let reads = self.may_read();
            let may_flush = !self.gather.is_empty() && self.commit.is_none();
            let waits = self.held.as_ref().filter(|_| self.holds_nothing()).map(|(_, need)| *need);
            let lanes = self.engine.lanes.clone();
            let wakeup = self.wakeup();
            tokio::select! {
                biased;
                _ = ctx.cancelled() => return Ok(()),
                done = finished(&mut self.commit) => self.committed(done)?,
                // Always polled: a transform that waits for its pool must not keep a place in it.
                Some(applied) = self.sequence.next(), if !self.sequence.is_empty() => {
                    self.ready.push_back(applied?);
                }
                permit = lanes.acquire(waits.unwrap_or(0)), if waits.is_some() => {
                    let permit = permit.map_err(|e| LaneError::Internal(e.to_string()))?;
                    if let Some((record, _)) = self.held.take() {
                        self.transform(record, permit);
                    }
                }
                record = self.reader.next(), if reads => self.read(record?)?,
                // Only where it can matter: a change starts the other waits anew.
                _ = self.wanted.changed(), if may_flush => {}
                () = tokio::time::sleep_until(wakeup.unwrap_or_else(forebay_flow::clock::now)), if wakeup.is_some() => {}
            }
        }
    }

    fn window(&self) -> usize {
        if self.cautious() || self.thin { 1 } else { self.engine.config.workers.transform * 2 }
    }

    fn cautious(&self) -> bool {
        self.gather.end < self.cautious_until
    }

    fn may_read(&self) -> bool {
        let ahead = self.sequence.len() + self.ready.len();
        let alone = self.cautious() && (ahead > 0 || !self.gather.is_empty());
        self.held.is_none() && ahead < self.window() && !self.full() && !alone
    }

    /// One flush is being committed and the next one is complete: the lane stands still.
    fn full(&self) -> bool {
        let limit = if self.thin { 1 } else { self.engine.config.flush_bytes };
        self.gather.bytes >= limit
    }

    fn holds_nothing(&self) -> bool {
        self.sequence.is_empty()
            && self.gather.is_empty()
            && self.ready.is_empty()
            && self.commit.is_none()
    }

    fn read(&mut self, record: Record) -> Result<(), LaneError> {
        let header = entry::meta(&record.payload);
        let header = header.map_err(|error| LaneError::Internal(error.to_string()))?;
        let need = header.memory * ROW_AMPLIFICATION + record.payload.len() as u64;
        self.held = Some((record, need.min(self.engine.lanes.capacity())));
        Ok(())
    }

    /// Starts the held record's transform if there is room now. Waiting for room is only done with
    /// nothing else held (see [`go`](Run::go)): lanes cannot starve one another.
    fn admit_held(&mut self) {
        let Some((record, need)) = self.held.take() else { return };
        match self.engine.lanes.try_acquire(need) {
            Some(permit) => self.transform(record, permit),
            None => self.held = Some((record, need)),
        }
    }

    fn transform(&mut self, record: Record, mut permit: Permit) {
        let trial = self.trials.remove(&record.start).unwrap_or_default();
        let marked = record.start.0 < self.cautious_until;
        let (engine, stream) = (Arc::clone(&self.engine), Arc::clone(&self.stream));
        self.sequence.push_back(Box::pin(async move {
            let applied = settle(engine, stream, record, trial, marked).await?;
            permit.shrink_to(applied.bytes().min(permit.bytes()));
            Ok((applied, permit))
        }));
    }

    /// Moves what was applied into the gather, in order, while it fits.
    fn take_ready(&mut self) {
        while let Some((next, _)) = self.ready.front() {
            if self.full() || !self.gather.fits(next) {
                return;
            }
            let Some((applied, permit)) = self.ready.pop_front() else { return };
            self.stream.metrics.processed(Stage::Transform, applied.totals.accepted);
            let now = self.engine.clock.now();
            self.gather.push(applied, permit, now);
        }
    }

    fn start_commit_if_due(&mut self) {
        if self.commit.is_some() || self.gather.is_empty() || !self.due(self.engine.clock.now()) {
            return;
        }
        let next = Gather::at(self.gather.end);
        let gather = std::mem::replace(&mut self.gather, next);
        let (engine, stream) = (Arc::clone(&self.engine), Arc::clone(&self.stream));
        let deadline = engine.clock.now() + engine.config.sink_timeout;
        self.commit = Some((Box::pin(commit(engine, stream, gather)), deadline));
    }

    fn due(&self, now: Instant) -> bool {
        let pressed = self.held.is_some() && self.sequence.is_empty();
        self.full()
            || pressed
            || self.ready.front().is_some_and(|(next, _)| !self.gather.fits(next))
            || self.cautious()
            || self.interval_end().is_some_and(|at| at <= now)
            || self.wanted_at().is_some_and(|at| at <= now)
    }

    fn interval_end(&self) -> Option<Instant> {
        Some(self.gather.since? + self.engine.config.flush_interval)
    }

    /// When a flush that somebody waits for may begin, once everything wanted is gathered.
    fn wanted_at(&self) -> Option<Instant> {
        let wanted = *self.wanted.borrow();
        let waits = wanted > self.gather.start && self.gather.end >= wanted;
        let first = self.gather.since?;
        waits.then(|| self.last_commit.map_or(first, |at| at + COALESCE))
    }

    /// When to look again although nothing happened.
    fn wakeup(&self) -> Option<Instant> {
        if self.commit.is_some() || self.gather.is_empty() {
            return None;
        }
        [self.interval_end(), self.wanted_at()].into_iter().flatten().min()
    }

    fn committed(&mut self, done: Result<(), LaneError>) -> Result<(), LaneError> {
        self.commit = None;
        self.last_commit = Some(self.engine.clock.now());
        self.thin &= done.is_err();
        done
    }
}

/// The commit under way; pending for ever while there is none. Cancel safe.
async fn finished(
    commit: &mut Option<(BoxFuture<'static, Result<(), LaneError>>, Instant)>,
) -> Result<(), LaneError> {
    let Some((commit, deadline)) = commit else { return std::future::pending().await };
    let late = tokio::time::sleep_until(*deadline);
    tokio::select! {
        done = commit => done,
        () = late => Err(SinkError::Io("the commit timed out; its outcome is unknown".to_owned()).into()),
    }
}
