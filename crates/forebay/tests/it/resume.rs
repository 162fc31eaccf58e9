//! Uploads that go on where they were cut, over HTTP, and requests that lie about where that is.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;

use tokio::io::AsyncReadExt;

use crate::server::{Answer, Server};

const SETTINGS: &str = "[limits]\nchunk = \"16KiB\"\nrow = \"16KiB\"\n";

/// Rows of each body; each is more than a dozen chunks.
const ROWS: u64 = 20_000;

const FORMATS: [&str; 3] = ["application/x-ndjson", "text/csv", "application/json"];

/// Numbered rows, of which one is refused.
fn body(content_type: &str) -> String {
    let csv = content_type == "text/csv";
    let mut text = String::from(if csv { "n,pad\r\n" } else { "" });
    for n in 1..=ROWS {
        // The stream was made with BIGINT from the first rows.
        let number = if n == ROWS - 7 { "1.5".to_owned() } else { n.to_string() };
        match content_type {
            "text/csv" => write!(text, "{number},\"x\ny\"\r\n"),
            "application/json" => {
                let before = if n == 1 { "[" } else { "," };
                write!(text, "{before}{{\"n\":{number},\"pad\":\"]\"}}")
            }
            _ => writeln!(text, "{{\"n\":{number},\"pad\":\"x\"}}"),
        }
        .unwrap();
    }
    if content_type == "application/json" {
        text.push_str("\n]\n");
    }
    text
}

fn headers(content_type: &str, more: &str) -> String {
    format!("Content-Type: {content_type}\r\nIdempotency-Key: k\r\n{more}")
}

/// The answer to a HEAD: it has no body, whatever its head says.
async fn head(server: &Server, path: &str, headers: &str) -> (u16, String) {
    let mut connection = server.connect().await;
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    connection.send(request.as_bytes()).await;
    let mut answer = String::new();
    connection.socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n"), "a HEAD has no body: {answer}");
    (answer[9..12].parse().unwrap(), answer.to_ascii_lowercase())
}

fn value(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
}

fn number(head: &str, name: &str) -> usize {
    value(head, name).parse().unwrap()
}

/// Sends three quarters of a body and leaves; then where it goes on: prefix and offset.
async fn cut_upload(server: &Server, stream: &str, content_type: &str) -> [usize; 2] {
    let (body, path) = (body(content_type), format!("/ingest/{stream}"));
    let mut connection = server.connect().await;
    let request = server.request("POST", &path, &headers(content_type, ""), &body);
    let left_out = body.len() / 4;
    connection.send(&request.as_bytes()[..request.len() - left_out]).await;
    loop {
        let (status, head) = head(server, &path, "Idempotency-Key: k\r\n").await;
        // Nothing is on its way any more once less than a chunk was sent beyond it.
        let sent = body.len() - left_out;
        if status == 200 && number(&head, "upload-offset") + (16 << 10) > sent {
            assert_eq!(value(&head, "upload-complete"), "?0");
            return [number(&head, "upload-prefix"), number(&head, "upload-offset")];
        }
    }
}

async fn go_on(
    server: &Server,
    stream: &str,
    content_type: &str,
    [prefix, offset]: [usize; 2],
    body: &str,
) -> Answer {
    let at = format!("Upload-Offset: {offset}\r\nUpload-Prefix: {prefix}\r\n");
    server.post(&format!("/ingest/{stream}"), &headers(content_type, &at), body).await
}

