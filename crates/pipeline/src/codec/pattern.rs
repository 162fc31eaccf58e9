//! How a line of text becomes columns: the line as it is, the named groups of a regular expression,
//! or a built-in form. Owns compiled patterns; a clone shares them.
//!
//! A pattern describes the whole line, so nothing of a line is lost unseen: what a line holds
//! beyond it makes the line no match. `docs/patterns.md` has an example of each built-in.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::Type;

/// The column of a line without a pattern.
pub const LINE: &str = "line";

/// The longest pattern, in bytes.
const PATTERN_BYTES: usize = 4096;
/// The most memory of a compiled pattern, and of the automaton that it builds as it runs; in bytes.
const COMPILED_BYTES: usize = 256 << 10;
/// The most groups of a pattern, those without a name included: matching keeps the places of all of
/// them for every state it is in.
const GROUPS: usize = 32;
/// The longest line that an expression is tried on, in bytes: its time grows with the product of
/// the two.
pub(super) const MATCHED_BYTES: usize = 16 << 10;
/// How deep groups nest: a text may be copied once for each.
const NESTING: u32 = 24;

/// One form of line that has a name.
struct BuiltIn {
    name: &'static str,
    regex: &'static str,
    /// The types of columns that are not TEXT, for a stream whose schema is inferred.
    types: &'static [(&'static str, Type)],
}

/// What stands between quotes in a web server's log.
macro_rules! common {
    () => {
        r#"(?<host>\S+) (?<ident>\S+) (?<user>\S+) \[(?<time>[^\]]*)\] "(?<request>(?<method>[A-Za-z]+) (?<path>[^" ]+)(?: (?<protocol>[^" ]+))?|(?:[^"\\]|\\.)*)" (?<status>\d{3}) (?<bytes>\d+|-)"#
    };
}

const WEB: &[(&str, Type)] =
    &[("time", Type::Timestamp), ("status", Type::Int), ("bytes", Type::BigInt)];

const BUILT_IN: [BuiltIn; 4] = [
    BuiltIn { name: "common", regex: common!(), types: WEB },
    BuiltIn {
        name: "combined",
        regex: concat!(common!(), r#" "(?<referer>(?:[^"\\]|\\.)*)" "(?<agent>(?:[^"\\]|\\.)*)""#),
        types: WEB,
    },
    BuiltIn {
        name: "syslog3164",
        regex: r"(?:<(?<priority>\d{1,3})>)?(?<time>[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d) (?<host>\S+) (?:(?<app>[^\s:\[]+)(?:\[(?<pid>[^\]]*)\])?: ?)?(?<message>.*)",
        types: &[("priority", Type::Int)],
    },
    BuiltIn {
        name: "syslog5424",
        regex: r"<(?<priority>\d{1,3})>(?<version>\d{1,2}) (?<time>\S+) (?<host>\S+) (?<app>\S+) (?<procid>\S+) (?<msgid>\S+) (?<structured_data>-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: \x{FEFF}?(?<message>.*))?",
        types: &[("priority", Type::Int), ("version", Type::Int), ("time", Type::Timestamp)],
    },
];

/// How lines are read. Equal to another of the same text.
#[derive(Clone)]
pub struct Pattern(Arc<Inner>);

struct Inner {
    text: String,
    kind: Kind,
}

pub(super) enum Kind {
    /// One column, the line.
    Line,
    /// `key=value` pairs.
    Logfmt,
    /// The named groups of an expression.
    Groups(Groups),
}

pub(super) struct Groups {
    pub(super) regex: Regex,
    /// Each named group: its index and its name.
    pub(super) names: Vec<(usize, String)>,
    /// A text that stands for NULL in columns of every type.
    pub(super) null: Option<&'static [u8]>,
    types: &'static [(&'static str, Type)],
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern(Arc::new(Inner { text: LINE.to_owned(), kind: Kind::Line }))
    }
}

impl Pattern {
    /// The names of the built-in patterns.
    pub const BUILT_IN: [&str; 6] =
        [LINE, "common", "combined", "logfmt", "syslog3164", "syslog5424"];

