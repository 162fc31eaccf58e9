//! `/debug/queues`: the table of the queue registry.
//!
//! Owns nothing.

use serde_json::{Value, json};

use super::query::Query;
use super::{Page, Table, left_off};
use crate::queue::{self, QueueInfo};

pub(super) fn page(query: &Query) -> Page {
    let mut queues = queue::snapshot();
    queues.retain(|queue| queue.name.contains(&query.name));
    let rest = queues.split_off(queues.len().min(query.limit)).len();
    Page::new(query.format, || text(&queues, rest), || as_json(&queues, rest))
}

fn text(queues: &[QueueInfo], rest: usize) -> String {
    let mut out = format!("{} queues\n\n", queues.len() + rest);
    let mut table = Table::new(&[
        "name",
        "depth",
        "bound",
        "unit",
        "when full",
        "senders",
        "receivers",
        "sent",
        "blocked",
        "blocked for",
        "dropped",
        "rejected",
        "shed",
        "why",
    ]);
    for queue in queues {
        let closed = if queue.closed { " (closed)" } else { "" };
        table.row(vec![
            format!("{}{closed}", queue.name),
            queue.depth.to_string(),
            queue.capacity.to_string(),
            queue.unit.to_owned(),
            queue.policy.to_owned(),
            queue.waiters.to_string(),
            queue.receivers_waiting.to_string(),
            queue.sent.to_string(),
            queue.blocked.to_string(),
            format!("{:.1} s", queue.blocked_seconds),
            queue.dropped.to_string(),
            queue.rejected.to_string(),
            queue.shed.to_string(),
            queue.why.to_owned(),
        ]);
    }
    table.write(&mut out);
    left_off(&mut out, rest, "queues");
    out
}

fn as_json(queues: &[QueueInfo], rest: usize) -> Value {
    let queue = |queue: &QueueInfo| {
        json!({
            "name": queue.name,
            "unit": queue.unit,
            "capacity": queue.capacity,
            "depth": queue.depth,
            "items": queue.items,
            "policy": queue.policy,
            "who_waits": queue.who_waits,
            "failure_mode": queue.failure_mode,
            "why": queue.why,
            "closed": queue.closed,
            "waiters": queue.waiters,
            "receivers_waiting": queue.receivers_waiting,
            "sent": queue.sent,
            "received": queue.received,
            "blocked": queue.blocked,
            "blocked_seconds": queue.blocked_seconds,
            "dropped": queue.dropped,
            "rejected": queue.rejected,
            "shed": queue.shed,
            "expired": queue.expired,
        })
    };
    json!({ "queues": queues.iter().map(queue).collect::<Vec<_>>(), "left_off": rest })
}
