//! What a body is, by its head: `Content-Type`, `Content-Encoding` and the parameters of the query,
//! which are stronger. Owns the patterns that requests brought lately, compiled once; reads no body.

use std::collections::VecDeque;

use forebay_pipeline::codec::unpack::{Charset, Coding, Packing};
use forebay_pipeline::codec::{Dialect, Format, FormatName, Pattern};
use forebay_pipeline::stream::Usual;
use hyper::header::{self, HeaderMap};
use parking_lot::Mutex;

use super::guard::shorten;
use super::problem::Problem;
use crate::api::Engine;
use crate::catalogue;

/// The parameters of the query that say what the body is.
pub(super) const PARAMETERS: [&str; 9] =
    ["format", "charset", "pattern", "delimiter", "quote", "escape", "comment", "null", "header"];

const TYPES: &str = "text/csv, text/tab-separated-values, application/x-ndjson, \
                     application/jsonl, application/json, text/plain";

/// How many patterns of requests are kept compiled.
const KEPT_PATTERNS: usize = 8;

/// What a body is.
#[derive(Debug)]
pub(super) struct Media {
    pub(super) format: Format,
    pub(super) packing: Packing,
}

/// The format that a type names.
fn of_type(essence: &str) -> Option<FormatName> {
    match essence {
        "text/csv" => Some(FormatName::Csv),
        "text/tab-separated-values" => Some(FormatName::Tsv),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            Some(FormatName::Ndjson)
        }
        "application/json" => Some(FormatName::Json),
        "text/plain" => Some(FormatName::Text),
        _ => None,
    }
}

/// True for types that say nothing of the format; the last is what curl says when it is not told.
fn says_little(essence: &str) -> bool {
    matches!(essence, "" | "text/plain" | "application/octet-stream" | FORM)
}

const FORM: &str = "application/x-www-form-urlencoded";

type Parameters = [(&'static str, String)];

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

fn bad_parameter(detail: impl Into<String>) -> Problem {
    Problem::new(catalogue::BAD_PARAMETER, detail)
}

/// Judges the head. `pattern` is that of the query, compiled; `usual` is what the stream says.
///
/// # Errors
/// 415 for a body that is not understood, 400 for a setting that makes no sense.
pub(super) fn of(
    headers: &HeaderMap,
    parameters: &Parameters,
    pattern: Option<Pattern>,
    usual: Usual,
) -> Result<Media, Problem> {
    let coding = coding_of(headers)?;
    let content_type = ContentType::of(headers)?;
    let kind = kind_of(&content_type, parameters, pattern.is_some(), usual.format)?;
    let label = parameter(parameters, "charset").or_else(|| content_type.parameter("charset"));
    let charset = match label {
        None => Charset::default(),
        Some(label) => Charset::parse(label).ok_or_else(|| {
            unsupported_type(format!(
                "the charset `{}` is not known; utf-8, utf-16le, utf-16be, iso-8859-1 and the other \
                 labels of the WHATWG Encoding Standard are",
                shorten(label)
            ))
        })?,
    };
    if pattern.is_some() && kind != FormatName::Text {
        return Err(bad_parameter(format!(
            "`pattern` is for text/plain; the body is {}",
            kind.as_str()
        )));
    }
    let format = match kind {
        FormatName::Ndjson => Format::Ndjson,
        FormatName::Json => Format::Json,
        FormatName::Text => Format::Text(pattern.or(usual.pattern).unwrap_or_default()),
        FormatName::Csv | FormatName::Tsv => {
            Format::Csv(dialect_of(kind, &content_type, parameters)?)
        }
    };
    let csv_only = parameters.iter().find(|(name, _)| Dialect::PARAMETERS.contains(name));
    let separated = matches!(kind, FormatName::Csv | FormatName::Tsv);
    if let (Some((name, _)), false) = (csv_only, separated) {
        return Err(bad_parameter(format!(
            "`{name}` is for text/csv; the body is {}",
            kind.as_str()
        )));
    }
    Ok(Media { format, packing: Packing { coding, charset } })
}

fn kind_of(
    content_type: &ContentType,
    parameters: &Parameters,
    patterned: bool,
    usual: Option<FormatName>,
) -> Result<FormatName, Problem> {
    if let Some(word) = parameter(parameters, "format") {
        return FormatName::parse(word).ok_or_else(|| {
            bad_parameter(format!(
                "`format={}` is none of csv, tsv, ndjson, json, text",
                shorten(word)
            ))
        });
    }
    let essence = content_type.essence.as_str();
    if says_little(essence) {
        // A pattern says what the body is as well as a type would.
        let said = if patterned { Some(FormatName::Text) } else { usual };
        if let Some(said) = said {
            return Ok(said);
        }
    }
    if let Some(named) = of_type(essence) {
        return Ok(named);
    }
    let line = "-H 'Content-Type: text/csv'";
    Err(unsupported_type(match essence {
        "" => format!(
            "the Content-Type is missing; say what the body is, as with curl {line} \
             (supported: {TYPES})"
        ),
        // What curl says when it is told nothing else.
        FORM => format!(
            "`{essence}` is what curl says of --data and --data-binary by itself; say what the body \
             is: {line}, and send it with --data-binary @FILE (supported: {TYPES})"
        ),
        other => format!("`{}` is not supported; supported: {TYPES}", shorten(other)),
    }))
}

fn unsupported_type(detail: String) -> Problem {
    Problem::new(catalogue::UNSUPPORTED_TYPE, detail)
}

fn dialect_of(
    kind: FormatName,
    content_type: &ContentType,
    parameters: &Parameters,
) -> Result<Dialect, Problem> {
    let mut dialect = if kind == FormatName::Tsv { Dialect::TAB } else { Dialect::default() };
    let of_type = content_type.parameters.iter().map(|(name, value)| (name.as_str(), value));
    let of_query = parameters.iter().map(|(name, value)| (*name, value));
    for (name, value) in of_type.chain(of_query) {
        if Dialect::PARAMETERS.contains(&name) {
            dialect.set(name, value).map_err(bad_parameter)?;
        }
    }
    dialect.check().map_err(bad_parameter)?;
    Ok(dialect)
}

fn coding_of(headers: &HeaderMap) -> Result<Coding, Problem> {
    let refused = |detail: String| Err(Problem::new(catalogue::UNSUPPORTED_ENCODING, detail));
    let mut found = Coding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            match Coding::parse(name) {
                Some(Coding::Identity) => {}
                Some(coding) if found == Coding::Identity => found = coding,
                Some(_) => {
                    let supported = Coding::SUPPORTED;
                    return refused(format!(
                        "the body was encoded more than once; encode it once, with one of {supported}"
                    ));
                }
                None => {
                    let (name, supported) = (shorten(name), Coding::SUPPORTED);
                    return refused(format!("`{name}` is not supported; supported: {supported}"));
                }
            }
        }
    }
    Ok(found)
}

