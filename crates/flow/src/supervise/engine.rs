//! The supervisor at work: starts, restarts, requests, and the end.
//!
//! Owns the children and every decision about them. One thing is done at a time; events that arrive meanwhile are kept.
//! Between two restart attempts it serves requests, so a looping child can be terminated and the supervisor stopped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::children::Slots;
use super::report::{ExitContext, ExitReason, ExitReport, GaveUp, Why};
use super::shared::{ChildState, Event, Input, Shared};
use super::spec::{Claim, Plan, Restart, Strategy};
use crate::clock::{self, Instant};
use crate::ctx::{Cause, Ctx, Stopped};
use crate::panics;
use crate::spawn::ABORT_GRACE;

pub(super) struct Engine {
    plan: Plan,
    _claim: Arc<Claim>,
    ctx: Ctx,
    pub(super) shared: Arc<Shared>,
    pub(super) slots: Slots,
    /// When restarts happened, within the period.
    restarts: VecDeque<Instant>,
    pub(super) pending: Vec<Pending>,
    /// Events that came while something else was being waited for.
    pub(super) kept: VecDeque<Event>,
}

/// A restart to be made.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    at: Instant,
    pub(super) what: Group,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    One(u64),
    /// All that are down, from this one on.
    From(u64),
}

/// How a start went.
pub(super) enum Started {
    Up,
    Failed(ExitReason),
    /// The supervisor itself was told to stop meanwhile; the child is down again.
    Interrupted,
}

/// Runs a supervisor whose own context is `ctx`.
pub(super) async fn run(plan: Plan, claim: Arc<Claim>, ctx: Ctx) -> Result<(), GaveUp> {
    let gave_up = |child: Option<String>, why| GaveUp { supervisor: ctx.path(), child, why };
    if let Some((field, problem)) = plan.fault() {
        return Err(gave_up(None, Why::BadSpec { field, problem }));
    }
    if !plan.shared.begin() {
        return Err(gave_up(None, Why::AlreadyRunning));
    }
    let mut engine = Engine {
        shared: Arc::clone(&plan.shared),
        plan,
        _claim: claim,
        ctx,
        slots: Slots::default(),
        restarts: VecDeque::new(),
        pending: Vec::new(),
        kept: VecDeque::new(),
    };
    let result = engine.live().await;
    let cause = engine.ctx.cause().unwrap_or(Cause::Shutdown);
    engine.stop_all(&cause).await;
    result
}

impl Drop for Engine {
    /// However it ends, no child outlives it. After an orderly end there is none left.
    fn drop(&mut self) {
        for (_, slot) in self.slots.all() {
            if let Some(instance) = &slot.instance {
                instance.ctx.kill(Cause::Dropped);
            }
        }
        self.shared.end();
    }
}

impl Engine {
    async fn live(&mut self) -> Result<(), GaveUp> {
        for child in std::mem::take(&mut self.plan.children) {
            let seq = self.slots.add(child, false);
            self.show(seq);
        }
        for seq in self.slots.from(0) {
            match self.start(seq).await {
                Started::Up => {}
                Started::Failed(_) if self.slots.get(seq).is_none_or(|slot| slot.held) => {}
                Started::Failed(reason) => {
                    self.reap(seq, reason.clone(), ExitContext::Start, false).await;
                    return Err(self.gave_up(seq, Why::StartFailed(reason)));
                }
                Started::Interrupted => return Ok(()),
            }
        }
        self.ctx.ready();
        while !self.ctx.is_cancelled() {
            if let Some(event) = self.kept.pop_front() {
                self.on_event(event).await?;
            } else if let Some(due) = self.take_due() {
                self.make_restart(due).await?;
            } else {
                self.wait().await?;
            }
        }
        Ok(())
    }

    /// Waits for whatever comes first: an event, a request, a restart that is due, the end.
    async fn wait(&mut self) -> Result<(), GaveUp> {
        let next_restart = self.pending.iter().map(|pending| pending.at).min();
        let input = {
            let next = self.ctx.run(self.shared.next());
            match next_restart {
                Some(at) => tokio::time::timeout_at(at, next).await.ok(),
                None => Some(next.await),
            }
        };
        match input {
            Some(Ok(Input::Event(event))) => self.on_event(event).await,
            Some(Ok(Input::Request(request))) => {
                self.on_request(request).await;
                Ok(())
            }
            Some(Err(Stopped::DeadlineExceeded)) => {
                self.ctx.cancel(Cause::Other("its deadline passed"));
                Ok(())
            }
            Some(Err(Stopped::Cancelled(_))) | None => Ok(()),
        }
    }

    fn take_due(&mut self) -> Option<Group> {
        let now = clock::now();
        let place = self.pending.iter().position(|pending| pending.at <= now)?;
        Some(self.pending.swap_remove(place).what)
    }

