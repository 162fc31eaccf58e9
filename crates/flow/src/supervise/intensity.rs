//! How often a supervisor may restart: an intensity that ends in giving up, or a cool-down that ends in a pause.
//!
//! Owns the memory of past failures and nothing else. It reads no clock: each call says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;

/// When restarts pause, and for how long.
///
/// Each failure that leads to a restart adds one to a count; the count halves with every `half_life`. Once it passes
/// `threshold`, no child is restarted for `pause`; then the count starts at zero again. Siblings keep running.
///
/// # Choosing a bound
/// A child that fails every `t` brings the count to about `1.44 * half_life / t`: choose `threshold` above what a bad day
/// brings and below what a child that cannot start brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoolDown {
    /// The count that is still fine.
    pub threshold: f64,
    /// How long until an old failure weighs half.
    pub half_life: Duration,
    /// How long no restart is made.
    pub pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    GiveUp { max: usize, period: Duration },
    CoolDown(CoolDown),
}

impl Limit {
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::GiveUp { period, .. } if period.is_zero() => {
                Some(("intensity.period", "is zero"))
            }
            Self::GiveUp { .. } => None,
            Self::CoolDown(CoolDown { threshold, half_life, pause }) => {
                if !threshold.is_finite() || *threshold < 0.0 {
                    Some(("cool_down.threshold", "is out of range"))
                } else if half_life.is_zero() {
                    Some(("cool_down.half_life", "is zero"))
                } else if pause.is_zero() {
                    Some(("cool_down.pause", "is zero"))
                } else {
                    None
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Restart,
    /// Not before then; the flag says whether the pause begins with this failure.
    Pause {
        until: Instant,
        begins: bool,
    },
    GiveUp {
        max: usize,
        period: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Meter {
    limit: Limit,
    /// When restarts happened, within the period.
    restarts: VecDeque<Instant>,
    /// The decayed count, as of `counted`.
    count: f64,
    counted: Option<Instant>,
    paused_until: Option<Instant>,
}

impl Meter {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, restarts: VecDeque::new(), count: 0.0, counted: None, paused_until: None }
    }

    /// Another limit from now on. What happened is remembered.
    pub(super) fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
        if matches!(limit, Limit::GiveUp { .. }) {
            self.paused_until = None;
        }
    }

    /// Notes a failure that asks for a restart, and says what may be done about it.
    pub(super) fn failed(&mut self, now: Instant) -> Verdict {
        match self.limit {
            Limit::GiveUp { max, period } => self.count_in_period(now, max, period),
            Limit::CoolDown(cool_down) => self.decay(now, cool_down),
        }
    }

    fn count_in_period(&mut self, now: Instant, max: usize, period: Duration) -> Verdict {
        self.restarts.push_back(now);
        while let Some(first) = self.restarts.front()
            && now.saturating_duration_since(*first) > period
        {
            self.restarts.pop_front();
        }
        if self.restarts.len() <= max { Verdict::Restart } else { Verdict::GiveUp { max, period } }
    }

    fn decay(&mut self, now: Instant, cool_down: CoolDown) -> Verdict {
        if let Some(until) = self.paused_until {
            if now < until {
                return Verdict::Pause { until, begins: false };
            }
            self.paused_until = None;
        }
        let age = self.counted.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let half_lives = age.as_secs_f64() / cool_down.half_life.as_secs_f64();
        self.count = self.count * (-half_lives).exp2() + 1.0;
        self.counted = Some(now);
        if self.count <= cool_down.threshold {
            return Verdict::Restart;
        }
        let until = now + cool_down.pause;
        (self.count, self.counted, self.paused_until) = (0.0, None, Some(until));
        Verdict::Pause { until, begins: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn b41_the_count_of_failures_halves_with_each_half_life_and_a_pause_resets_it() {
        let rule = CoolDown { threshold: 2.2, half_life: 10 * SEC, pause: 60 * SEC };
        let (mut meter, t0) = (Meter::new(Limit::CoolDown(rule)), clock::now());
        // Ten seconds apart the count converges to two: never too many.
        for n in 0..100 {
            assert_eq!(meter.failed(t0 + n * 10 * SEC), Verdict::Restart, "failure {n}");
        }
        // One second apart it passes at the next.
        let at = t0 + 991 * SEC;
        let until = at + 60 * SEC;
        assert_eq!(meter.failed(at), Verdict::Pause { until, begins: true });
        let during = Verdict::Pause { until, begins: false };
        assert_eq!(meter.failed(at + 59 * SEC), during);
        // Afterwards it starts at zero: two in one moment are fine, the third is not.
        assert_eq!(meter.failed(until), Verdict::Restart);
        assert_eq!(meter.failed(until), Verdict::Restart);
        let again = Verdict::Pause { until: until + 60 * SEC, begins: true };
        assert_eq!(meter.failed(until), again);
    }

    #[test]
    fn b18_restarts_count_for_exactly_the_period() {
        let mut meter = Meter::new(Limit::GiveUp { max: 1, period: SEC });
        let (t0, one_over) = (clock::now(), Verdict::GiveUp { max: 1, period: SEC });
        assert_eq!(meter.failed(t0), Verdict::Restart);
        assert_eq!(meter.failed(t0 + SEC), one_over, "the period's last moment counts");
        assert_eq!(meter.failed(t0 + 2 * SEC + Duration::from_nanos(1)), Verdict::Restart);
    }
}
