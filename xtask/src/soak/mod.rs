//! `cargo xtask soak input`: generated bodies of many gigabytes through `forebay send` and through curl, plain
//! and gzip, each cut three times and resumed; then one line of a gigabyte.
//!
//! It passes when every row is in its table exactly once and the server's memory stayed within the sum that it
//! prints. Needs curl and gzip. Owns a directory under the target directory; never looks into the server.

mod body;
mod server;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::body::{Body, Form};
use self::server::Server;
use crate::bench;
use crate::shell::{self, now};

const GB: u64 = 1_000_000_000;
/// How often a body is cut on its way.
const CUTS: u64 = 3;
/// What a run may take more than the one before: pages that the allocator keeps.
const SLACK: u64 = 64 << 20;
const SCHEMA: &str = "n BIGINT NOT NULL, name TEXT NOT NULL, value DOUBLE, at TIMESTAMP";

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Send,
    Curl,
}

/// One way of a body into a stream of its own.
#[derive(Debug, Clone, Copy)]
struct Leg {
    sender: Sender,
    form: Form,
    gzip: bool,
}

impl Leg {
    fn name(self) -> String {
        let sender = match self.sender {
            Sender::Send => "send",
            Sender::Curl => "curl",
        };
        format!("{sender}_{}_{}", self.form.name(), if self.gzip { "gzip" } else { "plain" })
    }
}

/// Builds, runs the legs of these names (every one where none is named), prints a line for each.
pub(crate) fn run(root: &Path, gb: u64, names: &[String]) -> Result<()> {
    for program in ["curl", "gzip"] {
        shell::which(program).with_context(|| format!("the soak needs {program}"))?;
    }
    bench::build(root)?;
    let target = shell::target_dir(root);
    let (binary, dir) = (target.join("release/forebay"), target.join("soak"));
    std::fs::remove_dir_all(&dir).ok();
    let legs: Vec<Leg> = [Sender::Send, Sender::Curl]
        .into_iter()
        .flat_map(|sender| [Form::Ndjson, Form::Csv].map(|form| (sender, form)))
        .flat_map(|(sender, form)| [false, true].map(|gzip| Leg { sender, form, gzip }))
        .filter(|leg| names.is_empty() || names.contains(&leg.name()))
        .collect();
    ensure!(!legs.is_empty(), "no leg {}: they are called send_csv_gzip", names.join(", "));
    let streams: String = legs
        .iter()
        .map(|leg| leg.name())
        .chain(["giant".to_owned()])
        .map(|name| format!("[streams.{name}]\nschema = \"{SCHEMA}\"\n"))
        .collect();
    let mut server =
        Server::start(&binary, &dir, &format!("[memory]\nbudget = \"256MiB\"\n{streams}"))?;
    println!("the sum: {} MiB", server.sum >> 20);
    let mut first = None;
    for leg in &legs {
        let body = Body::of(leg.form, gb * GB / legs.len() as u64);
        let peak = run_leg(&mut server, &binary, &dir, *leg, body)?;
        ensure!(peak <= server.sum, "F3: {} MiB are more than the sum", peak >> 20);
        let flat = *first.get_or_insert(peak) + SLACK;
        ensure!(peak <= flat.max(server.sum / 2), "F3: {} MiB, and growing", peak >> 20);
    }
    giant_line(&mut server)
}

/// Sends one body, cut on its way; returns the most memory that the server took.
fn run_leg(server: &mut Server, binary: &Path, dir: &Path, leg: Leg, body: Body) -> Result<u64> {
    let (name, start) = (leg.name(), now());
    server.take_peak();
    match leg.sender {
        Sender::Send => by_send(server, binary, dir, leg, body)?,
        Sender::Curl => by_curl(server, dir, leg, body)?,
    }
    let sent = start.elapsed().as_secs_f64();
    server.until("bring every row into the table", |server| {
        (server.ledger(&name, "in_journal").ok()? == 0).then_some(())
    })?;
    let sql = format!("SELECT count(*) AS rows, sum(n) AS total, count(n) AS n FROM {name}");
    let answer = server.ask("POST", "/api/v1/query", "Accept: text/csv\r\n", &sql)?;
    let expected = format!("{},{},{}", body.rows, body.sum(), body.rows);
    ensure!(answer.body.contains(&expected), "{name}: {expected} expected, not {}", answer.body);
    ensure!(server.ledger(&name, "difference")? == 0, "F6: {name}");
    let peak = server.take_peak();
    println!("{name:<20} {:>12} rows  {sent:>7.1} s  {:>5} MiB at most", body.rows, peak >> 20);
    Ok(peak)
}

