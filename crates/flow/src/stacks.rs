//! Where a suspended task stands: one poll with a waker that takes a backtrace whenever a pending leaf keeps it.
//!
//! Owns nothing beyond the one poll. What a leaf gets is the task's own waker, so the poll is like any other to it: a
//! spurious one, which every future must bear. Reading symbols is slow and happens later, off the runtime: see [`read`].
//!
//! The waker is `unsafe`: [`std::task::Wake`] has no say in what a clone is, and the clone is where the trace is taken.
//! Its tests below need no runtime and run under memcheck and helgrind (`cargo xtask models`).
//!
//! ```text
//! wrapper ─poll(capturing waker)─► user's future ─► … ─► leaf: waker.clone() ─► backtrace, and the real waker
//! ```

use std::backtrace::Backtrace;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

#[cfg(not(helgrind))]
use parking_lot::Mutex;

#[cfg(helgrind)]
use crate::sync::Mutex;

/// How many leaves of one task are captured; a task that joins more names the rest by number.
const LEAVES: usize = 8;

/// The raw backtraces of one poll, not yet read.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    traces: Vec<Backtrace>,
    more: usize,
}

/// One function on the way from a task's first line to where it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The function's path, ending in `{{closure}}` for an async one; only `{async_fn#0}` when debug info keeps no path.
    /// The place is the surer guide.
    pub function: String,
    /// `file:line:column`, when the program carries line tables.
    pub place: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

/// Where one task stands: a list of frames, innermost first, for each leaf it waits at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stack {
    /// The task's id in the registry.
    pub task: u64,
    /// One entry per leaf. None at all: no leaf kept a waker in this poll, so perhaps nothing will ever wake the task.
    pub leaves: Vec<Vec<Frame>>,
    /// How many leaves more there were.
    pub more: usize,
}

struct Capture<'a> {
    real: &'a Waker,
    captured: Mutex<Captured>,
}

static VTABLE: RawWakerVTable =
    RawWakerVTable::new(clone_capturing, wake_real, wake_real, drop_nothing);

/// # Safety
/// `data` is a live [`Capture`].
unsafe fn clone_capturing(data: *const ()) -> RawWaker {
    // SAFETY: the caller's promise; while a waker over it lives a `Capture` is only shared, and its list has a lock.
    let capture = unsafe { &*data.cast::<Capture<'_>>() };
    let mut captured = capture.captured.lock();
    if captured.traces.len() < LEAVES {
        captured.traces.push(Backtrace::force_capture());
    } else {
        captured.more += 1;
    }
    drop(captured);
    // The new waker takes over the reference that this clone counts.
    let real = ManuallyDrop::new(capture.real.clone());
    RawWaker::new(real.data(), real.vtable())
}

/// # Safety
/// `data` is a live [`Capture`].
unsafe fn wake_real(data: *const ()) {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Capture<'_>>() }.real.wake_by_ref();
}

/// # Safety
/// None needed: the capture belongs to [`poll_capturing`].
unsafe fn drop_nothing(_data: *const ()) {}

/// Polls `fut` once and says where its leaves stand. Never inlined: its frame is where the task's own frames end.
#[inline(never)]
pub(crate) fn poll_capturing<F: Future>(
    fut: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> (Poll<F::Output>, Captured) {
    let capture = Capture { real: cx.waker(), captured: Mutex::default() };
    // SAFETY: the contract of a table of a raw waker:
    // - `data` is live for every call: `capture` outlives `waker`, declared after it, also when the poll panics. The
    //   waker is only lent to the poll, and what one can keep of it is a clone: the real waker, which knows no capture.
    // - the functions may run on any thread, while the poll lasts (a leaf may share the `&Waker` with threads that it
    //   waits for): they read a `&Waker`, which is `Sync`, and a list under a lock.
    // - `wake` consumes a waker and needs an owned one; here it only runs for this one, which nobody is given to own.
    // - a clone takes over the reference that cloning the real waker counts, under that one's own table.
    let waker = unsafe { Waker::new(ptr::from_ref(&capture).cast(), &VTABLE) };
    let polled = fut.poll(&mut Context::from_waker(&waker));
    drop(waker);
    (polled, capture.captured.into_inner())
}

/// Looks the symbols up: milliseconds, and much more the first time. Not for a thread of the runtime.
pub(crate) fn read(task: u64, captured: &Captured) -> Stack {
    let leaves = captured.traces.iter().map(|trace| trim(parse(&trace.to_string()))).collect();
    Stack { task, leaves, more: captured.more }
}

/// `  4: function` lines, each perhaps followed by `at place`.
fn parse(text: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                frame.place = Some(place.to_owned());
            }
        } else if let Some((number, function)) = line.split_once(": ")
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            frames.push(Frame { function: function.to_owned(), place: None });
        }
    }
    frames
}

