//! Streams that live: what may change, what may not, and that nothing is lost while they come and go.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use forebay::api::{self, Ack, Due};
use forebay::config::raw;
use forebay_flow::clock;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

const JSON: &str = "Content-Type: application/json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

async fn put_if(server: &Server, stream: &str, heads: &str, settings: Value) -> Answer {
    let path = format!("/api/v1/streams/{stream}");
    let heads = format!("{JSON}{heads}");
    server.raw(server.request("PUT", &path, &heads, &settings.to_string()).as_bytes()).await
}

async fn put(server: &Server, stream: &str, settings: Value) -> Answer {
    put_if(server, stream, "", settings).await
}

async fn made(server: &Server, stream: &str, settings: Value) -> u64 {
    let answer = put(server, stream, settings).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["version"].as_u64().unwrap()
}

async fn delete(server: &Server, path: &str) -> Answer {
    let path = format!("/api/v1/streams/{path}");
    server.raw(server.request("DELETE", &path, "", "").as_bytes()).await
}

async fn store(server: &Server, stream: &str, body: &str) {
    let answer = server.post(&format!("/ingest/{stream}?ack=stored"), NDJSON, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn query(server: &Server, sql: &str) -> Value {
    let answer = server.post("/api/v1/query", "", sql).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stored_rows_allow_is_a_version_and_the_rest_says_what_to_do_instead() {
    let server = Server::start("").await;
    let schema = |ddl: &str| json!({"schema": ddl});
    assert_eq!(made(&server, "s", schema("a INT NOT NULL CHECK (a > 0), b TEXT")).await, 1);
    store(&server, "s", "{\"a\":1,\"b\":\"x\"}\n").await;
    let steps = [
        schema("a INT NOT NULL CHECK (a > 0), b TEXT, c DOUBLE"),
        schema("a INT CHECK (a > 0), b TEXT, c DOUBLE"),
        schema("a INT, b TEXT, c DOUBLE"),
        schema("a INT, b TEXT, c DOUBLE, CHECK (a > -9)"),
        json!({"schema": "a INT, b TEXT, c DOUBLE", "transform": "SELECT *, a + 1 AS d FROM s"}),
        json!({
            "schema": "a INT, b TEXT, c DOUBLE, e INT NOT NULL DEFAULT 7",
            "transform": "SELECT *, a + 1 AS d FROM s",
        }),
    ];
    for (n, step) in steps.into_iter().enumerate() {
        assert_eq!(made(&server, "s", step.clone()).await, n as u64 + 2, "{step}");
        assert_eq!(made(&server, "s", step.clone()).await, n as u64 + 2, "nothing changed: {step}");
    }
    for (ddl, told) in [
        ("a BIGINT, b TEXT, c DOUBLE, e INT NOT NULL DEFAULT 7", "add a new column of type BIGINT"),
        ("a INT, c DOUBLE, e INT NOT NULL DEFAULT 7", "column `b` is left out"),
        ("a INT, b2 TEXT, c DOUBLE, e INT NOT NULL DEFAULT 7", "add that as a new column"),
        ("a INT, b TEXT NOT NULL, c DOUBLE, e INT NOT NULL DEFAULT 7", "CHECK (b IS NOT NULL)"),
        ("a INT, b TEXT, c DOUBLE, e INT NOT NULL DEFAULT 7, f INT NOT NULL", "give it a DEFAULT"),
    ] {
        let problem = put(&server, "s", schema(ddl)).await.problem(409, "stream-refused");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
    }
    store(&server, "s", "{}\n").await;
    let rows = query(&server, "SELECT a, b, d, e FROM s ORDER BY a").await;
    let old = json!({"a": 1, "b": "x", "d": null, "e": null});
    assert_eq!(rows, json!([old, {"a": null, "b": null, "d": null, "e": 7}]));
    let shown = server.get("/api/v1/streams/s").await;
    assert_eq!(shown.header("etag"), Some("\"7\""));
    let shown = shown.json();
    assert_eq!(shown["versions"].as_array().unwrap().len(), 7);
    assert_eq!(shown["versions"][6]["schema"], "a INT NOT NULL CHECK (a > 0), b TEXT");
    assert_eq!((&shown["rows"]["stored"], &shown["lag_bytes"]), (&json!(2), &json!(0)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_on_an_older_view_is_412() {
    let server = Server::start("").await;
    let one = json!({"schema": "a INT"});
    assert_eq!(put_if(&server, "s", "If-None-Match: *\r\n", one.clone()).await.status, 200);
    let again = put_if(&server, "s", "If-None-Match: *\r\n", json!({"schema": "b INT"})).await;
    let problem = again.problem(412, "stream-changed");
    assert!(problem["detail"].as_str().unwrap().contains("exists already"), "{problem}");
    let two = json!({"schema": "a INT, b INT"});
    assert_eq!(put_if(&server, "s", "If-Match: \"1\"\r\n", two).await.status, 200);
    let late = put_if(&server, "s", "If-Match: \"1\"\r\n", one.clone()).await;
    late.problem(412, "stream-changed");
    put_if(&server, "none", "If-Match: \"1\"\r\n", one.clone())
        .await
        .problem(412, "stream-changed");
    put_if(&server, "s", "If-Match: x\r\n", one).await.problem(400, "precondition");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_and_after_a_relaxed_not_null_are_stored_together() {
    let server = Server::start("[flush]\ninterval = \"1h\"\n").await;
    made(&server, "s", json!({"schema": "a INT NOT NULL"})).await;
    assert_eq!(server.ndjson("s", "{\"a\":1}\n").await.status, 202);
    made(&server, "s", json!({"schema": "a INT"})).await;
    // One flush holds both versions: it is wanted only now.
    store(&server, "s", "{\"a\":null}\n").await;
    let rows = query(&server, "SELECT count(*) AS n, count(a) AS a FROM s").await;
    assert_eq!(rows, json!([{"n": 2, "a": 1}]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_again_must_fit_the_table_that_was_kept() {
    let server = Server::start("").await;
    made(&server, "s", json!({"schema": "a INT, b TEXT"})).await;
    store(&server, "s", "{\"a\":1,\"b\":\"x\"}\n").await;
    assert_eq!(delete(&server, "s").await.status, 204);
    let problem =
        put(&server, "s", json!({"schema": "a TEXT"})).await.problem(409, "stream-refused");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("\"a\"") && detail.contains("move the table away"), "{detail}");
    // By itself it would get a BIGINT: as little.
    let problem = server.ndjson("s", "{\"a\":1}\n").await.problem(409, "stream-refused");
    assert!(problem["detail"].as_str().unwrap().contains("\"a\""), "{problem}");
    server.get("/api/v1/streams/s").await.problem(404, "unknown-stream");
    made(&server, "s", json!({"schema": "a INT, c DOUBLE"})).await;
    store(&server, "s", "{\"a\":2,\"c\":0.5}\n").await;
    let rows = query(&server, "SELECT a, b, c FROM s ORDER BY a").await;
    assert_eq!(rows, json!([{"a": 1, "b": "x", "c": null}, {"a": 2, "b": null, "c": 0.5}]));
    // Nor may a change make a column of what the table holds as another.
    let problem = put(&server, "s", json!({"schema": "a INT, c DOUBLE, b INT"})).await;
    let problem = problem.problem(409, "stream-refused");
    assert!(problem["detail"].as_str().unwrap().contains("\"b\""), "{problem}");
    store(&server, "s", "{\"a\":3}\n").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_by_themselves_and_do_not_fit_the_kept_table_are_dead_letters() {
    let server = Server::start("").await;
    store(&server, "s", "{\"a\":1,\"b\":\"x\"}\n").await;
    assert_eq!(delete(&server, "s").await.status, 204);
    store(&server, "s", "{\"a\":2}\n").await;
    let answer =
        server.post("/ingest/s?ack=stored", NDJSON, "{\"a\":3,\"b\":4}\n{\"a\":5}\n").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let reply = answer.json();
    assert_eq!((&reply["accepted"], &reply["errors"][0]["column"]), (&json!(1), &json!("b")));
    let rows = query(&server, "SELECT a, b FROM s ORDER BY a").await;
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_whose_output_the_table_cannot_take_is_refused_and_rows_go_on() {
    let server = Server::start("").await;
    let with = |sql: &str| json!({"schema": "a INT NOT NULL", "transform": sql});
    made(&server, "s", with("SELECT a, a + 1 AS b FROM s")).await;
    store(&server, "s", "{\"a\":1}\n").await;
    for sql in ["SELECT a, 'x' AS b FROM s", "SELECT CAST(a AS DOUBLE) AS a, a + 1 AS b FROM s"] {
        put(&server, "s", with(sql)).await.problem(409, "stream-refused");
    }
    store(&server, "s", "{\"a\":2}\n").await;
    assert_eq!(query(&server, "SELECT sum(b) AS b FROM s").await, json!([{"b": 5}]));
    server.stop().await;
}

/// Polls a future once and drops it: a client that leaves at the first wait.
fn abandon(future: impl Future) {
    let gone = futures_util::FutureExt::now_or_never(future);
    assert!(gone.is_none(), "it ended at once, so nothing was cut short");
}

async fn eventually(mut done: impl AsyncFnMut() -> bool) {
    let end = clock::now() + Duration::from_secs(60);
    while !done().await {
        assert!(clock::now() < end, "what was waited for did not come");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_a_change_whose_client_left_still_comes_to_its_end() {
    let server = Server::start("").await;
    let engine = &server.engine;
    let stream = |schema: &str| {
        let written = raw::Stream { schema: Some(schema.to_owned()), ..raw::Stream::default() };
        forebay::config::Stream::from_raw(written).unwrap()
    };
    let (first, second) = (stream("a INT"), stream("a INT, b INT"));
    abandon(api::put_stream(engine, "s", &first, None));
    eventually(async || engine.stream("s").is_some()).await;
    store(&server, "s", "{\"a\":1}\n").await;
    abandon(api::put_stream(engine, "s", &second, None));
    eventually(async || engine.stream("s").unwrap().definition.version == 2).await;
    store(&server, "s", "{\"b\":1}\n").await;
    abandon(api::drop_stream(engine, "s", false));
    eventually(async || engine.stream("s").is_none()).await;
    // And the next one under that name is whole.
    eventually(async || put(&server, "s", json!({"schema": "a INT, b INT"})).await.status == 200)
        .await;
    store(&server, "s", "{\"a\":3}\n").await;
    assert_eq!(query(&server, "SELECT count(*) AS n FROM s").await, json!([{"n": 3}]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_rows_acknowledged_while_their_stream_is_dropped_are_kept() {
    let server = Server::start("[flush]\ninterval = \"20ms\"\n").await;
    let settings = json!({"schema": "a INT NOT NULL"});
    let mut acknowledged = 0;
    for round in 0..8 {
        made(&server, "s", settings.clone()).await;
        // These were let in before the drop, and end while it runs.
        let mut uploads = Vec::new();
        for _ in 0..4 {
            let request = api::Request {
                stream: "s".to_owned(),
                format: forebay_pipeline::codec::Format::Ndjson,
                packing: Default::default(),
                ack: Ack::Durable,
                key: None,
                tenant: "t".to_owned(),
                client: "c".to_owned(),
                request_id: "r".to_owned(),
                wait: None,
                content_length: None,
            };
            let mut upload = server.engine.begin(request).await.unwrap();
            upload.push(Bytes::from(format!("{{\"a\":{round}}}\n"))).await.unwrap();
            uploads.push(upload);
        }
        let ends = uploads.into_iter().map(|upload| async {
            let due = Due(clock::now() + Duration::from_secs(20));
            upload.finish(due).await.is_ok()
        });
        let (ended, dropped) = tokio::join!(
            futures_util::future::join_all(ends),
            api::drop_stream(&server.engine, "s", false)
        );
        acknowledged += ended.into_iter().filter(|ok| *ok).count();
        assert!(dropped.is_ok() || dropped.is_err_and(|why| why.kind.status == 409));
    }
    made(&server, "s", settings).await;
    eventually(async || server.engine.ledger()[0].in_journal == 0).await;
    let rows = query(&server, "SELECT count(*) AS n FROM s").await;
    assert_eq!(rows, json!([{"n": acknowledged}]), "F1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_the_number_of_streams_is_bounded_however_they_come() {
    let server = Server::start("[limits]\nstreams = 4\n").await;
    let names: Vec<String> = (0..24).map(|n| format!("s{n}")).collect();
    let posts = names.iter().map(|name| server.ndjson(name, "{\"a\":1}\n"));
    let answers = futures_util::future::join_all(posts).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (4, 20));
    for answer in refused {
        let problem = answer.problem(409, "too-many-streams");
        assert!(problem["detail"].as_str().unwrap().contains("[limits] streams"), "{problem}");
    }
    put(&server, "more", json!({"schema": "a INT"})).await.problem(409, "too-many-streams");
    let there = server.get("/api/v1/streams").await.json();
    let names: Vec<&str> =
        there.as_array().unwrap().iter().map(|stream| stream["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4);
    store(&server, names[0], "{\"a\":2}\n").await;
    assert_eq!(delete(&server, names[1]).await.status, 204);
    assert_eq!(server.ndjson("more", "{\"a\":1}\n").await.status, 202);
    server.ndjson("evenmore", "{\"a\":1}\n").await.problem(409, "too-many-streams");
    server.stop().await;
}
