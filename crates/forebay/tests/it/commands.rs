//! `forebay streams` and `forebay dead-letters`, from outside.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;

use crate::cli::{Served, run, text};

/// What a command printed; it must have succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a command complained of; it must have failed.
fn complained(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn at(dir: &Path, url: &str, arguments: &[&str]) -> Output {
    run(dir, &[arguments, &["--url", url]].concat())
}

fn post(url: &str, stream: &str, body: &str) {
    let mut socket = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let request = format!(
        "POST /ingest/{stream} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[test]
fn streams_are_made_shown_changed_and_dropped_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let streams = |rest: &[&str]| at(dir.path(), &served.url, &[&["streams"], rest].concat());
    let schema = "sensor TEXT NOT NULL, value DOUBLE CHECK (value > -274)";
    assert_eq!(said(&streams(&["create", "r", "--schema", schema])), "created r, version 1\n");
    let again = complained(&streams(&["create", "r", "--schema", "a INT"]));
    assert!(again.contains("exists already, at version 1"), "{again}");
    assert!(complained(&streams(&["create", "x"])).contains("needs a schema"));
    let change = ["alter", "r", "--add", "unit TEXT", "--nullable", "sensor"];
    assert_eq!(said(&streams(&change)), "altered r, version 2\n");
    assert!(complained(&streams(&change)).contains("a column `unit` already"));
    let checks = ["alter", "r", "--drop-check", "value > -274", "--add-check", "value > -300"];
    assert_eq!(said(&streams(&checks)), "altered r, version 3\n");
    let sql = "SELECT *, value * 2 AS twice FROM r";
    assert_eq!(said(&streams(&["alter", "r", "--transform", sql])), "altered r, version 4\n");
    let same = said(&streams(&["alter", "r", "--unknown", "dead_letter"]));
    assert_eq!(same, "r is like that already, version 4\n");
    assert!(complained(&streams(&["alter", "r", "--schema", "unit TEXT"])).contains("left out"));
    assert!(complained(&streams(&["alter", "r"])).contains("nothing to change"));
    std::fs::write(dir.path().join("r.sql"), "sensor TEXTT").unwrap();
    let wrong = complained(&streams(&["alter", "r", "--schema-file", "r.sql"]));
    assert!(wrong.contains("line 1, column 8"), "{wrong}");
    let shown = said(&streams(&["show", "r"]));
    for part in
        ["r  version 4", "  sensor TEXT,\n", "  CHECK (value > -300)\n", sql, "\n    1  sensor"]
    {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert!(said(&streams(&["list"])).contains("\nr     4        api"));
    assert!(complained(&streams(&["drop", "r"])).contains("needs --yes"));
    assert!(said(&streams(&["drop", "r", "--yes"])).starts_with("dropped r; its table stays at "));
    assert!(complained(&streams(&["show", "r"])).contains("no stream named `r`"));
}

#[test]
fn dead_letters_are_listed_shown_and_redriven_from_the_command_line_and_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forebay.toml"), "[flush]\ninterval = \"50ms\"\n").unwrap();
    let served = Served::start(dir.path());
    let url = served.url.clone();
    let letters = |rest: &[&str]| at(dir.path(), &url, &[&["dead-letters"], rest].concat());
    assert_eq!(said(&letters(&["list"])), "no dead letters\n");
    let create = ["streams", "create", "r", "--schema", "n INT NOT NULL"];
    said(&at(dir.path(), &url, &create));
    post(&url, "r", "n\n1\ntwo\n3.5\n");
    while said(&letters(&["list", "--format", "ndjson"])).lines().count() < 2 {}
    let table = said(&letters(&["list", "--stream", "r"]));
    assert!(table.starts_with("RECEIVED ") && table.contains("type_mismatch"), "{table}");
    assert_eq!(said(&letters(&["list", "--code", "check"])), "no dead letters\n");
    assert!(complained(&letters(&["list", "--code", "chek"])).contains("the codes are syntax"));
    let first: serde_json::Value = serde_json::from_str(
        said(&letters(&["list", "--format", "ndjson", "--limit", "1"])).trim(),
    )
    .unwrap();
    let id = first["id"].as_str().unwrap();
    let tried = said(&letters(&["redrive", "--stream", "r", id]));
    assert!(tried.starts_with("0 accepted, 1 still refused, 0 redriven before\n"), "{tried}");
    assert!(tried.contains("type_mismatch  n"), "{tried}");
    let tried = said(&letters(&["redrive", "--stream", "r", "--limit", "5"]));
    assert!(tried.starts_with("0 accepted, 2 still refused"), "{tried}");
    assert!(complained(&letters(&["redrive", "--stream", "x"])).contains("no stream named `x`"));
    served.signal(Signal::TERM);
    assert_eq!(served.end().0, Some(0));

    let offline = |rest: &[&str]| {
        said(&run(dir.path(), &[&["dead-letters"], rest, &["--data-dir", "data"]].concat()))
    };
    assert_eq!(offline(&["list", "--format", "ndjson"]).lines().count(), 2);
    assert!(offline(&["show", id]).contains("\"raw\": \"3.5\""));
}
