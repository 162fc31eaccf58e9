//! `cargo xtask fuzz`: builds every fuzz target and runs each for its minutes, one after another.
//!
//! cargo-fuzz is installed where it is missing. The first build takes as long as a release build. A crash leaves
//! its input under `fuzz/artifacts/`; it becomes a test before it is mended.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Builds and runs the targets of these names; all of them where none is named.
pub(crate) fn run(root: &Path, minutes: u64, names: &[String]) -> Result<()> {
    if shell::capture(shell::cargo(root).args(["fuzz", "--version"])).is_err() {
        shell::run(shell::cargo(root).args(["install", "cargo-fuzz", "--locked"]))?;
    }
    let listed = shell::capture(shell::cargo(root).args(["fuzz", "list"]))?;
    let all: Vec<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for name in names {
        ensure!(all.contains(&name.as_str()), "no target `{name}`; there are {}", all.join(", "));
    }
    // Stable Rust has no sanitizers; debug assertions and overflow checks are on.
    let plain = ["--sanitizer", "none", "--release", "--debug-assertions"];
    shell::run(shell::cargo(root).args(["fuzz", "build"]).args(plain))?;
    let seconds = format!("-max_total_time={}", minutes * 60);
    for name in all.iter().filter(|name| names.is_empty() || names.iter().any(|one| one == *name)) {
        let mut command = shell::cargo(root);
        command.args(["fuzz", "run"]).args(plain).arg(name);
        command.args(["--", &seconds, "-rss_limit_mb=4096", "-timeout=30"]);
        shell::run(&mut command).with_context(|| format!("target `{name}`"))?;
    }
    Ok(())
}
