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
mod recent;
mod rig;
mod ring;
mod supervise;
mod supervise_api;
mod supervise_auto;
mod supervise_live;
mod supervise_rules;
mod supervise_scale;
mod supervise_start;
mod survival;
