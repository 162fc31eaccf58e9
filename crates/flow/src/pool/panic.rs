//! A job's panic as a value: its text, what it carried, and the stack where it happened.
//!
//! Owns the process's panic hook from the first pool on: it keeps the stack of a panic inside a job and hands every panic
//! on to the hook that was there before. A program that replaces the hook later loses the stacks, nothing else.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use parking_lot::Mutex;

use crate::panics;

/// What a job's panic left. Two are equal when their texts are; cloning shares the rest.
#[derive(Clone)]
pub struct Panic {
    message: Arc<str>,
    /// Shared, and behind a lock because a payload need not be `Sync`. `None` for a panic made from a text.
    payload: Option<Arc<Mutex<Box<dyn Any + Send>>>>,
    stack: Option<Arc<Backtrace>>,
}

impl Panic {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = Arc::from(panics::message(payload.as_ref()));
        let stack = STACK.with(|stack| stack.borrow_mut().take()).map(Arc::new);
        Self { message, payload: Some(Arc::new(Mutex::new(payload))), stack }
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

    /// Where it happened. Symbols are looked up when it is displayed, which may take milliseconds. `None` when the panic
    /// hook was replaced after the first pool was made, or the panic was resumed and not raised.
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

/// As [`catch`], inside of one: the stack is kept on its account.
pub(super) fn catch_again<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(f)).map_err(Panic::new)
}
