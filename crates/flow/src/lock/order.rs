//! In which order locks are taken: one edge from each lock held to each lock then asked for.
//!
//! Owns the graph, within caps: what would pass them is not recorded, and counted. It goes by the lock, not by the place
//! that made it: two accounts locked in the order of their numbers are no inversion. Edges go with their locks. It takes
//! no lock and reads no clock.

use std::collections::HashMap;

use super::report::Order;

/// Edges kept at once.
pub(super) const MAX_EDGES: usize = 65_536;
/// Edges that leave one lock.
pub(super) const MAX_FANOUT: usize = 256;
/// The longest ring of orders looked for.
pub(super) const MAX_RING: usize = 8;
/// Steps of one search.
const MAX_STEPS: usize = 4_096;

/// A lock held besides. Two who hold the same one are never there at once, unless both only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) lock: u64,
    pub(super) shared: bool,
}

impl Gate {
    fn keeps_out(self, other: Self) -> bool {
        self.lock == other.lock && !(self.shared && other.shared)
    }

    /// Whether whoever `other` keeps out, this does.
    fn is_as_strong_as(self, other: Self) -> bool {
        self.lock == other.lock && (!self.shared || other.shared)
    }
}

#[derive(Clone)]
struct Edge {
    to: u64,
    order: Order,
    /// What was held besides, each time.
    gates: Vec<Gate>,
}

impl Edge {
    /// Keeps of the gates what `now` has too.
    fn weaken(&mut self, now: &[Gate]) {
        self.gates.retain_mut(|gate| {
            let same = now.iter().filter(|now| now.lock == gate.lock);
            let Some(shared) = same.map(|now| now.shared).reduce(|a, b| a && b) else {
                return false;
            };
            gate.shared |= shared;
            true
        });
    }

    fn is_gated_from(&self, other: &Self) -> bool {
        self.gates.iter().any(|own| other.gates.iter().any(|gate| own.keeps_out(*gate)))
    }
}

#[derive(Default)]
struct Node {
    out: Vec<Edge>,
    into: Vec<u64>,
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<u64, Node>,
    edges: usize,
    unrecorded: u64,
}

impl Graph {
    /// Whether [`Graph::add`] would change anything.
    pub(super) fn knows(&self, first: u64, then: u64, gates: &[Gate]) -> bool {
        let edges = self.nodes.get(&first).map_or(&[][..], |node| &node.out);
        match edges.iter().find(|edge| edge.to == then) {
            Some(edge) => {
                let kept = |gate: &Gate| gates.iter().any(|now| now.is_as_strong_as(*gate));
                edge.gates.iter().all(kept)
            }
            None => self.edges >= MAX_EDGES || edges.len() >= MAX_FANOUT,
        }
    }

    /// `then` was asked for while `first` and `gates` were held. Gives the orders that lead back from `then` to `first`,
    /// if any do: nobody waits yet, but these together can.
    pub(super) fn add(
        &mut self,
        first: u64,
        then: u64,
        gates: &[Gate],
        order: Order,
    ) -> Option<Vec<Order>> {
        let node = self.nodes.entry(first).or_default();
        let full = self.edges >= MAX_EDGES || node.out.len() >= MAX_FANOUT;
        match node.out.iter_mut().find(|edge| edge.to == then) {
            Some(edge) => edge.weaken(gates),
            None if full => {
                self.unrecorded += 1;
                return None;
            }
            None => {
                node.out.push(Edge { to: then, order: order.clone(), gates: gates.to_vec() });
                self.nodes.entry(then).or_default().into.push(first);
                self.edges += 1;
            }
        }
        let mut steps = MAX_STEPS;
        let mut ring = vec![Edge { to: then, order, gates: gates.to_vec() }];
        // The shortest first: it is the easiest to read.
        let closed = (2..=MAX_RING).any(|most| self.close(&mut ring, first, most, &mut steps));
        closed.then(|| ring.into_iter().map(|edge| edge.order).collect())
    }

