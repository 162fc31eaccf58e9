//! Supervision, bounded queues, worker pools, admission and leak detection for Tokio programs that must survive
//! production.
//!
//! Concurrency is about controlling lifetimes, ownership and pressure under failure. Programs seldom fall over because
//! they are slow. A queue grew until the memory was gone; a task died and nobody noticed; a shutdown waited for a task
//! that nobody knew. This crate makes such programs hard to write: a queue cannot be made without a name, a bound and a
//! policy, a task cannot be started without an owner, and both can be looked at while they run.
//!
//! This page takes ten minutes. After it you can answer, for a program of your own, three questions about every task and
//! four about every queue. The rest is reference.
//!
//! # A program
//!
//! Something asks for work, something does it, and both are under a supervisor. This is all of it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::time::Duration;
//! use forebay_flow::queue::{Bound, Full, Builder};
//! use forebay_flow::supervise::{Child, Restart, Strategy, Supervisor};
//! use forebay_flow::{Cause, Ctx, leak};
//!
//! let (jobs, work) = Builder::new("jobs", Bound::items(64), Full::Reject)
//!     .why("200 jobs a second; who waits longer than a third of a second has given up")
//!     .build();
//!
//! let app = Ctx::root("app");
//! let tree = Supervisor::new("root", Strategy::OneForOne)
//!     .intensity(5, Duration::from_secs(10))
//!     .child(Child::new("worker", move |_ctx: Ctx| {
//!         let work = work.clone();
//!         async move {
//!             while let Some(job) = work.recv().await {
//!                 assert!(job > 0, "a panic ends this worker; it is started again, and the next job is done");
//!             }
//!             Ok::<(), std::io::Error>(())
//!         }
//!     }).restart(Restart::Transient));
//! let running = app.spawn("tree", tree.run(app.clone()));
//!
//! jobs.try_submit(1).unwrap(); // or it comes back inside the error: say no to your caller, early
//!
//! jobs.close(); // what was accepted is still done
//! app.cancel(Cause::Shutdown); // who has not ended after its time is aborted, and named
//! running.join().await.unwrap().unwrap();
//! leak::check(&app).await.unwrap(); // nothing is left
//! # }
//! ```
//!
//! # Three questions for a task
//!
//! | | the answer here |
//! |---|---|
//! | Who owns it? | A [`Task`] handle, a [`Scope`], a [`Group`], a [`pool`] or a [`supervise::Supervisor`]. There is no detached spawn: dropping the owner ends the task. |
//! | How does it stop? | Politely first: its [`Ctx`] is cancelled, with a [`Cause`], and the task sees that where it looks. Who does not look, or takes too long, is aborted by its owner, at its next await. |
//! | Who notices if it doesn't? | The supervisor's report names it, [`leak::check`] fails the test that left it behind, and [`dump`] shows where it stands. |
//!
//! A context is handed down, never ambient: what a function may wait for is in its arguments. Cancelling one reaches every
//! descendant. A child's deadline is never later than its parent's, so deadlines shrink down a chain of calls:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::time::Duration;
//! use forebay_flow::{Ctx, Stopped, clock};
//!
//! async fn ask(ctx: &Ctx) -> Result<u32, Stopped> {
//!     let ctx = ctx.with_deadline(clock::now() + Duration::from_secs(60)); // of its own, or the caller's
//!     ctx.run(std::future::pending()).await // ends with the future, the deadline or a cancel
//! }
//!
//! let app = Ctx::root("app");
//! let began = clock::now();
//! let request = app.with_deadline(began + Duration::from_secs(2));
//! assert_eq!(ask(&request).await, Err(Stopped::DeadlineExceeded));
//! assert_eq!(clock::now() - began, Duration::from_secs(2));
//! # }
//! ```
//!
//! [`Ctx::run`] drops the future when it ends early, and [`Ctx::cancelled`] waits for the cancel alone, for a `select!` of
//! your own. Cancelling never aborts anything by itself: that is the owner's last word. A [`Task`]'s owner says it by
//! dropping the handle, a [`Scope`] at its end, a supervisor when the child's [`Shutdown`](supervise::Shutdown) is over.
//!
//! What to take?
//!
//! | for | take |
//! |---|---|
//! | one task whose result you want | [`Ctx::spawn`] |
//! | many alike whose results nobody wants: connections | [`Scope`] |
//! | several that succeed or fail together | [`Group`] |
//! | the same question to many, and as many answers as there are by a deadline | [`fan_out`] |
//! | a stream of jobs with a bound on how many run | [`pool::TaskPool`]; [`pool::ThreadPool`] for work on the processor |
//! | something that must always be there | [`supervise::Child`] |
//!
//! # Four questions for a queue
//!
//! | | the answer here |
//! |---|---|
//! | Is it bounded? | [`queue::Bound`], in items or bytes. There is no other constructor. |
//! | Who waits when it is full? | [`queue::Full`]: the sender (`Block`), or nobody: the sender's caller is told no (`Reject`, `Shed`), or an item is lost (`Drop…`). |
//! | Is that acceptable? | Its row in the [`queue::snapshot`]: how often and how long it made somebody wait, what it refused, shed and dropped, and why it is as large as it is. |
//! | What is the failure mode? | In words in the same row. An item that is not taken comes back in the error; one that was taken is received, or counted as lost with the reason. After a close, what was accepted is drained. |
//!
//! A pool, a semaphore, a lock and a socket's backlog are queues, too: somebody waits in a line. [`admit::Slots`],
//! [`budget`] and [`lock`] answer the same questions. For much between two parties there is the [`ring`]; for one value that
//! everybody wants the newest of, [`latest`]; for the same to many, [`broadcast`].
//!
//! # Block, drop or reject
//!
//! Ask in this order and take the first yes.
//!
//! | ask | then |
//! |---|---|
//! | May the sender be slowed down, and whoever feeds it, up to the source? | `Block`. Nothing is lost, and pressure travels. Give the wait an end: `submit_within` |
//! | Does somebody wait for the answer who can be told no? | `Reject`. A fast no can be tried elsewhere; a late yes is no use |
//! | Do some of them matter more? | `Shed`, by priority, between two watermarks |
//! | Is only the latest of use? | `DropOldest`, or [`latest`] where it is one value |
//! | Is any as good as another? | `DropNewest`, and look at the count |
//!
//! `Block` alone is no policy for requests from outside: who cannot be slowed down must be told no. Refuse at the door,
//! before work was spent on it ([`admit`]), and let what was let in finish.
//!
//! # Choosing a bound
//!
//! Little's law: *items in the queue = items a second × seconds each spends in it*. So a bound is a promise about time.
//! 1,000 items before a receiver of 500 a second are two seconds for whoever comes last. If callers give up after 200 ms,
//! hold 100; all beyond is work for callers who are gone. From below, cover the receiver's longest usual pause: 20 ms at
//! 500 a second are 10. Between the two take the smaller. A queue that is full most of the time does not need a larger
//! bound, it needs a faster receiver or fewer senders.
//!
//! The same law sizes what does the work: 2,000 requests a second of 50 ms each keep 100 tasks of a pool busy. For threads
//! take as many as cores, and two jobs a worker in the queue before them: none idles between jobs, and none waits long.
//! Where items differ in size bound their bytes, so that all bounds together are a sum that can be held against the
//! machine's memory: [`queue::weighted`], [`budget`].
//!
//! What waits outside the bound counts as well: ten thousand senders in line at a queue of 64 are a queue of ten thousand.
//! Bound the senders, or the line ([`max_waiting`](queue::Builder::max_waiting)).
//!
//! # Failure
//!
//! An error and a panic are both an exit. A supervisor restarts its child by the child's rule
//! ([`supervise::Restart`]) and its own strategy, after a pause that grows, and gives up when restarts come too often: then
//! its own supervisor decides. So a crash stays where it happened, and one that does not pass goes up until somebody can
//! deal with it. Elsewhere a panic is a value, a [`Panic`]: of [`Task::join`], of a pool's job, of a single [`flight`].
//!
//! So write the work for the good case, end with an error when it is none, and let the supervisor start again from a state
//! that is known to be good. Handle on the spot only what you know how to go on from.
//!
//! Towards others: [`admit::Breaker`] stops asking who does not answer, [`admit::Retry`] asks again within a budget, so that
//! retries do not become the load, and [`admit::Bulkhead`] keeps one tenant's trouble from the others.
//!
//! # When something is stuck
//!
//! | you see | look at |
//! |---|---|
//! | it hangs | [`dump`]: all tasks by where they were spawned, with what they wait for and since when; idle ones can be asked for their stack. With the feature `debug-routes` that is `/debug/tasks` on any HTTP server |
//! | it hangs, and answers nobody | SIGQUIT, with `sigquit`: the same without stacks, on stderr, though every thread is blocked |
//! | two wait for each other | [`deadlock`]: tasks that wait for each other over locks, queues and slots. Debug builds tell of the lock order that leads there, before it does ([`lock::Checks`]) |
//! | it grows | [`snapshot`]: every few minutes all tasks are counted, and a place whose tasks only ever grow in number is named |
//! | it is slow | the rows of [`queue::snapshot`] and [`lock::snapshot`]: who waits, for how long so far, behind whom |
//! | a test leaves something behind | [`leak::check`] fails with the survivors, and where they were spawned |
//!
//! # Coming from Go
//!
//! | Go | here |
//! |---|---|
//! | `context.Context` | [`Ctx`]; a cancel has a cause, and the tree knows its tasks |
//! | `go f()` | [`Ctx::spawn`]; the handle owns the task |
//! | `errgroup`, with `SetLimit` | [`Group`]; the first error cancels the rest, results come in order |
//! | `sync.WaitGroup` | [`Scope`]; [`Scope::finish`] has a deadline, and says how many had to be aborted at it |
//! | `make(chan T, n)` | [`queue::Builder`]; any side may close, many senders are safe |
//! | `make(chan T)` | a bound of zero |
//! | `select` | `tokio::select!`, see below; with `default`: `try_submit`, `try_recv` |
//! | `singleflight`, `semaphore.Weighted`, `rate.Limiter` | [`flight::Flight`], [`admit::Slots`], [`admit::Rate`] |
//! | `sync.Mutex` and `sync.RWMutex` with go-deadlock | [`lock`]: `Mutex` and `RwLock`, blocking and async |
//! | goleak; SIGQUIT's dump; `/debug/pprof/goroutine` | [`leak`]; `sigquit`; `debug` |
//!
//! Two things differ. First, a task can be dropped at any await, by its owner or because another arm of a `select!` was
//! ready, so what it holds there must be good to drop. Each item's *Cancel safety* says what is left then. A receive that
//! is dropped has taken nothing. A submit that is dropped has sent its item or drops it, and gives it back if asked before:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use forebay_flow::queue::{self, Bound, Full};
//! # use forebay_flow::{Cause, Ctx};
//! # let ctx = Ctx::root("app");
//! # ctx.cancel(Cause::Shutdown);
//! # let (jobs, _work) = queue::bounded("jobs", Bound::items(1), Full::Block);
//! # jobs.try_submit("earlier").unwrap();
//! let mut sending = jobs.submit("a job");
//! tokio::select! {
//!     sent = &mut sending => sent.unwrap(),
//!     _cause = ctx.cancelled() => {}
//! }
//! let unsent = sending.take_back(); // `None` when it was sent
//! # assert_eq!(unsent, Some("a job"));
//! # }
//! ```
//!
//! Second, a task that never awaits cannot be stopped, and holds one of the runtime's threads: put such work on a
//! [`pool::ThreadPool`]. Nobody can stop it there either, but with a job timeout its caller is answered and its thread
//! replaced.
//!
//! # Coming from Erlang
//!
//! | Erlang/OTP | here |
//! |---|---|
//! | supervisor flags and child specifications | [`supervise`]: the same strategies, restart types, intensity, shutdown and significance, and a pause between restarts |
//! | a process and its mailbox | a task and a [`queue`], which is bounded and has a policy; a task without one is fine |
//! | `gen_server:call` | a queue of requests with a `oneshot` in each, or a [`lock`] where no order is needed |
//! | links and monitors | ownership; [`supervise::ExitReport`], [`Task::join`] |
//! | `exit(Pid, kill)` | abort at the next await. In the middle of a poll nothing can be stopped: what does not end is reported by name and left behind |
//! | `observer`, `recon` | [`dump`], [`snapshot`], `debug` |
//!
//! # How to read the reference
//!
//! Names are built alike everywhere. `submit` waits, `try_submit` never does, `submit_within(…, deadline)` does until a
//! deadline, `submit_blocking` holds its thread; so with `acquire`, `run`, `recv` and the others. A wait is limited by a
//! deadline, an [`Instant`], because that can be handed down a chain of calls. `Full` and `TimedOut` may be tried again later;
//! `Closed`, `Stopped` and `TooLarge` never succeed. What a refused call was given comes back in its error.
//!
//! A plain struct of settings is a `Config`: its defaults, where it has any, stand in its `Default`, and each field says its
//! unit. What is put together by methods is a builder. `stats` and `info` are one thing's figures, `snapshot` those
//! of all of its kind in the process: plain data, safe to keep. It may grow with a version, and so may most errors.
//!
//! At the root stands what nearly every program names: the context and its tasks, the clock, the pause between attempts. All
//! else is under its module, whose page says what to choose.
//!
//! # The modules
//!
//! Each is built on those before it: [`clock`], [`growth`], [`tasks`], [`ctx`], [`thread`], [`timer`], [`lock`], [`budget`],
//! [`queue`], [`ring`], [`latest`], [`recent`], [`broadcast`], [`flight`], [`admit`], [`pool`], [`group`], [`supervise`],
//! [`dump`], [`leak`], [`deadlock`], [`snapshot`], `sigquit` (on Unix), and `debug` behind the feature `debug-routes`.
//!
//! Absent on purpose: unbounded queues, ambient context, detached tasks, actors and addresses, a runtime of its own.

#![warn(missing_debug_implementations)]

// In the order of use: each may use only those above it.
mod backoff;
mod panic;
mod stacks;

pub mod clock;

pub mod growth;

mod sync;

mod wait;

pub mod tasks;

pub mod ctx;

mod orphans;

mod spawn;

pub mod thread;

pub mod timer;

pub mod lock;

pub mod budget;

pub mod queue;

pub mod ring;

pub mod latest;

pub mod recent;

pub mod broadcast;

pub mod flight;

pub mod admit;

pub mod pool;

pub mod group;

pub mod supervise;

pub mod dump;

pub mod leak;

pub mod deadlock;

pub mod snapshot;

#[cfg(unix)]
pub mod sigquit;

#[cfg(feature = "debug-routes")]
pub mod debug;

pub use backoff::Backoff;
pub use clock::{Clock, Instant};
pub use ctx::{Cause, Ctx, Stopped};
pub use group::{Group, GroupError, fan_out};
pub use panic::Panic;
pub use spawn::{Abandoned, Scope, Task, TaskError};
