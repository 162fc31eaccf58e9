//! The children a supervisor has, and where each is in its life. Plain data: it decides nothing and starts nothing.
//!
//! Owns the slots, ordered by start, and the timers, at most one per slot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::machine::Ticket;
use super::report::ExitReason;
use super::shared::ChildState;
use super::spec::{Restart, Rules};
use crate::clock::Instant;
use crate::tasks::Name;

/// Where a child is in its life, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not started yet; its turn comes.
    Queued,
    /// Spawned, not ready. The timer says until when it may be.
    Starting,
    /// Up. The timer says when its heartbeat is looked at.
    Running,
    /// Told to end. The timer says when the next step against it is due.
    Stopping { why: StopWhy, aborted: bool },
    /// Down. Started again at the timer or, without one, with its group.
    Restarting,
    /// Down, and staying so.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopWhy {
    /// By request.
    Asked,
    /// To be restarted with its group.
    Group,
    /// It was not ready within this.
    NotReady(Duration),
    /// It missed its heartbeat, silent for this long.
    Stuck(Duration),
    /// With its supervisor.
    End,
}

impl Phase {
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping { .. })
    }

    pub(super) fn shown(self) -> ChildState {
        match self {
            Self::Starting => ChildState::Starting,
            Self::Running => ChildState::Running,
            Self::Stopping { .. } => ChildState::Stopping,
            Self::Restarting => ChildState::Restarting,
            Self::Queued | Self::Stopped => ChildState::Stopped,
        }
    }
}

/// Who waits for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Starter {
    /// Of a new child.
    New(Ticket),
    /// Of a stopped one, again.
    Again(Ticket),
}

/// A child and what has become of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) rules: Rules,
    pub(super) dynamic: bool,
    /// It has not been up yet, nor was it given up: a failed start is a failed first start.
    pub(super) first: bool,
    /// Which life this is; events of earlier ones are stale.
    pub(super) run: u64,
    pub(super) phase: Phase,
    pub(super) timer: Option<Instant>,
    /// When its present life began.
    pub(super) started: Instant,
    /// When it came into its phase.
    pub(super) since: Instant,
    pub(super) restarts: u64,
    /// Failures in a row, for the backoff.
    pub(super) failures: u32,
    /// Its own task is over; what it spawned is being waited for, within a limit that is not the machine's.
    pub(super) leaving: bool,
    /// A silence was reported and has not ended.
    pub(super) stuck: bool,
    /// It is to be forgotten once down.
    pub(super) remove: bool,
    pub(super) last_exit: Option<ExitReason>,
    pub(super) starter: Option<Starter>,
    pub(super) stoppers: Vec<Ticket>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    by_seq: BTreeMap<u64, Slot>,
    by_name: HashMap<Name, u64>,
    timers: BTreeSet<(Instant, u64)>,
    next: u64,
    /// Significant children that are up or will be.
    pub(super) significant: usize,
    /// How often a slot was looked at, for the tests that bound it.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<u64>,
}

impl Slots {
    /// Numbers start at `next`: those of an earlier build are not used again.
    pub(super) fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }

    fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }

    pub(super) fn add(&mut self, rules: Rules, dynamic: bool, phase: Phase, now: Instant) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.by_name.insert(rules.name.clone(), seq);
        let slot = Slot {
            rules,
            dynamic,
            first: phase == Phase::Queued,
            run: 0,
            phase,
            timer: None,
            started: now,
            since: now,
            restarts: 0,
            failures: 0,
            leaving: false,
            stuck: false,
            remove: false,
            last_exit: None,
            starter: None,
            stoppers: Vec::new(),
        };
        self.significant += usize::from(slot.counts());
        self.by_seq.insert(seq, slot);
        seq
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Slot> {
        self.set_timer(seq, None);
        let slot = self.by_seq.remove(&seq)?;
        self.by_name.remove(&slot.rules.name);
        self.significant -= usize::from(slot.counts());
        Some(slot)
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Slot> {
        self.look();
        self.by_seq.get(&seq)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.look();
        self.by_seq.get_mut(&seq)
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Puts a child into a phase, with the moment it is looked at again by itself.
    pub(super) fn enter(&mut self, seq: u64, phase: Phase, timer: Option<Instant>, now: Instant) {
        self.set_timer(seq, timer);
        self.look();
        if let Some(slot) = self.by_seq.get_mut(&seq) {
            if slot.phase.shown() != phase.shown() {
                slot.since = now;
            }
            self.significant -= usize::from(slot.counts());
            slot.phase = phase;
            self.significant += usize::from(slot.counts());
        }
    }

    /// Gives a child other rules.
    pub(super) fn set_rules(&mut self, seq: u64, rules: Rules) {
        self.look();
        if let Some(slot) = self.by_seq.get_mut(&seq) {
            self.significant -= usize::from(slot.counts());
            slot.rules = rules;
            self.significant += usize::from(slot.counts());
        }
    }

    pub(super) fn set_timer(&mut self, seq: u64, timer: Option<Instant>) {
        self.look();
        if let Some(slot) = self.by_seq.get_mut(&seq) {
            if let Some(at) = std::mem::replace(&mut slot.timer, timer) {
                self.timers.remove(&(at, seq));
            }
            self.timers.extend(timer.map(|at| (at, seq)));
        }
    }

    pub(super) fn first_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A child whose timer is due. The timer is gone then.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let &(at, seq) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.set_timer(seq, None);
        Some(seq)
    }

    /// The children from `first` up to, not including, `end`.
    pub(super) fn range(&self, first: u64, end: u64) -> Vec<u64> {
        self.by_seq
            .range(first..end.max(first))
            .map(|(seq, _)| *seq)
            .inspect(|_| self.look())
            .collect()
    }

    /// The first from `at` on that `wanted` says yes to.
    pub(super) fn next_that(&self, at: u64, wanted: impl Fn(&Slot) -> bool) -> Option<u64> {
        let mut rest = self.by_seq.range(at..).inspect(|_| self.look());
        rest.find(|(_, slot)| wanted(slot)).map(|(seq, _)| *seq)
    }

    /// The last of `first..end` that `wanted` says yes to.
    pub(super) fn last_that(
        &self,
        first: u64,
        end: u64,
        wanted: impl Fn(&Slot) -> bool,
    ) -> Option<u64> {
        let mut rest = self.by_seq.range(first..end.max(first)).rev().inspect(|_| self.look());
        rest.find(|(_, slot)| wanted(slot)).map(|(seq, _)| *seq)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.by_seq.iter().map(|(seq, slot)| (*seq, slot))
    }
}

impl Slot {
    /// Whether this life is its only one: then nothing is kept to start it from.
    pub(super) fn lives_once(&self) -> bool {
        self.rules.restart == Restart::Temporary && self.phase.is_alive()
    }

    /// Whether it holds up an auto-shutdown that waits for all.
    fn counts(&self) -> bool {
        self.rules.significant && self.phase != Phase::Stopped
    }
}
