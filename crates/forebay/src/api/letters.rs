//! Dead letters for HTTP and commands: plain JSON of what the engine says.

use std::time::Duration;

use forebay_pipeline::engine::{Letter, LettersError, Place, Redrive, Redriving, Selection};
use forebay_pipeline::entry::LetterId;
use forebay_pipeline::record::Code;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Engine, QueryFailure};
use crate::catalogue::{self, Kind};

/// Letters of a list, unless told otherwise; a list has at most ten times as many.
pub const LIST: usize = 100;
/// The most letters of a list.
pub const LIST_MAX: usize = 1000;
/// Letters of a redrive, unless told otherwise.
const REDRIVE: usize = 1000;
/// The most letters of a redrive.
const REDRIVE_MAX: usize = 10_000;

/// Why dead letters were not shown, or not redriven.
#[derive(Debug)]
pub struct LettersFailure {
    /// Which of the catalogue's kinds.
    pub kind: &'static Kind,
    /// Why, for people.
    pub message: String,
    /// When it is worth coming back.
    pub retry_after: Option<Duration>,
}

impl LettersFailure {
    fn malformed(message: String) -> LettersFailure {
        LettersFailure { kind: catalogue::DEAD_LETTERS_REQUEST, message, retry_after: None }
    }
}

impl From<LettersError> for LettersFailure {
    fn from(error: LettersError) -> LettersFailure {
        let message = error.to_string();
        let (kind, retry_after) = match error {
            LettersError::UnknownStream(_) => (catalogue::UNKNOWN_STREAM, None),
            LettersError::UnknownLetter(_) => (catalogue::UNKNOWN_DEAD_LETTER, None),
            LettersError::Busy(_) => (catalogue::REDRIVE_UNDER_WAY, None),
            LettersError::Behind { retry_after, .. } | LettersError::NoRoom { retry_after, .. } => {
                (catalogue::OVERLOADED, Some(retry_after))
            }
            LettersError::DiskFull { retry_after } => (catalogue::DISK_FULL, Some(retry_after)),
            LettersError::Stopping => (catalogue::OVERLOADED, Some(Duration::from_secs(1))),
            LettersError::Query(error) => {
                let QueryFailure { kind, .. } = QueryFailure::from(error);
                (kind, (kind.status == 503).then_some(Duration::from_secs(1)))
            }
            LettersError::Internal(_) => (catalogue::INTERNAL, None),
        };
        LettersFailure { kind, message, retry_after }
    }
}

/// What a list is asked for, as it was written.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Those sent to this stream.
    pub stream: Option<String>,
    /// Those refused for this reason.
    pub code: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// The `next` of the list before.
    pub after: Option<String>,
}

/// Dead letters, newest first, and where the list goes on.
///
/// # Errors
/// [`LettersFailure`]
pub async fn list(engine: &Engine, request: ListRequest) -> Result<Value, LettersFailure> {
    let after = request.after.as_deref().map(str::parse::<Place>).transpose();
    let limit = bounded(request.limit, LIST, LIST_MAX)?;
    let selection = Selection {
        stream: request.stream,
        code: request.code.as_deref().map(code).transpose()?,
        after: after.map_err(LettersFailure::malformed)?,
        limit,
    };
    let letters = engine.letters(&selection).await?;
    let next = letters.last().filter(|_| letters.len() == limit).map(Letter::place);
    let letters: Vec<Value> = letters.iter().map(letter_json).collect();
    Ok(json!({ "letters": letters, "next": next.map(|place| place.to_string()) }))
}

/// One dead letter, whole.
///
/// # Errors
/// [`LettersFailure`]
pub async fn show(engine: &Engine, id: &str) -> Result<Value, LettersFailure> {
    let id = id.parse::<LetterId>().map_err(LettersFailure::malformed)?;
    Ok(letter_json(&engine.letter(id).await?))
}

