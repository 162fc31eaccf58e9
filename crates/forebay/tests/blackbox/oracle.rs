//! The obligation oracle: clients keep a book while the server is killed at random; then the audit.

use std::thread;

use serde_json::json;

use crate::clients::{Load, SCHEMA, audit, body};
use crate::server::Home;
use crate::wait::{Chance, PATIENCE, now, pause};

const KILLS: u64 = 22;
const CLIENTS: u64 = 6;
/// Small, so that many bodies are several chunks and a kill falls between them.
const CHUNK_BYTES: usize = 16 * 1024;

#[test]
fn f1_f2_every_acknowledged_row_is_stored_once_though_the_server_is_killed_at_random() {
    let mut chance = Chance::printed("oracle");
    let home = Home::new(&format!(
        "[limits]\nchunk = \"16KiB\"\n[flush]\ninterval = \"300ms\"\n[streams.oracle]\nschema = \"{SCHEMA}\"\n"
    ));
    let load = Load::new(&home, "oracle", CHUNK_BYTES);
    let book = thread::scope(|scope| {
        let mut server = home.start();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| (client, chance.fork(client)))
            .map(|(client, chance)| {
                scope.spawn({
                    let load = &load;
                    move || load.client(client, chance)
                })
            })
            .collect();
        for kill in 0..KILLS {
            progress(&load, 1 + chance.below(60));
            server.kill();
            if chance.percent(30) {
                kill_during_recovery(&home, &mut chance);
            }
            server = home.start();
            println!("kill {}: {} posts acknowledged", kill + 1, load.acks());
        }
        progress(&load, 30);
        load.stop();
        let book: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        server.kill();
        book
    });

    let server = home.start();
    let ledger = server.drained("oracle");
    audit(&server, "oracle", &book);
    let rows = server.number("SELECT count(*) FROM oracle");
    assert_eq!(
        ledger["stored"],
        json!(rows),
        "F6: the ledger counts what the table holds: {ledger}"
    );
    assert_eq!(
        server.metrics().sum("forebay_ledger_difference", &[("stream", "oracle")]),
        0.0,
        "F6"
    );

    let fresh = server.ingest("oracle?ack=stored", &body(CLIENTS, 0, 1));
    assert_eq!((fresh.status, &fresh.json()["ack"]), (200, &json!("stored")), "a fresh row flows");
    assert_eq!(server.number("SELECT count(*) FROM oracle"), rows + 1);
    server.stop();
}

/// Waits until this many more posts are acknowledged.
fn progress(load: &Load<'_>, posts: u64) {
    let (target, deadline) = (load.acks() + posts, now() + PATIENCE);
    while load.acks() < target {
        assert!(now() < deadline, "clients got no acknowledgement within {PATIENCE:?}");
        pause();
    }
}

/// A crash loop in small: the server is killed at any point of its start.
fn kill_during_recovery(home: &Home, chance: &mut Chance) {
    let mut child = home.spawn(&mut home.command());
    for _ in 0..chance.below(30) {
        pause();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
