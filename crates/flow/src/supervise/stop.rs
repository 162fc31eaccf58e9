//! Stopping children: politely, then by force, then giving up on them.
//!
//! Owns nothing between calls. It takes only events from the inbox and keeps those that are not its own for the engine.

use std::collections::{BTreeMap, BTreeSet};

use super::children::Instance;
use super::engine::Engine;
use super::report::{ExitContext, ExitReason};
use super::shared::{ChildState, Event};
use super::spec::Shutdown;
use crate::clock::{self, Instant};
use crate::ctx::Cause;
use crate::spawn::ABORT_GRACE;

/// Who is still alive, and when the next step against each is due.
#[derive(Default)]
struct Stopping {
    alive: BTreeMap<u64, Step>,
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Clone, Copy)]
struct Step {
    aborted: bool,
    due: Option<Instant>,
}

impl Stopping {
    fn set(&mut self, seq: u64, aborted: bool, due: Option<Instant>) {
        self.forget(seq);
        self.alive.insert(seq, Step { aborted, due });
        self.due.extend(due.map(|at| (at, seq)));
    }

    /// True when it was among the living.
    fn forget(&mut self, seq: u64) -> bool {
        let step = self.alive.remove(&seq);
        if let Some(at) = step.and_then(|step| step.due) {
            self.due.remove(&(at, seq));
        }
        step.is_some()
    }
}

impl Engine {
    /// Stops the given children at the same time and waits until each is down, or has proved that it cannot be stopped.
    pub(super) async fn stop_together(&mut self, seqs: &[u64], cause: &Cause) {
        let mut stopping = Stopping::default();
        for &seq in seqs {
            self.begin_stop(seq, cause, &mut stopping);
        }
        self.reap_already_gone(&mut stopping).await;
        while !stopping.alive.is_empty() {
            let event = match stopping.due.first() {
                Some((at, _)) => tokio::time::timeout_at(*at, self.shared.next_event()).await.ok(),
                None => Some(self.shared.next_event().await),
            };
            match event {
                Some(Event::Exited { seq, run, reason })
                    if self.is_current(seq, run) && stopping.forget(seq) =>
                {
                    self.reap(seq, reason, ExitContext::Stop, false).await;
                }
                Some(event) => self.kept.push_back(event),
                None => self.press(&mut stopping).await,
            }
        }
    }

    fn begin_stop(&mut self, seq: u64, cause: &Cause, stopping: &mut Stopping) {
        let Some(slot) = self.slots.get(seq) else {
            return;
        };
        let Some(Instance { ctx, .. }) = &slot.instance else {
            self.set_state(seq, ChildState::Stopped);
            return;
        };
        match slot.spec.shutdown {
            Shutdown::Brutal => {
                ctx.kill(cause.clone());
                stopping.set(seq, true, Some(clock::now() + ABORT_GRACE));
            }
            Shutdown::Deadline(limit) => {
                ctx.cancel(cause.clone());
                stopping.set(seq, false, Some(clock::now() + limit));
            }
            Shutdown::Forever => {
                ctx.cancel(cause.clone());
                stopping.set(seq, false, None);
            }
        }
        self.set_state(seq, ChildState::Stopping);
    }

    /// Some may have ended by themselves before, their exits kept for later.
    async fn reap_already_gone(&mut self, stopping: &mut Stopping) {
        for event in std::mem::take(&mut self.kept) {
            match event {
                Event::Exited { seq, run, reason }
                    if self.is_current(seq, run) && stopping.forget(seq) =>
                {
                    self.reap(seq, reason, ExitContext::Stop, false).await;
                }
                event => self.kept.push_back(event),
            }
        }
    }

    /// Time is up for some: abort those only asked so far, leave those behind that were aborted.
    async fn press(&mut self, stopping: &mut Stopping) {
        let now = clock::now();
        while let Some(&(at, seq)) = stopping.due.first()
            && at <= now
        {
            if stopping.alive.get(&seq).is_some_and(|step| step.aborted) {
                stopping.forget(seq);
                self.reap(seq, ExitReason::Unstopped, ExitContext::Stop, false).await;
            } else if let Some(instance) =
                self.slots.get(seq).and_then(|slot| slot.instance.as_ref())
            {
                instance.ctx.kill(Cause::Terminated);
                stopping.set(seq, true, Some(now + ABORT_GRACE));
            } else {
                stopping.forget(seq);
            }
        }
    }

    /// Stops the given children one after the other, the last started first.
    pub(super) async fn stop_in_reverse(&mut self, seqs: &[u64], cause: &Cause) {
        for seq in seqs.iter().rev() {
            self.stop_together(&[*seq], cause).await;
        }
    }

    /// Stops all: the dynamic ones together, then the static ones in reverse order.
    pub(super) async fn stop_all(&mut self, cause: &Cause) {
        let (dynamic, fixed): (Vec<_>, Vec<_>) =
            self.slots.all().map(|(seq, slot)| (seq, slot.dynamic)).partition(|(_, d)| *d);
        let seqs =
            |slots: Vec<(u64, bool)>| slots.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
        self.stop_together(&seqs(dynamic), cause).await;
        self.stop_in_reverse(&seqs(fixed), cause).await;
    }
}
