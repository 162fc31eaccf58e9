//! `POST /ingest/{stream}`: from a head to the upload's terms, from a body to an upload.
//!
//! The head is judged and room is asked for before a byte of the body is read. Then bytes are pushed
//! as they come; a push that waits leaves the socket unread, so the peer is slowed by TCP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use forebay_flow::clock;
use forebay_pipeline::codec::{Dialect, Format};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;

use super::App;
use super::body::Reader;
use super::connection::Caller;
use super::guard::shorten;
use super::problem::{Problem, reply_json};
use super::resume::{self, Splice};
use super::routes::{parameters, stream_of};
use crate::api::{self, Ack, Due, IngestError, Upload};
use crate::catalogue;
use crate::config::check_stream_name;

/// The longest `Idempotency-Key`.
const KEY_BYTES: usize = 256;
const FORMATS: &str = "text/csv, text/tab-separated-values, application/x-ndjson, \
                       application/jsonl, application/json";

pub(super) async fn ingest(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (terms, from) = match terms(&app, &caller, &parts)
        .and_then(|terms| resume::splice(&parts.headers, terms))
    {
        Ok(terms) => terms,
        Err(problem) => {
            caller.leave(body, true);
            return Err(problem);
        }
    };
    let stream = terms.stream.clone();
    let outcome = match app.engine.begin(terms).await {
        Ok(upload) => transfer(&app, &caller, upload, from, body).await,
        Err(error) => {
            caller.leave(body, true);
            Err(Failure::Refused(error))
        }
    };
    if let Err(Failure::Refused(IngestError::Offset(standing))) = &outcome {
        return Ok(resume::elsewhere(*standing));
    }
    let reply = outcome.map_err(|failure| match failure {
        Failure::Body(problem) => problem,
        Failure::Refused(error) => {
            if matches!(error, IngestError::Overloaded { .. } | IngestError::DiskFull { .. }) {
                app.metrics.refused(&parts.headers);
            }
            if let IngestError::Internal(message) | IngestError::OutcomeUnknown(message) = &error {
                tracing::error!(stream, request_id = caller.request_id, %message, "an upload failed");
            }
            error.into()
        }
    })?;
    let status = match reply.ack {
        Ack::Stored => StatusCode::OK,
        Ack::Durable | Ack::Received => StatusCode::ACCEPTED,
    };
    let mut response = (status, axum::Json(reply_json(&reply))).into_response();
    if reply.duplicate {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

enum Failure {
    Refused(IngestError),
    Body(Problem),
}

/// Pushes the body. Dropping this (the peer left) drops the upload, which cancels what is not appended.
async fn transfer(
    app: &App,
    caller: &Caller,
    mut upload: Upload,
    from: Option<Splice>,
    body: Body,
) -> Result<api::Reply, Failure> {
    if let Some(Splice { offset, prefix }) = from
        && let Err(error) = upload.go_on_at(offset, prefix).await
    {
        caller.leave(body, true);
        return Err(Failure::Refused(error));
    }
    let mut reader = Reader::new(body, &app.config.http, app.config.http.max_body);
    loop {
        match reader.next().await {
            Ok(Some(bytes)) => {
                app.metrics.received(bytes.len());
                if let Err(error) = upload.push(bytes).await {
                    caller.leave(reader.into_rest(), false);
                    return Err(Failure::Refused(error));
                }
            }
            Ok(None) => break,
            Err(error) => {
                drop(upload);
                caller.leave(reader.into_rest(), false);
                return Err(Failure::Body(error.into()));
            }
        }
    }
    let due = Due(clock::now() + app.config.http.deadline);
    upload.finish(due).await.map_err(Failure::Refused)
}

fn terms(app: &App, caller: &Caller, parts: &Parts) -> Result<api::Request, Problem> {
    let stream = stream_of(&parts.uri)?;
    check_stream_name(&stream).map_err(|why| Problem::new(catalogue::STREAM_NAME, why))?;
    check_encoding(&parts.headers)?;
    let format = format_of(&parts.headers)?;
    let content_length = content_length(&parts.headers);
    if let (Some(length), Some(limit)) = (content_length, app.config.http.max_body)
        && length > limit
    {
        return Err(super::body::BodyError::TooLarge { limit }.into());
    }
    let mut ack = Ack::default();
    for (_, value) in parameters(&parts.uri, &["ack"])? {
        ack = Ack::parse(&value).ok_or_else(|| {
            Problem::new(
                catalogue::UNKNOWN_ACK,
                format!("`ack={}` is none of received, durable, stored", shorten(&value)),
            )
        })?;
    }
    Ok(api::Request {
        stream,
        format,
        ack,
        key: key_of(&parts.headers)?,
        tenant: caller.tenant.clone(),
        client: caller.connection.peer.to_string(),
        request_id: caller.request_id.clone(),
        wait: preferred_wait(&parts.headers).map(|wait| wait.min(app.config.admission_wait)),
        content_length,
    })
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for encoding in headers.get_all(header::CONTENT_ENCODING) {
        let encoding = encoding.to_str().unwrap_or("?").trim();
        if !encoding.eq_ignore_ascii_case("identity") {
            return Err(Problem::new(
                catalogue::UNSUPPORTED_ENCODING,
                format!(
                    "`{}` is not supported; send the body as it is (identity)",
                    shorten(encoding)
                ),
            ));
        }
    }
    Ok(())
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let unsupported = |detail: String| Problem::new(catalogue::UNSUPPORTED_TYPE, detail);
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(unsupported(format!("the Content-Type is missing; supported: {FORMATS}")));
    };
    let text = value.to_str().unwrap_or("?");
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known))
        {
            return Err(unsupported(format!(
                "the charset `{}` is not supported; send UTF-8",
                shorten(charset)
            )));
        }
    }
    match essence.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Ok(Format::Csv(Dialect::default())),
        "text/tab-separated-values" => Ok(Format::Csv(Dialect::TAB)),
        "application/x-ndjson" | "application/jsonl" => Ok(Format::Ndjson),
        "application/json" => Ok(Format::Json),
        other => {
            Err(unsupported(format!("`{}` is not supported; supported: {FORMATS}", shorten(other))))
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong = |why: &str| Problem::new(catalogue::IDEMPOTENCY_KEY, why);
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(wrong("there is more than one Idempotency-Key"));
    }
    let key = key.to_str().map_err(|_| wrong("the Idempotency-Key must be visible ASCII"))?;
    if key.is_empty() || key.len() > KEY_BYTES {
        return Err(wrong("the Idempotency-Key must have between 1 and 256 characters"));
    }
    Ok(Some(key.to_owned()))
}

/// `Prefer: wait=n`, in seconds; what cannot be read is ignored, as RFC 7240 asks.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.trim().parse().ok())
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn a_content_type_is_read_without_its_parameters_and_in_any_case() {
        for (value, format) in [
            ("text/csv; charset=UTF-8", Format::Csv(Dialect::default())),
            ("Application/X-NDJSON", Format::Ndjson),
            ("application/json;charset=\"utf-8\"", Format::Json),
        ] {
            assert_eq!(format_of(&headers("content-type", value)).unwrap(), format);
        }
        for value in ["text/plain", "text/csv; charset=latin1", "", "text"] {
            let problem = format_of(&headers("content-type", value)).unwrap_err();
            assert_eq!(problem.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{value}");
        }
    }

    #[test]
    fn a_preferred_wait_is_found_among_others_and_garbage_is_ignored() {
        let wait = |value| preferred_wait(&headers("prefer", value));
        assert_eq!(wait("respond-async, wait=0"), Some(Duration::ZERO));
        assert_eq!(wait("wait=soon"), None);
    }
}
