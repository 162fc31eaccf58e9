//! How fast the codecs decode on one core, beside what stock parts do with the same bytes in the same run:
//! `cargo xtask bench codec`, or `codec FLIGHTS.csv[.zst] [NESTED.ndjson[.zst]] [--only csv|ndjson|nested]`.
//!
//! Schemas are declared, so types and NOT NULL are judged; CHECK is timed apart. `--only` runs one
//! decoder and nothing else, for a profiler. MB are 10⁶ bytes.

use std::error::Error;
use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use arrow::csv::ReaderBuilder as CsvReaderBuilder;
use arrow::json::ReaderBuilder as JsonReaderBuilder;
use bytes::Bytes;
use forebay_flow::clock::now;
use forebay_pipeline::codec::{Chunk, Cutter, Decoder, Dialect, Format, Limits};
use forebay_pipeline::record::Batch;
use forebay_pipeline::schema::check::Checks;
use forebay_pipeline::schema::{Schema, Unknown};
use serde::de::IgnoredAny;

// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FLIGHTS: &str = "
  year INT NOT NULL, month INT NOT NULL CHECK (month BETWEEN 1 AND 12), day INT NOT NULL,
  dep_time INT, sched_dep_time INT, dep_delay DOUBLE, arr_time INT, sched_arr_time INT,
  arr_delay DOUBLE, carrier TEXT NOT NULL CHECK (length(carrier) = 2), flight INT, tailnum TEXT,
  origin TEXT, dest TEXT, air_time DOUBLE, distance INT CHECK (distance > 0), hour INT, minute INT,
  time_hour TIMESTAMP NOT NULL";
const TEXT: [&str; 5] = ["carrier", "tailnum", "origin", "dest", "time_hour"];

/// Events of GitHub: what is nested is kept as JSON text.
const EVENTS: &str = "
  id TEXT NOT NULL, type TEXT NOT NULL, actor JSON NOT NULL, repo JSON NOT NULL,
  payload JSON NOT NULL, public BOOLEAN NOT NULL, created_at TIMESTAMP NOT NULL, org JSON";

const CSV: Format = Format::Csv(Dialect::COMMA);
/// How a body arrives.
const PIECE: usize = 256 << 10;
/// Bodies are repeated to this many bytes: beyond every cache, and long enough to time.
const BODY: usize = 64 << 20;
const ROUNDS: usize = 5;
/// How often CHECK is evaluated in a round.
const CHECKS: u32 = 20;
/// Under `--only`. What prepares the body takes a second or two: let the profiler begin after it.
const ONLY_ROUNDS: usize = 40;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A body and the schema it is decoded by.
struct Case {
    name: &'static str,
    format: Format,
    schema: Arc<Schema>,
    body: Bytes,
    /// The schema for Arrow's reader, where it can read the body.
    arrow: bool,
}

fn main() -> Fallible<()> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let only = files.iter().position(|arg| arg == "--only").map(|at| files.split_off(at));
    let only = only.as_ref().and_then(|only| only.get(1));
    let usage = "usage: codec FLIGHTS.csv[.zst] [NESTED.ndjson[.zst]] [--only csv|ndjson|nested]";
    let flights = read(files.first().ok_or(usage)?)?;
    let schema = Arc::new(Schema::parse(FLIGHTS)?);
    let (csv, ndjson) = (as_csv(&flights), as_ndjson(&flights));
    let flat =
        |name, format, body| Case { name, format, schema: schema.clone(), body, arrow: true };
    let mut cases = vec![
        flat("ndjson", Format::Ndjson, repeated(&ndjson, 0)),
        flat("csv", CSV, repeated(&csv, csv.find('\n').map_or(0, |end| end + 1))),
    ];
    if let Some(file) = files.get(1) {
        let schema = Arc::new(Schema::parse(EVENTS)?);
        let body = repeated(&read(file)?, 0);
        // Arrow's reader has no column for a nested value kept as text.
        cases.push(Case { name: "nested", format: Format::Ndjson, schema, body, arrow: false });
    }
    cases.retain(|case| only.is_none_or(|only| only == case.name));
    for case in &cases {
        if only.is_some() {
            for _ in 0..ONLY_ROUNDS {
                black_box(case.whole()?);
            }
        } else {
            case.measure()?;
        }
    }
    Ok(())
}

impl Case {
    /// Times everything in turn, so that what else the machine does meets all alike.
    fn measure(&self) -> Fallible<()> {
        let chunks = self.cut()?;
        let mut batches = Vec::with_capacity(chunks.len());
        self.decode(&chunks, |batch| batches.push(batch))?;
        let checks = Checks::plan(&self.schema)?;
        let mut copy = vec![0; self.body.len()];
        let mut best = [Duration::MAX; 6];
        for _ in 0..ROUNDS {
            let times = [
                time(|| self.whole())?,
                time(|| self.decode(&chunks, drop))?,
                // Too quick to time once.
                time(|| {
                    let nothing = Bytes::new();
                    let rows = |batch| checks.apply(batch, &nothing).rows.num_rows();
                    Ok((0..CHECKS).flat_map(|_| batches.iter().cloned()).map(rows).sum::<usize>())
                })? / CHECKS,
                time(|| self.arrow())?,
                time(|| self.grammar())?,
                time(|| {
                    copy.copy_from_slice(&self.body);
                    Ok(copy.len())
                })?,
            ];
            for (best, time) in best.iter_mut().zip(times) {
                *best = time.min(*best);
            }
        }
        let [whole, decode, check, arrow, grammar, copied] =
            best.map(|time| self.body.len() as f64 / 1e6 / time.as_secs_f64());
        println!("{}: {:.0} MB, MB/s on one core", self.name, self.body.len() as f64 / 1e6);
        println!("  forebay, cut and decode {whole:>7.0}");
        println!("  forebay, decode alone   {decode:>7.0}");
        if !self.schema.checks.is_empty() {
            println!("  CHECK, beside it        {check:>7.0}");
        }
        if self.arrow {
            println!("  probe: arrow's reader   {arrow:>7.0}   ratio {:.2}", decode / arrow);
        }
        if self.format == Format::Ndjson {
            println!("  probe: serde_json skips {grammar:>7.0}   ratio {:.2}", decode / grammar);
        }
        println!("  probe: memcpy           {copied:>7.0}   ratio {:.3}", decode / copied);
        Ok(())
    }

