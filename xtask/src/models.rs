//! `cargo xtask models`: what CI has no time for. The model checkers, and valgrind over everything with `unsafe`.
//!
//! loom permutes every step of the lock-free parts, shuttle draws ten thousand schedules of each synchronous core, and
//! valgrind watches the memory and the handovers of the real ones. Each leg has a target directory of its own below the
//! usual one, since each builds the toolkit under another `cfg`. The last result is kept in `docs/models.md`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, now};

/// One way of checking.
struct Leg {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> Result<Vec<String>>,
}

const LEGS: [Leg; 4] = [
    Leg {
        name: "loom",
        what: "every order of steps, three preemptions: lock-free parts and waiter lists",
        run: |root| model(root, "loom", &[("LOOM_MAX_PREEMPTIONS", "3")]),
    },
    Leg {
        name: "shuttle",
        what: "10,000 drawn schedules of each model",
        run: |root| model(root, "shuttle", &[]),
    },
    Leg { name: "memcheck", what: "valgrind: memory of everything with `unsafe`", run: memcheck },
    Leg {
        name: "helgrind",
        what: "valgrind: the handovers of the ring and the stack waker",
        run: helgrind,
    },
];

/// What of the toolkit's tests cargo shall build, and filters of their names.
type Tests = (&'static [&'static str], &'static [&'static str]);

/// Tests of parts with `unsafe`: through the public API, and beside the code.
const UNSAFE: [Tests; 2] =
    [(&["--test", "it"], &["ring::", "dump::"]), (&["--lib"], &["stacks::tests::waker"])];

/// Tests whose handovers helgrind is told of (`crates/flow/src/sync.rs`). None that goes through Tokio: its scheduler, its
/// timers and its channels hand over by atomics that helgrind cannot see, so it would call each job of a pool a race.
const ANNOTATED: [Tests; 2] =
    [(&["--test", "it"], &["ring::two_threads"]), (&["--lib"], &["stacks::tests::waker"])];

/// Runs the legs of these names, all where none is named. `write`: keeps the result in `docs/models.md`.
pub(crate) fn run(root: &Path, names: &[String], write: bool) -> Result<()> {
    let known = LEGS.map(|leg| leg.name).join(", ");
    for name in names {
        ensure!(LEGS.iter().any(|leg| leg.name == name), "no leg `{name}`; there are {known}");
    }
    ensure!(!write || names.is_empty(), "`--write` keeps the result of all legs: name none");
    let mut lines = String::new();
    for leg in LEGS.iter().filter(|leg| names.is_empty() || names.iter().any(|n| n == leg.name)) {
        eprintln!("── {}: {}", leg.name, leg.what);
        let start = now();
        let passed = (leg.run)(root).with_context(|| format!("leg `{}`", leg.name))?;
        let took = start.elapsed();
        println!("{:<9} {:>3} tests clean in {:.0} s", leg.name, passed.len(), took.as_secs_f64());
        row(&mut lines, leg, &passed, took);
    }
    if write { record(root, &lines) } else { Ok(()) }
}

fn row(lines: &mut String, leg: &Leg, passed: &[String], took: Duration) {
    let (name, what, seconds) = (leg.name, leg.what, took.as_secs());
    writeln!(lines, "## {name}\n\n{what}. {} tests, clean, {seconds} s.\n", passed.len()).ok();
    for test in passed {
        writeln!(lines, "- `{test}`").ok();
    }
    lines.push('\n');
}

fn record(root: &Path, lines: &str) -> Result<()> {
    let day = shell::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let commit = shell::capture(Command::new("git").current_dir(root).args([
        "rev-parse",
        "--short",
        "HEAD",
    ]))?;
    let text = format!(
        "# Model checking, last result\n\nWritten by `cargo xtask models --write` on {}, of the tree at {}. \
         What each model states is in its module: `model.rs` beside what it models, in `crates/flow/src`.\n\n{}\n",
        day.trim(),
        commit.trim(),
        lines.trim_end()
    );
    std::fs::write(root.join("docs/models.md"), text).context("docs/models.md")
}

/// The toolkit's models under `--cfg NAME`.
fn model(root: &Path, name: &str, env: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut command = flow(root, name);
    command.env("RUSTFLAGS", format!("--cfg {name}")).envs(env.iter().copied());
    command.args(["test", "--release", "-p", "forebay-flow", "--lib", "model"]);
    passed(&shell::capture(&mut command)?)
}

fn memcheck(root: &Path) -> Result<Vec<String>> {
    let args = ["--leak-check=full", "--errors-for-leak-kinds=definite"];
    watched(root, "memcheck", "", &args, &UNSAFE)
}

fn helgrind(root: &Path) -> Result<Vec<String>> {
    let args = ["--tool=helgrind", "--suppressions=crates/flow/tests/helgrind.supp"];
    watched(root, "helgrind", "--cfg helgrind", &args, &ANNOTATED)
}

/// Tests under valgrind with `args`, built with `flags`.
fn watched(
    root: &Path,
    name: &str,
    flags: &str,
    args: &[&str],
    tests: &[Tests],
) -> Result<Vec<String>> {
    let mut clean = Vec::new();
    for (which, filters) in tests {
        let binary = binary(flow(root, name).env("RUSTFLAGS", flags), which)?;
        let mut command = valgrind(root, &binary);
        command.args(args).arg(binary).args(*filters).arg("--test-threads=1");
        clean.extend(passed(&shell::capture(&mut command)?)?);
    }
    clean.sort();
    Ok(clean)
}

fn valgrind(root: &Path, tests: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.current_dir(root).args(["--quiet", "--error-exitcode=1", "--fair-sched=yes"]);
    eprintln!("$ valgrind … {}", tests.display());
    command
}

/// cargo with a target directory for builds of this name.
fn flow(root: &Path, name: &str) -> Command {
    let mut command = shell::cargo(root);
    command.env("CARGO_TARGET_DIR", shell::target_dir(root).join("models").join(name));
    command
}

/// Builds these of the toolkit's tests and says where they are.
fn binary(cargo: &mut Command, which: &[&str]) -> Result<PathBuf> {
    cargo.args(["test", "-p", "forebay-flow", "--no-run", "--message-format=json"]);
    let said = shell::capture(cargo.args(which))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built =
        messages.filter_map(|message| Some(message.get("executable")?.as_str()?.into()));
    built.next().context("cargo built no tests")
}

/// The names of the tests that passed; an error where none ran.
fn passed(said: &str) -> Result<Vec<String>> {
    let name = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... ok")?.to_owned());
    let mut passed: Vec<String> = said.lines().filter_map(name).collect();
    passed.sort();
    if passed.is_empty() {
        bail!("no test ran:\n{said}");
    }
    Ok(passed)
}
