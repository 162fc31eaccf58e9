//! What goes child by child: bringing up in order, taking a group down in the reverse order, and the end.
//!
//! ```text
//!          boot                        a child of a group must be restarted
//!           │        all up         ┌───────────────────────────────────────┐
//!           ▼          │            │                                       ▼
//!          Up ─────────┴──────►  Idle            Up ◄── time ── Pause ◄── Down ◄─┐ another one
//!                                  ▲             │ all up                  └─────┘ fails meanwhile:
//!                                  └─────────────┘                                 the wider, the later
//!
//!          any ── cancelled, gave up, work done ──► End: dynamic together, then static in reverse ──► Over
//! ```
//!
//! At most one sequence is under way, and it waits for one child at a time (the end: first for all dynamic ones). Under
//! one_for_one a single restart is no sequence: it has a timer of its own.

use super::machine::{Action, Answer, Machine};
use super::plan::Strategy;
use super::report::{ExitContext, ExitReason, GaveUp};
use super::slots::{Phase, Slot, Starter, StopWhy};
use super::spec::{Restart, Rules};
use crate::clock::Instant;
use crate::ctx::Cause;

#[derive(Debug)]
pub(super) enum Sequence {
    /// None is under way.
    Idle,
    /// All from `from` on are taken down; those at `below` and above are.
    Down {
        from: u64,
        below: u64,
        until: Instant,
    },
    /// They are down, and wait.
    Pause {
        from: u64,
        until: Instant,
    },
    /// They are brought up; those before `at` are.
    Up {
        at: u64,
    },
    /// All are taken down for good: `dynamic` so many dynamic ones are left, static ones at `below` and above are down.
    End {
        outcome: Result<(), GaveUp>,
        cause: Cause,
        dynamic: usize,
        below: u64,
    },
    Over,
}

impl Sequence {
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::End { .. } | Self::Over)
    }

    /// Whether what is under way will come to start child `seq`, if it is down.
    pub(super) fn will_start(&self, seq: u64) -> bool {
        match self {
            Self::Down { from, .. } | Self::Pause { from, .. } => seq >= *from,
            Self::Up { at } => seq >= *at,
            Self::Idle | Self::End { .. } | Self::Over => false,
        }
    }

    /// Whether child `seq` is going down with its group anyway.
    pub(super) fn takes_down(&self, seq: u64) -> bool {
        matches!(self, Self::Down { from, .. } if seq >= *from)
    }
}

impl Machine {
    pub(super) fn boot(&mut self, children: Vec<Rules>) {
        for rules in children {
            let seq = self.slots.add(rules, false, Phase::Queued, self.now);
            self.actions.push(Action::Paint(seq));
        }
        self.sequence = Sequence::Up { at: 0 };
    }

