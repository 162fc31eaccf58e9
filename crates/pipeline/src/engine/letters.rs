//! Dead letters, read back: listed newest first, or one whole. Changes nothing.
//!
//! Everything is a query on `_dead_letters` and `_redriven` within the queries' share of memory and time; so
//! it needs no lane, and works on a data directory that no server serves.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use datafusion::catalog::TableProvider;

use super::ask::{empty, unreadable};
use super::{Engine, Inner};
use crate::entry::LetterId;
use crate::query::{ErrorKind, QueryError};
use crate::record::Code;
use crate::sink::{dead_letters, redriven};

/// The most letters of one list.
const LIST: usize = 1000;

/// How much of a row's text a list shows, in characters.
const SHOWN: usize = 1024;

/// Which letters, and how many of them.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Those sent to this stream.
    pub stream: Option<String>,
    /// Those refused for this reason.
    pub code: Option<Code>,
    /// Those older than this place in the list.
    pub after: Option<Place>,
    /// At most so many; a thousand is the most there is.
    pub limit: usize,
}

/// A place in the list: a letter, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it was received, in microseconds since 1970 (UTC).
    pub received_unix_micros: i64,
    /// Which it is.
    pub id: LetterId,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.received_unix_micros, self.id)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let wrong = || "`after` is the `next` of the list before".to_owned();
        let (micros, id) = text.split_once(':').ok_or_else(wrong)?;
        let received_unix_micros = micros.parse().map_err(|_| wrong())?;
        Ok(Place { received_unix_micros, id: id.parse().map_err(|_| wrong())? })
    }
}

/// A dead letter as its table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which it is.
    pub id: LetterId,
    /// The stream it was sent to.
    pub stream: String,
    /// The column at fault.
    pub column: Option<String>,
    /// Why, for machines.
    pub code: String,
    /// Why, for people.
    pub message: String,
    /// The row's bytes. In a list the beginning of its text, and nothing where it is no text.
    pub raw: Option<Bytes>,
    /// Who sent it.
    pub client: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// When it was received, in microseconds since 1970 (UTC).
    pub received_unix_micros: i64,
    /// How its bytes are read.
    pub format: Option<String>,
    /// What its upload said once; only where one letter was asked for.
    pub header: Option<String>,
    /// When it was accepted after all, in microseconds since 1970 (UTC).
    pub redriven_unix_micros: Option<i64>,
}

impl Letter {
    /// Its place in the list.
    pub fn place(&self) -> Place {
        Place { received_unix_micros: self.received_unix_micros, id: self.id }
    }

    /// When it was received, as RFC 3339.
    pub fn received_at(&self) -> String {
        rfc3339(self.received_unix_micros)
    }

    /// When it was redriven, as RFC 3339.
    pub fn redriven_at(&self) -> Option<String> {
        self.redriven_unix_micros.map(rfc3339)
    }
}

