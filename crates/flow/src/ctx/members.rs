//! The tasks and threads of a context, and the walk over those of all contexts.
//!
//! Owns each context's list of its own, and how many live in it and below. One that ends is only marked; marked ones are
//! taken off the list some at a time, when they are more than half of it, and all at once when nothing lives here or below.
//! So the end of a task takes no lock, and threads that start and end tasks of one context do not hinder each other.
//! A look holds the lock for one [`SLICE`] at a time, so that it delays nobody who starts a task.
//!
//! ```text
//! [ a b̶ c d̶ e f ]      ◄─ walked from the end: what moves into a gap was seen already, so none is missed,
//!     └─ f takes the place of b                           and what was seen is left out where that can be
//! ```

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use super::{Node, ROOTS};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::tasks::{self, Record};

/// At most so many are listed, tasks or contexts, while a lock is held: some ten microseconds.
const SLICE: usize = if cfg!(loom) { 1 } else { 512 };

/// A sweep looks at twice as many.
const SWEEP: usize = if cfg!(loom) { 1 } else { 64 };

/// Whether to sweep is asked once in so many ends.
const ENDS: usize = if cfg!(loom) { 1 } else { 8 };

/// A list with room for more than this many gives memory back when it is nearly empty.
const KEPT: usize = 4096;

const ONE_LIVE: u64 = 1;
const ONE_ENDED: u64 = 1 << 32;

/// What is listed.
pub(super) trait Member {
    /// Unique in the process's life.
    fn id(&self) -> u64;

    /// Whether it was marked as ended. Once it was, it stays.
    fn has_ended(&self) -> bool;

    /// It was taken off the list.
    fn taken_off(this: Arc<Self>);
}

impl Member for Record {
    fn id(&self) -> u64 {
        self.id()
    }

    fn has_ended(&self) -> bool {
        self.has_ended()
    }

    fn taken_off(this: Arc<Self>) {
        tasks::give_back(this);
    }
}

pub(super) struct Members<R = Record> {
    /// Below: how many live here and in the contexts below. Above: how many of the list have ended; it may be behind what
    /// was taken off, and then wraps.
    counts: AtomicU64,
    /// How many the list holds. Written under its lock.
    listed: AtomicUsize,
    list: Mutex<List<R>>,
}

struct List<R> {
    records: Vec<Arc<R>>,
    /// Where the next sweep begins.
    cursor: usize,
    /// How many were taken off so far.
    swept: u64,
}

/// How many live, and how many ended.
fn parts(counts: u64) -> (usize, i32) {
    ((counts & (ONE_ENDED - 1)) as usize, (counts >> 32) as i32)
}

impl<R: Member> Members<R> {
    pub(super) fn new() -> Self {
        let list = List { records: Vec::new(), cursor: 0, swept: 0 };
        Self { counts: AtomicU64::new(0), listed: AtomicUsize::new(0), list: Mutex::new(list) }
    }

    /// How many live here and below.
    pub(super) fn live(&self) -> usize {
        parts(self.counts.load(Ordering::Acquire)).0
    }

    /// One more lives here or below. Before it is listed: so the list holds no more living ones than are counted.
    pub(super) fn one_more(&self) {
        self.counts.fetch_add(ONE_LIVE, Ordering::AcqRel);
    }

    pub(super) fn enter(&self, record: Arc<R>) {
        let mut list = self.list.lock();
        list.records.push(record);
        self.listed.store(list.records.len(), Ordering::Relaxed);
    }

    /// One less lives below. True when none lives here or below any more.
    pub(super) fn one_less(&self) -> bool {
        let (live, ended) = parts(self.counts.fetch_sub(ONE_LIVE, Ordering::AcqRel));
        if live == 1 && ended != 0 {
            self.clear();
        }
        live == 1
    }

    /// One of the list has ended, and is marked so. As [`Members::one_less`].
    pub(super) fn leave(&self) -> bool {
        let change = ONE_ENDED.wrapping_sub(ONE_LIVE);
        let counts = self.counts.fetch_add(change, Ordering::AcqRel).wrapping_add(change);
        let (live, ended) = parts(counts);
        if live == 0 {
            self.clear();
        } else if ended > 0
            && (ended as usize).is_multiple_of(ENDS)
            && ended as usize > self.listed.load(Ordering::Relaxed) / 2
        {
            self.sweep();
        }
        live == 0
    }

