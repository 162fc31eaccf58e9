//! Bad requests: lengths that lie, names that are none, SQL that would do harm.

use std::io::{BufReader, Write};

use serde_json::json;

use crate::http::{Request, connect, read_answer};
use crate::inputs::{CSV, Case, JSON, NDJSON, refused, refuses, rows};
use crate::server::Server;

pub(crate) const CASES: &[Case] = &[
    Case {
        input: "a `Content-Length` longer than the body, and the connection half closed",
        answer: "400 `broken-body`; nothing of a chunk that did not end is kept",
        run: |server| {
            let mut stream = connect(server.address).unwrap();
            let head =
                format!("POST /ingest/typed HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON}\r\n");
            stream
                .write_all(format!("{head}Content-Length: 100\r\n\r\n{{\"id\":1}}\n").as_bytes())
                .unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            refused(&read_answer(&mut BufReader::new(stream)).unwrap(), 400, "broken-body");
        },
    },
    Case {
        input: "a `Content-Length` shorter than the body",
        answer: "the body is as long as it says; what follows is no request: 400, and the connection is closed",
        run: |server| {
            let mut stream = connect(server.address).unwrap();
            let head =
                format!("POST /ingest/typed HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON}\r\n");
            let request =
                format!("{head}Content-Length: 9\r\n\r\n{{\"id\":1}}\n{{\"id\":2}}\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut reader = BufReader::new(stream);
            let first = read_answer(&mut reader).unwrap();
            assert_eq!((first.status, first.json()["accepted"].as_u64()), (202, Some(1)));
            assert_eq!(read_answer(&mut reader).unwrap().status, 400);
            assert!(read_answer(&mut reader).is_err(), "closed");
        },
    },
    Case {
        input: "a chunked body whose chunk is none",
        answer: "400 `broken-body`",
        run: |server| {
            let mut stream = connect(server.address).unwrap();
            let head =
                format!("POST /ingest/typed HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON}\r\n");
            let body = "Transfer-Encoding: chunked\r\n\r\nZZ\r\n{\"id\":1}\r\n0\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            refused(&read_answer(&mut BufReader::new(stream)).unwrap(), 400, "broken-body");
        },
    },
    Case {
        input: "a request whose end is in doubt: two lengths, a signed one, a coding before `chunked`, NUL in a header, a space before a colon",
        answer: "400, and the connection is closed: what follows is not taken for a request",
        run: smuggle,
    },
    Case {
        input: "stream names with `../`, NUL, an emoji, 10 kB, a leading dot or digit, `_`, nothing",
        answer: "400 `stream-name`",
        run: |server| {
            let long = "a".repeat(10_000);
            for name in [
                "../etc",
                "..%2F..%2Fetc",
                "a%00b",
                "%F0%9F%92%A9",
                "%ff",
                ".hidden",
                "9lives",
                "_dead_letters",
                "a%20b",
                "a/b",
                "",
                &long,
            ] {
                refuses(server, name, CSV, b"id\n1\n", 400, "stream-name");
            }
        },
    },
    Case {
        input: "SQL that writes",
        answer: "400 `query-not-read-only`",
        run: |server| {
            for sql in [
                "INSERT INTO typed VALUES (1)",
                "DELETE FROM typed",
                "UPDATE typed SET id = 1",
                "DROP TABLE typed",
                "CREATE TABLE t AS SELECT 1",
                "COPY typed TO '/tmp/x'",
                "SET datafusion.execution.batch_size = 1",
            ] {
                refused(&query(server, sql, 5_000), 400, "query-not-read-only");
            }
        },
    },
    Case {
        input: "SQL that reads files or URLs",
        answer: "400 `query-not-read-only`, `query-unknown-table` or `query-invalid`: tables are streams, nothing else",
        run: |server| {
            for sql in [
                "SELECT * FROM '/etc/passwd'",
                "SELECT * FROM \"/etc/passwd\"",
                "SELECT * FROM 'https://e.example/x.parquet'",
                "SELECT * FROM read_csv('/etc/passwd')",
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
                "SELECT * FROM information_schema.tables",
            ] {
                let answer = query(server, sql, 5_000);
                assert_eq!(answer.status, 400, "{sql}: {}", answer.text());
                assert!(!answer.text().contains("root:"), "{}", answer.text());
            }
        },
    },
    Case {
        input: "SQL that never ends",
        answer: "504 `query-timeout` after `timeout_ms`, or `[query] timeout`",
        run: |server| {
            numbers(server);
            let sql =
                "SELECT sum(a.n * b.n * c.n + d.n) FROM numbers a, numbers b, numbers c, numbers d";
            refused(&query(server, sql, 500), 504, "query-timeout");
        },
    },
    Case {
        input: "SQL that wants 100 GB",
        answer: "503 `query-resources`: queries have a share of the memory budget, and this one fails alone",
        run: |server| {
            numbers(server);
            let sql = "SELECT a.n FROM numbers a, numbers b, numbers c ORDER BY a.n * b.n * c.n";
            let answer = query(server, sql, 30_000);
            refused(&answer, 503, "query-resources");
            assert!(answer.header("retry-after").is_some());
        },
    },
    Case {
        input: "SQL that nests 10,000 levels",
        answer: "400 `query-syntax`",
        run: |server| {
            let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
            refused(&query(server, &deep, 5_000), 400, "query-syntax");
        },
    },
];

/// Shapes that two readers would cut in different places, with a request hidden in what follows.
fn smuggle(server: &Server) {
    for (headers, body) in [
        ("Content-Length: 9\r\nContent-Length: 44\r\n", "{\"id\":1}\n"),
        ("Content-Length: +9\r\n", "{\"id\":1}\n"),
        ("Content-Length: 99999999999999999999\r\n", ""),
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("X: a\0b\r\nContent-Length: 0\r\n", ""),
        ("Content-Length : 9\r\n", "{\"id\":1}\n"),
    ] {
        let mut stream = connect(server.address).unwrap();
        let head = format!("POST /ingest/typed HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON}\r\n");
        let inner = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(format!("{head}{headers}\r\n{body}{inner}").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(read_answer(&mut reader).unwrap().status, 400, "{headers}");
        assert!(read_answer(&mut reader).is_err(), "what follows was answered: {headers}");
    }
}

fn query(server: &Server, sql: &str, timeout_ms: u64) -> crate::http::Answer {
    let body = json!({"sql": sql, "timeout_ms": timeout_ms}).to_string();
    Request::post("/api/v1/query", JSON, body.as_bytes()).send(server.address).unwrap()
}

/// Ten thousand numbers to multiply.
fn numbers(server: &Server) {
    let body: String = (0..10_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    rows(server, "numbers", NDJSON, body.as_bytes(), 10_000, &[]);
}
