//! `forebay query`: on a server by URL, or on a data directory that no server uses.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use forebay_flow::Ctx;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{client, load};
use crate::api::{self, AnswerFormat};
use crate::cli::Settings;

/// `forebay query`
#[derive(Debug, Args)]
pub struct Query {
    /// The SQL; each stream is a table of its name.
    sql: String,
    /// The server; not used with --data-dir.
    #[arg(long, env = "FOREBAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The form of the answer.
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

impl From<Form> for AnswerFormat {
    fn from(form: Form) -> AnswerFormat {
        match form {
            Form::Json => AnswerFormat::Json,
            Form::Ndjson => AnswerFormat::Ndjson,
            Form::Csv => AnswerFormat::Csv,
            Form::Arrow => AnswerFormat::Arrow,
        }
    }
}

/// Runs it.
pub fn query(query: &Query, settings: &Settings) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &settings.data_dir {
            Some(dir) => offline(query, settings, dir).await,
            None => online(query).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn online(query: &Query) -> anyhow::Result<()> {
    let accept = AnswerFormat::from(query.format).content_type();
    let sql = Bytes::from(query.sql.clone());
    let (mut response, _driver) =
        client::post(&query.url, "/api/v1/query", "text/plain", accept, sql).await?;
    if !response.status().is_success() {
        let body = response.into_body().collect().await?.to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        bail!("{}", problem["detail"].as_str().unwrap_or("the server refused the query"));
    }
    let mut out = std::io::stdout().lock();
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(|error| anyhow!("the answer broke off: {error}"))?;
        if let Some(piece) = frame.data_ref() {
            out.write_all(piece)?;
        }
    }
    Ok(out.flush()?)
}

async fn offline(query: &Query, settings: &Settings, dir: &Path) -> anyhow::Result<()> {
    if !dir.is_dir() {
        bail!("there is no data directory {}", dir.display());
    }
    let config = load(settings)?.config;
    let ctx = Ctx::root("query");
    let registry = prometheus::Registry::new();
    let telemetry = Arc::new(api::Telemetry::new(&registry)?);
    let engine = api::open(&ctx, &config, telemetry).await.map_err(|error| anyhow!(error))?;
    let broken = |failure: api::QueryFailure| anyhow!(failure.message);
    let mut answer = api::query(&engine, &query.sql, config.query_timeout, query.format.into())
        .await
        .map_err(broken)?;
    let mut out = std::io::stdout().lock();
    while let Some(piece) = answer.next().await.map_err(broken)? {
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}