    /// Whether the list is.
    #[cfg(all(test, loom))]
    pub(super) fn is_empty(&self) -> bool {
        self.list.lock().records.is_empty()
    }

    /// Empties the list, unless something lives again. The contexts that ended ones kept alive may go with them.
    fn clear(&self) {
        let mut list = self.list.lock();
        if self.live() > 0 {
            return;
        }
        // Who lives is counted before it is listed: all of these have ended.
        list.cursor = 0;
        let ended = std::mem::take(&mut list.records);
        self.took(&mut list, ended.len());
        drop(list);
        ended.into_iter().for_each(R::taken_off);
    }

    /// Looks at the next few of the list, and takes those off that have ended.
    fn sweep(&self) {
        let mut ended = Vec::with_capacity(2 * SWEEP);
        let mut list = self.list.lock();
        for _ in 0..2 * SWEEP {
            if list.cursor >= list.records.len() {
                list.cursor = 0;
            }
            let at = list.cursor;
            match list.records.get(at) {
                Some(record) if record.has_ended() => ended.push(list.records.swap_remove(at)),
                Some(_) => list.cursor += 1,
                None => break,
            }
        }
        if list.records.capacity() > KEPT.max(8 * list.records.len()) {
            let room = 2 * list.records.len();
            list.records.shrink_to(room);
        }
        self.took(&mut list, ended.len());
        drop(list);
        ended.into_iter().for_each(R::taken_off);
    }

    fn took(&self, list: &mut List<R>, count: usize) {
        list.swept += count as u64;
        self.listed.store(list.records.len(), Ordering::Relaxed);
        self.counts.fetch_sub(count as u64 * ONE_ENDED, Ordering::AcqRel);
    }

    /// The next slice below `end`, from the end; where it begins, and how many were taken off so far.
    fn slice(&self, end: usize) -> (Vec<Arc<R>>, usize, u64) {
        let list = self.list.lock();
        let end = end.min(list.records.len());
        let begin = end.saturating_sub(SLICE);
        let living = list.records.iter().take(end).skip(begin).filter(|record| !record.has_ended());
        (living.cloned().collect(), begin, list.swept)
    }
}

/// The members of `root` and of every context below it, or of all contexts. What enters or leaves meanwhile may be among
/// them or not; nothing is twice. Some of the parts are empty: each takes some ten microseconds at most.
pub(crate) fn members(root: Option<&Arc<Node>>) -> impl Iterator<Item = Vec<Arc<Record>>> + Send {
    let mut todo: Vec<_> = root.cloned().into_iter().collect();
    let mut roots = root.is_none().then_some(Bound::Unbounded);
    let mut children: Option<(Arc<Node>, Bound<u64>)> = None;
    let mut at: Option<(Arc<Node>, Walk)> = None;
    std::iter::from_fn(move || {
        loop {
            if let Some(after) = roots.take() {
                roots = some(&ROOTS, |roots| roots, after, &mut todo);
                return Some(Vec::new());
            }
            if let Some((node, after)) = children.take() {
                let more = some(&node.tree, |tree| &tree.children, after, &mut todo);
                children = more.map(|after| (node, after));
                if children.is_some() {
                    return Some(Vec::new());
                }
            }
            if let Some((node, walk)) = &mut at
                && let Some(records) = walk.next(&node.members)
            {
                return Some(records);
            }
            let node = todo.pop()?;
            children = Some((Arc::clone(&node), Bound::Unbounded));
            at = Some((node, Walk::default()));
        }
    })
}

/// As [`members`], of one context alone.
pub(super) fn of(node: Arc<Node>) -> impl Iterator<Item = Vec<Arc<Record>>> {
    let mut walk = Walk::default();
    std::iter::from_fn(move || walk.next(&node.members))
}

/// Where a walk over the members of one context stands.
#[derive(Default)]
pub(super) struct Walk {
    /// Where the part that was listed begins, and how many had been taken off when its first slice was.
    at: Option<(usize, u64)>,
    seen: HashSet<u64>,
}

