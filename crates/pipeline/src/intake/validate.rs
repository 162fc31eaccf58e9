//! One chunk's CPU work: decode, check, encode. Runs on the validators' own threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::REPLY_ERRORS;
use crate::codec::{self, Chunk, Format, Malformed};
use crate::entry::{EntryWriter, Meta};
use crate::record::{Code, Rejected};
use crate::stream::Plan;

/// A chunk ready for the journal.
#[derive(Debug)]
pub(crate) struct Validated {
    /// The version it was accepted under.
    pub plan: Arc<Plan>,
    /// The journal entry.
    pub payload: Bytes,
    /// F6: accepted + rejected.
    pub received: u64,
    pub accepted: u64,
    pub rejected: u64,
    /// Refused rows by reason.
    pub codes: Vec<(Code, u64)>,
    /// The first refused rows, with their row in the request.
    pub errors: Vec<Rejected>,
}

/// Decodes, checks and encodes a chunk. `Ok(None)`: `widens` is set and the chunk has columns that
/// the schema lacks, so the caller gives the stream a wider version first.
pub(crate) fn validate(
    plan: &Arc<Plan>,
    format: &Format,
    chunk: &Chunk,
    meta: Meta,
    widens: bool,
) -> Result<Option<Validated>, Malformed> {
    let base = meta.row_base;
    let mut writer = EntryWriter::new(meta);
    let mut codes = BTreeMap::new();
    let mut errors = Vec::new();
    let mut decoder = plan.decoder();
    let mut decoding = decoder.decode(format, chunk);
    let at = |message: String| Malformed { line: chunk.line, column: 1, message };
    for batch in decoding.by_ref() {
        let batch = plan.checks.apply(batch?, &chunk.bytes);
        for rejected in &batch.rejected {
            *codes.entry(rejected.code).or_insert(0) += 1;
            if errors.len() < REPLY_ERRORS {
                errors.push(Rejected { row: base + rejected.row, ..rejected.clone() });
            }
        }
        writer.push(&batch).map_err(|error| at(format!("the rows cannot be encoded: {error}")))?;
    }
    if widens && !decoding.unknown_columns().is_empty() {
        return Ok(None);
    }
    if !codes.is_empty() {
        writer.note_reading(codec::reread::reading(
            format,
            chunk,
            plan.definition.pattern.as_ref(),
        ));
    }
    let (payload, totals) = writer.finish();
    assert_eq!(
        totals.received,
        totals.accepted + totals.rejected,
        "F6: a row vanished in decoding"
    );
    Ok(Some(Validated {
        plan: Arc::clone(plan),
        payload,
        received: totals.received,
        accepted: totals.accepted,
        rejected: totals.rejected,
        codes: codes.into_iter().collect(),
        errors,
    }))
}
