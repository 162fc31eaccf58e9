//! `/debug/tasks`: the dump, filtered and cut.
//!
//! Owns nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::query::Query;
use super::{Page, left_off};
use crate::dump::{self, Dump, Group, Stack};
use crate::tasks::{Kind, State};

pub(super) async fn page(query: &Query) -> Page {
    let mut dump = dump::gather().await;
    dump.groups.retain(|group| {
        group.name.contains(&query.name)
            && (query.place.is_empty() || group.location.to_string().contains(&query.place))
    });
    let shown = dump.groups.len().min(query.limit);
    let left_off = dump.groups.split_off(shown);
    dump.add_stacks(query.stacks).await;
    Page::new(query.format, || text(&dump, &left_off), || as_json(&dump, &left_off))
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.count).sum()
}

fn text(dump: &Dump, rest: &[Group]) -> String {
    let found = count(&dump.groups) + count(rest);
    let groups = dump.groups.len() + rest.len();
    let mut out = match dump.tasks - found {
        0 => format!("{found} tasks in {groups} groups\n"),
        _ => format!("{found} of {} tasks in {groups} groups\n", dump.tasks),
    };
    let width = dump.groups.iter().map(|group| group.count).max().unwrap_or_default();
    let width = width.to_string().len();
    for group in &dump.groups {
        out.push_str(&format!("\n{group:width$}"));
    }
    left_off(&mut out, rest.len(), &format!("groups with {} tasks", count(rest)));
    out
}

fn as_json(dump: &Dump, rest: &[Group]) -> Value {
    json!({
        "tasks": dump.tasks,
        "groups": dump.groups.iter().map(group).collect::<Vec<_>>(),
        "left_off": { "groups": rest.len(), "tasks": count(rest) },
    })
}

fn group(group: &Group) -> Value {
    json!({
        "name": group.name,
        "kind": match group.kind {
            Kind::Task => "task",
            Kind::Thread => "thread",
        },
        "spawned_at": group.location.to_string(),
        "state": match group.state {
            State::Running => "running",
            State::Idle => "idle",
        },
        "count": group.count,
        "oldest_ms": millis(group.oldest),
        "waiting_on": group.waiting_on,
        "longest_wait_ms": group.longest_wait.map(millis),
        "longest_poll_ms": group.longest_poll.map(millis),
        "stacks": group.stacks.iter().map(stack).collect::<Vec<_>>(),
    })
}

fn stack(stack: &Stack) -> Value {
    let frame = |frame: &dump::Frame| json!({ "function": frame.function, "place": frame.place });
    let leaf = |leaf: &Vec<dump::Frame>| Value::Array(leaf.iter().map(frame).collect());
    json!({
        "task": stack.task,
        "leaves": stack.leaves.iter().map(leaf).collect::<Vec<_>>(),
        "leaves_left_off": stack.more,
    })
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
