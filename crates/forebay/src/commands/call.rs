//! Calls of the HTTP API whose answers are JSON: what `streams` and `dead-letters` are made of.

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use forebay_flow::Ctx;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::header::{self, HeaderName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client;

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// The server.
    #[arg(long, env = "FOREBAY_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// As the server gives it.
    Json,
}

impl Server {
    /// One call; an answer without a body is `Null`.
    ///
    /// # Errors
    /// What the server refused, in its own words; or that it cannot be reached.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push((header::CONTENT_TYPE, "application/json"));
        }
        let sent = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let token = std::env::var("FOREBAY_TOKEN").ok();
        let server = client::Server::new(&self.url, token.as_deref())?;
        let mut request = server.request(method, path);
        for (name, value) in all {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(sent))?;
        let (response, _driver) = server.send(&Ctx::root("client"), request).await?;
        let status = response.status();
        let read = response.into_body().collect().await;
        let read = read.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
        if read.is_empty() && status.is_success() {
            return Ok(Value::Null);
        }
        let answer: Value = serde_json::from_slice(&read)
            .map_err(|_| anyhow!("{} answers {status}, and not as Forebay does", self.url))?;
        if !status.is_success() {
            match answer["detail"].as_str() {
                Some(detail) => bail!("{}", clean(detail)),
                None => bail!("the server refused: {status}"),
            }
        }
        Ok(answer)
    }

    /// Without a body.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, &[], None).await
    }
}

/// A text as one segment of a path, or one value of a query string.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Runs a command that talks to a server.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// A text with its control characters escaped: what a client sent cannot speak to the terminal.
pub(super) fn clean(text: &str) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Rows in columns as wide as they need, the last one as long as it is. Control characters are escaped.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| head.to_uppercase()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads)
        .chain(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()))
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A member as a cell: texts without their quotes, nothing for NULL.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_what_was_sent_cannot_speak_to_the_terminal() {
        let rows = vec![vec!["é\u{1b}[2J".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "NAME        N\né\\u{1b}[2J  1\n");
    }

    #[test]
    fn a_value_cannot_leave_its_place_in_a_path() {
        assert_eq!(escaped("a/b?c=1&d"), "a%2Fb%3Fc%3D1%26d");
    }
}
