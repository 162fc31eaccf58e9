//! Leak detection for tests and for the end of the program.
//!
//! Owns nothing between calls but, in a [`Checker`], the set of tasks that were there before. A check looks only below
//! one context, or past one baseline, so tests that run side by side do not see each other's tasks.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use forebay_flow::{Ctx, leak};
//! let ctx = Ctx::root("test");
//! let task = ctx.spawn("forgotten", std::future::pending::<()>());
//! let leaks = leak::check(&ctx).await.unwrap_err();
//! assert_eq!(leaks.tasks[0].name, "forgotten");
//! drop(task);
//! leak::check(&ctx).await.unwrap();
//! # }
//! ```

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use crate::budget::{self, Share, ShareInfo};
use crate::ctx::Ctx;
use crate::tasks::{self, TaskInfo};

/// Pauses between looks, in real time: what is about to end gets about a second.
const PAUSES_MS: [u64; 9] = [1, 2, 5, 10, 25, 50, 100, 300, 500];

/// What outlived its owner.
#[derive(Clone, Debug)]
pub struct Leaks {
    /// Live tasks and threads, with where they were spawned.
    pub tasks: Vec<TaskInfo>,
    /// Shares from which bytes are still out.
    pub permits: Vec<ShareInfo>,
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks and {} shares leaked", self.tasks.len(), self.permits.len())?;
        for task in &self.tasks {
            write!(f, "\n  {task}")?;
        }
        for share in &self.permits {
            write!(f, "\n  {} bytes of {}/{}", share.used, share.budget, share.share)?;
        }
        Ok(())
    }
}

impl std::error::Error for Leaks {}

/// Fails when a task or thread still lives below `root`, after retrying with growing pauses for about a second.
///
/// # Errors
/// [`Leaks`] names the survivors.
pub async fn check(root: &Ctx) -> Result<(), Leaks> {
    Checker::under(root).check().await
}

/// A check with a baseline: what lived when it was made is no leak.
#[derive(Debug)]
pub struct Checker {
    root: Option<Ctx>,
    before: HashSet<u64>,
    shares: Vec<Share>,
    ignored: Vec<fn(&TaskInfo) -> bool>,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// Looks at the whole process; every task alive now is the baseline, by identity: a new task of the same name counts.
    #[must_use]
    pub fn new() -> Self {
        let before = tasks::snapshot().iter().map(|task| task.id).collect();
        Self { root: None, before, shares: Vec::new(), ignored: Vec::new() }
    }

    /// Looks below `root` only, with no baseline.
    #[must_use]
    pub fn under(root: &Ctx) -> Self {
        Self {
            root: Some(root.clone()),
            before: HashSet::new(),
            shares: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// Also fails when bytes of `share` are still out.
    #[must_use]
    pub fn share(mut self, share: &Share) -> Self {
        self.shares.push(share.clone());
        self
    }

    /// Ignores the tasks that `ignore` says yes to: by place, owner, name or kind.
    #[must_use]
    pub fn ignore(mut self, ignore: fn(&TaskInfo) -> bool) -> Self {
        self.ignored.push(ignore);
        self
    }

    /// Looks, and again with growing pauses of real time while there is something to see, for about a second.
    ///
    /// # Errors
    /// [`Leaks`] names the survivors.
    pub async fn check(&self) -> Result<(), Leaks> {
        for pause_ms in PAUSES_MS {
            match self.look() {
                Ok(()) => return Ok(()),
                Err(_) => pause(Duration::from_millis(pause_ms)).await,
            }
        }
        self.look()
    }

    /// Looks once.
    ///
    /// # Errors
    /// [`Leaks`] names what is alive now.
    pub fn look(&self) -> Result<(), Leaks> {
        let mut tasks = match &self.root {
            Some(root) => tasks::under(root.node()),
            None => tasks::snapshot(),
        };
        tasks.retain(|task| {
            !self.before.contains(&task.id) && !self.ignored.iter().any(|ignore| ignore(task))
        });
        let permits: Vec<_> =
            self.shares.iter().map(budget::info).filter(|share| share.used > 0).collect();
        if tasks.is_empty() && permits.is_empty() { Ok(()) } else { Err(Leaks { tasks, permits }) }
    }
}

/// Sleeps in real time, off the runtime: a paused clock must not skip it, threads need it to end.
#[expect(clippy::disallowed_methods, reason = "half a second at most, and awaited")]
async fn pause(duration: Duration) {
    // The closure cannot panic, and a runtime shutting down may cut it short.
    drop(tokio::task::spawn_blocking(move || std::thread::sleep(duration)).await);
}
