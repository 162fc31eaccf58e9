//! The tree of contexts as plain data, for a page.
//!
//! Owns nothing. It visits a bounded number of contexts, each under its lock for a moment, and says how many it did not.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::{Cause, Node, ROOTS};
use crate::tasks::Name;

/// At most this many contexts are visited.
const MAX_VISITED: usize = 10_000;

/// At most this many children of one context, so that a server with very many connections shows its other parts too.
const MAX_CHILDREN: usize = 1000;

/// Contexts further below the root are not visited.
const MAX_DEPTH: usize = 32;

/// The contexts of one name below one parent (or, at the top, of one root's name).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Branch {
    /// Their name.
    pub name: Name,
    /// How many they are, as far as visited.
    pub contexts: usize,
    /// How many tasks and threads live in them and below.
    pub live: usize,
    /// How many of them are cancelled.
    pub cancelled: usize,
    /// Why the first of those is.
    pub cause: Option<Cause>,
    /// What is below them; a context without a name is left out, and what is below it is shown in its place.
    pub children: Vec<Branch>,
    /// How many contexts right below them were not visited. The tasks in those are counted in `live` all the same.
    pub unvisited: usize,
}

/// Every live context of the process, from the roots, those of one name and parent together. Visits ten thousand contexts
/// at most, a millisecond's work.
///
/// ```
/// use forebay_flow::{Cause, Ctx, ctx};
/// let app = Ctx::root("tree example");
/// let requests: Vec<_> = (0..3).map(|_| app.child("request")).collect();
/// requests[0].cancel(Cause::Terminated);
/// let tree = ctx::tree();
/// let branch = tree.iter().find(|branch| branch.name == "tree example").unwrap();
/// assert_eq!((branch.children[0].contexts, branch.children[0].cancelled), (3, 1));
/// ```
#[must_use]
pub fn tree() -> Vec<Branch> {
    let roots: Vec<_> =
        ROOTS.lock().values().take(MAX_CHILDREN).filter_map(Weak::upgrade).collect();
    Walk { left: MAX_VISITED.saturating_sub(roots.len()) }.branches(roots, 0)
}

struct Walk {
    left: usize,
}

impl Walk {
    fn branches(&mut self, nodes: Vec<Arc<Node>>, depth: usize) -> Vec<Branch> {
        let mut by_name: BTreeMap<Name, Vec<Arc<Node>>> = BTreeMap::new();
        for node in nodes {
            by_name.entry(node.name.clone()).or_default().push(node);
        }
        by_name.into_iter().map(|(name, nodes)| self.branch(name, nodes, depth)).collect()
    }

    fn branch(&mut self, name: Name, nodes: Vec<Arc<Node>>, depth: usize) -> Branch {
        let causes: Vec<_> =
            nodes.iter().filter_map(|node| node.tree.lock().cause.clone()).collect();
        let (contexts, live) = (nodes.len(), nodes.iter().map(|node| node.members.live()).sum());
        let (below, unvisited) = self.below(nodes, depth);
        Branch {
            name,
            contexts,
            live,
            cancelled: causes.len(),
            cause: causes.into_iter().next(),
            children: self.branches(below, depth + 1),
            unvisited,
        }
    }

    /// The named contexts right below, and how many were passed by.
    fn below(&mut self, mut parents: Vec<Arc<Node>>, depth: usize) -> (Vec<Arc<Node>>, usize) {
        let (mut found, mut passed_by) = (Vec::new(), 0);
        while let Some(parent) = parents.pop() {
            let tree = parent.tree.lock();
            let room = if depth < MAX_DEPTH { self.left.min(MAX_CHILDREN) } else { 0 };
            let visited = tree.children.len().min(room);
            let children: Vec<_> =
                tree.children.values().take(visited).filter_map(Weak::upgrade).collect();
            passed_by += tree.children.len() - visited;
            drop(tree);
            self.left -= visited;
            for child in children {
                if child.name.is_empty() { parents.push(child) } else { found.push(child) }
            }
        }
        (found, passed_by)
    }
}
