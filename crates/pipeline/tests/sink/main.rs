//! The sinks, through their public API: one conformance run for every implementation, what is special to each, and a
//! crash between any two operations of the disk.

mod conformance;
mod crash;
mod delta;
mod disk_store;
mod support;
