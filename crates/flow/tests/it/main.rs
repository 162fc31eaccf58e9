//! Behaviour of the toolkit through its public API. `bNN_` is the number of a behaviour in the toolkit's list; F-numbers
//! are the project's invariants.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admit;
mod broadcast;
mod budget;
mod clock;
mod ctx;
mod dump;
mod flight;
mod group;
mod latest;
mod leak;
mod pool;
mod pool_limits;
mod queue;
mod queue_deadlines;
mod queue_pressure;
mod queue_reference;
mod queue_shed;
mod recent;
mod rig;
mod ring;
mod supervise;
mod supervise_api;
mod survival;
