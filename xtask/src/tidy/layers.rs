//! The order of the pipeline's modules: declared as data flows, used only downstream.
//!
//! A module hands rows on to those declared after it; it knows nothing of those before it. What
//! travels or is shared is no station on that road, and anyone may use it. Both lists are below.

use std::path::{Path, PathBuf};

use super::Finding;
use super::source_text::SourceText;

/// No stations: the rows themselves and what every station shares.
const SHARED: &[&str] = &["record", "schema", "entry", "stream", "sql", "ledger", "telemetry"];

/// Uses of a station upstream: from, to, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("intake", "engine", "the engine holds what all uploads share: budgets, pools, streams"),
    ("lane", "engine", "the engine holds what all lanes share: config, clock, pools, dead letters"),
];

/// Checks every module that `lib` declares; `files` gives a module's files with their text.
pub(super) fn check(
    lib: &Path,
    text: &str,
    files: impl Fn(&str) -> Vec<(PathBuf, String)>,
) -> Vec<Finding> {
    let modules = declared(text);
    let mut findings = Vec::new();
    for (rank, (line, module)) in modules.iter().enumerate() {
        let sources = files(module);
        if sources.is_empty() {
            findings.push(Finding::new(lib, *line, format!("module `{module}` has no file")));
        }
        for (file, source) in sources.iter().filter(|_| !SHARED.contains(module)) {
            let upstream = modules.iter().take(rank).map(|(_, name)| *name);
            let stations = upstream.filter(|name| !SHARED.contains(name));
            findings.extend(against(file, source, module, stations));
        }
    }
    findings
}

fn declared(text: &str) -> Vec<(usize, &str)> {
    let name = |line: &str| -> Option<usize> {
        ["pub mod ", "pub(crate) mod ", "mod "].iter().find_map(|prefix| {
            (line.starts_with(prefix) && line.ends_with(';')).then_some(prefix.len())
        })
    };
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let start = name(line)?;
            Some((index + 1, line.get(start..line.len() - 1)?))
        })
        .collect()
}

fn against<'a>(
    file: &Path,
    source: &str,
    module: &str,
    upstream: impl Iterator<Item = &'a str>,
) -> Vec<Finding> {
    let text = SourceText::parse(source);
    let mut findings = Vec::new();
    for other in upstream.filter(|other| !excepted(module, other)) {
        let path = format!("crate::{other}");
        for (line, code) in text.product_lines() {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            if code.match_indices(&path).any(|(at, _)| ends(&code[at + path.len()..])) {
                let message = format!(
                    "`{module}` uses `{path}`, which is upstream of it in lib.rs: hand it what it needs, \
                     or list the exception with its reason in {}",
                    file!()
                );
                findings.push(Finding::new(file, line, message));
            }
        }
    }
    findings
}

fn excepted(from: &str, to: &str) -> bool {
    EXCEPTIONS.iter().any(|(one, other, _)| *one == from && *other == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(lib: &str, sources: &[(&str, &str)]) -> Vec<String> {
        let files = |module: &str| {
            let named = sources.iter().filter(|(name, _)| *name == module);
            named.map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect()
        };
        check(Path::new("lib.rs"), lib, files).iter().map(ToString::to_string).collect()
    }

    const LIB: &str = "//! Docs.\npub mod record;\npub mod lane;\n\npub mod sink;\n";

    #[test]
    fn a_use_of_a_station_upstream_is_a_breach() {
        let sink = "//! Docs.\nuse crate::lane::Lane;\n";
        let found = findings(LIB, &[("record", ""), ("lane", "use crate::sink;"), ("sink", sink)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|text| text.starts_with("sink:2: `sink` uses `crate::lane`")));
    }

    #[test]
    fn what_travels_longer_names_comments_and_tests_are_no_breach() {
        let sink = "use crate::record::Batch;\nuse crate::lanes;\n// crate::lane\n#[cfg(test)]\n\
                    mod tests {\n    use crate::lane::Lane;\n}\n";
        let found = findings(LIB, &[("record", ""), ("lane", ""), ("sink", sink)]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_module_without_a_file_is_a_breach() {
        assert_eq!(findings("mod gone;\n", &[]), ["lib.rs:1: module `gone` has no file"]);
    }
}
