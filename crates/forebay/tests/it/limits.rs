//! Slow and hostile clients: what they are answered, and that nothing of them stays.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::server::Server;

const HASTY: &str = "[http]\nmin_rate = \"1MB\"\nrate_window = \"50ms\"\nrate_grace = \"50ms\"\nheader_deadline = \"200ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_408() {
    let server = Server::start(HASTY).await;
    let answer = server
        .raw(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\na\n")
        .await;
    answer.problem(408, "slow-body");
    assert_eq!(answer.header("connection"), Some("close"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_loses_the_connection() {
    let server = Server::start(HASTY).await;
    let mut connection = server.connect().await;
    connection.send(b"GET /livez HTTP/1.1\r\nHost:").await;
    assert!(connection.closed().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_is_431() {
    let server = Server::start("[http]\nmax_header = \"2KiB\"\n").await;
    let long = "x".repeat(3000);
    let answer = server
        .raw(format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(answer.status, 431);
    let many = "X-Many: 1\r\n".repeat(101);
    let answer =
        server.raw(format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(answer.status, 431);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_longer_than_allowed_is_413_declared_or_not() {
    let server = Server::start("[http]\nmax_body = \"10B\"\n").await;
    let csv = "Content-Type: text/csv\r\n";
    server.post("/ingest/s", csv, "a\n123456789\n").await.problem(413, "body-too-large");
    let chunked = format!(
        "POST /ingest/s HTTP/1.1\r\nHost: x\r\n{csv}Transfer-Encoding: chunked\r\n\r\nc\r\na\n123456789\n\r\n0\r\n\r\n"
    );
    server.raw(chunked.as_bytes()).await.problem(413, "body-too-large");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_chunk_is_400() {
    let server = Server::start("").await;
    let answer = server
        .raw(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nwhat\r\n")
        .await;
    answer.problem(400, "broken-body");
    let answer = server.raw(b"this is not HTTP\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_a_client_that_waits_for_100_continue_is_refused_before_its_body() {
    let server = Server::start("").await;
    let mut connection = server.connect().await;
    connection
        .send(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    let answer = connection.answer().await.unwrap();
    answer.problem(415, "unsupported-type");
    assert!(connection.closed().await, "the body is not waited for");

    let mut connection = server.connect().await;
    connection
        .send(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(connection.answer().await.unwrap().status, 100);
    connection.send(b"a\n1\n").await;
    assert_eq!(connection.answer().await.unwrap().status, 202);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let server = Server::start("").await;
    let mut connection = server.connect().await;
    let length = 200 << 10;
    connection
        .send(format!("POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n").as_bytes())
        .await;
    let answer = connection.answer().await.unwrap();
    answer.problem(415, "unsupported-type");
    assert_eq!(answer.header("connection"), Some("close"));
    connection.send(&vec![b'x'; length]).await;
    assert!(connection.closed().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_connection_limit_health_is_answered_and_rows_are_not() {
    let server = Server::start("[http]\nmax_connections = 1\n").await;
    // The connection that asked for readiness may still be closing: until then ours is beyond the limit.
    let mut first = loop {
        let mut connection = server.connect().await;
        connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = connection.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        if answer.header("connection") != Some("close") {
            break connection;
        }
    };
    assert_eq!(server.get("/livez").await.status, 200);
    let answer = server.ndjson("s", "{\"a\":1}\n").await;
    assert_eq!(answer.problem(503, "overloaded")["reason"], "connections");
    assert_eq!(answer.header("retry-after"), Some("1"));
    first
        .send(
            server
                .request(
                    "POST",
                    "/ingest/s",
                    "Content-Type: application/x-ndjson\r\n",
                    "{\"a\":1}\n",
                )
                .as_bytes(),
        )
        .await;
    assert_eq!(first.answer().await.unwrap().status, 202);
    drop(first);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_requests_cut_in_the_middle_leave_nothing() {
    let server = Server::start("").await;
    for _ in 0..200 {
        let mut connection = server.connect().await;
        connection
            .send(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\na\n1\n2")
            .await;
        drop(connection);
    }
    // `stop` waits until none is in flight, and finds every task and permit gone.
    server.stop().await;
}
