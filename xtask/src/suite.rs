//! `cargo xtask test`: installs what the tests need, then runs all of them.
//!
//! Only a missing cargo ends it early. Every other tool is optional: without it the tests that need
//! it say so and skip themselves. What is found is handed to them through the environment:
//! `FOREBAY_PY` (a Python with `deltalake` and `duckdb`), `FOREBAY_PROMTOOL`, `FOREBAY_STRACE`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Readers of Delta tables that share no code with this project.
const PYTHON_PACKAGES: [&str; 3] = ["deltalake>=1.1,<2", "duckdb>=1.1", "pyarrow>=17"];

/// What property tests draw their inputs from: the same ones in every run, so that a change that passed
/// passes again. Set it to look elsewhere; `cargo xtask fuzz` looks further.
const SEED: &str = "PROPTEST_RNG_SEED";

/// Where the toolkit notes tasks that went down with their runtime though nobody had asked them to end.
const ORPHANS: &str = "FOREBAY_FLOW_ORPHANS";

/// Installs, then tests. `args` go to cargo-nextest; with any, the doc tests are left out.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let tools = Tools::install(root);
    let orphans = shell::target_dir(root).join("orphans");
    std::fs::remove_dir_all(&orphans).ok();
    if args.is_empty() {
        shell::run(tools.hand_over(shell::cargo(root).args([
            "test",
            "--workspace",
            "--doc",
            "-q",
        ])))?;
    }
    let mut command = shell::cargo(root);
    let picks = args.iter().any(|arg| arg == "-p" || arg.starts_with("--package"));
    let scope: &[&str] = if picks { &[] } else { &["--workspace"] };
    if tools.nextest {
        command.args(["nextest", "run"]).args(scope).args(args);
    } else {
        command.args(["test", "--all-targets"]).args(scope).args(args);
    }
    shell::run(tools.hand_over(&mut command).env(ORPHANS, &orphans))?;
    leaks(&orphans)
}

/// The leak check over the whole suite: a test that leaks has dropped its leaks with its runtime.
fn leaks(orphans: &Path) -> Result<()> {
    let Ok(files) = std::fs::read_dir(orphans) else { return Ok(()) };
    let notes = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let mut notes: Vec<String> = notes.collect();
    notes.sort();
    if !notes.is_empty() {
        let shown: String = notes.iter().take(20).map(String::as_str).collect();
        bail!("{} tasks were still alive when their test ended; the first:\n{shown}", notes.len());
    }
    eprintln!("xtask: no test left a task behind");
    Ok(())
}

struct Tools {
    nextest: bool,
    python: Option<PathBuf>,
    promtool: Option<PathBuf>,
    strace: Option<PathBuf>,
}

impl Tools {
    fn install(root: &Path) -> Tools {
        let target = shell::target_dir(root);
        let mut apt = Apt::default();
        Tools {
            nextest: found("cargo-nextest", nextest(root)).is_some(),
            strace: found("strace", program(&mut apt, "strace", "strace")),
            promtool: found("promtool", promtool(&mut apt, &target)),
            python: found("Python readers of Delta tables", python(&mut apt, &target)),
        }
    }

    fn hand_over<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let tools = [
            ("FOREBAY_PY", &self.python),
            ("FOREBAY_PROMTOOL", &self.promtool),
            ("FOREBAY_STRACE", &self.strace),
        ];
        for (name, path) in tools {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        if std::env::var_os(SEED).is_none() {
            command.env(SEED, "1");
        }
        command
    }
}

/// Reports a tool that could not be had, and goes on without it.
fn found(what: &str, tool: Result<PathBuf>) -> Option<PathBuf> {
    tool.inspect_err(|error| eprintln!("xtask: no {what}, its tests skip themselves: {error:#}"))
        .ok()
}

fn nextest(root: &Path) -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let installed = || {
        let in_home = home.as_ref().map(|home| home.join("bin/cargo-nextest"));
        shell::which("cargo-nextest").or(in_home.filter(|file| file.is_file()))
    };
    if installed().is_none() {
        shell::run(shell::cargo(root).args(["install", "cargo-nextest", "--locked"]))?;
    }
    installed().context("cargo install succeeded, but there is no cargo-nextest")
}

/// Debian's package manager, asked to refresh its lists at most once.
#[derive(Default)]
struct Apt {
    refreshed: bool,
}

impl Apt {
    fn refresh(&mut self) -> Result<()> {
        let apt = shell::which("apt-get").context("this is no Debian: install it by hand")?;
        if !self.refreshed {
            // An old list is better than none, so a failure here is not the end.
            shell::capture(Command::new(apt).args(["-q", "update"])).ok();
            self.refreshed = true;
        }
        Ok(())
    }

    fn install(&mut self, packages: &[&str]) -> Result<()> {
        if shell::capture(Command::new("id").arg("-u"))?.trim() != "0" {
            bail!("not root: run `apt-get install {}`", packages.join(" "));
        }
        self.refresh()?;
        shell::capture(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-q", "install", "-y", "--no-install-recommends"])
                .args(packages),
        )?;
        Ok(())
    }
}

fn program(apt: &mut Apt, name: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = shell::which(name) {
        return Ok(path);
    }
    apt.install(&[package])?;
    shell::which(name).with_context(|| format!("package {package} holds no {name}"))
}

/// promtool alone, unpacked from Debian's package: installing that would start a server.
fn promtool(apt: &mut Apt, target: &Path) -> Result<PathBuf> {
    let dir = target.join("tools");
    let tool = dir.join("usr/bin/promtool");
    if let Some(path) = shell::which("promtool").or_else(|| tool.is_file().then(|| tool.clone())) {
        return Ok(path);
    }
    apt.refresh()?;
    std::fs::create_dir_all(&dir)?;
    shell::capture(Command::new("apt-get").current_dir(&dir).args([
        "-q",
        "download",
        "prometheus",
    ]))?;
    let package = std::fs::read_dir(&dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    shell::capture(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&dir))?;
    std::fs::remove_file(&package)?;
    // Half a hundred megabytes that nobody asked for.
    std::fs::remove_file(dir.join("usr/bin/prometheus")).ok();
    tool.is_file().then_some(tool).context("Debian's prometheus holds no promtool")
}

/// A virtual environment under the target directory, made once.
fn python(apt: &mut Apt, target: &Path) -> Result<PathBuf> {
    let dir = target.join("py");
    let python = dir.join("bin/python");
    let works = |python: &Path| {
        let mut command = Command::new(python);
        shell::capture(command.args(["-c", "import deltalake, duckdb, pyarrow"])).map(drop)
    };
    if works(&python).is_ok() {
        return Ok(python);
    }
    let make = || {
        let base = shell::which("python3").context("no python3")?;
        shell::capture(Command::new(base).args(["-m", "venv", "--clear"]).arg(&dir))
    };
    if make().is_err() {
        apt.install(&["python3", "python3-venv"])?;
        make()?;
    }
    shell::capture(
        Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args(PYTHON_PACKAGES),
    )?;
    works(&python)?;
    Ok(python)
}
