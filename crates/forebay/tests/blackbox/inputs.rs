//! Bad input: each line of `docs/bad-input.md` is a case here, sent to one server while a client's good rows go
//! on beside it. At the end the good rows are whole, and memory, tasks and descriptors are what they were.
//!
//! The page is generated from the cases; `UPDATE_EXPECT=1` writes it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::clients::{Load, Post, SCHEMA, audit};
use crate::hostile::{at_rest, held, returns_to};
use crate::http::{Answer, Request};
use crate::server::{Home, Server};
use crate::wait::{Chance, eventually};
use crate::{inputs_bodies, inputs_http, inputs_start, inputs_values};

pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const JSON: &str = "application/json";
pub(crate) const CSV: &str = "text/csv";

/// One kind of bad input.
pub(crate) struct Case {
    /// What is sent, as the page says it.
    pub(crate) input: &'static str,
    /// What comes of it, as the page says it.
    pub(crate) answer: &'static str,
    /// Sends it and asserts the answer.
    pub(crate) run: fn(&Server),
}

/// Good and bad streams on a small budget. A body must come at 1 KiB a second, judged after two seconds.
fn config() -> String {
    format!(
        "[memory]\nbudget = \"64MiB\"\n[http]\nrate_window = \"1s\"\nrate_grace = \"1s\"\n\
         [flush]\ninterval = \"1s\"\n\
         [streams.good]\nschema = \"{SCHEMA}\"\n\
         [streams.typed]\nschema = \"id BIGINT, name TEXT, amount DOUBLE, price DECIMAL(8,2), small SMALLINT, \
         day DATE, at TIMESTAMP, nested JSON\"\n\
         [streams.strict]\nschema = \"a INT NOT NULL, b INT NOT NULL, c INT\"\n\
         [streams.whole]\nschema = \"a INT NOT NULL\"\non_invalid = \"reject\"\n"
    )
}

#[test]
fn every_bad_input_gets_its_documented_answer_and_leaves_nothing_behind() {
    let home = Home::new(&config());
    let server = home.start();
    let mut chance = Chance::printed("bad inputs");
    // Everything that is made once is made by the first round: threads, tables, the allocator's own.
    let first = round(&home, &server, 1, chance.fork(1));
    settled(&server);
    let (before, files, resident) = (held(&server), server.open_files(), server.resident_bytes());
    let second = round(&home, &server, 2, chance.fork(2));
    settled(&server);
    returns_to(&server, &before, files);
    // The good client's table, keys and journal have grown as well, and the allocator takes its time.
    eventually("F3: memory returns to within 128 MiB of what it was", || {
        let grown = server.resident_bytes().saturating_sub(resident);
        (grown < 128 << 20).then_some(())
    });
    audit(&server, "good WHERE client = 1", &first);
    audit(&server, "good WHERE client = 2", &second);
    server.stop();
}

/// Every case once, beside a client whose rows are good; returns the client's book.
fn round(home: &Home, server: &Server, client: u64, chance: Chance) -> Vec<Post> {
    let load = Load::new(home, "good", 1 << 20);
    let cases = inputs_bodies::CASES.iter().chain(inputs_values::CASES).chain(inputs_http::CASES);
    thread::scope(|scope| {
        // Also where a case fails: the client would go on for ever.
        let stop = Stop(&load);
        let client = scope.spawn(|| load.client(client, chance));
        for case in cases {
            println!("{}", case.input);
            let acks = load.acks();
            (case.run)(server);
            eventually("good rows go on beside bad ones", || (load.acks() > acks).then_some(()));
        }
        drop(stop);
        client.join().unwrap()
    })
}

/// Stops the clients when dropped.
struct Stop<'a>(&'a Load<'a>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits until nothing of any stream is under way.
fn settled(server: &Server) {
    for stream in ["good", "typed", "strict"] {
        server.drained(stream);
    }
    at_rest(server);
}

