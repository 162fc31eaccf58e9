//! Who waits for ever: by striking out, again and again, all who can still go on.
//!
//! Owns nothing: a pure function of who waits and who could end each wait.
//!
//! ```text
//! runs ◄── waits ◄── waits        struck out, from left to right
//!          waits ─► waits ─► …    what is left: the knot is a ring, or rings that share members,
//!            ▲────────┘           and behind it are those who wait for it
//! ```

use std::collections::{HashMap, HashSet};

/// Which of the holders must go on, for a wait to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Any of them: one slot that comes back, one receiver that makes room.
    ByAny,
    /// All of them. A lock has but one.
    ByAll,
}

/// What can be waited for. A holder that waits for nothing goes on, and what nobody holds is had.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) ends: Ends,
    pub(super) holders: Vec<u64>,
}

/// One wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) who: u64,
    /// The position of what it waits for.
    pub(super) on: usize,
}

/// Some who wait for each other, all for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knot {
    /// Positions in the waits, from the oldest on along who waits for whom.
    pub(super) members: Vec<usize>,
    /// How many more wait for them.
    pub(super) behind: usize,
}

/// Everything but what can go on, as knots. Each who waits must be there once, with a resource that is there.
pub(super) fn knots(waits: &[Wait], resources: &[Resource]) -> Vec<Knot> {
    let graph = Graph::new(waits, resources);
    let stuck = graph.stuck();
    let mut knots: Vec<_> = graph
        .rings(&stuck)
        .into_iter()
        .map(|ring| {
            let behind = graph.behind(&ring, &stuck);
            Knot { members: graph.in_order(waits, &ring), behind }
        })
        .collect();
    knots.sort_by_key(|knot| knot.members.first().map(|at| waits[*at].who));
    knots
}

/// The waits, and after them the resources, as one graph: a wait points at its resource, a resource at those of its
/// holders that wait. So it has as many edges as there are waits and holders, however many wait for one thing.
struct Graph {
    waits: usize,
    to: Vec<Vec<usize>>,
    back: Vec<Vec<usize>>,
    any: Vec<bool>,
    /// Those that go on whatever the others do.
    free: Vec<usize>,
}

impl Graph {
    fn new(waits: &[Wait], resources: &[Resource]) -> Self {
        let at: HashMap<u64, usize> =
            waits.iter().enumerate().map(|(at, wait)| (wait.who, at)).collect();
        let nodes = waits.len() + resources.len();
        let mut graph = Self {
            waits: waits.len(),
            to: Vec::with_capacity(nodes),
            back: vec![Vec::new(); nodes],
            any: vec![false; waits.len()],
            free: Vec::new(),
        };
        graph.to.extend(waits.iter().map(|wait| vec![waits.len() + wait.on]));
        for (own, resource) in resources.iter().enumerate() {
            let mut ids = resource.holders.clone();
            ids.sort_unstable();
            ids.dedup();
            let waiting: Vec<_> = ids.iter().filter_map(|id| at.get(id).copied()).collect();
            let any = resource.ends == Ends::ByAny;
            if waiting.is_empty() || any && waiting.len() < ids.len() {
                graph.free.push(waits.len() + own);
            }
            graph.any.push(any);
            graph.to.push(waiting);
        }
        for (own, to) in graph.to.iter().enumerate() {
            to.iter().for_each(|other| graph.back[*other].push(own));
        }
        graph
    }

    /// Strikes out who goes on, then who waits only for those, and so on.
    fn stuck(&self) -> Vec<bool> {
        let mut stuck = vec![true; self.to.len()];
        let mut left: Vec<_> = self.to.iter().map(Vec::len).collect();
        let mut go_on = self.free.clone();
        go_on.iter().for_each(|at| stuck[*at] = false);
        while let Some(at) = go_on.pop() {
            for other in &self.back[at] {
                left[*other] -= 1;
                let ends = self.any[*other] || left[*other] == 0;
                if ends && std::mem::take(&mut stuck[*other]) {
                    go_on.push(*other);
                }
            }
        }
        stuck
    }

