//! The latest-value register: settings, a leader's address, a level. Many set it, many read it, only the last value counts.
//!
//! Owns one value and its version, which grows by one with each set. Sets are in one order; a reader goes along it and
//! never back, and a value is handed out whole, behind an `Arc`. It keeps no history, and a set never waits for a reader: a
//! reader that looks away misses what was replaced meanwhile, by design. For every event use [`crate::broadcast`].
//!
//! A [`Reader`] keeps the value it saw last, so that reading an unchanged one is one atomic load.
//!
//! # Choosing a bound
//! There is none to choose: it holds one value, and each reader the one it saw last.
//!
//! # Cancel safety
//! [`Reader::changed`] may be dropped at any time; the next one returns what this one would have.

use std::fmt;
use std::pin::pin;

use tokio::sync::Notify;

use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::tasks::{self, Name};

struct Inner<T> {
    name: std::sync::Arc<str>,
    /// The version of `value`, stored under its lock: whoever sees it finds that value or a later one.
    version: AtomicU64,
    value: Mutex<Versioned<T>>,
    changed: Notify,
}

struct Versioned<T> {
    version: u64,
    value: std::sync::Arc<T>,
}

/// A register. Cloning shares it.
///
/// ```
/// use forebay_flow::latest::Latest;
/// let level = Latest::new("log level", "info");
/// let mut reader = level.reader();
/// level.set("debug");
/// level.set("warn");
/// assert_eq!(**reader.get(), "warn"); // what was replaced meanwhile is gone
/// assert_eq!(reader.version(), 2);
/// ```
pub struct Latest<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Latest<T> {
    /// A register that holds `value`, as version 0.
    #[must_use]
    pub fn new(name: impl Into<Name>, value: T) -> Self {
        let value = Mutex::new(Versioned { version: 0, value: std::sync::Arc::new(value) });
        let name = std::sync::Arc::from(name.into().as_ref());
        Self {
            inner: Arc::new(Inner {
                name,
                version: AtomicU64::new(0),
                value,
                changed: Notify::new(),
            }),
        }
    }

    /// Replaces the value and returns its version.
    pub fn set(&self, value: T) -> u64 {
        let value = std::sync::Arc::new(value);
        self.replace(move |_| value)
    }

    /// Replaces the value by what `make` makes of it; no other set comes between. `make` runs under the register's lock:
    /// it must be short and must not touch the register. When it panics nothing changes.
    pub fn update(&self, make: impl FnOnce(&T) -> T) -> u64 {
        self.replace(|old| std::sync::Arc::new(make(old)))
    }

    fn replace(&self, make: impl FnOnce(&T) -> std::sync::Arc<T>) -> u64 {
        let (version, old) = {
            let mut held = self.inner.value.lock();
            let new = make(&held.value);
            held.version += 1;
            let version = held.version;
            self.inner.version.store(version, Ordering::Release);
            (version, std::mem::replace(&mut held.value, new))
        };
        self.inner.changed.notify_waiters();
        drop(old); // perhaps the last one: its drop is no business of the lock's
        version
    }

    /// The value. Takes the register's lock for a moment; whoever reads often wants a [`Reader`].
    #[must_use]
    pub fn get(&self) -> std::sync::Arc<T> {
        std::sync::Arc::clone(&self.inner.value.lock().value)
    }

    /// A reader that has seen the present value.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        let held = self.inner.value.lock();
        let (seen, value) = (held.version, std::sync::Arc::clone(&held.value));
        drop(held);
        Reader { inner: Arc::clone(&self.inner), seen, value }
    }
}

impl<T: fmt::Debug> fmt::Debug for Latest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest")
            .field("name", &self.inner.name)
            .field("value", &self.get())
            .finish_non_exhaustive()
    }
}

/// One reader, with the value it saw last.
pub struct Reader<T> {
    inner: Arc<Inner<T>>,
    seen: u64,
    value: std::sync::Arc<T>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            seen: self.seen,
            value: std::sync::Arc::clone(&self.value),
        }
    }
}

impl<T> Reader<T> {
    /// The latest value. One atomic load when it has not changed since this reader last looked.
    pub fn get(&mut self) -> &std::sync::Arc<T> {
        if self.has_changed() {
            let held = self.inner.value.lock();
            let old = std::mem::replace(&mut self.value, std::sync::Arc::clone(&held.value));
            self.seen = held.version;
            drop(held);
            drop(old);
        }
        &self.value
    }

    /// The version of the value seen last: how many sets came before it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.seen
    }

    /// Whether there is a later value than the one seen last.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.inner.version.load(Ordering::Acquire) != self.seen
    }

    /// Waits for a value later than the one seen last. It waits for ever when nobody sets one, also when nobody can any more:
    /// a register does not close. Run it in a context ([`Ctx::run`](crate::Ctx::run)).
    ///
    /// # Cancel safety
    /// Nothing counts as seen until it is returned.
    pub async fn changed(&mut self) -> &std::sync::Arc<T> {
        while !self.has_changed() {
            let mut notified = pin!(self.inner.changed.notified());
            notified.as_mut().enable();
            if self.has_changed() {
                break;
            }
            let name = &self.inner.name;
            std::future::poll_fn(|cx| {
                let poll = notified.as_mut().poll(cx);
                if poll.is_pending() {
                    tasks::note_wait("latest", name);
                }
                poll
            })
            .await;
        }
        self.get()
    }
}

impl<T: fmt::Debug> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.inner.name)
            .field("seen", &self.seen)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::thread;

    use super::Latest;

    #[test]
    fn concurrent_sets_leave_one_and_no_reader_goes_back() {
        loom::model(|| {
            let register = Latest::new("model", (0, 0));
            let setters: Vec<_> = (1..=2)
                .map(|n| {
                    let register = register.clone();
                    thread::spawn(move || (n, register.set((n, n))))
                })
                .collect();
            let mut reader = register.reader();
            let mut last = reader.version();
            for _ in 0..2 {
                let value = **reader.get();
                assert_eq!(value.0, value.1);
                assert!(reader.version() >= last);
                // What one reader has seen, a look after it does not undo.
                assert!(register.reader().version() >= reader.version());
                last = reader.version();
            }
            let sets: Vec<_> = setters.into_iter().map(|setter| setter.join().unwrap()).collect();
            let (winner, _) = sets.iter().find(|(_, version)| *version == 2).unwrap();
            assert_eq!(reader.get().0, *winner);
        });
    }
}
