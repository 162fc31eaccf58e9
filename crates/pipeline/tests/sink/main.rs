//! The sinks, through their public API: one conformance run for every implementation, and crashes between any two
//! operations of the disk.
