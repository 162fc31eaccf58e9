//! The load generator: keep-alive HTTP/1.1 over blocking sockets, one thread a connection.
//!
//! It must be cheap, for it shares the cores with what it measures: a request is one buffer rendered
//! beforehand and one write; of an answer it looks at the status and the length alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::bodies::{Body, Shape};
use crate::shell::now;

/// A client that is refused comes back after this, sooner than `Retry-After` says.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Each connection sends as soon as it is answered.
    Closed,
    /// So many requests a second over all connections, whatever the answers take; latency counts
    /// from when a request should have been sent.
    Open(f64),
}

/// What came of a run.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcome {
    /// Bytes and rows of the bodies that were answered with 2xx.
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) refused: u64,
    pub(super) seconds: f64,
    /// Microseconds, ascending.
    latencies: Vec<u32>,
}

impl Outcome {
    /// The latency in milliseconds that `percent` of the requests did not pass.
    pub(super) fn latency_ms(&self, percent: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.latencies.get(at).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }

    /// How many requests were answered with 2xx.
    pub(super) fn requests(&self) -> f64 {
        self.latencies.len() as f64
    }

    /// Megabytes (10⁶) a second.
    pub(super) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

/// Sends bodies to `path` for so long.
pub(super) fn run(
    address: SocketAddr,
    path: &str,
    (shape, bodies): (Shape, &[Body]),
    connections: usize,
    pace: Pace,
    duration: Duration,
) -> Result<Outcome> {
    let requests: Vec<Vec<u8>> =
        bodies.iter().map(|body| request(path, shape.content_type(), &body.bytes)).collect();
    let (turn, start) = (AtomicU64::new(0), now());
    let end = start + duration;
    let client = |first: usize| -> Result<Outcome> {
        let mut stream = connect(address)?;
        let mut outcome = Outcome::default();
        let mut buffer = Vec::with_capacity(4096);
        for at in (0..bodies.len()).cycle().skip(first * 7 % bodies.len()) {
            let Some(sent) = due(&turn, start, end, pace) else { break };
            let (request, body) = (&requests[at], &bodies[at]);
            stream.write_all(request).context("the server closed the connection")?;
            match read_status(&mut stream, &mut buffer)? {
                200..300 => {
                    outcome.bytes += body.bytes.len() as u64;
                    outcome.rows += body.rows;
                    let micros = sent.elapsed().as_micros();
                    outcome.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
                }
                429 | 503 | 507 => {
                    outcome.refused += 1;
                    thread::sleep(AFTER_REFUSAL);
                    // A server that refuses may close.
                    stream = connect(address)?;
                }
                status => bail!("answer {status}: {}", String::from_utf8_lossy(&buffer)),
            }
        }
        Ok(outcome)
    };
    let client = &client;
    let outcomes = thread::scope(|scope| -> Result<Vec<Outcome>> {
        let clients: Vec<_> =
            (0..connections).map(|first| scope.spawn(move || client(first))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    })?;
    Ok(sum(outcomes, start.elapsed()))
}

/// When the next request is due, after having waited for it; none once the time is over.
fn due(turn: &AtomicU64, start: Instant, end: Instant, pace: Pace) -> Option<Instant> {
    let Pace::Open(rate) = pace else {
        return Some(now()).filter(|now| *now < end);
    };
    let turn = turn.fetch_add(1, Ordering::Relaxed);
    let due = start + Duration::from_secs_f64(turn as f64 / rate);
    if due >= end {
        return None;
    }
    thread::sleep(due.saturating_duration_since(now()));
    Some(due)
}

fn sum(outcomes: Vec<Outcome>, elapsed: Duration) -> Outcome {
    let mut total = Outcome { seconds: elapsed.as_secs_f64(), ..Outcome::default() };
    for mut outcome in outcomes {
        total.bytes += outcome.bytes;
        total.rows += outcome.rows;
        total.refused += outcome.refused;
        total.latencies.append(&mut outcome.latencies);
    }
    total.latencies.sort_unstable();
    total
}

/// A connection that waits at most a minute for anything.
pub(super) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Head and body in one buffer.
fn request(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Reads one answer with a `Content-Length`; leaves its body in `buffer`.
fn read_status(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<u16> {
    buffer.clear();
    let mut piece = [0; 4096];
    let (head, length) = loop {
        let count = stream.read(&mut piece).context("no answer")?;
        ensure!(count > 0, "the server closed the connection without an answer");
        buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).into_owned();
            let length = header(&head, "content-length").and_then(|length| length.parse().ok());
            break (head, end + 4 + length.unwrap_or(0_usize));
        }
        ensure!(buffer.len() < 64 * 1024, "an answer without an end to its head");
    };
    while buffer.len() < length {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "an answer cut short");
        buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    buffer.drain(..head.len() + 4);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no status in `{head}`"))
}

/// A header's value, whatever the case of its name.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut values = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_length() {
        let mut buffer = Vec::new();
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 3\r\n\r\n{ }";
        assert_eq!(read_status(&mut &answer[..], &mut buffer).unwrap(), 202);
        assert_eq!(buffer, b"{ }");
        assert!(read_status(&mut &answer[..answer.len() - 1], &mut buffer).is_err());
    }

    #[test]
    fn latencies_are_read_off_in_order() {
        let latencies = (1..=100).map(|ms| ms * 1000).collect();
        let outcome = Outcome { latencies, ..Outcome::default() };
        assert_eq!(outcome.latency_ms(0.0), 1.0);
        assert_eq!(outcome.latency_ms(99.0), 99.0);
        assert_eq!(outcome.latency_ms(100.0), 100.0);
        assert_eq!(Outcome::default().latency_ms(99.0), 0.0);
    }
}
