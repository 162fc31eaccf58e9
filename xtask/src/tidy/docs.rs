//! Rules for the documents: links lead somewhere, the invariants are written down.

use std::path::{Component, Path, PathBuf};

use super::Finding;

/// How many invariants there are: F1 to F10.
const INVARIANTS: u32 = 10;

/// Each relative link names a file that is there, each anchor into the same file a heading.
pub(super) fn check_links(file: &Path, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let prose: Vec<(usize, &str)> = prose(text).collect();
    let anchors: Vec<String> = prose.iter().filter_map(|(_, line)| anchor(line)).collect();
    let mut findings = Vec::new();
    for (line, target) in
        prose.iter().flat_map(|(line, text)| links(text).map(|link| (*line, link)))
    {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
        let missing = if path.is_empty() {
            !anchors.iter().any(|anchor| anchor == fragment)
        } else {
            !exists(&resolve(file, path))
        };
        if missing {
            findings.push(Finding::new(file, line, format!("the link `{target}` leads nowhere")));
        }
    }
    findings
}

/// ARCHITECTURE.md states every invariant by its number.
pub(super) fn check_architecture(file: &Path, text: &str) -> Vec<Finding> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    (1..=INVARIANTS)
        .map(|number| format!("F{number}"))
        .filter(|name| !words.contains(&name.as_str()))
        .map(|name| Finding::new(file, 1, format!("invariant {name} is not written down")))
        .collect()
}

/// Lines outside fenced code, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect())
}

fn resolve(file: &Path, target: &str) -> PathBuf {
    let mut path = file.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links_of(text: &str) -> Vec<String> {
        let exists = |path: &Path| path == Path::new("docs/b.md") || path == Path::new("README.md");
        let found = check_links(Path::new("docs/a.md"), text, exists);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_are_resolved_from_the_file_that_holds_them() {
        assert_eq!(
            links_of("[b](b.md#x) [r](../README.md) [w](https://e.org/x)"),
            Vec::<String>::new()
        );
        assert_eq!(links_of("\n[c](c.md)"), ["docs/a.md:2: the link `c.md` leads nowhere"]);
    }

    #[test]
    fn anchors_are_headings_of_the_same_file() {
        assert_eq!(links_of("## Where a byte enters: `x`\n[y](#where-a-byte-enters-x)").len(), 0);
        assert_eq!(links_of("[y](#nowhere)").len(), 1);
    }

    #[test]
    fn fenced_code_holds_no_links() {
        assert_eq!(links_of("```\n[c](c.md)\n```\n").len(), 0);
    }

    #[test]
    fn every_invariant_is_written_down() {
        let file = Path::new("ARCHITECTURE.md");
        assert_eq!(check_architecture(file, "F1 F2, F3 (F4) **F5** F6 F7 F8 F9 F10").len(), 0);
        assert_eq!(check_architecture(file, "F2 F3 F4 F5 F6 F7 F8 F9 F10").len(), 1);
    }
}
