//! Bearer tokens: 401, 403, and who may do what.

use crate::server::Server;

/// `printf %s secret | sha256sum`, and the same of `master`.
const TOKENS: &str = r#"
[[tokens]]
name = "shop"
hash = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
streams = ["flights"]

[[tokens]]
name = "admin"
hash = "sha256:fc613b4dfd6736a7bd268c8a0e74ed0d1c04a959f59dd74ef2874983fd443fc9"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_writes_its_streams_and_nothing_else() {
    let server = Server::start(TOKENS).await;
    let with = |token: &str| {
        format!("Content-Type: application/x-ndjson\r\nAuthorization: Bearer {token}\r\n")
    };
    let rows = "{\"a\":1}\n";
    let answer = server.ndjson("flights", rows).await;
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    server.post("/ingest/flights", &with("wrong"), rows).await.problem(401, "unauthorized");
    assert_eq!(server.post("/ingest/flights", &with("secret"), rows).await.status, 202);
    server.post("/ingest/other", &with("secret"), rows).await.problem(403, "forbidden");
    let query = "Authorization: Bearer secret\r\n";
    server.post("/api/v1/query", query, "SELECT 1").await.problem(403, "forbidden");
    let admin = "Authorization: bearer master\r\n";
    assert_eq!(server.post("/api/v1/query", admin, "SELECT 1").await.status, 200);
    server.get("/metrics").await.problem(401, "unauthorized");
    assert_eq!(server.get("/readyz").await.status, 200);
    server.stop().await;
}
