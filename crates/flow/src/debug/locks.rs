//! `/debug/locks`: locks by the place that made them, and tasks that wait for each other.
//!
//! Owns the turn to look for those: it takes two looks at every task, so it is done off the runtime, one at a time.

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::query::Query;
use super::tasks::millis;
use super::{Page, Table, left_off};
use crate::clock;
use crate::deadlock::{self, Cycle, Stuck};
use crate::lock::{self, Holder, Kind, LockInfo};

#[expect(clippy::disallowed_methods, reason = "a lock between pages, which wait for nothing else")]
static TURN: Semaphore = Semaphore::const_new(1);

pub(super) async fn page(query: &Query) -> Page {
    let mut locks = lock::snapshot();
    locks.retain(|lock| {
        lock.name.contains(&query.name) && lock.made_at.to_string().contains(&query.place)
    });
    let rest = locks.split_off(locks.len().min(query.limit)).len();
    let mut cycles = cycles().await;
    let more_cycles = cycles.split_off(cycles.len().min(query.limit)).len();
    Page::new(
        query.format,
        || text(&locks, rest, &cycles, more_cycles),
        || {
            json!({
                "locks": locks.iter().map(lock_json).collect::<Vec<_>>(),
                "locks_left_off": rest,
                "deadlocks": cycles.iter().map(cycle_json).collect::<Vec<_>>(),
                "deadlocks_left_off": more_cycles,
            })
        },
    )
}

async fn cycles() -> Vec<Cycle> {
    // The semaphore is never closed; without a turn there would only be more looks at once.
    let _turn = TURN.acquire().await;
    #[expect(clippy::disallowed_methods, reason = "one at a time, and awaited")]
    let found = tokio::task::spawn_blocking(deadlock::find);
    // It fails only when the runtime is shutting down.
    found.await.unwrap_or_default()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Mutex => "async",
        Kind::SyncMutex => "sync",
        Kind::RwLock => "async rw",
        Kind::SyncRwLock => "sync rw",
    }
}

fn text(locks: &[LockInfo], rest: usize, cycles: &[Cycle], more_cycles: usize) -> String {
    let mut out = match cycles.len() + more_cycles {
        0 => "no tasks wait for each other\n\n".to_owned(),
        n => format!("{n} deadlocks\n\n"),
    };
    cycles.iter().for_each(|cycle| out.push_str(&format!("{cycle}\n\n")));
    left_off(&mut out, more_cycles, "deadlocks");
    out.push_str("locks by the place that made them, the most waited for first\n\n");
    let mut table = Table::new(&[
        "name",
        "kind",
        "locks",
        "waiting",
        "contended",
        "waited",
        "longest",
        "made at",
        "held by",
    ]);
    for lock in locks {
        table.row(vec![
            lock.name.to_owned(),
            kind(lock.kind).to_owned(),
            lock.locks.to_string(),
            lock.waiters.to_string(),
            lock.contended.to_string(),
            format!("{:.3} s", lock.wait.as_secs_f64()),
            format!("{:.3} s", lock.longest_wait.as_secs_f64()),
            lock.made_at.to_string(),
            lock.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        ]);
    }
    table.write(&mut out);
    left_off(&mut out, rest, "places");
    out
}

fn lock_json(lock: &LockInfo) -> Value {
    let holder = |holder: &Holder| {
        json!({
            "task": holder.task,
            "who": holder.who,
            "holds": holder.access.words(),
            "held_ms": holder.since.map(|at| millis(clock::now().saturating_duration_since(at))),
            "taken_at": holder.taken_at.map(ToString::to_string),
        })
    };
    json!({
        "name": lock.name,
        "kind": kind(lock.kind),
        "made_at": lock.made_at.to_string(),
        "locks": lock.locks,
        "waiting": lock.waiters,
        "contended": lock.contended,
        "waited_ms": millis(lock.wait),
        "longest_wait_ms": millis(lock.longest_wait),
        "holders": lock.holders.iter().map(holder).collect::<Vec<_>>(),
    })
}

fn cycle_json(cycle: &Cycle) -> Value {
    let held = |held: &deadlock::Held| json!({ "what": held.what, "taken_at": held.taken_at.map(ToString::to_string) });
    let stuck = |stuck: &Stuck| {
        json!({
            "task": stuck.id,
            "name": stuck.name,
            "parent": stuck.parent,
            "spawned_at": stuck.location.to_string(),
            "age_ms": millis(stuck.age),
            "holds": stuck.holds.iter().map(held).collect::<Vec<_>>(),
            "waits_for": stuck.waits_for,
            "waited_ms": millis(stuck.waited),
        })
    };
    json!({
        "tasks": cycle.tasks.iter().map(stuck).collect::<Vec<_>>(),
        "behind": cycle.behind,
    })
}
