//! Supervision, bounded queues, worker pools, budgets and leak detection for Tokio programs.

pub mod clock;
mod panics;
mod wait;
pub mod tasks;
pub mod ctx;
mod spawn;
pub mod thread;
pub mod budget;
pub mod queue;
mod backoff;
pub mod pool;
pub mod leak;

pub use backoff::Backoff;
pub use clock::{Clock, Instant};
pub use ctx::{Cause, Ctx, Stopped};
pub use spawn::{Abandoned, Scope, Task, TaskError};
