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
use std::future::Future;
use std::time::Duration;

use crate::budget::{self, Share, ShareInfo};
use crate::ctx::Ctx;
use crate::dump::{self, Stack};
use crate::tasks::{self, Kind, State, TaskInfo};

/// Pauses between looks, in real time: what is about to end gets about a second.
const PAUSES_MS: [u64; 9] = [1, 2, 5, 10, 25, 50, 100, 300, 500];

/// It never looks more often than this.
const MAX_LOOKS: usize = 60;

/// At most this many of the survivors are listed in the report's text.
const LISTED: usize = 50;

/// At most this many of the survivors are asked for their stack.
const STACKS: usize = 8;

/// What outlived its owner.
#[derive(Clone)]
#[non_exhaustive]
pub struct Leaks {
    /// Live tasks and threads, with where they were spawned.
    pub tasks: Vec<TaskInfo>,
    /// The watched shares from which bytes are still out.
    pub shares: Vec<ShareInfo>,
    /// Where the first few of the idle tasks stand; empty after [`Checker::look`].
    pub stacks: Vec<Stack>,
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks and {} shares leaked", self.tasks.len(), self.shares.len())?;
        for task in self.tasks.iter().take(LISTED) {
            let kind = match task.kind {
                Kind::Task => "task",
                Kind::Thread => "thread",
            };
            write!(f, "\n  {kind} {task}")?;
            let stacks = self.stacks.iter().filter(|stack| stack.task == task.id);
            for (at, frame) in
                stacks.flat_map(|at| &at.leaves).flat_map(|leaf| leaf.iter().enumerate())
            {
                write!(f, "\n    {} {frame}", if at == 0 { "-" } else { " " })?;
            }
        }
        if let Some(more @ 1..) = self.tasks.len().checked_sub(LISTED) {
            write!(f, "\n  and {more} tasks more")?;
        }
        for share in &self.shares {
            write!(f, "\n  {} bytes of {}/{}", share.used, share.budget, share.share)?;
        }
        Ok(())
    }
}

/// As it is displayed, since it is mostly read in the message of a failed `unwrap`.
impl fmt::Debug for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Leaks {}

/// Fails when a task or thread still lives below `root`, after retrying with growing pauses for about a second, and on
/// while they are getting fewer: [`Checker::check`] of [`Checker::under`].
///
/// # Errors
/// [`Leaks`] names the survivors.
///
/// # Cancel safety
/// Dropped, it has looked and no more. Tasks that were asked for their stack still get their one poll.
///
/// # Panics
/// Outside of a Tokio runtime with a timer.
pub async fn check(root: &Ctx) -> Result<(), Leaks> {
    Checker::under(root).check().await
}

type Ignore = Box<dyn Fn(&TaskInfo) -> bool + Send + Sync>;

/// A check with a baseline: what lived when it was made is no leak.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use forebay_flow::{Ctx, leak::Checker};
/// let ctx = Ctx::root("test");
/// let _known = ctx.spawn("known", std::future::pending::<()>());
/// let here = file!();
/// let checker = Checker::new().ignore(move |task| task.location.file() != here); // others' tests
/// checker.look().unwrap();
/// let _leak = ctx.spawn("known", std::future::pending::<()>()); // by identity, not by name
/// assert_eq!(checker.look().unwrap_err().tasks.len(), 1);
/// # }
/// ```
pub struct Checker {
    root: Option<Ctx>,
    before: HashSet<u64>,
    shares: Vec<Share>,
    ignored: Vec<Ignore>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("root", &self.root)
            .field("before", &self.before.len())
            .field("shares", &self.shares)
            .field("ignored", &self.ignored.len())
            .finish()
    }
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
    pub fn ignore(mut self, ignore: impl Fn(&TaskInfo) -> bool + Send + Sync + 'static) -> Self {
        self.ignored.push(Box::new(ignore));
        self
    }

    /// Looks, and again with growing pauses of real time while there is something to see, for about a second, and on while
    /// the survivors are getting fewer, half a minute at most. Then it asks them where they stand.
    ///
    /// # Errors
    /// [`Leaks`] names the survivors.
    ///
    /// # Cancel safety
    /// Dropped, it has looked and no more. Tasks that were asked for their stack still get their one poll.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer.
    pub async fn check(&self) -> Result<(), Leaks> {
        let Err(mut leaks) = retry(|| self.look(), pause).await else {
            return Ok(());
        };
        let idle = leaks.tasks.iter().filter(|task| task.state == State::Idle);
        let ids = idle.filter(|task| task.kind == Kind::Task).map(|task| ((), task.id));
        let stacks = dump::stacks_of(ids.take(STACKS).collect()).await;
        leaks.stacks = stacks.into_iter().map(|((), stack)| stack).collect();
        Err(leaks)
    }

    /// Looks once, without waiting and without stacks.
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
        let shares: Vec<_> =
            self.shares.iter().map(budget::info).filter(|share| share.used > 0).collect();
        if tasks.is_empty() && shares.is_empty() {
            return Ok(());
        }
        Err(Leaks { tasks, shares, stacks: Vec::new() })
    }
}

