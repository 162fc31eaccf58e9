//! `cargo xtask bench codec`: each decoder on one core, beside stock parts on the same bytes. An example of
//! the product measures, which has Arrow; we have not.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{bodies, report};
use crate::shell;

/// What it is called on the command line.
pub(super) const NAME: &str = "codec";

/// Runs the example that was built.
pub(super) fn run(root: &Path) -> Result<()> {
    let mut command = Command::new(shell::target_dir(root).join("release/examples/codec"));
    command.arg(bodies::sample_file(root)?);
    let nested = bodies::shared(root).join("data/gh.ndjson.zst");
    if nested.is_file() {
        command.arg(nested);
    } else {
        eprintln!("bench: no {}: nothing nested is measured", nested.display());
    }
    println!("{}; the best of some rounds each", report::machine());
    shell::run(&mut command)
}