    /// Goes on with what is under way, as far as it goes without waiting.
    pub(super) fn advance(&mut self) {
        loop {
            let goes_on = match self.sequence {
                Sequence::Idle | Sequence::Over => false,
                Sequence::Down { .. } => self.go_down(),
                Sequence::Pause { until, from } => {
                    let due = until <= self.now;
                    if due {
                        self.sequence = Sequence::Up { at: from };
                    }
                    due
                }
                Sequence::Up { at } => self.go_up(at),
                Sequence::End { .. } => self.go_to_the_end(),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn go_up(&mut self, at: u64) -> bool {
        let by_group = self.settings.strategy != Strategy::OneForOne;
        let wanted = |slot: &Slot| {
            let down = slot.phase == Phase::Queued
                || (slot.phase == Phase::Restarting && slot.timer.is_none());
            down || (slot.phase.is_alive()
                && slot.phase != Phase::Running
                && (by_group || slot.first))
        };
        let Some(seq) = self.slots.next_that(at, wanted) else {
            self.sequence = Sequence::Idle;
            if !std::mem::replace(&mut self.booted, true) {
                self.actions.push(Action::Ready);
            }
            return false;
        };
        let Some(slot) = self.slots.get(seq) else {
            return false;
        };
        // Dynamic children that do not need each other do not wait for each other.
        let alone = slot.dynamic && !by_group;
        if slot.phase.is_alive() && !alone {
            self.sequence = Sequence::Up { at: seq };
            return false;
        }
        if !slot.phase.is_alive() {
            self.spawn(seq);
        }
        self.sequence = Sequence::Up { at: if alone { seq + 1 } else { seq } };
        true
    }

    /// Takes all from `from` on down because of `failed`, which is; they come up again at `until`.
    pub(super) fn take_down(&mut self, from: u64, failed: u64, until: Instant) {
        self.enter(failed, Phase::Restarting, None);
        let top = self.slots.next_seq();
        let (from, marked, below, until) = match self.sequence {
            Sequence::Down { from: old, below, until: other } => {
                (from.min(old), old, below, until.max(other))
            }
            Sequence::Pause { from: old, until: other } => {
                (from.min(old), top, top, until.max(other))
            }
            Sequence::Up { at } => (from.min(at), top, top, until),
            Sequence::Idle => (from, top, top, until),
            Sequence::End { .. } | Sequence::Over => return,
        };
        for seq in self.slots.range(from, marked) {
            // Also those that were stopped by request: the group comes back whole.
            let down = |slot: &&Slot| matches!(slot.phase, Phase::Stopped | Phase::Restarting);
            if self.slots.get(seq).filter(down).is_some() {
                self.enter(seq, Phase::Restarting, None);
            }
        }
        self.sequence = Sequence::Down { from, below, until };
    }

    fn go_down(&mut self) -> bool {
        let Sequence::Down { from, below, until } = self.sequence else {
            return false;
        };
        let Some(seq) = self.slots.last_that(from, below, |slot| slot.phase.is_alive()) else {
            self.sequence = Sequence::Pause { from, until };
            return true;
        };
        self.sequence = Sequence::Down { from, below: seq + 1, until };
        if self.slots.get(seq).is_some_and(|slot| !matches!(slot.phase, Phase::Stopping { .. })) {
            self.stop(seq, StopWhy::Group, Cause::Restart);
        }
        false
    }

    /// A child of a group is down and waits for the group to come up again.
    pub(super) fn down_with_group(&mut self, seq: u64) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let (first, starter) = (slot.first, slot.starter);
        if slot.rules.restart == Restart::Temporary {
            self.answer_starter(seq, Answer::Failed(ExitReason::Killed));
            return self.forget(seq);
        }
        if matches!(starter, Some(Starter::Again(_))) {
            self.answer_starter(seq, Answer::Restarting);
        }
        self.enter(seq, if first { Phase::Queued } else { Phase::Restarting }, None);
    }

    /// Begins the end. The first outcome stays.
    pub(super) fn end(&mut self, outcome: Result<(), GaveUp>, cause: Cause) {
        if self.sequence.is_end() {
            return;
        }
        let top = self.slots.next_seq();
        self.sequence = Sequence::End { outcome, cause: cause.clone(), dynamic: 0, below: top };
        let mut alive = 0;
        for seq in self.slots.range(0, top) {
            let Some(slot) = self.slots.get(seq) else {
                continue;
            };
            let dynamic = slot.dynamic;
            match slot.phase {
                Phase::Queued => {
                    self.answer_starter(seq, Answer::NotRunning);
                    self.rest(seq, dynamic);
                }
                Phase::Restarting => {
                    self.answer_starter(seq, Answer::NotRunning);
                    self.rest(seq, false);
                }
                Phase::Stopped => {}
                Phase::Starting | Phase::Running | Phase::Stopping { .. } if dynamic => {
                    alive += 1;
                    self.stop(seq, StopWhy::End, cause.clone());
                }
                Phase::Starting | Phase::Running | Phase::Stopping { .. } => {}
            }
        }
        if let Sequence::End { dynamic, .. } = &mut self.sequence {
            *dynamic = alive;
        }
    }

    fn go_to_the_end(&mut self) -> bool {
        let Sequence::End { dynamic, below, cause, .. } = &mut self.sequence else {
            return false;
        };
        if *dynamic > 0 {
            return false;
        }
        let cause = cause.clone();
        let next = self.slots.last_that(0, *below, |slot| slot.phase.is_alive());
        if let Some(seq) = next {
            *below = seq + 1;
            let stopping = self
                .slots
                .get(seq)
                .is_some_and(|slot| matches!(slot.phase, Phase::Stopping { .. }));
            if !stopping {
                self.stop(seq, StopWhy::End, cause);
            }
            return false;
        }
        if let Sequence::End { outcome, .. } = std::mem::replace(&mut self.sequence, Sequence::Over)
        {
            self.actions.push(Action::Finish(outcome));
        }
        false
    }

    /// A child is down, told to or by itself, while all are stopped: nothing comes of it any more.
    pub(super) fn down_with_all(&mut self, seq: u64, reason: ExitReason) {
        if let Sequence::End { dynamic, .. } = &mut self.sequence
            && self.slots.get(seq).is_some_and(|slot| slot.dynamic)
        {
            *dynamic = dynamic.saturating_sub(1);
        }
        self.report(seq, reason, ExitContext::Stop, false);
        self.answer_starter(seq, Answer::NotRunning);
        self.gone_by_request(seq);
    }
}
