//! The life of the server: open, serve, drain, receipt, exit code.
//!
//! ```text
//! settings ─► log ─► open (recovery) ─► root supervisor [pipeline, http] ─► signal
//!   ─► not ready ─► requests answered ─► lanes drained ─► http stops ─► pipeline stops ─► receipt
//! ```
//!
//! Owns the runtime, the root supervisor and stdout. Whatever it waits for while it ends is bounded
//! by the drain's deadline.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forebay_flow::supervise::{Child, ExitReport, GaveUp, Shutdown, Strategy, Supervisor};
use forebay_flow::{Cause, Ctx, Instant, Task, clock, thread};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{self, Engine, Receipt, Telemetry};
use crate::cli::Settings;
use crate::commands;
use crate::config::Config;
use crate::config::memory::Sum;
use crate::http::{self, App};
use crate::telemetry::watch::Watch;
use crate::telemetry::{self, http::Metrics, start_log};

/// Kept of the drain's deadline for what follows the lanes: stopping, the receipt, the exit.
const RESERVE: Duration = Duration::from_millis(500);
/// Threads of the runtime for what a library blocks on by itself: name lookup, and the readers of tables.
const BLOCKING_THREADS: usize = 16;
/// How long stdout may block the receipt.
const STDOUT: Duration = Duration::from_secs(1);

/// Serves until a signal or a failure; the result is the exit code.
pub fn run(settings: &Settings) -> ExitCode {
    let loaded = match commands::load(settings) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&format!("{error:#}")),
    };
    let log = match start_log(std::env::var("FOREBAY_LOG").ok().as_deref()) {
        Ok(log) => log,
        Err(error) => return refuse(&error),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("io")
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("the runtime cannot start: {error}")),
    };
    let outcome = runtime.block_on(Box::pin(life(loaded.config, &log)));
    // A thread that is stuck in a write must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            drop(log);
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &str) -> ExitCode {
    // Not `eprintln!`: it panics where stderr is closed.
    for line in error.lines() {
        drop(writeln!(std::io::stderr(), "forebay: {line}"));
    }
    ExitCode::FAILURE
}

fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the file limit could not be raised");
    }
}

async fn life(config: Config, log: &telemetry::Log) -> Result<(), String> {
    let mut signals = Signals::listen()?;
    let config = Arc::new(config);
    // The cheapest refusal first: a taken port needs no recovery.
    let listener = Arc::new(http::bind(config.listen)?);
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    for line in Sum::of(&config).to_string().lines() {
        tracing::info!("memory {}", line.trim());
    }
    let registry = prometheus::Registry::new();
    let failed = |error: prometheus::Error| format!("the metrics cannot be registered: {error}");
    telemetry::register(&registry, log).map_err(failed)?;
    let metrics = Metrics::new(&registry).map_err(failed)?;
    let pipeline = Arc::new(Telemetry::new(&registry).map_err(failed)?);

    let ctx = Ctx::root("forebay");
    let watch = Watch::start(&ctx);
    registry.register(Box::new(watch.collector().map_err(failed)?)).map_err(failed)?;
    let engine = api::open(&ctx, &config, Arc::clone(&pipeline)).await?;
    telemetry::register_pools(&registry, &engine).map_err(failed)?;
    let app = App::new(engine.clone(), Arc::clone(&config), registry, pipeline, metrics);
    // The tree has a context of its own: it is stopped before the pools that it works with.
    let tree = ctx.child("tree");
    let mut root = supervise(&tree, &engine, &watch, Arc::clone(&app), listener)?;

    // A drain before the first line of stdout is still a drain: the signals are listened to already.
    print(&ctx, greeting(&config, address)).await;
    tracing::info!(%address, data_dir = %config.data_dir.display(), "serving");
    let signal = tokio::select! {
        signal = signals.next() => signal,
        gave_up = &mut root => return Err(end_of(gave_up)),
        why = engine.failed() => {
            tree.cancel(Cause::Shutdown);
            return Err(format!("a journal failed, and only a restart can look into it: {why}"));
        }
    };
    tracing::info!(signal = signal.name, "draining");
    let receipt = tokio::select! {
        receipt = Box::pin(drain(&config, &app, &engine, &tree, root)) => receipt?,
        second = signals.next() => {
            // F1: what was acknowledged is fsynced already, so nothing is lost by ending at once.
            tracing::warn!(signal = second.name, "ending at once");
            std::process::exit(second.exit_code());
        }
    };
    ctx.cancel(Cause::Shutdown);
    print(&ctx, receipt_line(&receipt)).await;
    Ok(())
}

