//! The bounds that no setting changes, and why each queue is as large as it is. The queue table quotes them.

/// Threads for small work on files: one may wait for a slow sync while another serves.
pub const FILE_WORKERS: usize = 2;

/// Threads for the files of all tables: each waits for the disk most of its time, and none for another.
pub const LAKE_WORKERS: usize = 8;

/// Threads on which the heads of tables are read and checkpointed: each waits for the lake's files.
pub const TABLE_WORKERS: usize = 4;

/// Threads that write all journals.
pub const WRITERS: usize = 2;

/// Why a pool's queue holds two jobs a worker.
pub const POOL_WHY: &str =
    "twice the workers: none idles between jobs, and what waits is bounded by its permits";

/// Why so many reads of journals wait.
pub use forebay_journal::READ_WHY;

/// How many reads of journals wait for a thread.
pub use forebay_journal::READS_WAITING as JOURNAL_READS;

/// How many batches wait between a query and its client.
pub use crate::query::AHEAD as QUERY_BATCHES;

/// Why so many.
pub use crate::query::AHEAD_WHY as QUERY_WHY;

/// How many appends of one upload wait for the journal.
pub use crate::intake::APPENDS;
