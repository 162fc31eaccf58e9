//! `/debug/tasks`: the dump, filtered and cut.
//!
//! Owns nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::query::{Format, Query};
use super::{Page, left_off};
use crate::dump::{self, Dump, Group, Stack};
use crate::tasks::{Kind, State};

/// How many groups are written before the thread is given up: a hundred microseconds at most.
const SLICE: usize = 16;

pub(super) async fn page(query: &Query) -> Page {
    let mut dump = dump::gather().await;
    dump.groups.retain(|group| {
        group.name.contains(&query.name)
            && (query.place.is_empty() || group.location.to_string().contains(&query.place))
    });
    let shown = dump.groups.len().min(query.limit);
    let left_off = dump.groups.split_off(shown);
    dump.add_stacks(query.stacks).await;
    match query.format {
        Format::Text => Page { text: text(&dump, &left_off).await, json: None },
        Format::Json => Page { text: String::new(), json: Some(as_json(&dump, &left_off).await) },
    }
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.count).sum()
}

/// Writes the list, and lets other tasks run after every few of it.
async fn written<T>(list: &[T], between: &str, write: impl Fn(&T) -> String) -> String {
    let mut out = String::new();
    for some in list.chunks(SLICE) {
        for one in some {
            out.push_str(if out.is_empty() { "" } else { between });
            out.push_str(&write(one));
        }
        tokio::task::yield_now().await;
    }
    out
}

async fn text(dump: &Dump, rest: &[Group]) -> String {
    let found = count(&dump.groups) + count(rest);
    let groups = dump.groups.len() + rest.len();
    let mut out = match dump.tasks - found {
        0 => format!("{found} tasks in {groups} groups\n"),
        _ => format!("{found} of {} tasks in {groups} groups\n", dump.tasks),
    };
    let width = dump.groups.iter().map(|group| group.count).max().unwrap_or_default();
    let width = width.to_string().len();
    out.push_str(&written(&dump.groups, "", |group| format!("\n{group:width$}")).await);
    left_off(&mut out, rest.len(), &format!("groups with {} tasks", count(rest)));
    out
}

async fn as_json(dump: &Dump, rest: &[Group]) -> String {
    let groups = written(&dump.groups, ",", |one| group(one).to_string()).await;
    let left_off = json!({ "groups": rest.len(), "tasks": count(rest) });
    format!(r#"{{"groups":[{groups}],"left_off":{left_off},"tasks":{}}}"#, dump.tasks)
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_long_page_is_written_between_other_tasks_turns() {
        let numbers: Vec<_> = (0..10 * SLICE).collect();
        let mut writing = pin!(written(&numbers, ",", ToString::to_string));
        let mut turns = 0;
        let page = loop {
            match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(page) => break page,
                Poll::Pending => turns += 1,
            }
        };
        assert_eq!(turns, 10);
        let read: Vec<usize> = page.split(',').filter_map(|number| number.parse().ok()).collect();
        assert_eq!(read, numbers);
    }
}
