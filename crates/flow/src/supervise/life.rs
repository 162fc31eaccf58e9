//! One instance's life, from its spawn to its last word.
//!
//! Owns nothing between lives. It decides nothing: it tells the supervisor what happens, in its inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::report::{Directive, Elsewhere, ExitReason};
use super::shared::{Shared, Told};
use super::spec::{BoxError, Factory};
use crate::clock::{self, Instant};
use crate::ctx::{Ctx, Sign};
use crate::panic::{self, Panic};
use crate::tasks::Name;

/// A life under way, or not known to be over.
pub(super) struct Life {
    pub(super) ctx: Ctx,
    pub(super) run: u64,
    /// Whose picture is shown below it, if it is a supervisor.
    pub(super) nested: Option<Arc<Shared>>,
    pulse: Arc<Pulse>,
}

/// When the last heartbeat was.
struct Pulse {
    born: Instant,
    /// After `born`; zero before the first beat.
    last_nanos: AtomicU64,
}

/// Which life of which child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LifeId {
    pub(super) seq: u64,
    pub(super) run: u64,
}

impl Life {
    /// Spawns a life of a child called `name`, below the supervisor's context `parent`.
    pub(super) fn spawn(
        id: LifeId,
        name: &Name,
        location: &'static std::panic::Location<'static>,
        start: Arc<Factory>,
        nested: Option<Arc<Shared>>,
        (parent, shared): (&Ctx, &Arc<Shared>),
    ) -> Self {
        let pulse = Arc::new(Pulse { born: clock::now(), last_nanos: AtomicU64::new(0) });
        let (told, inbox, beats) = (AtomicBool::new(false), Arc::clone(shared), Arc::clone(&pulse));
        let listener = move |sign| match sign {
            Sign::Ready(info) => {
                if !told.swap(true, Ordering::AcqRel) {
                    inbox.inbox.tell(Told::Ready(id, info));
                }
            }
            Sign::Beat => beats.beat(),
        };
        let ctx = parent.shielded(name.clone(), Arc::new(listener));
        let last_word = LastWord { shared: Arc::clone(shared), id, reason: ExitReason::Killed };
        let own = ctx.clone();
        let life = async move {
            // Declared first, so dropped last: when the word is out, nothing of this life is left.
            let mut last_word = last_word;
            let running = async move {
                let running = start(own);
                // What a child was started from may be all that is left of it: it does not live as long as the child.
                drop(start);
                running.await
            };
            let ended = panic::catch_async(running).await;
            last_word.reason = reason(ended);
        };
        drop(ctx.spawn_unowned(name.clone(), location, life));
        Self { ctx, run: id.run, nested, pulse }
    }

    /// When it gave its last heartbeat.
    pub(super) fn last_beat(&self) -> Option<Instant> {
        match self.pulse.last_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.pulse.born + Duration::from_nanos(nanos)),
        }
    }
}

impl Pulse {
    fn beat(&self) {
        let nanos = clock::now().saturating_duration_since(self.born).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        // Only the latest counts, and nothing is ordered by it.
        self.last_nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}

fn reason(ended: Result<Result<(), BoxError>, Panic>) -> ExitReason {
    let error = match ended {
        Ok(Ok(())) => return ExitReason::Normal,
        Ok(Err(error)) => error,
        Err(panic) => return ExitReason::Panicked(panic.message().to_owned()),
    };
    if let Some(Elsewhere(identity)) = error.downcast_ref() {
        return ExitReason::Elsewhere(identity.clone());
    }
    match error.downcast_ref::<Directive>() {
        Some(Directive::DoNotRestart) => ExitReason::DoNotRestart,
        Some(Directive::TerminateTree) => ExitReason::TerminateTree,
        Some(Directive::Ignore) => ExitReason::Ignored,
        None => ExitReason::Error(error.to_string()),
    }
}

/// Tells the supervisor how a life ended, however it does.
struct LastWord {
    shared: Arc<Shared>,
    id: LifeId,
    reason: ExitReason,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let reason = std::mem::replace(&mut self.reason, ExitReason::Killed);
        self.shared.inbox.tell(Told::Exited(self.id, reason));
    }
}