/// A `Content-Type`: what it names, in small letters, and its parameters.
#[derive(Debug, Default, PartialEq, Eq)]
struct ContentType {
    essence: String,
    parameters: Vec<(String, String)>,
}

impl ContentType {
    /// The request's; empty where there is none.
    fn of(headers: &HeaderMap) -> Result<ContentType, Problem> {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let Some(value) = values.next() else { return Ok(ContentType::default()) };
        if values.next().is_some() {
            let detail = "there is more than one Content-Type; send one";
            return Err(Problem::new(catalogue::BAD_HEADER, detail));
        }
        Ok(ContentType::parse(value.to_str().unwrap_or("?")))
    }

    fn parse(text: &str) -> ContentType {
        let mut parts = parts(text).into_iter();
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), unquote(value)))
        });
        ContentType { essence, parameters: parameters.collect() }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The parts between semicolons; one inside quotes separates nothing.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for char in text.chars() {
        match char {
            ';' if !quoted => parts.push(std::mem::take(&mut part)),
            _ => {
                quoted ^= char == '"' && !escaped;
                escaped = quoted && char == '\\' && !escaped;
                part.push(char);
            }
        }
    }
    parts.push(part);
    parts
}

/// The text of a token, or of a quoted string.
fn unquote(value: &str) -> String {
    // A tab alone is a value, and white space besides.
    let trimmed = value.trim_matches(' ');
    let inner = trimmed.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else { return trimmed.to_owned() };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        text.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    text
}

/// The patterns of the last requests.
#[derive(Debug, Default)]
pub(super) struct Patterns(Mutex<VecDeque<Pattern>>);