async fn count(server: &Server, stream: &str) -> String {
    let sql = format!("SELECT count(*) AS n, count(DISTINCT n) AS d FROM {stream}");
    let answer = server.post("/api/v1/query", "Accept: text/csv\r\n", &sql).await;
    answer.text().lines().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_an_upload_of_any_format_goes_on_where_it_was_cut_and_counts_as_one() {
    let server = Server::start(SETTINGS).await;
    for (stream, content_type) in ["ndjson", "csv", "json"].into_iter().zip(FORMATS) {
        let whole = body(content_type);
        let [prefix, offset] = cut_upload(&server, stream, content_type).await;
        assert!((128 << 10..145 << 10).contains(&prefix), "{prefix}");
        let rest = format!("{}{}", &whole[..prefix], &whole[offset..]);
        let path = format!("{stream}?ack=stored");
        let answer = go_on(&server, &path, content_type, [prefix, offset], &rest).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let reply = answer.json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&(ROWS - 1).into(), &1.into()));
        assert_eq!(reply["errors"][0]["row"], ROWS - 7, "rows are numbered through: {reply}");
        assert_eq!(count(&server, stream).await, format!("{0},{0}", ROWS - 1), "{stream}");

        let again = go_on(&server, stream, content_type, [prefix, offset], &rest).await;
        assert_eq!(again.status, 202, "what is known adds nothing: {}", again.text());
        assert_eq!(again.json()["accepted"], ROWS - 1);
        let ordinary = format!("/ingest/{stream}");
        let again = server.post(&ordinary, &headers(content_type, ""), &whole).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{}", again.text());
        assert_eq!(again.json()["accepted"], ROWS - 1);
        assert_eq!(count(&server, stream).await, format!("{0},{0}", ROWS - 1), "{stream}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_upload_says_so_and_how_many_rows_it_had() {
    let server = Server::start(SETTINGS).await;
    let whole = body(FORMATS[0]);
    let answer = server.post("/ingest/s", &headers(FORMATS[0], ""), &whole).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let (status, head) = head(&server, "/ingest/s", "Idempotency-Key: k\r\n").await;
    assert_eq!((status, value(&head, "upload-complete").as_str()), (200, "?1"));
    assert_eq!(number(&head, "upload-offset"), whole.len());
    assert_eq!(number(&head, "upload-accepted") as u64, ROWS - 1);
    assert_eq!(number(&head, "upload-rejected"), 1);
    let places = [number(&head, "upload-prefix"), whole.len()];
    let answer = go_on(&server, "s", FORMATS[0], places, &whole[..places[0]]).await;
    assert_eq!(answer.problem(409, "upload-offset")["complete"], true);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_known_of_other_keys_other_streams_and_of_requests_without_a_key() {
    let server = Server::start(SETTINGS).await;
    assert_eq!(head(&server, "/ingest/s", "Idempotency-Key: k\r\n").await.0, 404);
    server.ndjson("s", "{\"n\":1}\n").await;
    assert_eq!(head(&server, "/ingest/s", "Idempotency-Key: other\r\n").await.0, 404);
    assert_eq!(head(&server, "/ingest/s", "").await.0, 400);
    assert_eq!(head(&server, "/ingest/_x", "Idempotency-Key: k\r\n").await.0, 400);
    let answer = server.get("/ingest/s").await;
    answer.problem(405, "wrong-method");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_a_request_that_goes_on_at_a_wrong_place_is_told_the_right_one_and_adds_nothing() {
    let server = Server::start(SETTINGS).await;
    let json = FORMATS[0];
    let whole = body(json);
    let [prefix, offset] = cut_upload(&server, "s", json).await;
    let wrong = [
        [prefix, offset + 1],
        [prefix, offset - 1],
        [prefix, whole.len() * 2],
        [prefix, usize::MAX],
        [prefix, 1],
        [prefix, 0],
    ];
    for places in wrong {
        let answer = go_on(&server, "s", json, places, &whole[..prefix]).await;
        let problem = answer.problem(409, "upload-offset");
        assert_eq!(problem["offset"], offset, "{places:?}");
        assert_eq!(answer.header("upload-offset"), Some(offset.to_string().as_str()));
        assert_eq!(answer.header("upload-prefix"), Some(prefix.to_string().as_str()));
    }
    for prefix in [0, 1, prefix - 1, prefix + 1, offset, usize::MAX] {
        let answer = go_on(&server, "s", json, [prefix, offset], "{}\n").await;
        answer.problem(409, "upload-offset");
    }
    let unknown = go_on(&server, "nowhere", json, [prefix, offset], "{}\n").await;
    assert_eq!(unknown.problem(409, "upload-offset")["offset"], 0);
    server.get("/api/v1/streams/nowhere").await.problem(404, "unknown-stream");
    let after: u64 = server.get("/api/v1/ledger").await.json()[0]["received"].as_u64().unwrap();
    assert!(after < ROWS, "nothing was added");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_a_request_that_goes_on_with_another_body_is_a_conflict() {
    let server = Server::start(SETTINGS).await;
    for (stream, content_type) in ["ndjson", "csv", "json"].into_iter().zip(FORMATS) {
        let whole = body(content_type);
        let [prefix, offset] = cut_upload(&server, stream, content_type).await;
        let ledger = || async {
            let ledger = server.get("/api/v1/ledger").await.json();
            let row = ledger.as_array().unwrap().iter().find(|row| row["stream"] == stream);
            row.unwrap()["received"].clone()
        };
        let before = ledger().await;
        let another = whole.replacen("x", "z", 1).replacen(']', "z", 1);
        let (rest, short) = (&whole[offset..], &whole[..prefix - 1]);
        for beginning in [&another[..prefix], &whole[1..=prefix], short, "", "\n", "[{},{}]"] {
            let text = match beginning.len() == prefix {
                true => format!("{beginning}{rest}"),
                false => beginning.to_owned(),
            };
            let answer = go_on(&server, stream, content_type, [prefix, offset], &text).await;
            assert!(matches!(answer.status, 400 | 409), "{}: {}", answer.status, answer.text());
            if beginning == &another[..prefix] || beginning == short {
                answer.problem(409, "key-conflict");
            }
        }
        assert_eq!(ledger().await, before, "{stream}: nothing was added");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_none_and_numbers_without_a_key_are_refused() {
    let server = Server::start(SETTINGS).await;
    let key = "Idempotency-Key: k\r\n";
    let cases = [
        format!("{key}Upload-Offset: 5\r\n"),
        format!("{key}Upload-Prefix: 5\r\n"),
        format!("{key}Upload-Offset: -1\r\nUpload-Prefix: 5\r\n"),
        format!("{key}Upload-Offset: +1\r\nUpload-Prefix: 5\r\n"),
        format!("{key}Upload-Offset: \r\nUpload-Prefix: 5\r\n"),
        format!("{key}Upload-Offset: 99999999999999999999\r\nUpload-Prefix: 5\r\n"),
        format!("{key}Upload-Offset: 1\r\nUpload-Offset: 1\r\nUpload-Prefix: 5\r\n"),
        "Upload-Offset: 5\r\nUpload-Prefix: 5\r\n".to_owned(),
    ];
    for case in cases {
        let headers = format!("Content-Type: application/x-ndjson\r\n{case}");
        let answer = server.post("/ingest/s", &headers, "{\"n\":1}\n").await;
        answer.problem(400, "upload-headers");
    }
    server.get("/api/v1/streams/s").await.problem(404, "unknown-stream");
    server.stop().await;
}
