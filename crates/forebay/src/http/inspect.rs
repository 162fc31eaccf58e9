//! What an operator looks at: ledger, tree, queues, tasks, metrics, health, and the list of routes.
//! Reads registries; changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use forebay_flow::{clock, debug, queue, supervise, tasks};
use hyper::Uri;
use hyper::header::{self, HeaderValue};
use prometheus::{Encoder, TextEncoder};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{App, routes};
use crate::api;
use crate::catalogue;

const HOME: &str = concat!(
    "Forebay ",
    env!("CARGO_PKG_VERSION"),
    "

POST   /ingest/{stream}          rows: text/csv, text/tab-separated-values, application/x-ndjson, application/json
                                 ?ack=received|durable|stored, Idempotency-Key, Prefer: wait=
GET    /api/v1/streams           all streams
GET    /api/v1/streams/{stream}  one; PUT creates or alters it, DELETE drops it (?force=true)
GET    /api/v1/dead-letters      refused rows, newest first: ?stream=&code=&limit=&after=
GET    /api/v1/dead-letters/{id} one, whole; POST /api/v1/dead-letters/redrive sends some again
POST   /api/v1/query             {\"sql\": \"SELECT …\"} or the SQL as text/plain
GET    /api/v1/ledger            rows received, stored and in the journal, by stream
GET    /api/v1/tree              the supervision tree
GET    /api/v1/queues            every queue with its bound
GET    /api/v1/tasks             live tasks
GET    /debug                    tasks, queues, locks and the tree, for people: ?stacks=4 says where tasks stand
GET    /metrics                  for Prometheus
GET    /livez, /readyz           health
GET    /problems[/{code}]        what an error means, and what to do
"
);

pub(super) async fn home() -> &'static str {
    HOME
}

pub(super) async fn ledger(State(app): State<Arc<App>>) -> Json<Value> {
    Json(api::ledger_json(&app.engine))
}

pub(super) async fn tree() -> Json<Value> {
    Json(Value::Array(supervise::tree().iter().map(node_json).collect()))
}

fn node_json(node: &supervise::Node) -> Value {
    json!({
        "name": node.name,
        "kind": node.kind.as_str(),
        "strategy": node.strategy.map(supervise::Strategy::as_str),
        "state": node.state.as_str(),
        "restarts": node.restarts,
        "for_ms": clock::now().saturating_duration_since(node.since).as_millis() as u64,
        "last_exit": node.last_exit.as_ref().map(ToString::to_string),
        "children": node.children.iter().map(node_json).collect::<Vec<_>>(),
    })
}

pub(super) async fn queues() -> Json<Value> {
    let queue = |queue: &queue::QueueInfo| {
        json!({
            "name": queue.name,
            "unit": queue.unit,
            "capacity": queue.capacity,
            "depth": queue.depth,
            "items": queue.items,
            "policy": queue.policy,
            "who_waits": queue.who_waits,
            "failure_mode": queue.failure_mode,
            "waiters": queue.waiters,
            "receivers_waiting": queue.receivers_waiting,
            "closed": queue.closed,
            "sent": queue.sent,
            "received": queue.received,
            "blocked": queue.blocked,
            "blocked_seconds": queue.blocked_seconds,
            "dropped": queue.dropped,
            "rejected": queue.rejected,
            "shed": queue.shed,
            "expired": queue.expired,
            "why": queue.why,
        })
    };
    Json(Value::Array(queue::snapshot().iter().map(queue).collect()))
}

pub(super) async fn tasks() -> Json<Value> {
    let task = |task: &tasks::TaskInfo| {
        json!({
            "id": task.id,
            "name": task.name,
            "kind": format!("{:?}", task.kind).to_lowercase(),
            "parent": task.parent,
            "spawned_at": task.location.to_string(),
            "age_ms": clock::now().saturating_duration_since(task.created).as_millis() as u64,
            "polls": task.polls,
            "state": format!("{:?}", task.state).to_lowercase(),
            "waiting_on": task.waiting_on,
        })
    };
    Json(Value::Array(tasks::snapshot().iter().map(task).collect()))
}

/// The toolkit's own pages, for people: `/debug` lists them.
pub(super) async fn debug(uri: Uri) -> Result<Response, Problem> {
    let page = debug::respond(uri.path(), uri.query()).await;
    let page = page.ok_or_else(|| routes::nothing_at(uri.path()))?;
    if page.status != 200 {
        return Err(Problem::new(catalogue::UNKNOWN_PARAMETER, page.body.trim_end()));
    }
    let headers = [(header::CONTENT_TYPE, page.content_type), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, page.body).into_response())
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.engine.observe();
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&app.registry.gather(), &mut text).map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::new(catalogue::INTERNAL, "the metrics could not be written")
    })?;
    let mut response = text.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    Ok(response)
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.is_draining() {
        let wait = std::time::Duration::from_secs(1);
        return Err(Problem::overloaded(api::Refusal::Draining, wait));
    }
    Ok("ok\n")
}
