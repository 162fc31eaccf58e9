//! The queue table: as the registry of a running server has it, and as the page in `docs` says.

#![expect(clippy::unwrap_used, reason = "tests")]

use expect_test::expect_file;
use forebay::config::Sources;
use forebay::queues;
use serde_json::Value;

use crate::server::Server;

#[test]
fn the_page_of_queues_is_the_table() {
    let config = Sources::default().load().unwrap().config;
    expect_file!["../../../../docs/queues.md"].assert_eq(&queues::markdown(&config));
}

/// What `forebay check` and `docs/queues.md` say of a queue is what the queue itself says, and none is left out.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_the_registry() {
    let server = Server::start("").await;
    let table = queues::table(&server.config);
    let shown = server.get("/api/v1/queues").await.json();
    let queues = shown.as_array().unwrap();
    for queue in queues {
        let line = table.iter().find(|line| line.registered && queue["name"] == line.name);
        let line = line.unwrap_or_else(|| panic!("no line for {queue}"));
        let shown = (&queue["unit"], &queue["policy"], &queue["why"], &queue["capacity"]);
        let bound = Value::from(line.bound);
        assert_eq!(shown, (&line.unit.into(), &line.policy.into(), &line.why.into(), &bound));
        assert!(queue["who_waits"].is_string() && queue["failure_mode"].is_string(), "{queue}");
    }
    let there = |name: &str| queues.iter().any(|queue| queue["name"] == name);
    let missing: Vec<_> =
        table.iter().filter(|line| line.registered && !there(line.name)).collect();
    // A query's queue is there while it runs.
    assert_eq!(missing.iter().map(|line| line.name).collect::<Vec<_>>(), ["query rows"]);
    server.stop().await;
}
