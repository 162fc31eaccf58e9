//! Behaviour of the toolkit through its public API. `bNN_` is the number of a behaviour in the toolkit's list; F-numbers
//! are the project's invariants.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the toolkit is driven with what it replaces")]

mod admit;
mod broadcast;
mod budget;
mod clock;
mod ctx;
mod deadlock;
mod debug_routes;
mod dump;
mod flight;
mod group;
mod growth;
mod latest;
mod leak;
mod leak_shapes;
mod lock;
mod lock_rig;
mod lock_rw;
mod lock_rw_checks;
mod pool;
mod pool_books;
mod pool_limits;
mod queue;
mod queue_deadlines;
mod queue_pressure;
mod queue_reference;
mod queue_shed;
mod recent;
mod rig;
mod ring;
#[cfg(unix)]
mod sigquit;
mod snapshot;
mod supervise;
mod supervise_api;
mod supervise_auto;
mod supervise_live;
mod supervise_rules;
mod supervise_scale;
mod supervise_start;
mod survival;
mod timer;
