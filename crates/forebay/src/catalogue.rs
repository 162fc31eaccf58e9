//! The catalogue of errors: every problem `type` that an answer can have, and every code that a refused row
//! can have, with when it comes and what to do.
//!
//! The one list. Answers are built from it, `GET /problems/{code}` shows it, and `docs/errors.md` is generated
//! from it. Owns texts and statuses, nothing else; it does not know how a refusal is found.

use forebay_pipeline::record::Code;

/// A kind of refusal: what all problems of one `type` share.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of `type`: stable, programs match on it.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The same words for every problem of this kind.
    pub title: &'static str,
    /// When it is answered.
    pub when: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident $status:literal $code:literal $title:literal $when:literal $remedy:literal)*) => {
        $(
            #[doc = concat!("`", $code, "`, ", $status, ": ", $when)]
            pub const $name: &Kind = &Kind {
                code: $code,
                status: $status,
                title: $title,
                when: $when,
                remedy: $remedy,
            };
        )*
        /// Every kind, by status and code.
        pub const ALL: &[&Kind] = &[$($name),*];
    };
}

kinds! {
    BAD_HEADER 400 "bad-header" "A header cannot be what it is"
        "There is more than one `Content-Type`, or a `Transfer-Encoding` beside `chunked`."
        "Send the header once; a compressed body has a `Content-Encoding`."
    BAD_PARAMETER 400 "bad-parameter" "A setting of the body makes no sense"
        "A parameter of the query or of the `Content-Type` has a value that it cannot have, or is for another format: \
         `format`, `pattern`, `delimiter`, `quote`, `escape`, `comment`, `null`, `header`."
        "`detail` says which, and what it can be; nothing was read."
    BROKEN_BODY 400 "broken-body" "The body could not be read"
        "The connection ended before the declared length, or a chunk of a chunked body is malformed."
        "Send the body again, whole; under the same `Idempotency-Key` nothing is stored twice."
    BROKEN_ENCODING 400 "broken-encoding" "The body is not what its Content-Encoding says"
        "At `byte` of the body as it was sent, it is not gzip, zstd or deflate; or it ends in the middle, has a wrong \
         checksum, or bytes behind its end."
        "Compress the body again, or send it as it is. `accepted` rows before the fault are durable; under the same \
         `Idempotency-Key` they are not stored twice."
    DEAD_LETTERS_REQUEST 400 "dead-letters-request" "The request for dead letters makes no sense"
        "A parameter of the list, or a member of the redrive, cannot be what it is."
        "`detail` says which, and what it can be; nothing was redriven."
    EMPTY_BODY 400 "empty-body" "The body is empty"
        "The body holds no byte, or nothing but blank lines."
        "Send at least one row. A CSV body of a header alone is no error: it has 0 rows."
    IDEMPOTENCY_KEY 400 "idempotency-key" "The Idempotency-Key cannot be used"
        "The `Idempotency-Key` is empty, longer than 256 characters, not visible ASCII, or given twice."
        "Send one key of 1 to 256 visible ASCII characters, a UUID for example."
    MALFORMED_BODY 400 "malformed-body" "The body is malformed"
        "From `line` and `column` on the body cannot be told into records or settings: a JSON array with a \
         missing bracket, a CSV header with a doubled name, a setting that does not exist."
        "Mend the body there. `accepted` rows before the fault are durable and stored; `offset` says how \
         much of the body they are. Under the same `Idempotency-Key` they are not stored twice as long as the \
         bytes before `offset` stay the same."
    NO_QUERY 400 "no-query" "There is no query"
        "`GET /api/v1/query` came without the parameter `sql`."
        "Add `?sql=SELECT…`, percent-encoded, or POST the SQL as `text/plain`."
    PRECONDITION 400 "precondition" "The precondition cannot be read"
        "`If-Match` is no version of a stream, or `If-None-Match` is not `*`, or both are there."
        "Send `If-Match` with the `ETag` of the stream as it was read, or `If-None-Match: *` for one that must be new."
    QUERY_DATA 400 "query-data" "The query failed on a value"
        "An expression of the query cannot be evaluated on a stored value: a cast, a division by zero."
        "Use `TRY_CAST`, or leave such rows out with WHERE."
    QUERY_FORM 400 "query-form" "The answer cannot be written in this form"
        "A value of the answer has no text in the form asked for: a timestamp beyond the calendar in CSV."
        "Ask for another form with `Accept`, or leave such values out with WHERE."
    QUERY_INVALID 400 "query-invalid" "The query makes no sense"
        "The SQL names a column or a function that does not exist, or combines types that do not go together; \
         `line` and `column` say where."
        "Mend the SQL there; `GET /api/v1/streams/{stream}` shows the columns."
    QUERY_NOT_READ_ONLY 400 "query-not-read-only" "Queries only read"
        "The SQL would write, or read something that is not a stream: DDL, DML, COPY, SET, a file or a URL as a table."
        "Write rows with `POST /ingest/{stream}`, change streams with `/api/v1/streams`; only SELECT is answered here."
    QUERY_SYNTAX 400 "query-syntax" "The query is not SQL"
        "The SQL cannot be parsed; `line` and `column` say where."
        "Mend the SQL there. One statement, no more."
    QUERY_UNKNOWN_TABLE 400 "query-unknown-table" "There is no such table"
        "The SQL names a table that is no stream."
        "`GET /api/v1/streams` lists the streams; each is a table of its name. Names with `.` or `-` need double quotes."
    STREAM_NAME 400 "stream-name" "The stream's name breaks the rules"
        "The name is not a letter followed by at most 127 letters, digits, `_`, `.` or `-`, or begins with `_`."
        "Choose another name; names that begin with `_` are Forebay's own."
    STREAM_SETTINGS 400 "stream-settings" "The stream's settings cannot hold"
        "A setting of `PUT /api/v1/streams/{stream}` is out of bounds, or its schema or transform is at fault at \
         the line and column that `detail` names."
        "Mend the setting that `detail` names; nothing was changed."
    UNKNOWN_ACK 400 "unknown-ack" "There is no such acknowledgement"
        "`?ack=` is none of `received`, `durable`, `stored`."
        "Use one of the three, or leave it out for `durable`."
    UNKNOWN_PARAMETER 400 "unknown-parameter" "There is no such parameter"
        "The query string holds a parameter that the route does not have, or a value that it cannot have."
        "`detail` lists the parameters that are known there."
    UPLOAD_HEADERS 400 "upload-headers" "The upload cannot go on like this"
        "`Upload-Offset` or `Upload-Prefix` is not one number, one of them is missing, or there is no `Idempotency-Key`."
        "Send both with the values that `HEAD /ingest/{stream}` answers under the key, or none and the whole body."
    UNAUTHORIZED 401 "unauthorized" "A valid token is needed"
        "Tokens are configured, and the request carries none or one that is not known."
        "Send `Authorization: Bearer TOKEN`."
    CROSS_ORIGIN 403 "cross-origin" "Web pages of other origins may not call"
        "A browser sent the request for a page of an origin that is not allowed."
        "Add the origin to `[http] origins`."
    FORBIDDEN 403 "forbidden" "The token does not allow this"
        "The token may write certain streams only, and the request asks for another one or for something else."
        "Use another token, or add the stream to this one's `streams`."
    NO_SUCH_ROUTE 404 "no-such-route" "There is nothing here"
        "The path leads nowhere."
        "`GET /` lists every route."
    UNKNOWN_DEAD_LETTER 404 "unknown-dead-letter" "There is no such dead letter"
        "The id names no row of `_dead_letters`."
        "`GET /api/v1/dead-letters` lists them with their ids."
    UNKNOWN_PROBLEM 404 "unknown-problem" "There is no such kind of problem"
        "`GET /problems/{code}` names a code that is not in the catalogue."
        "`GET /problems` lists them all."
    UNKNOWN_STREAM 404 "unknown-stream" "There is no such stream"
        "The stream does not exist, and does not appear by itself because `auto_create` is off."
        "Create it with `PUT /api/v1/streams/{stream}`, declare it in the configuration, or set `auto_create = true`."
    UNKNOWN_UPLOAD 404 "unknown-upload" "Nothing is known of this upload"
        "`HEAD /ingest/{stream}` names an `Idempotency-Key` under which nothing is stored, or no longer."
        "Send the body from its start."
    WRONG_METHOD 405 "wrong-method" "The method is not allowed here"
        "The path exists, but not with this method."
        "The header `Allow` lists the methods."
    NOT_ACCEPTABLE 406 "not-acceptable" "The answer cannot have this form"
        "`Accept` names no form that a query can be answered in."
        "Ask for `application/json`, `application/x-ndjson`, `text/csv` or `application/vnd.apache.arrow.stream`."
    SLOW_BODY 408 "slow-body" "The body came too slowly"
        "Over `[http] rate_window` the body came at less than `[http] min_rate`, while the server was reading."
        "Send it again, under the same `Idempotency-Key` if it had one; lower `min_rate` for clients on slow lines."
    KEY_CONFLICT 409 "key-conflict" "The Idempotency-Key was used with another body"
        "The key stands for other bytes: other content, another length, or another CSV header."
        "Use a new key for a new body. The first body's rows are stored once, as they were."
    REDRIVE_UNDER_WAY 409 "redrive-under-way" "The stream is being redriven"
        "Another redrive of the same stream has not ended."
        "Wait for its answer; it may have done what this one would."
    STREAM_REFUSED 409 "stream-refused" "The stream was left as it is"
        "The change conflicts with what is there: the stream is declared in the configuration file, rows still wait \
         in its journal, or its stored rows do not allow the change."
        "`detail` says which, and what to do instead; nothing was changed."
    TOO_MANY_STREAMS 409 "too-many-streams" "No further stream can be created"
        "As many streams exist as `[limits] streams` allows."
        "Drop a stream with `DELETE /api/v1/streams/{stream}`, or raise `[limits] streams`. Existing streams take rows as before."
    UPLOAD_OFFSET 409 "upload-offset" "The upload does not go on there"
        "`Upload-Offset` or `Upload-Prefix` is not where the upload under this `Idempotency-Key` stands."
        "Go on at the `Upload-Offset` and `Upload-Prefix` of this answer, or send the whole body."
    STREAM_CHANGED 412 "stream-changed" "The stream has another version now"
        "`If-Match` names a version that is no longer, or `If-None-Match: *` a stream that exists."
        "Read the stream again, and send the change with its `ETag`."
    BODY_TOO_LARGE 413 "body-too-large" "The body is too large"
        "The body is longer than `limit_bytes`: `[http] max_body`, `[limits] spool` for a stream with \
         `on_invalid = \"reject\"`, or 1 MiB of SQL or settings."
        "Send less at once, or raise the limit that `detail` names."
    EXPANSION_LIMIT 413 "expansion-limit" "The body expands too far"
        "A compressed body became larger than `[limits] expansion` times its size (and than 64 MiB)."
        "Send it in parts, or less compressed, or raise the limit. `accepted` rows are durable, up to `offset`."
    UNSUPPORTED_ENCODING 415 "unsupported-encoding" "The Content-Encoding is not supported"
        "The body is compressed in a way that is not known here, more than once, or by zstd with a window beyond 8 MiB."
        "Use one encoding that `detail` lists, or send the body as it is."
    UNSUPPORTED_TYPE 415 "unsupported-type" "The Content-Type is not supported"
        "The `Content-Type` is missing, or names no format that is taken here, or a charset that is not known."
        "Send one of the types that `detail` lists."
    NO_VALID_ROW 422 "no-valid-row" "No row was valid"
        "Every row was refused. Each is kept in `_dead_letters`; `errors` holds the first 100 with row, column, code and message."
        "Mend the rows and send them again, or change the schema."
    ROW_REFUSED 422 "row-refused" "A row was refused, so nothing was kept"
        "The stream has `on_invalid = \"reject\"` and a row is not valid: the whole body is refused, and nothing of it is kept."
        "Mend the rows that `errors` names and send the whole body again."
    INTERNAL 500 "internal" "A fault of the server"
        "Something broke that should not have: a disk that refuses, a fault in Forebay."
        "Look for the `request_id` in the server's log; send the request again under the same `Idempotency-Key`."
    OUTCOME_UNKNOWN 500 "outcome-unknown" "Whether the rows are durable is unknown"
        "A write or a sync of the journal failed. The server ends, and finds out at its next start."
        "Send the body again under the same `Idempotency-Key`: rows that were kept are not stored twice."
    OVERLOADED 503 "overloaded" "No room now"
        "A bound is reached, and `reason` names it: `memory`, `journal_full` (the sink is behind), `draining` (the \
         server is shutting down), `connections`. Nothing was taken beyond what `accepted` and `offset` say."
        "Come back after `Retry-After` seconds."
    QUERY_RESOURCES 503 "query-resources" "The query needs more memory than there is"
        "The query's sorts, joins or groups do not fit in the query share of the memory budget."
        "Ask for less: fewer rows, fewer groups, no cross join; or raise `[memory] budget`."
    DEADLINE 504 "deadline" "The request's deadline passed"
        "The rows were not durable within `[http] deadline` after the last byte. `offset` says how much of the body is."
        "Send it again under the same `Idempotency-Key`: what is durable is not stored twice."
    QUERY_TIMEOUT 504 "query-timeout" "The query's time is up"
        "The query ran longer than `timeout_ms`, or than `[query] timeout`."
        "Ask for less, or raise both."
    DISK_FULL 507 "disk-full" "The disk is full"
        "The journal cannot grow. Nothing was kept beyond what `accepted` and `offset` say; queries go on."
        "Make room on the disk; then the same request succeeds, with no restart. Come back after `Retry-After` seconds."
}

