//! The data path, module by module in the order a byte travels.
//!
//! ```text
//! intake ─► codec ─► record ─► schema ─► entry ─► (journal) ─► transform ─► lane ─► sink ─► query
//! ```
//!
//! There is one road: a restart, a replay and the normal case all read entries from the journal.
//! [`engine`] puts the parts together; [`sql`] is what schema, transform and query share.

pub mod engine;

pub mod intake;

pub mod codec;

pub mod record;

pub mod schema;

pub mod entry;

pub mod stream;

pub mod transform;

pub mod lane;

pub mod sink;

pub mod query;

pub mod sql;

pub mod ledger;

pub mod telemetry;
