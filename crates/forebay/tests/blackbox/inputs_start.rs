//! What a server meets at its start and on its disk, and more streams than there may be.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::http::Request;
use crate::inputs::{NDJSON, refused};
use crate::server::{Home, Server};
use crate::wait::eventually;

/// The lines of the page, one for each test here.
pub(crate) const DOCUMENTED: [(&str, &str); 8] = [
    (
        "a configuration with typos",
        "exit 1; each mistake with file, line, column and what was meant",
    ),
    (
        "a port in use",
        "exit 1: the port is in use; stop the other process or choose another with `--listen`",
    ),
    ("a data directory in use", "exit 1: in use by another Forebay"),
    (
        "a data directory on a read-only file system",
        "exit 1: cannot use the data directory, and why",
    ),
    (
        "a data directory of a newer version",
        "exit 1: written by a newer Forebay; nothing is touched",
    ),
    (
        "a full disk",
        "507 `disk-full` with `Retry-After`; once there is room the same request succeeds, with no restart, and nothing is lost or stored twice",
    ),
    (
        "a disk that fails",
        "500 `outcome-unknown`; the server ends, and the next one finds what was durable",
    ),
    (
        "10,000 streams created in a loop",
        "409 `too-many-streams` beyond `[limits] streams`; existing streams go on",
    ),
];

