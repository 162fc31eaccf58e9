//! Admission: whether work may start now, must wait, or is refused.
//!
//! | the question | the answer |
//! |---|---|
//! | how much at once? | [`Slots`]: weighted, waiters served in order |
//! | how much per second? | [`Rate`]: a token bucket |
//! | how much at once for one tenant? | [`Bulkhead`]: slots by key |
//! | is the other side well? | [`Breaker`]: closed, open, half-open |
//! | may it be tried again? | [`Retry`]: full jitter, within a [budget](retry::Budget) |
//!
//! What belongs to each, settings, states and errors, is in its module.
//!
//! Owns no thread and no task. Each decision is a synchronous step that is handed the time; the async methods only wait
//! for what the step said. Nothing here queues without a bound of the caller's making, and a grant that nobody took, as its
//! waiter was cancelled, goes to the next.
//!
//! # Choosing a bound
//! Slots by what the resource bears (memory, connections, cores), a rate by what the other side allows, a bulkhead below
//! the slots so that one tenant cannot have them all, a retry budget of a tenth.
//!
//! # Cancel safety
//! Every wait here may be dropped at any time: what it had taken is returned, and who waits behind it moves up.

pub mod breaker;
pub mod bulkhead;
pub mod rate;
pub mod retry;
pub mod slots;

pub use self::breaker::Breaker;
pub use self::bulkhead::Bulkhead;
pub use self::rate::Rate;
pub use self::retry::Retry;
pub use self::slots::Slots;
