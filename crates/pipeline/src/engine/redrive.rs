//! Dead letters sent again through the front door of their stream: decoded under the current version,
//! journaled, on from there like any row.
//!
//! ```text
//! lock ─► lane passes all that is durable ─► pick (letters less marks) ─► decode one by one ─► journal
//!                                                                            └ still refused: told, not kept again
//! ```
//!
//! F2: an entry names the letters it carries, and its lane marks them in `_redriven` before it stores their
//! rows. One redrive of a stream runs at a time, and none begins before the lane has passed everything
//! durable; so what it picks from has the marks of every redrive before it, whatever crashed in between and
//! however long ago. No window of keys is involved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use bytes::Bytes;
use datafusion::catalog::{MemTable, TableProvider};
use forebay_journal::{Append, AppendError};

use super::ask::unreadable;
use super::letters::{MARKED, Tables, beyond, ids, numbers, optional, raws, text, texts};
use super::{Engine, Inner, LettersError};
use crate::codec::{Decoder, reread};
use crate::entry::{EntryWriter, LetterId, Meta, Reading};
use crate::intake::{ENTRY, REPLY_ERRORS};
use crate::query::QueryError;
use crate::record::{Batch, Code, Rejected};
use crate::stream::{Plan, Stream};
use crate::telemetry::Stage;

/// The most letters of one redrive.
const LETTERS: usize = 10_000;

/// Letters that are read, decoded and journaled together, at most: their rows are held at once, and
/// are an entry of the journal. A chunk's bytes bound them as well.
const TOGETHER: usize = 256;

/// How long a redrive waits for the lane.
const SETTLE: Duration = Duration::from_secs(10);

/// Which letters to send again, and who asks.
#[derive(Debug, Clone, Default)]
pub struct Redrive {
    /// The stream they were sent to, and go to now.
    pub stream: String,
    /// Those refused for this reason.
    pub code: Option<Code>,
    /// These; otherwise all.
    pub ids: Option<Vec<LetterId>>,
    /// Those behind this one, in the order of ids.
    pub after: Option<LetterId>,
    /// At most so many; ten thousand is the most there is.
    pub limit: usize,
    /// The peer's address, should the transform refuse a row.
    pub client: String,
    /// The request's id, likewise.
    pub request_id: String,
    /// Whose request it is.
    pub tenant: String,
}

/// A letter that is refused again. It is not kept again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub id: LetterId,
    /// Why, for machines; `None` where its bytes cannot be tried at all.
    pub code: Option<Code>,
    /// The column at fault.
    pub column: Option<String>,
    /// Why, for people.
    pub message: String,
}

/// What became of a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redriving {
    /// Rows accepted, durable in the journal.
    pub accepted: u64,
    /// Rows still refused.
    pub refused: u64,
    /// Letters of the selection that were redriven before.
    pub already: u64,
    /// Ids that name no letter of the stream.
    pub unknown: u64,
    /// The first refusals, at most [`REPLY_ERRORS`].
    pub errors: Vec<Refused>,
    /// The end of the last entry in the journal.
    pub position: u64,
    /// Where the next redrive goes on; `None` after the last letter.
    pub next: Option<LetterId>,
}

impl Engine {
    /// Sends dead letters again. Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// Any [`LettersError`] but `UnknownLetter`. What was accepted before the error stays.
    pub async fn redrive(&self, redrive: Redrive) -> Result<Redriving, LettersError> {
        let inner = Arc::clone(&self.inner);
        if inner.draining.load(Ordering::Acquire) {
            return Err(LettersError::Stopping);
        }
        let unknown = || LettersError::UnknownStream(redrive.stream.clone());
        let stream = inner.stream(&redrive.stream).ok_or_else(unknown)?;
        let work = {
            let inner = Arc::clone(&inner);
            async move { run(&inner, &stream, &redrive).await }
        };
        inner.to_the_end("redrive", work).await.unwrap_or(Err(LettersError::Stopping))
    }
}

