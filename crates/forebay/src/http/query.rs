//! `/api/v1/query`: SQL in, rows out, streamed. What breaks off midway breaks the body off, so that
//! an answer cut short is an error and never a shorter result.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::App;
use super::body::Reader;
use super::connection::Caller;
use super::guard::shorten;
use super::problem::Problem;
use super::routes::parameters;
use crate::api::{self, AnswerFormat, QueryFailure};
use crate::catalogue;

/// The longest query text.
const SQL_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    timeout_ms: Option<u64>,
}

pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut reader = Reader::new(body, &app.config.http, Some(SQL_BYTES));
    let read = match reader.all().await {
        Ok(read) => read,
        Err(error) => {
            caller.leave(reader.into_rest(), false);
            return Err(error.into());
        }
    };
    let asked = asked(&parts.headers, &read)?;
    answer(&app, &parts.headers, asked).await
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut sql = None;
    for (_, value) in parameters(request.uri(), &["sql"])? {
        sql = Some(value);
    }
    let sql =
        sql.ok_or_else(|| Problem::new(catalogue::NO_QUERY, "the parameter `sql` is missing"))?;
    answer(&app, request.headers(), Asked { sql, timeout_ms: None }).await
}

fn asked(headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media.unwrap_or("text/plain").split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => serde_json::from_slice(body).map_err(|error| {
            Problem::new(catalogue::MALFORMED_BODY, format!("the body is not a query: {error}"))
                .with("line", error.line())
                .with("column", error.column())
        }),
        // What `curl -d` sends unless told otherwise.
        "text/plain" | "application/sql" | "application/x-www-form-urlencoded" => {
            let sql = std::str::from_utf8(body)
                .map_err(|_| Problem::new(catalogue::MALFORMED_BODY, "the query is not UTF-8"))?;
            Ok(Asked { sql: sql.to_owned(), timeout_ms: None })
        }
        other => Err(Problem::new(
            catalogue::UNSUPPORTED_TYPE,
            format!(
                "`{}` is not supported; send application/json {{\"sql\": …}} or the SQL as text/plain",
                shorten(other)
            ),
        )),
    }
}

/// The first supported media type of `Accept`, in the client's order of writing.
fn format_of(headers: &HeaderMap) -> Result<AnswerFormat, Problem> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(AnswerFormat::Json) };
    let accept = accept.to_str().unwrap_or_default();
    for range in accept.split(',') {
        match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => return Ok(AnswerFormat::Json),
            "application/x-ndjson" | "application/jsonl" => return Ok(AnswerFormat::Ndjson),
            "text/csv" | "text/*" => return Ok(AnswerFormat::Csv),
            "application/vnd.apache.arrow.stream" => return Ok(AnswerFormat::Arrow),
            _ => {}
        }
    }
    Err(Problem::new(
        catalogue::NOT_ACCEPTABLE,
        format!(
            "`{}` is not supported; supported: application/json, application/x-ndjson, text/csv, \
             application/vnd.apache.arrow.stream",
            shorten(accept)
        ),
    ))
}

impl From<QueryFailure> for Problem {
    fn from(failure: QueryFailure) -> Problem {
        let problem = Problem::new(failure.kind, failure.message);
        let problem = match failure.position {
            Some((line, column)) => problem.with("line", line).with("column", column),
            None => problem,
        };
        if problem.status() == StatusCode::SERVICE_UNAVAILABLE {
            return problem.retry_after(Duration::from_secs(1));
        }
        problem
    }
}

async fn answer(app: &App, headers: &HeaderMap, asked: Asked) -> Result<Response, Problem> {
    let format = format_of(headers)?;
    let longest = app.config.query_timeout;
    let timeout = asked.timeout_ms.map_or(longest, Duration::from_millis).min(longest);
    let mut answer = api::query(&app.engine, &asked.sql, timeout, format).await?;
    // What fails before the first piece still gets a status of its own.
    let first = answer.next().await?;
    let pieces = stream::unfold((first, Some(answer)), |(ready, answer)| async move {
        let mut answer = answer?;
        if let Some(piece) = ready {
            return Some((Ok(piece), (None, Some(answer))));
        }
        match answer.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), (None, Some(answer)))),
            Err(failure) => {
                tracing::warn!(message = failure.message, "a query broke off");
                Some((Err(std::io::Error::other(failure.message)), (None, None)))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_first_supported_form_of_accept_is_taken() {
        let form = |accept: &'static str| {
            format_of(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert_eq!(form("image/png, text/csv;q=0.5, */*").unwrap(), AnswerFormat::Csv);
        assert_eq!(form("*/*").unwrap(), AnswerFormat::Json);
        assert_eq!(form("image/png").unwrap_err().status(), StatusCode::NOT_ACCEPTABLE);
        assert_eq!(format_of(&HeaderMap::new()).unwrap(), AnswerFormat::Json);
    }
}
