//! Sleeps, finer than Tokio's: [`Timer::fine`] wakes within about a tenth of a millisecond.
//!
//! Owns, for each fine timer, one thread and an entry per sleep under way. Tokio's own timer counts whole milliseconds and
//! rounds up, so a sleep of 1 ms takes up to 2, and a worker that sleeps again and again gets half done. A fine timer
//! counts ticks of [`RESOLUTION`], and wakes together what falls into one tick. It never fires early, and never reads the
//! wall clock: what time it is outside does not matter.
//!
//! ```text
//! sleep ─first poll─► registered ─its tick─► fired ─► ready
//!                         ├─drop─► gone, and its entry with it
//!                         └─the timer ends─► goes on with Tokio's timer
//! ```
//!
//! # One or the other
//!
//! A timer is made once, by whoever starts the program, and handed down. [`Timer::tokio`] is Tokio's own, and the one for
//! tests: it follows the paused clock. A fine timer has real time only: under a paused clock it waits while Tokio's clock
//! jumps ahead, and an [`Instant`] read from a clock that was moved means another time to it. Nothing guesses which of the
//! two is meant.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use forebay_flow::{Ctx, timer::Timer};
//!
//! async fn poll_twice(timer: &Timer) {
//!     for _ in 0..2 {
//!         timer.sleep(Duration::from_micros(300)).await;
//!     }
//! }
//!
//! let app = Ctx::root("app");
//! poll_twice(&Timer::fine(&app)?).await;
//! poll_twice(&Timer::tokio()).await; // a test
//! # Ok(()) }
//! ```
//!
//! # What it costs
//!
//! `cargo bench -p forebay-flow --bench timer` measures it. The thread rests while nothing is due and takes no time then.
//! A sleep costs a lock of its shard to register and one to give up; one that fired costs a wake from another thread, as
//! it does not come from the runtime itself. For what waits long and is mostly given up, timeouts of requests say,
//! Tokio's is as good.

mod driver;
#[cfg(all(test, loom))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod model;
mod wheel;

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::available_parallelism;
use std::time::Duration;

use self::driver::{Driver, Looked, Place};
use crate::clock::{self, Instant};
use crate::ctx::Ctx;
use crate::tasks::{self, Name};
use crate::thread::{self, Thread};

const TICK_NANOS: u64 = 1 << 16;
/// More shards than this no machine needs: a lock is held for some tens of nanoseconds.
const MOST_SHARDS: usize = 16;

/// A fine timer's tick, 65.536 µs: a sleep is late by up to that, and by what the system takes to wake a thread.
pub const RESOLUTION: Duration = Duration::from_nanos(TICK_NANOS);

/// Makes sleeps. Clones share it.
#[derive(Clone)]
pub struct Timer {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Tokio,
    Fine(Arc<Fine>),
}

/// A fine timer's handle; the thread ends with the last.
struct Fine {
    driver: Arc<Driver>,
    name: Arc<str>,
    /// Dropped, it asks the thread to end.
    _thread: Thread<()>,
}

impl Timer {
    /// Tokio's timer: to the millisecond, rounded up, and on the runtime's clock, paused or not.
    #[must_use]
    pub fn tokio() -> Self {
        Self { source: Source::Tokio }
    }

    /// A timer of [`RESOLUTION`] on real time, with a thread of its own below `ctx`. It ends when `ctx` is cancelled or
    /// when the last clone and the last sleep are gone. One for the whole program is enough.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[track_caller]
    pub fn fine(ctx: &Ctx) -> io::Result<Self> {
        let shards = available_parallelism().map_or(1, |cores| cores.get().min(MOST_SHARDS));
        let driver = Arc::new(Driver::new(shards, clock::real_nanos() / TICK_NANOS));
        let own = Arc::clone(&driver);
        let thread =
            thread::spawn_at(ctx, Name::Borrowed("timer"), Location::caller(), move |ctx| {
                run(&own, &ctx);
            })?;
        let name = Arc::from(ctx.path());
        Ok(Self { source: Source::Fine(Arc::new(Fine { driver, name, _thread: thread })) })
    }