async fn run(
    inner: &Arc<Inner>,
    stream: &Arc<Stream>,
    redrive: &Redrive,
) -> Result<Redriving, LettersError> {
    let Ok(_alone) = Arc::clone(&stream.redriving).try_lock_owned() else {
        return Err(LettersError::Busy(stream.name.to_string()));
    };
    if !inner.drains(stream, SETTLE).await {
        let retry_after = inner.journal_retry_after(Some(stream));
        return Err(LettersError::Behind { stream: stream.name.to_string(), retry_after });
    }
    let until = inner.clock.now() + inner.config.admission_wait;
    let room = inner.intake.acquire_within(inner.config.upload_bytes(None), until).await;
    let Ok(_permit) = room else {
        let why = "the intake share of the memory budget is in use".to_owned();
        return Err(LettersError::NoRoom { why, retry_after: Duration::from_secs(1) });
    };
    let tables = Tables::open(inner).await?;
    let (picked, already) = pick(&tables, redrive).await?;
    let mut done = Redriving { already, ..Redriving::default() };
    if let Some(asked) = &redrive.ids {
        done.unknown = (distinct(asked).len() as u64).saturating_sub(already + picked.len() as u64);
    } else if picked.len() == redrive.limit.min(LETTERS) {
        done.next = picked.last().map(|(id, _)| *id);
    }
    let columns = stream.current().map_or(1, |plan| plan.rows.fields().len().max(1));
    let together = TOGETHER.min(inner.config.limits.cells / columns).max(1);
    let mut left = &picked[..];
    while !left.is_empty() {
        let some = group(left, together, inner.config.limits.chunk_bytes as u64);
        left = left.get(some.len()..).unwrap_or_default();
        let some: Vec<LetterId> = some.iter().map(|(id, _)| *id).collect();
        let letters = open(&tables, &some).await?;
        again(inner, stream, redrive, letters, &mut done).await?;
    }
    stream.want(done.position);
    Ok(done)
}

/// The first of some letters, of so many bytes each, that are tried together: one at least.
fn group(letters: &[(LetterId, u64)], most: usize, most_bytes: u64) -> &[(LetterId, u64)] {
    let mut bytes = 0;
    let fits = |(_, length): &&(LetterId, u64)| {
        bytes += length;
        bytes <= most_bytes
    };
    let count = letters.iter().take(most).take_while(fits).count().max(1);
    letters.get(..count).unwrap_or(letters)
}

fn distinct(asked: &[LetterId]) -> Vec<LetterId> {
    let mut asked = asked.to_vec();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// The letters to try with their bytes, in the order of their ids, and how many of the selection
/// need none.
async fn pick(
    tables: &Tables<'_>,
    redrive: &Redrive,
) -> Result<(Vec<(LetterId, u64)>, u64), LettersError> {
    let asked = redrive.ids.as_deref().map(distinct);
    let chosen = asked.as_deref().map(picked_table).transpose()?;
    let mut wanted = vec![format!("d.stream = {}", text(&redrive.stream))];
    wanted.extend(redrive.code.map(|code| format!("d.code = {}", text(code.as_str()))));
    let join = if chosen.is_some() { format!("JOIN _picked p ON {PICKED}") } else { String::new() };
    let from = format!("FROM _dead_letters d {join} LEFT JOIN _redriven r ON {MARKED}");
    let every = wanted.join(" AND ");
    let sql = format!("SELECT count(*) AS n {from} WHERE {every} AND r.stream_id IS NOT NULL");
    let mut already = 0;
    for batch in tables.ask(&sql, chosen.as_ref()).await? {
        let counts = numbers(&batch, "n")?;
        already += counts.iter().flatten().filter_map(|n| u64::try_from(n).ok()).sum::<u64>();
    }
    wanted.extend(redrive.after.map(|id| beyond(&id, '>')));
    let sql = format!(
        "SELECT d.stream_id, d.\"position\", d.\"row\", \
         CAST(COALESCE(octet_length(d.raw_text), {OPAQUE}) AS BIGINT) AS bytes \
         {from} WHERE {} AND r.stream_id IS NULL ORDER BY d.stream_id, d.\"position\", d.\"row\" LIMIT {}",
        wanted.join(" AND "),
        redrive.limit.min(LETTERS)
    );
    let mut picked = Vec::new();
    for batch in tables.ask(&sql, chosen.as_ref()).await? {
        let lengths = numbers(&batch, "bytes")?;
        let length = |at: usize| u64::try_from(lengths.value(at)).unwrap_or_default();
        picked.extend(ids(&batch)?.into_iter().enumerate().map(|(at, id)| (id, length(at))));
    }
    Ok((picked, already))
}

/// The bytes that a letter is taken to have whose length no query tells: it is no text.
const OPAQUE: u64 = 1 << 20;

/// Joins a letter `d` and one that was picked.
const PICKED: &str =
    "p.stream_id = d.stream_id AND p.\"position\" = d.\"position\" AND p.\"row\" = d.\"row\"";

fn picked_table(ids: &[LetterId]) -> Result<Arc<dyn TableProvider>, QueryError> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let streams: StringArray = ids.iter().map(|id| Some(id.stream_id.to_string())).collect();
    let positions: Int64Array = ids.iter().map(|id| Some(number(id.position))).collect();
    let rows: Int64Array = ids.iter().map(|id| Some(number(id.row))).collect();
    let schema = Arc::new(ArrowSchema::new(vec![
        Field::new("stream_id", DataType::Utf8, true),
        Field::new("position", DataType::Int64, true),
        Field::new("row", DataType::Int64, true),
    ]));
    let columns: Vec<ArrayRef> = vec![Arc::new(streams), Arc::new(positions), Arc::new(rows)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(unreadable)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(unreadable)?))
}

