//! How separated values are written: what a client may say of it, and what a body turned out to be.
//! Owns no bytes; never looks at a body (`cut` does, where something was left open).
//!
//! ```text
//! Dialect (said, in part) ─► sniffing, the header line ─► Layout (nothing left open) ─► every chunk
//! ```

use std::sync::Arc;

/// What a client says of its separated values. What it does not say is sniffed or has a default, so
/// `Dialect::default()` stands for CSV of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The field separator. Not said: the one of `, ; tab |` that the first records agree on.
    pub delimiter: Option<u8>,
    /// What stands around a field that holds separators, quotes or line ends. Not said: `"`.
    pub quote: Option<Quote>,
    /// What takes the meaning from the byte behind it. Not said: none; a quote is doubled instead.
    pub escape: Option<u8>,
    /// What a line that is no record begins with. Not said: no line is a comment.
    pub comment: Option<u8>,
    /// What an unquoted field says for NULL, in columns of every type; an empty one always is NULL.
    pub null: Option<Box<str>>,
    /// Whether the first record names the columns. Not said: it does.
    pub header: Option<Header>,
    /// The columns of a body without a header. Not said: `column_1`, `column_2`, …, as many as
    /// the first record has fields.
    pub names: Option<Arc<[String]>>,
}

/// Whether and how fields are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// By this byte.
    Byte(u8),
    /// Never: no byte is a quote.
    None,
}

/// Whether the first record of a body names its columns (`header` of RFC 4180).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// It does, and is no row.
    Present,
    /// It is a row like the others.
    Absent,
}

impl Dialect {
    /// `text/csv` of which the delimiter is known.
    pub const COMMA: Dialect = Dialect::separated_by(b',');
    /// `text/tab-separated-values`
    pub const TAB: Dialect = Dialect::separated_by(b'\t');
    /// The names that [`Dialect::set`] knows.
    pub const PARAMETERS: [&'static str; 6] =
        ["delimiter", "quote", "escape", "comment", "null", "header"];

    /// A dialect of which the delimiter is known, and nothing else.
    pub const fn separated_by(delimiter: u8) -> Dialect {
        Dialect {
            delimiter: Some(delimiter),
            quote: None,
            escape: None,
            comment: None,
            null: None,
            header: None,
            names: None,
        }
    }

    /// Takes one parameter as a client writes it, of [`Dialect::PARAMETERS`]. A delimiter, quote,
    /// escape or comment is one ASCII character or the word for it (`tab`, `comma`, `semicolon`,
    /// `pipe`, `space`, `backslash`); all but the delimiter may be `none`. Call [`Dialect::check`]
    /// when all were taken.
    ///
    /// # Errors
    /// What is wrong with the value, or that there is no such parameter, as a sentence for people.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "delimiter" => self.delimiter = Some(byte(name, value, "`;` or `tab`")?),
            "quote" => {
                self.quote = Some(match value {
                    "none" => Quote::None,
                    value => Quote::Byte(byte(name, value, "`'`, or `none`")?),
                });
            }
            "escape" => self.escape = optional(name, value, "`backslash`, or `none`")?,
            "comment" => self.comment = optional(name, value, "`#`, or `none`")?,
            "null" if value.len() > NULL_BYTES || value.contains(['\n', '\r']) => {
                return Err(format!(
                    "`null` must be a text of at most {NULL_BYTES} bytes without line ends"
                ));
            }
            "null" => self.null = Some(value.into()),
            "header" => {
                self.header = Some(match value {
                    "present" => Header::Present,
                    "absent" => Header::Absent,
                    _ => return Err("`header` must be `present` or `absent`".to_owned()),
                });
            }
            _ => {
                let known = Dialect::PARAMETERS.join("`, `");
                return Err(format!("`{name}` is no parameter of CSV; there are `{known}`"));
            }
        }
        Ok(())
    }

    /// Whether the bytes that were said can be told apart.
    ///
    /// # Errors
    /// Which two are the same, as a sentence for people.
    pub fn check(&self) -> Result<(), String> {
        let said = [
            ("delimiter", self.delimiter),
            ("quote", self.quote_byte()),
            ("escape", self.escape.filter(|_| self.escape != self.quote_byte())),
            ("comment", self.comment),
        ];
        for (index, (name, byte)) in said.iter().enumerate() {
            for (other, same) in said.iter().skip(index + 1) {
                if let (Some(byte), true) = (byte, byte == same) {
                    let byte = char::from(*byte);
                    return Err(format!("`{name}` and `{other}` are both {byte:?}"));
                }
            }
        }
        Ok(())
    }

    /// The quote, if fields are quoted.
    fn quote_byte(&self) -> Option<u8> {
        match self.quote {
            None => Some(b'"'),
            Some(Quote::Byte(byte)) => Some(byte),
            Some(Quote::None) => None,
        }
    }

    /// The bytes that have a meaning, with `delimiter` where none was said.
    pub(super) fn marks(&self, delimiter: u8) -> Marks {
        let quote = self.quote_byte();
        Marks {
            delimiter: self.delimiter.unwrap_or(delimiter),
            quote,
            // A quote that escapes a quote is the doubling that is understood anyway.
            escape: self.escape.filter(|_| self.escape != quote),
            comment: self.comment,
        }
    }

    /// True if the first record is a row.
    pub(super) fn headless(&self) -> bool {
        self.header == Some(Header::Absent)
    }
}

