//! The query of a debug page: parsed once, checked whole.
//!
//! Owns nothing. Nothing that is not known is passed over in silence: a misspelt filter would show everything.

use percent_encoding::percent_decode_str;

use super::MAX_SHOWN;
use crate::dump::MAX_STACKS_PER_GROUP;

const USUALLY_SHOWN: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Kept is what contains it.
    pub(super) name: String,
    /// Kept is what contains it.
    pub(super) place: String,
    pub(super) stacks: usize,
    pub(super) limit: usize,
    pub(super) format: Format,
}

impl Query {
    /// Says in a sentence what is wrong.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut query = Self {
            name: String::new(),
            place: String::new(),
            stacks: 0,
            limit: USUALLY_SHOWN,
            format: Format::Text,
        };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key)?, decoded(value)?);
            if !known.contains(&key.as_str()) {
                return Err(match known {
                    [] => format!("this page has no parameter `{key}`: it has none"),
                    _ => format!("this page has no parameter `{key}`: it has {}", known.join(", ")),
                });
            }
            match key.as_str() {
                "name" => query.name = value,
                "place" => query.place = value,
                "stacks" => query.stacks = number(&key, &value, 0, MAX_STACKS_PER_GROUP)?,
                "limit" => query.limit = number(&key, &value, 1, MAX_SHOWN)?,
                _ => query.format = format(&value)?,
            }
        }
        Ok(query)
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(String::from).map_err(|_| format!("`{text}` is not UTF-8"))
}

fn number(key: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{key}={value}: it must be a number from {least} to {most}"))
}

fn format(value: &str) -> Result<Format, String> {
    match value {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("format={value}: it must be text or json")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Format, Query};

    const KNOWN: &[&str] = &["name", "place", "stacks", "limit", "format"];

    #[test]
    fn values_are_decoded_and_the_rest_has_defaults() {
        let query = Query::parse("place=src%2Fa+b.rs&&stacks=2&format=json", KNOWN).unwrap();
        let expected = Query {
            name: String::new(),
            place: "src/a b.rs".to_owned(),
            stacks: 2,
            limit: 100,
            format: Format::Json,
        };
        assert_eq!(query, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        let refused = |text| Query::parse(text, KNOWN).unwrap_err();
        assert_eq!(refused("stacks=9"), "stacks=9: it must be a number from 0 to 8");
        assert_eq!(refused("stacks"), "stacks=: it must be a number from 0 to 8");
        assert_eq!(refused("limit=0"), "limit=0: it must be a number from 1 to 1000");
        assert_eq!(refused("format=xml"), "format=xml: it must be text or json");
        assert_eq!(refused("name=%ff"), "`%ff` is not UTF-8");
        assert!(refused("stack=1").starts_with("this page has no parameter `stack`: it has name,"));
        assert!(Query::parse("limit=5", &[]).unwrap_err().ends_with("it has none"));
    }
}
