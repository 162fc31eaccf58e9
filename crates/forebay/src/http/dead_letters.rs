//! `/api/v1/dead-letters`: list, show, redrive. Thin: the engine decides.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::App;
use super::body::Reader;
use super::connection::Caller;
use super::problem::Problem;
use super::routes::parameters;
use crate::api::letters::{self, Asker, LettersFailure, ListRequest, RedriveRequest};
use crate::catalogue;

/// The longest body of a redrive: ten thousand ids.
const BODY_BYTES: u64 = 1 << 20;

impl From<LettersFailure> for Problem {
    fn from(failure: LettersFailure) -> Problem {
        let problem = Problem::new(failure.kind, failure.message);
        match failure.retry_after {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let mut asked = ListRequest::default();
    for (name, value) in parameters(request.uri(), &["stream", "code", "limit", "after"])? {
        match name {
            "stream" => asked.stream = Some(value),
            "code" => asked.code = Some(value),
            "after" => asked.after = Some(value),
            _ => {
                let limit = value.parse().map_err(|_| {
                    Problem::new(catalogue::DEAD_LETTERS_REQUEST, "`limit` is a number of letters")
                })?;
                asked.limit = Some(limit);
            }
        }
    }
    Ok(Json(letters::list(&app.engine, asked).await?))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    // What is not UTF-8 is no id either.
    let id = percent_decode_str(last).decode_utf8_lossy();
    Ok(Json(letters::show(&app.engine, &id).await?))
}

pub(super) async fn redrive(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let mut reader = Reader::new(request.into_body(), &app.config.http, Some(BODY_BYTES));
    let read = match reader.all().await {
        Ok(read) => read,
        Err(error) => {
            caller.leave(reader.into_rest(), false);
            return Err(error.into());
        }
    };
    let asked: RedriveRequest = serde_json::from_slice(&read).map_err(|error| {
        let why = format!(
            "not a redrive: {error}; send {{\"stream\": …, \"code\"?, \"ids\"?, \"limit\"?}}"
        );
        Problem::new(catalogue::MALFORMED_BODY, why)
            .with("line", error.line())
            .with("column", error.column())
    })?;
    let asker = Asker {
        client: caller.connection.peer.ip().to_string(),
        request_id: caller.request_id.clone(),
        tenant: caller.tenant.clone(),
    };
    Ok(Json(letters::redrive(&app.engine, asked, asker).await?))
}
