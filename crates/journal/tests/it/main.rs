//! The journal's behaviour through its public interface: faults by number, a model under crashes, and the rest.

mod append;
mod faults;
mod files;
mod keys;
mod model;
mod reader;
mod rig;