    fn cut(&self) -> Fallible<Vec<Chunk>> {
        let mut cutter = Cutter::new(&self.format, Limits::default());
        let mut chunks = Vec::new();
        for at in (0..self.body.len()).step_by(PIECE) {
            cutter.push(self.body.slice(at..self.body.len().min(at + PIECE)))?;
            chunks.extend(std::iter::from_fn(|| cutter.next()));
        }
        chunks.extend(cutter.finish()?);
        Ok(chunks)
    }

    fn decode(&self, chunks: &[Chunk], mut keep: impl FnMut(Batch)) -> Fallible<()> {
        let mut decoder = self.decoder();
        chunks.iter().try_for_each(|chunk| take(&mut decoder, &self.format, chunk, &mut keep))
    }

    /// From pieces to batches, each dropped at once, as a server would.
    fn whole(&self) -> Fallible<usize> {
        let mut cutter = Cutter::new(&self.format, Limits::default());
        let (mut decoder, mut rows) = (self.decoder(), 0);
        let mut take = |chunk: Chunk| {
            take(&mut decoder, &self.format, &chunk, |batch| rows += batch.rows.num_rows())
        };
        for at in (0..self.body.len()).step_by(PIECE) {
            cutter.push(self.body.slice(at..self.body.len().min(at + PIECE)))?;
            while let Some(chunk) = cutter.next() {
                take(chunk)?;
            }
        }
        cutter.finish()?.map_or(Ok(()), take)?;
        Ok(rows)
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(Arc::clone(&self.schema), Unknown::DeadLetter, Limits::default())
    }

    fn arrow(&self) -> Fallible<usize> {
        if !self.arrow {
            return Ok(0);
        }
        let (schema, body) = (self.schema.arrow(), Cursor::new(&self.body[..]));
        let mut rows = 0;
        if self.format == Format::Ndjson {
            for batch in JsonReaderBuilder::new(schema).with_batch_size(8192).build(body)? {
                rows += batch?.num_rows();
            }
        } else {
            let reader = CsvReaderBuilder::new(schema).with_header(true).with_batch_size(8192);
            for batch in reader.build(body)? {
                rows += batch?.num_rows();
            }
        }
        Ok(rows)
    }

    /// The grammar alone, by a stock parser that keeps nothing.
    fn grammar(&self) -> Fallible<usize> {
        if self.format != Format::Ndjson {
            return Ok(0);
        }
        let lines = self.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut count = 0;
        for line in lines {
            serde_json::from_slice::<IgnoredAny>(line)?;
            count += 1;
        }
        Ok(count)
    }
}

/// Decodes a chunk whose rows must all be good.
fn take(
    decoder: &mut Decoder,
    format: &Format,
    chunk: &Chunk,
    mut keep: impl FnMut(Batch),
) -> Fallible<()> {
    for batch in decoder.decode(format, chunk) {
        let batch = batch?;
        if let Some(refused) = batch.rejected.first() {
            return Err(format!("{refused:?}").into());
        }
        keep(batch);
    }
    Ok(())
}

/// What one run takes of a core.
fn time<T>(run: impl FnOnce() -> Fallible<T>) -> Fallible<Duration> {
    // What a thread has spent on a core: a busy machine does not blur that. Wall time where the
    // system does not tell.
    let spent = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).map(Duration::from_nanos)
    };
    let (start, before) = (now(), spent());
    black_box(run()?);
    let wall = start.elapsed();
    Ok(spent().zip(before).map_or(wall, |(after, before)| after.saturating_sub(before)))
}

fn read(path: &str) -> Fallible<String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let bytes =
        if path.ends_with(".zst") { zstd::bulk::decompress(&bytes, 256 << 20)? } else { bytes };
    Ok(String::from_utf8(bytes)?)
}

/// The body again and again, its first `header` bytes once.
fn repeated(body: &str, header: usize) -> Bytes {
    let (header, rows) = body.split_at(header);
    let times = BODY.div_ceil(rows.len().max(1));
    [header, &rows.repeat(times)].concat().into()
}

/// The sample's NULL is NA; Arrow's reader takes the empty field for it.
fn as_csv(sample: &str) -> String {
    let row = |line: &str| line.split(',').map(null).collect::<Vec<_>>().join(",") + "\n";
    sample.lines().map(row).collect()
}

fn null(field: &str) -> &str {
    if field == "NA" { "" } else { field }
}

/// The sample as NDJSON: numbers bare, texts quoted, missing values null.
fn as_ndjson(sample: &str) -> String {
    let mut lines = sample.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split(',').collect();
    let row = |line: &str| {
        let pairs = line.split(',').map(null).zip(&names).map(|(field, name)| match field {
            "" => format!("\"{name}\":null"),
            text if TEXT.contains(name) => format!("\"{name}\":\"{text}\""),
            number => format!("\"{name}\":{number}"),
        });
        format!("{{{}}}\n", pairs.collect::<Vec<_>>().join(","))
    };
    lines.map(row).collect()
}
