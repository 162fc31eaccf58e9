//! The catalogue of errors: each problem and each row code is produced by some request, and the page of
//! `docs/errors.md` says the same as the server.

#![expect(clippy::unwrap_used, reason = "tests")]

use expect_test::expect_file;
use forebay::catalogue;
use forebay_pipeline::record::Code;
use sha2::Digest;
use tokio::io::AsyncReadExt;

use crate::server::{Answer, Server};

const CSV: &str = "Content-Type: text/csv\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

#[test]
fn the_page_of_errors_is_the_catalogue() {
    expect_file!["../../../../docs/errors.md"].assert_eq(&catalogue::markdown());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_produced_by_some_request_and_its_type_leads_to_its_entry() {
    let plain = Server::start("").await;
    for kind in catalogue::ALL {
        if kind.code == "unknown-upload" {
            assert_eq!(head_of_an_unknown_upload(&plain).await, kind.status);
            continue;
        }
        let answer = match shared(&plain, kind.code).await {
            Some(answer) => answer,
            None => of_its_own(kind.code).await,
        };
        let body = answer.problem(kind.status, kind.code);
        assert_eq!(body["title"], kind.title);
        let explained = plain.get(body["type"].as_str().unwrap()).await;
        assert_eq!(explained.text(), kind.text());
        let waits = answer.header("retry-after").is_some();
        assert_eq!(waits, [429, 503, 507].contains(&kind.status), "{}: Retry-After", kind.code);
    }
    let list = plain.get("/problems").await;
    assert_eq!(list.text().lines().count(), catalogue::ALL.len());
    plain.stop().await;
}

/// The status of an answer to HEAD, which has no body.
async fn head_of_an_unknown_upload(server: &Server) -> u16 {
    let mut connection = server.connect().await;
    let request =
        "HEAD /ingest/s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: new\r\n\r\n";
    connection.send(request.as_bytes()).await;
    let mut answer = String::new();
    connection.socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What a server with defaults refuses; `None` where the code needs another one.
async fn shared(server: &Server, code: &str) -> Option<Answer> {
    let query = async |sql: &str| server.post("/api/v1/query", "", sql).await;
    let put = async |body: &str| {
        server.raw(server.request("PUT", "/api/v1/streams/x", "", body).as_bytes()).await
    };
    Some(match code {
        "broken-body" => {
            let head = "POST /ingest/s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
            server.raw(format!("{head}{CSV}\r\nZZ\r\nwhat\r\n").as_bytes()).await
        }
        "bad-header" => {
            let head = "POST /ingest/s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n";
            server.raw(format!("{head}{CSV}\r\n0\r\n\r\n").as_bytes()).await
        }
        "bad-parameter" => server.post("/ingest/s?delimiter=ab", CSV, "a\n1\n").await,
        "broken-encoding" => {
            server.post("/ingest/s", &format!("{CSV}Content-Encoding: gzip\r\n"), "a\n1\n").await
        }
        "empty-body" => server.post("/ingest/s", CSV, "").await,
        "idempotency-key" => {
            server.post("/ingest/s", &format!("{CSV}Idempotency-Key: \r\n"), "a\n1\n").await
        }
        "malformed-body" => {
            server.post("/ingest/s", "Content-Type: application/json\r\n", "[{\"a\":1},").await
        }
        "no-query" => server.get("/api/v1/query").await,
        "query-data" => {
            assert_eq!(
                server.post("/ingest/q?ack=stored", NDJSON, "{\"n\":1}\n").await.status,
                200
            );
            query("SELECT 1 / (n - 1) FROM q").await
        }
        "query-form" => {
            let late = "SELECT arrow_cast(9223372036854775807, 'Timestamp(Second, None)') AS t";
            server.post("/api/v1/query", "Accept: text/csv\r\n", late).await
        }
        "query-invalid" => query("SELECT nothing_of_the_kind(1)").await,
        "query-not-read-only" => query("DROP TABLE s").await,
        "query-syntax" => query("SELEC 1").await,
        "query-unknown-table" => query("SELECT * FROM nothing").await,
        "stream-name" => server.post("/ingest/9lives", CSV, "a\n1\n").await,
        "stream-settings" => put("{\"schema\":\"a WRONG\"}").await,
        "unknown-ack" => server.post("/ingest/s?ack=soon", CSV, "a\n1\n").await,
        "unknown-parameter" => server.post("/ingest/s?ak=stored", CSV, "a\n1\n").await,
        "upload-headers" => {
            server.post("/ingest/s", &format!("{NDJSON}Upload-Offset: 7\r\n"), "{\"a\":1}\n").await
        }
        "upload-offset" => {
            let keyed = format!("{NDJSON}Idempotency-Key: cut\r\n");
            assert_eq!(server.post("/ingest/k", &keyed, "{\"a\":1}\n").await.status, 202);
            let elsewhere = format!("{keyed}Upload-Offset: 4711\r\nUpload-Prefix: 0\r\n");
            server.post("/ingest/k", &elsewhere, "{\"a\":1}\n").await
        }
        "dead-letters-request" => server.get("/api/v1/dead-letters?limit=x").await,
        "unknown-dead-letter" => {
            server.get("/api/v1/dead-letters/00000000-0000-0000-0000-000000000000:0:1").await
        }
        "precondition" | "stream-changed" => {
            assert_eq!(server.post("/ingest/v", CSV, "a\n1\n").await.status, 202);
            let header = match code {
                "precondition" => "If-Match: yesterday\r\n",
                _ => "If-None-Match: *\r\n",
            };
            let put =
                server.request("PUT", "/api/v1/streams/v", header, "{\"schema\":\"a BIGINT\"}");
            server.raw(put.as_bytes()).await
        }
        "cross-origin" => {
            server.post("/ingest/s", &format!("{CSV}Origin: https://e.example\r\n"), "a\n1\n").await
        }
        "no-such-route" => server.get("/nothing").await,
        "unknown-problem" => server.get("/problems/no-problem").await,
        "wrong-method" => server.get("/ingest/s").await,
        "not-acceptable" => server.post("/api/v1/query", "Accept: image/png\r\n", "SELECT 1").await,
        "key-conflict" => {
            let keyed = format!("{NDJSON}Idempotency-Key: k\r\n");
            assert_eq!(server.post("/ingest/k", &keyed, "{\"a\":1}\n").await.status, 202);
            server.post("/ingest/k", &keyed, "{\"a\":2}\n").await
        }
        "unsupported-encoding" => {
            server.post("/ingest/s", &format!("{CSV}Content-Encoding: br\r\n"), "a\n1\n").await
        }
        "unsupported-type" => server.post("/ingest/s", "Content-Type: image/png\r\n", "a").await,
        "no-valid-row" => {
            assert_eq!(server.ndjson("n", "{\"a\":1}\n").await.status, 202);
            server.ndjson("n", "{\"a\":\n").await
        }
        _ => return None,
    })
}

/// What needs settings or faults of its own.
async fn of_its_own(code: &str) -> Answer {
    let mut ends_well = true;
    let hash: String = sha2::Sha256::digest(b"secret").iter().map(|b| format!("{b:02x}")).collect();
    let server = async |toml: &str| Server::start(toml).await;
    let (server, answer) = match code {
        "unauthorized" | "forbidden" => {
            let token =
                format!("[[tokens]]\nname=\"t\"\nhash=\"sha256:{hash}\"\nstreams=[\"s\"]\n");
            let server = server(&token).await;
            let bearer = if code == "forbidden" { "secret" } else { "guess" };
            let head = format!("{CSV}Authorization: Bearer {bearer}\r\n");
            let answer = server.post("/ingest/other", &head, "a\n1\n").await;
            (server, answer)
        }
        "unknown-stream" => {
            let server = server("auto_create = false\n").await;
            let answer = server.post("/ingest/s", CSV, "a\n1\n").await;
            (server, answer)
        }
        "slow-body" => {
            let hasty =
                "[http]\nmin_rate = \"1MB\"\nrate_window = \"50ms\"\nrate_grace = \"50ms\"\n";
            let server = server(hasty).await;
            let head = "POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n";
            let answer = server.raw(format!("{head}{CSV}\r\na\n").as_bytes()).await;
            (server, answer)
        }
        "stream-refused" => {
            let server = server("[streams.s]\nschema = \"a INT\"\n").await;
            let put = server.request("PUT", "/api/v1/streams/s", "", "{\"schema\":\"b INT\"}");
            let answer = server.raw(put.as_bytes()).await;
            (server, answer)
        }
        "too-many-streams" => {
            let server = server("[limits]\nstreams = 1\n").await;
            assert_eq!(server.post("/ingest/one", CSV, "a\n1\n").await.status, 202);
            let answer = server.post("/ingest/two", CSV, "a\n1\n").await;
            (server, answer)
        }
        "body-too-large" => {
            let server = server("[http]\nmax_body = \"10B\"\n").await;
            let answer = server.post("/ingest/s", CSV, "a\n123456789\n").await;
            (server, answer)
        }
        "expansion-limit" => {
            let server = server("").await;
            let bomb = zstd::bulk::compress(&vec![b'x'; 100 << 20], 1).unwrap();
            let head = server.request("POST", "/ingest/s", NDJSON, "");
            let head = head.replace(
                "Content-Length: 0\r\n",
                &format!("Content-Encoding: zstd\r\nContent-Length: {}\r\n", bomb.len()),
            );
            let answer = server.raw(&[head.as_bytes(), &bomb].concat()).await;
            (server, answer)
        }
        "row-refused" => {
            let server = server("[streams.s]\nschema = \"a INT\"\non_invalid = \"reject\"\n").await;
            let answer = server.ndjson("s", "{\"a\":1}\n{\"a\":\"x\"}\n").await;
            (server, answer)
        }
        "internal" => {
            ends_well = false;
            let server = server("").await;
            let streams = server.data_dir().join("streams");
            std::fs::remove_dir_all(&streams).unwrap();
            std::fs::write(&streams, "not a directory").unwrap();
            let put = server.request("PUT", "/api/v1/streams/s", "", "{\"schema\":\"b INT\"}");
            let answer = server.raw(put.as_bytes()).await;
            (server, answer)
        }
        "outcome-unknown" => {
            ends_well = false;
            let server = server("[faults]\ndisk_error_after_bytes = 200000\n").await;
            let answer = until(&server, 500).await;
            (server, answer)
        }
        "disk-full" => {
            ends_well = false;
            let server = server("[faults]\ndisk_full_after_bytes = 200000\n").await;
            let answer = until(&server, 507).await;
            (server, answer)
        }
        "deadline" => {
            let slow = "[http]\ndeadline = \"1ms\"\n[faults]\ndisk_bytes_per_second = 100000\n";
            let server = server(slow).await;
            let answer = until(&server, 504).await;
            (server, answer)
        }
        "redrive-under-way" => {
            ends_well = false;
            let server =
                server("[faults]\nstall_sinks = [\"s\"]\n[streams.s]\nschema = \"a INT\"\n").await;
            assert_eq!(server.ndjson("s", "{\"a\":1}\n{\"a\":\"x\"}\n").await.status, 202);
            // Both wait for the sink, which never answers; one of them is refused at once.
            let body = "{\"stream\":\"s\"}";
            let redrive = server.request("POST", "/api/v1/dead-letters/redrive", "", body);
            let (mut one, mut other) = (server.connect().await, server.connect().await);
            one.send(redrive.as_bytes()).await;
            other.send(redrive.as_bytes()).await;
            let answer = tokio::select! {
                answer = one.answer() => answer,
                answer = other.answer() => answer,
            };
            (server, answer.unwrap())
        }
        "overloaded" => {
            let server = server("").await;
            server.app.begin_drain();
            let answer = server.ndjson("s", "{\"a\":1}\n").await;
            (server, answer)
        }
        "query-resources" | "query-timeout" => {
            let server = server("[memory]\nbudget = \"16MiB\"\n").await;
            let rows: String = (0..3000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
            assert_eq!(server.post("/ingest/s?ack=stored", NDJSON, &rows).await.status, 200);
            let answer = if code == "query-timeout" {
                let sql = "SELECT sum(a.n * b.n * c.n) FROM s a, s b, s c";
                let body = format!("{{\"sql\":\"{sql}\",\"timeout_ms\":50}}");
                server.post("/api/v1/query", "Content-Type: application/json\r\n", &body).await
            } else {
                server
                    .post("/api/v1/query", "", "SELECT a.n FROM s a, s b ORDER BY a.n * b.n")
                    .await
            };
            (server, answer)
        }
        _ => panic!("no request produces `{code}`: add a case"),
    };
    if ends_well {
        server.stop().await;
    }
    answer
}

/// Posts rows until one post is answered with `status`.
async fn until(server: &Server, status: u16) -> Answer {
    let row = |n: u64| {
        format!("{{\"n\":{n},\"text\":\"{:x}\"}}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    };
    for post in 0..1000 {
        let body: String = (0..500).map(|n| row(post * 500 + n)).collect();
        let answer = server.ndjson("s", &body).await;
        if answer.status == status {
            return answer;
        }
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    panic!("a thousand posts, and none is answered with {status}");
}

/// A body of NDJSON or CSV with one good row and one that has this code.
fn body_with(code: Code) -> (&'static str, &'static str, String) {
    let ndjson = |bad: &str| (NDJSON, "n", format!("{{\"n\":1}}\n{bad}\n"));
    match code {
        Code::Syntax => ndjson("{\"n\":1,}"),
        Code::InvalidUtf8 => ndjson("INVALID"),
        Code::DuplicateKey => ndjson("{\"n\":1,\"n\":2}"),
        Code::RowTooLarge => ndjson(&format!("{{\"n\":1,\"t\":\"{}\"}}", "x".repeat(2000))),
        Code::TooDeep => ndjson(&format!("{{\"j\":{}1{}}}", "[".repeat(99), "]".repeat(99))),
        Code::FieldCount => (CSV, "n", "n,t\n1,a\n2\n".to_owned()),
        Code::NoMatch => ("Content-Type: text/plain\r\n", "n", "n=1\nno pairs\n".to_owned()),
        Code::UnknownColumn => ndjson("{\"n\":1,\"other\":1}"),
        Code::TypeMismatch => ndjson("{\"n\":\"x\"}"),
        Code::OutOfRange => ndjson("{\"n\":9223372036854775808}"),
        Code::InvalidDate => ndjson("{\"n\":1,\"d\":\"2013-02-30\"}"),
        Code::NotNull => ndjson("{\"n\":null}"),
        Code::Check => ndjson("{\"n\":-1}"),
        Code::Transform => (NDJSON, "transformed", "{\"n\":1}\n{\"n\":7}\n".to_owned()),
        Code::Poison => (NDJSON, "n", "{\"n\":1}\n{\"n\":1,\"t\":\"MARKER\"}\n".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_code_is_given_to_some_row_which_is_kept_whole() {
    let server = Server::start(
        "[faults]\npanic_on = \"MARKER\"\n[limits]\nrow = \"1KiB\"\n[streams.n]\n\
         schema = \"n BIGINT NOT NULL CHECK (n > 0), t TEXT, d DATE, j JSON\"\n\
         transform = \"SELECT *, n + 1 AS m FROM n\"\npattern = \"logfmt\"\n\
         [streams.transformed]\nschema = \"n BIGINT\"\ntransform = \"SELECT 1 / (n - 7) AS x FROM transformed\"\n",
    )
    .await;
    for code in Code::ALL {
        let (head, stream, body) = body_with(code);
        let bytes = body.replace("INVALID", "{\"n\":1,\"t\":\"?\"}");
        let mut request = server
            .request("POST", &format!("/ingest/{stream}?ack=stored"), head, &bytes)
            .into_bytes();
        if code == Code::InvalidUtf8 {
            let at = request.iter().rposition(|byte| *byte == b'?').unwrap();
            request[at] = 0xff;
        }
        let answer = server.raw(&request).await;
        assert_eq!(answer.status, 200, "{}: {}", code.as_str(), answer.text());
        let reply = answer.json();
        if !matches!(code, Code::Transform | Code::Poison) {
            assert_eq!(reply["errors"][0]["code"], code.as_str(), "{reply}");
            assert_eq!(reply["errors"][0]["row"], 2, "{reply}");
        }
        let sql =
            format!("SELECT count(*) AS n FROM _dead_letters WHERE code = '{}'", code.as_str());
        let kept = server.post("/api/v1/query", "", &sql).await;
        assert_eq!(kept.text().trim_end(), "[{\"n\":1}]", "{}", code.as_str());
    }
    server.stop().await;
}
