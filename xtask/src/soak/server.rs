//! The server under the soak: its process, what it answers, and the most memory it took.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, now};

/// How long anything that must come may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A release server on a directory of its own; killed and swept away when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    dir: PathBuf,
    pub(super) address: SocketAddr,
    /// The most resident bytes seen since the last [`Server::take_peak`].
    peak: u64,
    /// The sum that `forebay check` prints.
    pub(super) sum: u64,
}

/// The head and the body of an answer.
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    /// A header's number, by its name in lower case.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let line = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })?;
        line.trim().parse().ok()
    }
}

impl Server {
    /// Starts `binary` in `dir`, which must not exist, with this configuration.
    pub(super) fn start(binary: &Path, dir: &Path, config: &str) -> Result<Server> {
        fs::create_dir_all(dir)?;
        let file = dir.join("forebay.toml");
        fs::write(&file, config)?;
        let checked = shell::capture(Command::new(binary).arg("check").arg("--config").arg(&file))?;
        let sum = total(&checked).with_context(|| format!("no total in:\n{checked}"))?;
        let child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(File::create(dir.join("stdout"))?)
            .stderr(File::create(dir.join("stderr"))?)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, dir: dir.to_owned(), address, peak: 0, sum };
        let stdout = dir.join("stdout");
        server.address = server.until("say where it listens", |_| {
            let text = fs::read_to_string(&stdout).ok()?;
            let (_, rest) = text.split_once("listening on http://")?;
            rest.split_whitespace().next()?.trim_end_matches('/').parse().ok()
        })?;
        server.until("become ready", |server| {
            matches!(server.ask("GET", "/readyz", "", ""), Ok(Answer { status: 200, .. }))
                .then_some(())
        })?;
        Ok(server)
    }

    /// The base URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks until there is something to see, and keeps an eye on memory meanwhile.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Server) -> Option<T>,
    ) -> Result<T> {
        let start = now();
        loop {
            self.watch()?;
            if let Some(seen) = look(self) {
                return Ok(seen);
            }
            ensure!(start.elapsed() < PATIENCE, "it did not {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Notes how much memory the process has now, or that it has ended.
    pub(super) fn watch(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let words = fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
            bail!("the server ended ({status}):\n{words}");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        self.peak = self.peak.max(kib.unwrap_or_default() * 1024);
        Ok(())
    }

    /// The most resident bytes since this was asked last.
    pub(super) fn take_peak(&mut self) -> u64 {
        std::mem::take(&mut self.peak)
    }

    /// One request over a connection of its own.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        write!(stream, "{head}{headers}Content-Length: {length}\r\n\r\n{body}")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) =
            text.split_once("\r\n\r\n").context("an answer without an end to its head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status in `{head}`"))?;
        Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// A member of the stream's row in the ledger; 0 while there is none.
    pub(super) fn ledger(&self, stream: &str, member: &str) -> Result<u64> {
        let answer = self.ask("GET", "/api/v1/ledger", "", "")?;
        let rows: Value = serde_json::from_str(&answer.body).context(answer.body)?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["stream"] == stream);
        Ok(row.and_then(|row| row[member].as_u64()).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The total of `forebay check`, in bytes.
fn total(checked: &str) -> Option<u64> {
    let mut words =
        checked.lines().find(|line| line.trim().starts_with("total "))?.split_whitespace();
    let number: f64 = words.nth(1)?.parse().ok()?;
    let unit = match words.next()? {
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    Some((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_what_check_prints() {
        let text =
            "memory\n  budget 64 MiB x\n  total           1.5 GiB  the most this process holds\n";
        assert_eq!(total(text), Some(1_610_612_736));
        assert_eq!(total("total\n"), None);
    }
}
