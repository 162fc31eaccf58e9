//! Rules for each Rust file, and the one that holds for every file.

use std::path::Path;

use super::Finding;
use super::source_text::{Function, SourceText};

/// The longest product file, in lines. STYLE.md asks for about 500.
const FILE_LINES: usize = 600;
/// The longest file of tests.
const TEST_FILE_LINES: usize = 800;
/// The longest function. STYLE.md asks for about 70. A test may hold a long table.
const FUNCTION_LINES: usize = 100;

/// What no Rust file may hold. Each is split so that this file does not hold it.
const BANNED: [(&str, &str, &str); 5] = [
    ("#[all", "ow(", "use #[expect(lint, reason = \"…\")]: it fails once it is no longer needed"),
    ("#![all", "ow(", "use #![expect(lint, reason = \"…\")]: it fails once it is no longer needed"),
    ("#[ign", "ore", "a test that does not run proves nothing: fix it or delete it"),
    ("tod", "o!(", "no placeholders"),
    ("unimplem", "ented!(", "no placeholders"),
];

/// Where this workplace keeps things: of no use to a reader.
const MACHINE_PATH: (&str, &str) = ("/wor", "k/");

/// Checks one Rust file.
pub(super) fn check(file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_test = is_test_file(file);
    let first = text.lines().find(|line| !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        findings.push(Finding::new(file, 1, "open the file with `//!`: its purpose, what it owns"));
    }
    let (count, limit) = (text.lines().count(), if is_test { TEST_FILE_LINES } else { FILE_LINES });
    if count > limit {
        findings.push(Finding::new(file, limit + 1, format!("{count} lines, at most {limit}")));
    }
    let source = SourceText::parse(text);
    let long = |function: &&Function| function.lines > FUNCTION_LINES && !is_test;
    for function in source.functions().iter().filter(long) {
        let message = format!("a function of {} lines, at most {FUNCTION_LINES}", function.lines);
        findings.push(Finding::new(file, function.line, message));
    }
    for (line, code) in source.all_lines() {
        for (head, tail, why) in BANNED {
            let banned = format!("{head}{tail}");
            if code.contains(&banned) {
                findings.push(Finding::new(file, line, format!("`{banned}`: {why}")));
            }
        }
    }
    let unwrap = concat!(".unw", "rap()");
    for (line, code) in source.product_lines().filter(|_| !is_test) {
        if code.contains(unwrap) {
            let message = format!("`{unwrap}` outside tests: input gets errors, not panics");
            findings.push(Finding::new(file, line, message));
        }
    }
    findings
}

/// Checks one file of any kind.
pub(super) fn check_any(file: &Path, text: &str) -> Vec<Finding> {
    let path = format!("{}{}", MACHINE_PATH.0, MACHINE_PATH.1);
    // `./work/` and `homework/` are other folders.
    let starts =
        |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "._-}>/".contains(c));
    let holds = |line: &str| line.match_indices(&path).any(|(at, _)| starts(&line[..at]));
    let lines = text.lines().enumerate().filter(|(_, line)| holds(line));
    lines.map(|(at, _)| Finding::new(file, at + 1, "a path of one machine")).collect()
}

fn is_test_file(file: &Path) -> bool {
    let names = ["tests", "benches", "tests.rs"];
    let tests = |part: &std::ffi::OsStr| names.iter().any(|name| part == *name);
    // A model is what a model checker runs, properties are what proptest does.
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.iter().any(tests) || stem.ends_with("model") || stem == "properties"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_product(text: &str) -> Vec<String> {
        check(Path::new("a.rs"), text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(check_product("//! A.\nfn a() {\n    b();\n}\n"), Vec::<String>::new());
    }

    #[test]
    fn a_file_opens_with_its_docs() {
        assert_eq!(check_product("fn a() {}\n").len(), 1);
        assert_eq!(check_product("#![no_std]\n//! A.\n").len(), 0);
    }

    #[test]
    fn banned_words_are_found_with_their_line() {
        for (head, tail, _) in BANNED {
            let found = check_product(&format!("//! A.\n{head}{tail}x\n"));
            assert!(found.iter().any(|text| text.starts_with("a.rs:2: ")), "{head}{tail}");
            assert_eq!(check_product(&format!("//! A.\n// {head}{tail}\n")).len(), 0);
        }
    }

    #[test]
    fn unwrap_is_for_tests() {
        let call = concat!("x.unw", "rap();");
        assert_eq!(check_product(&format!("//! A.\n{call}\n")).len(), 1);
        let tested = format!("//! A.\n#[cfg(test)]\nmod tests {{\n    {call}\n}}\n");
        assert_eq!(check_product(&tested).len(), 0);
        assert_eq!(
            check(Path::new("crates/a/tests/it/b.rs"), &format!("//! A.\n{call}\n")).len(),
            0
        );
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let long = "    a();\n".repeat(FUNCTION_LINES);
        let found = check_product(&format!("//! A.\nfn a() {{\n{long}}}\n"));
        assert_eq!(
            found,
            [format!("a.rs:2: a function of {} lines, at most 100", FUNCTION_LINES + 2)]
        );
        assert_eq!(check_product(&format!("//! A.\n{}", "\n".repeat(FILE_LINES))).len(), 1);
    }

    #[test]
    fn machine_paths_are_found_in_any_file() {
        let path = format!("{}{}", MACHINE_PATH.0, MACHINE_PATH.1);
        assert_eq!(check_any(Path::new("a.md"), &format!("see {path}x")).len(), 1);
        assert_eq!(check_any(Path::new("a.md"), &format!("see home{path}x, .{path}")).len(), 0);
    }
}
