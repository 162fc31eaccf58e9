//! The decisions of a supervisor: `step(now, event) -> actions`. It does no I/O, knows no clock and starts nothing.
//!
//! Owns the slots, the memory of past restarts, and the one sequence that may be under way (see `sequence.rs`). The
//! engine carries out the actions in their order and brings back what comes of them.

use std::time::Duration;

use super::intensity::{Meter, Verdict};
use super::plan::{AutoShutdown, Settings, Strategy};
use super::report::{ExitContext, ExitReason, ExitReport, GaveUp, GiveUpReason, StuckReport};
use super::requests::Asked;
use super::sequence::Sequence;
use super::slots::{Phase, Slots, Starter, StopWhy};
use super::spec::{Missed, Restart, Rules, Shutdown};
use crate::clock::Instant;
use crate::ctx::{Cause, StartInfo};
use crate::spawn::ABORT_GRACE;

/// Who waits for an answer.
pub(super) type Ticket = u64;

/// What happens to a supervisor.
#[derive(Debug)]
pub(super) enum Event {
    /// It begins, with these children.
    Boot(Vec<Rules>),
    Ready {
        seq: u64,
        run: u64,
        info: Option<StartInfo>,
    },
    /// A child's own task ended; what it had spawned may not have yet.
    Leaving {
        seq: u64,
        run: u64,
    },
    /// A life is over, with all that it spawned, as far as that can be had.
    Exited {
        seq: u64,
        run: u64,
        reason: ExitReason,
    },
    /// When a child whose pulse was asked for last gave one.
    Pulse {
        seq: u64,
        run: u64,
        last: Option<Instant>,
    },
    Asked(Asked, Ticket),
    /// Time passed.
    Tick,
    /// It shall end.
    Cancelled(Cause),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// A child was added for whoever holds the ticket; what starts it belongs to `seq` now.
    Added {
        ticket: Ticket,
        seq: u64,
    },
    /// The child at `index` of the new plan is `seq`.
    Rebind {
        ticket: Ticket,
        index: usize,
        seq: u64,
    },
    Spawn {
        seq: u64,
        run: u64,
    },
    Cancel {
        seq: u64,
        cause: Cause,
    },
    Kill {
        seq: u64,
        cause: Cause,
    },
    /// Look when the child gave its last heartbeat.
    TakePulse {
        seq: u64,
        run: u64,
    },
    Paint(u64),
    Erase(u64),
    Answer(Ticket, Answer),
    Exit(ExitReport),
    Stuck(StuckReport),
    /// No restart is made for so long.
    CoolingDown(Duration),
    /// All children are up.
    Ready,
    /// It is over; nothing is alive that could be stopped.
    Finish(Result<(), GaveUp>),
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Up(Option<StartInfo>),
    Ignored,
    Failed(ExitReason),
    /// It runs, in this life.
    Runs(u64),
    Stopped,
    Restarting,
    NotFound,
    NotRunning,
    Refused(&'static str, String),
}

pub(super) struct Machine {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) settings: Settings,
    pub(super) slots: Slots,
    pub(super) sequence: Sequence,
    pub(super) booted: bool,
    meter: Meter,
    chance: fastrand::Rng,
    pub(super) now: Instant,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// `next` is the first number for a child, `chance` draws the jitter.
    pub(super) fn new(
        (name, path): (String, String),
        settings: Settings,
        next: u64,
        chance: fastrand::Rng,
        now: Instant,
    ) -> Self {
        Self {
            name,
            path,
            meter: Meter::new(settings.limit),
            settings,
            slots: Slots::starting_at(next),
            sequence: Sequence::Idle,
            booted: false,
            chance,
            now,
            actions: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Boot(children) => self.boot(children),
            Event::Ready { seq, run, info } if self.is(seq, run, Phase::Starting) => {
                self.up(seq, info);
            }
            Event::Pulse { seq, run, last } if self.is(seq, run, Phase::Running) => {
                self.pulse(seq, last);
            }
            Event::Leaving { seq, run } if self.lives(seq, run) => self.leaving(seq),
            Event::Exited { seq, run, reason } if self.lives(seq, run) => self.exited(seq, reason),
            Event::Asked(asked, ticket) => self.asked(asked, ticket),
            Event::Tick => self.tick(),
            Event::Cancelled(cause) => self.end(Ok(()), cause),
            // Of an earlier life, or too late.
            Event::Ready { .. }
            | Event::Pulse { .. }
            | Event::Leaving { .. }
            | Event::Exited { .. } => {}
        }
        self.advance();
        std::mem::take(&mut self.actions)
    }

