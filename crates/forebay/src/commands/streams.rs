//! `forebay streams list|show|create|alter|drop`, over the HTTP API.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use hyper::header;
use serde_json::{Map, Value, json};

use super::call::{Form, Server, block_on, cell, escaped, table};
use crate::api::edit::{self, Edits};
use crate::config::units::Size;

/// `forebay streams`
#[derive(Debug, Subcommand)]
pub enum Streams {
    /// Lists every stream.
    #[command(after_help = "Example:\n  forebay streams list")]
    List {
        #[command(flatten)]
        server: Server,
        /// The form of the answer.
        #[arg(long, value_enum, default_value = "text")]
        format: Form,
    },
    /// Shows one stream: its schema, its versions, what became of its rows, how far its table is behind.
    #[command(after_help = "Example:\n  forebay streams show flights")]
    Show {
        /// The stream.
        name: String,
        #[command(flatten)]
        server: Server,
        /// The form of the answer.
        #[arg(long, value_enum, default_value = "text")]
        format: Form,
    },
    /// Makes a stream.
    #[command(
        after_help = "Examples:\n  forebay streams create readings --schema 'sensor TEXT NOT NULL, value DOUBLE CHECK (value > -274)'\n  forebay streams create readings --schema-file readings.sql --transform 'SELECT * FROM readings WHERE value IS NOT NULL'"
    )]
    Create(Create),
    /// Changes a stream: each change is a new version, and rows accepted before keep theirs.
    #[command(
        after_help = "Examples:\n  forebay streams alter readings --add 'unit TEXT' --nullable sensor\n  forebay streams alter readings --drop-check 'value > -274' --add-check 'value > -300'\n  forebay streams alter readings --transform 'SELECT *, value * 1.8 + 32 AS fahrenheit FROM readings'"
    )]
    Alter(Alter),
    /// Drops a stream once its rows are stored. Its table stays.
    #[command(after_help = "Example:\n  forebay streams drop readings --yes")]
    Drop {
        /// The stream.
        name: String,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
        /// Gives up rows that are not in the table yet.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: Server,
    },
}

/// What a stream does with what does not fit.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Unknown {
    /// The row becomes a dead letter.
    DeadLetter,
    /// The value is left out.
    Drop,
    /// The value goes to `_extra`.
    Keep,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum OnInvalid {
    /// The row becomes a dead letter.
    DeadLetter,
    /// The whole request is refused.
    Reject,
}

/// A schema, written out or in a file.
#[derive(Debug, Args)]
struct SchemaText {
    /// The columns, as between the parentheses of CREATE TABLE.
    #[arg(long, value_name = "DDL", conflicts_with = "schema_file")]
    schema: Option<String>,
    /// A file that holds them.
    #[arg(long, value_name = "FILE")]
    schema_file: Option<PathBuf>,
}

impl SchemaText {
    fn read(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.schema_file else { return Ok(self.schema.clone()) };
        let text = std::fs::read_to_string(file);
        Ok(Some(text.with_context(|| format!("cannot read {}", file.display()))?))
    }
}

/// `forebay streams create`
#[derive(Debug, Args)]
pub struct Create {
    /// The stream.
    name: String,
    #[command(flatten)]
    schema: SchemaText,
    /// One SELECT over the stream's own rows.
    #[arg(long, value_name = "SQL")]
    transform: Option<String>,
    /// How lines of text are read: a built-in's name, or an expression with named groups.
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// What becomes of a column that the schema does not have.
    #[arg(long, value_enum)]
    unknown: Option<Unknown>,
    /// What becomes of a request with an invalid row.
    #[arg(long, value_enum)]
    on_invalid: Option<OnInvalid>,
    /// Leaves out the column `_received_at`.
    #[arg(long)]
    no_received_at: bool,
    #[command(flatten)]
    server: Server,
}

/// `forebay streams alter`
#[derive(Debug, Args)]
pub struct Alter {
    /// The stream.
    name: String,
    /// Adds a column, as DDL: nullable, or with a DEFAULT. May be given more than once.
    #[arg(long, value_name = "DDL")]
    add: Vec<String>,
    /// Lets a column be NULL. May be given more than once.
    #[arg(long, value_name = "COLUMN")]
    nullable: Vec<String>,
    /// Adds a condition. May be given more than once.
    #[arg(long, value_name = "SQL")]
    add_check: Vec<String>,
    /// Drops a condition, as `show` prints it. May be given more than once.
    #[arg(long, value_name = "SQL")]
    drop_check: Vec<String>,
    #[command(flatten)]
    schema: SchemaText,
    /// One SELECT over the stream's own rows.
    #[arg(long, value_name = "SQL", conflicts_with = "no_transform")]
    transform: Option<String>,
    /// Stores the rows as they come.
    #[arg(long)]
    no_transform: bool,
    /// How lines of text are read: a built-in's name, or an expression with named groups.
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// What becomes of a column that the schema does not have.
    #[arg(long, value_enum)]
    unknown: Option<Unknown>,
    /// What becomes of a request with an invalid row.
    #[arg(long, value_enum)]
    on_invalid: Option<OnInvalid>,
    #[command(flatten)]
    server: Server,
}