fn rfc3339(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros);
    time.map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Why dead letters were not shown, or not redriven.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// No such stream.
    #[error("no stream named `{0}`; create it, then redrive its letters")]
    UnknownStream(String),
    /// No such letter.
    #[error("there is no dead letter {0}")]
    UnknownLetter(LetterId),
    /// A redrive of the stream is under way.
    #[error("a redrive of `{0}` is under way; wait for its end")]
    Busy(String),
    /// Rows of the stream wait for its table, so what was redriven before is not known for certain.
    #[error(
        "the table of `{stream}` is behind its journal; nothing is redriven until it has caught up"
    )]
    Behind {
        /// The stream.
        stream: String,
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// No room in memory or in the journal.
    #[error("no room: {why}; what was accepted before that stays, and is not redriven again")]
    NoRoom {
        /// What is full.
        why: String,
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// The disk is full.
    #[error("the disk is full; what was accepted before that stays, and is not redriven again")]
    DiskFull {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// The server stops.
    #[error("the server is shutting down")]
    Stopping,
    /// The letters cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A fault of our own.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Engine {
    /// Dead letters, newest first.
    ///
    /// # Errors
    /// `Query`.
    pub async fn letters(&self, selection: &Selection) -> Result<Vec<Letter>, LettersError> {
        let tables = Tables::open(&self.inner).await?;
        let limit = selection.limit.min(LIST);
        let mut wanted = vec!["true".to_owned()];
        wanted.extend(selection.stream.as_deref().map(|name| format!("d.stream = {}", text(name))));
        wanted.extend(selection.code.map(|code| format!("d.code = {}", text(code.as_str()))));
        if let Some(Place { received_unix_micros, id }) = selection.after {
            let received = "CAST(d.received_at AS BIGINT)";
            wanted.push(format!(
                "({received} < {received_unix_micros} OR ({received} = {received_unix_micros} AND {}))",
                beyond(&id, '<')
            ));
        }
        let sql = format!(
            "{} WHERE {} ORDER BY received DESC, d.stream_id DESC, d.\"position\" DESC, d.\"row\" DESC LIMIT {limit}",
            tables.select(&format!("left(d.raw_text, {SHOWN})")),
            wanted.join(" AND ")
        );
        let mut letters = Vec::new();
        for batch in tables.ask(&sql, None).await? {
            letters.extend(read(&batch)?);
        }
        Ok(letters)
    }

    /// One dead letter, whole.
    ///
    /// # Errors
    /// `UnknownLetter`, `Query`.
    pub async fn letter(&self, id: LetterId) -> Result<Letter, LettersError> {
        let tables = Tables::open(&self.inner).await?;
        let LetterId { stream_id, position, row } = id;
        let entry = format!("d.stream_id = '{stream_id}' AND d.\"position\" = {position}");
        let sql = format!("{} WHERE {entry} AND d.\"row\" = {row} LIMIT 1", tables.select("d.raw"));
        let mut found = Vec::new();
        for batch in tables.ask(&sql, None).await? {
            found.extend(read(&batch)?);
        }
        let mut letter = found.pop().ok_or(LettersError::UnknownLetter(id))?;
        if tables.readable {
            let headed = "d.header IS NOT NULL LIMIT 1";
            let sql = format!("SELECT d.header FROM _dead_letters d WHERE {entry} AND {headed}");
            for batch in tables.ask(&sql, None).await? {
                letter.header = optional(&texts(&batch, "header")?, 0);
            }
        }
        Ok(letter)
    }
}

/// The two tables as they are now.
pub(super) struct Tables<'a> {
    inner: &'a Inner,
    letters: Arc<dyn TableProvider>,
    redriven: Arc<dyn TableProvider>,
    /// The table knows how its rows are read: not so where it was last written before that was noted.
    pub readable: bool,
}

impl Tables<'_> {
    pub async fn open(inner: &Inner) -> Result<Tables<'_>, QueryError> {
        let letters = match inner.dead_letters.table().await.map_err(unreadable)? {
            Some(table) => table,
            None => empty(dead_letters::schema())?,
        };
        let redriven = match inner.redriven.table().await.map_err(unreadable)? {
            Some(table) => table,
            None => empty(redriven::schema())?,
        };
        let readable = letters.schema().field_with_name("format").is_ok();
        Ok(Tables { inner, letters, redriven, readable })
    }

    /// The column that says how a row is read.
    pub fn format(&self) -> &'static str {
        if self.readable { "d.format" } else { "CAST(NULL AS VARCHAR)" }
    }

    /// What [`read`] expects.
    fn select(&self, raw: &str) -> String {
        format!(
            "SELECT d.stream, d.stream_id, d.\"position\", d.\"row\", d.\"column\", d.code, d.message, \
             {raw} AS raw, d.client, d.request_id, CAST(d.received_at AS BIGINT) AS received, {} AS format, \
             CAST(r.redriven_at AS BIGINT) AS redriven FROM _dead_letters d LEFT JOIN _redriven r ON {MARKED}",
            self.format()
        )
    }

    /// The answer of a query, whole: the caller has bounded it. `picked` is a further table.
    pub async fn ask(
        &self,
        sql: &str,
        picked: Option<&Arc<dyn TableProvider>>,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let own = |name: &str, table: &Arc<dyn TableProvider>| (name.to_owned(), Arc::clone(table));
        let mut tables =
            vec![own(dead_letters::TABLE, &self.letters), own(redriven::TABLE, &self.redriven)];
        tables.extend(picked.map(|table| own("_picked", table)));
        let timeout = self.inner.config.query_timeout;
        let mut rows = self.inner.query.engine.query(sql, tables, timeout).await?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// Joins a letter `d` and its mark `r`.
pub(super) const MARKED: &str =
    "r.stream_id = d.stream_id AND r.\"position\" = d.\"position\" AND r.\"row\" = d.\"row\"";

/// True of letters `d` on one side of `id`, in the order of ids.
pub(super) fn beyond(id: &LetterId, side: char) -> String {
    let LetterId { stream_id, position, row } = id;
    format!(
        "(d.stream_id {side} '{stream_id}' OR (d.stream_id = '{stream_id}' AND (d.\"position\" {side} {position} \
         OR (d.\"position\" = {position} AND d.\"row\" {side} {row}))))"
    )
}

/// A text as SQL writes it.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn column(batch: &RecordBatch, name: &str, ty: &DataType) -> Result<Arc<dyn Array>, QueryError> {
    let found = batch.column_by_name(name).ok_or_else(|| missing(name))?;
    cast(found, ty).map_err(unreadable)
}

