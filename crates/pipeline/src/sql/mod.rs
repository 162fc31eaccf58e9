//! SQL as Forebay takes it from people: parsing with positions, and the one set of functions that
//! CHECK, transform and query share.
//!
//! Owns no state but the function registry. It never reads a table: see [`crate::query`] for that.

use std::sync::LazyLock;

use datafusion::execution::context::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

pub mod json;
pub(crate) mod scope;

/// The longest SQL text, in bytes.
pub const SQL_BYTES: usize = 256 << 10;

/// The most operators that one expression chains, those around its brackets included. A chain nests as
/// deep as it is long and every pass over the tree recurses, so this bounds the stack: a thread of 2 MiB
/// bears a quarter more in a debug build.
pub const SQL_OPERATORS: usize = 120;

/// The deepest nesting of parentheses, CASE and the like.
const SQL_DEPTH: usize = 50;

static DIALECT: GenericDialect = GenericDialect {};

/// What is wrong with a SQL text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SqlError {
    /// Line of the text, from 1.
    pub line: u64,
    /// Column of the line, in characters, from 1.
    pub column: u64,
    /// What was found, and what to write instead.
    pub message: String,
}

impl SqlError {
    pub(crate) fn at(location: Location, message: impl Into<String>) -> SqlError {
        SqlError {
            line: location.line.max(1),
            column: location.column.max(1),
            message: message.into(),
        }
    }

    /// Turns a parser's error, which carries its position in its text, back into one with a position.
    pub(crate) fn from_parser(error: &ParserError, text: &str) -> SqlError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return SqlError::at(
                    Location { line: 1, column: 1 },
                    format!("the SQL nests deeper than {SQL_DEPTH} levels"),
                );
            }
        };
        let (message, location) = split_location(message);
        SqlError::at(location.unwrap_or_else(|| end_of(text)), plain(message))
    }
}

/// Takes ` at Line: 3, Column: 7` off the end of a parser's message.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((head, tail)) = message.rsplit_once(" at Line: ") else {
        return (message, None);
    };
    let location = tail.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    if location.is_some() { (head, location) } else { (message, None) }
}

/// `Expected: a, found: b` in plain words.
fn plain(message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    match message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) {
        Some((expected, "EOF")) => format!("expected {expected}, but the text ends here"),
        Some((expected, found)) => format!("expected {expected}, found `{found}`"),
        None => message.to_owned(),
    }
}

/// The position just past the last character that is not white space.
pub(crate) fn end_of(text: &str) -> Location {
    let text = text.trim_end();
    let line = text.matches('\n').count() as u64 + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    Location { line, column: last.chars().count() as u64 + 1 }
}

/// The byte offset of a position in a text; its length for a position past the end.
pub(crate) fn offset_of(text: &str, location: Location) -> usize {
    let mut start = 0;
    for _ in 1..location.line {
        match text.get(start..).and_then(|rest| rest.find('\n')) {
            Some(end) => start += end + 1,
            None => return text.len(),
        }
    }
    let rest = text.get(start..).unwrap_or_default();
    let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    rest.char_indices().nth(column).map_or(text.len(), |(offset, _)| start + offset)
}

/// A parser over a text whose size and nesting are bounded.
pub(crate) fn parser(text: &str) -> Result<Parser<'static>, SqlError> {
    if text.len() > SQL_BYTES {
        return Err(SqlError::at(
            Location { line: 1, column: 1 },
            format!("the SQL is {} bytes long; the most is {SQL_BYTES}", text.len()),
        ));
    }
    let tokens = Tokenizer::new(&DIALECT, text)
        .tokenize_with_location()
        .map_err(|error| SqlError::at(error.location, error.message))?;
    if let Some(token) = too_deep(&tokens) {
        return Err(SqlError::at(
            token.span.start,
            format!(
                "an expression of more than {SQL_OPERATORS} operators; write IN (…) for many values"
            ),
        ));
    }
    Ok(Parser::new(&DIALECT).with_recursion_limit(SQL_DEPTH).with_tokens_with_locations(tokens))
}

