//! Schema DDL, CHECK, journal entry, transform and query, through their public API.

mod entry;
mod query;
mod rows;
mod schema;
mod transform;
