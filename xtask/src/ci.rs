//! `cargo xtask ci`: everything that must pass before a change lands, cheapest first.
//!
//! It stops at the first step that fails, and says at the end how long each step took.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{shell, suite, tidy};

type Step = (&'static str, fn(&Path) -> Result<()>);

const STEPS: [Step; 7] = [
    ("format", |root| shell::run(shell::cargo(root).args(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("deny", deny),
    ("clippy", |root| {
        let args = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        shell::run(shell::cargo(root).args(args))
    }),
    ("docs", |root| {
        let args = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
        shell::run(shell::cargo(root).args(args).env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("examples", |root| {
        shell::run(shell::cargo(root).args(["build", "--workspace", "--examples", "--quiet"]))
    }),
    ("test", |root| suite::run(root, &[])),
];

/// Runs every step in order.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut times = Vec::with_capacity(STEPS.len());
    for (name, step) in STEPS {
        eprintln!("── {name}");
        let start = shell::now();
        let result = step(root).with_context(|| format!("step `{name}`"));
        times.push((name, start.elapsed(), result.is_ok()));
        if result.is_err() {
            print_times(&times);
            return result;
        }
    }
    print_times(&times);
    Ok(())
}

fn print_times(times: &[(&str, std::time::Duration, bool)]) {
    eprintln!("── steps");
    for (name, time, passed) in times {
        let mark = if *passed { "ok" } else { "FAILED" };
        eprintln!("{name:>10} {:>8.1} s  {mark}", time.as_secs_f64());
    }
}

/// cargo-deny where it is installed. What must hold everywhere is in tidy.
fn deny(root: &Path) -> Result<()> {
    if shell::which("cargo-deny").is_none() {
        eprintln!("cargo-deny is not installed: tidy has checked licences and single versions");
        return Ok(());
    }
    shell::run(shell::cargo(root).args(["deny", "check", "licenses", "bans"]))
}