impl Patterns {
    /// The compiled pattern of the query; compiled on the validators' threads where it is new.
    ///
    /// # Errors
    /// 400 for what is no pattern, saying where.
    pub(super) async fn of(
        &self,
        engine: &Engine,
        parameters: &Parameters,
    ) -> Result<Option<Pattern>, Problem> {
        let Some(text) = parameter(parameters, "pattern") else { return Ok(None) };
        let known = self.0.lock().iter().find(|pattern| pattern.as_str() == text).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let owned = text.to_owned();
        let parsed =
            engine.validators().run(move || Pattern::parse(&owned)).await.map_err(|error| {
                Problem::new(
                    catalogue::INTERNAL,
                    format!("the pattern could not be compiled: {error}"),
                )
            })?;
        let pattern = parsed.map_err(bad_parameter)?;
        let mut kept = self.0.lock();
        kept.truncate(KEPT_PATTERNS - 1);
        kept.push_front(pattern.clone());
        Ok(Some(pattern))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn media(
        pairs: &[(&'static str, &'static str)],
        query: &[(&'static str, &str)],
    ) -> Result<Media, Problem> {
        let query: Vec<_> =
            query.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let pattern = parameter(&query, "pattern").map(|text| Pattern::parse(text).unwrap());
        of(&headers(pairs), &query, pattern, Usual::default())
    }

    fn typed(value: &'static str) -> Result<Format, Problem> {
        media(&[("content-type", value)], &[]).map(|media| media.format)
    }

    #[test]
    fn a_content_type_is_read_in_any_case_with_its_parameters() {
        let semicolon = Dialect::separated_by(b';');
        for (value, format) in [
            ("text/csv; charset=UTF-8", Format::Csv(Dialect::default())),
            ("text/csv;delimiter=\";\"", Format::Csv(semicolon)),
            ("text/tab-separated-values", Format::Csv(Dialect::TAB)),
            ("Application/X-NDJSON", Format::Ndjson),
            ("application/json;charset=\"utf-8\"; version=1", Format::Json),
            ("text/plain", Format::Text(Pattern::default())),
        ] {
            assert_eq!(typed(value).unwrap(), format, "{value}");
        }
        for value in ["image/png", "text/csv; charset=klingon", "", "text"] {
            let problem = typed(value).unwrap_err();
            assert_eq!(problem.kind.status, 415, "{value}");
        }
        assert_eq!(typed("text/csv; header=yes").unwrap_err().kind.code, "bad-parameter");
    }

    #[test]
    fn what_the_query_says_is_stronger_than_the_type() {
        let csv = [("content-type", "text/csv; delimiter=comma")];
        let Media { format, packing } =
            media(&csv, &[("delimiter", "tab"), ("charset", "latin1")]).unwrap();
        assert_eq!(format, Format::Csv(Dialect::TAB));
        assert_eq!(Some(packing.charset), Charset::parse("iso-8859-1"));
        assert_eq!(media(&csv, &[("format", "json")]).unwrap().format, Format::Json);
        let logfmt = Format::Text(Pattern::parse("logfmt").unwrap());
        assert_eq!(media(&[], &[("pattern", "logfmt")]).unwrap().format, logfmt);
        for query in [("pattern", "logfmt"), ("format", "xml"), ("header", "maybe")] {
            assert_eq!(media(&csv, &[query]).unwrap_err().kind.code, "bad-parameter", "{query:?}");
        }
        let json = [("content-type", "application/json")];
        assert_eq!(media(&json, &[("delimiter", ";")]).unwrap_err().kind.code, "bad-parameter");
    }

    #[test]
    fn a_stream_says_what_a_body_is_whose_type_says_little() {
        let csv = Usual { format: Some(FormatName::Csv), pattern: None };
        let judged = |value| {
            of(&headers(&[("content-type", value)]), &[], None, csv.clone()).map(|m| m.format)
        };
        for value in ["", "text/plain", "application/octet-stream", FORM] {
            assert_eq!(judged(value).unwrap(), Format::Csv(Dialect::default()), "{value}");
        }
        assert_eq!(judged("application/json").unwrap(), Format::Json);
        assert!(judged("image/png").is_err());
    }

    #[test]
    fn one_coding_is_taken_and_more_or_an_unknown_one_are_not() {
        let coded = |value| {
            let pairs = [("content-type", "application/json"), ("content-encoding", value)];
            media(&pairs, &[]).map(|media| media.packing.coding)
        };
        assert_eq!(coded("GZIP").unwrap(), Coding::Gzip);
        assert_eq!(coded("identity, zstd").unwrap(), Coding::Zstd);
        assert_eq!(coded("deflate").unwrap(), Coding::Deflate);
        for value in ["gzip, gzip", "br", "gzip, br"] {
            let problem = coded(value).unwrap_err();
            assert_eq!(problem.kind.code, "unsupported-encoding", "{value}");
            assert!(problem.detail.contains("gzip, zstd, deflate"), "{}", problem.detail);
        }
    }

    #[test]
    fn a_client_that_does_not_say_what_it_sends_is_shown_how_to() {
        for pairs in [&[][..], &[("content-type", "application/x-www-form-urlencoded")]] {
            let detail = media(pairs, &[]).unwrap_err().detail;
            assert!(detail.contains("-H 'Content-Type: text/csv'"), "{detail}");
        }
    }
}
