//! The order of the crates: each may use only those below it.

use std::path::Path;

use serde_json::Value;

use super::Finding;

/// Bottom first. `forebay-jobs` depends on flow alone.
const ORDER: [&str; 5] =
    ["forebay-flow", "forebay-journal", "forebay-pipeline", "forebay-jobs", "forebay"];

/// Tests of the whole, which may use everything and which nothing may use.
const SIM: &str = "forebay-sim";

/// Checks the manifests' dependencies, as `cargo metadata` shows them.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut findings = Vec::new();
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            // A dev-dependency is code that no user runs.
            let test_only = dependency["kind"].as_str() == Some("dev");
            if !dependency["path"].is_null() && !allowed(name, other, test_only) {
                let message = format!(
                    "{name} depends on {other}, which is not below it (order from below: {})",
                    ORDER.join(" < ")
                );
                findings.push(Finding::new(&relative(manifest, metadata), 1, message));
            }
        }
    }
    findings
}

fn relative(manifest: &Path, metadata: &Value) -> std::path::PathBuf {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf()
}

fn allowed(from: &str, to: &str, test_only: bool) -> bool {
    let rank = |name| ORDER.iter().position(|other| *other == name);
    match (from, to) {
        // Its tests want its own features.
        _ if from == to => test_only,
        ("xtask", _) => false,
        (SIM, _) => true,
        (_, SIM) => test_only,
        ("forebay-jobs", _) => to == "forebay-flow",
        _ => match (rank(from), rank(to)) {
            (Some(from), Some(to)) => to < from,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn findings(from: &str, to: &str, kind: Option<&str>) -> usize {
        let dependency = json!({"name": to, "path": "/somewhere", "kind": kind});
        let package = json!({
            "name": from, "source": null, "manifest_path": "/r/Cargo.toml", "dependencies": [dependency],
        });
        check(&json!({"workspace_root": "/r", "packages": [package]})).len()
    }

    #[test]
    fn a_crate_may_use_only_those_below_it() {
        assert_eq!(findings("forebay", "forebay-flow", None), 0);
        assert_eq!(findings("forebay-pipeline", "forebay-journal", None), 0);
        assert_eq!(findings("forebay-flow", "forebay-journal", None), 1);
        assert_eq!(findings("forebay-journal", "forebay-pipeline", Some("dev")), 1);
        assert_eq!(findings("forebay-jobs", "forebay-pipeline", None), 1);
        assert_eq!(findings("forebay-unheard-of", "forebay-flow", None), 1);
        assert_eq!(findings("forebay-flow", "forebay-flow", Some("dev")), 0);
    }

    #[test]
    fn the_simulation_uses_all_and_only_tests_use_it() {
        assert_eq!(findings("forebay-sim", "forebay", None), 0);
        assert_eq!(findings("forebay", "forebay-sim", Some("dev")), 0);
        assert_eq!(findings("forebay", "forebay-sim", None), 1);
    }

    #[test]
    fn xtask_stays_light() {
        assert_eq!(findings("xtask", "forebay-flow", None), 1);
    }
}
