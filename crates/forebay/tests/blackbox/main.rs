//! Tests from outside: the real binary on a real disk, over HTTP, killed and starved as an operator would.
//!
//! Nothing here links the product. A test starts a server in a directory of its own, talks to it through
//! sockets, and judges it by its answers, its tables, its exit status and what the kernel says of it.
//!
//! Figures come from chance; every test that draws prints its seed, and `FOREBAY_SEED` replays it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod clients;
mod hostile;
mod http;
mod inputs;
mod inputs_bodies;
mod inputs_http;
mod inputs_start;
mod inputs_suite;
mod inputs_values;
mod letters;
mod metrics;
mod oracle;
mod poison;
mod scrape;
mod send;
mod server;
mod signals;
mod stall;
mod strace;
mod trace;
mod volume;
mod wait;
