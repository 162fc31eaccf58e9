//! The toolkit's numbered behaviours: each of the ninety has a test that CI runs, named by its number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Finding;

/// How many there are.
const BEHAVIOURS: u32 = 90;

/// Checks that every number has a test among the toolkit's files. What a model checker runs does not count.
pub(super) fn check<'a>(files: impl IntoIterator<Item = (&'a PathBuf, String)>) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    for (file, text) in files {
        let model = file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("model"));
        if !model {
            found.extend(text.lines().flat_map(numbers));
        }
    }
    let missing = (1..=BEHAVIOURS).filter(|number| !found.contains(number));
    let place = Path::new("crates/flow");
    missing
        .map(|number| Finding::new(place, 1, format!("no test `b{number:02}_…` of that behaviour")))
        .collect()
}

/// The numbers that a function's name begins with: `fn b12_…`, `fn b58_b59_…`.
fn numbers(line: &str) -> Vec<u32> {
    let Some((_, name)) = line.split_once("fn b") else { return Vec::new() };
    format!("b{name}").split('_').map_while(|part| part.strip_prefix('b')?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_number_is_found_and_a_model_is_no_test() {
        let text = |from: u32, to: u32| {
            (from..=to).map(|n| format!("fn b{n:02}_it_is() {{}}\n")).collect::<String>()
        };
        let (tests, model) = (PathBuf::from("tests/it/a.rs"), PathBuf::from("src/a/model.rs"));
        assert_eq!(check([(&tests, text(1, BEHAVIOURS))]), []);
        let found =
            check([(&tests, text(1, BEHAVIOURS - 1)), (&model, text(BEHAVIOURS, BEHAVIOURS))]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().contains("b90_"));
    }

    #[test]
    fn one_test_may_stand_for_several() {
        assert_eq!(numbers("    async fn b58_b59_up_and_down() {"), [58, 59]);
        assert_eq!(numbers("fn bytes_are_counted() {"), Vec::<u32>::new());
    }
}