/// Rows of the leg's stream after which the n-th cut comes; `None` after the last.
fn cut_at(body: Body, cut: u64) -> Option<u64> {
    (cut < CUTS).then(|| body.rows * (cut + 1) / (CUTS + 1))
}

/// Waits for the end of `child`, or kills it where the stream has `rows`; true if it ended by itself.
fn ended(server: &mut Server, stream: &str, child: &mut Child, rows: Option<u64>) -> Result<bool> {
    let by_itself = server.until("take the body", |server| {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return Some(true);
        }
        let cut =
            rows.is_some_and(|rows| server.ledger(stream, "accepted").is_ok_and(|now| now >= rows));
        cut.then_some(false)
    })?;
    if !by_itself {
        child.kill()?;
    }
    child.wait()?;
    Ok(by_itself)
}

fn by_send(server: &mut Server, binary: &Path, dir: &Path, leg: Leg, body: Body) -> Result<()> {
    let stream = leg.name();
    let file = file_of(dir, leg, body)?;
    for cut in 0.. {
        let mut command = Command::new(binary);
        command.args(["send", "--url", &server.url(), "--stream", &stream]).arg(&file);
        let log = File::create(dir.join("send.log"))?;
        let mut child =
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        if ended(server, &stream, &mut child, cut_at(body, cut))? {
            let said = std::fs::read_to_string(dir.join("send.log"))?;
            ensure!(child.wait()?.success(), "send failed:\n{said}");
            ensure!(
                cut >= CUTS,
                "{stream} was sent before it could be cut {CUTS} times: use more --gb"
            );
            break;
        }
    }
    std::fs::remove_file(file)?;
    Ok(())
}

/// The body in a file, as `send` wants it.
fn file_of(dir: &Path, leg: Leg, body: Body) -> Result<PathBuf> {
    let path = dir.join(format!("body.{}{}", leg.form.name(), if leg.gzip { ".gz" } else { "" }));
    let file = File::create(&path)?;
    if !leg.gzip {
        body.write(0, 0, &mut std::io::BufWriter::with_capacity(1 << 20, file))?;
        return Ok(path);
    }
    let mut gzip = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(file).spawn()?;
    let mut into = gzip.stdin.take().context("gzip has no stdin")?;
    body.write(0, 0, &mut into)?;
    drop(into);
    ensure!(gzip.wait()?.success(), "gzip failed");
    Ok(path)
}

fn by_curl(server: &mut Server, dir: &Path, leg: Leg, body: Body) -> Result<()> {
    let stream = leg.name();
    let key = format!("Idempotency-Key: {stream}\r\n");
    for cut in 0.. {
        let standing = server.ask("HEAD", &format!("/ingest/{stream}"), &key, "")?;
        let (offset, prefix) = match standing.status {
            404 => (0, 0),
            200 => (
                standing.number("upload-offset").context("no Upload-Offset")?,
                standing.number("upload-prefix").unwrap_or_default(),
            ),
            status => bail!("HEAD was answered with {status}"),
        };
        ensure!(cut == 0 || offset > 0, "{stream}: nothing is known of a cut upload");
        let from = (offset > 0).then_some((prefix, offset));
        let answer = dir.join("curl.json");
        let write = |out: &mut dyn Write| body.write(prefix, offset, out);
        let post = Post { stream: &stream, form: leg.form, gzip: leg.gzip, from };
        if curl(server, post, &answer, cut_at(body, cut), &write)? {
            let said = std::fs::read_to_string(&answer)?;
            let taken = said.contains("\"ack\":\"durable\"");
            ensure!(taken, "{stream}: curl was answered {said}");
            ensure!(
                cut >= CUTS,
                "{stream} was sent before it could be cut {CUTS} times: use more --gb"
            );
            break;
        }
    }
    Ok(())
}

