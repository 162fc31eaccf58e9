//! Clients that keep a book of what they were promised, and the audit that compares it with the table.
//!
//! Each post is known by (client, post); its rows are numbered. A 2xx is an obligation: exactly these
//! rows, each once. A refusal is one, too: none of them. Where the answer was lost the outcome is
//! unknown: without a key all or none (a body of one chunk); with a key the client asks again until
//! it knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::http::{Answer, Request};
use crate::server::{Home, Server};
use crate::wait::{Chance, PATIENCE, now, pause};

/// The schema that the clients' rows have, as a stream's `schema`.
pub(crate) const SCHEMA: &str =
    "client BIGINT NOT NULL, post BIGINT NOT NULL, line BIGINT NOT NULL, pad TEXT";

/// What a client knows of one of its posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx: every row exactly once.
    Acked,
    /// Refused with a status that promises that nothing was kept.
    Refused,
    /// No answer, or one that says so.
    Unknown,
}

/// A post, as its client's book has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post {
    client: u64,
    post: u64,
    rows: u64,
    /// Whether the body was small enough to be one chunk, so all or nothing.
    whole: bool,
    outcome: Outcome,
}

/// What the clients of one run share.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    home: &'a Home,
    stream: &'a str,
    /// A body longer than this is more than one chunk.
    chunk_bytes: usize,
    stop: AtomicBool,
    acks: AtomicU64,
}

impl<'a> Load<'a> {
    /// Clients of one stream. `chunk_bytes` is the server's `limits.chunk`.
    pub(crate) fn new(home: &'a Home, stream: &'a str, chunk_bytes: usize) -> Load<'a> {
        Load { home, stream, chunk_bytes, stop: AtomicBool::new(false), acks: AtomicU64::new(0) }
    }

    /// How many posts were acknowledged so far.
    pub(crate) fn acks(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    /// Lets every client finish the post it is at, and end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// One client's life; returns its book. Keyed posts end acknowledged: a server must come back.
    pub(crate) fn client(&self, client: u64, mut chance: Chance) -> Vec<Post> {
        let mut book = Vec::new();
        for post in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let rows =
                if chance.percent(4) { 600 + chance.below(1800) } else { 1 + chance.below(40) };
            let keyed = chance.percent(50);
            let body = body(client, post, rows);
            let path = self.path(&mut chance);
            let outcome = if keyed {
                let key = format!("{client}-{post}");
                let outcome = self.until_known(&path, &key, &body);
                if chance.percent(20) {
                    // A client that never saw the answer: this adds nothing.
                    assert_eq!(self.until_known(&path, &key, &body), outcome);
                }
                outcome
            } else {
                self.once(&path, &body)
            };
            if outcome == Outcome::Acked {
                self.acks.fetch_add(1, Ordering::Relaxed);
            } else {
                pause();
            }
            let whole = body.len() < self.chunk_bytes;
            book.push(Post { client, post, rows, whole, outcome });
        }
        book
    }

    fn path(&self, chance: &mut Chance) -> String {
        let ack = if chance.percent(3) { "stored" } else { "durable" };
        format!("/ingest/{}?ack={ack}", self.stream)
    }

    fn once(&self, path: &str, body: &str) -> Outcome {
        let request = Request::post(path, "application/x-ndjson", body.as_bytes());
        match self.home.address().map(|address| request.send(address)) {
            Some(Ok(answer)) => judge(&answer),
            // Connection refused means that nothing was sent.
            Some(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Outcome::Refused
            }
            _ => Outcome::Unknown,
        }
    }

    fn until_known(&self, path: &str, key: &str, body: &str) -> Outcome {
        let deadline = now() + PATIENCE;
        loop {
            let request = Request::post(path, "application/x-ndjson", body.as_bytes());
            let request = request.header("Idempotency-Key", key);
            let answer = self.home.address().map(|address| request.send(address));
            if let Some(Ok(answer)) = answer {
                assert!(
                    answer.is_success() || answer.status >= 500 || answer.status == 429,
                    "key {key}: {} {}",
                    answer.status,
                    answer.text()
                );
                if answer.is_success() {
                    return Outcome::Acked;
                }
            }
            assert!(now() < deadline, "key {key} not acknowledged within {PATIENCE:?}");
            pause();
        }
    }
}

fn judge(answer: &Answer) -> Outcome {
    match answer.status {
        200..300 => Outcome::Acked,
        429 | 507 => Outcome::Refused,
        503 if !answer.text().contains("unknown") => Outcome::Refused,
        500.. => Outcome::Unknown,
        status => panic!("a good row was refused: {status} {}", answer.text()),
    }
}

/// NDJSON rows of [`SCHEMA`].
pub(crate) fn body(client: u64, post: u64, rows: u64) -> String {
    let mut body = String::new();
    for line in 0..rows {
        let pad = "x".repeat(usize::try_from(line % 7).unwrap() * 4);
        let row = format!(r#"{{"client":{client},"post":{post},"line":{line},"pad":"{pad}"}}"#);
        writeln!(body, "{row}").unwrap();
    }
    body
}

/// F1, F2: compares the book with a table (its name, or its name and a WHERE). Every row must be out
/// of the journal.
pub(crate) fn audit(server: &Server, table: &str, book: &[Post]) {
    let sql = format!(
        "SELECT client, post, count(*) AS n, count(DISTINCT line) AS d FROM {table} GROUP BY client, post"
    );
    let field = |row: &Vec<String>, at: usize| row[at].parse::<u64>().unwrap();
    let rows = server.query(&sql);
    let mut table: BTreeMap<(u64, u64), (u64, u64)> = rows
        .iter()
        .map(|row| ((field(row, 0), field(row, 1)), (field(row, 2), field(row, 3))))
        .collect();
    let mut faults = Vec::new();
    for post in book {
        let (count, distinct) = table.remove(&(post.client, post.post)).unwrap_or_default();
        let kept = match post.outcome {
            Outcome::Acked => count == post.rows,
            Outcome::Refused if post.whole => count == 0,
            Outcome::Unknown if post.whole => count == 0 || count == post.rows,
            // Its first chunks may have been kept, as the answer would have said.
            Outcome::Refused | Outcome::Unknown => count <= post.rows,
        };
        if !kept || count != distinct {
            faults.push(format!("{post:?}: {count} rows, {distinct} distinct"));
        }
    }
    faults.extend(table.iter().map(|(post, count)| format!("{post:?}: {count:?}, never sent")));
    let shown = &faults[..faults.len().min(20)];
    assert!(faults.is_empty(), "F1/F2: {} of {} posts: {shown:#?}", faults.len(), book.len());
    let with = |outcome| book.iter().filter(|post| post.outcome == outcome).count();
    println!(
        "audited {} posts: {} acknowledged, {} refused, {} unknown",
        book.len(),
        with(Outcome::Acked),
        with(Outcome::Refused),
        with(Outcome::Unknown)
    );
}
