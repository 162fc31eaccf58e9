//! What both halves of a queue can ask it.
//!
//! Owns nothing: the state is the core's.

use std::fmt;

use super::core::Queue;
use super::registry::QueueInfo;

impl<T> Queue<T> {
    /// The queue's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Items accepted and not yet received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.both().len()
    }

    /// Whether nothing is waiting to be received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the queue for every sender: what was accepted is drained, waiting submits get their item back.
    pub fn close(&self) {
        self.close_now();
    }

    /// Whether it is closed; there may still be items to receive.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.back().closed
    }

    /// Lets go every item past its deadline or time to live at once, wherever in the queue it lies, and says how many that
    /// were. Nobody needs to call it for correctness: an expired item is never received, and makes room when room is short.
    /// It looks at every item.
    pub fn expire(&self) -> usize {
        self.expire_now()
    }

    /// The queue's figures now.
    #[must_use]
    pub fn info(&self) -> QueueInfo {
        self.info_now()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name()).field("len", &self.len()).finish()
    }
}
