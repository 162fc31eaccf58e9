//! A process-wide sum of bytes, cut into fixed shares, lent out as permits.
//!
//! Owns the counts. A permit lives in what it pays for and returns its bytes by drop. Waiters are served strictly in
//! order, so a large acquire is not starved; one that can never fit is refused at once; a cancelled one leaks nothing.
//! Shares never borrow from each other: a full one cannot starve another.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use forebay_flow::budget::{Budget, Exhausted};
//! let memory = Budget::new("memory", 1 << 30);
//! let uploads = memory.share("uploads", 1 << 20).unwrap();
//! let mut permit = uploads.acquire(600_000).await.unwrap();
//! assert!(uploads.try_acquire(600_000).is_none()); // a later try may succeed
//! permit.shrink_to(100_000); // what came was smaller: the rest goes back
//! let body = (vec![0_u8; 100_000], permit); // the permit lives in what it pays for
//! assert_eq!(uploads.used(), 100_000);
//! drop(body);
//! assert_eq!(uploads.used(), 0);
//! assert_eq!(uploads.acquire(2 << 20).await.map(drop), Err(Exhausted::TooLarge)); // no try will
//! # }
//! ```
//!
//! # Choosing a bound
//! A share: the most that its part may hold at once, plus nothing. The total, which the shares never pass: the memory the
//! program may use, less what nobody counts.
//!
//! # Cancel safety
//! A dropped wait gives its place up, and who waits behind it moves up; a grant that it had not seen goes back.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::clock::Instant;
use crate::tasks::{self, Name};
use crate::wait::{WaitList, wake_all};

static REGISTRY: Mutex<Vec<Weak<ShareInner>>> = Mutex::new(Vec::new());

/// The shares that somebody has waited for, and the length at which the dead leave.
static WAITED_FOR: Mutex<(Vec<Weak<ShareInner>>, usize)> = Mutex::new((Vec::new(), 16));

/// The whole sum. Cloning shares it.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<BudgetInner>,
}

struct BudgetInner {
    name: Name,
    total: u64,
    shares: Mutex<HashMap<Name, u64>>,
}

/// Why a share was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareError {
    /// The shares would sum to more than the total.
    OverTotal {
        /// The share asked for.
        share: String,
        /// Its bytes.
        bytes: u64,
        /// What is left of the total.
        left: u64,
    },
    /// There is a share of that name already.
    Duplicate {
        /// The name.
        share: String,
    },
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverTotal { share, bytes, left } => {
                write!(f, "share `{share}` asks for {bytes} bytes, {left} are left")
            }
            Self::Duplicate { share } => write!(f, "share `{share}` exists already"),
        }
    }
}

impl std::error::Error for ShareError {}

impl Budget {
    /// A budget of `total` bytes. How to choose it: [module](self#choosing-a-bound).
    #[must_use]
    pub fn new(name: impl Into<Name>, total: u64) -> Self {
        Self { inner: Arc::new(BudgetInner { name: name.into(), total, shares: Mutex::default() }) }
    }

    /// The whole sum in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.inner.total
    }

    /// Cuts off a share of `bytes`, for the life of the budget. How to choose it: [module](self#choosing-a-bound).
    ///
    /// # Errors
    /// [`ShareError`] when the shares would pass the total, or the name is taken.
    pub fn share(&self, name: impl Into<Name>, bytes: u64) -> Result<Share, ShareError> {
        let name = name.into();
        let mut shares = self.inner.shares.lock();
        let given: u64 = shares.values().sum();
        let left = self.inner.total.saturating_sub(given);
        if shares.contains_key(&name) {
            return Err(ShareError::Duplicate { share: name.into_owned() });
        }
        if bytes > left {
            return Err(ShareError::OverTotal { share: name.into_owned(), bytes, left });
        }
        shares.insert(name.clone(), bytes);
        let inner = Arc::new(ShareInner::new(&name, self.inner.name.clone(), bytes));
        let mut registry = REGISTRY.lock();
        registry.retain(|share| share.strong_count() > 0);
        registry.push(Arc::downgrade(&inner));
        Ok(Share { inner })
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("name", &self.inner.name)
            .field("total", &self.inner.total)
            .finish_non_exhaustive()
    }
}

/// A fixed part of a budget. Cloning shares it.
#[derive(Clone)]
pub struct Share {
    inner: Arc<ShareInner>,
}

struct ShareInner {
    name: Arc<str>,
    budget: Name,
    capacity: u64,
    state: Mutex<ShareState>,
}

struct ShareState {
    used: u64,
    peak: u64,
    waiters: WaitList,
    /// Whether it is in `WAITED_FOR`.
    waited_for: bool,
    /// What tasks said to keep, by task.
    kept: BTreeMap<u64, u64>,
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// More than the share will ever hold: a retry makes no sense.
    TooLarge,
    /// Not free in time: a later retry may succeed.
    TimedOut,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "more than the share's capacity",
            Self::TimedOut => "the share stayed full until the deadline",
        })
    }
}

