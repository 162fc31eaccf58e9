//! Behaviour of the toolkit through its public API. `bNN_` is the number of a behaviour in the toolkit's list; F-numbers
//! are the project's invariants.
#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod clock;
mod ctx;
mod dump;
mod leak;
mod pool;
mod queue;
mod rig;
mod supervise;
mod supervise_api;
