//! `forebay send` against a server that answers as it is told to, and against nobody.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use forebay_flow::clock;

/// What a client sent.
#[derive(Debug, Default)]
struct Seen {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers.iter().find_map(|header| header.strip_prefix(&prefix))
    }
}

/// Reads one request and answers with what `answer` makes of it.
fn serve_one(listener: &TcpListener, answer: &str) -> Seen {
    let (socket, _) = listener.accept().unwrap();
    let seen = read_request(&socket);
    (&socket).write_all(answer.as_bytes()).unwrap();
    seen
}

fn read_request(socket: &TcpStream) -> Seen {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reader = BufReader::new(socket);
    let mut seen = Seen::default();
    let line = |reader: &mut BufReader<&TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    seen.line = line(&mut reader);
    loop {
        let header = line(&mut reader);
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").unwrap();
        seen.headers.push(format!("{}: {value}", name.to_ascii_lowercase()));
    }
    if let Some(length) = seen.header("content-length") {
        seen.body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut seen.body).unwrap();
    } else if seen.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&line(&mut reader), 16).unwrap();
            let at = seen.body.len();
            seen.body.resize(at + size, 0);
            reader.read_exact(&mut seen.body[at..]).unwrap();
            line(&mut reader);
            if size == 0 {
                break;
            }
        }
    }
    seen
}

/// An answer with a JSON body.
fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn unknown() -> String {
    "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n".to_owned()
}

fn taken(accepted: u64) -> String {
    answer("202 Accepted", "", &format!("{{\"accepted\":{accepted},\"rejected\":0,\"errors\":[]}}"))
}

fn problem(status: &str, code: &str, headers: &str) -> String {
    let body = format!("{{\"type\":\"/problems/{code}\",\"detail\":\"because of {code}\"}}");
    answer(status, headers, &body)
}

fn send(dir: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.current_dir(dir).env_clear().stdin(Stdio::null());
    command.args(["send", "--url", url]).args(arguments);
    command
}