/// Runs it.
pub fn streams(command: &Streams) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Streams::List { server, format } => list(server, *format).await,
            Streams::Show { name, server, format } => show(server, name, *format).await,
            Streams::Create(create) => make(create).await,
            Streams::Alter(alter) => change(alter).await,
            Streams::Drop { name, yes, force, server } => remove(server, name, *yes, *force).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("/api/v1/streams/{}", escaped(name))
}

async fn list(server: &Server, format: Form) -> anyhow::Result<()> {
    let answer = server.get("/api/v1/streams").await?;
    let mut out = std::io::stdout().lock();
    if format == Form::Json {
        return Ok(writeln!(out, "{answer:#}")?);
    }
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |stream: &Value| {
        vec![
            cell(&stream["name"]),
            cell(&stream["version"]),
            cell(&stream["created_by"]),
            bytes(&stream["lag_bytes"]),
            bytes(&stream["journal"]["bytes"]),
        ]
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    Ok(out
        .write_all(table(&["name", "version", "created by", "lag", "journal"], &rows).as_bytes())?)
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, |bytes| Size(bytes).to_string())
}

async fn show(server: &Server, name: &str, format: Form) -> anyhow::Result<()> {
    let stream = server.get(&path(name)).await?;
    let mut out = std::io::stdout().lock();
    if format == Form::Json {
        return Ok(writeln!(out, "{stream:#}")?);
    }
    Ok(out.write_all(described(&stream).as_bytes())?)
}

/// A stream for people.
fn described(stream: &Value) -> String {
    let of = |name: &str| cell(&stream[name]);
    let mut text = format!(
        "{}  version {}, created by {}, {}\n\nschema\n",
        of("name"),
        of("version"),
        of("created_by"),
        of("id")
    );
    for line in edit::lines(&of("schema")) {
        text.push_str(&format!("  {line},\n"));
    }
    let trimmed = text.trim_end_matches(",\n").len();
    text.truncate(trimmed);
    if let Some(sql) = stream["transform"].as_str() {
        text.push_str(&format!("\n\ntransform\n  {sql}"));
    }
    if let Some(pattern) = stream["pattern"].as_str() {
        text.push_str(&format!("\n\npattern of text lines\n  {pattern}"));
    }
    let rows = &stream["rows"];
    let n = |name: &str| cell(&rows[name]);
    text.push_str(&format!(
        "\n\nunknown columns: {}; invalid rows: {}; _received_at: {}\n",
        of("unknown"),
        of("on_invalid"),
        of("received_at")
    ));
    text.push_str(&format!(
        "rows: {} received = {} accepted + {} rejected\n      {} stored, {} filtered, {} + {} dead letters, {} in the journal\n",
        n("received"),
        n("accepted"),
        n("rejected"),
        n("stored"),
        n("filtered"),
        n("dead_lettered_at_door"),
        n("dead_lettered"),
        n("in_journal")
    ));
    text.push_str(&format!(
        "lag: {}; journal: {} of {}\ntable: {}\n\nversions\n",
        bytes(&stream["lag_bytes"]),
        bytes(&stream["journal"]["bytes"]),
        bytes(&stream["journal"]["max"]),
        of("table")
    ));
    for version in stream["versions"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let transform =
            version["transform"].as_str().map_or_else(String::new, |sql| format!("  | {sql}"));
        let (number, schema) = (cell(&version["version"]), cell(&version["schema"]));
        text.push_str(&format!("  {number:>3}  {schema}{transform}\n"));
    }
    text
}

fn word(value: &impl ValueEnum) -> Value {
    json!(value.to_possible_value().map(|value| value.get_name().to_owned()))
}

async fn make(create: &Create) -> anyhow::Result<()> {
    let schema = create.schema.read()?.ok_or_else(|| {
        anyhow!(
            "a stream needs a schema: --schema 'sensor TEXT NOT NULL, value DOUBLE', or --schema-file FILE. \
             (To have it inferred, send the first rows to POST /ingest/{})",
            create.name
        )
    })?;
    let mut body = Map::from_iter([("schema".to_owned(), json!(schema))]);
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    if let Some(sql) = &create.transform {
        put("transform", json!(sql));
    }
    if let Some(pattern) = &create.pattern {
        put("pattern", json!(pattern));
    }
    if let Some(unknown) = &create.unknown {
        put("unknown", word(unknown));
    }
    if let Some(on_invalid) = &create.on_invalid {
        put("on_invalid", word(on_invalid));
    }
    if create.no_received_at {
        put("received_at", json!(false));
    }
    let new = [(header::IF_NONE_MATCH, "*")];
    let made = create
        .server
        .call(Method::PUT, &path(&create.name), &new, Some(&Value::Object(body)))
        .await?;
    println!("created {}, version {}", cell(&made["name"]), made["version"]);
    Ok(())
}

