//! Running other programs: where the workspace is, what is installed, how a step ended.
//!
//! It never hides a program's output, except where a caller asks to capture it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The workspace's root: the parent of this package.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    // Of the cargo that runs us: a target directory that clones share may hold another clone's xtask.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.parent().context("xtask has no parent directory")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("no Cargo.toml in {}: was the workspace moved? rebuild xtask there", root.display());
    }
    Ok(root.to_path_buf())
}

/// The cargo that runs us, without what it told us of ourselves: build scripts (ring's, for one) run
/// again when a `CARGO_PKG_…` changes, and everything after them would be built anew.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target` under the root.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// Shows a command as a person would type it, and runs it; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a command in silence; its stdout, or an error that holds its stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The time, for measuring.
#[expect(clippy::disallowed_methods, reason = "xtask links none of the product's crates")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Finds a program on `PATH`.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> =
        std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