impl Walk {
    pub(super) fn next<R: Member>(&mut self, members: &Members<R>) -> Option<Vec<Arc<R>>> {
        let end = self.at.map_or(usize::MAX, |(end, _)| end);
        if end == 0 {
            return None;
        }
        let (mut records, begin, swept) = members.slice(end);
        let (_, first) = *self.at.get_or_insert((begin, swept));
        self.at = Some((begin, first));
        if first != swept {
            records.retain(|record| !self.seen.contains(&record.id()));
        }
        if begin > 0 {
            // All at once: to grow a large set takes a millisecond.
            if self.seen.is_empty() {
                self.seen.reserve(begin + records.len());
            }
            self.seen.extend(records.iter().map(|record| record.id()));
        }
        Some(records)
    }
}

/// Adds the next few live contexts of a map to `found`; says after which to go on, unless these were the last.
fn some<T>(
    lock: &parking_lot::Mutex<T>,
    map: impl Fn(&T) -> &BTreeMap<u64, Weak<Node>>,
    after: Bound<u64>,
    found: &mut Vec<Arc<Node>>,
) -> Option<Bound<u64>> {
    let locked = lock.lock();
    let mut next = map(&locked).range((after, Bound::Unbounded));
    let mut last = None;
    for (id, node) in next.by_ref().take(SLICE) {
        last = Some(Bound::Excluded(*id));
        // None is dropped here, where its end would take this lock again.
        found.extend(node.upgrade());
    }
    next.next().and(last)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    struct Item(u64, AtomicBool);

    impl Member for Item {
        fn id(&self) -> u64 {
            self.0
        }

        fn has_ended(&self) -> bool {
            self.1.load(Ordering::Acquire)
        }

        fn taken_off(_: Arc<Self>) {}
    }

    fn enter(members: &Members<Item>, id: u64) -> Arc<Item> {
        let item = Arc::new(Item(id, AtomicBool::new(false)));
        members.one_more();
        members.enter(Arc::clone(&item));
        item
    }

    fn end(members: &Members<Item>, item: &Item) {
        item.1.store(true, Ordering::Release);
        members.leave();
    }

    fn listed(members: &Members<Item>) -> usize {
        members.list.lock().records.len()
    }

    #[test]
    fn those_that_ended_never_outnumber_the_living_by_much_and_go_with_the_last() {
        let members = Members::new();
        let kept: Vec<_> = (0..10).map(|id| enter(&members, id)).collect();
        for id in 10..10_000 {
            end(&members, &enter(&members, id));
            assert!(listed(&members) <= 10 + 2 * SWEEP, "{}", listed(&members));
        }
        // In whatever order they end: the cursor comes to each.
        let many: Vec<_> = (10_000..20_000).map(|id| enter(&members, id)).collect();
        for (at, item) in many.iter().enumerate() {
            end(&members, item);
            let live = kept.len() + many.len() - at - 1;
            assert!(listed(&members) <= 3 * live + 4 * SWEEP, "{} of {live}", listed(&members));
        }
        kept.iter().for_each(|item| end(&members, item));
        assert_eq!((members.live(), listed(&members)), (0, 0));
    }

    #[test]
    fn a_walk_sees_what_lives_all_the_time_once_while_others_come_and_go() {
        let members = Members::new();
        let kept: HashSet<_> = (0..5000).map(|id| enter(&members, id)).map(|item| item.0).collect();
        let (members, stop) = (&members, &AtomicBool::new(false));
        thread::scope(|scope| {
            for worker in 1..=2_u64 {
                scope.spawn(move || {
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let first = worker * 1_000_000_000 + round * 10_000;
                        let some: Vec<_> =
                            (first..first + 10_000).map(|id| enter(members, id)).collect();
                        some.iter().for_each(|item| end(members, item));
                    }
                });
            }
            for _ in 0..200 {
                let mut walk = Walk::default();
                let mut seen = Vec::new();
                while let Some(some) = walk.next(members) {
                    seen.extend(some.iter().map(|item| item.0));
                }
                let once: HashSet<_> = seen.iter().copied().collect();
                let missed = kept.difference(&once).count();
                let twice = seen.len() - once.len();
                stop.store(missed + twice > 0, Ordering::Relaxed);
                assert_eq!((missed, twice), (0, 0));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(members.live(), kept.len());
    }
}
