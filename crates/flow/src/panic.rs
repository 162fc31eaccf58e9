//! A panic as a value: its text, what it carried, and the stack where it happened.
//!
//! Owns the process's panic hook from the first pool or group on: it keeps the stack of a panic inside a job and hands every
//! panic on to the hook that was there before. A program that replaces the hook later loses the stacks, nothing else. It
//! never resumes a panic: what was caught is counted and told by whoever asked.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Once};
use std::task::Poll;

use parking_lot::Mutex;

/// What a panic left: of a task or thread, of a pool's job, of a part of a group, of a shared call. Two are equal when their
/// texts are; cloning shares the rest.
#[derive(Clone)]
pub struct Panic {
    message: Arc<str>,
    /// Shared, and behind a lock because a payload need not be `Sync`. `None` for a panic made from a text.
    payload: Option<Arc<Mutex<Box<dyn Any + Send>>>>,
    stack: Option<Arc<Backtrace>>,
}

impl Panic {
    /// Of a panic that was caught here.
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let stack = STACK.with(|stack| stack.borrow_mut().take()).map(Arc::new);
        Self { stack, ..Self::caught_elsewhere(payload) }
    }

    /// Of one that was caught on another thread, perhaps: its stack is not known.
    pub(crate) fn caught_elsewhere(payload: Box<dyn Any + Send>) -> Self {
        let message = Arc::from(message(payload.as_ref()));
        Self { message, payload: Some(Arc::new(Mutex::new(payload))), stack: None }
    }

    /// The text, or a stand-in when the panic carried something else than text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A copy of what the panic carried (`std::panic::panic_any`), if it was a `T`.
    #[must_use]
    pub fn payload<T: Any + Clone>(&self) -> Option<T> {
        self.payload.as_ref()?.lock().downcast_ref::<T>().cloned()
    }

    /// Where it happened. Symbols are looked up when it is displayed, which may take milliseconds. Known of a pool's jobs and
    /// a group's parts, and of others that the toolkit polls itself once there is a pool or a group in the process; not of a
    /// [`Task`](crate::Task), which the runtime polls. `None` also when the panic hook was replaced after the first pool or
    /// group was made, or the panic was resumed and not raised.
    #[must_use]
    pub fn stack(&self) -> Option<&Backtrace> {
        self.stack.as_deref()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.message, f)
    }
}

impl std::error::Error for Panic {}

impl PartialEq for Panic {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for Panic {}

impl From<&str> for Panic {
    fn from(message: &str) -> Self {
        Self { message: Arc::from(message), payload: None, stack: None }
    }
}

impl From<String> for Panic {
    fn from(message: String) -> Self {
        Self::from(message.as_str())
    }
}

thread_local! {
    /// How many jobs deep this thread is; the hook keeps stacks only inside of one.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    static STACK: RefCell<Option<Backtrace>> = const { RefCell::new(None) };
}

/// The text a panic carried, or a stand-in when it carried something else than text.
fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a panic without a message"
    }
}

/// Puts the hook in place, once per process.
pub(crate) fn keep_stacks() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.with(Cell::get) > 0 {
                let stack = Backtrace::force_capture();
                STACK.with(|kept| {
                    if let Ok(mut kept) = kept.try_borrow_mut() {
                        *kept = Some(stack);
                    }
                });
            }
            before(info);
        }));
    });
}

/// Marks this thread as inside of a job until dropped.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.with(|inside| inside.set(inside.get() + 1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(inside.get() - 1));
    }
}

/// Runs `f`; a panic becomes a value with its stack.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    let _inside = Inside::enter();
    catch_unwind(AssertUnwindSafe(f)).map_err(Panic::new)
}

/// Awaits `fut`; a panic in any of its polls becomes a value with its stack.
pub(crate) async fn catch_async<F: Future>(fut: F) -> Result<F::Output, Panic> {
    let mut fut = pin!(fut);
    poll_fn(|cx| match catch(|| fut.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// As [`catch`], inside of one: the stack is kept on its account.
pub(crate) fn catch_again<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(f)).map_err(Panic::new)
}
