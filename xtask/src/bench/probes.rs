//! What this machine can do, measured in the same run: a figure without its probe says nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bodies::{Body, Shape};
use super::load::{self, Outcome, Pace};
use crate::shell::{self, now};

/// What was measured; megabytes are 10⁶ bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Probes {
    /// Blocks of a body's size appended, each synced before the next.
    pub(super) device: Device,
    /// An HTTP server that only reads and discards, under the same generator.
    pub(super) discard_mb_s: f64,
    pub(super) discard_p99_ms: f64,
    /// arrow-json on one core, in bytes of NDJSON.
    pub(super) ndjson_mb_s: f64,
    /// arrow-csv on one core, in bytes of CSV.
    pub(super) csv_mb_s: f64,
    /// zstd Parquet on one core, in bytes of Arrow and of the NDJSON they came from.
    pub(super) parquet_arrow_mb_s: f64,
    pub(super) parquet_ndjson_mb_s: f64,
}

/// The device with the journal's pattern.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Device {
    pub(super) mb_s: f64,
    pub(super) sync_p50_ms: f64,
    pub(super) sync_p99_ms: f64,
}

/// Appends blocks to a file in `dir` and syncs each, for so long.
pub(super) fn device(dir: &Path, bodies: &[Body], duration: Duration) -> Result<Device> {
    let path = dir.join("probe");
    let file = File::create(&path)?;
    let (start, mut bytes, mut syncs) = (now(), 0_u64, Vec::new());
    for body in bodies.iter().cycle() {
        let before = now();
        if before - start >= duration {
            break;
        }
        file.write_all_at(&body.bytes, bytes)?;
        file.sync_data()?;
        syncs.push(before.elapsed().as_secs_f64() * 1000.0);
        bytes += body.bytes.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    syncs.sort_by(f64::total_cmp);
    let at = |part: usize| syncs.get(syncs.len() * part / 100).copied().unwrap_or_default();
    Ok(Device { mb_s: bytes as f64 / seconds / 1e6, sync_p50_ms: at(50), sync_p99_ms: at(99) })
}

/// Runs the generator against a server that reads, discards, and says 202.
pub(super) fn discard(bodies: &[Body], connections: usize, duration: Duration) -> Result<Outcome> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            for stream in listener.incoming().take(connections).flatten() {
                // It ends when the client does.
                thread::Builder::new().spawn_scoped(scope, move || swallow(stream).ok()).ok();
            }
        });
        let load = (Shape::Ndjson, bodies);
        load::run(address, "/ingest/none", load, connections, Pace::Closed, duration)
    })
}

fn swallow(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let mut filled = 0;
        let end = loop {
            let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            let head = buffer.get(..filled.min(4096)).unwrap_or_default();
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
        };
        let head = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).into_owned();
        let length = load::header(&head, "content-length").context("a body without a length")?;
        let mut left = (end + 4 + length.parse::<usize>()?).saturating_sub(filled);
        while left > 0 {
            let room = left.min(buffer.len());
            let count = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
            if count == 0 {
                bail!("a body cut short");
            }
            left -= count;
        }
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}")?;
    }
}

/// Decoders and Parquet, measured by an example of the product, which has Arrow; we have not.
pub(super) fn columns(example: &Path, ndjson: &Path, csv: &Path) -> Result<Probes> {
    let text = shell::capture(Command::new(example).arg(ndjson).arg(csv))?;
    let figures: Value = serde_json::from_str(text.trim()).context("the probe printed no JSON")?;
    let figure =
        |name: &str| figures[name].as_f64().with_context(|| format!("no `{name}`: {text}"));
    Ok(Probes {
        ndjson_mb_s: figure("ndjson_mb_s")?,
        csv_mb_s: figure("csv_mb_s")?,
        parquet_arrow_mb_s: figure("parquet_arrow_mb_s")?,
        parquet_ndjson_mb_s: figure("parquet_ndjson_mb_s")?,
        ..Probes::default()
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_generator_and_the_discarding_server_agree() {
        let body = |size| Body { bytes: vec![b'x'; size], rows: 3 };
        let bodies = [body(10), body(300_000), body(5000)];
        let outcome = discard(&bodies, 3, Duration::from_millis(50)).unwrap();
        assert!(outcome.bytes > 0 && outcome.refused == 0, "{outcome:?}");
        assert!(outcome.latency_ms(50.0) <= outcome.latency_ms(99.0));
    }
}
