//! The Forebay server, as a library for its binary and its tests.
//!
//! ```text
//! cli ─► config ─► telemetry ─► api (the pipeline) ─► http ─► serve
//! ```
//!
//! Never here: rows, files of the journal, SQL. Those are the pipeline's, seen through [`api`] alone.

pub mod cli;
pub mod config;
pub mod data_dir;
pub mod telemetry;
mod engine_stub;
#[path = "../../pipeline/src/intake/request.rs"]
mod request;
pub mod api;
pub mod http;
pub mod serve;
mod commands;

// Names that `request.rs` expects at the crate's root; they go with the stub.
use forebay_pipeline::{codec, record};
