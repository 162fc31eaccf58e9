//! A sink that stands still: its stream fills its journal and says so, no other stream notices (F7, F9).

use serde_json::json;

use crate::clients::{SCHEMA, body};
use crate::http::Answer;
use crate::server::{Home, Server};

const BUDGET: u64 = 128 << 20;
/// What the process needs beside its budget: code, runtime, allocator, query engine, kernel buffers.
const BASE: u64 = 200 << 20;
/// About 40 KiB a post.
const ROWS_PER_POST: u64 = 600;

fn config(faults: &str) -> String {
    format!(
        "[memory]\nbudget = \"128MiB\"\n[flush]\ninterval = \"300ms\"\n{faults}\
         [streams.stalled]\nschema = \"{SCHEMA}\"\njournal = {{ max = \"4MiB\" }}\n\
         [streams.free]\nschema = \"{SCHEMA}\"\n"
    )
}

#[test]
fn f7_f9_a_stalled_sink_fills_its_own_journal_then_refuses_and_catches_up_later() {
    let home = Home::new(&config("[faults]\nstall_sinks = [\"stalled\"]\n"));
    let server = home.start();
    let (accepted, refusal) = fill(&server);
    assert_eq!(refusal.status, 503, "F7: {}", refusal.text());
    let retry_after = refusal.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(retry_after.is_some_and(|seconds| seconds >= 1), "F7: {refusal:?}");
    assert_eq!(refusal.header("content-type"), Some("application/problem+json"));

    // The other stream takes and stores, while this one still refuses. Twice the rows: what is left
    // of the journal after the first refusal may do for a smaller post, never for a larger one.
    for post in 0..10 {
        let answer = server.ingest("free?ack=stored", &body(2, post, ROWS_PER_POST));
        assert_eq!((answer.status, &answer.json()["ack"]), (200, &json!("stored")), "F9");
        assert_eq!(server.ingest("stalled", &body(3, post, 2 * ROWS_PER_POST)).status, 503, "F7");
    }
    assert_eq!(server.number("SELECT count(*) FROM free"), 10 * ROWS_PER_POST);
    let resident = server.resident_bytes();
    assert!(resident < BASE + BUDGET, "F3: {} MiB resident", resident >> 20);
    let refused =
        server.metrics().sum("forebay_requests_refused_total", &[("reason", "journal_full")]);
    assert!(refused >= 11.0, "{refused} refusals counted");
    let ledger = server.ledger("stalled").unwrap();
    assert_eq!(ledger["in_journal"], json!(accepted), "F6: {ledger}");
    server.kill();

    home.configure(&config(""));
    let server = home.start();
    server.drained("stalled");
    assert_eq!(server.number("SELECT count(*) FROM stalled"), accepted, "F1: all of it, later");
    let again = server.ingest("stalled?ack=stored", &body(4, 0, 10));
    assert_eq!(again.status, 200, "the journal has room again: {}", again.text());
    server.stop();
}

/// Posts until refused; the rows accepted and the refusal.
fn fill(server: &Server) -> (u64, Answer) {
    // LZ4 shrinks these rows well, so it takes many posts to fill 4 MiB; F3 says that it ends.
    for post in 0..20_000 {
        let answer = server.ingest("stalled", &body(1, post, ROWS_PER_POST));
        if answer.status != 202 {
            return (post * ROWS_PER_POST, answer);
        }
    }
    panic!("F3: a journal of 4 MiB took 20,000 posts");
}

#[test]
fn f9_more_stalled_streams_than_the_transform_pool_has_places_leave_the_others_alone() {
    // The pool's queue has two places a worker, one worker a core.
    let places = 2 * std::thread::available_parallelism().unwrap().get();
    let names: Vec<String> = (0..places + 2).map(|n| format!("stalled{n}")).collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    // A flush is full after one entry, so that stalled lanes hold as much as they ever do.
    let full = "bytes = \"64KiB\"\n";
    let faults = format!("{full}[faults]\nstall_sinks = [{}]\n", quoted.join(", "));
    let home = Home::new(&config(&faults));
    let server = home.start();
    // More entries than a stalled lane takes before it stands still.
    let posts = 12;
    for name in &names {
        for post in 0..posts {
            assert_eq!(server.ingest(name, &body(1, post, ROWS_PER_POST)).status, 202);
        }
    }
    for post in 0..posts {
        let answer = server.ingest("free?ack=stored", &body(2, post, ROWS_PER_POST));
        assert_eq!((answer.status, &answer.json()["ack"]), (200, &json!("stored")), "F9");
    }
    server.kill();

    home.configure(&config(""));
    let server = home.start();
    for name in &names {
        server.drained(name);
        let sql = format!("SELECT count(*) FROM {name}");
        assert_eq!(server.number(&sql), posts * ROWS_PER_POST, "F1: all of it, later");
    }
    server.stop();
}
