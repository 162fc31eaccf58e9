//! A dump on SIGQUIT, by a process whose runtime hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use forebay_flow::lock::{Checks, Mutex};
use forebay_flow::{Ctx, Task, deadlock, dump, leak, sigquit, thread};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Barrier;

use crate::rig::until_on_thread;

const CHILD: &str = "FLOW_TEST_SIGQUIT_CHILD";

/// The child: two worker threads, both blocked inside a poll, until a line comes from the parent.
fn be_the_child() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _in = runtime.enter();
    let ctx = Ctx::root("child");
    let _sigquit = sigquit::dump_to_stderr(&ctx).unwrap();
    let block = |name: &'static str, free: Receiver<()>| {
        ctx.spawn(name, async move { free.recv().unwrap() })
    };
    let _unchecked = Checks::off().report_to(&ctx, |_| ());
    let deadlocked = embrace(&ctx);
    until_on_thread(|| !deadlock::find().is_empty());
    let ((free_a, a), (free_b, b)) = (sync_channel(1), sync_channel(1));
    let (first, second) = (block("blocks-a", a), block("blocks-b", b));
    until_on_thread(|| dump::take().to_string().matches("× blocks-").count() == 2);
    until_on_thread(|| !dump::take().to_string().contains("[idle"));
    let behind = ctx.spawn("never-polled", async {});
    // The lock of stderr, held for ever, does not hinder it either.
    let held = std::io::stderr().lock();
    println!("blocked");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(held);
    free_a.send(()).unwrap();
    free_b.send(()).unwrap();
    drop(deadlocked);
    for task in [first, second, behind] {
        runtime.block_on(task).unwrap();
    }
    println!("went on");
}

#[test]
fn sigquit_writes_a_dump_while_every_runtime_thread_is_blocked_and_the_program_goes_on() {
    if std::env::var_os(CHILD).is_some() {
        return be_the_child();
    }
    let name = "sigquit::sigquit_writes_a_dump_while_every_runtime_thread_is_blocked_and_the_program_goes_on";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // If it hangs after all, this ends it, and every read below fails loudly.
    let ctx = Ctx::root("t");
    let (over, watched) = sync_channel::<()>(1);
    let watchdog = thread::spawn(&ctx, "watchdog", move |_ctx| {
        if watched.recv_timeout(Duration::from_secs(60)).is_err() {
            child.kill().unwrap();
        }
        child.wait().unwrap()
    })
    .unwrap();
    let mut line = String::new();
    while !line.contains("blocked") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the child ended early");
    }
    for _ in 0..2 {
        kill_process(pid, Signal::QUIT).unwrap();
        let dump = read_dump(&mut stderr);
        assert!(dump.starts_with("SIGQUIT: ") && dump.contains(" tasks in "), "{dump}");
        assert!(dump.contains("1 × blocks-a [running for "), "{dump}");
        assert!(dump.contains("1 × blocks-b [running for "), "{dump}");
        assert!(dump.contains("1 × never-polled [idle, "), "{dump}");
        assert!(dump.contains("2 tasks wait for each other\n"), "{dump}");
        assert!(dump.contains("child/left (task "), "{dump}");
    }
    stdin.write_all(b"go on\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    over.send(()).unwrap();
    let status = watchdog.join_blocking().unwrap();
    assert!(rest.contains("went on") && status.success(), "{status}: {rest}");
}

/// One dump, to its last line.
fn read_dump(stderr: &mut impl BufRead) -> String {
    let mut dump = String::new();
    while !dump.ends_with("\nend of dump\n") {
        assert_ne!(stderr.read_line(&mut dump).unwrap(), 0, "the child ended: {dump}");
    }
    dump
}

/// Two tasks, each with the lock the other waits for.
fn embrace(ctx: &Ctx) -> [Task<()>; 2] {
    let one = Arc::new((Mutex::new("east", ()), Mutex::new("west", ())));
    let (two, met) = (Arc::clone(&one), Arc::new(Barrier::new(2)));
    let meets = Arc::clone(&met);
    [
        ctx.spawn("left", async move {
            let _east = one.0.lock().await;
            met.wait().await;
            drop(one.1.lock().await);
        }),
        ctx.spawn("right", async move {
            let _west = two.1.lock().await;
            meets.wait().await;
            drop(two.0.lock().await);
        }),
    ]
}

#[tokio::test]
async fn the_guards_drop_ends_its_thread() {
    let ctx = Ctx::root("t");
    let sigquit = sigquit::dump_to_stderr(&ctx).unwrap();
    assert_eq!(ctx.live(), 1);
    drop(sigquit);
    leak::check(&ctx).await.unwrap();
}