    /// A sleep of `duration` from now, not from its first poll.
    ///
    /// # Panics
    /// As [`Sleep`]; of [`Timer::tokio`] at once.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let state = match &self.source {
            Source::Tokio => State::Tokio(Box::pin(tokio::time::sleep(duration))),
            Source::Fine(fine) => {
                let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                State::Fine(Entry::new(fine, clock::real_nanos().saturating_add(nanos)))
            }
        };
        Sleep { state }
    }

    /// A sleep until `deadline`; ready at once when that has passed.
    ///
    /// # Panics
    /// As [`Timer::sleep`].
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        let state = match &self.source {
            Source::Tokio => State::Tokio(Box::pin(tokio::time::sleep_until(deadline))),
            Source::Fine(fine) => State::Fine(Entry::new(fine, clock::real_nanos_at(deadline))),
        };
        Sleep { state }
    }

    /// Awaits `fut` for `limit` at most.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is over; `fut` is dropped then. One that is ready at the same moment wins.
    ///
    /// # Cancel safety
    /// Dropped, it drops `fut`.
    ///
    /// # Panics
    /// As [`Sleep`].
    pub async fn timeout<F: Future>(&self, limit: Duration, fut: F) -> Result<F::Output, Elapsed> {
        within(self.sleep(limit), fut).await
    }

    /// Awaits `fut` until `deadline` at most.
    ///
    /// # Errors
    /// As [`Timer::timeout`].
    ///
    /// # Cancel safety
    /// As [`Timer::timeout`].
    ///
    /// # Panics
    /// As [`Sleep`].
    pub async fn timeout_at<F: Future>(
        &self,
        deadline: Instant,
        fut: F,
    ) -> Result<F::Output, Elapsed> {
        within(self.sleep_until(deadline), fut).await
    }

    /// How many sleeps of this timer are under way: polled once at least, not fired and not dropped. 0 for Tokio's, whose
    /// are not counted.
    #[must_use]
    pub fn sleeping(&self) -> usize {
        match &self.source {
            Source::Tokio => 0,
            Source::Fine(fine) => fine.driver.len(),
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Tokio => f.write_str("Timer::Tokio"),
            Source::Fine(fine) => f
                .debug_struct("Timer::Fine")
                .field("under", &fine.name)
                .field("sleeping", &fine.driver.len())
                .finish(),
        }
    }
}

/// The time was over first. A later try may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

async fn within<F: Future>(mut sleep: Sleep, fut: F) -> Result<F::Output, Elapsed> {
    let mut fut = pin!(fut);
    poll_fn(|cx| {
        if let Poll::Ready(value) = fut.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Ready once its time has come; made by a [`Timer`].
///
/// # Cancel safety
/// Dropped, it leaves nothing behind. It may be polled again and again, from one task or another.
///
/// # Panics
/// Polled outside of a Tokio runtime, when it is of [`Timer::tokio`], or when its timer's context was cancelled: it goes
/// on with Tokio's timer then.
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    state: State,
}

enum State {
    Fine(Entry),
    // Boxed: it is large, and would have to be pinned.
    Tokio(Pin<Box<tokio::time::Sleep>>),
    Over,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Fine(entry) => match ready!(entry.poll(cx)) {
                    Some(left) => self.state = State::Tokio(Box::pin(tokio::time::sleep(left))),
                    None => self.state = State::Over,
                },
                State::Tokio(sleep) => {
                    let polled = sleep.as_mut().poll(cx);
                    if polled.is_pending() {
                        static NAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("tokio"));
                        tasks::note_wait("timer", &NAME);
                    }
                    return polled;
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Fine(_) => "Sleep::Fine",
            State::Tokio(_) => "Sleep::Tokio",
            State::Over => "Sleep::Over",
        })
    }
}

/// A sleep of a fine timer.
struct Entry {
    fine: Arc<Fine>,
    deadline_nanos: u64,
    place: Option<Place>,
}

impl Entry {
    fn new(fine: &Arc<Fine>, deadline_nanos: u64) -> Self {
        Self { fine: Arc::clone(fine), deadline_nanos, place: None }
    }

    /// Ready with what is left of it when the timer has ended, or with nothing when its time has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Duration>> {
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let driver = &self.fine.driver;
        let looked = match self.place {
            Some(place) => driver.look(place, cx.waker()),
            None if clock::real_nanos() >= self.deadline_nanos => Looked::Due,
            None => {
                let tick = self.deadline_nanos.div_ceil(TICK_NANOS).min(wheel::LAST);
                driver.register(shard(), tick, cx.waker().clone())
            }
        };
        self.place = match looked {
            Looked::Waits(place) => {
                tasks::note_wait("timer", &self.fine.name);
                self.place = Some(place);
                return Poll::Pending;
            }
            Looked::Due | Looked::Closed => None,
        };
        turn.made_progress();
        let left = self.deadline_nanos.saturating_sub(clock::real_nanos());
        Poll::Ready(matches!(looked, Looked::Closed).then(|| Duration::from_nanos(left)))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.fine.driver.cancel(place);
        }
    }
}

/// A number for this thread: its shard, but for the size of the timer.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % MOST_SHARDS);
        }
        own.get()
    })
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// However the thread ends, nobody sleeps on for ever.
struct Closing<'a>(&'a Driver);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The thread: fires what is due and rests until the next is, until it is cancelled.
fn run(driver: &Driver, ctx: &Ctx) {
    let _closing = Closing(driver);
    let alarm = Waker::from(Arc::new(Unpark(std::thread::current())));
    driver.set_alarm(alarm.clone());
    let mut cancelled = pin!(ctx.cancelled());
    // Asks once; from then on a ring may mean this, too.
    if cancelled.as_mut().poll(&mut Context::from_waker(&alarm)).is_ready() {
        return;
    }
    let mut wakers = Vec::new();
    while !ctx.is_cancelled() {
        let next = driver.fire(clock::real_nanos() / TICK_NANOS, &mut wakers);
        let pause = next.map(|tick| (tick * TICK_NANOS).saturating_sub(clock::real_nanos()));
        if pause == Some(0) {
            continue;
        }
        tasks::mark_thread_waiting();
        match pause {
            Some(nanos) => std::thread::park_timeout(Duration::from_nanos(nanos)),
            None => std::thread::park(),
        }
        tasks::clear_thread_wait();
    }
}
