//! What the kernel saw: no 202 before its fdatasync, no checkpoint before the table is on disk (F1, F2).

use std::fs;
use std::process::Command;

use crate::clients::{SCHEMA, body};
use crate::server::{Home, term};
use crate::trace::{CALLS, Trace};
use crate::wait::{PATIENCE, eventually};

#[test]
fn f1_no_202_leaves_before_its_sync_and_no_checkpoint_before_the_table_is_synced() {
    let Some(strace) = std::env::var_os("FOREBAY_STRACE")
        .or_else(|| Command::new("strace").arg("-V").output().ok().map(|_| "strace".into()))
    else {
        println!("skipped: there is no strace");
        return;
    };
    let home = Home::new(&format!(
        "[flush]\ninterval = \"300ms\"\n[streams.traced]\nschema = \"{SCHEMA}\"\n"
    ));
    let output = home.path("trace");
    let mut command = Command::new(strace);
    command.args(["-f", "-y", "-s", "64", "-e", CALLS, "-o"]).arg(&output);
    command.arg("--").arg(env!("CARGO_BIN_EXE_forebay")).args(home.arguments());
    let mut server = home.start_as(command);
    let trace = || Trace::parse(&fs::read_to_string(&output).unwrap());

    for round in 0..4 {
        // Rows that do not compress to less than a block.
        for post in 0..5 {
            let answer = server.ingest("traced", &incompressible(round * 10 + post));
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        // Nothing else is flushed until the checkpoint of this flush is written.
        let before = trace().checkpoints();
        let answer = server.ingest("traced?ack=stored", &body(9, round, 3));
        assert_eq!(answer.status, 200, "{}", answer.text());
        eventually("a checkpoint is written", || (trace().checkpoints() > before).then_some(()));
        server.drained("traced");
    }
    term(traced_child(server.pid()));
    server.exit_within(PATIENCE);

    let trace = trace();
    assert!(
        trace.acks() >= 20,
        "{} acks seen: is the answer's first line its own write?",
        trace.acks()
    );
    assert!(trace.checkpoints() >= 4 && trace.published() >= 8, "{trace:#?}");
    assert_eq!(trace.acks_before_sync(), Vec::<String>::new(), "F1");
    assert_eq!(trace.checkpoints_before_sync(), Vec::<String>::new(), "F2");
}

/// About 40 KiB that LZ4 cannot shrink below 8 KiB.
fn incompressible(post: u64) -> String {
    let mut chance = crate::wait::Chance::printed("rows");
    let row = |line| {
        let pad: String = (0..4).map(|_| format!("{:016x}", chance.next())).collect();
        format!("{{\"client\":1,\"post\":{post},\"line\":{line},\"pad\":\"{pad}\"}}\n")
    };
    (0..400).map(row).collect()
}

/// strace's child: it does not hand signals on.
fn traced_child(strace: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}
