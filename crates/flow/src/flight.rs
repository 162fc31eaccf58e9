//! Single flight: concurrent callers of one key share one call.
//!
//! Owns the calls under way, by key. The first caller starts the call, and polls it in its own task; the others wait. When
//! that caller is cancelled, a waiter goes on with the same call where it stood; when all are, the call is dropped. A panic
//! reaches every caller as an error. It caches nothing: a caller that comes after the end starts anew.
//!
//! ```text
//! first ──starts─► call ──ready─► every caller gets a clone
//! other ──waits──►  │  └─panic──► every caller gets the error
//!                   └─ the poller is cancelled: the next in line polls on
//! ```
//!
//! # Choosing a bound
//! There are never more calls than callers: bound those, with a [`crate::queue`] or [`crate::budget`].
//!
//! # Cancel safety
//! [`Flight::run`] may be dropped at any time: the others are served all the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::panic::{self, Panic};
use crate::tasks::{self, Name};
use crate::wait::wake_all;

type Running<V> = Pin<Box<dyn Future<Output = V> + Send>>;

/// The calls under way. Cloning shares them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::flight::Flight;
/// let flight = Flight::new("schemas");
/// let fetch = || flight.run("orders", || async { tokio::task::yield_now().await; 7 });
/// assert_eq!(tokio::join!(fetch(), fetch()), (Ok(7), Ok(7))); // one call, two results
/// # }
/// ```
pub struct Flight<K, V> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K, V> {
    name: Arc<str>,
    /// Lock order: this one before a call's.
    calls: Mutex<HashMap<K, Arc<Call<V>>>>,
}

struct Call<V> {
    state: Mutex<State<V>>,
}

struct State<V> {
    stage: Stage<V>,
    /// Who polls the call now.
    poller: Option<u64>,
    next: u64,
    /// Callers that are in, with the waker of those who wait.
    callers: BTreeMap<u64, Option<Waker>>,
}

enum Stage<V> {
    /// The future is `None` while the poller has it in hand.
    Running(Option<Running<V>>),
    Done(Result<V, Panic>),
}

impl<K, V> Flight<K, V>
where
    K: Hash + Eq + Clone,
    V: Clone,
{
    /// No calls yet.
    #[must_use]
    pub fn new(name: impl Into<Name>) -> Self {
        let name = Arc::from(name.into().as_ref());
        Self { inner: Arc::new(Inner { name, calls: Mutex::default() }) }
    }

    /// Joins the call of `key` that is under way, or starts one with `make`, and waits for its result. `make` itself runs
    /// under a lock: it should do no more than build the future. Errors of the call's own travel in `V`, behind an `Arc`
    /// where they cannot be cloned.
    ///
    /// # Errors
    /// The [`Panic`] of the call, for every caller.
    ///
    /// # Panics
    /// When `make` itself does: then there is no call, and only its caller is concerned.
    ///
    /// # Cancel safety
    /// Dropping this future leaves the call to the other callers; the last one's drop drops it.
    pub async fn run<F>(&self, key: K, make: impl FnOnce() -> F) -> Result<V, Panic>
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.join(key, make).await
    }

    fn join<F>(&self, key: K, make: impl FnOnce() -> F) -> Joined<'_, K, V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut calls = self.inner.calls.lock();
        let call = match calls.get(&key) {
            Some(call) => Arc::clone(call),
            None => {
                let call = Arc::new(Call::new(Box::pin(make())));
                calls.insert(key.clone(), Arc::clone(&call));
                call
            }
        };
        let ticket = call.state.lock().enter();
        drop(calls);
        Joined { inner: &self.inner, key, call, ticket }
    }

    /// Forgets the call of `key`: its callers still get its result, the next caller starts anew. True if there was one.
    pub fn forget(&self, key: &K) -> bool {
        let call = self.inner.calls.lock().remove(key);
        call.is_some()
    }

    /// How many keys have a call under way that can be joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.calls.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    /// Takes `call` out, unless the key was forgotten and belongs to another call by now.
    fn remove(calls: &mut HashMap<K, Arc<Call<V>>>, key: &K, call: &Arc<Call<V>>) {
        if calls.get(key).is_some_and(|held| Arc::ptr_eq(held, call)) {
            calls.remove(key);
        }
    }
}

impl<V> Call<V> {
    fn new(future: Running<V>) -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Running(Some(future)),
                poller: None,
                next: 0,
                callers: BTreeMap::new(),
            }),
        }
    }
}

impl<V> State<V> {
    fn enter(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.callers.insert(ticket, None);
        ticket
    }

    /// The wakers of all who wait.
    fn wakers(&mut self) -> Vec<Waker> {
        self.callers.values_mut().filter_map(Option::take).collect()
    }
}

/// One caller.
struct Joined<'a, K: Hash + Eq, V> {
    inner: &'a Arc<Inner<K, V>>,
    key: K,
    call: Arc<Call<V>>,
    ticket: u64,
}

impl<K: Hash + Eq, V> Unpin for Joined<'_, K, V> {}

impl<K: Hash + Eq, V: Clone> Future for Joined<'_, K, V> {
    type Output = Result<V, Panic>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut state = this.call.state.lock();
        let ours = state.poller.is_none_or(|poller| poller == this.ticket);
        let future = match &mut state.stage {
            Stage::Done(result) => return Poll::Ready(result.clone()),
            Stage::Running(future) if ours => future.take(),
            Stage::Running(_) => None,
        };
        let Some(mut future) = future else {
            state.callers.insert(this.ticket, Some(cx.waker().clone()));
            drop(state);
            tasks::note_wait("flight", &this.inner.name);
            return Poll::Pending;
        };
        state.poller = Some(this.ticket);
        drop(state);
        let polled = panic::catch(|| future.as_mut().poll(cx));
        let result = match polled {
            Ok(Poll::Pending) => {
                this.call.state.lock().stage = Stage::Running(Some(future));
                return Poll::Pending;
            }
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(panic),
        };
        // What it holds is let go before anybody hears of the end.
        let dropped = panic::catch(|| drop(future));
        let result = result.and_then(|value| match dropped {
            Ok(()) => Ok(value),
            Err(panic) => Err(panic),
        });
        Inner::remove(&mut this.inner.calls.lock(), &this.key, &this.call);
        let mut state = this.call.state.lock();
        state.stage = Stage::Done(result.clone());
        let wakers = state.wakers();
        drop(state);
        wake_all(wakers);
        Poll::Ready(result)
    }
}

impl<K: Hash + Eq, V> Drop for Joined<'_, K, V> {
    fn drop(&mut self) {
        let mut calls = self.inner.calls.lock();
        let mut state = self.call.state.lock();
        state.callers.remove(&self.ticket);
        if state.callers.is_empty() {
            // Nobody is left to want it; what it holds is dropped with the last handle, after the locks.
            Inner::remove(&mut calls, &self.key, &self.call);
            let rest = match &mut state.stage {
                Stage::Running(future) => future.take(),
                Stage::Done(_) => None,
            };
            drop(state);
            drop(calls);
            drop(rest);
        } else if matches!(state.stage, Stage::Running(_))
            && state.poller.is_none_or(|poller| poller == self.ticket)
        {
            // Nobody polls: this was the poller, or one that had been woken to be it. The first in line polls on.
            state.poller = None;
            let heir = state.callers.values_mut().find_map(Option::take);
            drop(state);
            drop(calls);
            if let Some(heir) = heir {
                heir.wake();
            }
        }
    }
}

impl<K, V> Clone for Flight<K, V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V> fmt::Debug for Flight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
