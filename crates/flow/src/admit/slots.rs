//! Weighted slots: at most so much at once, waiters served in order.
//!
//! Owns the slots, by the same mechanism as a share of a [`crate::budget`]; they are no bytes, so no budget lists them. A
//! large acquire is not starved by small ones; one that can never fit is refused at once and blocks nobody; a cancelled
//! one leaks nothing. It never lends more than it has.
//!
//! # Choosing a bound
//! What the resource bears at once: connections, files, cores. With a weight per piece of work, the sum of weights.
//!
//! # Cancel safety
//! A dropped wait gives its place up; a grant that it had not seen goes to the next.

use std::fmt;

use crate::budget::{Exhausted, Permit, Share};
use crate::clock::Instant;
use crate::ctx::{Ctx, Stopped};
use crate::tasks::Name;

/// Weighted slots. Cloning shares them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::Ctx;
/// use forebay_flow::admit::slots::{SlotError, Slots};
/// let (ctx, slots) = (Ctx::root("app"), Slots::new("renders", 4));
/// let large = slots.acquire(&ctx, 3).await.unwrap();
/// assert!(slots.try_acquire(2).is_none());
/// assert_eq!(slots.acquire(&ctx, 5).await.map(drop), Err(SlotError::TooLarge)); // at once
/// drop(large);
/// assert!(slots.try_acquire(4).is_some());
/// # }
/// ```
#[derive(Clone)]
pub struct Slots {
    share: Share,
}

/// Why slots were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// More than there will ever be: a retry makes no sense.
    TooLarge,
    /// Not free until the deadline given. A later retry may succeed.
    TimedOut,
    /// The context was over, before or meanwhile.
    Stopped(Stopped),
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("more slots than there are"),
            Self::TimedOut => f.write_str("no slots were free until the deadline"),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for SlotError {}

impl From<Exhausted> for SlotError {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::TooLarge => Self::TooLarge,
            Exhausted::TimedOut => Self::TimedOut,
        }
    }
}

impl Slots {
    /// So many slots. A [`Permit`] of theirs counts slots where it says bytes.
    #[must_use]
    pub fn new(name: impl Into<Name>, slots: u64) -> Self {
        Self { share: Share::unlisted(name.into(), slots) }
    }

    /// Waits for `weight` slots, in line, until the context is over. A context that is over already takes none.
    ///
    /// # Errors
    /// [`SlotError::TooLarge`] at once, [`SlotError::Stopped`] when the context ends first.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up.
    ///
    /// # Panics
    /// As [`Ctx::run`].
    pub async fn acquire(&self, ctx: &Ctx, weight: u64) -> Result<Permit, SlotError> {
        Ok(ctx.run(self.share.acquire(weight)).await.map_err(SlotError::Stopped)??)
    }

    /// As [`Slots::acquire`], until `deadline` at most.
    ///
    /// # Errors
    /// [`SlotError`] says which of the three.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn acquire_within(
        &self,
        ctx: &Ctx,
        weight: u64,
        deadline: Instant,
    ) -> Result<Permit, SlotError> {
        let wait = self.share.acquire_within(weight, deadline);
        Ok(ctx.run(wait).await.map_err(SlotError::Stopped)??)
    }

    /// Runs `work` with `weight` slots, and gives them back when it ends or is dropped. As they stay with the calling
    /// task, [`crate::deadlock`] can see a cycle through them.
    ///
    /// # Errors
    /// Those of [`Slots::acquire`]; then `work` was never polled.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up; afterwards, that of `work`.
    ///
    /// # Panics
    /// As [`Ctx::run`].
    pub async fn with<F: Future>(
        &self,
        ctx: &Ctx,
        weight: u64,
        work: F,
    ) -> Result<F::Output, SlotError> {
        let _kept = self.acquire(ctx, weight).await?.kept();
        Ok(work.await)
    }

    /// Takes `weight` slots if they are free now and nobody waits for any.
    #[must_use]
    pub fn try_acquire(&self, weight: u64) -> Option<Permit> {
        self.share.try_acquire(weight)
    }

    /// How many are taken now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.share.used()
    }

    /// How many there are.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.share.capacity()
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.share.waiters()
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("name", &self.share.name())
            .field("used", &self.used())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