impl std::error::Error for Exhausted {}

impl Share {
    /// A share of no budget, for what is counted but is no bytes: [`snapshot`] does not list it.
    pub(crate) fn unlisted(name: Name, capacity: u64) -> Self {
        Self { inner: Arc::new(ShareInner::new(&name, Name::Borrowed(""), capacity)) }
    }

    /// Waits for `bytes`, behind those who came before. It waits without limit: prefer [`Share::acquire_within`].
    ///
    /// # Errors
    /// [`Exhausted::TooLarge`] at once when they can never fit.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up.
    pub async fn acquire(&self, bytes: u64) -> Result<Permit, Exhausted> {
        Acquire { share: &self.inner, bytes, ticket: None }.await
    }

    /// As [`Share::acquire`], until `deadline` at most.
    ///
    /// # Errors
    /// [`Exhausted`] says which of the two.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn acquire_within(&self, bytes: u64, deadline: Instant) -> Result<Permit, Exhausted> {
        match tokio::time::timeout_at(deadline, self.acquire(bytes)).await {
            Ok(result) => result,
            Err(_) => Err(Exhausted::TimedOut),
        }
    }

    /// Takes `bytes` if they are free now and nobody waits for them.
    #[must_use]
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let mut state = self.inner.state.lock();
        if !state.waiters.is_empty() || !state.fits(bytes, self.inner.capacity) {
            return None;
        }
        state.take(bytes);
        drop(state);
        Some(Permit { share: Arc::clone(&self.inner), bytes, keeper: NOBODY })
    }

    /// The share's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Bytes lent out now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner.state.lock().used
    }

    /// Bytes it may lend out.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.capacity
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.inner.state.lock().waiters.len()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("name", &self.inner.name)
            .field("used", &self.used())
            .field("capacity", &self.inner.capacity)
            .finish_non_exhaustive()
    }
}

impl ShareState {
    fn fits(&self, bytes: u64, capacity: u64) -> bool {
        bytes <= capacity.saturating_sub(self.used)
    }

    fn keep_less(&mut self, keeper: u64, bytes: u64) {
        if keeper == NOBODY {
            return;
        }
        if let Some(kept) = self.kept.get_mut(&keeper) {
            *kept = kept.saturating_sub(bytes);
            if *kept == 0 {
                self.kept.remove(&keeper);
            }
        }
    }

    fn take(&mut self, bytes: u64) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
    }

    /// Grants from the front as far as it fits. The first that does not fit stops the rest: that is what spares the large.
    fn grant(&mut self, capacity: u64) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(need) = self.waiters.first_need()
            && self.fits(need, capacity)
        {
            self.take(need);
            wakers.extend(self.waiters.grant_first());
        }
        wakers
    }
}

impl ShareInner {
    fn new(name: &str, budget: Name, capacity: u64) -> Self {
        let state = ShareState {
            used: 0,
            peak: 0,
            waiters: WaitList::default(),
            waited_for: false,
            kept: BTreeMap::new(),
        };
        Self { name: Arc::from(name), budget, capacity, state: Mutex::new(state) }
    }

    fn info(&self) -> ShareInfo {
        let state = self.state.lock();
        ShareInfo {
            budget: self.budget.to_string(),
            share: self.name.to_string(),
            capacity: self.capacity,
            used: state.used,
            peak: state.peak,
            waiters: state.waiters.len(),
        }
    }

    fn give_back(&self, bytes: u64, keeper: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.keep_less(keeper, bytes);
        debug_assert!(state.used >= bytes, "share `{}` got back more than it lent", self.name);
        state.used = state.used.saturating_sub(bytes);
        let wakers = state.grant(self.capacity);
        drop(state);
        wake_all(wakers);
    }
}

fn is_waited_for(share: &Arc<ShareInner>) {
    let mut waited_for = WAITED_FOR.lock();
    let (shares, sweep_at) = &mut *waited_for;
    if shares.len() >= *sweep_at {
        shares.retain(|share| share.strong_count() > 0);
        *sweep_at = (2 * shares.len()).max(16);
    }
    shares.push(Arc::downgrade(share));
}

/// In place of a holder's id: some of it is out, and nobody said to keep it.
const SOMEBODY: u64 = u64::MAX;
/// In place of a keeper's id.
const NOBODY: u64 = 0;

