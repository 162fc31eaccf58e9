//! Dead letters sent again while the process is killed: each row once, whatever was cut short (F2).

use serde_json::json;

use crate::http::Request;
use crate::server::{Home, Server};
use crate::wait::{Chance, pause};

const ROWS: u64 = 2000;

/// Keys are remembered for next to no time: what keeps a row single must not hang on them.
fn home(check: &str) -> String {
    format!(
        "[flush]\ninterval = \"30ms\"\n[keys]\nwindow = \"1ms\"\n[streams.s]\n\
         schema = \"n BIGINT NOT NULL {check}\"\n"
    )
}

fn redrive(server: &Server) -> Option<(u16, serde_json::Value)> {
    let body = json!({"stream": "s", "limit": 10_000}).to_string();
    let request =
        Request::post("/api/v1/dead-letters/redrive", "application/json", body.as_bytes());
    let answer = request.send(server.address).ok()?;
    Some((answer.status, answer.json()))
}

#[test]
fn f2_f6_a_redrive_cut_by_kills_and_done_again_adds_each_row_once() {
    let home = Home::new(&home("CHECK (n < 0)"));
    let server = home.start();
    let body: String = (0..ROWS).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let answer = server.ingest("s", &format!("{{\"n\":-1}}\n{body}"));
    assert_eq!(answer.status, 202, "{}", answer.text());
    server.drained("s");
    server.stop();

    // The fix: the check is gone.
    home.configure(&self::home(""));
    let mut chance = Chance::printed("letters");
    for _ in 0..6 {
        let server = home.start();
        let address = server.address;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let body = json!({"stream": "s", "limit": 300}).to_string();
                let path = "/api/v1/dead-letters/redrive";
                let request = Request::post(path, "application/json", body.as_bytes());
                drop(request.send(address));
            });
            for _ in 0..chance.below(12) {
                pause();
            }
            server.kill();
        });
    }
    let server = home.start();
    let (status, answer) = redrive(&server).unwrap();
    assert_eq!((status, &answer["refused"]), (200, &json!(0)), "{answer}");
    let counted = |name: &str| answer[name].as_u64().unwrap();
    assert_eq!(counted("accepted") + counted("already_redriven"), ROWS, "{answer}");
    let (_, again) = redrive(&server).unwrap();
    assert_eq!(
        (&again["accepted"], &again["already_redriven"]),
        (&json!(0), &json!(ROWS)),
        "{again}"
    );
    let ledger = server.drained("s");
    assert_eq!(ledger["stored"], json!(ROWS + 1), "F6: {ledger}");
    assert_eq!(server.number("SELECT count(*) FROM s"), ROWS + 1, "F2");
    assert_eq!(server.number("SELECT count(DISTINCT n) FROM s"), ROWS + 1, "F1");
    server.stop();
}
