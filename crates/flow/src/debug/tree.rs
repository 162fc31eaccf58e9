//! `/debug/tree`: who supervises whom, and which context holds what.
//!
//! Owns nothing. Supervisors and contexts are two views of the same program: the first shows states and restarts, the
//! second shows also what no supervisor knows of.

use serde_json::{Value, json};

use super::query::Query;
use super::tasks::millis;
use super::{Page, Table, left_off};
use crate::clock::{self, Instant};
use crate::ctx::{self, Branch};
use crate::supervise::{self, Node, NodeKind};

pub(super) fn page(query: &Query) -> Page {
    let (supervisors, contexts) = (supervise::tree(), ctx::tree());
    let now = clock::now();
    Page::new(
        query.format,
        || text(&supervisors, &contexts, query.limit, now),
        || {
            let (mut of_nodes, mut of_branches) = (Cut::at(query.limit), Cut::at(query.limit));
            json!({
                "supervisors": of_nodes.keep(&supervisors, |node, cut| node_json(node, now, cut)),
                "supervisors_left_off": of_nodes.left_off,
                "contexts": of_branches.keep(&contexts, branch_json),
                "contexts_left_off": of_branches.left_off,
            })
        },
    )
}

/// How much of a tree is shown yet.
struct Cut {
    room: usize,
    left_off: usize,
}

impl Cut {
    fn at(room: usize) -> Self {
        Self { room, left_off: 0 }
    }

    /// Whether one more is shown.
    fn take(&mut self) -> bool {
        let shown = self.room > 0;
        self.room = self.room.saturating_sub(1);
        self.left_off += usize::from(!shown);
        shown
    }

    fn keep<T>(&mut self, list: &[T], mut show: impl FnMut(&T, &mut Self) -> Value) -> Vec<Value> {
        let mut shown = Vec::new();
        for one in list {
            if self.take() {
                shown.push(show(one, self));
            }
        }
        shown
    }
}

fn text(supervisors: &[Node], contexts: &[Branch], limit: usize, now: Instant) -> String {
    let mut out = String::from("supervisors\n\n");
    let (mut table, mut cut) =
        (Table::new(&["name", "kind", "state", "for", "restarts", "last exit"]), Cut::at(limit));
    supervisors.iter().for_each(|node| node_rows(node, 0, now, &mut table, &mut cut));
    table.write(&mut out);
    left_off(&mut out, cut.left_off, "children or supervisors");
    out.push_str("\ncontexts\n\n");
    let (mut table, mut cut) =
        (Table::new(&["name", "tasks", "contexts", "cancelled"]), Cut::at(limit));
    contexts.iter().for_each(|branch| branch_rows(branch, 0, &mut table, &mut cut));
    table.write(&mut out);
    left_off(&mut out, cut.left_off, "contexts");
    out
}

fn indented(depth: usize, name: &str) -> String {
    format!("{:indent$}{name}", "", indent = 2 * depth)
}

fn node_rows(node: &Node, depth: usize, now: Instant, table: &mut Table, cut: &mut Cut) {
    if cut.take() {
        table.row(vec![
            indented(depth, &node.name),
            node.strategy.map_or(node.kind.as_str(), |strategy| strategy.as_str()).to_owned(),
            node.state.as_str().to_owned(),
            format!("{} s", now.saturating_duration_since(node.since).as_secs()),
            node.restarts.to_string(),
            node.last_exit.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    node.children.iter().for_each(|child| node_rows(child, depth + 1, now, table, cut));
}

fn branch_rows(branch: &Branch, depth: usize, table: &mut Table, cut: &mut Cut) {
    if cut.take() {
        let cause = branch.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        table.row(vec![
            indented(depth, &branch.name),
            branch.live.to_string(),
            branch.contexts.to_string(),
            match branch.cancelled {
                0 => String::new(),
                1 => cause,
                more => format!("{more}: {cause}"),
            },
        ]);
    }
    branch.children.iter().for_each(|child| branch_rows(child, depth + 1, table, cut));
    cut.left_off += branch.unvisited;
}

fn node_json(node: &Node, now: Instant, cut: &mut Cut) -> Value {
    json!({
        "name": node.name,
        "kind": match node.kind {
            NodeKind::Supervisor => "supervisor",
            NodeKind::Worker => "worker",
        },
        "strategy": node.strategy.map(|strategy| strategy.as_str()),
        "state": node.state.as_str(),
        "restarts": node.restarts,
        "for_ms": millis(now.saturating_duration_since(node.since)),
        "last_exit": node.last_exit.as_ref().map(ToString::to_string),
        "children": cut.keep(&node.children, |child, cut| node_json(child, now, cut)),
    })
}

fn branch_json(branch: &Branch, cut: &mut Cut) -> Value {
    cut.left_off += branch.unvisited;
    json!({
        "name": branch.name,
        "contexts": branch.contexts,
        "live": branch.live,
        "cancelled": branch.cancelled,
        "cause": branch.cause.as_ref().map(ToString::to_string),
        "children": cut.keep(&branch.children, branch_json),
    })
}