/// Runs the program to its end.
fn run(home: &Home) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(home.arguments()).env("NO_COLOR", "1").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn refuses_to_start(home: &Home, words: &[&str]) {
    let output = run(home);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` in {said}");
    }
}

#[test]
fn a_configuration_with_typos_is_told_whole() {
    let home = Home::new(
        "lisen = \"127.0.0.1:1\"\n[http]\ndedline = \"3s\"\n[streams.s]\nschema = \"a INTT\"\n",
    );
    let toml = home.path("forebay.toml").display().to_string();
    refuses_to_start(
        &home,
        &[
            &format!("{toml}:1:1: unknown setting `lisen`; did you mean `listen`?"),
            &format!("{toml}:3:1: unknown setting `dedline`; did you mean `deadline`?"),
            &format!("{toml}:5:13: streams.s.schema: "),
        ],
    );
}

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new("");
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("--data-dir").arg(home.data_dir()).arg("--listen");
    let output = command.arg(taken.local_addr().unwrap().to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("the port is in use; stop the other process"),
        "{}",
        said(&output)
    );
    assert!(!home.data_dir().exists(), "nothing is made before the port is had");
}

#[test]
fn a_data_directory_in_use_or_of_a_newer_version_is_left_alone() {
    let home = Home::new("");
    let server = home.start();
    refuses_to_start(&home, &["is in use by another Forebay"]);
    assert_eq!(server.ingest("s", "{\"a\":1}\n").status, 202, "the first one goes on");
    server.stop();
    fs::write(home.data_dir().join("FORMAT"), "999\n").unwrap();
    let before = listing(&home.data_dir());
    refuses_to_start(&home, &["was written by a newer Forebay (format 999", "upgrade"]);
    assert_eq!(listing(&home.data_dir()), before);
}

fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entry = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|found| entry(found.unwrap())).collect();
    files.sort();
    files
}

/// A file system in memory at a path, unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    /// `None` where mounting is not permitted.
    fn new(at: &Path, options: &str) -> Option<Mount> {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        let done = command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_read_only_data_directory_is_told_with_its_reason() {
    let home = Home::new("");
    let Some(_mount) = Mount::new(&home.data_dir(), "ro,size=1m") else {
        println!("skipped: mounting needs root");
        return;
    };
    refuses_to_start(&home, &["cannot use the data directory", "Read-only file system"]);
}

#[test]
fn f1_a_full_disk_is_507_and_takes_rows_again_when_there_is_room() {
    let home =
        Home::new("[flush]\ninterval = \"200ms\"\n[streams.s]\nschema = \"n BIGINT, pad TEXT\"\n");
    let Some(_mount) = Mount::new(&home.data_dir(), "size=24m") else {
        println!("skipped: mounting needs root");
        return;
    };
    let server = home.start();
    let ballast = home.data_dir().join("ballast");
    fs::write(&ballast, vec![1; 14 << 20]).unwrap();
    let mut acknowledged = 0;
    let refusal = (0..2000).find_map(|post| {
        let answer = keyed(&server, post);
        acknowledged = post;
        (answer.status != 202).then_some(answer)
    });
    let refusal = refusal.unwrap_or_else(|| panic!("the disk never filled"));
    refused(&refusal, 507, "disk-full");
    assert!(refusal.header("retry-after").is_some());
    assert_eq!(Request::get("/livez").send(server.address).unwrap().status, 200);

    fs::remove_file(&ballast).unwrap();
    eventually("there is room, so the same request is taken", || {
        (keyed(&server, acknowledged).status == 202).then_some(())
    });
    server.drained("s");
    let rows = (acknowledged + 1) * ROWS;
    assert_eq!(server.number("SELECT count(*) FROM s"), rows, "F1, F2");
    assert_eq!(server.number("SELECT count(DISTINCT n) FROM s"), rows, "F2");
    server.stop();
}

const ROWS: u64 = 500;

/// Rows that no other post has, under a key of their own, hard to compress.
fn keyed(server: &Server, post: u64) -> crate::http::Answer {
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(post + 1);
    let row = |n: u64| {
        let mut pad = String::new();
        for _ in 0..4 {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            pad += &format!("{chance:016x}");
        }
        format!("{{\"n\":{},\"pad\":\"{pad}\"}}\n", post * ROWS + n)
    };
    let body: String = (0..ROWS).map(row).collect();
    let request = Request::post("/ingest/s", NDJSON, body.as_bytes());
    request.header("Idempotency-Key", &format!("post-{post}")).send(server.address).unwrap()
}

#[test]
fn f1_a_disk_that_fails_ends_the_server_and_the_next_one_has_what_was_durable() {
    let faulty = "[faults]\ndisk_error_after_bytes = 3000000\n[streams.s]\nschema = \"n BIGINT, pad TEXT\"\n";
    let home = Home::new(faulty);
    let mut server = home.start();
    let mut acknowledged = 0;
    let failed = (0..2000).find_map(|post| {
        let answer = keyed(&server, post);
        acknowledged += u64::from(answer.status == 202);
        (answer.status != 202).then_some(answer)
    });
    let failed = failed.unwrap_or_else(|| panic!("the disk never failed"));
    refused(&failed, 500, "outcome-unknown");
    assert_ne!(server.exit_within(crate::wait::PATIENCE).code(), Some(0));
    home.configure("[streams.s]\nschema = \"n BIGINT, pad TEXT\"\n");
    let server = home.start();
    assert_eq!(keyed(&server, acknowledged).status, 202, "the unknown one, again under its key");
    server.drained("s");
    let rows = (acknowledged + 1) * ROWS;
    assert_eq!(server.number("SELECT count(*) FROM s"), rows, "F1, F2");
    server.stop();
}

#[test]
fn f3_ten_thousand_streams_in_a_loop_stop_at_the_limit() {
    let home = Home::new("[limits]\nstreams = 50\n");
    let server = home.start();
    for n in 0..50 {
        assert_eq!(server.ingest(&format!("s{n}"), "{\"a\":1}\n").status, 202);
    }
    let (files, resident) = (server.open_files(), server.resident_bytes());
    for n in 50..10_000 {
        refused(&server.ingest(&format!("s{n}"), "{\"a\":1}\n"), 409, "too-many-streams");
    }
    assert_eq!(server.ingest("s7?ack=stored", "{\"a\":2}\n").status, 200, "those that exist go on");
    assert!(server.open_files() <= files + 8, "F5: {} files, then {}", files, server.open_files());
    let grown = server.resident_bytes().saturating_sub(resident);
    assert!(grown < 64 << 20, "F3: {} MiB more", grown >> 20);
    assert_eq!(fs::read_dir(home.data_dir().join("streams")).unwrap().count(), 50);
    server.stop();
}
