//! `forebay dead-letters list|show|redrive`: on a server by URL; `list` and `show` also on a data directory
//! that no server uses.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use forebay_flow::Ctx;
use hyper::Method;
use serde_json::{Value, json};

use super::call::{Form, Server, block_on, cell, escaped, table};
use super::load;
use crate::api::letters::{self, LIST_MAX, LettersFailure, ListRequest};
use crate::api::{self, Engine};
use crate::cli::Settings;

/// Letters of one redrive's request.
const REDRIVE_PAGE: usize = 1000;
/// Ids of one redrive's request.
const IDS: usize = 10_000;
/// Refusals that are printed.
const REFUSALS: usize = 10;

/// `forebay dead-letters`
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Lists refused rows, newest first.
    #[command(
        after_help = "Examples:\n  forebay dead-letters list --stream flights\n  forebay dead-letters list --code type_mismatch --limit 1000 --format ndjson\n  forebay dead-letters list --data-dir forebay-data"
    )]
    List(List),
    /// Shows one, whole: its bytes, why it was refused, how it is read.
    #[command(
        after_help = "Example:\n  forebay dead-letters show 7f5c1d8e-2a41-4c53-9d0f-6b1f0d1f7a10:4096:17"
    )]
    Show {
        /// Its id, as `list` prints it.
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Sends refused rows again, through the checks of their stream as it is now. Rows that were accepted
    /// before are never added twice.
    #[command(
        after_help = "Examples:\n  forebay dead-letters redrive --stream flights\n  forebay dead-letters redrive --stream flights --code check --limit 100"
    )]
    Redrive(Redrive),
}

/// `forebay dead-letters list`
#[derive(Debug, Args)]
pub struct List {
    /// Only those sent to this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Only those refused for this reason: type_mismatch, not_null, check, …
    #[arg(long)]
    code: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The form of the answer.
    #[arg(long, value_enum, default_value = "text")]
    format: ListForm,
    #[command(flatten)]
    server: Server,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ListForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Ndjson,
}

/// `forebay dead-letters redrive`
#[derive(Debug, Args)]
pub struct Redrive {
    /// These, as `list` prints them; without any, all of the stream.
    ids: Vec<String>,
    /// The stream they were sent to, and go to now.
    #[arg(long)]
    stream: String,
    /// Only those refused for this reason.
    #[arg(long)]
    code: Option<String>,
    /// Tries at most so many.
    #[arg(long)]
    limit: Option<usize>,
    /// The form of the answer.
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
    #[command(flatten)]
    server: Server,
}

