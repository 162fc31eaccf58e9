//! What stock parts do on one core, for `cargo xtask bench`: run it as
//! `cargo run --release -p forebay --example probe -- flights.ndjson flights.csv`.
//!
//! Prints one JSON object: MB/s (10⁶ bytes) of arrow-json, arrow-csv, and Parquet with zstd level 1.

use std::error::Error;
use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder as CsvReaderBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder as JsonReaderBuilder;
use forebay_flow::clock::now;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const BATCH_ROWS: usize = 8192;
const SECONDS: f64 = 2.0;

const DOUBLE: [&str; 3] = ["dep_delay", "arr_delay", "air_time"];
const TEXT: [&str; 4] = ["carrier", "tailnum", "origin", "dest"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = std::env::args().skip(1);
    let usage = "usage: probe FLIGHTS.ndjson FLIGHTS.csv";
    let ndjson = fs::read(files.next().ok_or(usage)?)?;
    let csv = fs::read(files.next().ok_or(usage)?)?;
    let header = csv.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let schema = schema(std::str::from_utf8(header)?);

    let batches = decode_ndjson(&ndjson, &schema)?;
    let arrow_bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let ndjson_rate = rate(ndjson.len(), || decode_ndjson(&ndjson, &schema).map(drop))?;
    let csv_rate = rate(csv.len(), || decode_csv(&csv, &schema).map(drop))?;
    let parquet_rate = rate(arrow_bytes, || encode(&batches, &schema).map(drop))?;
    let figures = serde_json::json!({
        "ndjson_mb_s": ndjson_rate,
        "csv_mb_s": csv_rate,
        "parquet_arrow_mb_s": parquet_rate,
        "parquet_ndjson_mb_s": parquet_rate * ndjson.len() as f64 / arrow_bytes as f64,
    });
    println!("{figures}");
    Ok(())
}

fn schema(header: &str) -> SchemaRef {
    let field = |name: &str| {
        let kind = match name {
            "time_hour" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            text if TEXT.contains(&text) => DataType::Utf8,
            double if DOUBLE.contains(&double) => DataType::Float64,
            _ => DataType::Int32,
        };
        Field::new(name, kind, true)
    };
    Arc::new(Schema::new(header.trim_end().split(',').map(field).collect::<Vec<_>>()))
}

fn decode_ndjson(bytes: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let builder = JsonReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS);
    Ok(builder.build(Cursor::new(bytes))?.collect::<Result<_, _>>()?)
}

fn decode_csv(bytes: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let builder =
        CsvReaderBuilder::new(schema.clone()).with_header(true).with_batch_size(BATCH_ROWS);
    Ok(builder.build(Cursor::new(bytes))?.collect::<Result<_, _>>()?)
}

fn encode(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<u8>, Box<dyn Error>> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1)?);
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// Megabytes a second of work on so many bytes, repeated for about [`SECONDS`].
fn rate(
    bytes: usize,
    work: impl Fn() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let (start, mut times) = (now(), 0_u32);
    loop {
        work()?;
        times += 1;
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= SECONDS {
            return Ok(bytes as f64 * f64::from(times) / seconds / 1e6);
        }
    }
}
