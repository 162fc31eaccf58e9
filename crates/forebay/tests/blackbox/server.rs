//! A server under test: its directory, its process, and what an operator sees of both.
//!
//! A [`Home`] outlives its servers, as a data directory outlives processes. Dropping a [`Server`] kills it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::scrape::Metrics;
use crate::wait::{PATIENCE, eventually, now, pause};

/// A data directory with its configuration; servers come and go in it.
#[derive(Debug)]
pub(crate) struct Home {
    dir: tempfile::TempDir,
    address: Mutex<Option<SocketAddr>>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Home {
    /// A new directory with this configuration.
    pub(crate) fn new(config: &str) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap(), address: Mutex::new(None) };
        home.configure(config);
        home
    }

    /// Replaces the configuration; the next start reads it.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.dir.path().join("forebay.toml"), config).unwrap();
    }

    /// A path in this directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the server keeps everything.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Where the newest server listens; clients that outlive a server ask again.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap()
    }

    /// The command that starts a server here.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(self.arguments()).env("FOREBAY_FAULTS", "1").env("NO_COLOR", "1");
        command
    }

    /// The arguments of [`Home::command`].
    pub(crate) fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["serve".into(), "--listen".into(), "127.0.0.1:0".into()];
        arguments.push("--config".into());
        arguments.push(self.path("forebay.toml").into());
        arguments.push("--data-dir".into());
        arguments.push(self.data_dir().into());
        arguments
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn start(&self) -> Server {
        self.start_as(self.command())
    }

    /// Starts a server through any command, and waits until it is ready.
    pub(crate) fn start_as(&self, mut command: Command) -> Server {
        let (stdout, stderr) = (self.path("stdout"), self.path("stderr"));
        let child = self.spawn(&mut command);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, address: unknown, stdout, stderr };
        server.address = eventually("the server says where it listens", || {
            server.must_run();
            fs::read_to_string(&server.stdout).ok()?.lines().find_map(listening_on)
        });
        eventually("the server is ready", || {
            server.must_run();
            let answer = Request::get("/readyz").send(server.address).ok()?;
            (answer.status == 200).then_some(())
        });
        *self.address.lock().unwrap() = Some(server.address);
        server
    }

    /// Starts a server without waiting for anything.
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        let stdout = File::create(self.path("stdout")).unwrap();
        let stderr = File::options().create(true).append(true).open(self.path("stderr")).unwrap();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap()
    }
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http://")?;
    rest.split_whitespace().next()?.trim_end_matches('/').parse().ok()
}

impl Server {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Panics with its last words if the process has ended.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the server ended ({status}):\n{}", tail(&self.stderr));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM to the process.
    pub(crate) fn term(&self) {
        term(self.pid());
    }

    /// Waits for the end; panics if it does not come within `limit`.
    pub(crate) fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(now() < deadline, "still running after {limit:?}:\n{}", tail(&self.stderr));
            pause();
        }
    }

    /// SIGTERM, then a clean end: exit 0 and a receipt with nothing lost. Returns the receipt.
    pub(crate) fn stop(self) -> Value {
        self.term();
        self.stop_after_term()
    }

    /// As [`Server::stop`], where SIGTERM was sent before.
    pub(crate) fn stop_after_term(mut self) -> Value {
        let status = self.exit_within(PATIENCE);
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", tail(&self.stderr));
        self.receipt()
    }

    /// The receipt: the last line on stdout.
    pub(crate) fn receipt(&self) -> Value {
        let stdout = fs::read_to_string(&self.stdout).unwrap();
        let line = stdout.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("the last line is no receipt ({error}): {line}"));
        assert_eq!(value["receipt"]["lost"], json!(0), "F10: {line}");
        value["receipt"].clone()
    }

    /// POSTs a body of NDJSON.
    pub(crate) fn ingest(&self, stream: &str, body: &str) -> Answer {
        self.ingest_as(stream, "application/x-ndjson", body.as_bytes())
    }

    /// POSTs a body; `stream` may carry a query string.
    pub(crate) fn ingest_as(&self, stream: &str, content_type: &str, body: &[u8]) -> Answer {
        let path = format!("/ingest/{stream}");
        Request::post(&path, content_type, body).send(self.address).unwrap()
    }

    /// Runs SQL; panics with the answer unless it succeeds. One string per field, rows without a header.
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<String>> {
        let body = json!({"sql": sql, "timeout_ms": 60_000}).to_string();
        let request = Request::post("/api/v1/query", "application/json", body.as_bytes());
        let answer = request.header("Accept", "text/csv").send(self.address).unwrap();
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        let fields = |line: &str| line.split(',').map(str::to_owned).collect();
        answer.text().lines().skip(1).map(fields).collect()
    }

    /// Runs SQL that answers with one number.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        let rows = self.query(sql);
        let field = rows.first().and_then(|row| row.first());
        field.and_then(|field| field.parse().ok()).unwrap_or_else(|| panic!("{sql}: {rows:?}"))
    }

    /// The ledger's row of a stream, once there is one.
    pub(crate) fn ledger(&self, stream: &str) -> Option<Value> {
        let answer = Request::get("/api/v1/ledger").send(self.address).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json().as_array().unwrap().iter().find(|row| row["stream"] == stream).cloned()
    }

    /// Waits until nothing of the stream is left in the journal; F6 must hold then. Returns the ledger.
    pub(crate) fn drained(&self, stream: &str) -> Value {
        let row = eventually(&format!("every row of `{stream}` is in its table"), || {
            let left =
                |row: &Value| [row["in_journal"].clone(), row["rejected_in_journal"].clone()];
            self.ledger(stream).filter(|row| left(row) == [json!(0), json!(0)])
        });
        assert_eq!(row["difference"], json!(0), "F6: {row}");
        row
    }

    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = Request::get("/metrics").send(self.address).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// How many file descriptors the process has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail once it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("the server's last words:\n{}", tail(&self.stderr));
        }
    }
}

/// SIGTERM to any process.
pub(crate) fn term(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