    /// The pattern of a built-in's name, or of a regular expression with named groups.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        if text.len() > PATTERN_BYTES {
            return Err(format!(
                "the pattern has {} bytes; the limit is {PATTERN_BYTES}",
                text.len()
            ));
        }
        let kind = match text {
            LINE => Kind::Line,
            "logfmt" => Kind::Logfmt,
            _ => match BUILT_IN.iter().find(|known| known.name == text) {
                Some(known) => {
                    let groups = groups(known.regex)?;
                    Kind::Groups(Groups { null: Some(b"-"), types: known.types, ..groups })
                }
                None => Kind::Groups(groups(text)?),
            },
        };
        Ok(Pattern(Arc::new(Inner { text: text.to_owned(), kind })))
    }

    /// What it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The columns of every line, where they are known without one.
    pub(super) fn names(&self) -> Option<Vec<&str>> {
        match &self.0.kind {
            Kind::Line => Some(vec![LINE]),
            Kind::Logfmt => None,
            Kind::Groups(groups) => {
                Some(groups.names.iter().map(|(_, name)| name.as_str()).collect())
            }
        }
    }

    /// The type of a column, where the pattern knows it.
    pub(super) fn ty(&self, column: &str) -> Option<Type> {
        match &self.0.kind {
            Kind::Line => Some(Type::Text),
            Kind::Logfmt => None,
            // A built-in knows all of its columns; an expression of a user's none.
            Kind::Groups(groups) if groups.null.is_none() => None,
            Kind::Groups(groups) => {
                let known = groups.types.iter().find(|(name, _)| *name == column);
                Some(known.map_or(Type::Text, |(_, ty)| *ty))
            }
        }
    }
}

fn groups(text: &str) -> Result<Groups, String> {
    // Alone first: within the anchors, brackets that do not fit could fit.
    compile(text).map_err(|error| explain(text, &error))?;
    let regex = compile(&format!(r"\A(?:{text})\z")).map_err(|error| explain(text, &error))?;
    let named = regex.capture_names().enumerate();
    let names: Vec<(usize, String)> =
        named.filter_map(|(index, name)| Some((index, name?.to_owned()))).collect();
    if names.is_empty() {
        return Err(format!(
            "a pattern is one of {}, or a regular expression with named groups such as \
             `(?<host>\\S+) (?<message>.*)`",
            Pattern::BUILT_IN.join(", ")
        ));
    }
    let count = regex.captures_len() - 1;
    if count > GROUPS {
        return Err(format!(
            "the pattern has {count} groups; the limit is {GROUPS}: write (?:…) where a group needs no name"
        ));
    }
    Ok(Groups { regex, names, null: None, types: &[] })
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .nest_limit(NESTING)
        .build()
}

/// In one line what the expression's own error says in a drawing.
fn explain(text: &str, error: &regex::Error) -> String {
    let regex::Error::Syntax(drawing) = error else {
        return format!("the pattern takes more than {COMPILED_BYTES} bytes once compiled");
    };
    let why = drawing.lines().last().unwrap_or_default().trim_start_matches("error: ");
    // The drawing repeats a pattern of one line, indented by four, and points below it.
    let caret = drawing.lines().find(|line| line.trim_start().starts_with('^'));
    match caret.and_then(|line| line.find('^')) {
        Some(at) if !text.contains('\n') => {
            format!("the pattern is no regular expression: character {}: {why}", at - 3)
        }
        _ => format!("the pattern is no regular expression: {why}"),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_saying_where_or_why() {
        let refusal = |text: &str| Pattern::parse(text).err().unwrap_or_default();
        let cases = [
            (r"(?<a>\d+", "the pattern is no regular expression: character 1: unclosed group"),
            (r"a)(?<b>.", "the pattern is no regular expression: character 2: unopened group"),
            ("comon", "a pattern is one of line, common, combined, logfmt"),
            (r"\d+", "a regular expression with named groups"),
            (r"(?<a>(?:\w{200}){200})", "more than 262144 bytes once compiled"),
        ];
        for (text, expected) in cases {
            assert!(refusal(text).contains(expected), "{text}: {}", refusal(text));
        }
        let groups = "(?<a>.)".to_owned() + &"()".repeat(32);
        assert!(refusal(&groups).contains("33 groups; the limit is 32"), "{}", refusal(&groups));
        assert!(refusal(&"x".repeat(5000)).contains("the limit is 4096"));
        let nested = format!("{}x{}", "(?<a>".to_owned() + &"(?:".repeat(40), ")".repeat(41));
        assert!(refusal(&nested).contains("nest"), "{}", refusal(&nested));
    }

    #[test]
    fn every_built_in_can_be_parsed_and_is_equal_to_itself() {
        for name in Pattern::BUILT_IN {
            assert_eq!(Pattern::parse(name), Pattern::parse(name));
            assert!(Pattern::parse(name).is_ok(), "{name}");
        }
    }
}