/// Runs `send` against these answers, in this order; what it said, and what it sent.
fn against(dir: &Path, arguments: &[&str], answers: &[String]) -> (Output, Vec<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let child =
        send(dir, &url, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let seen = answers.iter().map(|answer| serve_one(&listener, answer)).collect();
    (child.wait_with_output().unwrap(), seen)
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_is_sent_with_what_its_name_says_and_the_same_key_each_time() {
    let dir = directory(&[("flights.tsv.gz", "as it is")]);
    let arguments = ["--null", "N A", "--delimiter", "|", "flights.tsv.gz"];
    let mut keys = Vec::new();
    for ack in ["durable", "stored"] {
        let arguments = [&arguments[..], &["--ack", ack]].concat();
        let (output, seen) = against(dir.path(), &arguments, &[unknown(), taken(3)]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("sent 1 of 1: 3 rows accepted, 0 rejected"));
        assert_eq!(seen[0].line, "HEAD /ingest/flights HTTP/1.1");
        let path = format!("/ingest/flights?ack={ack}&null=N%20A&delimiter=%7C");
        assert_eq!(seen[1].line, format!("POST {path} HTTP/1.1"));
        assert_eq!(seen[1].header("content-type"), Some("text/tab-separated-values"));
        assert_eq!(seen[1].header("content-encoding"), Some("gzip"));
        assert_eq!(seen[1].body, b"as it is");
        assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
        keys.push(seen[1].header("idempotency-key").unwrap().to_owned());
    }
    assert_eq!(keys[0], keys[1]);
    std::fs::write(dir.path().join("flights.tsv.gz"), "another file").unwrap();
    let (_, seen) = against(dir.path(), &arguments, &[unknown(), taken(3)]);
    assert_ne!(seen[1].header("idempotency-key"), Some(keys[0].as_str()));
}

#[test]
fn the_wait_that_a_server_asks_for_is_shown_and_kept() {
    let dir = directory(&[("a.ndjson", "{}\n")]);
    let began = clock::now();
    let full = problem("503 Service Unavailable", "overloaded", "Retry-After: 1\r\n");
    let answers = [unknown(), full, unknown(), taken(1)];
    let (output, seen) = against(dir.path(), &["a.ndjson"], &answers);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(said.contains("because of overloaded; the server asks for 1.0 s"), "{said}");
    assert_eq!(seen[3].body, b"{}\n");
}

#[test]
fn what_is_durable_is_left_out_but_for_the_beginning() {
    let dir = directory(&[("a.ndjson", "abcdefgh")]);
    let standing = |offset: u64, complete: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nUpload-Offset: {offset}\r\nUpload-Prefix: 2\r\nUpload-Complete: {complete}\r\n\
             Upload-Accepted: 4\r\nUpload-Rejected: 1\r\nConnection: close\r\n\r\n"
        )
    };
    // The connection breaks, the server fails, then it goes on.
    let failed = problem("500 Internal Server Error", "internal", "");
    let answers =
        [unknown(), String::new(), standing(3, "?0"), failed, standing(5, "?0"), taken(9)];
    let (output, seen) = against(dir.path(), &["a.ndjson"], &answers);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let bodies: Vec<_> = seen.iter().map(|seen| text(&seen.body)).collect();
    assert_eq!(bodies, ["", "abcdefgh", "", "abdefgh", "", "abfgh"]);
    let places = |seen: &Seen| {
        ["upload-offset", "upload-prefix"].map(|name| seen.header(name).map(str::to_owned))
    };
    assert_eq!(places(&seen[1]), [None, None]);
    assert_eq!(places(&seen[5]), [Some("5".into()), Some("2".into())]);

    let (output, _) = against(dir.path(), &["a.ndjson"], &[standing(8, "?1")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("was there already: 4 rows accepted, 1 rejected"));

    // A server that counts otherwise: once more from the start, where it skips what it knows.
    let conflict = problem("409 Conflict", "key-conflict", "");
    let answers = [standing(3, "?0"), conflict.clone(), standing(3, "?0"), conflict];
    let (output, seen) = against(dir.path(), &["a.ndjson"], &answers);
    assert_eq!(text(&seen[3].body), "abcdefgh");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--key"), "{}", text(&output.stderr));
}

#[test]
fn a_connection_that_always_breaks_is_given_up_after_the_retries() {
    let dir = directory(&[("a.ndjson", "{}\n")]);
    let nothing = String::new();
    let answers = [unknown(), nothing.clone(), unknown(), nothing.clone(), unknown(), nothing];
    let (output, _) = against(dir.path(), &["--retries", "2", "a.ndjson"], &answers);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("3 times in a row; given up"), "{said}");
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_no_success() {
    let dir = directory(&[("a.ndjson", "{}\n")]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let child = send(dir.path(), &url, &["a.ndjson"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    serve_one(&listener, &unknown());
    let (socket, _) = listener.accept().unwrap();
    let seen = read_request(&socket);
    assert_eq!(seen.body, b"{}\n");
    std::fs::write(dir.path().join("a.ndjson"), "{}\n{}\n").unwrap();
    (&socket).write_all(taken(1).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("changed while it was sent (it had 3 bytes and has 6 now)"), "{said}");
}

#[test]
fn patterns_are_expanded_and_every_file_is_tried_though_one_is_refused() {
    let dir = directory(&[("1.csv", "a"), ("2.csv", "b"), ("3.csv", "c"), ("4.json", "d")]);
    let refused = problem("400 Bad Request", "malformed-body", "");
    let answers = [unknown(), taken(1), unknown(), refused, unknown(), taken(1)];
    let arguments = ["--parallel", "1", "--stream", "s", "*.csv"];
    let (output, seen) = against(dir.path(), &arguments, &answers);
    assert_eq!(output.status.code(), Some(1));
    let bodies: Vec<_> = seen.iter().map(|seen| text(&seen.body)).collect();
    assert_eq!(bodies, ["", "a", "", "b", "", "c"]);
    assert!(text(&output.stdout).starts_with("sent 2 of 3: 2 rows"), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    assert!(said.contains("2.csv -> s: not sent: because of malformed-body"), "{said}");
}

#[test]
fn stdin_is_sent_and_sent_again_after_a_break_under_a_key_that_is_printed() {
    let dir = directory(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child = send(dir.path(), &url, &["--stream", "s", "--format", "jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"a\":1}\n").unwrap();
    drop(stdin);
    let answers = [unknown(), String::new(), unknown(), taken(1)];
    let seen: Vec<_> = answers.iter().map(|answer| serve_one(&listener, answer)).collect();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!((&seen[1].body[..], &seen[3].body[..]), (&b"{\"a\":1}\n"[..], &b"{\"a\":1}\n"[..]));
    assert!(said.contains(seen[3].header("idempotency-key").unwrap()), "{said}");
}

#[test]
fn wrong_arguments_read_like_help_and_send_nothing() {
    let dir = directory(&[("a.parquet", ""), ("a b.csv", ""), ("c.csv", ""), ("d.csv", "")]);
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    let cases: [(&[&str], &str); 10] = [
        (&["absent.csv"], "there is no file absent.csv"),
        (&["c.csv", "absent.csv"], "there is no file absent.csv"),
        (&["logs"], "cannot tell the format of logs"),
        (&["--format", "csv", "logs"], "name its files, for example 'logs/*.csv'"),
        (&["x*.csv"], "no file matches `x*.csv`"),
        (&["a.parquet"], "say --format csv, tsv, ndjson, json or text"),
        (&["a b.csv"], "say --stream NAME"),
        (&["-"], "say --format"),
        (&["--format", "csv", "-"], "say --stream"),
        (&["--key", "k", "c.csv", "d.csv"], "one --key cannot stand for 2 files"),
    ];
    for (arguments, expected) in cases {
        let output = send(dir.path(), "http://127.0.0.1:1", &[]).args(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("forebay: ") && said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let output = send(dir.path(), "https://x", &["c.csv"]).output().unwrap();
    assert!(text(&output.stderr).contains("must begin with http://"));
    let output = send(dir.path(), "http://x", &["--fromat", "csv", "c.csv"]).output().unwrap();
    assert!(text(&output.stderr).contains("--format"), "{}", text(&output.stderr));
}

#[test]
fn a_wrong_server_and_missing_rights_end_the_run_with_what_to_do() {
    let dir = directory(&[("a.csv", "a"), ("b.csv", "b")]);
    let output = send(dir.path(), "http://127.0.0.1:1", &["a.csv", "b.csv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("is `forebay serve` running?"), "{said}");

    let one = ["--parallel", "1", "a.csv", "b.csv"];
    let web = answer("404 Not Found", "", "<html>");
    let (output, _) = against(dir.path(), &one, &[unknown(), web]);
    let said = text(&output.stderr);
    assert!(said.contains("not like a Forebay server; is --url right?"), "{said}");
    assert!(text(&output.stdout).starts_with("sent 0 of 2"), "{}", text(&output.stdout));

    let head = |status: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
    let (output, _) = against(dir.path(), &one, &[head("401 Unauthorized")]);
    let said = text(&output.stderr);
    assert!(said.contains("--token or FOREBAY_TOKEN"), "{said}");
    let forbidden = head("403 Forbidden");
    let (output, _) = against(dir.path(), &one, &[forbidden.clone(), forbidden]);
    let said = text(&output.stderr);
    assert!(said.contains("a.csv -> a: not sent") && said.contains("may not write"), "{said}");
    assert!(said.contains("b.csv -> b: not sent"), "another stream may be allowed: {said}");
}

#[test]
fn the_token_is_sent_and_never_shown() {
    let dir = directory(&[("a.csv", "a")]);
    let (output, seen) =
        against(dir.path(), &["--token", "secret", "a.csv"], &[unknown(), taken(1)]);
    assert_eq!(seen[1].header("authorization"), Some("Bearer secret"));
    assert!(!text(&output.stdout).contains("secret") && !text(&output.stderr).contains("secret"));
}