type Source<'a> = &'a (dyn Fn(&mut dyn Write) -> std::io::Result<()> + Sync);

/// A request of curl's, but for its body.
#[derive(Debug, Clone, Copy)]
struct Post<'a> {
    stream: &'a str,
    form: Form,
    gzip: bool,
    /// Where it goes on: prefix and offset.
    from: Option<(u64, u64)>,
}

/// Posts what `source` writes; true if curl ended by itself, false if it was cut once the stream had `rows`.
fn curl(
    server: &mut Server,
    post: Post<'_>,
    answer: &Path,
    rows: Option<u64>,
    source: Source<'_>,
) -> Result<bool> {
    let Post { stream, form, gzip, from } = post;
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", "POST", "-T", "-", "-o"]).arg(answer);
    let mut header = |text: String| {
        command.args(["-H", &text]);
    };
    header(format!("Content-Type: {}", form.content_type()));
    header(format!("Idempotency-Key: {stream}"));
    header("Expect:".to_owned());
    if gzip {
        header("Content-Encoding: gzip".to_owned());
    }
    if let Some((prefix, offset)) = from {
        header(format!("Upload-Offset: {offset}"));
        header(format!("Upload-Prefix: {prefix}"));
    }
    command.arg(format!("{}/ingest/{stream}", server.url()));
    let mut gzip = match gzip {
        true => {
            let mut gzip = Command::new("gzip");
            Some(gzip.arg("-1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
        }
        false => None,
    };
    let packed = gzip.as_mut().and_then(|gzip| gzip.stdout.take());
    command.stdin(packed.map_or_else(Stdio::piped, Stdio::from));
    let mut child = command.spawn().context("start curl")?;
    // Else the pipe between gzip and curl would stay open here.
    drop(command);
    let into: Option<Box<dyn Write + Send>> = match &mut gzip {
        Some(gzip) => gzip.stdin.take().map(|pipe| Box::new(pipe) as _),
        None => child.stdin.take().map(|pipe| Box::new(pipe) as _),
    };
    let mut into = into.context("no pipe")?;
    thread::scope(|scope| {
        // Fails once the other end is gone, which is what a cut is.
        scope.spawn(move || source(&mut into).ok());
        let by_itself = ended(server, stream, &mut child, rows);
        if let Some(mut gzip) = gzip {
            gzip.kill().ok();
            gzip.wait().ok();
        }
        by_itself
    })
}

/// A line of a gigabyte between two good ones: refused, and never held.
fn giant_line(server: &mut Server) -> Result<()> {
    server.take_peak();
    let before = server.sum;
    let answer = std::env::temp_dir().join(format!("forebay-soak-{}.json", std::process::id()));
    let source = |out: &mut dyn Write| {
        let row = "{\"n\":1,\"name\":\"good\"}\n";
        out.write_all(row.as_bytes())?;
        out.write_all(b"{\"n\":2,\"name\":\"")?;
        let piece = vec![b'x'; 1_000_000];
        for _ in 0..GB / piece.len() as u64 {
            out.write_all(&piece)?;
        }
        out.write_all(b"\"}\n")?;
        out.write_all(row.as_bytes())
    };
    let post = Post { stream: "giant", form: Form::Ndjson, gzip: false, from: None };
    let by_itself = curl(server, post, &answer, None, &source)?;
    let said = std::fs::read_to_string(&answer).unwrap_or_default();
    std::fs::remove_file(&answer).ok();
    ensure!(by_itself, "the giant line was cut");
    let reply: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let counts = (reply["accepted"].as_u64(), reply["rejected"].as_u64());
    ensure!(counts == (Some(2), Some(1)), "a giant line: {said}");
    ensure!(reply["errors"][0]["code"] == "row_too_large", "a giant line: {said}");
    let peak = server.take_peak();
    ensure!(peak <= before, "F3: {} MiB for a line of 1 GB", peak >> 20);
    println!("a line of 1 GB: refused alone, {} MiB at most", peak >> 20);
    Ok(())
}