#[test]
fn the_page_of_bad_input_is_what_is_tested() {
    let mut page = String::from(
        "# What bad input gets\n\n\
         Generated from the cases in `crates/forebay/tests/blackbox/inputs*.rs`, each of which sends the input to a\n\
         running server and asserts the answer; after a change there run the tests with `UPDATE_EXPECT=1`.\n\n\
         A row that is not valid becomes a dead letter: it is in the reply's `errors` and whole in `_dead_letters`, and\n\
         the rows beside it are stored. The codes are explained in [errors.md](errors.md).\n",
    );
    for (title, cases) in [
        ("Bodies", inputs_bodies::CASES),
        ("Values", inputs_values::CASES),
        ("Requests, names and SQL", inputs_http::CASES),
    ] {
        write!(page, "\n## {title}\n\n| input | answer |\n|---|---|\n").unwrap();
        for case in cases {
            writeln!(page, "| {} | {} |", case.input, case.answer).unwrap();
        }
    }
    write!(page, "\n## Starting\n\n| input | answer |\n|---|---|\n").unwrap();
    for (input, answer) in inputs_start::DOCUMENTED {
        writeln!(page, "| {input} | {answer} |").unwrap();
    }
    expect_test::expect_file!["../../../../docs/bad-input.md"].assert_eq(&page);
}

/// Asserts a problem of this status and type, and gives its body.
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["type"], format!("/problems/{code}"), "{body}");
    body
}

/// Posts a body that is refused whole.
pub(crate) fn refuses(
    server: &Server,
    stream: &str,
    kind: &str,
    body: &[u8],
    status: u16,
    code: &str,
) -> Value {
    refused(&server.ingest_as(stream, kind, body), status, code)
}

/// Posts a body of which `accepted` rows are stored and the others become dead letters, with these rows and
/// codes. Returns the message of each.
pub(crate) fn rows(
    server: &Server,
    stream: &str,
    kind: &str,
    body: &[u8],
    accepted: u64,
    dead: &[(u64, &str)],
) -> Vec<String> {
    static POSTS: AtomicU64 = AtomicU64::new(0);
    let id = format!("bad-{}", POSTS.fetch_add(1, Ordering::Relaxed));
    let and = if stream.contains('?') { '&' } else { '?' };
    let path = format!("/ingest/{stream}{and}ack=stored");
    let request = Request::post(&path, kind, body).header("X-Request-Id", &id);
    let answer = request.send(server.address).unwrap();
    let text = answer.text();
    let expected = if accepted == 0 && !dead.is_empty() { 422 } else { 200 };
    assert_eq!(answer.status, expected, "{text}");
    let reply = answer.json();
    assert_eq!(
        (&reply["accepted"], &reply["rejected"]),
        (&json!(accepted), &json!(dead.len())),
        "{text}"
    );
    let errors = reply["errors"].as_array().unwrap();
    let told = |error: &Value| {
        (error["row"].as_u64().unwrap(), error["code"].as_str().unwrap().to_owned())
    };
    let dead: Vec<(u64, String)> =
        dead.iter().map(|(row, code)| (*row, (*code).to_owned())).collect();
    assert_eq!(errors.iter().map(told).collect::<Vec<_>>(), dead, "{text}");
    if !dead.is_empty() {
        let sql = format!(
            "SELECT \"row\", code, raw FROM _dead_letters WHERE request_id = '{id}' ORDER BY 1"
        );
        let kept = eventually("its dead letters are in their table", || {
            let kept = select(server, &sql);
            (kept.len() == dead.len()).then_some(kept)
        });
        assert_eq!(kept.iter().map(told).collect::<Vec<_>>(), dead);
        assert!(
            kept.iter().all(|letter| letter["raw"].as_str().is_some_and(|raw| !raw.is_empty())),
            "{kept:?}"
        );
    }
    errors.iter().map(|error| error["message"].as_str().unwrap().to_owned()).collect()
}

/// Runs SQL; one object a row.
pub(crate) fn select(server: &Server, sql: &str) -> Vec<Value> {
    let body = json!({"sql": sql}).to_string();
    let request = Request::post("/api/v1/query", JSON, body.as_bytes());
    let answer = request.send(server.address).unwrap();
    assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    answer.json().as_array().unwrap().clone()
}
