//! The toolkit's public items, kept in `crates/flow/API.txt`: what is made public shows in a review, and stays trimmed.
//!
//! Reads the source as `rustfmt` leaves it, line by line, and not as a compiler would: a public item of a private module
//! is listed too, where the lint `unreachable_pub` would speak of it. Traits that a type implements are not listed.

use std::path::{Path, PathBuf};

use super::Finding;

/// Where the list is kept.
pub(super) const LIST: &str = "crates/flow/API.txt";
const SOURCE: &str = "crates/flow/src";
const HEAD: &str = "Public items of forebay-flow, written by `cargo xtask tidy --write-api`.\n";

/// Checks the list against the files of the toolkit, in their order.
pub(super) fn check<'a>(
    kept: &str,
    files: impl IntoIterator<Item = (&'a PathBuf, String)>,
) -> Vec<Finding> {
    let now = list(files);
    if now == kept {
        return Vec::new();
    }
    let same = now.lines().zip(kept.lines()).take_while(|(now, kept)| now == kept).count();
    let line = |text: &str| {
        text.lines().nth(same).map_or("nothing".to_owned(), |line| format!("`{}`", line.trim()))
    };
    let message = format!(
        "the toolkit's public API has {} where this says {}: if that is meant, `cargo xtask tidy --write-api`",
        line(&now),
        line(kept)
    );
    vec![Finding::new(Path::new(LIST), same + 1, message)]
}

/// The list: each file with its public items, in the order of the source.
pub(super) fn list<'a>(files: impl IntoIterator<Item = (&'a PathBuf, String)>) -> String {
    let mut list = HEAD.to_owned();
    for (file, text) in files {
        let Ok(name) = file.strip_prefix(SOURCE) else { continue };
        let items = items(&text);
        if !items.is_empty() && file.extension().is_some_and(|extension| extension == "rs") {
            list.push_str(&format!("\n{}\n{items}", name.display()));
        }
    }
    list
}

fn items(text: &str) -> String {
    let (mut found, mut owner, mut marks) = (String::new(), None, String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim();
        if code.starts_with("#[cfg(") && code.contains("test") && !line.starts_with(' ') {
            // By the house's style tests stand last, but for a `mod name;`.
            match lines.find(|line| !line.starts_with("#[")) {
                Some(next) if next.ends_with(';') => {}
                _ => break,
            }
        } else if line.starts_with("impl") {
            // Of a trait's implementation nothing is public by its own word.
            owner = Some(joined(line, &mut lines)).filter(|header| !header.ends_with('}'));
        } else if line == "}" {
            owner = None;
        } else if code == "#[non_exhaustive]" || code == "#[doc(hidden)]" {
            marks.push_str(code);
            marks.push(' ');
        } else if code.starts_with("pub ") && !code.contains('$') {
            if let Some(owner) = owner.take_if(|_| line.starts_with(' ')) {
                found.push_str(&format!("  {owner}\n"));
            }
            let indent = " ".repeat(2 + line.len() - line.trim_start().len());
            found.push_str(&format!(
                "{indent}{}{}\n",
                std::mem::take(&mut marks),
                joined(line, &mut lines)
            ));
            if ["pub enum", "pub trait"].iter().any(|kind| line.starts_with(kind))
                && line.ends_with('{')
            {
                let body = lines.by_ref().take_while(|line| *line != "}");
                let body = body
                    .filter(|line| !["//", "#["].iter().any(|mark| line.trim().starts_with(mark)));
                body.for_each(|line| found.push_str(&format!("  {line}\n")));
            }
        } else if !code.starts_with("//") && !code.starts_with("#[") {
            marks.clear();
        }
    }
    found
}

/// A declaration on one line, without its body.
fn joined<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut whole = first.trim().to_owned();
    // A field ends with a comma, and so may a line of arguments.
    let field = first.starts_with("    pub") && first.ends_with(',') && !first.contains("fn ");
    let ends: &[char] = if first.starts_with("pub use") { &[';'] } else { &['{', '}', ';'] };
    while !field && !whole.ends_with(ends) {
        let Some(next) = lines.next() else { break };
        if !whole.ends_with(['(', '{']) {
            whole.push(' ');
        }
        whole.push_str(next.trim());
    }
    whole
        .trim_end_matches(['{', ',', ';', ' '])
        .replace(", )", ")")
        .replace(", }", "}")
        .replace("(mut self", "(self")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"//! A module.

/// A kind.
#[derive(Debug)]
#[non_exhaustive]
pub enum Kind {
    /// One.
    One,
    Two {
        size: usize,
    },
}

pub(crate) struct Own {
    pub(crate) id: u64,
}

impl Drop for Own {
    fn drop(&mut self) {}
}

/// A row.
pub struct Row {
    /// Its name.
    pub name: String,
    id: u64,
}

impl<T> Queue<T> {
    fn own(&self) {}

    /// Adds.
    #[must_use]
    pub fn add(
        mut self,
        item: T,
    ) -> Result<(), T>
    where
        T: Send,
    {
        loop {}
    }
}

#[cfg(all(test, loom))]
mod model;
pub use row::{
    Row,
    Rows,
};

#[cfg(test)]
mod tests {
    pub fn none() {}
}
"#;

    const LISTED: &str = "
a.rs
  #[non_exhaustive] pub enum Kind
      One,
      Two {
          size: usize,
      },
  pub struct Row
      pub name: String
  impl<T> Queue<T>
      pub fn add(self, item: T) -> Result<(), T> where T: Send
  pub use row::{Row, Rows}
";

    fn of(text: &str) -> String {
        let (toolkit, other) =
            (PathBuf::from("crates/flow/src/a.rs"), PathBuf::from("crates/flow/tests/b.rs"));
        list([(&toolkit, text.to_owned()), (&other, text.to_owned())])
    }

    #[test]
    fn it_lists_what_is_public_with_its_owner_and_nothing_else() {
        assert_eq!(of(TEXT), format!("{HEAD}{LISTED}"));
    }

    #[test]
    fn a_change_is_named_by_its_first_line() {
        let files = PathBuf::from("crates/flow/src/a.rs");
        assert_eq!(check(&of(TEXT), [(&files, TEXT.to_owned())]), []);
        let changed = TEXT.replace("pub name: String", "pub name: Box<str>");
        let found = check(&of(TEXT), [(&files, changed)]);
        assert!(
            found[0]
                .to_string()
                .contains("`pub name: Box<str>` where this says `pub name: String`"),
            "{found:?}"
        );
    }
}
