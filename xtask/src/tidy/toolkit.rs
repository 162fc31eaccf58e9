//! One mechanism: what the toolkit has for tasks, queues, slots and retries, no other crate brings along itself.
//!
//! clippy.toml bans the calls that start such things; this bans their names, so that none comes in as a field, an
//! argument or a dependency's re-export.

use std::path::Path;

use super::Finding;
use super::source_text::SourceText;

/// A name, and what stands in its place.
const NAMES: [(&str, &str); 10] = [
    ("Condvar", "a queue's `recv_blocking`"),
    ("JoinSet", "`forebay_flow::Group` or `Scope`"),
    ("Semaphore", "`forebay_flow::admit::Slots` or `budget::Share`"),
    ("TaskTracker", "`forebay_flow::Scope`"),
    ("async_channel::", "`forebay_flow::queue`"),
    ("crossbeam", "`forebay_flow::queue` or `ring`"),
    ("mpsc::", "`forebay_flow::queue`"),
    ("rayon::", "`forebay_flow::pool`"),
    ("spawn_blocking", "`forebay_flow::pool` or `thread::spawn`"),
    ("tokio_util::sync", "`forebay_flow::Ctx`"),
];

/// Uses that stay: file, name, why.
const EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "crates/journal/src/writers.rs",
    "Condvar",
    "a run queue: it holds each journal at most once, so their number is its bound, and a simulation steps it by hand",
)];

/// Checks one Rust file of a crate that is built on the toolkit.
pub(super) fn check(file: &Path, text: &str) -> Vec<Finding> {
    let own = ["flow", "xtask"];
    let crates = file.strip_prefix("crates").ok();
    if crates.is_none_or(|inside| own.iter().any(|name| inside.starts_with(name))) {
        return Vec::new();
    }
    let source = SourceText::parse(text);
    let mut findings = Vec::new();
    for (line, code) in source.product_lines() {
        for (name, instead) in NAMES.iter().filter(|(name, _)| code.contains(name)) {
            if !excepted(file, name) {
                let message = format!("`{name}` is the toolkit's business: use {instead}");
                findings.push(Finding::new(file, line, message));
            }
        }
    }
    findings
}

fn excepted(file: &Path, name: &str) -> bool {
    EXCEPTIONS.iter().any(|(at, what, _)| file == Path::new(at) && *what == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mechanism_is_found_outside_of_the_toolkit() {
        let text = "//! A.\nuse tokio::sync::mpsc::Sender;\nstruct A(Semaphore);\n";
        assert_eq!(check(Path::new("crates/forebay/src/a.rs"), text).len(), 2);
        assert_eq!(check(Path::new("crates/flow/src/a.rs"), text).len(), 0);
        assert_eq!(check(Path::new("xtask/src/a.rs"), text).len(), 0);
    }

    #[test]
    fn tests_and_listed_exceptions_may() {
        let tested = "//! A.\n#[cfg(test)]\nmod tests {\n    use tokio::task::JoinSet;\n}\n";
        assert_eq!(check(Path::new("crates/forebay/src/a.rs"), tested).len(), 0);
        let (file, name, _) = EXCEPTIONS[0];
        assert_eq!(check(Path::new(file), &format!("//! A.\nuse {name};\n")).len(), 0);
        assert_eq!(
            check(Path::new("crates/journal/src/a.rs"), &format!("//! A.\nuse {name};\n")).len(),
            1
        );
    }
}
