//! `forebay send`: files of any size into streams, each byte once.
//!
//! ```text
//! files ─► settle ─► items ─► workers ── HEAD: how far is it? ─► POST the rest ─► verdict
//!                                  └──────── wait, ask again ◄──────┘
//! ```
//!
//! An upload's `Idempotency-Key` is made of the file's path, size and time, so that the same command
//! goes on where the last run was cut and adds nothing where it was not. It keeps no state of its own:
//! the server says how far it is.

mod answer;
mod attempt;
mod files;
mod input;
mod report;
mod transfer;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use forebay_flow::{Cause, Ctx, Scope, clock};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::attempt::Upload;
use self::files::{Form, Item, Place};
use self::input::Input;
use self::report::Report;
use self::transfer::Verdict;
use super::client::Server;

/// How long a stopped run waits for its tasks, and for the server to say how far it is.
const GOODBYE: Duration = Duration::from_secs(2);

/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// `forebay send`
#[derive(Debug, Args)]
pub struct SendFiles {
    /// Files, patterns of files ('logs/*.ndjson.gz'), or - for stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The stream; by default the file's name without its extensions.
    #[arg(long, short)]
    stream: Option<String>,
    /// The server.
    #[arg(long, env = "FOREBAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The token that the server wants.
    #[arg(long, env = "FOREBAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The format; by default told by the extension: .csv .tsv .ndjson .jsonl .json .log .txt, each
    /// also with .gz or .zst.
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// CSV: the text that stands for no value.
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// CSV: the byte between fields, for example ';' or tab.
    #[arg(long, value_name = "BYTE")]
    delimiter: Option<String>,
    /// Text: the pattern of a line, by its name or as a regular expression with named groups.
    #[arg(long)]
    pattern: Option<String>,
    /// How many files are sent at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// When a file counts as sent.
    #[arg(long, value_enum, default_value = "durable")]
    ack: Level,
    /// The Idempotency-Key; by default made of the file's path, size and time. Under the same key
    /// the same bytes are stored once.
    #[arg(long)]
    key: Option<String>,
    /// How often a broken connection is tried again without progress.
    #[arg(long, value_name = "N", default_value_t = 10)]
    retries: u32,
    /// Ends with an error if a row was rejected.
    #[arg(long)]
    fail_on_rejected: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// In the server's memory.
    Received,
    /// Fsynced in its journal.
    Durable,
    /// In the table.
    Stored,
}

impl SendFiles {
    /// The parameters of the query string that say how the body is read, encoded.
    fn reading(&self) -> String {
        let given = [
            ("null", self.null.as_deref()),
            ("delimiter", self.delimiter.as_deref()),
            ("pattern", self.pattern.as_deref()),
        ];
        let mut text = String::new();
        for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            text.extend(["&", name, "="]);
            text.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        text
    }

    /// The query string.
    fn query(&self) -> String {
        let ack = match self.ack {
            Level::Received => "received",
            Level::Durable => "durable",
            Level::Stored => "stored",
        };
        format!("?ack={ack}{}", self.reading())
    }
}

/// What became of one item.
#[derive(Debug)]
struct Outcome {
    item: Item,
    /// `None`: it was not tried.
    verdict: Option<Verdict>,
    /// Handed to connections in this run.
    bytes: u64,
    took: Duration,
}

/// What the workers share.
#[derive(Debug)]
struct Run {
    server: Server,
    parameters: String,
    retries: u32,
    report: Arc<Report>,
    /// The server has answered.
    met: AtomicBool,
    /// What failed would fail for every other item.
    hopeless: AtomicBool,
    waiting: Mutex<VecDeque<Item>>,
    done: Mutex<Vec<Outcome>>,
}

/// Runs it.
///
/// # Errors
/// What the command line asks for makes no sense; nothing was sent then.
pub fn send(send: &SendFiles) -> anyhow::Result<ExitCode> {
    let items = files::settle(send)?;
    let server = Server::new(&send.url, send.token.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(send, server, items));
    // A read of stdin cannot be cancelled.
    runtime.shutdown_background();
    code
}