/// A letter to be tried.
struct Opened {
    id: LetterId,
    code: Option<Code>,
    reading: Option<Reading>,
    raw: Bytes,
}

/// The letters themselves, in the order of their ids.
async fn open(tables: &Tables<'_>, some: &[LetterId]) -> Result<Vec<Opened>, LettersError> {
    let picked = picked_table(some)?;
    let headers = headers(tables, &picked).await?;
    let sql = format!(
        "SELECT d.stream_id, d.\"position\", d.\"row\", d.code, {} AS format, d.raw \
         FROM _dead_letters d JOIN _picked p ON {PICKED}",
        tables.format()
    );
    let mut opened = Vec::with_capacity(some.len());
    for batch in tables.ask(&sql, Some(&picked)).await? {
        let (codes, formats) = (texts(&batch, "code")?, texts(&batch, "format")?);
        let raws = raws(&batch)?;
        for (at, id) in ids(&batch)?.into_iter().enumerate() {
            let header =
                || headers.get(&(id.stream_id, id.position)).map(|header| header.to_string());
            let reading = optional(&formats, at).map(|format| Reading { format, header: header() });
            let code = Code::parse(codes.value(at));
            // What a transform refused has always been kept as an object.
            let object = matches!(code, Some(Code::Transform | Code::Poison));
            let reading = reading.or_else(|| object.then(Reading::object));
            opened.push(Opened { id, code, reading, raw: Bytes::copy_from_slice(raws.value(at)) });
        }
    }
    opened.sort_by_key(|letter| letter.id);
    Ok(opened)
}

type Headers = BTreeMap<(uuid::Uuid, u64), Arc<str>>;

/// The headers of the letters' entries: each stands with the first letter of its entry.
async fn headers(
    tables: &Tables<'_>,
    picked: &Arc<dyn TableProvider>,
) -> Result<Headers, LettersError> {
    let mut headers = Headers::new();
    if !tables.readable {
        return Ok(headers);
    }
    let sql = "SELECT d.stream_id, d.\"position\", d.\"row\", d.header FROM _dead_letters d \
               JOIN (SELECT DISTINCT stream_id, \"position\" FROM _picked) p \
               ON p.stream_id = d.stream_id AND p.\"position\" = d.\"position\" \
               WHERE d.header IS NOT NULL";
    for batch in tables.ask(sql, Some(picked)).await? {
        let texts = texts(&batch, "header")?;
        for (at, id) in ids(&batch)?.into_iter().enumerate() {
            headers.insert((id.stream_id, id.position), Arc::from(texts.value(at)));
        }
    }
    Ok(headers)
}

