//! A refused row, tried again: what must be kept beside its bytes, and how the two become a chunk.
//!
//! A row's bytes alone do not say how to read them; a CSV row has lost its header. [`reading`] is what
//! its entry notes, [`chunk`] is the way back. Pure, and the one place that knows both.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Chunk, Dialect, Format, Header, Layout, Marks, Pattern};
use crate::entry::Reading;

const NDJSON: &str = "ndjson";
const JSON: &str = "json";
const CSV: &str = "csv";
const TEXT: &str = "text";

/// A CSV body's [`Layout`], as its letters keep it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    delimiter: char,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quote: Option<char>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escape: Option<char>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<char>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    null: Option<Box<str>>,
    /// Whether the upload had a header line.
    header: bool,
    columns: Vec<String>,
}

impl Kept {
    fn of(layout: &Layout) -> Kept {
        let Marks { delimiter, quote, escape, comment } = layout.marks;
        Kept {
            delimiter: char::from(delimiter),
            quote: quote.map(char::from),
            escape: escape.map(char::from),
            comment: comment.map(char::from),
            null: layout.null.clone(),
            header: layout.header == Header::Present,
            columns: layout.names.clone(),
        }
    }

    /// `None` where a mark is no byte, which no upload can have said.
    fn layout(self) -> Option<Layout> {
        let byte = |mark: char| u8::try_from(mark).ok();
        let mark = |mark: Option<char>| match mark {
            None => Some(None),
            Some(mark) => byte(mark).map(Some),
        };
        let marks = Marks {
            delimiter: byte(self.delimiter)?,
            quote: mark(self.quote)?,
            escape: mark(self.escape)?,
            comment: mark(self.comment)?,
        };
        let header = if self.header { Header::Present } else { Header::Absent };
        Some(Layout { marks, null: self.null, header, names: self.columns })
    }
}

/// How the refused rows of a chunk are to be read; `usual` is the stream's own pattern.
pub fn reading(format: &Format, chunk: &Chunk, usual: Option<&Pattern>) -> Reading {
    let word = |word: &str| Reading { format: word.to_owned(), header: None };
    match format {
        Format::Ndjson => word(NDJSON),
        Format::Json => word(JSON),
        // A stream's own pattern may be the fault: the row is tried again by what it is then.
        Format::Text(pattern) => {
            let own = usual.map_or(*pattern == Pattern::default(), |usual| usual == pattern);
            let header = (!own).then(|| pattern.as_str().to_owned());
            Reading { format: TEXT.to_owned(), header }
        }
        Format::Csv(_) => {
            let kept = chunk.header.as_deref().map(Kept::of);
            let header = kept.and_then(|kept| serde_json::to_string(&kept).ok());
            Reading { format: CSV.to_owned(), header }
        }
    }
}

/// A chunk that holds one row's bytes and nothing else; `usual` is the stream's own pattern now.
///
/// # Errors
/// A text for people: what is missing.
pub fn chunk(
    reading: &Reading,
    raw: &Bytes,
    usual: Option<&Pattern>,
) -> Result<(Format, Chunk), String> {
    match reading.format.as_str() {
        NDJSON => Ok((Format::Ndjson, alone(raw.clone(), None))),
        JSON => {
            // An element that is an array is no body of rows: behind a comma it is one value.
            let body = if raw.first() == Some(&b'[') {
                Bytes::from([b",", raw.as_ref()].concat())
            } else {
                raw.clone()
            };
            Ok((Format::Json, alone(body, None)))
        }
        CSV => {
            let header = reading.header.as_deref().ok_or(
                "the header of its upload was too long to keep; send the row again under its header",
            )?;
            let kept: Kept = serde_json::from_str(header)
                .map_err(|error| format!("the header kept with it cannot be read: {error}"))?;
            let layout =
                kept.layout().ok_or("the header kept with it has a mark that is no byte")?;
            Ok((Format::Csv(Dialect::default()), alone(raw.clone(), Some(Arc::new(layout)))))
        }
        TEXT => {
            let pattern = match &reading.header {
                None => usual.cloned().unwrap_or_default(),
                Some(text) => Pattern::parse(text)
                    .map_err(|why| format!("the pattern kept with it: {why}"))?,
            };
            Ok((Format::Text(pattern), alone(raw.clone(), None)))
        }
        other => Err(format!("it came as `{other}`, which this version cannot read")),
    }
}

