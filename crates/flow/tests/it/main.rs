//! Behaviour of the toolkit through its public API. `bNN_` is the number of a behaviour in the toolkit's list; F-numbers
//! are the project's invariants.
#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod clock;
mod ctx;
mod leak;
mod pool;
mod queue;
mod queue_deadlines;
mod queue_pressure;
mod queue_shed;
mod rig;
mod supervise;
mod supervise_api;
