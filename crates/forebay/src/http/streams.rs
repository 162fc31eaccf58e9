//! `/api/v1/streams`: list, describe, create or alter, drop. Thin: the engine decides.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde_json::Value;

use super::App;
use super::body::Reader;
use super::connection::Caller;
use super::guard::shorten;
use super::problem::Problem;
use super::routes::{parameters, stream_of};
use crate::api::{self, StreamFailure};
use crate::catalogue;
use crate::config::{Stream, check_stream_name, raw};

/// The longest description of a stream.
const BODY_BYTES: u64 = 1 << 20;

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(api::streams_json(&app.engine))
}

pub(super) async fn describe(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let name = stream_of(request.uri())?;
    let shown = api::describe_json(&app.engine, &name).ok_or_else(|| unknown(&name))?;
    Ok(tagged(shown))
}

/// A stream with its version as the entity's tag, for `If-Match`.
fn tagged(shown: Value) -> Response {
    let tag = format!("\"{}\"", shown["version"]);
    let mut response = Json(shown).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The version that the client means to change: `If-Match: "3"`, or `If-None-Match: *` for none.
fn expected(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let value = |name| {
        headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim())
    };
    match (value(header::IF_MATCH), value(header::IF_NONE_MATCH)) {
        (None, None) | (Some("*"), None) => Ok(None),
        (None, Some("*")) => Ok(Some(0)),
        (Some(tag), None) => {
            let version = tag.trim_matches('"').parse::<u32>().ok().filter(|version| *version > 0);
            version.map(Some).ok_or_else(|| {
                Problem::new(
                    catalogue::PRECONDITION,
                    "If-Match is the stream's version as `ETag` has it, like \"3\"",
                )
            })
        }
        _ => Err(Problem::new(
            catalogue::PRECONDITION,
            "send If-Match with a version, or If-None-Match: * for a stream that must be new",
        )),
    }
}

fn unknown(name: &str) -> Problem {
    Problem::new(catalogue::UNKNOWN_STREAM, format!("no stream named `{}`", shorten(name)))
}

impl From<StreamFailure> for Problem {
    fn from(failure: StreamFailure) -> Problem {
        Problem::new(failure.kind, failure.message)
    }
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut reader = Reader::new(body, &app.config.http, Some(BODY_BYTES));
    let read = match reader.all().await {
        Ok(read) => read,
        Err(error) => {
            caller.leave(reader.into_rest(), false);
            return Err(error.into());
        }
    };
    let name = stream_of(&parts.uri)?;
    check_stream_name(&name).map_err(|why| Problem::new(catalogue::STREAM_NAME, why))?;
    let written: raw::Stream = if read.is_empty() {
        raw::Stream::default()
    } else {
        serde_json::from_slice(&read).map_err(|error| {
            Problem::new(catalogue::MALFORMED_BODY, format!("not a stream's settings: {error}"))
                .with("line", error.line())
                .with("column", error.column())
        })?
    };
    let stream =
        Stream::from_raw(written).map_err(|why| Problem::new(catalogue::STREAM_SETTINGS, why))?;
    let expected = expected(&parts.headers)?;
    Ok(tagged(api::put_stream(&app.engine, &name, &stream, expected).await?))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let name = stream_of(request.uri())?;
    let force = match parameters(request.uri(), &["force"])?.pop() {
        None => false,
        Some((_, value)) => match value.as_str() {
            "" | "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                return Err(Problem::new(catalogue::UNKNOWN_PARAMETER, "`force` is true or false"));
            }
        },
    };
    if app.engine.stream(&name).is_none() {
        return Err(unknown(&name));
    }
    api::drop_stream(&app.engine, &name, force).await?;
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
