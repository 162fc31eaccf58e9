//! A row that kills its worker: found, kept as a dead letter once, and nothing else suffers (F8).

use std::collections::BTreeSet;

use serde_json::json;

use crate::server::{Home, Server};
use crate::wait::{Chance, eventually, pause};

const MARKER: &str = "MARKER-7f3a";
const ROWS: u64 = 3000;
/// Two in one batch, neighbours across a batch's end, the first and the last row of all.
const GUILTY: [u64; 7] = [0, 731, 1010, 1017, 1499, 1500, 2999];
const ROWS_PER_POST: u64 = 250;

fn home() -> Home {
    Home::new(&format!(
        "[flush]\ninterval = \"300ms\"\n[faults]\npanic_on = \"{MARKER}\"\n[streams.poison]\n\
         schema = \"n BIGINT NOT NULL, text TEXT NOT NULL\"\n\
         transform = \"SELECT n, text, n * 2 AS twice FROM poison\"\n"
    ))
}

fn post_all(server: &Server) {
    for first in (0..ROWS).step_by(ROWS_PER_POST.try_into().unwrap()) {
        let row = |n: u64| {
            let text = if GUILTY.contains(&n) { MARKER } else { "harmless" };
            format!("{{\"n\":{n},\"text\":\"{text} {n}\"}}\n")
        };
        let body: String = (first..first + ROWS_PER_POST).map(row).collect();
        let answer = server.ingest("poison", &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

fn judge(server: &Server) {
    let ledger = server.drained("poison");
    let guilty = GUILTY.len() as u64;
    assert_eq!(ledger["stored"], json!(ROWS - guilty), "{ledger}");
    eventually("the dead letters are in their table", || {
        let sql = "SELECT count(*) FROM _dead_letters WHERE stream = 'poison'";
        (server.number(sql) >= guilty).then_some(())
    });
    let letters = server.query("SELECT raw_text, code FROM _dead_letters WHERE stream = 'poison'");
    assert_eq!(letters.len() as u64, guilty, "F8: each guilty row once: {letters:?}");
    for n in GUILTY {
        let text = format!("{MARKER} {n}\"");
        let holds = |row: &&Vec<String>| row.concat().replace("\"\"", "\"").contains(&text);
        assert_eq!(letters.iter().filter(holds).count(), 1, "F8: row {n}: {letters:?}");
    }
    assert!(
        letters.iter().all(|row| row.last().is_some_and(|code| code == "poison")),
        "{letters:?}"
    );
    let stored = server.query("SELECT n, twice FROM poison");
    assert_eq!(stored.len() as u64, ROWS - guilty, "F8: every other row is stored");
    let distinct: BTreeSet<&String> = stored.iter().map(|row| &row[0]).collect();
    assert_eq!(distinct.len(), stored.len(), "F2");
    assert!(GUILTY.iter().all(|n| !distinct.contains(&n.to_string())));
}

#[test]
fn f8_exactly_the_poisonous_rows_become_dead_letters_and_the_workers_come_back() {
    let home = home();
    let mut server = home.start();
    post_all(&server);
    judge(&server);
    server.must_run();
    let metrics = server.metrics();
    let restarts = metrics.sum("forebay_worker_restarts_total", &[("stage", "transform")]);
    assert!(restarts >= 2.0, "F8: {restarts} restarts");
    let errors = metrics.sum("forebay_processing_errors_total", &[("stream", "poison")]);
    assert!(errors >= 2.0, "F8: {errors} errors");
    let after = server.ingest("poison?ack=stored", "{\"n\":9999,\"text\":\"after\"}\n");
    assert_eq!(after.status, 200, "{}", after.text());
    server.stop();
}

#[test]
fn f8_the_poisonous_rows_are_found_once_though_the_process_is_killed_in_the_middle() {
    let mut chance = Chance::printed("poison");
    let home = home();
    let mut server = home.start();
    post_all(&server);
    for _ in 0..6 {
        for _ in 0..chance.below(40) {
            pause();
        }
        server.kill();
        server = home.start();
    }
    judge(&server);
    server.stop();
}
