//! The tasks and threads of a context, and the walk over those of all contexts.
//!
//! Owns each context's list of its own, and how many live in it and below. One that ends is only marked; marked ones are
//! taken off the list some at a time, when they outnumber the living, and all at once when nothing lives here any more.
//! So the end of a task takes no lock, and threads that start and end tasks of one context do not hinder each other.
//! A lock is held for one [`SLICE`] at most, so that a look at very many delays nobody who starts a task.
//!
//! ```text
//! [ a b̶ c d̶ e f ]      ◄─ walked from the end: what moves into a gap was seen already, so none is missed,
//!     └─ f takes the place of b                           and what was seen is left out where that can be
//! ```

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Node, ROOTS};
use crate::tasks::{self, Record};

/// At most so many are listed, tasks or contexts, while a lock is held: some ten microseconds.
const SLICE: usize = 512;

/// So many ended ones are taken off a list at a time, at least.
const SWEEP: usize = 64;

/// A list with room for more than this many gives memory back when it is nearly empty.
const KEPT: usize = 4096;

const ONE_LIVE: u64 = 1;
const ONE_ENDED: u64 = 1 << 32;

#[derive(Default)]
pub(super) struct Members {
    /// Below: how many live here and in the contexts below. Above: how many of the list have ended; it may be behind what
    /// was taken off, and then wraps.
    counts: AtomicU64,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    records: Vec<Arc<Record>>,
    /// Where the next sweep begins.
    cursor: usize,
    /// How many were taken off so far.
    swept: u64,
}

/// How many live, and how many ended.
fn parts(counts: u64) -> (usize, i32) {
    ((counts & (ONE_ENDED - 1)) as usize, (counts >> 32) as i32)
}

impl Members {
    /// How many live here and below.
    pub(super) fn live(&self) -> usize {
        parts(self.counts.load(Ordering::Acquire)).0
    }

    /// One more lives here or below. Before it is listed: so the list holds no more living ones than are counted.
    pub(super) fn one_more(&self) {
        self.counts.fetch_add(ONE_LIVE, Ordering::AcqRel);
    }

    pub(super) fn enter(&self, record: Arc<Record>) {
        self.list.lock().records.push(record);
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
        } else if ended >= SWEEP as i32 && ended as usize > live {
            self.sweep();
        }
        live == 0
    }

    /// Empties the list, unless something lives again. The contexts that ended ones kept alive may go with them.
    fn clear(&self) {
        let mut list = self.list.lock();
        if self.live() > 0 {
            return;
        }
        // Who lives is counted before it is listed: all of these have ended.
        list.cursor = 0;
        let mut ended = Vec::new();
        if list.records.capacity() > KEPT {
            std::mem::swap(&mut ended, &mut list.records);
        } else {
            ended.extend(list.records.drain(..));
        }
        self.took(&mut list, ended.len());
        drop(list);
        ended.into_iter().for_each(tasks::give_back);
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
        ended.into_iter().for_each(tasks::give_back);
    }

    fn took(&self, list: &mut List, count: usize) {
        list.swept += count as u64;
        self.counts.fetch_sub(count as u64 * ONE_ENDED, Ordering::AcqRel);
    }

    /// The next slice below `end`, from the end; where it begins, and how many were taken off so far.
    fn slice(&self, end: usize) -> (Vec<Arc<Record>>, usize, u64) {
        let list = self.list.lock();
        let end = end.min(list.records.len());
        let begin = end.saturating_sub(SLICE);
        let living = list.records.iter().take(end).skip(begin).filter(|record| !record.has_ended());
        (living.cloned().collect(), begin, list.swept)
    }
}

/// The members of `root` and of every context below it, or of all contexts. What enters or leaves meanwhile may be among
/// them or not; nothing is twice.
pub(crate) fn members(root: Option<&Arc<Node>>) -> impl Iterator<Item = Vec<Arc<Record>>> + Send {
    let mut todo: Vec<_> = root.cloned().into_iter().collect();
    if root.is_none() {
        each_slice(&ROOTS, |roots| roots, |root| todo.push(root));
    }
    let mut of: Option<Of> = None;
    std::iter::from_fn(move || {
        loop {
            if let Some(records) = of.as_mut().and_then(Of::next) {
                return Some(records);
            }
            let node = todo.pop()?;
            each_slice(&node.tree, |tree| &tree.children, |child| todo.push(child));
            of = Some(Of::new(node));
        }
    })
}

/// As [`members`], of one context alone.
pub(super) fn of(node: Arc<Node>) -> impl Iterator<Item = Vec<Arc<Record>>> {
    let mut of = Of::new(node);
    std::iter::from_fn(move || of.next())
}

/// The members of one context.
struct Of {
    node: Arc<Node>,
    /// Where the part that was listed begins.
    end: usize,
    /// How many had been taken off when the first slice was listed.
    swept: u64,
    seen: Vec<u64>,
}

impl Of {
    fn new(node: Arc<Node>) -> Self {
        Self { node, end: usize::MAX, swept: 0, seen: Vec::new() }
    }

    fn next(&mut self) -> Option<Vec<Arc<Record>>> {
        if self.end == 0 {
            return None;
        }
        let first = self.end == usize::MAX;
        let (mut records, begin, swept) = self.node.members.slice(self.end);
        self.end = begin;
        if first {
            self.swept = swept;
        } else if self.swept != swept {
            let seen: HashSet<_> = self.seen.iter().copied().collect();
            records.retain(|record| !seen.contains(&record.id()));
        }
        if begin > 0 {
            self.seen.extend(records.iter().map(|record| record.id()));
        }
        Some(records)
    }
}

/// Hands on the live contexts of a map under a lock, which is held for a slice at a time.
fn each_slice<T>(
    lock: &Mutex<T>,
    map: impl Fn(&T) -> &BTreeMap<u64, Weak<Node>>,
    mut hand_on: impl FnMut(Arc<Node>),
) {
    let mut after = Bound::Unbounded;
    loop {
        let mut nodes = Vec::new();
        let mut last = None;
        {
            let locked = lock.lock();
            for (id, node) in map(&locked).range((after, Bound::Unbounded)).take(SLICE) {
                last = Some(*id);
                nodes.extend(node.upgrade());
            }
        }
        // A context may go with the last reference, and then takes that lock.
        nodes.into_iter().for_each(&mut hand_on);
        match last {
            Some(last) => after = Bound::Excluded(last),
            None => return,
        }
    }
}
