//! The durable bounded log: group commit, recovery, checkpoints, idempotency keys. Knows bytes, not records.

pub mod disk;
