//! The supervisor at work: carries out what the machine decides, and brings it what happens.
//!
//! Owns the lives of the children and who waits for answers. It decides nothing, and it waits for one thing only: the
//! next event. So a slow start or stop of one child holds up no request about another.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::life::{Life, LifeId};
use super::machine::{Action, Answer, Event, Machine, Ticket};
use super::plan::{Claim, Plan, PlanCell};
use super::report::{
    Directive, ExitContext, ExitReason, ExitReport, GaveUp, GiveUpReason, StuckReport,
};
use super::requests::Asked;
use super::shared::{Request, Shared, Told, View, What};
use super::spec::{Body, Spec};
use crate::clock;
use crate::ctx::{Cause, Ctx};
use crate::panic;
use crate::spawn::ABORT_GRACE;

/// How a supervisor ended, if well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to, or its work was done.
    Stopped,
    /// Its init said that there is nothing to do.
    Ignored,
}

struct Engine {
    machine: Machine,
    actions: VecDeque<Action>,
    ctx: Ctx,
    shared: Arc<Shared>,
    plan: Plan,
    /// Where the next build finds its plan, if there may be one.
    next_build: Option<PlanCell>,
    /// What each child is started from.
    bodies: HashMap<u64, Body>,
    lives: HashMap<u64, Life>,
    replies: HashMap<Ticket, oneshot::Sender<Answer>>,
    /// Of requests to start that are not decided yet.
    new_bodies: HashMap<Ticket, Body>,
    /// Of reconfigurations that are not carried out yet.
    new_plans: HashMap<Ticket, Plan>,
    next_ticket: Ticket,
    /// Events that were taken from the inbox and not looked at yet.
    events: VecDeque<Told>,
    _claim: Arc<Claim>,
}

/// Runs a supervisor whose own context is `ctx`.
pub(super) async fn run(
    mut plan: Plan,
    next_build: Option<PlanCell>,
    claim: Arc<Claim>,
    ctx: Ctx,
) -> Result<Ended, GaveUp> {
    let gave_up = |reason| GaveUp { supervisor: ctx.path(), child: None, reason };
    if let Some((field, problem)) = plan.fault() {
        return Err(gave_up(GiveUpReason::BadSpec { field, problem }));
    }
    let shared = Arc::clone(&claim.0);
    let Some(next) = shared.begin() else {
        return Err(gave_up(GiveUpReason::AlreadyRunning));
    };
    // From here on its drop ends the run.
    let children = std::mem::take(&mut plan.children);
    let names = (plan.name.to_string(), ctx.path());
    let mut engine = Engine {
        machine: Machine::new(
            names,
            plan.settings.clone(),
            next,
            fastrand::Rng::new(),
            clock::now(),
        ),
        actions: VecDeque::new(),
        shared,
        plan,
        next_build,
        bodies: HashMap::new(),
        lives: HashMap::new(),
        replies: HashMap::new(),
        new_bodies: HashMap::new(),
        new_plans: HashMap::new(),
        next_ticket: 0,
        events: VecDeque::new(),
        ctx: ctx.clone(),
        _claim: claim,
    };
    if let Some(ended) = engine.init().await.map_err(|error| gave_up(GiveUpReason::Init(error)))? {
        return Ok(ended);
    }
    engine.boot(next, children);
    engine.live().await.map(|()| Ended::Stopped)
}

impl Drop for Engine {
    /// However it ends, no child outlives it. After an orderly end there is none left.
    fn drop(&mut self) {
        for life in self.lives.values() {
            life.ctx.kill(Cause::Dropped);
        }
        self.shared.end();
    }
}

impl Engine {
    /// Runs the plan's init, if it has one; `Some` when that was all.
    async fn init(&mut self) -> Result<Option<Ended>, String> {
        let Some(init) = self.plan.init.clone() else {
            return Ok(None);
        };
        let own = self.ctx.unheard_child("init");
        let inner = own.clone();
        let running = panic::catch_async(async move { init(inner).await });
        let ended = self.ctx.run(running).await;
        own.kill(Cause::Terminated);
        // What does not end after an abort cannot be waited for; the leak check names it.
        let _left_behind = tokio::time::timeout(ABORT_GRACE, own.idle()).await.is_err();
        match ended {
            Err(_stopped) => Ok(Some(Ended::Stopped)),
            Ok(Err(message)) => Err(format!("panicked: {message}")),
            Ok(Ok(Ok(()))) => Ok(None),
            Ok(Ok(Err(error))) => match error.downcast_ref() {
                Some(Directive::Ignore) => Ok(Some(Ended::Ignored)),
                _ => Err(error.to_string()),
            },
        }
    }

    fn boot(&mut self, first: u64, children: Vec<Spec>) {
        let mut rules = Vec::with_capacity(children.len());
        for (seq, child) in (first..).zip(children) {
            rules.push(child.rules);
            self.bodies.insert(seq, child.body);
        }
        self.step(Event::Boot(rules));
    }

