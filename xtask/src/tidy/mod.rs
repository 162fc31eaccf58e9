//! `cargo xtask tidy`: the rules of the house that the compiler does not know.
//!
//! Each rule is a pure function from text to [`Finding`]s, so that it is tested on text. A rule
//! never changes a file.

mod api;
mod behaviours;
mod crates;
mod docs;
mod layers;
mod licences;
mod source;
mod source_text;
mod toolkit;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One breach: where, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: PathBuf,
    line: usize,
    message: String,
}

impl Finding {
    /// A breach on a line, counted from 1.
    fn new(file: &Path, line: usize, message: impl Into<String>) -> Finding {
        Finding { file: file.to_path_buf(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Writes the list of the toolkit's public items anew.
pub(crate) fn write_api(root: &Path) -> Result<()> {
    let files = tracked(root)?;
    let list = api::list(toolkit_files(root, &files));
    std::fs::write(root.join(api::LIST), list).context("the list of public items")
}

/// Checks every rule; prints each breach and fails if there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = tracked(root)?;
    let mut findings = Vec::new();
    for file in &files {
        // What is not UTF-8 is data, and no rule is about data.
        if let Ok(text) = std::fs::read_to_string(root.join(file)) {
            findings.extend(check_file(root, file, &text));
        }
    }
    let lib = Path::new("crates/pipeline/src/lib.rs");
    findings.extend(layers::check(lib, &std::fs::read_to_string(root.join(lib))?, |module| {
        module_files(root, &files, module)
    }));
    findings.extend(behaviours::check(toolkit_files(root, &files)));
    let kept = std::fs::read_to_string(root.join(api::LIST)).unwrap_or_default();
    findings.extend(api::check(&kept, toolkit_files(root, &files)));
    let metadata = metadata(root)?;
    findings.extend(crates::check(&metadata));
    let deny = std::fs::read_to_string(root.join("deny.toml"))?;
    findings.extend(licences::check(&metadata, &deny));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} breach(es)", findings.len());
    }
    eprintln!("tidy: {} files keep the rules", files.len());
    Ok(())
}

/// The toolkit's files with their text.
fn toolkit_files<'a>(
    root: &Path,
    files: &'a [PathBuf],
) -> impl Iterator<Item = (&'a PathBuf, String)> {
    let toolkit = files.iter().filter(|file| file.starts_with("crates/flow"));
    toolkit.filter_map(|file| Some((file, std::fs::read_to_string(root.join(file)).ok()?)))
}

fn check_file(root: &Path, file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = source::check_any(file, text);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => {
            findings.extend(source::check(file, text));
            findings.extend(toolkit::check(file, text));
        }
        Some("md") => {
            findings.extend(docs::check_links(file, text, |path| root.join(path).exists()));
        }
        _ => {}
    }
    if file == Path::new("ARCHITECTURE.md") {
        findings.extend(docs::check_architecture(file, text));
    }
    findings
}

/// Every file that is tracked, or would be if it were added now.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let listing = shell::capture(Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("tidy reads the list of files from git")?;
    let paths = listing.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut files: Vec<PathBuf> = paths.filter(|path| root.join(path).is_file()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The files of one module of the pipeline, with their text.
fn module_files(root: &Path, files: &[PathBuf], module: &str) -> Vec<(PathBuf, String)> {
    let source = Path::new("crates/pipeline/src");
    let single = source.join(module).with_extension("rs");
    let folder = source.join(module);
    files
        .iter()
        .filter(|file| **file == single || file.starts_with(&folder))
        .filter_map(|file| Some((file.clone(), std::fs::read_to_string(root.join(file)).ok()?)))
        .collect()
}

fn metadata(root: &Path) -> Result<serde_json::Value> {
    let mut command = shell::cargo(root);
    let text = shell::capture(command.args(["metadata", "--format-version", "1", "--locked"]))?;
    serde_json::from_str(&text).context("cargo metadata printed no JSON")
}