fn missing(name: &str) -> QueryError {
    let message = format!("the table of dead letters has no column `{name}`");
    QueryError { kind: ErrorKind::Internal, position: None, message }
}

pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray, QueryError> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Int64Array, QueryError> {
    Ok(column(batch, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

pub(super) fn raws(batch: &RecordBatch) -> Result<BinaryArray, QueryError> {
    Ok(column(batch, "raw", &DataType::Binary)?.as_binary::<i32>().clone())
}

pub(super) fn optional(texts: &StringArray, row: usize) -> Option<String> {
    (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row).to_owned())
}

/// The ids of a batch's letters.
pub(super) fn ids(batch: &RecordBatch) -> Result<Vec<LetterId>, QueryError> {
    let streams = texts(batch, "stream_id")?;
    let (positions, rows) = (numbers(batch, "position")?, numbers(batch, "row")?);
    let id = |at: usize| {
        let stream_id = uuid::Uuid::try_parse(streams.value(at)).map_err(unreadable)?;
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let (position, row) = (number(positions.value(at)), number(rows.value(at)));
        Ok(LetterId { stream_id, position, row })
    };
    (0..batch.num_rows()).map(id).collect()
}

fn read(batch: &RecordBatch) -> Result<Vec<Letter>, QueryError> {
    let ids = ids(batch)?;
    let of = |name| texts(batch, name);
    let (streams, columns, codes) = (of("stream")?, of("column")?, of("code")?);
    let (messages, clients, requests) = (of("message")?, of("client")?, of("request_id")?);
    let (formats, raws) = (of("format")?, raws(batch)?);
    let (received, redriven) = (numbers(batch, "received")?, numbers(batch, "redriven")?);
    let letter = |(at, id): (usize, LetterId)| Letter {
        id,
        stream: streams.value(at).to_owned(),
        column: optional(&columns, at),
        code: codes.value(at).to_owned(),
        message: messages.value(at).to_owned(),
        raw: raws.is_valid(at).then(|| Bytes::copy_from_slice(raws.value(at))),
        client: optional(&clients, at),
        request_id: optional(&requests, at),
        received_unix_micros: received.value(at),
        format: optional(&formats, at),
        header: None,
        redriven_unix_micros: redriven.is_valid(at).then(|| redriven.value(at)),
    };
    Ok(ids.into_iter().enumerate().map(letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_garbage_is_refused() {
        let id = LetterId { stream_id: uuid::Uuid::from_u128(1), position: 4096, row: 2 };
        let place = Place { received_unix_micros: -5, id };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "1", "x:1:2:3", "1:' OR true --:1:2"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_cannot_leave_its_quotes() {
        assert_eq!(text("a' OR 'b"), "'a'' OR ''b'");
    }
}
