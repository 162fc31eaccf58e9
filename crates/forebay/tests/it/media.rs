//! What a body is: codings, charsets, formats and patterns, as a client says them over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use crate::server::{Answer, Server};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const TEXT: &str = "Content-Type: text/plain\r\n";

/// Two rows, `{"a":1}` and `{"a":2}`, by gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x4a\x54\xb2\x32\xac\xe5\xaa\
                      \x06\xd1\x46\xb5\x5c\x00\x66\xc0\x5a\x19\x10\x00\x00\x00";

impl Server {
    async fn send(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    async fn query(&self, sql: &str) -> serde_json::Value {
        let answer = self.post("/api/v1/query", "", sql).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn coded(coding: &str) -> String {
    format!("{NDJSON}Content-Encoding: {coding}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_the_same_rows_and_the_same_retry() {
    let server = Server::start("").await;
    let plain = b"{\"a\":1}\n{\"a\":2}\n";
    let zstd = zstd::bulk::compress(plain, 3).unwrap();
    let key = "Idempotency-Key: k\r\n";
    let first = server.send("/ingest/s", &(coded("gzip") + key), GZIP).await;
    assert_eq!((first.status, &first.json()["accepted"]), (202, &json!(2)), "{}", first.text());
    // Offsets and checksums are those of the text: another coding is the same body.
    for (headers, body) in [(coded("zstd"), &zstd[..]), (NDJSON.to_owned(), plain)] {
        let again = server.send("/ingest/s", &(headers + key), body).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    }
    let stored = server.send("/ingest/s?ack=stored", &coded("x-gzip"), GZIP).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    assert_eq!(server.query("SELECT count(*) AS n FROM s").await, json!([{"n": 4}]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_its_coding_says_is_400_at_its_byte() {
    let server = Server::start("").await;
    let gzip = coded("gzip");
    let cut = server.send("/ingest/s", &gzip, &GZIP[..20]).await.problem(400, "broken-encoding");
    assert_eq!(cut["byte"], 20);
    assert!(cut["detail"].as_str().unwrap().contains("ends in the middle"), "{cut}");
    let garbage = [GZIP, b"garbage"].concat();
    server.send("/ingest/s", &gzip, &garbage).await.problem(400, "broken-encoding");
    server.send("/ingest/s", &gzip, b"plain text").await.problem(400, "broken-encoding");
    server.send("/ingest/s", &gzip, b"").await.problem(400, "empty-body");
    for wrong in ["br", "gzip, gzip"] {
        let answer = server.send("/ingest/s", &coded(wrong), b"x").await;
        answer.problem(415, "unsupported-encoding");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, deflate"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_a_bomb_is_413_and_says_what_is_durable() {
    let server = Server::start("").await;
    let mut bomb = b"{\"a\":1}\n".to_vec();
    let blank = [&[b' '; 4095][..], b"\n"].concat();
    bomb.extend(blank.iter().cycle().take(100 << 20));
    let bomb = zstd::bulk::compress(&bomb, 1).unwrap();
    let problem = server.send("/ingest/s", &coded("zstd"), &bomb).await;
    let problem = problem.problem(413, "expansion-limit");
    assert_eq!((&problem["accepted"], &problem["limit_bytes"]), (&json!(1), &json!(64 << 20)));
    assert!(problem["offset"].as_u64().unwrap() >= 1 << 20, "{problem}");
    assert_eq!(server.ndjson("s", "{\"a\":2}\n").await.status, 202);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_in_other_charsets_is_read() {
    let server = Server::start("").await;
    let csv = "Content-Type: text/csv\r\n";
    let utf16: Vec<u8> = "\u{feff}name\nöl\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(server.send("/ingest/c", csv, &utf16).await.status, 202);
    let latin1 = "Content-Type: text/csv; charset=iso-8859-1\r\n";
    let answer = server.send("/ingest/c?ack=stored", latin1, b"name\n\xE4pfel\n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = server.query("SELECT name FROM c ORDER BY name DESC").await;
    assert_eq!(rows, json!([{"name": "öl"}, {"name": "äpfel"}]));
    let unknown = server.send("/ingest/c?charset=klingon", csv, b"name\nx\n").await;
    unknown.problem(415, "unsupported-type");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_text_follow_the_requests_pattern_or_the_streams_own() {
    let server = Server::start(
        "[streams.web]\npattern = \"common\"\n[streams.app]\nschema = \"level TEXT, took INT\"\n\
         pattern = '(?<level>\\w+) (?<took>\\d+)ms'\n",
    )
    .await;
    let line = "::1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 2326\n";
    let answer = server.post("/ingest/web?ack=stored", TEXT, line).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = server.query("SELECT path, status, bytes FROM web").await;
    assert_eq!(rows, json!([{"path": "/", "status": 200, "bytes": 2326}]));

    let answer = server.post("/ingest/app", TEXT, "INFO 12ms\nINFO soon\n").await;
    assert_eq!((answer.status, &answer.json()["accepted"]), (202, &json!(1)), "{}", answer.text());
    assert_eq!(answer.json()["errors"][0]["code"], "no_match");
    let shown = server.get("/api/v1/streams/app").await.json();
    assert_eq!(shown["pattern"], "(?<level>\\w+) (?<took>\\d+)ms");

    let answer = server.post("/ingest/app?pattern=logfmt", TEXT, "level=WARN took=7\n").await;
    assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(0)), "{}", answer.text());
    let answer = server.post("/ingest/lines", TEXT, "as it is\n").await;
    assert_eq!(answer.status, 202);

    let wrong = server.post("/ingest/app?pattern=(%3F%3Ca%3E", TEXT, "x").await;
    let wrong = wrong.problem(400, "bad-parameter");
    assert!(wrong["detail"].as_str().unwrap().contains("unclosed group"), "{wrong}");
    let put = "{\"schema\": \"a TEXT\", \"pattern\": \"comon\"}";
    let put = server.raw(server.request("PUT", "/api/v1/streams/x", "", put).as_bytes()).await;
    let refused = put.problem(400, "stream-settings");
    assert!(refused["detail"].as_str().unwrap().contains("common"), "{refused}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialects_of_csv_are_said_in_the_type_or_in_the_query() {
    let server = Server::start("").await;
    let typed = "Content-Type: text/csv; delimiter=\";\"; header=absent\r\n";
    let answer = server.post("/ingest/d?ack=stored&null=-", typed, "1;-\n2;x\n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = server.query("SELECT * FROM d ORDER BY 1").await;
    assert_eq!(rows[0]["column_1"], 1);
    assert_eq!((&rows[0]["column_2"], &rows[1]["column_2"]), (&json!(null), &json!("x")));
    let wrong = server.post("/ingest/d?delimiter=ab", typed, "1;2\n").await;
    wrong.problem(400, "bad-parameter");
    server.post("/ingest/d?delimiter=,", NDJSON, "{}\n").await.problem(400, "bad-parameter");
    let put = "{\"schema\": \"a INT\", \"format\": \"csv\"}";
    let put = server.raw(server.request("PUT", "/api/v1/streams/f", "", put).as_bytes()).await;
    assert_eq!((put.status, &put.json()["format"]), (200, &json!("csv")), "{}", put.text());
    let bare = server.post("/ingest/f", "", "a\n1\n").await;
    assert_eq!(bare.status, 202, "{}", bare.text());
    let said = server.post("/ingest/e?format=csv", "", "a\n1\n").await;
    assert_eq!(said.status, 202, "{}", said.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_say_what_it_sends_is_shown_the_header() {
    let server = Server::start("").await;
    for headers in ["", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let problem = server.post("/ingest/s", headers, "a\n1\n").await;
        let problem = problem.problem(415, "unsupported-type");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("-H 'Content-Type: text/csv'"), "{detail}");
    }
    server.stop().await;
}
