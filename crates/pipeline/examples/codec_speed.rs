//! Prints how fast the codecs decode a file on one core, beside Arrow's own readers.
//! Run: `cargo run --release -p forebay-pipeline --example codec_speed -- FILE.csv.zst [rounds]`
//! (or `FILE.ndjson.zst`).
//! A third argument, `csv` or `ndjson`, runs that decoder alone, for a profiler.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema as ArrowSchema;
use bytes::Bytes;
use forebay_flow::Instant;
use forebay_pipeline::codec::{Cutter, Decoder, Format, Limits, infer};
use forebay_pipeline::schema::{Schema, Unknown};

const CSV: Format = Format::Csv(Dialect::COMMA);
/// How a body arrives.
const PIECE: usize = 256 << 10;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: codec_speed FILE.csv.zst|FILE.ndjson.zst [rounds]")?;
    let rounds: u32 = args.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let only = args.next();
    let body = zstd::bulk::decompress(&std::fs::read(&path)?, 1 << 30)?;
    let bodies = if path.contains("ndjson") {
        vec![("ndjson", Format::Ndjson, Bytes::from(body))]
    } else {
        // NULL is written as an empty field here: Arrow's reader does not take NA for it.
        let csv = String::from_utf8(body)?.replace(",NA,", ",,").replace(",NA,", ",,");
        let ndjson = as_ndjson(csv.as_bytes());
        vec![("csv", CSV, csv.into()), ("ndjson", Format::Ndjson, ndjson.into())]
    };
    for (name, format, body) in &bodies {
        let format = *format;
        let schema = schema_of(format, body)?;
        if let Some(only) = &only {
            if only == name {
                mean(rounds, || decode(format, &schema, body))?;
            }
            continue;
        }
        let rate = |time: Duration| body.len() as f64 / 1e6 / time.as_secs_f64();
        let ours = mean(rounds, || decode(format, &schema, body))?;
        let cutting = mean(rounds, || cut(format, body))?;
        println!(
            "{name:<7} {:>5.0} MB   forebay {:>5.0} MB/s (cutting alone {:>6.0})",
            body.len() as f64 / 1e6,
            rate(ours),
            rate(cutting),
        );
        // Arrow's reader has no column for a nested value kept as text.
        match mean(rounds, || probe(format, &schema.arrow(), body)) {
            Ok(arrow) => {
                let ratio = arrow.as_secs_f64() / ours.as_secs_f64();
                println!("        arrow {:>5.0} MB/s, ratio {ratio:.2}", rate(arrow));
            }
            Err(error) => println!("        arrow cannot read it: {error}"),
        }
    }
    Ok(())
}

/// Time this thread has spent on a core, so that a busy machine does not blur the figures; wall
/// time where the system does not tell.
fn core_time(since: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match stat.split(' ').next().and_then(|nanos| nanos.parse().ok()) {
        Some(nanos) => Duration::from_nanos(nanos),
        None => since.elapsed(),
    }
}

/// The mean of all rounds: the system counts time in ticks, too coarse for a single short one.
fn mean(rounds: u32, mut run: impl FnMut() -> Result<usize, Error>) -> Result<Duration, Error> {
    let start = forebay_flow::clock::now();
    let before = core_time(start);
    for _ in 0..rounds {
        std::hint::black_box(run()?);
    }
    Ok((core_time(start) - before) / rounds.max(1))
}

fn schema_of(format: Format, body: &Bytes) -> Result<Arc<Schema>, Error> {
    let mut cutter = Cutter::new(format, Limits::default());
    cutter.push(body.clone())?;
    let first = match cutter.next() {
        Some(first) => first,
        None => cutter.finish()?.ok_or("the file is empty")?,
    };
    Ok(Arc::new(infer(format, &first, Limits::default())?))
}

fn cut(format: Format, body: &Bytes) -> Result<usize, Error> {
    let mut cutter = Cutter::new(format, Limits::default());
    let mut records = 0;
    for at in (0..body.len()).step_by(PIECE) {
        cutter.push(body.slice(at..body.len().min(at + PIECE)))?;
        while let Some(chunk) = cutter.next() {
            records += chunk.records;
        }
    }
    Ok(records as usize + cutter.finish()?.map_or(0, |chunk| chunk.bytes.len()))
}

fn decode(format: Format, schema: &Arc<Schema>, body: &Bytes) -> Result<usize, Error> {
    let mut cutter = Cutter::new(format, Limits::default());
    let mut decoder = Decoder::new(Arc::clone(schema), Unknown::DeadLetter, Limits::default());
    let mut rows = 0;
    let mut take = |chunk| -> Result<(), Error> {
        for batch in decoder.decode(format, &chunk) {
            let batch = batch?;
            rows += batch.rows.num_rows();
            if let Some(refused) = batch.rejected.first() {
                return Err(format!("{refused:?}").into());
            }
        }
        Ok(())
    };
    for at in (0..body.len()).step_by(PIECE) {
        cutter.push(body.slice(at..body.len().min(at + PIECE)))?;
        while let Some(chunk) = cutter.next() {
            take(chunk)?;
        }
    }
    cutter.finish()?.map_or(Ok(()), take)?;
    Ok(rows)
}

fn probe(format: Format, schema: &Arc<ArrowSchema>, body: &Bytes) -> Result<usize, Error> {
    let mut rows = 0;
    match format {
        Format::Csv(Dialect { delimiter }) => {
            let reader = arrow::csv::ReaderBuilder::new(Arc::clone(schema))
                .with_header(true)
                .with_delimiter(delimiter)
                .with_batch_size(8192)
                .build(Cursor::new(&body[..]))?;
            for batch in reader {
                rows += batch?.num_rows();
            }
        }
        _ => {
            let reader = arrow::json::ReaderBuilder::new(Arc::clone(schema))
                .with_batch_size(8192)
                .build(Cursor::new(&body[..]))?;
            for batch in reader {
                rows += batch?.num_rows();
            }
        }
    }
    Ok(rows)
}

/// The CSV file as NDJSON: numbers bare, texts quoted, empty fields null.
fn as_ndjson(csv: &[u8]) -> Vec<u8> {
    let mut lines = csv.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let names: Vec<_> = lines.next().unwrap_or_default().split(|&byte| byte == b',').collect();
    let mut body = Vec::with_capacity(csv.len() * 5);
    for line in lines {
        for (index, (name, value)) in names.iter().zip(line.split(|&byte| byte == b',')).enumerate()
        {
            body.extend_from_slice(if index == 0 { b"{\"" } else { b",\"" });
            body.extend_from_slice(name);
            body.extend_from_slice(b"\":");
            let number = std::str::from_utf8(value).is_ok_and(|text| text.parse::<f64>().is_ok());
            match value {
                [] => body.extend_from_slice(b"null"),
                _ if number => body.extend_from_slice(value),
                _ => body.extend([b"\"", value, b"\""].concat()),
            }
        }
        body.extend_from_slice(b"}\n");
    }
    body
}
