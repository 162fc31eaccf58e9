//! Routes and answers: what is accepted, and what each refusal says.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_and_come_out_by_sql() {
    let server = Server::start("").await;
    let answer = server
        .post(
            "/ingest/people?ack=stored",
            "Content-Type: application/x-ndjson\r\n",
            "{\"id\":1,\"name\":\"ada\"}\n{\"id\":2,\"name\":\"bob\"}\n",
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let reply = answer.json();
    let members: Vec<&String> = reply.as_object().unwrap().keys().collect();
    assert_eq!(members, ["stream", "ack", "accepted", "rejected", "errors", "position"]);
    assert_eq!((&reply["ack"], &reply["accepted"]), (&json!("stored"), &json!(2)));

    let answer = server
        .post(
            "/api/v1/query",
            "Content-Type: application/json\r\n",
            "{\"sql\":\"SELECT id, name FROM people ORDER BY id\"}",
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json(), json!([{"id": 1, "name": "ada"}, {"id": 2, "name": "bob"}]));
    let csv = server
        .post("/api/v1/query", "Accept: text/csv\r\n", "SELECT count(*) AS n FROM people")
        .await;
    assert_eq!((csv.status, csv.text()), (200, "n\n2\n"));

    let ledger = server.get("/api/v1/ledger").await.json();
    assert_eq!(ledger[0]["stream"], "people");
    assert_eq!((&ledger[0]["stored"], &ledger[0]["difference"]), (&json!(2), &json!(0)));
    let stream = server.get("/api/v1/streams/people").await.json();
    assert_eq!(stream["created_by"], "auto");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ack_stored_does_not_wait_for_the_flush_interval() {
    let server = Server::start("[flush]\ninterval = \"1h\"\n").await;
    for _ in 0..2 {
        let head = "Content-Type: application/x-ndjson\r\n";
        let answer = server.post("/ingest/s?ack=stored", head, "{\"a\":1}\n").await;
        assert_eq!((answer.status, &answer.json()["ack"]), (200, &json!("stored")));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_that_cannot_become_a_column_is_refused_and_not_tried_for_ever() {
    let server = Server::start("").await;
    assert_eq!(server.ndjson("w", "{\"a\":1}\n").await.status, 202);
    // A broken line with a new key, and a name that is Forebay's own.
    for line in ["{\"a\":1,\"b\":2\n", "{\"_received_at\":1}\n"] {
        let answer = server.ndjson("w", &format!("{{\"a\":1}}\n{line}")).await;
        assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(1)), "{line}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_dropped_and_made_again_stores_its_rows() {
    let server = Server::start("").await;
    for _ in 0..2 {
        let head = "Content-Type: application/x-ndjson\r\n";
        let answer = server.post("/ingest/again?ack=stored", head, "{\"a\":1}\n").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let request = server.request("DELETE", "/api/v1/streams/again", "", "");
        let mut connection = server.connect().await;
        connection.send(request.as_bytes()).await;
        assert!(connection.answer().await.unwrap().status < 300);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_answer_is_202_and_a_row_in_fault_is_named() {
    let server = Server::start("[streams.n]\nschema = \"a INT NOT NULL\"\n").await;
    let answer = server.ndjson("n", "{\"a\":1}\n{\"a\":\"x\"}\n").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let reply = answer.json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(reply["errors"][0]["row"], 2);
    assert_eq!(reply["errors"][0]["column"], "a");
    let problem = server.ndjson("n", "{\"a\":null}\n").await.problem(422, "no-valid-row");
    assert_eq!(problem["errors"][0]["code"], "not_null");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_with_its_reason() {
    let server = Server::start("").await;
    let csv = "Content-Type: text/csv\r\n";
    server
        .post("/ingest/s", "Content-Type: image/png\r\n", "x")
        .await
        .problem(415, "unsupported-type");
    server.post("/ingest/s", "", "x").await.problem(415, "unsupported-type");
    let brotli = format!("{csv}Content-Encoding: br\r\n");
    server.post("/ingest/s", &brotli, "x").await.problem(415, "unsupported-encoding");
    server.post("/ingest/s?ack=soon", csv, "a\n1\n").await.problem(400, "unknown-ack");
    server.post("/ingest/s?ak=stored", csv, "a\n1\n").await.problem(400, "unknown-parameter");
    server.post("/ingest/s", csv, "").await.problem(400, "empty-body");
    let key = format!("{csv}Idempotency-Key: {}\r\n", "k".repeat(257));
    server.post("/ingest/s", &key, "a\n1\n").await.problem(400, "idempotency-key");
    let broken = "Content-Type: application/json\r\n";
    let problem =
        server.post("/ingest/s", broken, "[{\"a\":1},\n}").await.problem(400, "malformed-body");
    assert_eq!(problem["line"], 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_outside_of_the_rules_is_refused_however_it_is_written() {
    let server = Server::start("").await;
    for path in [
        "/ingest/..%2F..%2Fetc",
        "/ingest/../../etc",
        "/ingest/a/b",
        "/ingest/a%00b",
        "/ingest/%ff",
        "/ingest/_dead_letters",
        "/ingest/9lives",
        "/ingest/%20",
        &format!("/ingest/{}", "a".repeat(129)),
    ] {
        let answer = server.post(path, "Content-Type: text/csv\r\n", "a\n1\n").await;
        answer.problem(400, "stream-name");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_404_and_a_wrong_method_405_with_allow() {
    let server = Server::start("").await;
    server.get("/nothing").await.problem(404, "no-such-route");
    let answer = server.get("/ingest/people").await;
    answer.problem(405, "wrong-method");
    assert_eq!(answer.header("allow"), Some("POST,HEAD"));
    server.get("/api/v1/streams/none").await.problem(404, "unknown-stream");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_created_described_and_dropped_by_the_api() {
    let server = Server::start("auto_create = false\n[streams.fixed]\nschema = \"a INT\"\n").await;
    server.ndjson("later", "{\"a\":1}\n").await.problem(404, "unknown-stream");
    let put = |name: &str, body: &str| {
        server.request(
            "PUT",
            &format!("/api/v1/streams/{name}"),
            "Content-Type: application/json\r\n",
            body,
        )
    };
    let answer = server.raw(put("later", "{\"schema\": \"a INT\"}").as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.ndjson("later", "{\"a\":1}\n").await.status, 202);
    let names: Vec<_> = server.get("/api/v1/streams").await.json().as_array().unwrap().clone();
    assert_eq!(names.len(), 2);
    server
        .raw(put("fixed", "{\"schema\": \"b INT\"}").as_bytes())
        .await
        .problem(409, "stream-refused");
    let problem = server.raw(put("x", "{\"shema\": \"b INT\"}").as_bytes()).await;
    problem.problem(400, "malformed-body");
    let answer =
        server.raw(server.request("DELETE", "/api/v1/streams/later", "", "").as_bytes()).await;
    assert_eq!(answer.status, 204);
    server.get("/api/v1/streams/later").await.problem(404, "unknown-stream");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_would_write_or_makes_no_sense_is_refused() {
    let server = Server::start("").await;
    server.ndjson("s", "{\"a\":1}\n").await;
    for (sql, code) in [
        ("DROP TABLE s", "query-not-read-only"),
        ("COPY s TO '/tmp/x'", "query-not-read-only"),
        ("SELEC 1", "query-syntax"),
        ("SELECT * FROM nothing", "query-unknown-table"),
        ("SELECT b FROM s", "query-invalid"),
    ] {
        let answer = server.post("/api/v1/query", "", sql).await;
        answer.problem(400, code);
    }
    let wrong =
        server.post("/api/v1/query", "Content-Type: application/json\r\n", "{\"sq\":1}").await;
    wrong.problem(400, "malformed-body");
    server
        .post("/api/v1/query", "Accept: image/png\r\n", "SELECT 1")
        .await
        .problem(406, "not-acceptable");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_under_a_key_adds_nothing_and_another_body_is_409() {
    let server = Server::start("").await;
    let headers = "Content-Type: application/x-ndjson\r\nIdempotency-Key: k1\r\n";
    assert_eq!(server.post("/ingest/s", headers, "{\"a\":1}\n").await.status, 202);
    let again = server.post("/ingest/s", headers, "{\"a\":1}\n").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    server.post("/ingest/s", headers, "{\"a\":2}\n").await.problem(409, "key-conflict");
    assert_eq!(server.get("/api/v1/ledger").await.json()[0]["accepted"], 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_of_another_origin_may_not_call() {
    let server = Server::start("[http]\norigins = [\"https://dash.example\"]\n").await;
    let with = |origin: &str| format!("Origin: {origin}\r\nContent-Type: text/plain\r\n");
    let own = format!("http://{}", server.address);
    for (origin, status) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://dash.example", 200),
        (own.as_str(), 200),
    ] {
        let answer = server.post("/api/v1/query", &with(origin), "SELECT 1").await;
        assert_eq!(answer.status, status, "{origin}");
    }
    // A page that gave its own name this address.
    let rebound = "POST /api/v1/query HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nContent-Length: 8\r\n\r\nSELECT 1";
    server.raw(rebound.as_bytes()).await.problem(403, "cross-origin");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_when_it_is_plain_and_made_when_it_is_not() {
    let server = Server::start("").await;
    let ask = |id: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n\r\n");
    let kept = server.raw(ask("abc-1").as_bytes()).await;
    assert_eq!(kept.header("x-request-id"), Some("abc-1"));
    let made = server.raw(ask("a b\"c").as_bytes()).await;
    assert_eq!(made.header("x-request-id").unwrap().len(), 32);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_tree_queues_and_tasks() {
    let server = Server::start("").await;
    let tree = server.get("/api/v1/tree").await.text().to_owned();
    assert!(tree.contains("\"name\":\"http\""), "{tree}");
    let queues = server.get("/api/v1/queues").await.json();
    let names: Vec<&str> =
        queues.as_array().unwrap().iter().filter_map(|q| q["name"].as_str()).collect();
    assert!(names.contains(&"validate"), "{names:?}");
    assert!(queues.as_array().unwrap().iter().all(|queue| queue["capacity"].as_u64().unwrap() > 0));
    let tasks = server.get("/api/v1/tasks").await.text().to_owned();
    assert!(tasks.contains("\"name\":\"connection\""));
    assert!(server.get("/").await.text().contains("/ingest/{stream}"));
    let pages = server.get("/debug").await.text().to_owned();
    for page in ["tasks", "queues", "locks", "tree"] {
        assert!(pages.contains(&format!("/debug/{page}")), "{pages}");
        assert_eq!(server.get(&format!("/debug/{page}")).await.status, 200, "{page}");
    }
    let stacks = server.get("/debug/tasks?name=http&stacks=1").await.text().to_owned();
    assert!(stacks.contains("http::serve") || stacks.contains("http/mod.rs"), "{stacks}");
    server.get("/debug/tasks?frobnicate=1").await.problem(400, "unknown-parameter");
    server.get("/debug/nothing").await.problem(404, "no-such-route");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_draining_server_is_not_ready_and_refuses_rows_but_still_shows_itself() {
    let server = Server::start("").await;
    server.app.begin_drain();
    let answer = server.get("/readyz").await;
    answer.problem(503, "overloaded");
    assert_eq!(answer.header("connection"), Some("close"));
    let answer = server.ndjson("s", "{\"a\":1}\n").await;
    assert_eq!(answer.problem(503, "overloaded")["reason"], "draining");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/metrics").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_csv_body_of_many_small_chunks_is_stored_whole() {
    // The delimiter is told by the first 64 KiB, so all chunks are cut when the body ends.
    let server = Server::start("[limits]\nchunk = \"4KiB\"\nrow = \"4KiB\"\n").await;
    let rows: String = (0..5000).map(|n| format!("{n};x{n}\n")).collect();
    let head = "Content-Type: text/csv\r\nIdempotency-Key: k\r\n";
    let body = format!("n;x\n{rows}");
    assert!(body.len() < 64 << 10);
    for _ in 0..2 {
        let answer = server.post("/ingest/s", head, &body).await;
        assert_eq!((answer.status, &answer.json()["accepted"]), (202, &json!(5000)));
    }
    server.stop().await;
}
