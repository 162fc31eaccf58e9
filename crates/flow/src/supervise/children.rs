//! The children a supervisor has, and one instance's life from spawn to exit event.
//!
//! Owns the slots, ordered by start. It decides nothing: the engine does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::report::{Directive, ExitReason};
use super::shared::{ChildState, Event, Shared, View};
use super::spec::{BoxError, Spec};
use crate::clock::{self, Instant};
use crate::ctx::Ctx;
use crate::panics;
use crate::tasks::Name;

/// A child and what has become of it.
pub(super) struct Slot {
    pub(super) spec: Spec,
    pub(super) dynamic: bool,
    /// Which life this is; events of earlier ones are stale.
    pub(super) run: u64,
    pub(super) instance: Option<Instance>,
    pub(super) state: ChildState,
    pub(super) since: Instant,
    pub(super) restarts: u64,
    /// Failures in a row, for the backoff.
    pub(super) failures: u32,
    /// Stopped by request: it stays so until the next group restart.
    pub(super) held: bool,
    pub(super) last_exit: Option<ExitReason>,
}

/// A life under way.
pub(super) struct Instance {
    pub(super) ctx: Ctx,
    pub(super) started: Instant,
}

#[derive(Default)]
pub(super) struct Slots {
    by_seq: BTreeMap<u64, Slot>,
    by_name: HashMap<Name, u64>,
    next: u64,
}

impl Slots {
    pub(super) fn add(&mut self, spec: Spec, dynamic: bool) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.by_name.insert(spec.name.clone(), seq);
        let slot = Slot {
            spec,
            dynamic,
            run: 0,
            instance: None,
            state: ChildState::Stopped,
            since: clock::now(),
            restarts: 0,
            failures: 0,
            held: false,
            last_exit: None,
        };
        self.by_seq.insert(seq, slot);
        seq
    }

    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(slot) = self.by_seq.remove(&seq) {
            self.by_name.remove(&slot.spec.name);
        }
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Slot> {
        self.by_seq.get(&seq)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.by_seq.get_mut(&seq)
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// The slots from `first` on, in the order of start.
    pub(super) fn from(&self, first: u64) -> Vec<u64> {
        self.by_seq.range(first..).map(|(seq, _)| *seq).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.by_seq.iter().map(|(seq, slot)| (*seq, slot))
    }
}

impl Slot {
    pub(super) fn view(&self) -> View {
        View {
            name: self.spec.name.clone(),
            kind: self.spec.kind(),
            nested: self.spec.nested.clone(),
            state: self.state,
            restarts: self.restarts,
            since: self.since,
            last_exit: self.last_exit.clone(),
        }
    }

    /// Spawns a new life.
    pub(super) fn spawn(&mut self, seq: u64, parent: &Ctx, shared: &Arc<Shared>) {
        self.run += 1;
        let run = self.run;
        let told = AtomicBool::new(false);
        let inbox = Arc::clone(shared);
        let ready = Arc::new(move || {
            if !told.swap(true, Ordering::AcqRel) {
                inbox.tell(Event::Ready { seq, run });
            }
        });
        let ctx = parent.shielded(self.spec.name.clone(), Some(ready));
        let last_word =
            LastWord { shared: Arc::clone(shared), seq, run, reason: ExitReason::Killed };
        let (start, own) = (Arc::clone(&self.spec.start), ctx.clone());
        let life = async move {
            // Declared first, so dropped last: when the word is out, nothing of this life is left.
            let mut last_word = last_word;
            let ended = panics::catch_async(async move { start(own).await }).await;
            last_word.reason = reason(ended);
        };
        drop(ctx.spawn_unowned(self.spec.name.clone(), self.spec.location, life));
        self.instance = Some(Instance { ctx, started: clock::now() });
    }
}

fn reason(ended: Result<Result<(), BoxError>, String>) -> ExitReason {
    match ended {
        Ok(Ok(())) => ExitReason::Normal,
        Ok(Err(error)) => match error.downcast_ref::<Directive>() {
            Some(Directive::DoNotRestart) => ExitReason::DoNotRestart,
            Some(Directive::TerminateTree) => ExitReason::TerminateTree,
            None => ExitReason::Error(error.to_string()),
        },
        Err(message) => ExitReason::Panicked(message),
    }
}

/// Tells the supervisor how a life ended, however it does.
struct LastWord {
    shared: Arc<Shared>,
    seq: u64,
    run: u64,
    reason: ExitReason,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let reason = std::mem::replace(&mut self.reason, ExitReason::Killed);
        self.shared.tell(Event::Exited { seq: self.seq, run: self.run, reason });
    }
}
