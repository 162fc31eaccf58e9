//! How long to wait before the next attempt.
//!
//! Owns nothing: a plain rule from the number of failures in a row to a pause.

use std::time::Duration;

/// A pause that doubles with each failure in a row.
///
/// ```
/// use std::time::Duration;
/// use forebay_flow::Backoff;
/// let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
/// assert_eq!([1, 2, 3].map(|failures| backoff.pause(failures).as_millis()), [50, 100, 200]);
/// ```
///
/// # Choosing a bound
/// `initial` bounds how fast a failing child can spin, `max` how long a recovered dependency goes unnoticed. A child that
/// ran for `stable_after` starts at `initial` again: longer than a run that is going to fail anyway takes to do so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
    /// The share of the pause (0 to 1) that is random, taken off: 0.2 makes 1 s into 0.8–1 s.
    pub jitter: f64,
    /// A run at least this long forgets earlier failures.
    pub stable_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(30),
            jitter: 0.2,
            stable_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// No pause at all, ever.
    pub const NONE: Self = Self {
        initial: Duration::ZERO,
        max: Duration::ZERO,
        jitter: 0.0,
        stable_after: Duration::from_secs(10),
    };

    /// The pause after `failures` in a row (from 1), with its jitter drawn.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        self.pause_by(failures, fastrand::f64())
    }

    /// As [`Backoff::pause`], with `chance` (0 to 1) in place of a draw.
    pub(crate) fn pause_by(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max.max(self.initial));
        let jitter = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        full.mul_f64(1.0 - jitter * chance)
    }

    /// The field that makes no sense, if one does.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !(0.0..=1.0).contains(&self.jitter) {
            Some("backoff.jitter")
        } else if self.max < self.initial {
            Some("backoff.max")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_maximum_and_jitter_only_shortens_it() {
        let plain = Backoff {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(65),
            jitter: 0.0,
            ..Backoff::default()
        };
        let pauses: Vec<_> = (1..=5).map(|n| plain.pause(n).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 65, 65]);
        assert_eq!(plain.pause(u32::MAX), Duration::from_millis(65));
        let spread = Backoff { jitter: 0.5, ..plain };
        for _ in 0..1000 {
            let pause = spread.pause(2);
            assert!(
                pause >= Duration::from_millis(10) && pause <= Duration::from_millis(20),
                "{pause:?}"
            );
        }
    }
}
