//! Which path leads where. A path of no route is 404, a method of no route 405 with `Allow`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::Uri;
use percent_encoding::percent_decode_str;

use super::App;
use super::guard::shorten;
use super::problem::{self, Problem};
use super::{dead_letters, ingest, inspect, query, resume, streams};
use crate::catalogue;

/// A request's kind: a metric label, and what the outermost layer decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/ingest/{stream}`
    Ingest,
    /// `/api/v1/streams[/{stream}]`
    Streams,
    /// `/api/v1/dead-letters[/{id}|/redrive]`
    DeadLetters,
    /// `/api/v1/query`
    Query,
    /// `/api/v1/ledger`, `tree`, `queues`, `tasks`; `/debug[/{page}]`
    Inspect,
    /// `/metrics`
    Metrics,
    /// `/livez`, `/readyz`
    Health,
    /// `/problems[/{code}]`
    Problems,
    /// `/` and whatever is not there
    Other,
}

const INGEST: &str = "/ingest/";
const STREAMS: &str = "/api/v1/streams/";
const DEAD_LETTERS: &str = "/api/v1/dead-letters";
const PROBLEMS: &str = "/problems/";
const DEBUG: &str = "/debug/";

impl Route {
    /// Every kind, for metrics that must exist from the start.
    pub const ALL: [Route; 9] = [
        Route::Ingest,
        Route::Streams,
        Route::DeadLetters,
        Route::Query,
        Route::Inspect,
        Route::Metrics,
        Route::Health,
        Route::Problems,
        Route::Other,
    ];

    /// The kind of a path.
    pub fn of(path: &str) -> Route {
        match path {
            "/api/v1/query" => Route::Query,
            "/api/v1/ledger" | "/api/v1/tree" | "/api/v1/queues" | "/api/v1/tasks" => {
                Route::Inspect
            }
            "/debug" => Route::Inspect,
            "/metrics" => Route::Metrics,
            "/livez" | "/readyz" => Route::Health,
            "/api/v1/streams" => Route::Streams,
            "/problems" => Route::Problems,
            _ if path.starts_with(PROBLEMS) => Route::Problems,
            _ if path.starts_with(DEBUG) => Route::Inspect,
            _ if path.starts_with(INGEST) => Route::Ingest,
            _ if path.starts_with(STREAMS) => Route::Streams,
            _ => match path.strip_prefix(DEAD_LETTERS) {
                Some("") => Route::DeadLetters,
                Some(rest) if rest.starts_with('/') => Route::DeadLetters,
                _ => Route::Other,
            },
        }
    }

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Route::Ingest => "ingest",
            Route::Streams => "streams",
            Route::DeadLetters => "dead_letters",
            Route::Query => "query",
            Route::Inspect => "inspect",
            Route::Metrics => "metrics",
            Route::Health => "health",
            Route::Problems => "problems",
            Route::Other => "other",
        }
    }

    /// Control traffic: answered beyond the connection limit and during the drain.
    pub fn is_control(self) -> bool {
        !matches!(self, Route::Ingest | Route::Streams | Route::DeadLetters | Route::Query)
    }

    /// Answered without a token.
    pub fn is_public(self) -> bool {
        matches!(self, Route::Health | Route::Problems)
    }

    /// The stream that the path names, where it can be decoded.
    pub fn stream(self, path: &str) -> Option<String> {
        let raw = match self {
            Route::Ingest => path.strip_prefix(INGEST)?,
            Route::Streams => path.strip_prefix(STREAMS)?,
            _ => return None,
        };
        percent_decode_str(raw).decode_utf8().ok().map(String::from)
    }
}

/// The stream that a request's path names.
///
/// # Errors
/// 400 when it is not UTF-8.
pub(super) fn stream_of(uri: &Uri) -> Result<String, Problem> {
    Route::of(uri.path())
        .stream(uri.path())
        .ok_or_else(|| Problem::new(catalogue::STREAM_NAME, "the stream's name is not UTF-8"))
}

/// The parameters of a query string, in order.
///
/// # Errors
/// 400 for one that is not in `known`.
pub(super) fn parameters(
    uri: &Uri,
    known: &[&'static str],
) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut found = Vec::new();
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = known.iter().find(|known| **known == name) else {
            return Err(Problem::new(
                catalogue::UNKNOWN_PARAMETER,
                format!(
                    "the parameter `{}` is not known here; known: {}",
                    shorten(name),
                    known.join(", ")
                ),
            ));
        };
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8().map_err(|_| {
            Problem::new(
                catalogue::UNKNOWN_PARAMETER,
                format!("the parameter `{name}` is not UTF-8"),
            )
        })?;
        found.push((*name, value.into_owned()));
    }
    Ok(found)
}

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(inspect::home))
        .route("/ingest/{stream}", post(ingest::ingest).head(resume::head))
        .route("/api/v1/streams", get(streams::list))
        .route(
            "/api/v1/streams/{stream}",
            get(streams::describe).put(streams::put).delete(streams::delete),
        )
        .route(DEAD_LETTERS, get(dead_letters::list))
        .route("/api/v1/dead-letters/redrive", post(dead_letters::redrive))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/api/v1/query", post(query::post).get(query::get))
        .route("/api/v1/ledger", get(inspect::ledger))
        .route("/api/v1/tree", get(inspect::tree))
        .route("/api/v1/queues", get(inspect::queues))
        .route("/api/v1/tasks", get(inspect::tasks))
        .route("/debug", get(inspect::debug))
        .route("/debug/{page}", get(inspect::debug))
        .route("/problems", get(problem::list))
        .route("/problems/{code}", get(problem::explain))
        .route("/metrics", get(inspect::metrics))
        .route("/livez", get(inspect::livez))
        .route("/readyz", get(inspect::readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn not_found(request: Request) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    leave(request);
    if matches!(Route::of(&path), Route::Ingest | Route::Streams) {
        return Err(Problem::new(
            catalogue::STREAM_NAME,
            format!(
                "`{}` holds no stream's name: letters, digits, `_`, `.` and `-`",
                shorten(&path)
            ),
        ));
    }
    Err(nothing_at(&path))
}

/// 404.
pub(super) fn nothing_at(path: &str) -> Problem {
    Problem::new(
        catalogue::NO_SUCH_ROUTE,
        format!("there is nothing at `{}`; GET / lists what there is", shorten(path)),
    )
}

async fn wrong_method(request: Request) -> Result<Response, Problem> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    leave(request);
    Err(Problem::new(
        catalogue::WRONG_METHOD,
        format!("{} is not allowed at `{}`; see `Allow`", shorten(method.as_str()), shorten(&path)),
    ))
}

fn leave(request: Request) {
    let caller = request.extensions().get::<super::connection::Caller>().cloned();
    if let Some(caller) = caller {
        caller.leave(request.into_body(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_kind_and_names_its_stream() {
        assert_eq!(Route::of("/ingest/a%2Fb"), Route::Ingest);
        assert_eq!(Route::Ingest.stream("/ingest/a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(Route::Ingest.stream("/ingest/%ff"), None);
        assert_eq!(Route::of("/api/v1/streams"), Route::Streams);
        assert_eq!(Route::of("/api/v1/jobs"), Route::Other);
        assert_eq!(Route::of("/api/v1/dead-letters/redrive"), Route::DeadLetters);
        assert_eq!(Route::of("/api/v1/dead-lettersx"), Route::Other);
    }
}
