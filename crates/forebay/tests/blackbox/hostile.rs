//! Clients that hang up, and more clients than there is room for: nothing of them remains (F3, F5).

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::clients::{SCHEMA, body};
use crate::http::{Request, connect, head};
use crate::server::{Home, Server};
use crate::wait::{PATIENCE, eventually, now, pause};

const TIMES: usize = 10_000;
const THREADS: usize = 8;

/// What must come back to where it was.
#[derive(Debug, PartialEq)]
pub(crate) struct Held {
    tasks: Vec<(String, f64)>,
    budget: Vec<(String, f64)>,
}

pub(crate) fn held(server: &Server) -> Held {
    let metrics = server.metrics();
    // A kind of which there is none may be shown as 0 or not at all.
    let some = |name| metrics.series(name).into_iter().filter(|(_, value)| *value != 0.0).collect();
    Held { tasks: some("forebay_tasks"), budget: some("forebay_budget_bytes") }
}

fn warmed_up(config: &str) -> (Home, Server) {
    let home = Home::new(config);
    let server = home.start();
    for post in 0..50 {
        assert_eq!(server.ingest("hostile", &body(0, post, 100)).status, 202);
    }
    assert_eq!(server.ingest("hostile?ack=stored", &body(0, 50, 1)).status, 200);
    server.drained("hostile");
    at_rest(&server);
    (home, server)
}

/// F5: waits until nothing is under way: rows are in their table a moment before the flush that put them
/// there gives its memory back, and an answer is read a moment before its connection ends.
pub(crate) fn at_rest(server: &Server) {
    eventually("F5: no memory is held and no connection is open but the one that asks", || {
        let metrics = server.metrics();
        let used = metrics.sum("forebay_budget_bytes", &[("state", "used")]);
        let connections = metrics.sum("forebay_tasks", &[("kind", "connection")]);
        (used == 0.0 && connections <= 1.0).then_some(())
    });
}

/// F5: waits until tasks, permits and descriptors are what they were.
pub(crate) fn returns_to(server: &Server, before: &Held, files: usize) {
    let deadline = now() + PATIENCE;
    // At rest there is the connection that asks; the one that asked before may have been seen ending.
    let alone = |(kind, count): &(String, f64)| {
        (kind.clone(), if kind == "connection" { count.min(1.0) } else { *count })
    };
    let tasks = before.tasks.iter().map(alone).collect();
    let before = &Held { tasks, budget: before.budget.clone() };
    loop {
        let (seen, open) = (held(server), server.open_files());
        // A few for the scrape itself and for pooled threads.
        if seen == *before && open <= files + 4 {
            return;
        }
        assert!(now() < deadline, "F5: {before:#?} and {files} files; now {seen:#?} and {open}");
        pause();
    }
}

#[test]
fn f5_requests_cut_mid_body_and_dropped_connections_leave_nothing_behind() {
    let (_home, server) = warmed_up(&format!("[streams.hostile]\nschema = \"{SCHEMA}\"\n"));
    let (before, files, resident) = (held(&server), server.open_files(), server.resident_bytes());
    let rows = server.number("SELECT count(*) FROM hostile");

    let half = body(1, 0, 40);
    let claimed = half.len() * 2;
    let request = format!(
        "{}Content-Type: application/x-ndjson\r\nContent-Length: {claimed}\r\n\r\n{half}",
        head("POST", "/ingest/hostile")
    );
    each(TIMES, |_| {
        let mut stream = connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
    });
    each(TIMES, |_| drop(TcpStream::connect(server.address).unwrap()));

    returns_to(&server, &before, files);
    let grown = server.resident_bytes().saturating_sub(resident);
    assert!(grown < 64 << 20, "F3: {} MiB more than before", grown >> 20);
    assert_eq!(server.ingest("hostile?ack=stored", &body(2, 0, 1)).status, 200);
    assert_eq!(
        server.number("SELECT count(*) FROM hostile"),
        rows + 1,
        "a body cut before its first chunk's end is not kept"
    );
    server.stop();
}

#[test]
fn f3_five_hundred_uploads_at_once_on_a_small_budget_all_end() {
    let config =
        format!("[memory]\nbudget = \"64MiB\"\n[streams.hostile]\nschema = \"{SCHEMA}\"\n");
    let (_home, server) = warmed_up(&config);
    let (before, files) = (held(&server), server.open_files());
    // Over a chunk each, so that uploads hold one permit and ask for the next.
    let upload = body(7, 0, 24_000);
    let (accepted, refused, cut) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..512 {
            scope.spawn(|| {
                let request =
                    Request::post("/ingest/hostile", "application/x-ndjson", upload.as_bytes());
                let ended = match request.send(server.address) {
                    Ok(answer) if answer.is_success() => &accepted,
                    Ok(answer) => {
                        let status = answer.status;
                        assert!([429, 503].contains(&status), "{status} {}", answer.text());
                        let header = answer.header("retry-after");
                        assert!(header.is_some(), "F7: {status} without Retry-After");
                        &refused
                    }
                    // Refused, and the answer lost in the reset that followed it.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => &cut,
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => &cut,
                    Err(error) => panic!("an upload did not end well: {error}"),
                };
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    let (accepted, refused, cut) = (accepted.into_inner(), refused.into_inner(), cut.into_inner());
    println!("512 uploads: {accepted} accepted, {refused} refused, {cut} cut");
    assert!(accepted > 0);
    returns_to(&server, &before, files);
    server.drained("hostile");
    let rows = server.number("SELECT count(*) FROM hostile WHERE client = 7");
    assert_eq!(
        rows,
        accepted as u64 * 24_000,
        "F1: the accepted are whole, the refused are not there"
    );
    server.stop();
}

fn each(times: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= times {
                        break;
                    }
                    act(turn);
                }
            });
        }
    });
}
