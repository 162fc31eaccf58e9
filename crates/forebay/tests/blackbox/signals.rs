//! SIGTERM under load: the order of the goodbye, the receipt, and that nothing acknowledged is lost.

use std::io::{BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::clients::{Load, SCHEMA, audit, body};
use crate::http::{Request, connect, head, read_answer};
use crate::server::{Home, Server};
use crate::wait::{Chance, PATIENCE, eventually, now, pause};

const CHUNK_BYTES: usize = 1024 * 1024;
/// `drain.deadline` below, and time for a debug build to say goodbye.
const DRAIN: Duration = Duration::from_secs(20);

fn config() -> String {
    format!("[drain]\ndeadline = \"15s\"\n[streams.signals]\nschema = \"{SCHEMA}\"\n")
}

#[test]
fn f10_sigterm_under_load_answers_what_is_in_flight_and_loses_nothing() {
    let mut chance = Chance::printed("signals");
    let home = Home::new(&config());
    let load = Load::new(&home, "signals", CHUNK_BYTES);
    thread::scope(|scope| {
        let mut server = home.start();
        let clients: Vec<_> = (0..6)
            .map(|client| (client, chance.fork(client)))
            .map(|(client, chance)| {
                scope.spawn({
                    let load = &load;
                    move || load.client(client, chance)
                })
            })
            .collect();
        eventually("the load is on", || (load.acks() > 100).then_some(()));

        let in_flight = HalfSent::begin(&server, &body(100, 0, 50));
        server.term();
        let unready = eventually("readyz says 503", || {
            let answer = Request::get("/readyz").send(server.address).ok()?;
            (answer.status == 503).then_some(answer)
        });
        assert_eq!(unready.status, 503);
        let answer = in_flight.finish();
        assert!(answer.is_success(), "F10: in flight: {} {}", answer.status, answer.text());

        let status = server.exit_within(DRAIN);
        assert_eq!(status.code(), Some(0), "F10");
        let receipt = server.receipt();
        assert!(receipt["seconds"].is_number() && receipt["stored"].is_u64(), "{receipt}");
        assert!(receipt["left_in_journal"].is_u64(), "{receipt}");

        let server = home.start();
        let acks = load.acks();
        eventually("the load goes on", || (load.acks() > acks + 20).then_some(()));
        load.stop();
        let book: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        server.drained("signals");
        assert_eq!(server.number("SELECT count(*) FROM signals WHERE client = 100"), 50, "F1");
        // The client of the half-sent body kept no book.
        audit(&server, "signals WHERE client <> 100", &book);
        server.stop();
    });
}

#[test]
fn f1_a_second_sigterm_ends_at_once_and_loses_nothing_acknowledged() {
    let faults = "[faults]\nstall_sinks = [\"signals\"]\n";
    let home = Home::new(&format!("{}{faults}", config()));
    let mut server = home.start();
    for post in 0..40 {
        let answer = server.ingest("signals", &body(1, post, 25));
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    server.term();
    eventually("the drain has begun", || {
        let answer = Request::get("/readyz").send(server.address);
        answer.map_or(Some(()), |answer| (answer.status == 503).then_some(()))
    });
    server.must_run();
    server.term();
    let status = server.exit_within(Duration::from_secs(3));
    assert_ne!(status.code(), Some(0), "it did not drain, and must not say so");

    home.configure(&config());
    let server = home.start();
    server.drained("signals");
    assert_eq!(server.number("SELECT count(*) FROM signals"), 1000, "F1");
    assert_eq!(
        server.number("SELECT count(*) FROM (SELECT DISTINCT post, line FROM signals)"),
        1000
    );
    server.stop();
}

#[test]
fn f10_a_drain_at_rest_stores_everything_and_says_so() {
    let home = Home::new("");
    let server = home.start();
    assert_eq!(server.ingest("quiet", "{\"a\":1}\n{\"a\":2}\n").status, 202);
    let receipt = server.stop();
    assert_eq!(receipt["left_in_journal"], json!(0), "{receipt}");

    let server = home.start();
    assert_eq!(server.number("SELECT count(*) FROM quiet"), 2);
    let receipt = server.stop();
    assert_eq!(receipt["left_in_journal"], json!(0), "{receipt}");
}

#[test]
fn f10_after_sigterm_readyz_never_says_ready_again() {
    let home = Home::new("");
    let server = home.start();
    let seen_ready_again = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Once not ready, never ready again: a balancer may trust it.
            let (mut unready, deadline) = (false, now() + PATIENCE);
            while let Ok(answer) = Request::get("/readyz").send(server.address) {
                seen_ready_again.fetch_or(unready && answer.status == 200, Ordering::Relaxed);
                unready |= answer.status == 503;
                assert!(now() < deadline, "the server does not end");
                pause();
            }
        });
        server.term();
    });
    assert!(!seen_ready_again.into_inner(), "F10: ready again after SIGTERM");
    let receipt = server.stop_after_term();
    assert_eq!(receipt["stored"], json!(0), "{receipt}");
}

/// A request whose head and half of whose body are sent.
struct HalfSent {
    stream: std::net::TcpStream,
    rest: Vec<u8>,
}

impl HalfSent {
    fn begin(server: &Server, body: &str) -> HalfSent {
        let mut stream = connect(server.address).unwrap();
        let head = head("POST", "/ingest/signals");
        let (kind, length) = ("Content-Type: application/x-ndjson", body.len());
        let expect = "Expect: 100-continue";
        write!(stream, "{head}{kind}\r\nContent-Length: {length}\r\n{expect}\r\n\r\n").unwrap();
        // It answers this once it asks for the body: from then on the request is in flight.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        let (first, rest) = body.as_bytes().split_at(length / 2);
        stream.write_all(first).unwrap();
        HalfSent { stream, rest: rest.to_vec() }
    }

    fn finish(mut self) -> crate::http::Answer {
        self.stream.write_all(&self.rest).unwrap();
        read_answer(&mut BufReader::new(self.stream)).unwrap()
    }
}
