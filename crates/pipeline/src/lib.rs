//! The data path, module by module in the order a byte travels.
//!
//! ```text
//! intake ─► codec ─► schema ─► entry ─► (journal) ─► transform ─► lane ─► sink
//! ```
//!
//! There is one road: a restart, a replay and the normal case all read entries from the journal.

pub mod sql;

pub mod codec;

pub mod record;

pub mod schema;

pub mod entry;

pub mod transform;

pub mod sink;

pub mod query;
