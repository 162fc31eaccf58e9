//! The metrics page: well-formed, complete from the start, and moving.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use crate::server::Server;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_has_help_and_a_type_and_no_series_twice() {
    let server = Server::start("[streams.s]\nschema = \"a INT\"\n").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let mut types = BTreeMap::new();
    let (mut helped, mut series) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name, kind);
        } else {
            let (name, number) = line.rsplit_once(' ').unwrap();
            number.parse::<f64>().unwrap();
            assert!(series.insert(name), "{name} twice");
        }
    }
    for (name, kind) in &types {
        assert!(helped.contains(name), "{name} has no HELP");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    for name in [
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
        "forebay_ack_seconds",
        "forebay_flush_seconds",
        "forebay_lane_lag_bytes",
        "forebay_ledger_difference",
        "forebay_tasks",
        "forebay_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(types.contains_key(name), "{name} is missing");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_moves_what_counts_it() {
    let server = Server::start("").await;
    let series = "forebay_http_requests_total{route=\"ingest\",status=\"2xx\"}";
    let before = server.get("/metrics").await.text().to_owned();
    assert_eq!(value(&before, series), Some(0.0));
    assert_eq!(server.ndjson("s", "{\"a\":1}\n").await.status, 202);
    let after = server.get("/metrics").await.text().to_owned();
    assert_eq!(value(&after, series), Some(1.0));
    assert_eq!(value(&after, "forebay_http_received_bytes_total"), Some(8.0));
    assert_eq!(value(&after, "forebay_records_accepted_total{stream=\"s\"}"), Some(1.0));
    assert!(value(&after, "process_open_fds").unwrap() > 3.0);
    assert!(value(&after, "process_resident_memory_bytes").unwrap() > 1e6);
    server.stop().await;
}
