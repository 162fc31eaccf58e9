//! What an answer means for an upload. Judges; waits for nothing and sends nothing.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use serde_json::Value;

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowError {
    pub(super) row: u64,
    pub(super) column: Option<String>,
    pub(super) message: String,
}

/// Rows that the server answers for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rows {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    /// The first refused rows of the last request.
    pub(super) errors: Vec<RowError>,
}

/// How far the server has an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) offset: u64,
    pub(super) prefix: u64,
    pub(super) complete: bool,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The body is taken whole.
    Taken(Rows),
    /// Come back later, says the server.
    Later { after: Duration, why: String },
    /// Something broke; asking again may help.
    Again { why: String },
    /// The body that went on is not the one under this key, or goes on elsewhere.
    Mismatch { why: String },
    /// Asking again does not help. `everyone`: it would be the same for every other file.
    Refused { why: String, everyone: bool },
}

/// Judges the answer to a POST.
pub(super) fn judge(url: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = reply["detail"].as_str().map(str::to_owned);
    if status.is_success() && reply["accepted"].is_u64() {
        return Answer::Taken(rows(&reply));
    }
    let Some(detail) = detail else { return stranger(url, status) };
    let code = reply["type"].as_str().and_then(|uri| uri.rsplit('/').next()).unwrap_or_default();
    match (status, code) {
        // Every row is kept as a dead letter: the body is taken.
        (_, "no-valid-row") => Answer::Taken(rows(&reply)),
        (_, "upload-offset" | "key-conflict") => Answer::Mismatch { why: detail },
        _ => by_status(status, headers, &reply, detail),
    }
}

/// Judges the answer to a HEAD by its status alone; `None`: nothing is known, so send from the start.
pub(super) fn judge_head(
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Standing>, Answer> {
    match status {
        StatusCode::OK => standing(headers).map(Some).ok_or_else(|| stranger(url, status)),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => {
            let why = format!("the server answers {status}");
            Err(by_status(status, headers, &Value::Null, why))
        }
        _ if status.is_server_error() => {
            Err(Answer::Again { why: format!("the server answers {status}") })
        }
        // A POST is told why.
        _ => Ok(None),
    }
}

fn by_status(status: StatusCode, headers: &HeaderMap, reply: &Value, why: String) -> Answer {
    match status {
        StatusCode::UNAUTHORIZED => Answer::Refused {
            why: format!("{why}; this server wants a token: --token or FOREBAY_TOKEN"),
            everyone: true,
        },
        StatusCode::FORBIDDEN => Answer::Refused {
            why: format!("{why}; the token may not write this stream"),
            everyone: false,
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::INSUFFICIENT_STORAGE => {
            Answer::Later { after: retry_after(headers, reply), why }
        }
        StatusCode::REQUEST_TIMEOUT => Answer::Again { why },
        _ if status.is_server_error() => Answer::Again { why },
        _ => Answer::Refused { why: located(reply, why), everyone: false },
    }
}

/// What is durable of a body that was refused in its middle.
fn located(reply: &Value, why: String) -> String {
    let count = |name: &str| reply[name].as_u64().unwrap_or(0);
    match (count("accepted") + count("rejected"), count("offset")) {
        (0, _) => why,
        (rows, offset) => format!("{why}; the {rows} rows before byte {offset} are stored"),
    }
}

fn retry_after(headers: &HeaderMap, reply: &Value) -> Duration {
    /// Where the server does not say.
    const DEFAULT: Duration = Duration::from_secs(1);
    /// A server that says more is asked again all the same.
    const MOST: Duration = Duration::from_secs(300);
    let header = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let precise = reply["retry_after_ms"].as_u64().map(Duration::from_millis);
    precise.or(seconds).unwrap_or(DEFAULT).min(MOST)
}

fn stranger(url: &str, status: StatusCode) -> Answer {
    if status == StatusCode::BAD_GATEWAY || status == StatusCode::GATEWAY_TIMEOUT {
        return Answer::Again { why: format!("a proxy at {url} answers {status}") };
    }
    let why = format!("{url} answers {status}, and not like a Forebay server; is --url right?");
    Answer::Refused { why, everyone: true }
}

fn rows(reply: &Value) -> Rows {
    let error = |error: &Value| RowError {
        row: error["row"].as_u64().unwrap_or(0),
        column: error["column"].as_str().map(str::to_owned),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
    };
    Rows {
        accepted: reply["accepted"].as_u64().unwrap_or(0),
        rejected: reply["rejected"].as_u64().unwrap_or(0),
        errors: reply["errors"].as_array().into_iter().flatten().map(error).collect(),
    }
}

fn standing(headers: &HeaderMap) -> Option<Standing> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    Some(Standing {
        offset: number("upload-offset")?,
        prefix: number("upload-prefix")?,
        complete: headers.get("upload-complete")?.as_bytes() == b"?1",
        accepted: number("upload-accepted")?,
        rejected: number("upload-rejected")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(status: u16, body: &Value) -> Answer {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        judge("http://x", status, &HeaderMap::new(), body.to_string().as_bytes())
    }

    #[test]
    fn answers_that_pass_are_told_from_those_that_stay() {
        let problem = |code: &str| json!({"type": format!("/problems/{code}"), "detail": "why"});
        for (status, code) in [(500, "internal"), (504, "deadline"), (408, "slow-body")] {
            assert!(matches!(judged(status, &problem(code)), Answer::Again { .. }), "{status}");
        }
        for (status, code) in [(400, "malformed-body"), (404, "unknown-stream"), (413, "x")] {
            assert!(matches!(judged(status, &problem(code)), Answer::Refused { .. }), "{status}");
        }
        let mut later = problem("overloaded");
        later["retry_after_ms"] = json!(1500);
        let after = Duration::from_millis(1500);
        assert_eq!(judged(503, &later), Answer::Later { after, why: "why".into() });
        assert!(matches!(judged(409, &problem("key-conflict")), Answer::Mismatch { .. }));
        let all_refused = json!({"type": "/problems/no-valid-row", "detail": "", "accepted": 0,
            "rejected": 3, "errors": []});
        let taken = Rows { rejected: 3, ..Rows::default() };
        assert_eq!(judged(422, &all_refused), Answer::Taken(taken));
    }

    #[test]
    fn another_kind_of_server_is_named_as_such() {
        for status in [200, 404, 405] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let answer = judge("http://x", status, &HeaderMap::new(), b"<html>");
            assert!(
                matches!(&answer, Answer::Refused { why, everyone: true } if why.contains("--url")),
                "{answer:?}"
            );
        }
    }
}
