//! Bad bodies: empty, of no known type, of bytes that are no text, ragged, endless.

use std::io::Write;

use crate::http::{Answer, Request, connect, head, read_answer};
use crate::inputs::{CSV, Case, JSON, NDJSON, refused, refuses, rows, select};
use crate::server::Server;

pub(crate) const CASES: &[Case] = &[
    Case {
        input: "an empty body, or blank lines alone",
        answer: "400 `empty-body`",
        run: |server| {
            for (kind, body) in [(NDJSON, ""), (NDJSON, "\n \r\n\n"), (CSV, ""), (JSON, " \n")] {
                refuses(server, "typed", kind, body.as_bytes(), 400, "empty-body");
            }
        },
    },
    Case {
        input: "a CSV header without a row, an empty JSON array",
        answer: "202, 0 rows",
        run: |server| {
            for (kind, body) in [(CSV, "id,name\n"), (JSON, "[]")] {
                let answer = server.ingest_as("typed", kind, body.as_bytes());
                assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(0)));
            }
        },
    },
    Case {
        input: "no content type, one that curl guesses, an unknown one",
        answer: "415 `unsupported-type`, listing those that are",
        run: |server| {
            for kind in ["application/x-www-form-urlencoded", "image/png", "csv", ""] {
                let body = refuses(server, "typed", kind, b"id\n1\n", 415, "unsupported-type");
                assert!(body["detail"].as_str().unwrap().contains("text/csv"), "{body}");
            }
        },
    },
    Case {
        input: "an unknown content encoding",
        answer: "415 `unsupported-encoding`",
        run: |server| {
            let request =
                Request::post("/ingest/typed", CSV, b"id\n1\n").header("Content-Encoding", "br");
            refused(&request.send(server.address).unwrap(), 415, "unsupported-encoding");
        },
    },
    Case {
        input: "gzip that ends in the middle, has a wrong checksum, or garbage behind it",
        answer: "400 `broken-encoding`, naming the byte; the rows of whole chunks before it are kept",
        run: |server| {
            let mut flipped = GZIP.to_vec();
            flipped[28] ^= 1;
            let garbage = [GZIP, b"garbage"].concat();
            for (body, at) in [(&GZIP[..20], Some(20)), (&flipped[..], None), (&garbage[..], None)]
            {
                let answer = packed(server, "gzip", body);
                let problem = refused(&answer, 400, "broken-encoding");
                assert!(at.is_none_or(|at| problem["byte"] == at), "{problem}");
            }
            assert_eq!(
                packed(server, "gzip", GZIP).json()["accepted"],
                2,
                "the whole one is two rows"
            );
        },
    },
    Case {
        input: "a zip bomb: 100 MiB in a few kilobytes",
        answer: "413 `expansion-limit` at 64 MiB, or `[limits] expansion` times the body where that is more; it is never held",
        run: |server| {
            let mut bomb = b"{\"id\":1}\n".to_vec();
            bomb.resize(100 << 20, b'\n');
            let bomb = zstd::bulk::compress(&bomb, 1).unwrap();
            refused(&packed(server, "zstd", &bomb), 413, "expansion-limit");
        },
    },
    Case {
        input: "UTF-16 by its byte order mark, and half a character of it",
        answer: "read as text; the row that holds the half is a dead letter `invalid_utf8`",
        run: |server| {
            let wide = |text: &str| {
                let units = text.encode_utf16().flat_map(u16::to_le_bytes);
                b"\xff\xfe".iter().copied().chain(units).collect::<Vec<u8>>()
            };
            rows(server, "typed", CSV, &wide("id,name\n1,wide\n"), 1, &[]);
            let mut half = wide("id,name\n1,wide\n2,?\n");
            let at = half.len() - 4;
            half[at..at + 2].copy_from_slice(&0xd800_u16.to_le_bytes());
            rows(server, "typed", CSV, &half, 1, &[(2, "invalid_utf8")]);
        },
    },
    Case {
        input: "a charset that is not known",
        answer: "415 `unsupported-type`",
        run: |server| {
            refuses(
                server,
                "typed",
                "text/csv; charset=ebcdic",
                b"id\n1\n",
                415,
                "unsupported-type",
            );
        },
    },
    Case {
        input: "a line of text that does not match its pattern",
        answer: "a dead letter `no_match`",
        run: |server| {
            let body =
                b"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 23\nwhat\n";
            rows(server, "access?pattern=common", "text/plain", body, 1, &[(2, "no_match")]);
        },
    },
    Case {
        input: "bytes that are not UTF-8",
        answer: "the row is a dead letter `invalid_utf8`, its bytes kept as they are",
        run: |server| {
            let body = b"{\"id\":1}\n{\"id\":2,\"name\":\"\xff\xfe\"}\n{\"id\":3}\n";
            rows(server, "typed", NDJSON, body, 2, &[(2, "invalid_utf8")]);
            rows(server, "typed", CSV, b"id,name\n1,\xc3\x28\n2,ok\n", 1, &[(1, "invalid_utf8")]);
            let kept =
                select(server, "SELECT count(*) AS n FROM _dead_letters WHERE raw = X'312cc328'");
            assert!(kept[0]["n"].as_u64() > Some(0), "{kept:?}");
        },
    },
    Case {
        input: "a quote that is not closed at the end of a CSV body",
        answer: "the record is a dead letter `syntax` that says where the quote was opened; the rows before it are stored",
        run: |server| {
            let body = b"id,name\n1,ok\n2,\"open\n3,lost\n";
            rows(server, "typed", CSV, body, 1, &[(2, "syntax")]);
        },
    },
    Case {
        input: "CSV records with more or fewer fields than the header",
        answer: "each is a dead letter `field_count`",
        run: |server| {
            let body = b"id,name\n1,a\n2\n3,c,d\n4,e\n";
            rows(server, "typed", CSV, body, 2, &[(2, "field_count"), (3, "field_count")]);
        },
    },
    Case {
        input: "a CSV header that names a column twice",
        answer: "400 `malformed-body`, naming the column",
        run: |server| {
            let body = refuses(server, "typed", CSV, b"id,name,id\n1,a,2\n", 400, "malformed-body");
            assert!(body["detail"].as_str().unwrap().contains("id"), "{body}");
            assert_eq!(body["line"], 1);
        },
    },
    Case {
        input: "columns in another order",
        answer: "stored by name",
        run: |server| {
            rows(server, "typed", CSV, b"name,id\nreordered,77\n", 1, &[]);
            let found = select(server, "SELECT id FROM typed WHERE name = 'reordered'");
            assert_eq!(found[0]["id"], 77);
        },
    },
    Case {
        input: "a missing column",
        answer: "NULL, or a dead letter `not_null` where the column is NOT NULL",
        run: |server| {
            rows(server, "strict", CSV, b"a,b\n1,2\n", 1, &[]);
            rows(server, "strict", CSV, b"a,c\n1,2\n", 0, &[(1, "not_null")]);
        },
    },
    Case {
        input: "a column that the schema does not have",
        answer: "a dead letter `unknown_column`, unless `unknown` is `drop` or `keep`",
        run: |server| {
            rows(
                server,
                "strict",
                NDJSON,
                b"{\"a\":1,\"b\":2,\"d\":3}\n{\"a\":1,\"b\":2}\n",
                1,
                &[(1, "unknown_column")],
            );
        },
    },
    Case {
        input: "columns that change from 11 to 14 in the middle of a body, with a new header line",
        answer: "the new header and the rows after it are dead letters `field_count`; those before are stored",
        run: |server| {
            let line = |cells: usize| vec!["1"; cells].join(",");
            let header =
                |cells: usize| (0..cells).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
            let body = format!(
                "{}\n{}\n{}\n{}\n{}\n",
                header(11),
                line(11),
                line(11),
                header(14),
                line(14)
            );
            rows(
                server,
                "shifting",
                CSV,
                body.as_bytes(),
                2,
                &[(3, "field_count"), (4, "field_count")],
            );
        },
    },
    Case {
        input: "7,000 columns",
        answer: "400 `malformed-body`, naming `[limits] columns`' bound; a stream is not made of it",
        run: |server| {
            let names: Vec<String> = (0..7000).map(|n| format!("c{n}")).collect();
            let csv = format!("{}\n{}\n", names.join(","), vec!["1"; 7000].join(","));
            let body = refuses(server, "wide", CSV, csv.as_bytes(), 400, "malformed-body");
            assert!(body["detail"].as_str().unwrap().contains("4096"), "{body}");
        },
    },
    Case {
        input: "one line of 256 MiB",
        answer: "a dead letter `row_too_large` that keeps its beginning; it is never held, and the rows around it are stored",
        run: |server| {
            let before = server.resident_bytes();
            let mut body = b"{\"id\":1}\n{\"name\":\"".to_vec();
            body.resize(256 << 20, b'x');
            body.extend_from_slice(b"\"}\n{\"id\":2}\n");
            rows(server, "typed", NDJSON, &body, 2, &[(2, "row_too_large")]);
            let grown = server.resident_bytes().saturating_sub(before);
            assert!(grown < 160 << 20, "F3: {} MiB more for a line that is not held", grown >> 20);
        },
    },
    Case {
        input: "a row that is not valid in a stream with `on_invalid = \"reject\"`",
        answer: "422 `row-refused`, and nothing is kept",
        run: |server| {
            let body =
                refuses(server, "whole", NDJSON, b"{\"a\":1}\n{\"a\":null}\n", 422, "row-refused");
            assert_eq!(body["errors"][0]["row"], 2);
            assert_eq!(server.number("SELECT count(*) FROM whole"), 0);
        },
    },
    Case {
        input: "a body at 1 byte/s",
        answer: "408 `slow-body` once `[http] rate_window` is over; nothing is kept",
        run: slow,
    },
];

/// Two rows, `{"id":1}` and `{"id":2}`, by gzip.
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x4c\x51\xb2\x32\xac\xe5\xaa\x06\
                      \x33\x8c\x6a\xb9\x00\x06\x2c\xa5\x04\x12\x00\x00\x00";

/// Posts a compressed body of NDJSON.
fn packed(server: &Server, coding: &str, body: &[u8]) -> Answer {
    let request = Request::post("/ingest/typed", NDJSON, body).header("Content-Encoding", coding);
    request.send(server.address).unwrap()
}

/// A byte now and then, until the server has had enough.
fn slow(server: &Server) {
    let mut stream = connect(server.address).unwrap();
    let request = format!(
        "{}Content-Type: {NDJSON}\r\nContent-Length: 1000\r\n\r\n",
        head("POST", "/ingest/typed")
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(b"{").unwrap();
    let mut reader = std::io::BufReader::new(stream);
    refused(&read_answer(&mut reader).unwrap(), 408, "slow-body");
}
