//! The Forebay server, as a library for its binary and its tests.

pub mod config;
