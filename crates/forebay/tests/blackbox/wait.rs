//! Waiting for a condition with a deadline that fails loudly, and chance from a seed that is printed.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails: generous, for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The time, for deadlines.
#[expect(clippy::disallowed_methods, reason = "the product's clock is not linked here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A short pause between two looks at a condition, or between two tries of a client.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Looks until there is something to see; panics with `what` once [`PATIENCE`] is over.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        pause();
    }
}

/// SplitMix64: enough chance for a test, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Chance from `FOREBAY_SEED`, or from a new seed; prints it either way.
    pub(crate) fn printed(test: &str) -> Chance {
        let given = std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(test) >> 16);
        println!("{test}: replay with FOREBAY_SEED={seed}");
        Chance(seed)
    }

    /// Independent chance for the n-th client.
    pub(crate) fn fork(&mut self, n: u64) -> Chance {
        Chance(self.next().wrapping_add(n))
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