/// For each share that was ever waited for, the tasks that keep of it, and whether others may.
pub(crate) fn keepers() -> Vec<(Arc<str>, Vec<u64>)> {
    let shares: Vec<_> = WAITED_FOR.lock().0.iter().filter_map(Weak::upgrade).collect();
    let keepers = |share: &Arc<ShareInner>| {
        let state = share.state.lock();
        let mut who: Vec<_> = state.kept.keys().copied().collect();
        if state.kept.values().sum::<u64>() < state.used {
            who.push(SOMEBODY);
        }
        (Arc::clone(&share.name), who)
    };
    shares.iter().map(keepers).collect()
}

struct Acquire<'a> {
    share: &'a Arc<ShareInner>,
    bytes: u64,
    ticket: Option<u64>,
}

impl Future for Acquire<'_> {
    type Output = Result<Permit, Exhausted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let share = self.share;
        if self.bytes > share.capacity {
            return Poll::Ready(Err(Exhausted::TooLarge));
        }
        let mut state = share.state.lock();
        match self.ticket {
            None if state.waiters.is_empty() && state.fits(self.bytes, share.capacity) => {
                state.take(self.bytes)
            }
            None => {
                self.ticket = Some(state.waiters.join(self.bytes, cx.waker().clone()));
                let first = !std::mem::replace(&mut state.waited_for, true);
                drop(state);
                if first {
                    is_waited_for(share);
                }
                tasks::note_wait("budget", &share.name);
                return Poll::Pending;
            }
            Some(ticket) if state.waiters.still_waits(ticket, cx.waker()) => {
                drop(state);
                tasks::note_wait("budget", &share.name);
                return Poll::Pending;
            }
            Some(_) => {} // granted: whoever granted it has counted the bytes
        }
        drop(state);
        if self.ticket.take().is_some() {
            tasks::wait_over();
        }
        Poll::Ready(Ok(Permit { share: Arc::clone(share), bytes: self.bytes, keeper: NOBODY }))
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.share.state.lock();
        if state.waiters.leave(ticket) {
            // Those behind may fit where this one did not.
            let wakers = state.grant(self.share.capacity);
            drop(state);
            wake_all(wakers);
        } else {
            drop(state);
            self.share.give_back(self.bytes, NOBODY);
        }
    }
}

/// The right to hold so many bytes, or so many [slots](crate::admit::Slots). Dropping it returns them.
#[must_use = "dropping the permit returns its bytes"]
pub struct Permit {
    share: Arc<ShareInner>,
    bytes: u64,
    keeper: u64,
}

impl Permit {
    /// What it holds, in bytes or slots.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says that the calling task or thread keeps this permit, and all that is cut from it, until they drop. That is what
    /// lets [`crate::deadlock`] see a cycle through the share: of other permits it cannot know where they are. Do not say
    /// so of a permit that travels with what it pays for. Does nothing outside of a registered task or thread.
    pub fn kept(mut self) -> Self {
        self.keep_as(tasks::current_id());
        self
    }

    fn keep_as(&mut self, keeper: u64) {
        if self.keeper == keeper {
            return;
        }
        let mut state = self.share.state.lock();
        state.keep_less(self.keeper, self.bytes);
        if keeper != NOBODY && self.bytes > 0 {
            *state.kept.entry(keeper).or_default() += self.bytes;
        }
        drop(state);
        self.keeper = keeper;
    }

    /// Cuts `bytes` off into a permit of its own (at most what this one holds). Dropped, that one returns them.
    pub fn split(&mut self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit { share: Arc::clone(&self.share), bytes, keeper: self.keeper }
    }

    /// Joins `other` into this one, which so grows: by what [`Share::try_acquire`] got, for instance.
    ///
    /// # Panics
    /// When the other belongs to another share: shares never mix.
    pub fn merge(&mut self, mut other: Permit) {
        assert!(
            Arc::ptr_eq(&self.share, &other.share),
            "permits of `{}` and `{}` never mix",
            self.share.name,
            other.share.name
        );
        other.keep_as(self.keeper);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Returns what is above `bytes`. Never grows.
    pub fn shrink_to(&mut self, bytes: u64) {
        drop(self.bytes.checked_sub(bytes).map(|rest| self.split(rest)));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.share.give_back(self.bytes, self.keeper);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("share", &self.share.name)
            .field("bytes", &self.bytes)
            .finish()
    }
}

/// One live share, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareInfo {
    /// The budget it was cut from.
    pub budget: String,
    /// Its name.
    pub share: String,
    /// Bytes it may lend.
    pub capacity: u64,
    /// Bytes lent now.
    pub used: u64,
    /// The most that was ever lent at once.
    pub peak: u64,
    /// How many wait now.
    pub waiters: usize,
}

/// Every live share of the process, in the order of making.
#[must_use]
pub fn snapshot() -> Vec<ShareInfo> {
    let shares: Vec<_> = REGISTRY.lock().iter().filter_map(Weak::upgrade).collect();
    shares.iter().map(|share| share.info()).collect()
}

pub(crate) fn info(share: &Share) -> ShareInfo {
    share.inner.info()
}
