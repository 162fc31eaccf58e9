//! The debug pages: what they show, what they refuse, and how servers serve them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use forebay_flow::debug::{self, Reply, Routes};
use forebay_flow::lock::{Checks, Mutex};
use forebay_flow::queue::{self, Bound, Full};
use forebay_flow::supervise::{Child, Strategy, Supervisor};
use forebay_flow::{Backoff, Cause, Ctx, Stopped, Task, dump, leak, thread};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::ServiceExt;

use crate::rig::until;

const SEC: Duration = Duration::from_secs(1);

async fn page(path: &str, query: &str) -> Reply {
    debug::respond(path, Some(query)).await.unwrap()
}

async fn text(path: &str, query: &str) -> String {
    let reply = page(path, query).await;
    assert_eq!((reply.status, reply.content_type), (200, "text/plain; charset=utf-8"), "{reply:?}");
    reply.body
}

async fn json(path: &str, query: &str) -> Value {
    let reply = page(path, &format!("{query}&format=json")).await;
    assert_eq!((reply.status, reply.content_type), (200, "application/json"), "{reply:?}");
    serde_json::from_str(&reply.body).unwrap()
}

fn pends(ctx: &Ctx, name: &'static str, count: usize) -> Vec<Task<()>> {
    (0..count).map(|_| ctx.spawn(name, std::future::pending())).collect()
}

#[tokio::test(start_paused = true)]
async fn tasks_shows_a_hundred_thousand_tasks_as_three_groups_with_what_they_wait_for() {
    let ctx = Ctx::root("t");
    let (full, _full_rx) = queue::bounded::<u8>("page-full", Bound::items(1), Full::Block);
    let (_quiet, quiet_rx) = queue::bounded::<u8>("page-quiet", Bound::items(1), Full::Block);
    full.submit(0).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..50_000 {
        let full = full.clone();
        all.push(ctx.spawn("page-sends", async move { full.submit(1).await.unwrap() }));
    }
    for _ in 0..30_000 {
        let quiet_rx = quiet_rx.clone();
        all.push(ctx.spawn("page-receives", async move {
            quiet_rx.recv().await.unwrap();
        }));
    }
    all.extend((0..20_000).map(|_| ctx.spawn("page-sleeps", tokio::time::sleep(3600 * SEC))));
    until(|| dump::take().groups.iter().filter(|at| at.name.starts_with("page-")).count() == 3)
        .await;
    tokio::time::sleep(125 * SEC).await;
    let body = text("/debug/tasks", "name=page-").await;
    let line = |name: &str| body.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(body.contains(" in 3 groups\n"), "{body}");
    let sends = line("page-sends");
    assert!(
        sends.starts_with("50000 × page-sends [waiting on room in queue `page-full` for 125 s"),
        "{body}"
    );
    assert!(
        line("page-receives")
            .contains("30000 × page-receives [waiting on queue `page-quiet` for 125 s")
    );
    assert!(line("page-sleeps").contains("20000 × page-sleeps [idle, oldest 125 s]"), "{body}");
    assert_eq!(
        body.matches("spawned at crates/flow/tests/it/debug_routes.rs:").count(),
        3,
        "{body}"
    );
    let value = json("/debug/tasks", "name=page-receives").await;
    let [group] = &value["groups"].as_array().unwrap()[..] else { panic!("one: {value}") };
    assert_eq!((&group["count"], &group["state"]), (&30_000.into(), &"idle".into()));
    assert_eq!(group["waiting_on"], "queue `page-quiet`");
    assert!(group["longest_wait_ms"].as_u64().unwrap() >= 125_000);
    assert_eq!(value["left_off"]["groups"], 0);
    drop(all);
    leak::check(&ctx).await.unwrap();
}

