//! Supervision, bounded queues, worker pools, budgets and leak detection for Tokio programs that must survive production.
//!
//! Concurrency is about lifetimes, ownership and pressure under failure. Before a task or a queue is added, answer:
//!
//! | every queue | here |
//! |---|---|
//! | Is it bounded? | [`queue::Bound`]: no queue is made without one |
//! | Who waits when it is full? | [`queue::Full`]: the sender (`Block`), the sender's caller (`Reject`, `Shed`), nobody (`Drop…`) |
//! | Is that acceptable? | its row in [`queue::registry`]: blocked seconds, rejected, dropped, and `why` |
//! | What is the failure mode? | [`queue::SubmitError`] hands the item back; a close drains what was accepted |
//!
//! | every task | here |
//! |---|---|
//! | Who owns it? | a [`Task`] handle, a [`Scope`], a [`pool`], or a [`supervise::Supervisor`]: there is no detached spawn |
//! | How does it stop? | its [`Ctx`] is cancelled, with a cause; then it is aborted |
//! | Who notices if it doesn't? | the supervisor's report, [`tasks::snapshot`], [`leak::check`] |
//!
//! The modules, each built on those before it: [`clock`], [`growth`], [`tasks`], [`ctx`] (with [`Task`] and [`Scope`]), [`thread`],
//! [`timer`], [`lock`], [`budget`], [`queue`], [`ring`], [`latest`], [`recent`], [`broadcast`], [`flight`], [`admit`], [`pool`], [`group`],
//! [`supervise`], [`dump`], [`leak`], [`deadlock`], [`snapshot`], [`sigquit`], and `debug` behind the feature
//! `debug-routes`.
//!
//! Absent on purpose: unbounded anything, ambient context, actors and addresses, a runtime of its own.

// In the order of use: each may use only those above it.
mod backoff;
mod panics;
mod stacks;

pub mod clock;

pub mod growth;

mod sync;

mod wait;

pub mod tasks;

pub mod ctx;

mod orphans;

mod spawn;

pub mod thread;

pub mod timer;

pub mod lock;

pub mod budget;

pub mod queue;

pub mod ring;

pub mod latest;

pub mod recent;

pub mod broadcast;

pub mod flight;

pub mod admit;

pub mod pool;

pub mod group;

pub mod supervise;

pub mod dump;

pub mod leak;

pub mod deadlock;

pub mod snapshot;

#[cfg(unix)]
pub mod sigquit;

#[cfg(feature = "debug-routes")]
pub mod debug;

pub use backoff::Backoff;
pub use clock::{Clock, Instant};
pub use ctx::{Cause, Ctx, Stopped};
pub use group::{Group, GroupError, fan_out};
pub use spawn::{Abandoned, Scope, Task, TaskError};
