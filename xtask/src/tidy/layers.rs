//! The order of the pipeline's modules: declared as data flows, used only backwards.
//!
//! A module may use those declared before it, whose results it works on. The uses against that
//! order are listed here, each with its reason.

use std::path::{Path, PathBuf};

use super::Finding;
use super::source_text::SourceText;

/// From, to, why.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("intake", "codec", "the door names a body's format before anything is decoded")];

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
        for (file, source) in sources {
            let later = modules.iter().skip(rank + 1).map(|(_, name)| *name);
            findings.extend(against(&file, &source, module, later));
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
    later: impl Iterator<Item = &'a str>,
) -> Vec<Finding> {
    let text = SourceText::parse(source);
    let mut findings = Vec::new();
    for other in later.filter(|other| !excepted(module, other)) {
        let path = format!("crate::{other}");
        for (line, code) in text.product_lines() {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            if code.match_indices(&path).any(|(at, _)| ends(&code[at + path.len()..])) {
                let message = format!(
                    "`{module}` uses `{path}`, which is declared after it in lib.rs: move what both \
                     need before them, or list the exception with its reason in {}",
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

    #[test]
    fn a_use_of_a_later_module_is_a_breach() {
        let lib = "//! Docs.\npub mod record;\npub mod lane;\n";
        let early = "//! Docs.\nuse crate::lane::Lane;\n";
        let found = findings(lib, &[("record", early), ("lane", "use crate::record::Batch;\n")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|text| text.starts_with("record:2: `record` uses `crate::lane`")));
    }

    #[test]
    fn a_longer_name_comments_and_tests_are_no_use() {
        let lib = "pub mod record;\npub mod lane;\n";
        let early = "use crate::lanes;\n// crate::lane\n#[cfg(test)]\nmod tests {\n    use \
                     crate::lane::Lane;\n}\n";
        assert_eq!(findings(lib, &[("record", early), ("lane", "")]), Vec::<String>::new());
    }

    #[test]
    fn a_module_without_a_file_is_a_breach() {
        assert_eq!(findings("mod gone;\n", &[]), ["lib.rs:1: module `gone` has no file"]);
    }
}
