//! Behaviour of the binary's own parts: settings, HTTP, metrics. The server runs in the test's process,
//! over a real engine in a temporary directory; tests from outside are in `blackbox`.

mod cli;
mod commands;
mod config;
mod errors;
mod framing;
mod http;
mod letters;
mod limits;
mod media;
mod metrics;
mod queues;
mod resume;
mod send;
mod server;
mod streams;
mod tokens;