    async fn on_event(&mut self, event: Event) -> Result<(), GaveUp> {
        match event {
            Event::Exited { seq, run, reason } if self.is_current(seq, run) => {
                self.on_exit(seq, reason).await
            }
            Event::Exited { .. } | Event::Ready { .. } => Ok(()),
        }
    }

    /// A child ended by itself.
    async fn on_exit(&mut self, seq: u64, reason: ExitReason) -> Result<(), GaveUp> {
        let Some(slot) = self.slots.get(seq) else {
            return Ok(());
        };
        let restart = match (slot.spec.restart, &reason) {
            (_, ExitReason::DoNotRestart | ExitReason::TerminateTree) | (Restart::Temporary, _) => {
                false
            }
            (Restart::Permanent, _) => true,
            (Restart::Transient, reason) => reason.is_failure(),
        };
        if reason == ExitReason::TerminateTree {
            self.reap(seq, reason, ExitContext::Running, false).await;
            return Err(self.gave_up(seq, Why::Directed));
        }
        if restart {
            return self.restart_later(seq, reason, ExitContext::Running).await;
        }
        self.reap(seq, reason, ExitContext::Running, false).await;
        self.forget_temporary(seq);
        Ok(())
    }

    /// A child that must be restarted is down (or its start failed): counts it, takes the group down with it, sets the pause.
    async fn restart_later(
        &mut self,
        seq: u64,
        reason: ExitReason,
        context: ExitContext,
    ) -> Result<(), GaveUp> {
        let allowed = self.count_restart();
        self.reap(seq, reason.clone(), context, allowed).await;
        if !allowed {
            let why = Why::Intensity {
                max: self.plan.max_restarts,
                period: self.plan.period,
                last: reason,
            };
            return Err(self.gave_up(seq, why));
        }
        let what = match self.plan.strategy {
            Strategy::OneForOne => Group::One(seq),
            Strategy::OneForAll => Group::From(0),
            Strategy::RestForOne => Group::From(seq),
        };
        self.take_group_down(what, seq).await;
        let pause = self.slots.get(seq).map_or(0, |slot| slot.failures);
        let mut at = clock::now() + self.plan.backoff.pause(pause);
        let mut what = what;
        if let Group::From(first) = what {
            // One group restart at a time: the wider and later of the two.
            for pending in std::mem::take(&mut self.pending) {
                if let Group::From(other) = pending.what {
                    what = Group::From(first.min(other));
                    at = at.max(pending.at);
                }
            }
        }
        self.pending.push(Pending { at, what });
        Ok(())
    }

    async fn take_group_down(&mut self, what: Group, failed: u64) {
        let group = match what {
            Group::One(seq) => vec![seq],
            Group::From(first) => self.slots.from(first),
        };
        if matches!(what, Group::From(_)) {
            self.stop_in_reverse(&group, &Cause::Restart).await;
        }
        for seq in group {
            if seq != failed {
                self.forget_temporary(seq);
            }
            if let Some(slot) = self.slots.get_mut(seq) {
                slot.held = false;
            }
            self.set_state(seq, ChildState::Restarting);
        }
    }

    /// Notes a restart; false when it is one too many for the intensity.
    fn count_restart(&mut self) -> bool {
        let now = clock::now();
        self.restarts.push_back(now);
        while let Some(first) = self.restarts.front()
            && now.saturating_duration_since(*first) > self.plan.period
        {
            self.restarts.pop_front();
        }
        self.restarts.len() <= self.plan.max_restarts
    }

    async fn make_restart(&mut self, what: Group) -> Result<(), GaveUp> {
        let group = match what {
            Group::One(seq) => vec![seq],
            Group::From(first) => self.slots.from(first),
        };
        for seq in group {
            let Some(slot) = self.slots.get_mut(seq) else {
                continue;
            };
            if slot.instance.is_some() || slot.held {
                continue;
            }
            slot.restarts += 1;
            match self.start(seq).await {
                Started::Up => {}
                Started::Interrupted => return Ok(()),
                Started::Failed(_) if self.slots.get(seq).is_none_or(|slot| slot.held) => {}
                Started::Failed(reason) => return self.restart_failed(seq, reason).await,
            }
        }
        Ok(())
    }

    /// A start inside a restart failed: it counts like an exit, and the rest of the group waits with it.
    async fn restart_failed(&mut self, seq: u64, reason: ExitReason) -> Result<(), GaveUp> {
        if self.slots.get(seq).is_some_and(|slot| slot.spec.restart == Restart::Temporary) {
            self.forget_temporary(seq);
            return Ok(());
        }
        self.restart_later(seq, reason, ExitContext::Start).await
    }

