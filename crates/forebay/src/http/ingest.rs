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
use forebay_pipeline::codec::unpack::Packing;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;

use super::App;
use super::body::Reader;
use super::connection::Caller;
use super::guard::shorten;
use super::media::{self, Media};
use super::problem::{Problem, reply_json, with_partial};
use super::resume::{self, Splice};
use super::routes::{parameters, stream_of};
use crate::api::{self, Ack, Due, IngestError, Upload};
use crate::catalogue;
use crate::config::check_stream_name;

/// The longest `Idempotency-Key`.
const KEY_BYTES: usize = 256;
/// What the query of a post may say.
const PARAMETERS: [&str; 10] = {
    let [a, b, c, d, e, f, g, h, i] = media::PARAMETERS;
    ["ack", a, b, c, d, e, f, g, h, i]
};

pub(super) async fn ingest(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let terms = terms(&app, &caller, &parts).await;
    let (terms, from) = match terms.and_then(|terms| resume::splice(&parts.headers, terms)) {
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
                let request_id = &caller.request_id;
                tracing::error!(stream, request_id, error = %message, "an upload failed");
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
                let partial = upload.abandon().await;
                caller.leave(reader.into_rest(), false);
                return Err(Failure::Body(with_partial(error.into(), partial)));
            }
        }
    }
    let due = Due(clock::now() + app.config.http.deadline);
    upload.finish(due).await.map_err(Failure::Refused)
}

async fn terms(app: &App, caller: &Caller, parts: &Parts) -> Result<api::Request, Problem> {
    let stream = stream_of(&parts.uri)?;
    check_stream_name(&stream).map_err(|why| Problem::new(catalogue::STREAM_NAME, why))?;
    let parameters = parameters(&parts.uri, &PARAMETERS)?;
    let pattern = app.patterns.of(&app.engine, &parameters).await?;
    let usual = app.engine.usual(&stream);
    let Media { format, packing } = media::of(&parts.headers, &parameters, pattern, usual)?;
    let content_length = content_length(&parts.headers);
    if let (Some(length), Some(limit)) = (content_length, app.config.http.max_body)
        && length > limit
    {
        return Err(super::body::BodyError::TooLarge { limit }.into());
    }
    let mut ack = Ack::default();
    for (_, value) in parameters.iter().filter(|(name, _)| *name == "ack") {
        ack = Ack::parse(value).ok_or_else(|| {
            Problem::new(
                catalogue::UNKNOWN_ACK,
                format!("`ack={}` is none of received, durable, stored", shorten(value)),
            )
        })?;
    }
    Ok(api::Request {
        stream,
        format,
        packing,
        ack,
        key: key_of(&parts.headers)?,
        tenant: caller.tenant.clone(),
        client: caller.connection.peer.to_string(),
        request_id: caller.request_id.clone(),
        wait: preferred_wait(&parts.headers).map(|wait| wait.min(app.config.admission_wait)),
        // Of a packed body it says nothing about the text.
        content_length: content_length.filter(|_| packing == Packing::default()),
    })
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
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn a_preferred_wait_is_found_among_others_and_garbage_is_ignored() {
        let wait = |value| preferred_wait(&headers("prefer", value));
        assert_eq!(wait("respond-async, wait=0"), Some(Duration::ZERO));
        assert_eq!(wait("wait=soon"), None);
    }
}
