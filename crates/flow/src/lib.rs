//! Supervision, bounded queues, worker pools, budgets and leak detection for Tokio programs.
