//! The metrics page: what promtool says of it, that the families of the contract are there, and move.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::clients::{SCHEMA, body};
use crate::http::Request;
use crate::scrape::Metrics;
use crate::server::{Home, Server};
use crate::wait::eventually;

/// Every family of the contract whose part is built.
const FAMILIES: [&str; 22] = [
    "forebay_records_accepted_total",
    "forebay_records_rejected_total",
    "forebay_requests_refused_total",
    "forebay_records_processed_total",
    "forebay_processing_errors_total",
    "forebay_worker_restarts_total",
    "forebay_queue_depth",
    "forebay_queue_capacity",
    "forebay_queue_sent_total",
    "forebay_queue_blocked_total",
    "forebay_queue_dropped_total",
    "forebay_queue_rejected_total",
    "forebay_queue_shed_total",
    "forebay_queue_blocked_seconds_total",
    "forebay_budget_bytes",
    "forebay_journal_bytes",
    "forebay_journal_sync_seconds",
    "forebay_ack_seconds",
    "forebay_flush_seconds",
    "forebay_lane_lag_bytes",
    "forebay_ledger_difference",
    "forebay_tasks",
];

const STREAM: (&str, &str) = ("stream", "measured");

fn measured() -> (Home, Server) {
    let home = Home::new(&format!(
        "[flush]\ninterval = \"300ms\"\n[streams.measured]\nschema = \"{SCHEMA}\"\n"
    ));
    let server = home.start();
    (home, server)
}

#[test]
fn every_family_of_the_contract_is_there_from_the_start() {
    let (_home, server) = measured();
    let metrics = server.metrics();
    let missing: Vec<_> = FAMILIES
        .iter()
        .filter(|family| !metrics.families().iter().any(|other| other == *family))
        .collect();
    assert!(missing.is_empty(), "{missing:?} not among {:?}", metrics.families());
    for name in ["forebay_records_accepted_total", "forebay_ledger_difference"] {
        assert!(metrics.has(name, &[STREAM]), "{name} has no series of a configured stream");
    }
    server.stop();
}

#[test]
fn promtool_has_nothing_to_say() {
    let Some(promtool) = std::env::var_os("FOREBAY_PROMTOOL") else {
        println!("skipped: FOREBAY_PROMTOOL names no promtool");
        return;
    };
    let (_home, server) = measured();
    work(&server);
    let page = Request::get("/metrics").send(server.address).unwrap();
    let kind = page.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/plain") && kind.contains("version=0.0.4"), "{kind}");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&page.body).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    server.stop();
}

#[test]
fn what_is_measured_moves() {
    let (_home, server) = measured();
    let before = server.metrics();
    work(&server);
    let after = eventually("the flush is measured", || {
        let metrics = server.metrics();
        let flushes = |metrics: &Metrics| metrics.sum("forebay_flush_seconds_count", &[]);
        (flushes(&metrics) > flushes(&before)).then_some(metrics)
    });
    let grown =
        |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    assert_eq!(grown("forebay_records_accepted_total", &[STREAM]), 110.0);
    assert_eq!(
        grown("forebay_records_rejected_total", &[STREAM, ("reason", "type_mismatch")]),
        1.0
    );
    assert_eq!(grown("forebay_ack_seconds_count", &[("level", "durable")]), 10.0);
    assert_eq!(grown("forebay_ack_seconds_count", &[("level", "stored")]), 1.0);
    for name in [
        "forebay_journal_sync_seconds_count",
        "forebay_records_processed_total",
        "forebay_queue_sent_total",
    ] {
        assert!(grown(name, &[]) > 0.0, "{name} did not move");
    }
    assert!(after.sum("forebay_tasks", &[]) > 0.0);
    assert!(after.sum("forebay_budget_bytes", &[]) > 0.0);
    assert!(after.sum("forebay_queue_capacity", &[]) > 0.0);
    assert_eq!(after.sum("forebay_ledger_difference", &[]), 0.0, "F6");
    server.stop();
}

/// 110 good rows and a bad one are stored, in eleven requests.
fn work(server: &Server) {
    for post in 0..10 {
        assert_eq!(server.ingest("measured", &body(0, post, 10)).status, 202);
    }
    let mixed = format!("{}{{\"client\":\"no number\",\"post\":1,\"line\":1}}\n", body(1, 0, 10));
    let answer = server.ingest("measured?ack=stored", &mixed);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["rejected"], 1, "{}", answer.text());
    server.drained("measured");
}