#[tokio::test]
async fn tasks_can_be_filtered_cut_and_asked_for_their_stacks() {
    let ctx = Ctx::root("t");
    let (here, there) = (pends(&ctx, "filter-a", 3), pends(&ctx, "filter-b", 2));
    let waits = ctx.spawn(
        "filter-stack",
        std::future::poll_fn::<(), _>(|cx| {
            drop(cx.waker().clone());
            std::task::Poll::Pending
        }),
    );
    until(|| dump::take().to_string().contains("1 × filter-stack [idle")).await;
    let body = text("/debug/tasks", "name=filter&place=it%2Fdebug_routes.rs&limit=1").await;
    assert!(body.contains("3 × filter-a") && !body.contains("filter-b"), "{body}");
    assert!(body.ends_with("\nand 2 groups with 3 tasks more: see ?limit=\n"), "{body}");
    let value = json("/debug/tasks", "name=filter&limit=1").await;
    assert_eq!(value["left_off"], serde_json::json!({"groups": 2, "tasks": 3}));
    assert!(text("/debug/tasks", "name=filter&place=no/such.rs").await.starts_with("0 of "));
    let body = text("/debug/tasks", "name=filter-stack&stacks=1").await;
    let (_, stack) = body.split_once("\n  task ").unwrap_or_else(|| panic!("no stack: {body}"));
    // An optimised build may have no better name for the function than a closure's.
    assert!(stack.contains("it/debug_routes.rs:"), "{body}");
    let value = json("/debug/tasks", "name=filter-stack&stacks=1").await;
    let leaf = &value["groups"][0]["stacks"][0]["leaves"][0][0];
    assert!(leaf["place"].as_str().unwrap().contains("it/debug_routes.rs"), "{value}");
    drop((here, there, waits));
}

#[tokio::test]
async fn queues_is_an_aligned_table_and_json() {
    let (tx, rx) = queue::bounded::<u8>("page-queue", Bound::items(3), Full::Reject);
    tx.try_submit(1).unwrap();
    tx.try_submit(2).unwrap();
    let body = text("/debug/queues", "name=page-queue").await;
    let lines: Vec<_> = body.lines().collect();
    let [count, "", head, row] = lines[..] else { panic!("four lines: {body}") };
    assert_eq!(count, "1 queues");
    assert!(head.starts_with("name        depth  bound  unit   when full"), "{body}");
    assert!(row.starts_with("page-queue      2      3  items  reject"), "{body}");
    let value = json("/debug/queues", "name=page-queue").await;
    let queue = &value["queues"][0];
    assert_eq!(
        (&queue["depth"], &queue["capacity"], &queue["closed"]),
        (&2.into(), &3.into(), &false.into())
    );
    drop(rx);
}