/// Looks until all is well, once more than there are pauses, and on while the survivors are getting fewer: very many
/// tasks that were aborted at once take their time on a busy machine, and are no leak.
async fn retry<P: Future>(
    mut look: impl FnMut() -> Result<(), Leaks>,
    mut pause: impl FnMut(Duration) -> P,
) -> Result<(), Leaks> {
    let mut left = usize::MAX;
    for looks in 0.. {
        let Err(leaks) = look() else {
            return Ok(());
        };
        let now = leaks.tasks.len() + leaks.shares.len();
        let pause_ms = match PAUSES_MS.get(looks) {
            Some(pause_ms) => *pause_ms,
            None if now < left && looks < MAX_LOOKS => PAUSES_MS[PAUSES_MS.len() - 1],
            None => return Err(leaks),
        };
        left = now;
        pause(Duration::from_millis(pause_ms)).await;
    }
    Ok(())
}

/// Sleeps in real time, off the runtime: a paused clock must not skip it, threads need it to end.
#[expect(clippy::disallowed_methods, reason = "half a second at most, and awaited")]
async fn pause(duration: Duration) {
    // The closure cannot panic, and a runtime shutting down may cut it short.
    drop(tokio::task::spawn_blocking(move || std::thread::sleep(duration)).await);
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::Duration;

    use super::{Leaks, MAX_LOOKS, PAUSES_MS, retry};
    use crate::budget::ShareInfo;

    fn leaks(count: usize) -> Result<(), Leaks> {
        if count == 0 {
            return Ok(());
        }
        let (budget, share) = (String::new(), String::new());
        let one = ShareInfo { budget, share, capacity: 1, used: 1, peak: 1, waiters: 0 };
        Err(Leaks { tasks: Vec::new(), shares: vec![one; count], stacks: Vec::new() })
    }

    /// Whether a check ends well that sees so many leaks at its first look, its second, and so on; how often it looked, and
    /// how long it paused between.
    fn run(seen: impl Fn(usize) -> usize) -> (bool, usize, Vec<Duration>) {
        let (mut looks, mut pauses) = (0, Vec::new());
        let look = || {
            looks += 1;
            leaks(seen(looks))
        };
        let pause = |pause| {
            pauses.push(pause);
            ready(())
        };
        let well = crate::thread::block_on(retry(look, pause)).is_ok();
        (well, looks, pauses)
    }

    #[test]
    fn b48_it_looks_again_after_each_of_its_growing_pauses_and_no_longer_than_needed() {
        assert_eq!(run(|_| 0), (true, 1, Vec::new()));
        let (well, looks, pauses) = run(|look| usize::from(look < 4));
        assert!(well && looks == 4 && pauses.len() == 3);
        assert!(run(|look| usize::from(look < PAUSES_MS.len() + 1)).0, "the last look counts");
        let (well, looks, pauses) = run(|_| 1);
        assert!(!well && looks == PAUSES_MS.len() + 1 && pauses.len() == PAUSES_MS.len());
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]));
        let sum = pauses.iter().sum::<Duration>();
        assert!(sum > Duration::from_millis(900) && sum < Duration::from_millis(1100), "{sum:?}");
    }

    #[test]
    fn b48_it_goes_on_while_the_survivors_are_getting_fewer_but_not_for_ever() {
        assert!(run(|look| 30_usize.saturating_sub(look)).0);
        let (well, looks, _) = run(|look| 30_usize.saturating_sub(look).max(5));
        assert!(
            !well && looks == 26,
            "the first look that finds as many as the one before: {looks}"
        );
        let (well, looks, pauses) = run(|look| 1000 - look);
        assert!(!well && looks == MAX_LOOKS + 1);
        assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(30));
    }
}
