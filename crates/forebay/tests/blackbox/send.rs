//! `forebay send` while it is killed, stopped, and while its server is killed: every row once.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::{Home, Server};
use crate::wait::{PATIENCE, eventually, now, pause};

const ROWS: u64 = 100_000;

/// Small chunks, and a disk slow enough that an upload can be cut in its middle.
const CONFIG: &str = "[limits]\nchunk = \"32KiB\"\n[faults]\ndisk_bytes_per_second = 3000000\n\
    [streams.sent]\nschema = \"n BIGINT NOT NULL, pad TEXT NOT NULL\"\n";

/// A file of numbered rows that compress badly, larger than what two sockets hold; its size.
fn rows(home: &Home, name: &str) -> u64 {
    let mut text = String::from("n,pad\n");
    let mut pad: u64 = 1;
    for n in 0..ROWS {
        pad = pad.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n);
        write!(text, "{n},").unwrap();
        for word in 1..=8_u64 {
            write!(text, "{:016x}", pad.wrapping_mul(word * 2 + 1)).unwrap();
        }
        text.push('\n');
    }
    std::fs::write(home.path(name), &text).unwrap();
    text.len() as u64
}

fn send(home: &Home, address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.current_dir(home.path("")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["send", "--url", &format!("http://{address}"), "--stream", "sent"]);
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// Waits until so many rows are durable.
fn reached(server: &Server, rows: u64) {
    eventually(&format!("{rows} rows are durable"), || {
        let row = server.ledger("sent")?;
        (row["received"].as_u64()? >= rows).then_some(())
    });
}

/// F1, F2: every row is there, once.
fn whole(server: &Server) {
    server.drained("sent");
    assert_eq!(server.number("SELECT count(*) FROM sent"), ROWS, "F1, F2");
    assert_eq!(server.number("SELECT count(DISTINCT n) FROM sent"), ROWS, "F1");
}

/// How many bytes a run says that it sent.
fn sent_bytes(output: &Output) -> f64 {
    let text = said(output);
    let (_, rest) = text.split_once("rejected; ").unwrap();
    let mega = rest.split_once(" MB in").unwrap_or_else(|| panic!("{text}")).0;
    mega.parse::<f64>().unwrap() * 1e6
}

#[test]
fn f2_a_send_that_is_killed_and_run_again_goes_on_and_stores_every_row_once() {
    let home = Home::new(CONFIG);
    let size = rows(&home, "rows.csv");
    let server = home.start();
    for part in 1..=3 {
        let mut child = send(&home, server.address, &["rows.csv"]).spawn().unwrap();
        reached(&server, ROWS * part / 5);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = send(&home, server.address, &["rows.csv"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("100,000 rows accepted, 0 rejected"), "{}", said(&output));
    let sent = sent_bytes(&output);
    assert!(sent < 0.5 * size as f64, "it did not go on where it was cut: {sent} of {size}");
    assert!(!said(&output).contains("rows/s"), "rows of earlier runs: {}", said(&output));
    whole(&server);

    let output = send(&home, server.address, &["rows.csv"]).output().unwrap();
    assert!(said(&output).contains("was there already: 100,000 rows"), "{}", said(&output));
    whole(&server);
    server.stop();
}

#[test]
fn f2_ctrl_c_stops_cleanly_says_how_to_go_on_and_the_same_command_does() {
    let home = Home::new(CONFIG);
    rows(&home, "rows.csv");
    let server = home.start();
    let child = send(&home, server.address, &["rows.csv"]).spawn().unwrap();
    reached(&server, ROWS / 4);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("the same command goes on from there"), "{}", said(&output));
    let output = send(&home, server.address, &["rows.csv"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    whole(&server);
    server.stop();
}

#[test]
fn f2_a_compressed_file_that_was_cut_is_sent_again_and_stores_every_row_once() {
    let home = Home::new(CONFIG);
    rows(&home, "rows.csv");
    let plain = std::fs::read(home.path("rows.csv")).unwrap();
    std::fs::write(home.path("rows.csv.zst"), zstd::bulk::compress(&plain, 1).unwrap()).unwrap();
    let server = home.start();
    let mut child = send(&home, server.address, &["rows.csv.zst"]).spawn().unwrap();
    reached(&server, ROWS / 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = send(&home, server.address, &["rows.csv.zst"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("100,000 rows accepted, 0 rejected"), "{}", said(&output));
    whole(&server);
    server.stop();
}

/// A server at a port that stays.
fn start_at(home: &Home, address: SocketAddr) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env("FOREBAY_FAULTS", "1").env("NO_COLOR", "1");
    for argument in home.arguments() {
        let free = argument == "127.0.0.1:0";
        command.arg(if free { address.to_string().into() } else { argument });
    }
    home.start_as(command)
}

#[test]
fn f2_a_server_that_is_killed_and_restarted_under_a_send_has_every_row_once() {
    let home = Home::new(CONFIG);
    rows(&home, "rows.csv");
    let address = free_port();
    let mut server = start_at(&home, address);
    let child = send(&home, address, &["--retries", "1000", "rows.csv"]).spawn().unwrap();
    for part in 1..=3 {
        reached(&server, ROWS * part / 5);
        server.kill();
        server = start_at(&home, address);
    }
    let output = ended(child);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("trying again in"), "{}", said(&output));
    whole(&server);
    server.stop();
}

#[test]
fn f2_stdin_goes_on_within_what_is_kept_of_it_when_its_server_restarts() {
    let home = Home::new(CONFIG);
    rows(&home, "rows.csv");
    let address = free_port();
    let server = start_at(&home, address);
    let arguments = ["--retries", "1000", "--format", "csv", "-"];
    let input = std::fs::File::open(home.path("rows.csv")).unwrap();
    let child = send(&home, address, &arguments).stdin(input).spawn().unwrap();
    reached(&server, ROWS / 3);
    server.kill();
    let server = start_at(&home, address);
    let output = ended(child);
    assert!(output.status.success(), "{}", said(&output));
    whole(&server);
    server.stop();
}

#[test]
fn rejected_rows_are_shown_and_fail_the_run_where_that_is_asked_for() {
    let home = Home::new(CONFIG);
    let server = home.start();
    std::fs::write(home.path("bad.csv"), "n,pad\n1,x\nmany,y\n3,z\n").unwrap();
    let output = send(&home, server.address, &["bad.csv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("2 rows accepted, 1 rejected") && text.contains("_dead_letters"));
    assert!(text.contains(" rows/s)"), "{text}");
    assert!(text.contains("bad.csv row 2, column n: "), "{text}");
    let arguments = ["--fail-on-rejected", "--key", "again", "bad.csv"];
    let output = send(&home, server.address, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    server.stop();
}

/// A port that was free a moment ago, and that `start_at` may take again and again.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits for the end of a run, not for ever.
fn ended(mut child: Child) -> Output {
    let deadline = now() + 2 * PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if now() > deadline {
            child.kill().unwrap();
            panic!("still sending: {}", said(&child.wait_with_output().unwrap()));
        }
        pause();
    }
    child.wait_with_output().unwrap()
}
