//! The door: who may put how many bytes into memory, and what becomes of them.
//!
//! ```text
//! begin ── permit ──► push … push ── chunk ──► validate ──► journal ──► finish ── reply
//!   └ 503, 404, 400                    └ 400, 422             └ 503, 507, 409
//! ```
//!
//! An [`Upload`] owns one permit for as long as it lives, sized for one chunk at a time, so it never
//! waits for a second one while it holds the first. Dropping it at any point gives everything back;
//! what the journal took stays. Under a key an upload can go on where it was cut: see [`Standing`].

mod request;
mod resume;
mod settle;
mod unpacking;
mod upload;
mod validate;

pub use self::request::{
    Ack, Due, IngestError, Partial, REPLY_ERRORS, Refusal, Reply, Request, RowError,
};
pub(crate) use self::resume::walk;
pub use self::resume::{PREFIX_BYTES, Standing};
pub(crate) use self::upload::ENTRY;
pub use self::upload::{APPENDS, Upload};
pub(crate) use self::validate::{Validated, validate};
