//! The server under measurement: its process, and what the kernel and its own ledger say of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::load;
use crate::shell::now;

/// What Linux counts process time in, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// A stream with the sample's columns, as an operator would declare it.
const SCHEMA: &str = r#"
schema = """
  year INT NOT NULL, month INT NOT NULL CHECK (month BETWEEN 1 AND 12), day INT NOT NULL,
  dep_time INT, sched_dep_time INT, dep_delay DOUBLE, arr_time INT, sched_arr_time INT,
  arr_delay DOUBLE, carrier TEXT NOT NULL CHECK (length(carrier) = 2), flight INT, tailnum TEXT,
  origin TEXT, dest TEXT, air_time DOUBLE, distance INT CHECK (distance > 0), hour INT, minute INT,
  time_hour TIMESTAMP NOT NULL
"""
"#;

/// The transform of the same stream, where one is measured.
const TRANSFORM: &str =
    "transform = \"SELECT *, distance * 1.609 AS km FROM flights WHERE carrier <> 'XX'\"\n";

/// A release server on a directory of its own, killed and swept away when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    dir: PathBuf,
    pub(super) address: SocketAddr,
    /// From the start of the process to its first 200 on `/readyz`.
    pub(super) ready: Duration,
}

impl Server {
    /// Starts `binary` in `dir`, which must not exist, with the stream `flights`. `unread`: every
    /// request is logged, into a pipe that nobody reads after the first line.
    pub(super) fn start(
        binary: &Path,
        dir: &Path,
        transform: bool,
        unread: bool,
    ) -> Result<Server> {
        fs::create_dir_all(dir)?;
        let config = dir.join("forebay.toml");
        let transform = if transform { TRANSFORM } else { "" };
        fs::write(&config, format!("[streams.flights]\n{SCHEMA}{transform}"))?;
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        let start = now();
        let mut command = Command::new(binary);
        let into = |file: &Path| -> Result<Stdio> {
            Ok(if unread { Stdio::piped() } else { File::create(file)?.into() })
        };
        if unread {
            command.env("FOREBAY_LOG", "debug");
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(into(&stdout)?)
            .stderr(into(&stderr)?)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        if let Some(pipe) = &mut child.stdout {
            fs::write(&stdout, first_line(pipe)?)?;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, dir: dir.to_path_buf(), address, ready: Duration::ZERO };
        server.address = server.poll(start, "say where it listens", || {
            let text = fs::read_to_string(&stdout).ok()?;
            let (_, rest) = text.split_once("listening on http://")?;
            rest.split_whitespace().next()?.trim_end_matches('/').parse().ok()
        })?;
        let address = server.address;
        server.poll(start, "become ready", || {
            matches!(get(address, "/readyz"), Ok((200, _))).then_some(())
        })?;
        server.ready = start.elapsed();
        Ok(server)
    }

    fn poll<T>(
        &mut self,
        start: Instant,
        what: &str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            let stderr = || fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}):\n{}", stderr());
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "it did not {what}:\n{}", stderr());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Processor seconds used so far, of all threads.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        parse_cpu_seconds(&stat).context("/proc/PID/stat is not as documented")
    }

    /// Resident memory in bytes, now and at its peak.
    pub(super) fn resident(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        field("VmRSS:").zip(field("VmHWM:")).context("/proc/PID/status is not as documented")
    }

    /// Rows of the stream that are accepted but not yet in the table.
    pub(super) fn in_journal(&self) -> Result<u64> {
        let (status, ledger) = get(self.address, "/api/v1/ledger")?;
        ensure!(status == 200, "ledger: {status} {ledger}");
        let ledger: Value = serde_json::from_str(&ledger)?;
        let row = ledger.as_array().into_iter().flatten().find(|row| row["stream"] == "flights");
        let row = row.context("the ledger has no `flights`")?;
        row["in_journal"].as_u64().context("the ledger has no `in_journal`")
    }

    /// Rows in the table, by SQL.
    pub(super) fn rows_in_table(&self) -> Result<u64> {
        let body = r#"{"sql": "SELECT count(*) AS n FROM flights", "timeout_ms": 60000}"#;
        let (route, length) = ("POST /api/v1/query HTTP/1.1", body.len());
        let kind = "Content-Type: application/json";
        let head = format!("{route}\r\n{kind}\r\nContent-Length: {length}\r\n");
        let (status, answer) = exchange(self.address, &head, body)?;
        ensure!(status == 200, "query: {status} {answer}");
        let rows: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        rows[0]["n"].as_u64().with_context(|| format!("no count in {answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// utime and stime: fields 14 and 15, counted after the name, which may hold spaces.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// Processor seconds of this process, so of the load generator.
pub(super) fn own_cpu_seconds() -> Result<f64> {
    parse_cpu_seconds(&fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat")
}

fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\n"), "")
}

/// One request over a connection of its own; reads whatever comes until the server closes it.
fn exchange(address: SocketAddr, head: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = load::connect(address)?;
    let end = "Host: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}{end}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").context("an answer without an end to its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in `{head}`"))?;
    let chunked = load::header(head, "transfer-encoding") == Some("chunked");
    Ok((status, if chunked { unchunk(body).context("a body cut short")? } else { body.to_owned() }))
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, tail) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(tail.get(..size)?);
        rest = tail.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// What a pipe says up to its first line end; nothing beyond is read.
fn first_line(pipe: &mut impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') && pipe.read(&mut byte)? > 0 {
        line.extend_from_slice(&byte);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_put_together_or_missed() {
        let body = "2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(unchunk(body).as_deref(), Some("abc"));
        assert_eq!(unchunk(&body[..12]), None);
    }

    #[test]
    fn processor_time_is_read_past_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_cpu_seconds("7"), None);
    }
}