/// Runs it.
pub fn dead_letters(command: &DeadLetters, settings: &Settings) -> anyhow::Result<ExitCode> {
    match command {
        DeadLetters::List(list) => block_on(show_list(list, settings))?,
        DeadLetters::Show { id, server } => block_on(show_one(id, server, settings))?,
        DeadLetters::Redrive(redrive) => block_on(again(redrive))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where letters are looked up.
enum Source<'a> {
    Server(&'a Server),
    Dir(Engine),
}

impl<'a> Source<'a> {
    /// A data directory where the settings name one, opened under `ctx`.
    async fn open(
        ctx: &Ctx,
        server: &'a Server,
        settings: &Settings,
    ) -> anyhow::Result<Source<'a>> {
        let Some(dir) = &settings.data_dir else { return Ok(Source::Server(server)) };
        if !dir.is_dir() {
            bail!("there is no data directory {}", dir.display());
        }
        let config = load(settings)?.config;
        let telemetry = Arc::new(api::Telemetry::new(&prometheus::Registry::new())?);
        let engine = api::open(ctx, &config, telemetry).await.map_err(|error| anyhow!(error))?;
        Ok(Source::Dir(engine))
    }

    async fn list(&self, request: ListRequest) -> anyhow::Result<Value> {
        match self {
            Source::Server(server) => server.get(&list_path(&request)).await,
            Source::Dir(engine) => letters::list(engine, request).await.map_err(told),
        }
    }

    async fn show(&self, id: &str) -> anyhow::Result<Value> {
        match self {
            Source::Server(server) => {
                server.get(&format!("/api/v1/dead-letters/{}", escaped(id))).await
            }
            Source::Dir(engine) => letters::show(engine, id).await.map_err(told),
        }
    }
}

fn told(failure: LettersFailure) -> anyhow::Error {
    anyhow!(failure.message)
}

async fn show_one(id: &str, server: &Server, settings: &Settings) -> anyhow::Result<()> {
    let ctx = Ctx::root("dead-letters");
    let letter = Source::open(&ctx, server, settings).await?.show(id).await?;
    Ok(writeln!(std::io::stdout().lock(), "{letter:#}")?)
}

async fn show_list(list: &List, settings: &Settings) -> anyhow::Result<()> {
    let ctx = Ctx::root("dead-letters");
    let source = Source::open(&ctx, &list.server, settings).await?;
    let (mut left, mut after) = (list.limit, None);
    let mut shown = Vec::new();
    while left > 0 {
        let request = ListRequest {
            stream: list.stream.clone(),
            code: list.code.clone(),
            limit: Some(left.min(LIST_MAX)),
            after: after.take(),
        };
        let answer = source.list(request).await?;
        let letters = answer["letters"].as_array().cloned().unwrap_or_default();
        left = left.saturating_sub(letters.len());
        match list.format {
            ListForm::Ndjson => {
                let mut out = std::io::stdout().lock();
                letters.iter().try_for_each(|letter| writeln!(out, "{letter}"))?;
            }
            ListForm::Text => shown.extend(letters),
        }
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    if list.format == ListForm::Text {
        std::io::stdout().lock().write_all(listed(&shown).as_bytes())?;
    }
    Ok(())
}

fn list_path(request: &ListRequest) -> String {
    let limit = request.limit.map(|limit| limit.to_string());
    let members = [
        ("stream", &request.stream),
        ("code", &request.code),
        ("limit", &limit),
        ("after", &request.after),
    ];
    let written = members.into_iter().filter_map(|(name, value)| {
        value.as_ref().map(|value| format!("{name}={}", escaped(value)))
    });
    format!("/api/v1/dead-letters?{}", written.collect::<Vec<_>>().join("&"))
}

/// Letters for people.
fn listed(letters: &[Value]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let row = |letter: &Value| {
        let redriven = if letter["redriven_at"].is_null() { "" } else { " (redriven)" };
        vec![
            cell(&letter["received_at"]),
            cell(&letter["stream"]),
            cell(&letter["code"]) + redriven,
            cell(&letter["column"]),
            cell(&letter["message"]),
            cell(&letter["id"]),
        ]
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    table(&["received", "stream", "code", "column", "message", "id"], &rows)
}

/// What several requests came to.
#[derive(Default)]
struct Sum {
    accepted: u64,
    refused: u64,
    already: u64,
    unknown: u64,
    errors: Vec<Value>,
}

impl Sum {
    fn add(&mut self, answer: &Value, first: bool) {
        let n = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.accepted += n("accepted");
        self.refused += n("refused");
        // Each page of one selection counts the same ones.
        if first {
            self.already += n("already_redriven");
        }
        self.unknown += n("unknown");
        let errors = answer["errors"].as_array().cloned().unwrap_or_default();
        let room = 100_usize.saturating_sub(self.errors.len());
        self.errors.extend(errors.into_iter().take(room));
    }
}

async fn again(redrive: &Redrive) -> anyhow::Result<()> {
    let mut sum = Sum::default();
    let path = "/api/v1/dead-letters/redrive";
    let send = async |body: Value| redrive.server.call(Method::POST, path, &[], Some(&body)).await;
    for ids in redrive.ids.chunks(IDS) {
        let body = json!({"stream": redrive.stream, "code": redrive.code, "ids": ids});
        sum.add(&send(body).await?, true);
    }
    let mut left = redrive.limit.unwrap_or(usize::MAX);
    let (mut after, mut first) = (Value::Null, true);
    while redrive.ids.is_empty() && left > 0 {
        let page = left.min(REDRIVE_PAGE);
        let body =
            json!({"stream": redrive.stream, "code": redrive.code, "limit": page, "after": after});
        let answer = send(body).await?;
        sum.add(&answer, first);
        first = false;
        left -= page;
        after = answer["next"].clone();
        if after.is_null() {
            break;
        }
    }
    let mut out = std::io::stdout().lock();
    if redrive.format == Form::Json {
        let Sum { accepted, refused, already, unknown, errors } = sum;
        let all = json!({"stream": redrive.stream, "accepted": accepted, "refused": refused,
            "already_redriven": already, "unknown": unknown, "errors": errors});
        return Ok(writeln!(out, "{all:#}")?);
    }
    Ok(out.write_all(summary(&sum).as_bytes())?)
}

fn summary(sum: &Sum) -> String {
    let mut text = format!(
        "{} accepted, {} still refused, {} redriven before\n",
        sum.accepted, sum.refused, sum.already
    );
    if sum.unknown > 0 {
        text.push_str(&format!("{} ids are no dead letters of this stream\n", sum.unknown));
    }
    let row = |error: &Value| {
        vec![
            cell(&error["code"]),
            cell(&error["column"]),
            cell(&error["message"]),
            cell(&error["id"]),
        ]
    };
    let rows: Vec<_> = sum.errors.iter().take(REFUSALS).map(row).collect();
    if !rows.is_empty() {
        text.push_str(&table(&["code", "column", "message", "id"], &rows));
    }
    if sum.refused as usize > rows.len() {
        text.push_str(&format!("and {} more\n", sum.refused as usize - rows.len()));
    }
    text
}