/// Cuts what stands outside the task's own poll, then what belongs to the runtime, the standard library or this crate.
fn trim(mut frames: Vec<Frame>) -> Vec<Frame> {
    // Debug info may name a generic or inlined function without its path, so the ends are found by bare name.
    let is = |frame: &Frame, name: &str| frame.function.contains(name);
    if let Some(end) = frames.iter().position(|frame| is(frame, "poll_capturing")) {
        frames.truncate(end);
    }
    if let Some(start) = frames.iter().rposition(|frame| is(frame, "clone_capturing")) {
        frames.drain(..=start);
    }
    // The program's own frames; for a task of this crate its own; and for want of both whatever there is.
    let ours: Vec<_> = frames.iter().filter(|frame| !of_the_runtime(frame)).cloned().collect();
    let theirs: Vec<_> = ours.iter().filter(|frame| !of_this_crate(frame)).cloned().collect();
    [theirs, ours].into_iter().find(|kept| !kept.is_empty()).unwrap_or(frames)
}

/// By the function's path, or by the file where an inlined function has lost its path.
fn of_the_runtime(frame: &Frame) -> bool {
    let path = frame.function.trim_start_matches(['<', '&']);
    ["std::", "core::", "alloc::", "tokio::", "tokio_util::", "__rust"]
        .iter()
        .any(|start| path.starts_with(start))
        || frame
            .place
            .as_ref()
            .is_some_and(|place| place.starts_with("/rustc/") || place.contains("/tokio-"))
}

