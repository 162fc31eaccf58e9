//! A look about before going to sleep: spin, then park (Karlin et al., 1991).
//!
//! Owns, for one side of a queue, the waker that a spinning thread leaves in line, and whether spinning paid lately. It never
//! spins in a task: there a wait costs nothing but a switch to the next task, and the thread belongs to all of them. What
//! spins is a thread that would sleep, in a `block_on` or in a blocking call: its sleep and its wake go through the kernel,
//! and take some hundred times as long as the handing over of an item. When both sides pay that in turn, they run in
//! lockstep: one sleeps while the other is being woken.
//!
//! ```text
//!           not worth it, or not alone in line
//! nothing ─────────────────────────────────────────────────► in line, with the thread's own waker ─► asleep
//!    └─ worth it ─► in line, with a waker that sets a flag ─┐              ▲
//!                        spins until the flag is set ◄──────┘              │ its own waker in place of the flag's
//!                                  ├─ set: granted, looks again            │
//!                                  └─ not set for some 30 µs ──────────────┘
//! ```
//!
//! One that spins holds its place in line as if it slept. So nothing about lines, grants and cancellation knows of spinning,
//! and whoever grants a spinner pays a store where a sleeper costs a system call.
//!
//! Spinning is counted in steps, not timed: no clock is read. A spin that was in vain makes the next waits go without, twice
//! as many each time; one that paid is followed by another. So a queue whose other side is slow spins once in a hundred
//! sleeps, and an idle one not at all.

#[cfg(not(shuttle))]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};
use std::thread;

#[cfg(shuttle)]
use shuttle::sync::atomic::AtomicBool;
use tokio::runtime::{Handle, RuntimeFlavor};

/// So often is the flag looked at by a processor that does nothing else: some 10 µs, with the pauses between.
const LOOKS: u32 = if cfg!(shuttle) { 3 } else { 64 };
const PAUSES: u32 = 8;
/// Then so often by one that lets other threads go first: some 15 µs, or as long as those take.
/// (In a model each look may be followed by anybody's step. Its yield would wake the one that yields, and hide a lost wake.)
const YIELDS: u32 = if cfg!(shuttle) { 0 } else { 32 };
/// Once in two to this many waits at least it is tried again.
const RAREST: u32 = 7;

/// Whether and how one side's only waiter spins.
pub(super) struct Spin {
    called: Arc<Called>,
    /// Of `called`: what is left in line.
    waker: Waker,
    /// So many waits go without.
    rest: AtomicU32,
    /// Spins in vain since the last that paid.
    in_vain: AtomicU32,
}

/// Set by whoever grants the spinner, on lines of its own: the spinner reads them all the time.
#[repr(align(128))]
#[derive(Default)]
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Spin {
    pub(super) fn new() -> Self {
        let called = Arc::<Called>::default();
        let waker = Waker::from(Arc::clone(&called));
        Self { called, waker, rest: AtomicU32::new(0), in_vain: AtomicU32::new(0) }
    }

    /// Whether the caller, who is about to wait, is to spin first if nobody else waits. Asked once a wait.
    pub(super) fn is_due(&self) -> bool {
        if !thread_would_sleep() {
            return false;
        }
        // Of no consequence when off: no read-modify-write.
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    /// What to leave in line before [`watch`](Self::watch), under the same lock.
    pub(super) fn waker(&self) -> &Waker {
        // One that is called late, after it gave up, calls the next in vain. That one looks, and finds itself still in line.
        self.called.0.store(false, Ordering::Relaxed);
        &self.waker
    }

    /// Spins until the waker is called, or in vain. The caller looks for itself what came of it.
    pub(super) fn watch(&self) {
        let called = || self.called.0.load(Ordering::Acquire);
        for _ in 0..LOOKS {
            if called() {
                return;
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
        for _ in 0..YIELDS {
            if called() {
                return;
            }
            thread::yield_now();
        }
    }

    /// Learns whether it was worth it.
    pub(super) fn ended(&self, paid: bool) {
        let in_vain = if paid { 0 } else { RAREST.min(self.in_vain.load(Ordering::Relaxed) + 1) };
        self.in_vain.store(in_vain, Ordering::Relaxed);
        self.rest.store((1 << in_vain) - 1, Ordering::Relaxed);
    }
}

static SEVERAL_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));

/// Whether a wait here is a thread's sleep, and what is waited for can come meanwhile: neither in a task, nor where the
/// tasks run on this very thread, nor on a machine that does one thing at a time.
fn thread_would_sleep() -> bool {
    let others_run_elsewhere = || match Handle::try_current() {
        Ok(runtime) => runtime.runtime_flavor() != RuntimeFlavor::CurrentThread,
        Err(_) => true,
    };
    *SEVERAL_PROCESSORS && tokio::task::try_id().is_none() && others_run_elsewhere()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_until_due(spin: &Spin) -> u32 {
        (0..).take_while(|_| !spin.is_due()).count() as u32
    }

    #[test]
    fn a_spin_in_vain_doubles_the_waits_without_and_one_that_paid_is_followed_by_another() {
        if !*SEVERAL_PROCESSORS {
            return;
        }
        let spin = Spin::new();
        assert_eq!(waits_until_due(&spin), 0, "a new queue tries");
        let mut waits = Vec::new();
        for _ in 0..9 {
            spin.ended(false);
            waits.push(waits_until_due(&spin));
        }
        assert_eq!(waits, [1, 3, 7, 15, 31, 63, 127, 127, 127]);
        spin.ended(true);
        assert_eq!(waits_until_due(&spin), 0);
        spin.ended(false);
        assert_eq!(waits_until_due(&spin), 1);
    }

    #[test]
    fn a_call_ends_the_spin_and_the_next_starts_uncalled() {
        let spin = Spin::new();
        spin.waker().wake_by_ref();
        assert!(spin.called.0.load(Ordering::Relaxed));
        spin.watch();
        spin.waker();
        assert!(!spin.called.0.load(Ordering::Relaxed));
        spin.watch(); // in vain, and it ends
    }

    #[tokio::test]
    async fn nothing_spins_where_the_tasks_run_on_the_same_thread() {
        assert!(!thread_would_sleep());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn nothing_spins_in_a_task_but_beside_one() {
        assert_eq!(thread_would_sleep(), *SEVERAL_PROCESSORS, "a `block_on` beside workers");
        let task = crate::Ctx::root("t").spawn("task", async { thread_would_sleep() });
        assert_eq!(task.join().await.ok(), Some(false));
    }
}
