//! The codecs from outside: bodies in, batches out. Real input beyond what the project keeps is
//! read from `../shared` and skipped, with a message, where that is absent.

mod conformance;
mod csv_dialects;
mod csv_rows;
mod cutting;
mod edges;
mod inference;
mod json_rows;
mod jumping;
mod properties;
mod suites;
mod text;
mod unpacking;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use forebay_pipeline::codec::{Chunk, Cutter, Decoder, Dialect, Format, Limits, Malformed};
use forebay_pipeline::record::{Batch, Code};
use forebay_pipeline::schema::{Column, Schema, Type, Unknown};

const CSV: Format = Format::Csv(Dialect::COMMA);

/// Cuts a body that arrives in pieces.
fn cut_pieces(
    format: Format,
    limits: Limits,
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<Chunk>, Malformed> {
    let mut cutter = Cutter::new(&format, limits);
    let mut chunks = Vec::new();
    for piece in pieces {
        let length = piece.len();
        cutter.push(piece)?;
        while let Some(chunk) = cutter.next() {
            assert!(!chunk.last);
            chunks.push(chunk);
        }
        let preamble = match (&format, cutter.header()) {
            (Format::Csv(_), None) => 64 << 10,
            _ => 0,
        };
        // A record's line end, of two bytes at most, is no part of its length.
        let bound = limits.chunk_bytes.max(preamble) + limits.record_bytes + 2 + length;
        assert!(cutter.held() <= bound, "F3: {} held, at most {bound}", cutter.held());
    }
    let last = cutter.finish()?;
    while let Some(chunk) = cutter.next() {
        chunks.push(chunk);
    }
    chunks.extend(last);
    Ok(chunks)
}

fn cut(format: Format, limits: Limits, body: &[u8]) -> Result<Vec<Chunk>, Malformed> {
    cut_pieces(format, limits, [Bytes::copy_from_slice(body)])
}

/// A schema of nullable columns, written `name TYPE`; `!` after the type makes it NOT NULL.
fn schema(columns: &[(&str, Type)]) -> Schema {
    let columns = columns.iter().map(|(name, ty)| Column {
        name: name.trim_end_matches('!').to_owned(),
        ty: *ty,
        nullable: !name.ends_with('!'),
        default: None,
    });
    Schema { columns: columns.collect(), checks: Vec::new() }
}

/// Decodes a whole body.
fn decode(
    format: Format,
    limits: Limits,
    schema: &Schema,
    unknown: Unknown,
    body: &[u8],
) -> Result<Vec<Batch>, Malformed> {
    let mut decoder = Decoder::new(Arc::new(schema.clone()), unknown, limits);
    let mut batches = Vec::new();
    for chunk in cut(format.clone(), limits, body)? {
        let before = batches.len();
        for batch in decoder.decode(&format, &chunk) {
            batches.push(batch?);
        }
        let of_chunk = &batches[before..];
        let received: u64 = of_chunk.iter().map(|batch| batch.received).sum();
        assert_eq!(received, chunk.records, "F6: the decoder sees the records the cutter counted");
        of_chunk.iter().for_each(conserved);
    }
    Ok(batches)
}

/// F6, for one batch.
fn conserved(batch: &Batch) {
    let rows = batch.rows.num_rows();
    assert_eq!(batch.received, (rows + batch.rejected.len()) as u64, "F6");
    assert_eq!(batch.numbers.len(), rows);
    assert_eq!(batch.spans.len(), rows);
    assert!(batch.numbers.is_sorted_by(|a, b| a < b));
    assert!(batch.rejected.is_sorted_by(|a, b| a.row < b.row));
}

/// The rows as text: one string a row, values joined by `|`, NULL as `~`.
fn rows(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| rows_of(&batch.rows)).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<String> {
    let row = |row| {
        let values = batch.columns().iter().map(|column| value(column, row));
        values.collect::<Vec<_>>().join("|")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn value(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "~".to_owned();
    }
    array_value_to_string(column, row).unwrap_or_else(|error| error.to_string())
}

/// The refusals as text: `row code column: message`.
fn refusals(batches: &[Batch]) -> Vec<String> {
    let all = batches.iter().flat_map(|batch| &batch.rejected);
    all.map(|refused| {
        let column = refused.column.as_deref().unwrap_or("-");
        format!("{} {} {column}: {}", refused.row, refused.code.as_str(), refused.message)
    })
    .collect()
}

/// What becomes of one record's value `v` in a column of type `ty`: its text, or code and message.
fn one(format: Format, ty: Type, text: &str) -> Result<String, (Code, String)> {
    let body = match &format {
        Format::Csv(_) => format!("v,w\n{text},\n"),
        _ => format!("{{\"v\":{text}}}\n"),
    };
    let schema = schema(&[("v", ty), ("w", Type::Text)]);
    let batches = decode(format, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes())
        .map_err(|error| (Code::Syntax, error.to_string()))?;
    match batches.iter().flat_map(|batch| &batch.rejected).next() {
        Some(refused) => {
            let value_fault = [Code::TypeMismatch, Code::OutOfRange, Code::InvalidDate];
            if value_fault.contains(&refused.code) {
                assert_eq!(refused.column.as_deref(), Some("v"));
            }
            assert!(refused.message.len() < 300, "bounded: {}", refused.message);
            Err((refused.code, refused.message.clone()))
        }
        None => Ok(batches.first().map_or(String::new(), |batch| value(batch.rows.column(0), 0))),
    }
}

/// A file of the shared test data; `None`, with a message, where there is none.
fn shared(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("FOREBAY_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let file = root.join("data").join(path);
    let Ok(bytes) = std::fs::read(&file) else {
        println!("skipped: {} is not there", file.display());
        return None;
    };
    if !path.ends_with(".zst") {
        return Some(bytes);
    }
    zstd::bulk::decompress(&bytes, 256 << 20).ok()
}
