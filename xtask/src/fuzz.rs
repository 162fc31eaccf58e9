//! `cargo xtask fuzz`: builds every fuzz target and runs each for its minutes, as many at once as there are cores.
//!
//! cargo-fuzz is installed where it is missing. The first build takes about as long as a release build. A crash leaves
//! its input under `fuzz/artifacts/`; it becomes a test before it is mended. What a target says goes to
//! `fuzz/corpus/NAME.log`; its last figures are printed.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// Stable Rust has no sanitizers; debug assertions and overflow checks are on.
const PLAIN: [&str; 4] = ["--sanitizer", "none", "--release", "--debug-assertions"];

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
    let build = || {
        let mut build = shell::cargo(root);
        build.args(["fuzz", "build"]).args(PLAIN);
        build
    };
    if names.is_empty() {
        shell::run(&mut build())?;
    }
    for name in names {
        shell::run(build().arg(name))?;
    }
    let wanted = |name: &&str| names.is_empty() || names.iter().any(|one| one == name);
    let todo = Mutex::new(all.into_iter().filter(wanted));
    let next = || todo.lock().ok()?.next();
    let failed = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(name) = next() {
                    if let Err(error) = target(root, name, minutes) {
                        eprintln!("xtask: {error:#}");
                        failed.lock().map(|mut failed| failed.push(name)).ok();
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    ensure!(failed.is_empty(), "these targets found something: {}", failed.join(", "));
    Ok(())
}

/// Runs one target for its minutes, on what it has found before and the seeds that are kept.
fn target(root: &Path, name: &str, minutes: u64) -> Result<()> {
    let fuzz = root.join("fuzz");
    let (corpus, seeds) = (fuzz.join("corpus").join(name), fuzz.join("seeds").join(name));
    std::fs::create_dir_all(&corpus)?;
    let log = fuzz.join("corpus").join(format!("{name}.log"));
    let said = File::create(&log)?;
    let mut command: Command = shell::cargo(root);
    command.args(["fuzz", "run"]).args(PLAIN).arg(name).arg(corpus);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let seconds = format!("-max_total_time={}", minutes * 60);
    command.args(["--", &seconds, "-rss_limit_mb=4096", "-timeout=30"]);
    let status = command.stdout(said.try_clone()?).stderr(said).status().context("cargo fuzz")?;
    let said = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    if !status.success() {
        let tail: Vec<&str> = said.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("target `{name}` ({status}), the end of {}:\n{}", log.display(), tail.join("\n"));
    }
    let figures = said.lines().rev().find(|line| line.contains("DONE")).unwrap_or("no figures");
    println!("{name:<10} clean after {minutes} min  {figures}");
    Ok(())
}