/// The kind of a code; `None` for a code that is not in the catalogue.
pub fn find(code: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| kind.code == code)
}

/// A row's code: when it is given, and what to do.
pub fn row(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Syntax => (
            "The record is not well-formed: JSON grammar, two values on a line, a quote that does not end.",
            "`message` names the byte and what was expected there. Send each NDJSON object on one line.",
        ),
        Code::InvalidUtf8 => (
            "The record holds bytes that are not UTF-8.",
            "Encode the text as UTF-8, or declare what it is: `Content-Type: text/csv; charset=…`.",
        ),
        Code::DuplicateKey => {
            ("A JSON object names the same key twice.", "Name each key once; no value is guessed.")
        }
        Code::RowTooLarge => (
            "The record is longer than `[limits] row` (1 MiB). Its beginning is kept.",
            "Split the record, or raise `[limits] row`.",
        ),
        Code::TooDeep => (
            "The JSON value nests deeper than `[limits] depth` (64).",
            "Flatten the value, or raise `[limits] depth`.",
        ),
        Code::FieldCount => (
            "A CSV record has more or fewer fields than the header.",
            "Quote fields that hold the delimiter or a line break; send a body with other columns as a body of its own.",
        ),
        Code::NoMatch => (
            "A line of text does not match the pattern; a pattern describes the whole line.",
            "Mend the `pattern` of the stream or of the request; end it with `(?<rest>.*)` where lines go on.",
        ),
        Code::UnknownColumn => (
            "The record has a column that the stream does not have, and the stream has `unknown = \"dead_letter\"`.",
            "Add the column to the schema, or set `unknown` to `drop` or `keep`.",
        ),
        Code::TypeMismatch => (
            "The value does not fit the column's type: text in an INT, a fraction in an INT.",
            "Mend the value, or give the stream a column of another type and a new name.",
        ),
        Code::OutOfRange => (
            "The number is beyond the column's type: 2^63 in a BIGINT, 1e400 in a DOUBLE, too many digits for a DECIMAL.",
            "Use a wider type, DECIMAL or TEXT.",
        ),
        Code::InvalidDate => (
            "The text is no DATE or TIMESTAMP, or names a day or a second that does not exist.",
            "Write `2013-01-31`, `2013-01-31T05:00:00Z` or another RFC 3339 form; no offset means UTC.",
        ),
        Code::NotNull => (
            "A NOT NULL column is missing or NULL.",
            "Send the value, give the column a DEFAULT, or drop NOT NULL.",
        ),
        Code::Check => (
            "A CHECK is false for the row.",
            "Mend the value that `column` names, or change the CHECK.",
        ),
        Code::Transform => (
            "The stream's transform fails on the row. It was accepted, and is a dead letter since.",
            "Change the transform, with `TRY_CAST` for example.",
        ),
        Code::Poison => (
            "A transform's worker died on the row twice. It was accepted, and is a dead letter since.",
            "Report it: this is a fault in Forebay. The rows around it are stored.",
        ),
    }
}