fn of_this_crate(frame: &Frame) -> bool {
    if frame.function.trim_start_matches(['<', '&']).starts_with("forebay_flow::") {
        return true;
    }
    let Some(place) = &frame.place else {
        return false;
    };
    // A trace shows places below the working directory relative to it.
    let place = match (place.strip_prefix("./"), std::env::current_dir()) {
        (Some(below), Ok(here)) => here.join(below).to_string_lossy().into_owned(),
        _ => place.clone(),
    };
    place.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/src/"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::future::poll_fn;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread;

    use super::{LEAVES, parse, poll_capturing, trim};

    /// A task's own waker, which counts.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Counted>, Waker) {
        let counted = Arc::new(Counted::default());
        (Arc::clone(&counted), Waker::from(counted))
    }

    // One thread beside the polling one, and joined: what std does as threads come and go looks like races to helgrind.
    // The clones travel through the ring, whose handovers it is told of.

    #[test]
    fn waker_clones_are_woken_and_dropped_on_another_thread_while_the_poll_goes_on() {
        let (counted, real) = counted();
        let (mut tx, mut rx) = crate::ring::new::<Waker>(2);
        let (polled, captured) = thread::scope(|scope| {
            let other = scope.spawn(move || {
                for n in 0..LEAVES + 2 {
                    let kept = loop {
                        match rx.pop() {
                            Some(kept) => break kept,
                            None => thread::yield_now(),
                        }
                    };
                    if n % 2 == 0 {
                        kept.wake();
                    }
                }
            });
            let leaf = pin!(poll_fn(|cx: &mut Context<'_>| {
                for _ in 0..LEAVES + 2 {
                    let mut clone = cx.waker().clone();
                    while let Err(full) = tx.push(clone) {
                        clone = full.0;
                        thread::yield_now();
                    }
                    cx.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            }));
            let polled = poll_capturing(leaf, &mut Context::from_waker(&real));
            other.join().unwrap();
            polled
        });
        assert!(polled.is_pending());
        assert_eq!((captured.traces.len(), captured.more), (LEAVES, 2));
        assert_eq!(counted.0.load(Ordering::Relaxed), LEAVES + 2 + LEAVES / 2 + 1);
        drop((real, tx));
        assert_eq!(Arc::strong_count(&counted), 1, "each clone was dropped once");
    }

    #[test]
    fn waker_is_cloned_and_woken_by_two_threads_at_once_while_the_poll_waits() {
        let (counted, real) = counted();
        let each = |waker: &Waker| {
            for _ in 0..LEAVES {
                waker.wake_by_ref();
                let kept = waker.clone();
                assert!(!kept.will_wake(waker), "the real one");
                kept.wake();
            }
        };
        let leaf = pin!(poll_fn(|cx: &mut Context<'_>| {
            let waker = cx.waker();
            thread::scope(|scope| {
                let other = scope.spawn(|| each(waker));
                each(waker);
                other.join().unwrap();
            });
            Poll::<()>::Pending
        }));
        let (polled, captured) = poll_capturing(leaf, &mut Context::from_waker(&real));
        assert!(polled.is_pending());
        assert_eq!((captured.traces.len(), captured.more), (LEAVES, LEAVES));
        assert_eq!(counted.0.load(Ordering::Relaxed), 4 * LEAVES);
        drop(real);
        assert_eq!(Arc::strong_count(&counted), 1, "each clone was dropped once");
    }

    #[test]
    fn waker_clones_outlive_the_poll_and_know_nothing_of_it() {
        let (counted, real) = counted();
        let mut kept = None;
        let leaf = pin!(poll_fn(|cx: &mut Context<'_>| {
            kept = Some(cx.waker().clone());
            Poll::Ready(7)
        }));
        let (polled, _) = poll_capturing(leaf, &mut Context::from_waker(&real));
        assert_eq!(polled, Poll::Ready(7));
        let kept = kept.unwrap();
        assert!(kept.will_wake(&real));
        thread::scope(|scope| scope.spawn(move || kept.wake()).join().unwrap());
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn waker_clones_outlive_a_poll_that_panics() {
        let (counted, real) = counted();
        let mut kept = None;
        let leaf = pin!(poll_fn(|cx: &mut Context<'_>| -> Poll<()> {
            kept = Some(cx.waker().clone());
            panic!("in the poll")
        }));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            poll_capturing(leaf, &mut Context::from_waker(&real))
        }));
        assert!(polled.is_err());
        kept.unwrap().wake();
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
        drop(real);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn a_trace_is_cut_to_the_frames_between_the_leaf_and_the_wrapper() {
        let text = "   0: std::backtrace::Backtrace::create\n   1: forebay_flow::stacks::clone_capturing\n             \
                    at ./src/stacks.rs:70:1\n   2: <tokio::time::Sleep as core::future::Future>::poll\n   \
                    3: app::wait::{{closure}}\n             at /srv/app.rs:7:9\n   \
                    4: forebay_flow::stacks::poll_capturing\n   5: app::main";
        let frames: Vec<_> = trim(parse(text)).iter().map(ToString::to_string).collect();
        assert_eq!(frames, ["app::wait::{{closure}} at /srv/app.rs:7:9"]);
    }

    #[test]
    fn frames_of_this_crate_stay_when_a_task_has_no_others() {
        let text = "   0: forebay_flow::stacks::clone_capturing\n   1: tokio::sync::notify::Notified::poll\n   \
                    2: forebay_flow::supervise::engine::wait\n   3: __rust_try\n   \
                    4: forebay_flow::stacks::poll_capturing\n   5: main";
        let frames: Vec<_> = trim(parse(text)).into_iter().map(|frame| frame.function).collect();
        assert_eq!(frames, ["forebay_flow::supervise::engine::wait"]);
    }

    #[test]
    fn frames_of_the_runtime_stay_when_there_are_no_others() {
        let text = "   0: forebay_flow::stacks::clone_capturing\n   1: tokio::time::Sleep::poll\n   \
                    2: forebay_flow::stacks::poll_capturing\n   3: main";
        let frames: Vec<_> = trim(parse(text)).into_iter().map(|frame| frame.function).collect();
        assert_eq!(frames, ["tokio::time::Sleep::poll"]);
    }
}
