//! What we depend on: every licence is allowed, and what crosses our seams is there once.
//!
//! Both lists are in `deny.toml`, where cargo-deny reads them, too.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::Finding;

/// Checks every package that the workspace resolves to.
pub(super) fn check(metadata: &Value, deny: &str) -> Vec<Finding> {
    let allowed = strings_between(deny, "allow = [");
    let single = single_versions(deny);
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let resolved: BTreeSet<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let packages: Vec<&Value> = packages
        .filter(|package| package["id"].as_str().is_some_and(|id| resolved.contains(id)))
        .collect();
    let (deny_toml, lock) = (Path::new("deny.toml"), Path::new("Cargo.lock"));
    let mut findings = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !is_allowed(licence, &allowed) {
            let message = format!("{name}'s licence is not in the list: {licence}");
            findings.push(Finding::new(deny_toml, 1, message));
        }
    }
    for name in single {
        let named = packages.iter().filter(|package| package["name"].as_str() == Some(name));
        let versions: Vec<&str> = named.filter_map(|package| package["version"].as_str()).collect();
        if versions.len() > 1 {
            let message = format!("{name} is there more than once: {}", versions.join(", "));
            findings.push(Finding::new(lock, 1, message));
        }
    }
    findings
}

/// The quoted texts of the list that begins with `start`.
fn strings_between<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let list = text.split_once(start).and_then(|(_, rest)| rest.split_once(']'));
    let list = list.map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

fn single_versions(deny: &str) -> Vec<&str> {
    let lines = deny.lines().filter(|line| line.contains("deny-multiple-versions = true"));
    lines.filter_map(|line| line.split('"').nth(1)).collect()
}

/// Whether an SPDX expression can be met from the list: one side of each OR, both of each AND.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = both(words, allowed);
    while let [word, rest @ ..] = *words
        && *word == "OR"
    {
        *words = rest;
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while let [word, rest @ ..] = *words
        && *word == "AND"
    {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = either(words, allowed);
            if let [word, rest @ ..] = *words
                && *word == ")"
            {
                *words = rest;
                return met;
            }
            false
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DENY: &str = "allow = [\n  \"MIT\",\n  \"ISC\",\n  \"A WITH B\",\n]\n\
                        { crate = \"arrow\", deny-multiple-versions = true },\n";

    #[test]
    fn an_expression_is_met_by_one_side_of_or_and_both_of_and() {
        let allowed = strings_between(DENY, "allow = [");
        for good in ["MIT", "MIT/Apache-2.0", "GPL OR MIT", "(GPL OR ISC) AND MIT", "A WITH B"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["GPL", "MIT AND GPL", "A", "A WITH C", "", "(MIT", "MIT ISC"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_foreign_licence_and_a_doubled_crate_are_found() {
        let package = |id: &str, name: &str, version: &str, license: &str| json!({"id": id, "name": name, "version": version, "license": license});
        let metadata = json!({
            "packages": [
                package("a", "arrow", "1.0.0", "MIT"),
                package("b", "arrow", "2.0.0", "MIT"),
                package("c", "other", "1.0.0", "GPL"),
                package("d", "unresolved", "1.0.0", "GPL"),
            ],
            "resolve": {"nodes": [{"id": "a"}, {"id": "b"}, {"id": "c"}]},
        });
        let found: Vec<String> = check(&metadata, DENY).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "deny.toml:1: other's licence is not in the list: GPL",
                "Cargo.lock:1: arrow is there more than once: 1.0.0, 2.0.0",
            ]
        );
    }
}
