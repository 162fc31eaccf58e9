//! The only source of time.
//!
//! Owns nothing but, for a fake clock, the distance between its wall time and Tokio's clock. Nothing outside this file
//! reads the machine's clocks, so that a test decides what time it is. It never sleeps: waiting is Tokio's, which a
//! paused runtime moves by itself, or that of a [`Timer`](crate::timer::Timer).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A moment on Tokio's monotonic clock; a paused runtime stops it.
pub type Instant = tokio::time::Instant;

/// The present moment on Tokio's clock (paused time is honoured inside a paused runtime).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the real monotonic clock")]
static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Nanoseconds of real time since this process first asked; never paused.
pub(crate) fn real_nanos() -> u64 {
    nanos(START.elapsed())
}

/// What [`real_nanos`] reads at `instant`; 0 if that was before it was first asked. An instant of a clock that was paused
/// is off by as much as that clock is.
pub(crate) fn real_nanos_at(instant: Instant) -> u64 {
    nanos(instant.into_std().saturating_duration_since(*START))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment on a real clock that is never paused, stands still for some milliseconds at a time (Linux: 1 to 10) and costs a
/// quarter of [`now`] to read. For what is noted at every poll and read when somebody looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coarse(coarsetime::Instant);

impl Coarse {
    #[inline]
    pub(crate) fn now() -> Self {
        Self(coarsetime::Instant::now_without_cache_update())
    }

    /// As a number to keep in an atomic; never 0.
    #[inline]
    pub(crate) fn ticks(self) -> u64 {
        self.0.as_ticks().max(1)
    }

    pub(crate) fn from_ticks(ticks: u64) -> Self {
        Self(coarsetime::Instant::from_ticks(ticks))
    }

    pub(crate) fn elapsed(self) -> Duration {
        // It saturates: a later moment was none at all ago.
        Self::now().0.duration_since(self.0).into()
    }
}

/// The moment at which something was made, to show its age later. A release build takes it from the [`Coarse`] clock; a
/// debug build, that of tests, from Tokio's, which may be paused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(#[cfg(debug_assertions)] Instant, #[cfg(not(debug_assertions))] Coarse);

#[cfg(debug_assertions)]
impl Stamp {
    pub(crate) fn now() -> Self {
        Self(now())
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }
}

#[cfg(not(debug_assertions))]
impl Stamp {
    #[inline]
    pub(crate) fn now() -> Self {
        Self(Coarse::now())
    }

    pub(crate) fn instant(self) -> Instant {
        /// One moment on both clocks, so that a stamp is always the same instant.
        static BASE: LazyLock<(Coarse, Instant)> = LazyLock::new(|| (Coarse::now(), now()));
        let (base, instant) = *BASE;
        let (after, before) = (self.0.0.duration_since(base.0), base.0.duration_since(self.0.0));
        instant.checked_sub(before.into()).unwrap_or(instant) + Duration::from(after)
    }
}

/// A handle to a source of time; cloning shares it.
///
/// ```
/// use forebay_flow::Clock;
/// let clock = Clock::fake(1_000_000);
/// clock.jump(-500_000); // a wall clock may go backwards; the monotonic one may not
/// assert!(clock.unix_micros() < 1_000_000);
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Fake(Arc<Mutex<Fake>>),
}

#[derive(Debug)]
struct Fake {
    base: Instant,
    /// Added to both readings by `advance`.
    ahead: Duration,
    /// Wall time at `base`, moved by `jump`.
    wall_micros: i64,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A clock whose wall time starts at `start_unix_micros` and then follows Tokio's clock, paused or not.
    #[must_use]
    pub fn fake(start_unix_micros: i64) -> Self {
        let fake = Fake { base: now(), ahead: Duration::ZERO, wall_micros: start_unix_micros };
        Self { source: Source::Fake(Arc::new(Mutex::new(fake))) }
    }

    /// The present on the monotonic clock. Never goes backwards.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.source {
            Source::System => now(),
            Source::Fake(fake) => {
                let ahead = fake.lock().ahead;
                now() + ahead
            }
        }
    }

    /// Wall time in microseconds since 1970 UTC. May go backwards: never measure a duration with it.
    #[must_use]
    pub fn unix_micros(&self) -> i64 {
        match &self.source {
            Source::System => system_unix_micros(),
            Source::Fake(fake) => {
                let fake = fake.lock();
                fake.wall_micros.saturating_add(micros(fake.elapsed()))
            }
        }
    }

    /// Moves a fake clock ahead, both its readings. Does nothing to the system clock. Tokio's timers do not see it: in a
    /// paused runtime use `tokio::time::advance`, which a fake clock follows.
    pub fn advance(&self, by: Duration) {
        if let Source::Fake(fake) = &self.source {
            let mut fake = fake.lock();
            fake.ahead = fake.ahead.saturating_add(by);
        }
    }

    /// Moves a fake clock's wall time by `micros`, which may be negative; the monotonic reading stays.
    pub fn jump(&self, micros: i64) {
        if let Source::Fake(fake) = &self.source {
            let mut fake = fake.lock();
            fake.wall_micros = fake.wall_micros.saturating_add(micros);
        }
    }
}

impl Fake {
    fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.base).saturating_add(self.ahead)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_unix_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => micros(before.duration()).saturating_neg(),
    }
}
