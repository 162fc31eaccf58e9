//! What a refusal looks like: RFC 9457 `application/problem+json`, and the one map from errors to
//! kinds of the catalogue.
//! The `type` is stable and relative; programs match on it, people read `detail`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use forebay_pipeline::codec::unpack::{Coding, UnpackError};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::guard::shorten;
use crate::api::{self, IngestError, Partial, Reply};
use crate::catalogue::{self, Kind};

/// A refusal. Becomes a response only at the outermost layer, which adds the request's id.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which of the catalogue's kinds.
    pub kind: &'static Kind,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// When it is worth coming back; `Retry-After` in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// Further members.
    pub extra: Map<String, Value>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), retry_after: None, extra: Map::new() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.retry_after = Some(wait);
        self
    }

    /// No room, by this bound: come back after `wait`.
    pub fn overloaded(reason: api::Refusal, wait: Duration) -> Problem {
        let partial = Partial::default();
        IngestError::Overloaded { reason, retry_after: wait, partial }.into()
    }

    /// The body of the answer.
    pub fn to_json(&self, request_id: &str) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), json!(format!("/problems/{}", self.kind.code)));
        body.insert("title".into(), json!(self.kind.title));
        body.insert("status".into(), json!(self.kind.status));
        body.insert("detail".into(), json!(self.detail));
        if let Some(wait) = self.retry_after {
            body.insert("retry_after_ms".into(), json!(wait.as_millis() as u64));
        }
        body.insert("request_id".into(), json!(request_id));
        body.extend(self.extra.clone());
        Value::Object(body)
    }

    /// The answer itself; `headers` are kept beside its own.
    pub fn render(&self, request_id: &str, headers: HeaderMap) -> Response {
        let mut response = Response::new(Body::from(self.to_json(request_id).to_string()));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == catalogue::UNSUPPORTED_ENCODING {
            let supported = HeaderValue::from_static(Coding::SUPPORTED);
            response.headers_mut().insert(header::ACCEPT_ENCODING, supported);
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// `GET /problems`: every kind, one a line.
pub(super) async fn list() -> String {
    catalogue::list()
}

/// `GET /problems/{code}`: what the `type` of a problem leads to.
pub(super) async fn explain(Path(code): Path<String>) -> Result<String, Problem> {
    let kind = catalogue::find(&code).ok_or_else(|| {
        let shown = shorten(&code);
        Problem::new(
            catalogue::UNKNOWN_PROBLEM,
            format!("no problem has the code `{shown}`; GET /problems lists them all"),
        )
    })?;
    Ok(kind.text())
}

/// The body of a success, member by member as the contract has them.
pub fn reply_json(reply: &Reply) -> Value {
    json!({
        "stream": reply.stream,
        "ack": reply.ack.as_str(),
        "accepted": reply.accepted,
        "rejected": reply.rejected,
        "errors": errors_json(reply),
        "position": reply.position,
    })
}

fn errors_json(reply: &Reply) -> Value {
    let error = |error: &api::RowError| {
        json!({
            "row": error.row,
            "column": error.column,
            "code": error.code.as_str(),
            "message": error.message,
        })
    };
    Value::Array(reply.errors.iter().map(error).collect())
}

/// Says what is durable of an upload that failed.
pub(super) fn with_partial(problem: Problem, partial: Partial) -> Problem {
    problem
        .with("accepted", partial.accepted)
        .with("rejected", partial.rejected)
        .with("offset", partial.offset)
}

fn with_reply(problem: Problem, reply: &Reply) -> Problem {
    problem
        .with("stream", reply.stream.clone())
        .with("accepted", reply.accepted)
        .with("rejected", reply.rejected)
        .with("errors", errors_json(reply))
}

impl From<IngestError> for Problem {
    /// The one map from the pipeline's errors to kinds.
    fn from(error: IngestError) -> Problem {
        let detail = error.to_string();
        match error {
            IngestError::InvalidName(_) => Problem::new(catalogue::STREAM_NAME, detail),
            IngestError::UnknownStream(_) => Problem::new(
                catalogue::UNKNOWN_STREAM,
                format!(
                    "{detail}; create it with PUT /api/v1/streams/NAME, or set auto_create = true"
                ),
            ),
            IngestError::TooManyStreams { .. } => Problem::new(
                catalogue::TOO_MANY_STREAMS,
                format!("{detail}; raise [limits] streams, or drop one"),
            ),
            IngestError::Incompatible(_) => Problem::new(catalogue::STREAM_REFUSED, detail),
            IngestError::Empty => Problem::new(catalogue::EMPTY_BODY, detail),
            IngestError::Malformed { malformed, partial } => {
                let problem = Problem::new(catalogue::MALFORMED_BODY, detail)
                    .with("line", malformed.line)
                    .with("column", malformed.column);
                with_partial(problem, partial)
            }
            IngestError::Unpack { error, partial } => {
                let problem = match error {
                    UnpackError::Broken { at, .. } => Problem::new(
                        catalogue::BROKEN_ENCODING,
                        format!("the body cannot be decoded: {detail}"),
                    )
                    .with("byte", at),
                    UnpackError::Window { .. } => {
                        Problem::new(catalogue::UNSUPPORTED_ENCODING, detail)
                    }
                    UnpackError::Expansion { most, .. } => Problem::new(
                        catalogue::EXPANSION_LIMIT,
                        format!("{detail}; send it in parts, or less compressed"),
                    )
                    .with("limit_bytes", most),
                };
                with_partial(problem, partial)
            }
            IngestError::NoValidRow(reply) => with_reply(
                Problem::new(
                    catalogue::NO_VALID_ROW,
                    "no row was valid; each is kept in `_dead_letters` with its reason",
                ),
                &reply,
            ),
            IngestError::Invalid(reply) => {
                with_reply(Problem::new(catalogue::ROW_REFUSED, detail), &reply)
            }
            IngestError::TooLargeToReject { limit } => {
                Problem::new(catalogue::BODY_TOO_LARGE, format!("{detail} ([limits] spool)"))
                    .with("limit_bytes", limit)
            }
            IngestError::KeyConflict { partial } => {
                with_partial(Problem::new(catalogue::KEY_CONFLICT, detail), partial)
            }
            IngestError::Offset(standing) => Problem::new(catalogue::UPLOAD_OFFSET, detail)
                .with("offset", standing.offset)
                .with("prefix", standing.prefix)
                .with("complete", standing.complete),
            IngestError::Overloaded { reason, retry_after, partial } => with_partial(
                Problem::new(catalogue::OVERLOADED, detail)
                    .with("reason", reason.as_str())
                    .retry_after(retry_after),
                partial,
            ),
            IngestError::DiskFull { retry_after, partial } => with_partial(
                Problem::new(catalogue::DISK_FULL, detail).retry_after(retry_after),
                partial,
            ),
            IngestError::DeadlineExceeded { partial } => with_partial(
                Problem::new(
                    catalogue::DEADLINE,
                    format!("{detail}; `offset` says how much of the body is durable"),
                ),
                partial,
            ),
            IngestError::OutcomeUnknown(_) => Problem::new(
                catalogue::OUTCOME_UNKNOWN,
                format!("{detail}; send it again under the same Idempotency-Key"),
            ),
            IngestError::Internal(_) => Problem::new(catalogue::INTERNAL, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_rounded_up_and_in_milliseconds() {
        let problem = Problem::from(IngestError::Overloaded {
            reason: api::Refusal::JournalFull,
            retry_after: Duration::from_millis(1200),
            partial: Partial { accepted: 3, rejected: 1, offset: 99 },
        });
        let response = problem.render("r1", HeaderMap::new());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let body = problem.to_json("r1");
        assert_eq!(body["type"], "/problems/overloaded");
        assert_eq!(body["reason"], "journal_full");
        assert_eq!(body["retry_after_ms"], 1200);
        assert_eq!((&body["accepted"], &body["offset"]), (&json!(3), &json!(99)));
    }

    #[test]
    fn every_refusal_that_asks_to_come_back_says_when() {
        let partial = Partial::default();
        let retry_after = Duration::from_secs(1);
        let reason = api::Refusal::Memory;
        for error in [
            IngestError::Overloaded { reason, retry_after, partial },
            IngestError::DiskFull { retry_after, partial },
        ] {
            let problem = Problem::from(error);
            assert!(problem.retry_after.is_some(), "{}", problem.kind.code);
        }
    }
}
