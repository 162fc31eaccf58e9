//! Requests whose ends two readers would see in different places: refused, and nothing that follows on
//! the connection is taken for a request.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::server::Server;

const INNER: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_end_is_in_doubt_is_400_and_ends_the_connection() {
    let server = Server::start("").await;
    let head = "POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n";
    for (name, headers, body) in [
        ("two lengths", "Content-Length: 8\r\nContent-Length: 44\r\n", "{\"a\":1}\n"),
        ("a list of lengths", "Content-Length: 8, 44\r\n", "{\"a\":1}\n"),
        ("a signed length", "Content-Length: +8\r\n", "{\"a\":1}\n"),
        ("a length beyond numbers", "Content-Length: 99999999999999999999\r\n", ""),
        ("another coding first", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("another coding last", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("two codings", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("a coding by another name", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("NUL in a value", "X: a\0b\r\nContent-Length: 0\r\n", ""),
        ("a space before the colon", "Content-Length : 8\r\n", "{\"a\":1}\n"),
        ("a folded line", "X: a\r\n b\r\nContent-Length: 0\r\n", ""),
        ("CR alone", "X: a\rContent-Length: 0\r\n", ""),
        (
            "a chunk size with LF alone",
            "Transfer-Encoding: chunked\r\n",
            "8\n{\"a\":1}\n\r\n0\r\n\r\n",
        ),
        (
            "a chunk longer than said",
            "Transfer-Encoding: chunked\r\n",
            "3\r\n{\"a\":1}\n\r\n0\r\n\r\n",
        ),
    ] {
        let mut connection = server.connect().await;
        connection.send(format!("{head}{headers}\r\n{body}{INNER}").as_bytes()).await;
        let answer = connection.answer().await.unwrap();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(connection.answer().await.is_none(), "{name}: what follows was answered");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_does_not_count_and_nothing_follows_them() {
    let server = Server::start("").await;
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let head = "POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n";
        let body = "8\r\n{\"a\":1}\n\r\n0\r\n\r\n";
        let mut connection = server.connect().await;
        connection.send(format!("{head}{headers}\r\n{body}{INNER}").as_bytes()).await;
        let answer = connection.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
        assert!(connection.answer().await.is_none(), "what follows was answered");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_ends_in_lf_alone_is_one_line_and_the_length_in_it_counts() {
    let server = Server::start("").await;
    // RFC 9112 allows it; what matters is that it is read in one way.
    let request = "POST /ingest/s HTTP/1.1\nHost: x\nContent-Type: application/x-ndjson\n\
                   Content-Length: 8\n\n{\"a\":1}\n";
    let mut connection = server.connect().await;
    connection.send(format!("{request}{INNER}").as_bytes()).await;
    assert_eq!(connection.answer().await.unwrap().status, 202);
    assert_eq!(connection.answer().await.unwrap().status, 200);
    server.stop().await;
}