/// The operator at which an expression gets too deep. Commas and clauses begin a new one.
fn too_deep(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    let mut outer = Vec::new();
    let (mut depth, mut here) = (0, 0);
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => outer.push(std::mem::take(&mut here)),
            Token::RParen | Token::RBracket => {
                depth -= here;
                here = outer.pop().unwrap_or(0);
                continue;
            }
            Token::Comma => depth -= std::mem::take(&mut here),
            Token::Word(word)
                if matches!(
                    word.keyword,
                    Keyword::SELECT
                        | Keyword::FROM
                        | Keyword::WHERE
                        | Keyword::GROUP
                        | Keyword::ORDER
                ) =>
            {
                depth -= std::mem::take(&mut here);
            }
            _ => {}
        }
        if nests(token) {
            depth += 1;
            here += 1;
        }
        if depth > SQL_OPERATORS {
            return Some(token);
        }
    }
    None
}

/// True for a token that can make the tree one level deeper.
fn nests(token: &TokenWithSpan) -> bool {
    match &token.token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::XOR
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::OPERATOR
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    }
}

/// The settings under which every SQL text of Forebay is planned.
pub(crate) fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    config
}

/// Functions and settings, without tables: what CHECK and transform are planned with.
pub(crate) fn session() -> &'static SessionState {
    static STATE: LazyLock<SessionState> = LazyLock::new(|| {
        let mut builder = SessionStateBuilder::new()
            .with_config(session_config())
            .with_default_features()
            .with_table_function_list(vec![]);
        builder.scalar_functions().get_or_insert_default().extend(json::functions());
        builder.build()
    });
    &STATE
}

/// The name an identifier stands for, case kept.
pub(crate) fn name_of(ident: &Ident) -> &str {
    &ident.value
}

/// `; did you mean `x`?` for the candidate closest to a name, or nothing when none is close.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    let lower = name.to_lowercase();
    let length = name.chars().count();
    let limit = (length / 3).max(1).min(length.saturating_sub(1));
    candidates
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != name)
        .min()
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// Levenshtein distance in characters. Names are short: identifiers past 128 characters never match.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 128;
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let up = *cell;
            left = (diagonal + usize::from(from != *to)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.chars().count())
}

/// A message of DataFusion without its framing and backtrace, on one line.
pub(crate) fn message_of(error: &datafusion::error::DataFusionError) -> String {
    let root = error.find_root();
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "Arrow error: ",
        "SQL error: ",
        "Compute error: ",
        "Cast error: ",
        "Parser error: ",
        "This feature is not implemented: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // A tree in debug form says nothing to people.
    if text.contains("Ident {") {
        let end = text.find(" {").unwrap_or(text.len());
        let head = text.get(..end).unwrap_or(text);
        text = head.rsplit_once(' ').map_or(head, |(before, _)| before);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_close_name_is_suggested_and_a_far_one_is_not() {
        let columns = ["carrier", "dep_delay", "Month"];
        assert_eq!(did_you_mean("carier", columns), "; did you mean `carrier`?");
        assert_eq!(did_you_mean("month", columns), "; did you mean `Month`?");
        assert_eq!(did_you_mean("altitude", columns), "");
    }

    #[test]
    fn positions_count_characters_not_bytes() {
        let text = "é INT,\n  ü BIGINT";
        assert_eq!(offset_of(text, Location { line: 2, column: 5 }), text.find("BIGINT").unwrap());
        assert_eq!(offset_of(text, Location { line: 9, column: 1 }), text.len());
        assert_eq!(end_of(text), Location { line: 2, column: 11 });
    }

    #[test]
    fn a_chain_of_operators_is_refused_before_it_can_fill_the_stack() {
        let chain = |length: usize| format!("1{}", " + 1".repeat(length));
        assert!(parser(&chain(SQL_OPERATORS)).is_ok());
        for text in [
            chain(SQL_OPERATORS + 1),
            format!("1 * ({})", chain(SQL_OPERATORS)),
            format!("f(1, ({}))", chain(SQL_OPERATORS + 1)),
        ] {
            let error = parser(&text).err().unwrap();
            assert!(error.message.contains("operators"), "{error}");
        }
        let many = vec![chain(SQL_OPERATORS); 20].join(", ");
        assert!(parser(&format!("SELECT {many} FROM t WHERE {}", chain(9))).is_ok());
    }
}
