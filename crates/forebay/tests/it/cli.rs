//! The program from outside: commands, refusals to start, and the end by signals.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) fn forebay(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    forebay(dir).args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server of its own, killed with the test.
pub(crate) struct Served {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    pub(crate) url: String,
}

impl Served {
    pub(crate) fn start(dir: &Path) -> Served {
        let mut child = forebay(dir)
            .env("FOREBAY_FAULTS", "1")
            .args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Served { child, out, url }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code, and what was left on stdout.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn check_prints_the_memory_sum_and_the_queue_table() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forebay.toml"), "[memory]\nbudget = \"64MiB\"\n").unwrap();
    let output = run(dir.path(), &["check"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in
        ["intake", "decode", "lanes", "query", "connections", "total", "validate", "lake", "block"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn a_wrong_setting_ends_the_start_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forebay.toml"), "[http]\ndedline = \"3s\"\n").unwrap();
    for command in ["check", "serve"] {
        let output = run(dir.path(), &[command]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            text(&output.stderr),
            "forebay: forebay.toml:2:1: unknown setting `dedline`; did you mean `deadline`?\n"
        );
    }
}

#[test]
fn a_port_or_a_directory_in_use_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(dir.path(), &["--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the port is in use"), "{}", text(&output.stderr));

    let served = Served::start(dir.path());
    let output = run(dir.path(), &["--data-dir", "data", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("in use by another"), "{}", text(&output.stderr));
    drop(served);
}

#[test]
fn f10_sigterm_drains_and_the_last_line_is_the_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let query = ["query", "--url", &served.url, "SELECT 1 AS n"];
    assert_eq!(text(&run(dir.path(), &query).stdout), "{\"n\":1}\n");
    served.signal(Signal::TERM);
    let (code, rest) = served.end();
    assert_eq!(code, Some(0), "{rest}");
    let receipt: serde_json::Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(receipt["receipt"]["lost"], 0);
    assert_eq!(receipt["receipt"]["left_in_journal"], 0);

    let offline =
        run(dir.path(), &["query", "--data-dir", "data", "--format", "csv", "SELECT 2 AS n"]);
    assert_eq!(text(&offline.stdout), "n\n2\n", "{}", text(&offline.stderr));
}

#[test]
fn a_query_without_a_server_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["query", "--url", "http://127.0.0.1:1", "SELECT 1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is `forebay serve` running?"));
}

/// A server whose sink never answers, with one durable row.
fn stalled(dir: &Path, drain: &str) -> Served {
    let settings = format!("[faults]\nstall_sinks = [\"s\"]\n[drain]\ndeadline = \"{drain}\"\n");
    std::fs::write(dir.join("forebay.toml"), settings).unwrap();
    let served = Served::start(dir);
    let address = served.url.strip_prefix("http://").unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket
        .write_all(b"POST /ingest/s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{\"a\":1}\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    served
}

#[test]
fn f10_what_cannot_be_drained_in_time_stays_in_the_journal_and_the_exit_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let served = stalled(dir.path(), "600ms");
    served.signal(Signal::TERM);
    let (code, rest) = served.end();
    assert_eq!(code, Some(0), "{rest}");
    let receipt: serde_json::Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    let receipt = &receipt["receipt"];
    assert_eq!((receipt["left_in_journal"].as_u64(), receipt["lost"].as_u64()), (Some(1), Some(0)));
    assert!(receipt["seconds"].as_f64().unwrap() <= 0.7, "{receipt}");
}

#[test]
fn f1_a_second_signal_ends_at_once_and_the_row_is_there_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let served = stalled(dir.path(), "1h");
    served.signal(Signal::TERM);
    // Not ready: the first signal has been seen, so the next one is the second.
    while !text(&run(dir.path(), &["query", "--url", &served.url, "SELECT 1"]).stderr)
        .contains("shutting down")
    {}
    served.signal(Signal::TERM);
    let (code, rest) = served.end();
    assert_eq!(code, Some(128 + 15));
    assert!(!rest.contains("receipt"), "{rest}");

    std::fs::remove_file(dir.path().join("forebay.toml")).unwrap();
    let served = Served::start(dir.path());
    let count = ["query", "--url", &served.url, "SELECT count(*) AS n FROM s"];
    while text(&run(dir.path(), &count).stdout) != "{\"n\":1}\n" {}
}

#[test]
fn a_stdout_that_nobody_reads_does_not_hold_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    rustix::io::ioctl_fionbio(&filler, true).unwrap();
    while filler.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&filler, false).unwrap();
    drop(filler);
    let mut child = forebay(dir.path())
        .args(["--data-dir", "data", "--listen", "127.0.0.1:0"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"serving\"") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(reader);
}