#[tokio::test(start_paused = true)]
async fn tree_shows_supervisors_with_restarts_and_contexts_with_their_tasks() {
    let ctx = Ctx::root("tree-root");
    let fails_once = Child::new("tree-flaky", |ctx: Ctx| async move {
        static LIVES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        if LIVES.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return Err("out of luck");
        }
        ctx.cancelled().await;
        Ok(())
    });
    let steady = Child::new("tree-steady", |ctx: Ctx| async move {
        ctx.cancelled().await;
        Ok::<(), Stopped>(())
    });
    let inner = Supervisor::new("tree-inner", Strategy::OneForAll).child(steady);
    let supervisor = Supervisor::new("tree-sup", Strategy::OneForOne)
        .backoff(Backoff::NONE)
        .child(fails_once)
        .child(Child::supervisor(inner));
    let running = ctx.spawn("tree-run", supervisor.run(ctx.clone()));
    let conns = ctx.child("tree-conns");
    let open: Vec<_> = (0..2500).map(|_| conns.child("tree-conn")).collect();
    let tasks: Vec<_> = open.iter().flat_map(|ctx| pends(ctx, "conn", 1)).collect();
    tokio::time::sleep(3 * SEC).await;
    let body = text("/debug/tree", "limit=1000").await;
    let line = |name: &str| {
        let found = body.lines().find(|line| line.trim_start().starts_with(name));
        found
            .unwrap_or_else(|| panic!("{name}: {body}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("tree-flaky"), "tree-flaky worker running 3 s 1 failed: out of luck");
    assert!(line("tree-inner").starts_with("tree-inner one_for_all running 3 s 0"), "{body}");
    assert!(body.contains("\n    tree-steady"), "two steps in: {body}");
    assert_eq!(line("tree-conns"), "tree-conns 2500 1");
    assert_eq!(line("tree-conn "), "tree-conn 1000 1000", "a thousand of one parent are visited");
    let value = json("/debug/tree", "limit=1000").await;
    let named = |list: &Value, name: &str| {
        list.as_array().unwrap().iter().find(|at| at["name"] == name).unwrap().clone()
    };
    let root = named(&value["supervisors"], "tree-sup");
    assert_eq!(named(&root["children"], "tree-flaky")["restarts"], 1);
    let root = named(&value["contexts"], "tree-root");
    assert_eq!(named(&root["children"], "tree-conns")["live"], 2500);
    assert!(value["contexts_left_off"].as_u64().unwrap() >= 1500);
    ctx.cancel(Cause::Shutdown);
    running.join().await.unwrap().unwrap();
    drop((tasks, open));
    leak::check(&ctx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn locks_shows_who_holds_them_and_which_tasks_wait_for_each_other() {
    let ctx = Ctx::root("t");
    let _unchecked = Checks::off().report_to(&ctx, |_| ());
    let one = Arc::new((Mutex::new("page-east", ()), Mutex::new("page-west", ())));
    let two = Arc::clone(&one);
    let left = ctx.spawn("page-left", async move {
        let _east = one.0.lock().await;
        tokio::time::sleep(SEC).await;
        drop(one.1.lock().await);
    });
    let right = ctx.spawn("page-right", async move {
        let _west = two.1.lock().await;
        tokio::time::sleep(SEC).await;
        drop(two.0.lock().await);
    });
    tokio::time::sleep(5 * SEC).await;
    let body = text("/debug/locks", "name=page-east").await;
    assert!(body.contains("2 tasks wait for each other\n  t/page-left (task "), "{body}");
    let row = body.lines().find(|line| line.starts_with("page-east")).unwrap();
    assert!(row.contains("it/debug_routes.rs:") && row.contains("t/page-left"), "{body}");
    assert!(!body.lines().any(|line| line.starts_with("page-west")), "{body}");
    let value = json("/debug/locks", "name=page-east").await;
    assert_eq!(value["locks"][0]["waiting"], 1);
    let cycles = value["deadlocks"].as_array().unwrap();
    let ours = |cycle: &&Value| cycle["tasks"][0]["name"] == "page-left";
    let cycle = cycles.iter().find(ours).unwrap_or_else(|| panic!("{value}"));
    assert_eq!(cycle["tasks"][1]["waits_for"], "lock `page-east`");
    drop((left, right));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_in_a_sentence_and_unknown_pages_are_none() {
    let reply = page("/debug/queues", "stacks=1").await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.body, "this page has no parameter `stacks`: it has name, limit, format\n");
    assert_eq!(page("/debug/tasks", "stacks=lots").await.status, 400);
    assert!(debug::respond("/debug/secrets", None).await.is_none());
    assert_eq!(debug::respond("/debug/", None).await, debug::respond("", None).await);
    assert!(text("/debug", "").await.contains("/debug/tasks"));
}

#[tokio::test]
async fn axum_serves_them_as_routes_and_nested() {
    let ctx = Ctx::root("t");
    let _tasks = pends(&ctx, "axum-idle", 1);
    let routed =
        axum::Router::new().route_service("/debug", Routes).route_service("/debug/{page}", Routes);
    let nested = axum::Router::new().nest_service("/debug", Routes);
    for app in [routed, nested] {
        let ask = async |method: &str, uri: &str| {
            let request =
                Request::builder().method(method).uri(uri).body(axum::body::Body::empty());
            let response = app.clone().oneshot(request.unwrap()).await.unwrap();
            let status = response.status();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let (status, body) = ask("GET", "/debug/tasks?name=axum-idle").await;
        assert!(status == StatusCode::OK && body.contains("1 × axum-idle"), "{status}: {body}");
        assert_eq!(ask("GET", "/debug").await.0, StatusCode::OK);
        assert_eq!(ask("GET", "/debug/tasks?limit=x").await.0, StatusCode::BAD_REQUEST);
        assert_eq!(ask("GET", "/debug/secrets").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("POST", "/debug/tasks").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn hyper_serves_them_with_a_service_function() {
    let ctx = Ctx::root("t");
    let (mut client, server) = duplex(1 << 16);
    let serving = ctx.spawn("serves", async move {
        let service = hyper::service::service_fn(|request| {
            let answer = Routes.answer(&request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(server), service).await
    });
    client
        .write_all(b"GET /debug/tasks?name=serves HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("cache-control: no-store\r\n"), "{response}");
    assert!(response.contains("1 × serves [running for "), "it is serving: {response}");
    serving.join().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_thread_shows_as_one() {
    let ctx = Ctx::root("t");
    let (tx, rx) = queue::bounded::<u8>("page-thread", Bound::items(1), Full::Block);
    let thread = thread::spawn(&ctx, "page-reader", move |_ctx| rx.recv_blocking()).unwrap();
    until(|| dump::take().to_string().contains("waiting on queue `page-thread`")).await;
    let value = json("/debug/tasks", "name=page-reader").await;
    assert_eq!(value["groups"][0]["kind"], "thread");
    drop(tx);
    assert!(thread.join().await.unwrap().is_none());
}