fn letter_json(letter: &Letter) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("id", json!(letter.id.to_string()));
    put("stream", json!(letter.stream));
    put("position", json!(letter.id.position));
    put("row", json!(letter.id.row));
    put("column", json!(letter.column));
    put("code", json!(letter.code));
    put("message", json!(letter.message));
    match letter.raw.as_deref().map(std::str::from_utf8) {
        Some(Err(_)) => {
            let raw = letter.raw.as_deref().unwrap_or_default();
            put("raw_hex", json!(raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        }
        text => {
            put("raw", json!(text.and_then(Result::ok)));
        }
    }
    put("format", json!(letter.format));
    if let Some(header) = &letter.header {
        // It was written as JSON; what is not is shown as it is.
        put("header", serde_json::from_str(header).unwrap_or_else(|_| json!(header)));
    }
    put("client", json!(letter.client));
    put("request_id", json!(letter.request_id));
    put("received_at", json!(letter.received_at()));
    put("redriven_at", json!(letter.redriven_at()));
    Value::Object(shown)
}

/// The body of a redrive.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// The stream they were sent to, and go to now.
    pub stream: String,
    /// Those refused for this reason.
    pub code: Option<String>,
    /// These; otherwise all.
    pub ids: Option<Vec<String>>,
    /// The `next` of the redrive before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Who asks for a redrive: noted in the entries that it makes.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// The peer's address.
    pub client: String,
    /// The request's id.
    pub request_id: String,
    /// The token's name, or the address.
    pub tenant: String,
}

/// Sends dead letters again.
///
/// # Errors
/// [`LettersFailure`]; what was accepted before it stays.
pub async fn redrive(
    engine: &Engine,
    request: RedriveRequest,
    asker: Asker,
) -> Result<Value, LettersFailure> {
    let id = |text: &String| text.parse::<LetterId>().map_err(LettersFailure::malformed);
    let ids = request.ids.as_ref().map(|ids| ids.iter().map(id).collect::<Result<Vec<_>, _>>());
    let ids = ids.transpose()?;
    if let Some(many) = ids.as_ref().map(Vec::len).filter(|many| *many > REDRIVE_MAX) {
        let why = format!("{many} ids at once; {REDRIVE_MAX} is the most");
        return Err(LettersFailure::malformed(why));
    }
    let limit = if ids.is_some() { REDRIVE_MAX } else { REDRIVE };
    let redrive = Redrive {
        code: request.code.as_deref().map(code).transpose()?,
        after: request.after.as_ref().map(id).transpose()?,
        limit: bounded(request.limit, limit, REDRIVE_MAX)?,
        stream: request.stream,
        ids,
        client: asker.client,
        request_id: asker.request_id,
        tenant: asker.tenant,
    };
    let stream = redrive.stream.clone();
    Ok(redriving_json(&stream, &engine.redrive(redrive).await?))
}

fn redriving_json(stream: &str, done: &Redriving) -> Value {
    let errors = done.errors.iter().map(|refused| {
        json!({
            "id": refused.id.to_string(),
            "column": refused.column,
            "code": refused.code.map(Code::as_str),
            "message": refused.message,
        })
    });
    json!({
        "stream": stream,
        "accepted": done.accepted,
        "refused": done.refused,
        "already_redriven": done.already,
        "unknown": done.unknown,
        "errors": errors.collect::<Vec<_>>(),
        "position": done.position,
        "next": done.next.map(|id| id.to_string()),
    })
}

fn bounded(asked: Option<usize>, usual: usize, most: usize) -> Result<usize, LettersFailure> {
    match asked {
        None => Ok(usual),
        Some(asked) if (1..=most).contains(&asked) => Ok(asked),
        Some(asked) => {
            Err(LettersFailure::malformed(format!("`limit` is from 1 to {most}, not {asked}")))
        }
    }
}

fn code(text: &str) -> Result<Code, LettersFailure> {
    Code::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        LettersFailure::malformed(format!("no code `{shown}`; the codes are {}", known.join(", ")))
    })
}