    /// Starts a child and waits until it is up.
    pub(super) async fn start(&mut self, seq: u64) -> Started {
        let Some(slot) = self.slots.get_mut(seq) else {
            return Started::Interrupted;
        };
        slot.spawn(seq, &self.ctx, &self.shared);
        let (run, waits, limit, name) =
            (slot.run, slot.spec.waits_for_ready, slot.spec.ready_within, slot.spec.name.clone());
        if !waits {
            self.set_state(seq, ChildState::Running);
            return Started::Up;
        }
        self.set_state(seq, ChildState::Starting);
        let deadline = clock::now() + limit;
        loop {
            let input = {
                let next = self.ctx.run(self.shared.next_event_or_terminate(&name));
                tokio::time::timeout_at(deadline, next).await
            };
            match input {
                Ok(Ok(Input::Event(Event::Ready { seq: who, run: which })))
                    if who == seq && which == run =>
                {
                    self.set_state(seq, ChildState::Running);
                    return Started::Up;
                }
                Ok(Ok(Input::Event(event @ Event::Exited { seq: who, run: which, .. })))
                    if who == seq && which == run =>
                {
                    return self.ended_before_ready(event);
                }
                Ok(Ok(Input::Event(event))) => self.kept.push_back(event),
                Ok(Ok(Input::Request(request))) => {
                    self.on_terminate(request).await;
                    return Started::Failed(ExitReason::Killed);
                }
                Ok(Err(_)) => {
                    self.stop_together(&[seq], &Cause::Shutdown).await;
                    return Started::Interrupted;
                }
                Err(_) => {
                    self.stop_together(&[seq], &Cause::Terminated).await;
                    return Started::Failed(ExitReason::NotReady(limit));
                }
            }
        }
    }

    /// A clean end before ready is a child that had nothing to do: it was up and is gone. Anything else is a failed start.
    fn ended_before_ready(&mut self, event: Event) -> Started {
        if let Event::Exited { reason, .. } = &event
            && reason.is_failure()
        {
            return Started::Failed(reason.clone());
        }
        self.kept.push_back(event);
        Started::Up
    }

    /// Takes note of an instance's end, and sees to it that nothing it started outlives it.
    pub(super) async fn reap(
        &mut self,
        seq: u64,
        reason: ExitReason,
        context: ExitContext,
        will_restart: bool,
    ) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let lived = match slot.instance.take() {
            // Stopped and reported already; only that it was not ready in time is still to be said.
            None if !matches!(reason, ExitReason::NotReady(_)) => return,
            None => std::time::Duration::ZERO,
            Some(instance) => {
                instance.ctx.kill(Cause::Terminated);
                if instance.ctx.live() > 0 && reason != ExitReason::Unstopped {
                    // What does not end after an abort cannot be waited for; the leak check names it.
                    let _left_behind =
                        tokio::time::timeout(ABORT_GRACE, instance.ctx.idle()).await.is_err();
                }
                clock::now().saturating_duration_since(instance.started)
            }
        };
        if context != ExitContext::Stop {
            let stable = lived >= self.plan.backoff.stable_after;
            slot.failures = if stable { 1 } else { slot.failures.saturating_add(1) };
        }
        slot.last_exit = Some(reason.clone());
        let report = ExitReport {
            supervisor: self.ctx.path(),
            child: slot.spec.name.to_string(),
            reason,
            context,
            will_restart,
            restarts: slot.restarts,
            lived,
        };
        self.set_state(seq, ChildState::Stopped);
        self.report(&report);
    }

    fn report(&self, report: &ExitReport) {
        let ExitReport { supervisor, child, reason, will_restart, restarts, .. } = report;
        if report.context != ExitContext::Stop && reason.is_failure() {
            tracing::warn!(%supervisor, %child, %reason, will_restart, restarts, "child ended");
        } else if *reason == ExitReason::Unstopped {
            tracing::error!(%supervisor, %child, "child could not be stopped");
        } else {
            tracing::debug!(%supervisor, %child, %reason, will_restart, "child ended");
        }
        if let Some(hook) = &self.plan.on_exit
            && let Err(message) = panics::catch(|| hook(report))
        {
            tracing::error!(%supervisor, %message, "the exit hook panicked");
        }
    }

    fn gave_up(&self, seq: u64, why: Why) -> GaveUp {
        let child = self.slots.get(seq).map(|slot| slot.spec.name.to_string());
        GaveUp { supervisor: self.ctx.path(), child, why }
    }

    pub(super) fn is_current(&self, seq: u64, run: u64) -> bool {
        self.slots.get(seq).is_some_and(|slot| slot.run == run && slot.instance.is_some())
    }

    pub(super) fn set_state(&mut self, seq: u64, state: ChildState) {
        if let Some(slot) = self.slots.get_mut(seq) {
            if slot.state != state {
                slot.state = state;
                slot.since = clock::now();
            }
            self.show(seq);
        }
    }

    fn show(&self, seq: u64) {
        if let Some(slot) = self.slots.get(seq) {
            self.shared.paint(seq, slot.view());
        }
    }

    pub(super) fn forget_temporary(&mut self, seq: u64) {
        if self.slots.get(seq).is_some_and(|slot| slot.spec.restart == Restart::Temporary) {
            self.forget(seq);
        }
    }

    pub(super) fn forget(&mut self, seq: u64) {
        self.slots.remove(seq);
        self.shared.erase(seq);
    }
}
