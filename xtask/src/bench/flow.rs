//! `cargo xtask bench flow`: the toolkit's benches one after the other, each beside what it is judged by.
//!
//! Each bench draws its rivals in the same run. They build with the toolkit alone, in a directory of their own: cargo
//! picks other features for one package than for all.

use std::path::Path;

use anyhow::{Result, ensure};

use super::report;
use crate::shell;

/// What it is called on the command line.
pub(super) const NAME: &str = "flow";

/// The benches in the order of the parts they measure.
const BENCHES: [&str; 7] = ["timer", "lock", "spawn", "ring", "queue", "pool", "dump"];

/// Runs the benches of these names, all where none is named.
pub(super) fn run(root: &Path, names: &[String]) -> Result<()> {
    for name in names {
        let known = BENCHES.join(", ");
        ensure!(BENCHES.contains(&name.as_str()), "no bench `{name}`; there are {known}");
    }
    println!("{}", report::machine());
    let build = shell::target_dir(root).join("flow");
    for bench in
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|n| n == *bench))
    {
        println!("\n── {bench}");
        let mut cargo = shell::cargo(root);
        cargo.env("CARGO_TARGET_DIR", &build);
        shell::run(cargo.args(["bench", "-q", "-p", "forebay-flow", "--bench", bench]))?;
    }
    Ok(())
}
