//! What the fuzz targets share: cutting and decoding a body, and what must hold of any.

use std::sync::Arc;

use bytes::Bytes;
use forebay_pipeline::codec::{Chunk, Cutter, Decoder, Format, Limits, Malformed, infer, widen};
use forebay_pipeline::schema::{Schema, Unknown};

/// Small enough that a short input reaches every bound.
pub const LIMITS: Limits =
    Limits { chunk_bytes: 64, chunk_records: 4, record_bytes: 96, columns: 8, depth: 6, cells: 24 };

const DDL: &str =
    "a BIGINT NOT NULL, b TEXT, c TIMESTAMP, d DECIMAL(5,2), e DOUBLE, f BOOLEAN, g DATE, h JSON";

/// The chunks of a body that arrives in these pieces.
///
/// # Errors
/// The body cannot be cut.
pub fn cut<'a>(
    format: &Format,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Chunk>, Malformed> {
    let mut cutter = Cutter::new(format, LIMITS);
    let mut chunks = Vec::new();
    for piece in pieces {
        let pushed = cutter.push(Bytes::copy_from_slice(piece));
        while let Some(chunk) = cutter.next() {
            chunks.push(chunk);
        }
        pushed?;
        // F3: a chunk and a record, whatever comes.
        assert!(
            cutter.held() <= LIMITS.chunk_bytes + LIMITS.record_bytes + piece.len() + (64 << 10)
        );
    }
    let last = cutter.finish()?;
    while let Some(chunk) = cutter.next() {
        chunks.push(chunk);
    }
    chunks.extend(last);
    Ok(chunks)
}

/// Cuts, decodes, infers: F6, every record is a row or a refusal.
pub fn judge(format: &Format, body: &[u8]) {
    let Ok(chunks) = cut(format, std::iter::once(body)) else { return };
    let schema = Schema::parse(DDL).unwrap_or_default();
    for unknown in [Unknown::DeadLetter, Unknown::Drop, Unknown::Keep] {
        let mut decoder = Decoder::new(Arc::new(schema.clone()), unknown, LIMITS);
        for chunk in &chunks {
            let mut received = 0;
            for batch in decoder.decode(format, chunk) {
                let Ok(batch) = batch else { return };
                let (rows, rejected) = (batch.rows.num_rows() as u64, batch.rejected.len() as u64);
                assert_eq!(batch.received, rows + rejected, "F6");
                assert!(batch.rejected.iter().all(|row| !row.message.is_empty()));
                received += batch.received;
            }
            assert_eq!(received, chunk.records, "F6: cutter and decoder count alike");
        }
    }
    for chunk in &chunks {
        if let Ok(inferred) = infer(format, chunk, LIMITS) {
            // What is inferred can be written down and read again.
            assert_eq!(Schema::parse(&inferred.to_ddl()).as_ref(), Ok(&inferred));
        }
        drop(widen(&schema, format, chunk, LIMITS));
    }
}