    async fn live(&mut self) -> Result<(), GaveUp> {
        let ctx = self.ctx.clone();
        let mut cancelled = pin!(ctx.cancelled());
        let mut told_to_end = false;
        let mut alarm = pin!(tokio::time::sleep_until(clock::now()));
        loop {
            while let Some(action) = self.actions.pop_front() {
                if let Action::Finish(outcome) = action {
                    return outcome;
                }
                self.act(action);
                // A hundred thousand starts in a row leave the others their turn.
                tokio::task::coop::consume_budget().await;
            }
            if let Some(told) = self.events.pop_front() {
                self.on_told(told);
                continue;
            }
            let cancelled = (!told_to_end).then_some(cancelled.as_mut());
            match self.next(cancelled, alarm.as_mut()).await {
                Input::Events => {}
                Input::Request(request) => self.on_request(request),
                Input::Time => self.on_time(),
                Input::Cancelled(cause) => {
                    told_to_end = true;
                    self.step(Event::Cancelled(cause));
                }
            }
        }
    }

    /// Waits for whatever comes first.
    async fn next(
        &mut self,
        mut cancelled: Option<Pin<&mut impl Future<Output = Cause>>>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Input {
        let until = self.ctx.deadline().filter(|_| cancelled.is_some());
        let alarm_at = [self.machine.deadline(), until].into_iter().flatten().min();
        if let Some(at) = alarm_at
            && alarm.deadline() != at
        {
            alarm.as_mut().reset(at);
        }
        poll_fn(|cx| {
            if let Some(cancelled) = &mut cancelled
                && let Poll::Ready(cause) = cancelled.as_mut().poll(cx)
            {
                return Poll::Ready(Input::Cancelled(cause));
            }
            match self.shared.inbox.poll_take(cx, &mut self.events) {
                Poll::Ready(None) => return Poll::Ready(Input::Events),
                Poll::Ready(Some(request)) => return Poll::Ready(Input::Request(request)),
                Poll::Pending => {}
            }
            if alarm_at.is_some() && alarm.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Input::Time);
            }
            Poll::Pending
        })
        .await
    }

    fn step(&mut self, event: Event) {
        self.actions.extend(self.machine.step(clock::now(), event));
    }

    fn on_time(&mut self) {
        if self.ctx.deadline().is_some_and(|deadline| deadline <= clock::now()) {
            self.ctx.cancel(Cause::Other("its deadline passed"));
        }
        self.step(Event::Tick);
    }

    fn on_told(&mut self, told: Told) {
        match told {
            Told::Ready(LifeId { seq, run }, info) => self.step(Event::Ready { seq, run, info }),
            Told::Exited(id, reason) => self.on_exited(id, reason),
            Told::Swept(id, reason) => self.on_gone(id, reason),
        }
    }

    /// A child's own task ended. Nothing that it spawned may outlive it.
    fn on_exited(&mut self, id: LifeId, reason: ExitReason) {
        let Some(life) = self.lives.get(&id.seq).filter(|life| life.run == id.run) else {
            return;
        };
        life.ctx.kill(Cause::Terminated);
        if life.ctx.live() == 0 {
            return self.on_gone(id, reason);
        }
        let ctx = life.ctx.clone();
        let swept = Swept { shared: Arc::clone(&self.shared), id, reason };
        let sweep = async move {
            let _swept = swept;
            // What does not end after an abort cannot be waited for; the leak check names it.
            let _left_behind = tokio::time::timeout(ABORT_GRACE, ctx.idle()).await.is_err();
        };
        drop(self.ctx.spawn_unowned("sweep".into(), Location::caller(), sweep));
        self.step(Event::Leaving { seq: id.seq, run: id.run });
    }

    fn on_gone(&mut self, LifeId { seq, run }: LifeId, reason: ExitReason) {
        if self.lives.get(&seq).is_some_and(|life| life.run == run) {
            self.lives.remove(&seq);
        }
        self.step(Event::Exited { seq, run, reason });
    }

    fn on_request(&mut self, Request { what, reply }: Request) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.replies.insert(ticket, reply);
        let asked = match what {
            What::Start(spec) => {
                let Spec { rules, body } = *spec;
                self.new_bodies.insert(ticket, body);
                Asked::Start(Box::new(rules))
            }
            What::Terminate(name) => Asked::Terminate(name),
            What::Restart(name) => Asked::Restart(name),
            What::Delete(name) => Asked::Delete(name),
            What::Remove(seq) => Asked::Remove(seq),
            What::Reconfigure(plan) => {
                let rules = plan.children.iter().map(|spec| spec.rules.clone()).collect();
                let settings = Box::new(plan.settings.clone());
                let name = plan.name.to_string();
                self.new_plans.insert(ticket, *plan);
                Asked::Reconfigure(settings, name, rules)
            }
        };
        self.step(Event::Asked(asked, ticket));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Added { ticket, seq } => {
                if let Some(body) = self.new_bodies.remove(&ticket) {
                    self.bodies.insert(seq, body);
                }
            }
            Action::Rebind { ticket, index, seq } => self.rebind(ticket, index, seq),
            Action::Spawn { seq, run } => self.spawn(LifeId { seq, run }),
            Action::Cancel { seq, cause } => self.with_life(seq, |life| life.ctx.cancel(cause)),
            Action::Kill { seq, cause } => self.with_life(seq, |life| life.ctx.kill(cause)),
            Action::TakePulse { seq, run } => {
                let life = self.lives.get(&seq).filter(|life| life.run == run);
                let last = life.and_then(Life::last_beat);
                self.step(Event::Pulse { seq, run, last });
            }
            Action::Paint(seq) => self.paint(seq),
            Action::Erase(seq) => {
                self.bodies.remove(&seq);
                self.lives.remove(&seq);
                self.shared.erase(seq);
            }
            Action::Answer(ticket, answer) => self.answer(ticket, answer),
            Action::Exit(report) => self.report(&report),
            Action::Stuck(report) => self.report_stuck(&report),
            Action::CoolingDown(pause) => {
                tracing::error!(supervisor = %self.ctx.path(), ?pause, "too many failures: no restarts for a while");
            }
            Action::Ready => self.ctx.ready(),
            // `live` takes it.
            Action::Finish(_) => {}
        }
    }

    fn with_life(&self, seq: u64, act: impl FnOnce(&Life)) {
        if let Some(life) = self.lives.get(&seq) {
            act(life);
        }
    }

    fn spawn(&mut self, id: LifeId) {
        let (Some(slot), Some(body)) =
            (self.machine.slots.get(id.seq), self.bodies.get_mut(&id.seq))
        else {
            return;
        };
        let temporary = slot.rules.restart == super::spec::Restart::Temporary;
        let start = if temporary { body.start.take() } else { body.start.clone() };
        let Some(start) = start else {
            tracing::error!(child = %slot.rules.name, "there is nothing left to start it from");
            let reason = ExitReason::Error("there is nothing left to start it from".to_owned());
            return self.step(Event::Exited { seq: id.seq, run: id.run, reason });
        };
        let (name, nested) = (slot.rules.name.clone(), body.nested.clone());
        let above = (&self.ctx, &self.shared);
        let life = Life::spawn(id, &name, body.location, start, nested, above);
        self.lives.insert(id.seq, life);
    }

    /// A child is started from something else the next time.
    fn rebind(&mut self, ticket: Ticket, index: usize, seq: u64) {
        let spec = self.new_plans.get(&ticket).and_then(|plan| plan.children.get(index));
        if let Some(mut body) = spec.map(|spec| spec.body.clone()) {
            let slot = self.machine.slots.get(seq);
            if slot.is_some_and(|slot| slot.lives_once()) {
                body.start = None;
            }
            self.bodies.insert(seq, body);
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.new_bodies.remove(&ticket);
        if let Some(plan) = self.new_plans.remove(&ticket)
            && answer == Answer::Done
        {
            self.shared.set_strategy(plan.settings.strategy);
            if let Some(cell) = &self.next_build {
                *cell.lock() = plan.clone();
            }
            self.plan = Plan { children: Vec::new(), ..plan };
        }
        // Whoever asked may have gone.
        drop(self.replies.remove(&ticket).map(|reply| reply.send(answer)));
    }

    fn paint(&self, seq: u64) {
        let (Some(slot), Some(body)) = (self.machine.slots.get(seq), self.bodies.get(&seq)) else {
            return;
        };
        let nested = self.lives.get(&seq).map_or(&body.nested, |life| &life.nested);
        self.shared.paint(seq, View::new(slot, nested.clone()));
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
            && let Err(panic) = panic::catch(|| hook(report))
        {
            tracing::error!(%supervisor, %panic, "the exit hook panicked");
        }
    }

    fn report_stuck(&self, report: &StuckReport) {
        let StuckReport { supervisor, child, silent, will_stop } = report;
        tracing::error!(%supervisor, %child, ?silent, will_stop, "child missed its heartbeat");
        if let Some(hook) = &self.plan.on_stuck
            && let Err(panic) = panic::catch(|| hook(report))
        {
            tracing::error!(%supervisor, %panic, "the hook for stuck children panicked");
        }
    }
}

/// Tells that a life is swept up when it is dropped: also when the sweep itself is killed, with the context it is in.
struct Swept {
    shared: Arc<Shared>,
    id: LifeId,
    reason: ExitReason,
}

impl Drop for Swept {
    fn drop(&mut self) {
        self.shared.inbox.tell(Told::Swept(self.id, self.reason.clone()));
    }
}

enum Input {
    /// Some are in `events` now.
    Events,
    Request(Request),
    Time,
    Cancelled(Cause),
}