    /// Lengthens `ring` up to `most` until it ends at `goal`; leaves it as it was when it cannot.
    fn close(&self, ring: &mut Vec<Edge>, goal: u64, most: usize, steps: &mut usize) -> bool {
        let Some(at) = ring.last().map(|edge| edge.to) else { return false };
        if at == goal {
            return true;
        }
        if ring.len() >= most {
            return false;
        }
        for edge in self.nodes.get(&at).map_or(&[][..], |node| &node.out) {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                return false;
            }
            let again = ring.iter().any(|passed| passed.to == edge.to);
            let gated = ring.iter().any(|passed| passed.is_gated_from(edge));
            if again || gated {
                continue;
            }
            ring.push(edge.clone());
            if self.close(ring, goal, most, steps) {
                return true;
            }
            ring.pop();
        }
        false
    }

    /// The lock is gone, and its edges with it.
    pub(super) fn remove(&mut self, lock: u64) {
        let Some(node) = self.nodes.remove(&lock) else { return };
        self.edges -= node.out.len();
        for edge in &node.out {
            if let Some(after) = self.nodes.get_mut(&edge.to) {
                after.into.retain(|from| *from != lock);
            }
        }
        for from in &node.into {
            if let Some(before) = self.nodes.get_mut(from) {
                let all = before.out.len();
                before.out.retain(|edge| edge.to != lock);
                self.edges -= all - before.out.len();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize, u64) {
        (self.nodes.len(), self.edges, self.unrecorded)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::{Gate, Graph, MAX_FANOUT};
    use crate::lock::holders::Access;
    use crate::lock::report::{Order, Taken};

    fn order(first: u64, then: u64) -> Order {
        let here = Location::caller();
        let taken = |lock: u64| Taken {
            lock: ["a", "b", "c", "d"][lock as usize % 4],
            made_at: here,
            access: Access::Lock,
            taken_at: here,
        };
        Order { first: taken(first), then: taken(then), who: String::new() }
    }

    /// A gate that is only read has a number above this.
    const READ: u64 = 1_000;

    fn gates(gates: &[u64]) -> Vec<Gate> {
        let gate = |gate: &u64| Gate { lock: gate % READ, shared: *gate > READ };
        gates.iter().map(gate).collect()
    }

    fn add(graph: &mut Graph, first: u64, then: u64, held: &[u64]) -> Option<usize> {
        graph.add(first, then, &gates(held), order(first, then)).map(|ring| ring.len())
    }

    #[test]
    fn a_ring_is_found_when_its_last_order_is_seen() {
        let mut graph = Graph::default();
        assert_eq!(add(&mut graph, 0, 1, &[]), None);
        assert_eq!(add(&mut graph, 1, 2, &[]), None);
        assert_eq!(add(&mut graph, 0, 2, &[]), None);
        assert_eq!(add(&mut graph, 2, 0, &[]), Some(2));
        assert_eq!(add(&mut graph, 2, 3, &[]), None);
        assert_eq!(add(&mut graph, 3, 1, &[]), Some(3));
    }

    #[test]
    fn orders_under_one_gate_are_no_ring_until_one_is_seen_without_it() {
        let mut graph = Graph::default();
        assert_eq!(add(&mut graph, 0, 1, &[9]), None);
        assert_eq!(add(&mut graph, 1, 0, &[9, 8]), None);
        assert!(graph.knows(1, 0, &gates(&[8, 9])));
        assert!(!graph.knows(1, 0, &gates(&[8])));
        assert_eq!(add(&mut graph, 1, 0, &[8]), Some(2));
    }

    #[test]
    fn a_gate_that_both_only_read_is_none() {
        let mut graph = Graph::default();
        assert_eq!(add(&mut graph, 0, 1, &[READ + 9]), None);
        assert_eq!(add(&mut graph, 1, 0, &[9]), None, "one of them writes");
        assert!(!graph.knows(1, 0, &gates(&[READ + 9])));
        assert_eq!(add(&mut graph, 1, 0, &[READ + 9]), Some(2), "weaker than before");
        assert_eq!(add(&mut graph, 2, 3, &[READ + 9]), None);
        assert_eq!(add(&mut graph, 3, 2, &[READ + 9]), Some(2));
    }

    #[test]
    fn edges_go_with_their_lock_and_the_caps_hold() {
        let mut graph = Graph::default();
        for then in 1..=MAX_FANOUT as u64 + 1 {
            add(&mut graph, 0, then, &[]);
        }
        assert_eq!(graph.len(), (MAX_FANOUT + 1, MAX_FANOUT, 1));
        add(&mut graph, 1, 2, &[]);
        graph.remove(0);
        assert_eq!(graph.len(), (MAX_FANOUT, 1, 1));
        assert_eq!(add(&mut graph, 1, 0, &[]), None);
        graph.remove(1);
        assert_eq!(graph.len().1, 0);
    }
}
