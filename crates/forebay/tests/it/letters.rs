//! Dead letters: listed, shown, and sent again through the front door of their stream.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use crate::server::Server;

const QUICK: &str = "[flush]\ninterval = \"50ms\"\n";
const CSV: &str = "Content-Type: text/csv\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

async fn put(server: &Server, stream: &str, settings: Value) {
    let path = format!("/api/v1/streams/{stream}");
    let request = server.request("PUT", &path, JSON, &settings.to_string());
    let answer = server.raw(request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Waits until everything of a stream is in its tables; nothing may be unaccounted for.
async fn settled(server: &Server, stream: &str) -> Value {
    loop {
        let rows = server.get("/api/v1/ledger").await.json();
        let row = rows.as_array().unwrap().iter().find(|row| row["stream"] == stream).unwrap();
        if (&row["in_journal"], &row["rejected_in_journal"]) == (&json!(0), &json!(0)) {
            assert_eq!(row["difference"], 0, "F6: {row}");
            return row.clone();
        }
    }
}

async fn list(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/api/v1/dead-letters?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn redrive(server: &Server, body: Value) -> Value {
    let answer = server.post("/api/v1/dead-letters/redrive", JSON, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn query(server: &Server, sql: &str) -> Value {
    let answer = server.post("/api/v1/query", "", sql).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_a_letter_is_listed_shown_and_redriven_once_when_its_stream_takes_it() {
    let server = Server::start(QUICK).await;
    put(&server, "s", json!({"schema": "a INT NOT NULL CHECK (a < 10), b TEXT"})).await;
    let body = "b;a\nx;1\n\"y;\n\";20\nz;30\n";
    let answer = server.post("/ingest/s", CSV, body).await;
    assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(2)), "{}", answer.text());
    settled(&server, "s").await;

    let page = list(&server, "stream=s&code=check&limit=1").await;
    let (newest, next) = (&page["letters"][0], page["next"].as_str().unwrap());
    assert_eq!((&newest["row"], &newest["raw"]), (&json!(3), &json!("z;30")));
    let page = list(&server, &format!("stream=s&limit=1&after={next}")).await;
    let letter = &page["letters"][0];
    assert_eq!((&letter["row"], &letter["column"]), (&json!(2), &json!("a")));
    let last = page["next"].as_str().unwrap();
    assert_eq!(list(&server, &format!("limit=1&after={last}")).await["letters"], json!([]));
    let id = letter["id"].as_str().unwrap();
    let shown = server.get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert_eq!(shown["raw"], "\"y;\n\";20");
    assert_eq!((&shown["format"], &shown["redriven_at"]), (&json!("csv"), &Value::Null));
    assert_eq!(shown["header"]["columns"], json!(["b", "a"]));

    // Nothing has changed: both are refused again, told, and not kept again.
    let tried = redrive(&server, json!({"stream": "s"})).await;
    assert_eq!((&tried["accepted"], &tried["refused"]), (&json!(0), &json!(2)), "{tried}");
    let told = &tried["errors"][0];
    assert_eq!(
        (&told["id"], &told["code"], &told["column"]),
        (&json!(id), &json!("check"), &json!("a"))
    );

    put(&server, "s", json!({"schema": "a INT NOT NULL CHECK (a < 25), b TEXT"})).await;
    let tried = redrive(&server, json!({"stream": "s", "code": "check"})).await;
    assert_eq!((&tried["accepted"], &tried["refused"]), (&json!(1), &json!(1)), "{tried}");
    // At once again, while the row may still be on its way.
    let tried = redrive(&server, json!({"stream": "s", "ids": [id, id]})).await;
    let counts = ["accepted", "refused", "already_redriven", "unknown"].map(|name| &tried[name]);
    assert_eq!(counts, [0, 0, 1, 0].map(|n| json!(n)).each_ref(), "F2: {tried}");

    let row = settled(&server, "s").await;
    assert_eq!((&row["stored"], &row["rejected"]), (&json!(2), &json!(2)), "F6: {row}");
    let rows = query(&server, "SELECT a, b FROM s ORDER BY a").await;
    assert_eq!(rows, json!([{"a": 1, "b": "x"}, {"a": 20, "b": "y;\n"}]));
    let shown = server.get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert!(shown["redriven_at"].is_string(), "{shown}");
    assert_eq!(list(&server, "stream=s").await["letters"].as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_every_format_are_read_again_as_they_came() {
    let server = Server::start(QUICK).await;
    put(&server, "s", json!({"schema": "a INT NOT NULL CHECK (a < 10), b TEXT"})).await;
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    for (head, body) in [
        (ndjson, "{\"a\":11}\n{\"a\":1}\n"),
        (JSON, "[{\"a\":1},\n{\"a\":\n12}, [{\"a\":13}]]"),
        (CSV, "a,b\n14,\"q\"\"\"\n1,\n"),
        ("Content-Type: text/tab-separated-values\r\n", "b\ta\nx\t15\ny\t1\n"),
    ] {
        let answer = server.post("/ingest/s", head, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    settled(&server, "s").await;
    put(&server, "s", json!({"schema": "a INT NOT NULL, b TEXT"})).await;
    let tried = redrive(&server, json!({"stream": "s"})).await;
    assert_eq!((&tried["accepted"], &tried["refused"]), (&json!(4), &json!(1)), "{tried}");
    settled(&server, "s").await;
    let rows = query(&server, "SELECT a, b FROM s WHERE a > 1 ORDER BY a").await;
    let row = |a: i64, b: Value| json!({"a": a, "b": b});
    let null = || Value::Null;
    let expected = [row(11, null()), row(12, null()), row(14, json!("q\"")), row(15, json!("x"))];
    assert_eq!(rows, json!(expected));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transform_refused_is_redriven_as_an_object_once_the_transform_is_mended() {
    let server = Server::start(QUICK).await;
    let schema = "a INT NOT NULL, at TIMESTAMP";
    put(&server, "t", json!({"schema": schema, "transform": "SELECT a, at, 10 / a AS q FROM t"}))
        .await;
    let answer = server.ndjson("t", "{\"a\":0,\"at\":\"2024-02-29T01:02:03Z\"}\n{\"a\":5}\n").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let row = settled(&server, "t").await;
    assert_eq!((&row["stored"], &row["dead_lettered"]), (&json!(1), &json!(1)), "{row}");
    // Refused by the transform again: a letter of its own, and the first one is done.
    assert_eq!(redrive(&server, json!({"stream": "t"})).await["accepted"], 1);
    let row = settled(&server, "t").await;
    assert_eq!((&row["stored"], &row["dead_lettered"]), (&json!(1), &json!(2)), "{row}");
    let mended = "SELECT a, at, 10 / nullif(a, 0) AS q FROM t";
    put(&server, "t", json!({"schema": schema, "transform": mended})).await;
    let tried = redrive(&server, json!({"stream": "t"})).await;
    assert_eq!((&tried["accepted"], &tried["already_redriven"]), (&json!(1), &json!(1)), "{tried}");
    settled(&server, "t").await;
    let sql = "SELECT a, q, date_part('day', at) AS day FROM t ORDER BY a";
    let rows = query(&server, sql).await;
    assert_eq!(rows.as_array().unwrap().len(), 2, "F2: {rows}");
    assert_eq!(
        (&rows[0]["a"], &rows[0]["q"], &rows[0]["day"]),
        (&json!(0), &Value::Null, &json!(29))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_is_told_with_its_reason() {
    let server = Server::start(&format!("{QUICK}[limits]\nrow = \"1KiB\"\n")).await;
    put(&server, "s", json!({"schema": "a INT NOT NULL, b TEXT"})).await;
    let mut body = format!("{{\"a\":1,\"b\":\"{}\"}}\n", "x".repeat(2000)).into_bytes();
    body.extend_from_slice(b"{\"a\":2,\"b\":\"\xff\"}\n{\"a\":3}\n");
    let mut request =
        server.request("POST", "/ingest/s", "Content-Type: application/x-ndjson\r\n", "");
    request = request.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
    let answer = server.raw(&[request.as_bytes(), &body].concat()).await;
    assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(2)), "{}", answer.text());
    settled(&server, "s").await;
    let tried = redrive(&server, json!({"stream": "s"})).await;
    assert_eq!((&tried["accepted"], &tried["refused"]), (&json!(0), &json!(2)), "{tried}");
    let errors = tried["errors"].as_array().unwrap();
    assert!(errors[0]["message"].as_str().unwrap().contains("only its beginning"), "{tried}");
    assert_eq!(errors[1]["code"], "invalid_utf8");
    let id = errors[1]["id"].as_str().unwrap();
    let shown = server.get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert!(shown["raw_hex"].as_str().unwrap().contains("22ff22"), "{shown}");
    assert_eq!(settled(&server, "s").await["rejected"], 2, "refused again is not kept again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_its_reason() {
    let server = Server::start(QUICK).await;
    let get = async |query: &str| server.get(&format!("/api/v1/dead-letters{query}")).await;
    for query in
        ["?code=nosuch", "?limit=0", "?limit=1001", "?limit=x", "?after=1", "/x", "/%ff", "/a:b:c"]
    {
        get(query).await.problem(400, "dead-letters-request");
    }
    get("?strem=s").await.problem(400, "unknown-parameter");
    let nobody = "00000000-0000-0000-0000-000000000000:1:1";
    get(&format!("/{nobody}")).await.problem(404, "unknown-dead-letter");
    let post = async |body: &str| server.post("/api/v1/dead-letters/redrive", JSON, body).await;
    post("{\"stream\":\"none\"}").await.problem(404, "unknown-stream");
    post("{}").await.problem(400, "malformed-body");
    post("{\"stream\":\"s\",\"id\":[]}").await.problem(400, "malformed-body");
    post("{\"stream\":\"s\",\"limit\":10001}").await.problem(400, "dead-letters-request");
    post("{\"stream\":\"s\",\"ids\":[\"1\"]}").await.problem(400, "dead-letters-request");
    server.get("/api/v1/dead-letters/redrive").await.problem(405, "wrong-method");
    // Names are values, never SQL; and nothing is there before the first letter.
    assert_eq!(list(&server, "stream=a'%20OR%20true%20--").await["letters"], json!([]));
    put(&server, "s", json!({"schema": "a INT"})).await;
    let tried = redrive(&server, json!({"stream": "s", "ids": [nobody]})).await;
    assert_eq!((&tried["accepted"], &tried["unknown"]), (&json!(0), &json!(1)), "{tried}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_redrives_at_the_same_time_add_each_row_once() {
    let server = Server::start(QUICK).await;
    put(&server, "s", json!({"schema": "a INT NOT NULL CHECK (a < 0)"})).await;
    let body: String = (0..600).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    server.ndjson("s", &format!("{{\"a\":-1}}\n{body}")).await;
    settled(&server, "s").await;
    put(&server, "s", json!({"schema": "a INT NOT NULL"})).await;
    let mut accepted = 0;
    let ask = json!({"stream": "s"}).to_string();
    for _ in 0..3 {
        let post = || server.post("/api/v1/dead-letters/redrive", JSON, &ask);
        let (one, other) = tokio::join!(post(), post());
        for answer in [one, other] {
            match answer.status {
                200 => accepted += answer.json()["accepted"].as_u64().unwrap(),
                _ => drop(answer.problem(409, "redrive-under-way")),
            }
        }
    }
    assert_eq!(accepted, 600);
    settled(&server, "s").await;
    let rows = query(&server, "SELECT count(*) AS n, count(DISTINCT a) AS d FROM s").await;
    assert_eq!(rows, json!([{"n": 601, "d": 601}]), "F2");
    server.stop().await;
}