async fn run(send: &SendFiles, server: Server, items: Vec<Item>) -> anyhow::Result<ExitCode> {
    let began = clock::now();
    let workers = items.len().min(usize::from(send.parallel));
    let run = Arc::new(Run {
        server,
        parameters: send.query(),
        retries: send.retries,
        report: Arc::new(Report::new()),
        met: AtomicBool::new(false),
        hopeless: AtomicBool::new(false),
        waiting: Mutex::new(items.into()),
        done: Mutex::default(),
    });
    let scope = Scope::new(&Ctx::root("send"), "files");
    for _ in 0..workers {
        let (run, ctx) = (Arc::clone(&run), scope.ctx().clone());
        scope.spawn("file", async move {
            while let Some(item) = run.next() {
                run.one(&ctx, item).await;
            }
        });
    }
    let interrupted = tokio::select! {
        () = scope.ctx().idle() => false,
        heard = tokio::signal::ctrl_c() => heard.is_ok(),
    };
    if interrupted {
        run.report.say("stopping; Ctrl-C again ends at once");
        scope.ctx().cancel(Cause::Shutdown);
        tokio::select! {
            _abandoned = scope.finish(clock::now() + 2 * GOODBYE) => {}
            _again = tokio::signal::ctrl_c() => std::process::exit(INTERRUPTED.into()),
        }
    }
    let mut outcomes = std::mem::take(&mut *run.done.lock());
    for item in run.waiting.lock().drain(..) {
        outcomes.push(Outcome { item, verdict: None, bytes: 0, took: Duration::ZERO });
    }
    report::summary(&outcomes, began.elapsed())?;
    Ok(exit_code(&outcomes, interrupted, send.fail_on_rejected))
}

fn exit_code(outcomes: &[Outcome], interrupted: bool, fail_on_rejected: bool) -> ExitCode {
    let holds = |outcome: &Outcome| match &outcome.verdict {
        Some(Verdict::Sent { rows, .. }) => rows.rejected == 0 || !fail_on_rejected,
        Some(Verdict::Failed { .. }) | None => false,
    };
    match outcomes.iter().all(holds) {
        true => ExitCode::SUCCESS,
        false if interrupted => ExitCode::from(INTERRUPTED),
        false => ExitCode::FAILURE,
    }
}

impl Run {
    fn next(&self) -> Option<Item> {
        if self.hopeless.load(Ordering::Relaxed) {
            return None;
        }
        self.waiting.lock().pop_front()
    }

    async fn one(&self, ctx: &Ctx, item: Item) {
        let began = clock::now();
        let line = self.report.line(&item);
        let verdict = match self.input(&item) {
            Ok(input) => {
                let (server, parameters) = (&self.server, self.parameters.as_str());
                let upload = Upload { ctx, server, item: &item, input, parameters, line: &line };
                self.upload(upload).await
            }
            Err(error) => {
                let why = format!("cannot read it: {error}");
                Verdict::Failed { why, standing: None, everyone: false }
            }
        };
        let (bytes, took) = (line.sent(), began.elapsed());
        let outcome = Outcome { item, verdict: Some(verdict), bytes, took };
        line.ends(&outcome);
        self.done.lock().push(outcome);
    }

    fn input(&self, item: &Item) -> std::io::Result<Input> {
        match &item.place {
            Place::File(path, identity) => {
                Ok(Input::File { path: path.clone(), size: identity.size })
            }
            Place::Stdin => {
                let key = &item.key;
                self.report.say(&format!("after a cut, send the same bytes with --key {key}"));
                Input::stdin()
            }
        }
    }

    async fn upload(&self, upload: Upload<'_>) -> Verdict {
        let met = |now: bool| self.met.fetch_or(now, Ordering::Relaxed) || now;
        let verdict = match upload.ctx.run(upload.run(self.retries, met)).await {
            Ok(verdict) => verdict,
            Err(_stopped) => stopped(&upload).await,
        };
        if matches!(verdict, Verdict::Failed { everyone: true, .. }) {
            self.hopeless.store(true, Ordering::Relaxed);
        }
        verdict
    }
}

/// The verdict after Ctrl-C: how far the server has it.
async fn stopped(upload: &Upload<'_>) -> Verdict {
    let standing = match tokio::time::timeout(GOODBYE, upload.standing()).await {
        Ok(Ok(Ok(standing))) => standing,
        _ => None,
    };
    Verdict::Failed { why: "stopped".to_owned(), standing, everyone: false }
}