impl Kind {
    /// The entry as text, for people.
    pub fn text(&self) -> String {
        format!(
            "{} ({})\n\n{}.\n\nWhen: {}\n\nWhat to do: {}\n",
            self.code, self.status, self.title, self.when, self.remedy
        )
    }
}

/// Every code, one a line.
pub fn list() -> String {
    ALL.iter().fold(String::new(), |mut text, kind| {
        text.push_str(&format!("{}  {:<22} {}", kind.status, kind.code, kind.title));
        text.push('\n');
        text
    })
}

/// `docs/errors.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         Generated from `crates/forebay/src/catalogue.rs`; after a change there run\n\
         `UPDATE_EXPECT=1 cargo nextest run -p forebay errors`.\n\n\
         Every refusal is an RFC 9457 problem, `application/problem+json`:\n\n\
         ```json\n\
         {\"type\": \"/problems/malformed-body\", \"title\": \"The body is malformed\", \"status\": 400,\n \
         \"detail\": \"what is wrong here, and what to do\", \"request_id\": \"…\"}\n\
         ```\n\n\
         `type` is stable: match on it. It is also a path of the server: `GET /problems/{code}` answers with the text below.\n\
         Answers of 429, 503 and 507 carry `Retry-After`. Where part of a body is durable, `accepted`, `rejected` and `offset` say so.\n\n\
         ## Problems\n\n\
         | status | code | when | what to do |\n|---|---|---|---|\n",
    );
    for kind in ALL {
        text.push_str(&format!(
            "| {} | `{}` | {} | {} |",
            kind.status,
            kind.code,
            cell(kind.when),
            cell(kind.remedy)
        ));
        text.push('\n');
    }
    text.push_str(
        "\n## Rows\n\n\
         A refused row is in the reply's `errors` (the first 100) and whole in the table `_dead_letters`, with one of these codes.\n\n\
         | code | when | what to do |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let (when, remedy) = row(code);
        text.push_str(&format!("| `{}` | {} | {} |", code.as_str(), cell(when), cell(remedy)));
        text.push('\n');
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_order_and_each_code_is_there_once() {
        assert!(
            ALL.windows(2).all(|pair| match pair {
                [one, next] => (one.status, one.code) < (next.status, next.code),
                _ => true,
            }),
            "sorted by status and code, no duplicates"
        );
        let plain = |code: &str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(ALL.iter().all(|kind| plain(kind.code) && find(kind.code) == Some(*kind)));
    }

    #[test]
    fn every_text_is_a_sentence() {
        let rows = Code::ALL.map(row);
        let texts = ALL.iter().map(|kind| (kind.when, kind.remedy)).chain(rows);
        for text in texts.flat_map(|(when, remedy)| [when, remedy]) {
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }
}
