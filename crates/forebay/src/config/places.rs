//! Where something stands in the file: `forebay.toml:3:10`, also inside of a setting's text.
//! Pure text to positions; judges nothing.
//!
//! ```text
//! path ─► the value's place in the file ─► (for SQL) line and column in its text ─► place in the file
//! ```

use toml::de::{DeTable, DeValue};

/// `name:line:column`, both from 1; the column counts characters.
pub(super) fn at(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    format!("{name}:{line}:{column}")
}

/// Where the deepest part of `path` that was written stands.
pub(super) fn offset_of(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let mut found = None;
    let mut here = table;
    let mut rest = path;
    while let [name, tail @ ..] = rest {
        let Some((key, value)) = here.iter().find(|(key, _)| key.get_ref().as_ref() == name) else {
            return found;
        };
        let whole = tail.is_empty() && !value.get_ref().is_table();
        found = Some(if whole { value.span().start } else { key.span().start });
        rest = tail;
        match value.get_ref() {
            DeValue::Table(inner) => here = inner,
            DeValue::Array(items) => {
                let index = rest.first().and_then(|index| index.parse::<usize>().ok());
                let Some(item) = index.and_then(|index| items.get(index)) else { return found };
                found = Some(item.span().start);
                rest = rest.get(1..).unwrap_or_default();
                match item.get_ref() {
                    DeValue::Table(inner) => here = inner,
                    _ => return found,
                }
            }
            _ => return found,
        }
    }
    found
}

/// The same for a line and column, from 1, within the text that a string holds. `None` when the path leads
/// to no string.
pub(super) fn offset_within(
    text: &str,
    table: &DeTable<'_>,
    path: &[String],
    (line, column): (u64, u64),
) -> Option<usize> {
    let (last, parents) = path.split_last()?;
    let mut here = table;
    for name in parents {
        here = here.get(name.as_str())?.get_ref().as_table()?;
    }
    let value = here.get(last.as_str())?;
    value.get_ref().as_str()?;
    let span = value.span();
    Some(span.start + place_in_string(text.get(span)?, line, column))
}

/// The offset in a TOML string, as written with its quotes, of a line and column of the text it stands for.
/// A place past the end is the end.
fn place_in_string(raw: &str, line: u64, column: u64) -> usize {
    let quotes = ["\"\"\"", "'''", "\"", "'"];
    let quote = quotes.into_iter().find(|quote| raw.starts_with(quote)).unwrap_or_default();
    let escapes = quote.starts_with('"');
    let mut at = quote.len();
    if quote.len() == 3 {
        // A line break right after the quotes is not part of the text.
        at += ["\r\n", "\n"]
            .iter()
            .find(|end| rest_of(raw, at).starts_with(*end))
            .map_or(0, |e| e.len());
    }
    let end = raw.len() - quote.len().min(raw.len() - at);
    let (mut here, mut there) = (1, 1);
    while at < end && (here, there) != (line, column) {
        let (length, stands_for) = unit(rest_of(raw, at), escapes);
        // A column past the end of its line stands for the end of the line.
        if stands_for == Some('\n') && here == line {
            break;
        }
        match stands_for {
            Some('\n') => (here, there) = (here + 1, 1),
            Some(_) => there += 1,
            None => {}
        }
        at += length.max(1);
    }
    at.min(end)
}

fn rest_of(raw: &str, at: usize) -> &str {
    raw.get(at..).unwrap_or_default()
}

/// What stands first in `rest`: its length in bytes, and the character it stands for, if for any.
fn unit(rest: &str, escapes: bool) -> (usize, Option<char>) {
    let mut chars = rest.chars();
    let first = chars.next();
    match (first, chars.next()) {
        (Some('\r'), Some('\n')) => (2, Some('\n')),
        (Some('\\'), Some(kind)) if escapes => escape(rest, kind),
        (Some(plain), _) => (plain.len_utf8(), Some(plain)),
        (None, _) => (0, None),
    }
}

fn escape(rest: &str, kind: char) -> (usize, Option<char>) {
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        'n' => return (2, Some('\n')),
        kind if kind.is_whitespace() => {
            // A line break that the text does not have, and the white space after it.
            let gap = rest_of(rest, 1);
            return (1 + gap.len() - gap.trim_start().len(), None);
        }
        // Whatever else an escape stands for is one character of no special width.
        kind => return (1 + kind.len_utf8(), Some(kind)),
    };
    let code = rest.get(2..2 + digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    (2 + digits, Some(code.and_then(char::from_u32).unwrap_or(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where `needle`, which the text holds once, stands in what was written, by its place in the text.
    fn found(toml: &str, needle: &str) -> bool {
        let table = DeTable::parse(toml).unwrap_or_else(|error| panic!("{error}"));
        let table = table.get_ref();
        let text = table.get("v").and_then(|v| v.get_ref().as_str()).unwrap_or_default();
        let (before, _) = text.split_once(needle).unwrap_or_else(|| panic!("{needle} in {text}"));
        let line = before.matches('\n').count() as u64 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
        let at = offset_within(toml, table, &["v".to_owned()], (line, column));
        at.is_some_and(|at| toml.get(at..).is_some_and(|rest| rest.starts_with(needle)))
    }

    #[test]
    fn a_place_in_a_string_is_found_in_the_file_however_the_string_is_written() {
        for toml in [
            "v = \"a INT, HERE\"",
            "v = 'a INT, HERE'",
            "a = 1\nv = \"\"\"\n  a INT,\n  HERE INT\n\"\"\"\n",
            "v = '''\r\n  a INT,\r\n  HERE INT'''",
            "v = \"tab\\t quote\\\" unicode \\u00e9 \\U0001F30A \\x41 \\n HERE\"",
            "v = \"\"\"one \\\n      two HERE\"\"\"",
            "v = \"\"\"\"quoted\"\" HERE\"\"\"",
            "v = \"grüße 🌊 HERE\"",
        ] {
            assert!(found(toml, "HERE"), "{toml}");
        }
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        let toml = "v = \"\"\"ab\ncd\"\"\"";
        assert_eq!(place_in_string("\"ab\"", 9, 9), 3);
        assert_eq!(place_in_string("\"\"", 1, 1), 1);
        assert_eq!(place_in_string("", 1, 1), 0);
        let table = DeTable::parse(toml).unwrap_or_else(|error| panic!("{error}"));
        let line_end = offset_within(toml, table.get_ref(), &["v".to_owned()], (1, 80));
        assert_eq!(line_end, toml.find('\n'));
    }
}