    /// The strongly connected parts of what is stuck that are rings (Tarjan's way, without recursion). A wait and its
    /// resource are two, so a part of one is no ring.
    fn rings(&self, stuck: &[bool]) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let (mut index, mut low) = (vec![UNSEEN; stuck.len()], vec![0; stuck.len()]);
        let (mut open, mut is_open) = (Vec::new(), vec![false; stuck.len()]);
        let (mut next, mut rings) = (0, Vec::new());
        for root in (0..stuck.len()).filter(|at| stuck[*at]) {
            // Each frame: where it is, and how many of its holders it has gone to.
            let mut frames = if index[root] == UNSEEN { vec![(root, 0)] } else { Vec::new() };
            while let Some((at, gone)) = frames.pop() {
                if gone == 0 {
                    (index[at], low[at]) = (next, next);
                    next += 1;
                    open.push(at);
                    is_open[at] = true;
                } else {
                    let below = self.to[at][gone - 1];
                    if is_open[below] {
                        low[at] = low[at].min(low[below]);
                    }
                }
                let rest = self.to[at].iter().enumerate().skip(gone);
                if let Some((to, below)) = rest.map(|(to, h)| (to, *h)).find(|(_, h)| stuck[*h]) {
                    frames.push((at, to + 1));
                    if index[below] == UNSEEN {
                        frames.push((below, 0));
                    } else if is_open[below] {
                        low[at] = low[at].min(index[below]);
                    }
                    continue;
                }
                if low[at] == index[at] {
                    let from = open.iter().rposition(|member| *member == at).unwrap_or(0);
                    let members = open.split_off(from);
                    members.iter().for_each(|member| is_open[*member] = false);
                    if members.len() > 1 {
                        rings.push(members);
                    }
                }
            }
        }
        rings
    }

    /// How many stuck waits outside of `ring` are for something in it, or for one who waits so.
    fn behind(&self, ring: &[usize], stuck: &[bool]) -> usize {
        let mut seen = vec![false; stuck.len()];
        ring.iter().for_each(|at| seen[*at] = true);
        let mut todo = ring.to_vec();
        let mut count = 0;
        while let Some(at) = todo.pop() {
            for other in &self.back[at] {
                if stuck[*other] && !std::mem::replace(&mut seen[*other], true) {
                    count += usize::from(*other < self.waits);
                    todo.push(*other);
                }
            }
        }
        count
    }

    /// The waits of `ring`, from the oldest on along the edges.
    fn in_order(&self, waits: &[Wait], ring: &[usize]) -> Vec<usize> {
        let mut rest: HashSet<_> = ring.iter().copied().collect();
        let oldest = ring.iter().copied().filter(|at| *at < self.waits);
        let mut todo: Vec<_> = oldest.min_by_key(|at| waits[*at].who).into_iter().collect();
        let mut order = Vec::new();
        while let Some(at) = todo.pop() {
            if rest.remove(&at) {
                order.extend((at < self.waits).then_some(at));
                todo.extend(self.to[at].iter().rev());
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Ends, Graph, Knot, Resource, Wait, knots};

    /// Waits with a resource each, by who waits.
    fn each(waits: &[(u64, Ends, &[u64])]) -> Vec<Knot> {
        let resources: Vec<_> = waits
            .iter()
            .map(|(_, ends, holders)| Resource { ends: *ends, holders: holders.to_vec() })
            .collect();
        let waits: Vec<_> =
            waits.iter().enumerate().map(|(on, (who, ..))| Wait { who: *who, on }).collect();
        knots(&waits, &resources)
    }

    #[test]
    fn two_that_hold_each_other_up_are_a_knot_and_those_behind_are_counted() {
        let by = Ends::ByAll;
        let waits: [(_, _, &[u64]); 5] =
            [(7, by, &[3]), (1, by, &[2]), (2, by, &[1]), (3, by, &[1]), (4, by, &[9])];
        assert_eq!(each(&waits), [Knot { members: vec![1, 2], behind: 2 }]);
    }

    #[test]
    fn one_that_waits_for_itself_is_a_knot_and_a_chain_is_none() {
        let by = Ends::ByAll;
        let waits: [(_, _, &[u64]); 3] = [(1, by, &[1]), (2, by, &[3]), (3, by, &[4])];
        assert_eq!(each(&waits), [Knot { members: vec![0], behind: 0 }]);
    }

    #[test]
    fn one_holder_that_can_go_on_is_enough_where_any_will_do() {
        let knots = |third: u64| {
            let any = Ends::ByAny;
            each(&[(1, any, &[1, 2, 3]), (2, any, &[1, third]), (3, Ends::ByAll, &[1])])
        };
        assert_eq!(knots(9), []);
        assert_eq!(knots(3), [Knot { members: vec![0, 1, 2], behind: 0 }]);
        assert_eq!(each(&[(1, Ends::ByAny, &[])]), []);
    }

    #[test]
    fn a_hundred_thousand_in_a_row_or_at_one_thing_are_no_matter() {
        let row: Vec<_> = (0..=100_000_u64).map(|n| [if n == 0 { 2 } else { n - 1 }]).collect();
        let waits: Vec<(u64, Ends, &[u64])> = row
            .iter()
            .enumerate()
            .map(|(n, holder)| (n as u64, Ends::ByAll, &holder[..]))
            .collect();
        let found = each(&waits);
        assert_eq!((found.len(), found[0].members.len(), found[0].behind), (1, 3, 99_998));

        let slots = Resource { ends: Ends::ByAny, holders: (0..100_000).collect() };
        let waits: Vec<_> = (0..100_001).map(|who| Wait { who, on: 0 }).collect();
        let found = knots(&waits, &[slots]);
        assert_eq!((found.len(), found[0].members.len(), found[0].behind), (1, 100_000, 1));
    }

    type Case = (Vec<Wait>, Vec<Resource>);

    /// The largest set that no one leaves, from all sets: nobody in it has a wait that those outside can end.
    fn reference((waits, resources): &Case) -> BTreeSet<u64> {
        let closed = |set: u32| {
            let inside = |id: &u64| {
                waits.iter().position(|w| w.who == *id).is_some_and(|at| set >> at & 1 == 1)
            };
            let members = waits.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            members.map(|(_, wait)| &resources[wait.on]).all(|on| match on.ends {
                Ends::ByAny => !on.holders.is_empty() && on.holders.iter().all(inside),
                Ends::ByAll => on.holders.iter().any(inside),
            })
        };
        let largest = (0..1_u32 << waits.len()).filter(|set| closed(*set)).fold(0, |a, b| a | b);
        let members = waits.iter().enumerate().filter(|(at, _)| largest >> at & 1 == 1);
        members.map(|(_, wait)| wait.who).collect()
    }

    /// Whether `from`, by waits of `stuck` alone, waits for `to`.
    fn reaches((waits, resources): &Case, stuck: &BTreeSet<u64>, from: u64, to: u64) -> bool {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(id) = todo.pop() {
            let own = waits.iter().filter(|wait| wait.who == id && stuck.contains(&id));
            for next in own.flat_map(|wait| &resources[wait.on].holders) {
                if *next == to {
                    return true;
                }
                if seen.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        false
    }

    fn any_case() -> impl Strategy<Value = Case> {
        let resource =
            (any::<bool>(), prop::collection::vec(0_u64..11, 0..4)).prop_map(|(any, holders)| {
                Resource { ends: if any { Ends::ByAny } else { Ends::ByAll }, holders }
            });
        let resources = prop::collection::vec(resource, 1..10);
        (resources, prop::collection::vec(any::<prop::sample::Index>(), 0..10)).prop_map(
            |(resources, on)| {
                let on = on.into_iter().map(|on| on.index(resources.len()));
                let waits = on.enumerate().map(|(who, on)| Wait { who: who as u64, on }).collect();
                (waits, resources)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn who_is_stuck_is_the_largest_set_that_nobody_leaves(case in any_case()) {
            let (waits, resources) = &case;
            let stuck = Graph::new(waits, resources).stuck();
            let stuck = waits.iter().zip(stuck).filter(|(_, stuck)| *stuck).map(|(w, _)| w.who);
            let stuck: BTreeSet<_> = stuck.collect();
            prop_assert_eq!(&stuck, &reference(&case));

            let mut in_knots = BTreeSet::new();
            for knot in knots(waits, resources) {
                let members: Vec<_> = knot.members.iter().map(|at| waits[*at].who).collect();
                for one in &members {
                    prop_assert!(in_knots.insert(*one), "in one knot only");
                    prop_assert!(members.iter().all(|other| reaches(&case, &stuck, *one, *other)));
                }
                let behind = stuck.iter().filter(|who| {
                    !members.contains(who)
                        && members.iter().any(|own| reaches(&case, &stuck, **who, *own))
                });
                prop_assert_eq!(behind.count(), knot.behind);
            }
            for who in &stuck {
                prop_assert_eq!(reaches(&case, &stuck, *who, *who), in_knots.contains(who));
            }
        }
    }
}