fn alone(bytes: Bytes, header: Option<Arc<Layout>>) -> Chunk {
    Chunk {
        offset: 0,
        end: bytes.len() as u64,
        bytes,
        records: 1,
        oversized: Vec::new(),
        line: 1,
        column: 1,
        last: true,
        header,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::codec::{Cutter, Decoder, Limits, Quote};
    use crate::schema::{Schema, Unknown};

    /// What a row gives when it is read again: accepted and refused.
    fn again(format: Format, body: &str, raw: &str) -> (usize, usize) {
        let mut cutter = Cutter::new(&format, Limits::default());
        cutter.push(body.to_owned().into()).unwrap();
        let first = cutter.finish().unwrap().unwrap();
        let (format, chunk) =
            chunk(&reading(&format, &first, None), &Bytes::copy_from_slice(raw.as_bytes()), None)
                .unwrap();
        let schema = Arc::new(Schema::parse("a INT NOT NULL, b TEXT").unwrap());
        let mut decoder = Decoder::new(schema, Unknown::DeadLetter, Limits::default());
        decoder.decode(&format, &chunk).map(|batch| batch.unwrap()).fold((0, 0), |sum, batch| {
            (sum.0 + batch.rows.num_rows(), sum.1 + batch.rejected.len())
        })
    }

    #[test]
    fn a_row_of_every_format_is_read_again_alone() {
        let csv = || Format::Csv(Dialect { delimiter: Some(b';'), ..Dialect::default() });
        assert_eq!(again(csv(), "b;a\nx;y\n", "\"x;\n\";7"), (1, 0));
        assert_eq!(again(csv(), "b;a\nx;y\n", "x;y"), (0, 1));
        let odd = Dialect {
            quote: Some(Quote::Byte(b'\'')),
            escape: Some(b'\\'),
            null: Some("NA".into()),
            header: Some(Header::Absent),
            names: Some(["b".into(), "a".into()].into()),
            ..Dialect::TAB
        };
        assert_eq!(again(Format::Csv(odd), "NA\tx\n", "'it\\'s\t'\t7"), (1, 0));
        let pairs = Format::Text(Pattern::parse("logfmt").unwrap());
        assert_eq!(again(pairs.clone(), "none\n", "a=1 b=x"), (1, 0));
        assert_eq!(again(pairs, "none\n", "none"), (0, 1));
        assert_eq!(again(Format::Ndjson, "{}\n", "{\"a\":1}"), (1, 0));
        assert_eq!(reading(&Format::Ndjson, &alone(Bytes::new(), None), None), Reading::object());
        assert_eq!(again(Format::Json, "[{\n}]", "{\n\"a\":1}"), (1, 0));
    }

    #[test]
    fn a_line_refused_by_the_streams_pattern_is_read_by_the_one_it_has_then() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let (old, new) = (pattern("(?<a>x)"), pattern("logfmt"));
        let first = alone(Bytes::from_static(b"a=1"), None);
        let own = reading(&Format::Text(old.clone()), &first, Some(&old));
        let requests = reading(&Format::Text(old.clone()), &first, None);
        let again = |reading: &Reading| chunk(reading, &first.bytes, Some(&new)).unwrap().0;
        assert_eq!(again(&own), Format::Text(new.clone()));
        assert_eq!(again(&requests), Format::Text(old));
    }

    #[test]
    fn an_element_that_is_an_array_is_no_body_of_rows() {
        assert_eq!(again(Format::Json, "[[{\"a\":1}]]", "[{\"a\":1}]"), (0, 1));
    }

    #[test]
    fn what_was_not_kept_is_said() {
        let csv = Reading { format: "csv".into(), header: None };
        assert!(chunk(&csv, &Bytes::new(), None).unwrap_err().contains("header"));
        let newer = Reading { format: "xml".into(), header: None };
        assert!(chunk(&newer, &Bytes::new(), None).unwrap_err().contains("`xml`"));
        let broken = Reading { format: "csv".into(), header: Some("{".into()) };
        assert!(chunk(&broken, &Bytes::new(), None).is_err());
    }
}
