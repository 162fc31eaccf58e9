//! The Forebay server, as a library for its binary and its tests.
//!
//! ```text
//! cli ─► config ─► telemetry ─► catalogue ─► api (the pipeline) ─► http ─► serve
//! ```
//!
//! Never here: rows, files of the journal, SQL. Those are the pipeline's, seen through [`api`] alone.

pub mod cli;

pub mod config;

pub mod telemetry;

pub mod catalogue;

pub mod queues;

pub mod api;

pub mod http;

pub mod serve;

mod commands;