/// Tries some letters and journals what passes.
async fn again(
    inner: &Arc<Inner>,
    stream: &Arc<Stream>,
    redrive: &Redrive,
    letters: Vec<Opened>,
    done: &mut Redriving,
) -> Result<(), LettersError> {
    let no_plan = || LettersError::Internal(format!("stream `{}` has no plan", stream.name));
    let plan = stream.current().ok_or_else(no_plan)?;
    let meta = Meta {
        schema_version: plan.definition.version,
        transform_version: plan.definition.version,
        client: redrive.client.clone(),
        request: redrive.request_id.clone(),
        tenant: redrive.tenant.clone(),
        ..Meta::default()
    };
    let tried = inner.validators.run(move || attempt(&plan, &letters, meta)).await;
    let tried = tried.map_err(|error| LettersError::Internal(error.to_string()))?;
    let Tried { entry, accepted, refused } = tried?;
    done.refused += refused.len() as u64;
    let room = REPLY_ERRORS.saturating_sub(done.errors.len());
    done.errors.extend(refused.into_iter().take(room));
    let Some(payload) = entry else { return Ok(()) };
    let append = Append {
        kind: ENTRY,
        received_unix_micros: inner.clock.unix_micros(),
        key: None,
        counters: [accepted, 0, 0, 0],
        payload,
    };
    let appended =
        stream.journal.append(append).await.map_err(|error| full(inner, stream, error))?;
    stream.metrics.accepted.inc_by(accepted.into());
    stream.metrics.processed(Stage::Validate, accepted.into());
    done.accepted += u64::from(accepted);
    done.position = done.position.max(appended.end().0);
    Ok(())
}

fn full(inner: &Inner, stream: &Stream, error: AppendError) -> LettersError {
    let retry_after = inner.journal_retry_after(Some(stream));
    match error {
        AppendError::Full { .. } => {
            let why = format!("the journal of `{}` is full", stream.name);
            LettersError::NoRoom { why, retry_after }
        }
        AppendError::DiskFull(_) => LettersError::DiskFull { retry_after },
        AppendError::Closed => LettersError::Stopping,
        error => LettersError::Internal(error.to_string()),
    }
}

/// What came of some letters.
struct Tried {
    /// The journal entry of those that passed.
    entry: Option<Bytes>,
    accepted: u32,
    refused: Vec<Refused>,
}

/// The CPU's part: each letter decoded alone, so that none can hide another.
fn attempt(plan: &Plan, letters: &[Opened], mut meta: Meta) -> Result<Tried, LettersError> {
    let mut decoder = plan.decoder();
    let (mut rows, mut refused) = (Vec::with_capacity(letters.len()), Vec::new());
    for letter in letters {
        match one(plan, &mut decoder, letter) {
            Ok(row) => {
                rows.push(row);
                meta.redriven.push(letter.id);
            }
            Err(why) => refused.push(why),
        }
    }
    let accepted = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    if rows.is_empty() {
        return Ok(Tried { entry: None, accepted, refused });
    }
    let internal = |error: &dyn std::fmt::Display| LettersError::Internal(error.to_string());
    let batch = Batch {
        rows: concat_batches(&plan.rows, &rows).map_err(|error| internal(&error))?,
        numbers: (1..=accepted).collect(),
        spans: vec![(0, 0); rows.len()],
        rejected: Vec::new(),
        received: accepted.into(),
    };
    let mut writer = EntryWriter::new(meta);
    writer.push(&batch).map_err(|error| internal(&error))?;
    Ok(Tried { entry: Some(writer.finish().0), accepted, refused })
}

/// The one row of a letter.
fn one(plan: &Plan, decoder: &mut Decoder, letter: &Opened) -> Result<RecordBatch, Refused> {
    let refused = |message: String| Refused { id: letter.id, code: None, column: None, message };
    if letter.code == Some(Code::RowTooLarge) {
        let why =
            "the row was longer than the limit, so only its beginning was kept; send it again";
        return Err(refused(why.to_owned()));
    }
    let reading = letter.reading.as_ref().ok_or_else(|| {
        refused("it was kept before Forebay noted how rows are read; send it again".to_owned())
    })?;
    let (format, chunk) =
        reread::chunk(reading, &letter.raw, plan.definition.pattern.as_ref()).map_err(&refused)?;
    let (mut row, mut fault, mut received) = (None, None, 0);
    for batch in decoder.decode(&format, &chunk) {
        let batch = batch.map_err(|malformed| refused(malformed.to_string()))?;
        let mut batch = plan.checks.apply(batch, &chunk.bytes);
        received += batch.received;
        fault = fault.or_else(|| batch.rejected.pop());
        if batch.rows.num_rows() > 0 {
            row = Some(batch.rows);
        }
    }
    match (received, row, fault) {
        (1, Some(row), None) => Ok(row),
        (1, None, Some(Rejected { code, column, message, .. })) => {
            Err(Refused { id: letter.id, code: Some(code), column, message })
        }
        (received, ..) => Err(refused(format!("its bytes hold {received} rows, not one"))),
    }
}
