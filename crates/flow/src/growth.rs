//! What only ever grows: a leak seen from outside, by counting.
//!
//! Owns, in a [`Detector`], a few numbers for each key it follows: at most [`Config::keys`] of them, and none for a key
//! whose count went back to zero. It knows no clock, no task and no place: it is fed one set of counts after another, and
//! says which of them keep growing. [`crate::snapshot`] feeds it with the tasks of each spawn place.
//!
//! A count is named when it grew in each of the last two steps, the last one was no mere tail of the one before, and it
//! passed what it has been before by more than chance moves a load of that size. So a steady load is silent, and so is a
//! start-up ramp that levels off, and a load that comes and goes, once its first high tide is known. What is named stays
//! so until it no longer grows.
//!
//! ```text
//!          grew twice, beyond its peak and noise       grew
//! quiet ───────────────────────────────────────► growing ◄──┐
//!   ▲ └──┐ flat, fell, or levels off                │ └─────┘
//!   └────┘                                          │ flat or fell
//!   ▲                                               │
//!   └───────────────────────────────────────────────┘
//! ```
//!
//! Each count is judged at two paces: from one snapshot to the next, and by the lowest of each [`Config::slow_pace`]
//! snapshots. The second finds a leak that a busy place hides: whatever comes and goes above it, the floor rises.
//!
//! A ramp that climbs evenly through three snapshots cannot be told from a leak until it ends; it is named until then.
//!
//! ```
//! use forebay_flow::growth::{Detector, Config};
//! let mut detector = Detector::new(Config::default());
//! for leaked in [100, 200, 300] {
//!     detector.observe([("accept loop", leaked), ("workers", 8)]);
//! }
//! assert_eq!(detector.growing()[0].key, "accept loop");
//! assert_eq!(detector.growing().len(), 1);
//! ```

use std::collections::HashMap;
use std::hash::Hash;

/// What counts as growth. The default suits tasks counted every five minutes: it remembers peaks for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The growth that is never worth a word, as a count. On top of it, four times the root of the peak is allowed for
    /// chance.
    ///
    /// # Choosing a bound
    /// The most by which an idle program's counts differ between two looks.
    pub floor: usize,
    /// How many snapshots one step of the slow pace takes; below 2 there is no slow pace.
    pub slow_pace: usize,
    /// For how many snapshots at least, and twice that at most, a peak is remembered.
    ///
    /// # Choosing a bound
    /// One turn of the load: a day for most servers. A leak below a forgotten burst is found once the burst is forgotten,
    /// or at the slow pace.
    pub memory: usize,
    /// The most keys followed at once; counts of further ones are passed over, see [`Detector::passed_over`].
    ///
    /// # Choosing a bound
    /// Spawn places are bounded by the program's text; a few hundred bytes are held for each.
    pub keys: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { floor: 16, slow_pace: 12, memory: 288, keys: 1024 }
    }
}

/// A count that keeps growing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Growing<K> {
    /// Whose count.
    pub key: K,
    /// The count when the growth began.
    pub from: usize,
    /// The count now (at the slow pace: the lowest of the last step).
    pub to: usize,
    /// Through how many snapshots it has grown.
    pub snapshots: usize,
}

/// Follows counts by key, and names those that keep growing. Not shared: one owner feeds it.
#[derive(Clone, Debug)]
pub struct Detector<K> {
    config: Config,
    followed: HashMap<K, Track>,
    round: u64,
    passed_over: usize,
}

#[derive(Clone, Debug)]
struct Track {
    /// The round that saw it last.
    round: u64,
    fast: Run,
    slow: Run,
    /// The lowest count of the slow step under way, and how many are in it.
    low: usize,
    lows: usize,
}

/// The steps upwards since the count last stood still, fell or levelled off.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    from: usize,
    /// The highest count known when it began: what it must pass.
    bar: usize,
    peaks: Peaks,
    last: Option<usize>,
    step: usize,
    steps: usize,
    named: bool,
}

/// The highest count of two spans of time, the one under way and the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Peaks {
    now: usize,
    before: usize,
    age: usize,
}

impl<K: Clone + Eq + Hash> Detector<K> {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, followed: HashMap::new(), round: 0, passed_over: 0 }
    }

    /// Takes the counts of one snapshot, each key once. A key that is not among them counts as zero and is
    /// forgotten, which makes room for the next snapshot.
    pub fn observe(&mut self, counts: impl IntoIterator<Item = (K, usize)>) {
        self.round += 1;
        self.passed_over = 0;
        for (key, count) in counts {
            if let Some(track) = self.followed.get_mut(&key) {
                track.take(count, self.round, self.config);
            } else if self.followed.len() < self.config.keys {
                let mut track = Track::new();
                track.take(count, self.round, self.config);
                self.followed.insert(key, track);
            } else {
                self.passed_over += 1;
            }
        }
        let round = self.round;
        self.followed.retain(|_, track| track.round == round);
    }

    /// What keeps growing, the steepest first.
    #[must_use]
    pub fn growing(&self) -> Vec<Growing<K>> {
        let found = self.followed.iter().filter_map(|(key, track)| {
            let (run, pace) = match (track.fast.named, track.slow.named) {
                (true, _) => (&track.fast, 1),
                (false, true) => (&track.slow, self.config.slow_pace),
                (false, false) => return None,
            };
            let to = run.last.unwrap_or_default();
            Some(Growing { key: key.clone(), from: run.from, to, snapshots: run.steps * pace })
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|growing| std::cmp::Reverse(growing.to - growing.from));
        found
    }

    /// How many counts of the last snapshot were not followed, for want of room.
    #[must_use]
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }
}

impl Track {
    fn new() -> Self {
        Self { round: 0, fast: Run::default(), slow: Run::default(), low: usize::MAX, lows: 0 }
    }

    fn take(&mut self, count: usize, round: u64, config: Config) {
        self.round = round;
        self.fast.step(count, config.floor, config.memory);
        if config.slow_pace < 2 {
            return;
        }
        self.low = self.low.min(count);
        self.lows += 1;
        if self.lows == config.slow_pace {
            self.slow.step(self.low, config.floor, config.memory / config.slow_pace);
            (self.low, self.lows) = (usize::MAX, 0);
        }
    }
}

impl Run {
    fn step(&mut self, count: usize, floor: usize, memory: usize) {
        let known = self.peaks.take(count, memory);
        let last = self.last.replace(count).unwrap_or(usize::MAX);
        if count <= last {
            (self.from, self.bar) = (count, known.max(count));
            (self.step, self.steps, self.named) = (0, 0, false);
            return;
        }
        let step = count - last;
        // Well below the step before it: the tail of a ramp. What is counted as growth begins anew.
        let levels_off = step.saturating_mul(5) < self.step.saturating_mul(3);
        if levels_off && !self.named {
            (self.from, self.bar, self.steps) = (last, self.bar.max(last), 0);
        }
        self.step = step;
        self.steps += 1;
        let noise = floor.saturating_add(self.bar.isqrt().saturating_mul(4));
        self.named |= self.steps >= 2 && count >= self.bar.saturating_add(noise);
    }
}

impl Peaks {
    /// Takes a count in and says the highest of those before it.
    fn take(&mut self, count: usize, memory: usize) -> usize {
        let known = self.now.max(self.before);
        if self.age >= memory {
            (self.before, self.now, self.age) = (self.now, 0, 0);
        }
        self.now = self.now.max(count);
        self.age += 1;
        known
    }
}