/// What a description says that is no setting; everything else is sent back, lest a change of one setting
/// puts another back to its default.
const SHOWN_ONLY: [&str; 9] =
    ["name", "id", "created_by", "version", "table", "journal", "lag_bytes", "versions", "rows"];

fn settings_of(stream: &Value) -> Map<String, Value> {
    let mut settings = stream.as_object().cloned().unwrap_or_default();
    settings.retain(|name, _| !SHOWN_ONLY.contains(&name.as_str()));
    settings
}

async fn change(alter: &Alter) -> anyhow::Result<()> {
    let path = path(&alter.name);
    let now = alter.server.get(&path).await?;
    let edits = Edits {
        add: alter.add.clone(),
        nullable: alter.nullable.clone(),
        add_checks: alter.add_check.clone(),
        drop_checks: alter.drop_check.clone(),
    };
    let written = alter.schema.read()?;
    let transforms = alter.transform.is_some() || alter.no_transform || alter.pattern.is_some();
    let policies = alter.unknown.is_some() || alter.on_invalid.is_some();
    if edits.is_empty() && written.is_none() && !transforms && !policies {
        bail!("nothing to change: see `forebay streams alter --help`");
    }
    let before = cell(&now["schema"]);
    let schema =
        edit::edit(written.as_ref().unwrap_or(&before), &edits).map_err(|why| anyhow!(why))?;
    let mut body = settings_of(&now);
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("schema", json!(schema));
    match &alter.transform {
        Some(sql) => drop(put("transform", json!(sql))),
        None if alter.no_transform => drop(put("transform", Value::Null)),
        None => {}
    }
    if let Some(pattern) = &alter.pattern {
        put("pattern", json!(pattern));
    }
    if let Some(unknown) = &alter.unknown {
        put("unknown", word(unknown));
    }
    if let Some(on_invalid) = &alter.on_invalid {
        put("on_invalid", word(on_invalid));
    }
    let body = Value::Object(body);
    let version = format!("\"{}\"", now["version"]);
    let seen = [(header::IF_MATCH, version.as_str())];
    let altered = alter.server.call(Method::PUT, &path, &seen, Some(&body)).await?;
    if altered["version"] == now["version"] {
        println!("{} is like that already, version {}", alter.name, altered["version"]);
    } else {
        println!("altered {}, version {}", alter.name, altered["version"]);
    }
    Ok(())
}

async fn remove(server: &Server, name: &str, yes: bool, force: bool) -> anyhow::Result<()> {
    let stream = server.get(&path(name)).await?;
    if !yes {
        confirm(&stream, force)?;
    }
    let path = if force { path(name) + "?force=true" } else { path(name) };
    server.call(Method::DELETE, &path, &[], None).await?;
    println!("dropped {name}; its table stays at {}", cell(&stream["table"]));
    Ok(())
}

fn confirm(stream: &Value, force: bool) -> anyhow::Result<()> {
    let name = cell(&stream["name"]);
    if !std::io::stdin().is_terminal() {
        bail!("dropping `{name}` needs --yes where nobody can be asked");
    }
    let lost = match stream["rows"]["in_journal"].as_u64() {
        Some(rows) if force && rows > 0 => format!("; {rows} rows that are not in it yet are lost"),
        _ => String::new(),
    };
    print!("drop {name}? Its table stays at {}{lost} [y/N] ", cell(&stream["table"]));
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    bail!("`{name}` was left as it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_shown_with_its_schema_rows_lag_and_versions() {
        let stream = json!({
            "name": "s", "id": "u", "created_by": "api", "version": 2, "schema": "a INT NOT NULL, b TEXT",
            "unknown": "drop", "on_invalid": "reject", "received_at": true, "transform": "SELECT a FROM s",
            "table": "/lake/s", "lag_bytes": 2048, "journal": {"bytes": 0, "max": 4096},
            "rows": {"received": 5, "accepted": 4, "rejected": 1, "stored": 2, "filtered": 1,
                "dead_lettered": 1, "dead_lettered_at_door": 1, "in_journal": 0},
            "versions": [
                {"version": 2, "schema": "a INT NOT NULL, b TEXT", "transform": "SELECT a FROM s"},
                {"version": 1, "schema": "a INT NOT NULL", "transform": null}
            ]
        });
        let shown = described(&stream);
        let parts = [
            "s  version 2, created by api, u\n\nschema\n  a INT NOT NULL,\n  b TEXT\n\ntransform\n",
            "rows: 5 received = 4 accepted + 1 rejected\n",
            "2 stored, 1 filtered, 1 + 1 dead letters, 0 in the journal\n",
            "lag: 2 KiB; journal: 0 B of 4 KiB\ntable: /lake/s\n",
            "    2  a INT NOT NULL, b TEXT  | SELECT a FROM s\n    1  a INT NOT NULL\n",
        ];
        for part in parts {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }
}
