//! Going on with an upload that was cut: `HEAD /ingest/{stream}` says where, a `POST` with
//! `Upload-Offset` does it. What the numbers mean stands at `forebay_pipeline::intake::Standing`.
//!
//! ```text
//! HEAD /ingest/flights           200  Upload-Offset: 7340032   Upload-Prefix: 1048601
//! Idempotency-Key: june               Upload-Complete: ?0      Upload-Accepted: …  Upload-Rejected: …
//!
//! POST /ingest/flights           the body: its bytes 0..1048601, then its bytes 7340032..
//! Idempotency-Key: june
//! Upload-Offset: 7340032
//! Upload-Prefix: 1048601
//! ```
//!
//! Offsets count bytes of the body after its `Content-Encoding` is undone.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::App;
use super::connection::Caller;
use super::guard::shorten;
use super::ingest::key_of;
use super::problem::Problem;
use super::routes::{parameters, stream_of};
use crate::api::{self, IngestError, Standing};
use crate::catalogue;
use crate::config::check_stream_name;

const OFFSET: &str = "upload-offset";
const PREFIX: &str = "upload-prefix";

/// Where a request says that it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) offset: u64,
    pub(super) prefix: u64,
}

/// `HEAD /ingest/{stream}`
pub(super) async fn head(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    caller.leave(body, true);
    let stream = stream_of(&parts.uri)?;
    check_stream_name(&stream).map_err(|why| Problem::new(catalogue::STREAM_NAME, why))?;
    parameters(&parts.uri, &[])?;
    let key = key_of(&parts.headers)?.ok_or_else(|| {
        Problem::new(
            catalogue::IDEMPOTENCY_KEY,
            "HEAD asks how far an upload has come; send its Idempotency-Key",
        )
    })?;
    let standing = app.engine.standing(&stream, &caller.tenant, &key).await?;
    if standing.offset == 0 {
        return Err(Problem::new(
            catalogue::UNKNOWN_UPLOAD,
            "nothing is known under this Idempotency-Key: send the body from its start",
        ));
    }
    let mut response = StatusCode::OK.into_response();
    describe(response.headers_mut(), &standing);
    Ok(response)
}

/// The answer to a request that goes on where the upload does not: 409, and where it does.
pub(super) fn elsewhere(standing: Standing) -> Response {
    let mut response = Problem::from(IngestError::Offset(standing)).into_response();
    describe(response.headers_mut(), &standing);
    response
}

fn describe(headers: &mut HeaderMap, standing: &Standing) {
    headers.insert(OFFSET, HeaderValue::from(standing.offset));
    headers.insert(PREFIX, HeaderValue::from(standing.prefix));
    let complete = if standing.complete { "?1" } else { "?0" };
    headers.insert("upload-complete", HeaderValue::from_static(complete));
    headers.insert("upload-accepted", HeaderValue::from(standing.accepted));
    headers.insert("upload-rejected", HeaderValue::from(standing.rejected));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Where a POST goes on, beside its terms; `None` for a body from its start.
///
/// # Errors
/// 400 for numbers that are none, for one without the other, and without a key.
pub(super) fn splice(
    headers: &HeaderMap,
    terms: api::Request,
) -> Result<(api::Request, Option<Splice>), Problem> {
    let (offset, prefix) = (number(headers, OFFSET)?, number(headers, PREFIX)?);
    let wrong = |why| Err(Problem::new(catalogue::UPLOAD_HEADERS, why));
    match (offset, prefix) {
        (None, None) | (Some(0), None | Some(0)) => Ok((terms, None)),
        _ if terms.key.is_none() => {
            wrong("an upload goes on under its Idempotency-Key; send it with Upload-Offset")
        }
        (Some(offset), Some(prefix)) => Ok((terms, Some(Splice { offset, prefix }))),
        _ => wrong(
            "an upload that goes on has both Upload-Offset and Upload-Prefix; HEAD says their values",
        ),
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && values.next().is_none() => Ok(Some(number)),
        _ => Err(Problem::new(
            catalogue::UPLOAD_HEADERS,
            format!("`{name}: {}` is not one number of bytes", shorten(text)),
        )),
    }
}