    /// When the next tick is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let pause = match self.sequence {
            Sequence::Pause { until, .. } => Some(until),
            _ => None,
        };
        [self.slots.first_timer(), pause].into_iter().flatten().min()
    }

    fn is(&self, seq: u64, run: u64, phase: Phase) -> bool {
        self.slots.get(seq).is_some_and(|slot| slot.run == run && slot.phase == phase)
    }

    fn lives(&self, seq: u64, run: u64) -> bool {
        self.slots.get(seq).is_some_and(|slot| slot.run == run && slot.phase.is_alive())
    }

    fn leaving(&mut self, seq: u64) {
        self.slots.set_timer(seq, None);
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.leaving = true;
        }
    }

    fn tick(&mut self) {
        while let Some(seq) = self.slots.take_due(self.now) {
            let Some(slot) = self.slots.get(seq) else {
                continue;
            };
            match slot.phase {
                Phase::Starting if self.sequence.is_end() => {}
                Phase::Starting => {
                    // A reconfiguration may have taken the rule away meanwhile.
                    let so_far = self.now.saturating_duration_since(slot.started);
                    let limit = slot.rules.ready_within.unwrap_or(so_far);
                    self.stop(seq, StopWhy::NotReady(limit), Cause::Terminated);
                }
                Phase::Running => {
                    let run = slot.run;
                    self.actions.push(Action::TakePulse { seq, run });
                }
                Phase::Restarting => self.spawn(seq),
                Phase::Stopping { why, aborted: false } => {
                    self.actions.push(Action::Kill { seq, cause: Cause::Terminated });
                    let grace = Some(self.now + ABORT_GRACE);
                    self.enter(seq, Phase::Stopping { why, aborted: true }, grace);
                }
                Phase::Stopping { .. } => self.exited(seq, ExitReason::Unstopped),
                Phase::Queued | Phase::Stopped => {}
            }
        }
    }

    pub(super) fn spawn(&mut self, seq: u64) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        slot.run += 1;
        slot.started = self.now;
        (slot.leaving, slot.stuck) = (false, false);
        slot.restarts += u64::from(slot.phase == Phase::Restarting);
        let (run, limit) = (slot.run, slot.rules.ready_within);
        self.actions.push(Action::Spawn { seq, run });
        match limit {
            Some(limit) => self.enter(seq, Phase::Starting, Some(self.now + limit)),
            None => self.up(seq, None),
        }
    }

    fn up(&mut self, seq: u64, info: Option<StartInfo>) {
        self.answer_starter(seq, Answer::Up(info));
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.first = false;
            let look = slot.rules.heartbeat.map(|heartbeat| self.now + heartbeat.within);
            self.enter(seq, Phase::Running, look);
        }
    }

    fn pulse(&mut self, seq: u64, last: Option<Instant>) {
        let (now, path) = (self.now, &self.path);
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let Some(heartbeat) = slot.rules.heartbeat.filter(|_| !slot.leaving) else {
            return;
        };
        let last = last.map_or(slot.since, |last| last.max(slot.since));
        let due = last + heartbeat.within;
        if due > now {
            if std::mem::replace(&mut slot.stuck, false) {
                self.actions.push(Action::Paint(seq));
            }
            return self.slots.set_timer(seq, Some(due));
        }
        let silent = now.saturating_duration_since(last);
        // When all are stopped anyway, each has its turn.
        let will_stop = heartbeat.missed == Missed::Restart && !self.sequence.is_end();
        if !std::mem::replace(&mut slot.stuck, true) {
            let child = slot.rules.name.to_string();
            let report = StuckReport { supervisor: path.clone(), child, silent, will_stop };
            self.actions.push(Action::Stuck(report));
            self.actions.push(Action::Paint(seq));
        }
        if will_stop {
            self.stop(seq, StopWhy::Stuck(silent), Cause::Other("it missed its heartbeat"));
        } else {
            self.slots.set_timer(seq, Some(now + heartbeat.within));
        }
    }

    /// Begins to stop a child that is alive, or changes what it is being stopped for.
    pub(super) fn stop(&mut self, seq: u64, why: StopWhy, cause: Cause) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if let Phase::Stopping { why: old, .. } = &mut slot.phase {
            *old = why;
            return;
        }
        if !slot.phase.is_alive() {
            return;
        }
        if slot.leaving {
            return self.enter(seq, Phase::Stopping { why, aborted: true }, None);
        }
        let (aborted, due) = match slot.rules.shutdown {
            Shutdown::Brutal => (true, Some(self.now + ABORT_GRACE)),
            Shutdown::Deadline(limit) => (false, Some(self.now + limit)),
            Shutdown::Forever => (false, None),
        };
        self.actions.push(if aborted {
            Action::Kill { seq, cause }
        } else {
            Action::Cancel { seq, cause }
        });
        self.enter(seq, Phase::Stopping { why, aborted }, due);
    }

    /// A life is over.
    fn exited(&mut self, seq: u64, reason: ExitReason) {
        let Some(phase) = self.slots.get(seq).map(|slot| slot.phase) else {
            return;
        };
        let asked = matches!(phase, Phase::Stopping { why: StopWhy::Asked, .. });
        match phase {
            _ if self.sequence.is_end() => self.down_with_all(seq, reason),
            // It goes down anyway: that it fails now costs nothing.
            _ if self.sequence.takes_down(seq) && !asked && reason != ExitReason::TerminateTree => {
                self.stopped(seq, StopWhy::Group, reason);
            }
            Phase::Starting => self.ended_in_start(seq, reason),
            Phase::Running => self.ended(seq, reason),
            Phase::Stopping { why, .. } => self.stopped(seq, why, reason),
            Phase::Queued | Phase::Restarting | Phase::Stopped => {}
        }
    }

    fn ended_in_start(&mut self, seq: u64, reason: ExitReason) {
        match reason {
            // It had nothing more to do: it was up, and is gone.
            ExitReason::Normal | ExitReason::DoNotRestart => {
                self.up(seq, None);
                self.ended(seq, reason);
            }
            ExitReason::Ignored => {
                self.report(seq, reason, ExitContext::Start, false);
                self.answer_starter(seq, Answer::Ignored);
                self.rest(seq, self.slots.get(seq).is_some_and(|slot| slot.dynamic));
            }
            ExitReason::TerminateTree => {
                self.report(seq, reason.clone(), ExitContext::Start, false);
                self.answer_starter(seq, Answer::Failed(reason));
                self.give_up_after(seq, GiveUpReason::Directed);
            }
            reason => self.start_failed(seq, reason),
        }
    }

    fn start_failed(&mut self, seq: u64, reason: ExitReason) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let (first, dynamic) = (slot.first, slot.dynamic);
        let again = matches!(slot.starter, Some(Starter::Again(_)));
        if !first && !again {
            return self.failed(seq, reason, ExitContext::Start);
        }
        self.report(seq, reason.clone(), ExitContext::Start, false);
        self.answer_starter(seq, Answer::Failed(reason.clone()));
        if first && !dynamic {
            self.give_up_after(seq, GiveUpReason::StartFailed(reason));
        } else {
            self.rest(seq, first);
        }
    }

    /// A child that was up ended by itself.
    ///
    /// | exit | permanent | transient | temporary |
    /// |---|---|---|---|
    /// | normal | restart | rest | forget |
    /// | failure | restart | restart | forget |
    /// | do not restart, ignore | rest | rest | forget |
    /// | terminate the tree | give up | give up | give up |
    fn ended(&mut self, seq: u64, reason: ExitReason) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let significant = slot.rules.significant;
        let restart = match (slot.rules.restart, &reason) {
            (_, ExitReason::TerminateTree) => {
                self.report(seq, reason, ExitContext::Running, false);
                return self.give_up_after(seq, GiveUpReason::Directed);
            }
            (_, ExitReason::DoNotRestart | ExitReason::Ignored) | (Restart::Temporary, _) => false,
            (Restart::Permanent, _) => true,
            (Restart::Transient, reason) => reason.is_failure(),
        };
        if restart {
            return self.failed(seq, reason, ExitContext::Running);
        }
        self.report(seq, reason, ExitContext::Running, false);
        self.rest(seq, false);
        let over = match self.settings.auto_shutdown {
            Some(AutoShutdown::AnySignificant) => true,
            Some(AutoShutdown::AllSignificant) => self.slots.significant == 0,
            None => false,
        };
        if significant && over {
            self.end(Ok(()), Cause::Shutdown);
        }
    }

    /// A child must be restarted: counts it, sets the pause, and takes the group down with it.
    fn failed(&mut self, seq: u64, reason: ExitReason, context: ExitContext) {
        let verdict = self.meter.failed(self.now);
        let gives_up = matches!(verdict, Verdict::GiveUp { .. });
        self.report(seq, reason.clone(), context, !gives_up);
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let stable =
            self.now.saturating_duration_since(slot.started) >= self.settings.backoff.stable_after;
        slot.failures = if stable { 1 } else { slot.failures.saturating_add(1) };
        let pause = self.settings.backoff.pause_by(slot.failures, self.chance.f64());
        let mut at = self.now + pause;
        match verdict {
            Verdict::Restart => {}
            Verdict::GiveUp { max, period } => {
                return self
                    .give_up_after(seq, GiveUpReason::Intensity { max, period, last: reason });
            }
            Verdict::Pause { until, begins } => {
                at = at.max(until);
                if begins {
                    let pause = until.saturating_duration_since(self.now);
                    self.actions.push(Action::CoolingDown(pause));
                }
            }
        }
        match self.settings.strategy {
            Strategy::OneForOne => self.enter(seq, Phase::Restarting, Some(at)),
            Strategy::OneForAll => self.take_down(0, seq, at),
            Strategy::RestForOne => self.take_down(seq, seq, at),
        }
    }

    /// A child that was told to stop is down.
    fn stopped(&mut self, seq: u64, why: StopWhy, reason: ExitReason) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let temporary = slot.rules.restart == Restart::Temporary;
        if matches!(why, StopWhy::NotReady(_) | StopWhy::Stuck(_))
            && reason == ExitReason::Unstopped
        {
            self.report(seq, ExitReason::Unstopped, ExitContext::Stop, false);
        }
        match why {
            StopWhy::NotReady(limit) => self.start_failed(seq, ExitReason::NotReady(limit)),
            StopWhy::Stuck(silent) => self.ended(seq, ExitReason::Stuck(silent)),
            StopWhy::Asked | StopWhy::End => {
                self.report(seq, reason, ExitContext::Stop, false);
                self.gone_by_request(seq);
            }
            StopWhy::Group => {
                self.report(seq, reason, ExitContext::Stop, !temporary);
                self.down_with_group(seq);
            }
        }
    }

    /// A child is down because someone asked.
    pub(super) fn gone_by_request(&mut self, seq: u64) {
        self.answer_starter(seq, Answer::Failed(ExitReason::Killed));
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let forget = slot.remove || (slot.first && slot.dynamic);
        for stopper in std::mem::take(&mut slot.stoppers) {
            self.actions.push(Action::Answer(stopper, Answer::Done));
        }
        self.rest(seq, forget);
    }

    /// Leaves a child down; forgets it if it is temporary, or `forget`.
    pub(super) fn rest(&mut self, seq: u64, forget: bool) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        slot.first = false;
        if forget || slot.rules.restart == Restart::Temporary {
            self.forget(seq);
        } else {
            self.enter(seq, Phase::Stopped, None);
        }
    }

    pub(super) fn forget(&mut self, seq: u64) {
        self.slots.remove(seq);
        self.actions.push(Action::Erase(seq));
    }

    pub(super) fn enter(&mut self, seq: u64, phase: Phase, timer: Option<Instant>) {
        self.slots.enter(seq, phase, timer, self.now);
        self.actions.push(Action::Paint(seq));
    }

    pub(super) fn answer_starter(&mut self, seq: u64, answer: Answer) {
        if let Some(Starter::New(ticket) | Starter::Again(ticket)) =
            self.slots.get_mut(seq).and_then(|slot| slot.starter.take())
        {
            self.actions.push(Action::Answer(ticket, answer));
        }
    }

    pub(super) fn report(
        &mut self,
        seq: u64,
        reason: ExitReason,
        context: ExitContext,
        will_restart: bool,
    ) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        slot.last_exit = Some(reason.clone());
        self.actions.push(Action::Exit(ExitReport {
            supervisor: self.path.clone(),
            child: slot.rules.name.to_string(),
            reason,
            context,
            will_restart,
            restarts: slot.restarts,
            lived: self.now.saturating_duration_since(slot.started),
        }));
    }

    /// Ends without having been asked to, because of a child that is down.
    fn give_up_after(&mut self, seq: u64, reason: GiveUpReason) {
        let child = self.slots.get(seq).map(|slot| slot.rules.name.to_string());
        self.rest(seq, false);
        let gave_up = GaveUp { supervisor: self.path.clone(), child, reason };
        self.end(Err(gave_up), Cause::Shutdown);
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        self.meter.set_limit(settings.limit);
        self.settings = settings;
    }
}