/// The tree: pipeline first and last, http on top of it, and on the side what looks at all tasks.
fn supervise(
    tree: &Ctx,
    engine: &Engine,
    watch: &Watch,
    app: Arc<App>,
    listener: Arc<tokio::net::TcpListener>,
) -> Result<Task<Result<(), GaveUp>>, String> {
    let pipeline = engine.supervisor().ok_or("the pipeline was started twice")?;
    let serve =
        Child::new("http", move |ctx| http::serve(ctx, Arc::clone(&app), Arc::clone(&listener)));
    let root = Supervisor::new("root", Strategy::RestForOne)
        .on_exit(log_exit)
        .child(pipeline)
        .child(
            serve
                .ready_within(Duration::from_secs(60))
                .shutdown(Shutdown::Deadline(Duration::from_secs(5))),
        )
        .child(watch.child());
    Ok(tree.spawn("root", root.run(tree.clone())))
}

fn log_exit(report: &ExitReport) {
    if report.will_restart {
        tracing::warn!(
            supervisor = report.supervisor,
            child = report.child,
            reason = %report.reason,
            restarts = report.restarts,
            "a child ended and is restarted"
        );
    }
}

fn end_of(ended: Result<Result<(), GaveUp>, forebay_flow::TaskError>) -> String {
    match ended {
        Ok(Ok(())) => "the supervisor ended without being asked".to_owned(),
        Ok(Err(gave_up)) => format!("the supervisor gave up: {gave_up}"),
        Err(error) => format!("the supervisor {error}"),
    }
}

/// F10: answers what is in flight, drains the lanes, stops the tree, closes the journals.
async fn drain(
    config: &Config,
    app: &App,
    engine: &Engine,
    tree: &Ctx,
    root: Task<Result<(), GaveUp>>,
) -> Result<Receipt, String> {
    let began = clock::now();
    let end = began + config.drain_deadline;
    let lanes_end = end - RESERVE.min(config.drain_deadline / 4);
    app.begin_drain();
    engine.stop_admitting();
    // Uploads get half of the time; a slow client must not take all of it from the lanes.
    let cut = app.settled(began + config.drain_deadline / 2).await;
    if cut > 0 {
        tracing::warn!(requests = cut, "requests were still in flight and are cut");
    }
    let mut receipt = engine.drain(lanes_end).await;
    tree.cancel(Cause::Shutdown);
    bounded(end, "the supervision tree", root).await;
    bounded(end, "the journals", engine.close()).await;
    receipt.seconds = began.elapsed().as_secs_f64();
    Ok(receipt)
}

/// Waits for `work`, but not past `end`: what is durable needs no orderly close.
async fn bounded<T>(end: Instant, what: &str, work: impl Future<Output = T>) {
    if tokio::time::timeout_at(end, work).await.is_err() {
        tracing::warn!("{what} did not stop within the drain's deadline");
    }
}

fn receipt_line(receipt: &Receipt) -> String {
    let receipt = json!({ "receipt": {
        "stored": receipt.stored,
        "left_in_journal": receipt.left_in_journal,
        "lost": receipt.lost,
        "seconds": (receipt.seconds * 1000.0).round() / 1000.0,
    }});
    format!("{receipt}\n")
}

/// Three lines to try, after the one that says where.
fn greeting(config: &Config, address: std::net::SocketAddr) -> String {
    let url = format!("http://{address}");
    let lake = config.data_dir.join("lake/hello");
    format!(
        "listening on {url}\n\
         try   curl {url}/ingest/hello -H 'Content-Type: application/x-ndjson' -d '{{\"id\": 1, \"name\": \"ada\"}}'\n\
         then  curl {url}/api/v1/query -d 'SELECT * FROM hello'\n\
         and   the Delta table is at {}, for DuckDB, Spark, pandas or Polars\n",
        lake.display()
    )
}

/// Writes to stdout without letting a pipe that nobody reads hold the process.
async fn print(ctx: &Ctx, text: String) {
    let write = thread::spawn(ctx, "stdout", move |_| {
        let mut out = std::io::stdout().lock();
        // A closed stdout is the reader's choice.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    });
    let Ok(write) = write else {
        tracing::warn!("no thread could be started for stdout; its text was given up");
        return;
    };
    if tokio::time::timeout(STDOUT, write.join()).await.is_err() {
        tracing::warn!("stdout is not read; its text was given up");
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    name: &'static str,
    number: i32,
}

impl Received {
    /// As a shell reports an end by signal.
    fn exit_code(self) -> i32 {
        128 + self.number
    }
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("no signal handler: {error}"));
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.term.recv() => Received { name: "SIGTERM", number: 15 },
            _ = self.int.recv() => Received { name: "SIGINT", number: 2 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_the_receipt_is_one_line_in_rows() {
        let receipt = Receipt { stored: 12, left_in_journal: 3, lost: 0, seconds: 0.123_456 };
        assert_eq!(
            receipt_line(&receipt),
            "{\"receipt\":{\"stored\":12,\"left_in_journal\":3,\"lost\":0,\"seconds\":0.123}}\n"
        );
    }
}
