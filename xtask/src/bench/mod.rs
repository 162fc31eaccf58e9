//! `cargo xtask bench`: a release build against what this machine can do.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What to measure.
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) json: Option<PathBuf>,
    pub(crate) connections: usize,
    pub(crate) names: Vec<String>,
}

/// Measures.
pub(crate) fn run(_root: &Path, plan: &Plan) -> Result<()> {
    bail!("{} {:?} {} {:?}", plan.seconds, plan.json, plan.connections, plan.names)
}