/// The longest text for NULL, in bytes.
const NULL_BYTES: usize = 64;

fn optional(name: &str, value: &str, such_as: &str) -> Result<Option<u8>, String> {
    if value == "none" { Ok(None) } else { byte(name, value, such_as).map(Some) }
}

fn byte(name: &str, value: &str, such_as: &str) -> Result<u8, String> {
    let byte = match (value, value.as_bytes()) {
        ("tab" | "\\t", _) => b'\t',
        ("comma", _) => b',',
        ("semicolon", _) => b';',
        ("pipe", _) => b'|',
        ("space", _) => b' ',
        ("backslash", _) => b'\\',
        (_, [byte]) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => *byte,
        _ => return Err(format!("`{name}` must be one byte, a character like {such_as}")),
    };
    Ok(byte)
}

/// The bytes of a body that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Between fields.
    pub delimiter: u8,
    /// Around a field; doubled inside it, it stands for itself.
    pub quote: Option<u8>,
    /// Before a byte that stands for itself.
    pub escape: Option<u8>,
    /// At the start of a line that is no record.
    pub comment: Option<u8>,
}

/// How one body is written and what its columns are called: known before its first row, the same
/// for all its chunks, and all that decoding one of them needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The bytes that have a meaning.
    pub marks: Marks,
    /// What an unquoted field says for NULL, beside an empty one.
    pub null: Option<Box<str>>,
    /// Where the names come from: the header line, or elsewhere.
    pub header: Header,
    /// The columns, in the order of the fields.
    pub names: Vec<String>,
}

impl Layout {
    /// A text that two bodies share only if they are read alike: the same rows under other names or
    /// between other marks are another body.
    pub fn identity(&self) -> String {
        let mut text: String = self.names.iter().map(|name| format!("{name:?},")).collect();
        if self.marks != Dialect::COMMA.marks(b',') {
            text += &format!("{:?}", self.marks);
        }
        if let Some(null) = &self.null {
            text += &format!("{null:?}");
        }
        text
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn set(parameters: &[(&str, &str)]) -> Result<Dialect, String> {
        let mut dialect = Dialect::default();
        for (name, value) in parameters {
            dialect.set(name, value)?;
        }
        dialect.check().map(|()| dialect)
    }

    #[test]
    fn a_dialect_is_what_its_parameters_say_and_open_where_they_say_nothing() {
        assert_eq!(set(&[]).unwrap(), Dialect::default());
        assert_eq!(set(&[("delimiter", "tab")]).unwrap(), Dialect::TAB);
        let said = [
            ("delimiter", ";"),
            ("quote", "'"),
            ("escape", "backslash"),
            ("comment", "#"),
            ("null", "NaN"),
            ("header", "absent"),
        ];
        let expected = Dialect {
            delimiter: Some(b';'),
            quote: Some(Quote::Byte(b'\'')),
            escape: Some(b'\\'),
            comment: Some(b'#'),
            null: Some("NaN".into()),
            header: Some(Header::Absent),
            names: None,
        };
        assert_eq!(set(&said).unwrap(), expected);
        let none = set(&[("quote", "none"), ("escape", "none"), ("comment", "none")]).unwrap();
        assert_eq!(none.marks(b',').quote, None);
        let doubled = set(&[("escape", "\"")]).unwrap();
        assert_eq!(doubled.marks(b','), Dialect::COMMA.marks(b','));
    }

    #[test]
    fn a_parameter_that_makes_no_sense_is_refused_in_words() {
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[("delimiter", "")], "`delimiter` must be one byte, a character like `;` or `tab`"),
            (&[("delimiter", "||")], "`delimiter` must be one byte, a character like `;` or `tab`"),
            (
                &[("delimiter", "none")],
                "`delimiter` must be one byte, a character like `;` or `tab`",
            ),
            (&[("quote", "«")], "`quote` must be one byte, a character like `'`, or `none`"),
            (
                &[("escape", "\n")],
                "`escape` must be one byte, a character like `backslash`, or `none`",
            ),
            (&[("null", "a\nb")], "`null` must be a text of at most 64 bytes without line ends"),
            (&[("header", "yes")], "`header` must be `present` or `absent`"),
            (
                &[("separator", ";")],
                "`separator` is no parameter of CSV; there are `delimiter`, `quote`, `escape`, \
                 `comment`, `null`, `header`",
            ),
            (&[("delimiter", "\"")], "`delimiter` and `quote` are both '\"'"),
            (&[("delimiter", "#"), ("comment", "#")], "`delimiter` and `comment` are both '#'"),
        ];
        for (said, expected) in cases {
            assert_eq!(set(said).unwrap_err(), expected, "{said:?}");
        }
    }

    #[test]
    fn bodies_that_are_read_differently_have_another_identity() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let marks = Dialect::COMMA.marks(b',');
        let plain = Layout { marks, null: None, header: Header::Present, names };
        let tabs = Layout { marks: Dialect::TAB.marks(b','), ..plain.clone() };
        let null = Layout { null: Some("-".into()), ..plain.clone() };
        let named = Layout { names: vec!["a,b".to_owned()], ..plain.clone() };
        let mut all = [&plain, &tabs, &null, &named].map(Layout::identity).to_vec();
        assert_eq!(all[0], "\"a\",\"b\",");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
