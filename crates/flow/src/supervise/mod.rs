//! Supervision: children that are started in order, restarted by a rule, and stopped in the reverse order.
//!
//! Owns the children's instances and the record of their exits. A supervisor only supervises: it does no work of its own,
//! and no child outlives it, whichever way it ends. Reading its state ([`Handle::tree`]) never waits for it.
//!
//! Most faults that reach production are passing ones: a peer that was away, a state nobody thought of. What helps is to
//! start again from a state that is known to be good. Supervision makes that a structure instead of a habit: whoever does
//! the work says how it failed and ends; whoever supervises knows nothing of the work and decides what comes next.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::time::Duration;
//! use forebay_flow::supervise::{Child, Restart, Strategy, Supervisor};
//! use forebay_flow::{Cause, Ctx, Stopped};
//!
//! let ctx = Ctx::root("app");
//! let supervisor = Supervisor::new("root", Strategy::RestForOne)
//!     .child(Child::new("store", |ctx: Ctx| async move { ctx.cancelled().await; Ok::<(), Stopped>(()) }))
//!     .child(Child::new("http", |ctx: Ctx| async move {
//!         ctx.ready();
//!         ctx.cancelled().await;
//!         Ok::<(), Stopped>(())
//!     }).restart(Restart::Permanent).ready_within(Duration::from_secs(10)));
//! let running = ctx.spawn("supervisor", supervisor.run(ctx.clone()));
//! ctx.cancel(Cause::Shutdown);
//! assert!(running.join().await.unwrap().is_ok());
//! # }
//! ```
//!
//! # A child's life
//!
//! ```text
//!            start            ready (or at once)          exit
//! Stopped ─────────► Starting ─────────► Running ─────────────────┐
//!    ▲                   │ failed                                 ▼ by rule
//!    │                   ▼                                   restart? ──no──► Stopped, or gone (temporary)
//!    └── gave up ◄── intensity passed? ◄── Restarting ◄─────────yes
//!                        (pause: backoff with jitter)
//! ```
//!
//! A child is up as soon as it is spawned or, with [`Child::ready_within`], when it calls
//! [`Ctx::ready`](crate::Ctx::ready); the next child of the plan waits for that. Before it is ready it can end in five
//! ways: cleanly (it had nothing more to do), with an error (its start failed), with [`Directive::Ignore`] (there is
//! nothing for it to do here), with [`Elsewhere`] (it runs already, in another process), or it is late. The first start of a child of the plan that fails ends the supervisor: what cannot start
//! once is no passing fault.
//!
//! # Who is restarted: strategies
//!
//! ```text
//!  started in this order      one_for_one      one_for_all       rest_for_one
//!  a   b   c   d              a   b   c   d    a   b   c   d     a   b   c   d
//!      ╳ fails                    ╳            ■   ╳   ■   ■         ╳   ■   ■    ■ stopped, the last first
//!                                 ●            ●   ●   ●   ●         ●   ●   ●    ● started, the first first
//! ```
//!
//! Ask what a child needs. Nothing of its siblings: [`Strategy::OneForOne`]. Those started before it, as `http` needs
//! `store`: [`Strategy::RestForOne`]. All of them, because they share a state that must be rebuilt as a whole:
//! [`Strategy::OneForAll`]. When only some of them belong together, those get a supervisor of their own.
//!
//! # Whether: rule × exit
//!
//! | exit | [permanent](Restart::Permanent) | [transient](Restart::Transient) | [temporary](Restart::Temporary) |
//! |---|---|---|---|
//! | `Ok(())` | restart | stays, stopped | forgotten |
//! | error, panic, killed, stuck | restart | restart | forgotten |
//! | [`Directive::DoNotRestart`], [`Directive::Ignore`] | stays, stopped | stays, stopped | forgotten |
//! | [`Directive::TerminateTree`] | the supervisor gives up | the same | the same |
//! | [`Handle::terminate_child`] | stays, stopped | stays, stopped | forgotten |
//! | stopped with its group | restart | restart | forgotten |
//!
//! A child that returns "cancelled" though nobody cancelled it has failed. A child that stays, stopped, comes back when
//! it is asked to ([`Handle::restart_child`]) or when its group is restarted.
//!
//! # When, and how often: backoff, intensity, cool-down
//!
//! [`Backoff`](crate::Backoff) says how long to wait before the next attempt, by the child's failures in a row: so that
//! a peer that is down is not hammered, and a hundred children do not come back in one moment. It never ends anything.
//! [`Supervisor::intensity`] ends it: more restarts than `max` within `period`, attempts counted, mean that starting
//! again does not help *here*. The supervisor stops its children and gives up; the one above rebuilds it from clean state,
//! or gives up in turn, up to the root, whose end is the program's.
//!
//! Choose them together. A child that fails at once is restarted after `initial`, then 2, 4, 8 … times that, up to
//! `max`. By default, 50 ms and five restarts in 10 s, constant failure is given up on after 1.5 s: quick, for a tree that
//! has someone above. Where a dependency may be away for a minute, and nobody above can do better than wait, make the
//! first pause longer than `period / max` (jitter taken off): then one child alone never passes the intensity. If the
//! supervisor has nobody above and its children do not need each other, [`Supervisor::cool_down`] may fit better: too
//! many failures make a pause in which nobody is restarted while the siblings run on; then the count starts at zero.
//!
//! # How it stops
//!
//! Dynamic children stop together, then those of the plan one after the other, in the reverse of the order in which they
//! were started. Each is told by its context, and aborted by its [`Shutdown`] rule; what it spawned in its context goes
//! with it. A child that blocks its thread cannot be aborted: after a second it is reported as
//! [`ExitReason::Unstopped`], [`leak::check`](crate::leak::check) names it, and the rest goes on without it. A child that
//! ends by itself meanwhile changes nothing.
//!
//! ```text
//! Brutal        told and aborted ─ 1 s ─► left behind
//! Deadline(d)   told ─ d ─► aborted ─ 1 s ─► left behind
//! Forever       told, and waited for: for supervisors, whose children have limits of their own
//! ```
//!
//! # When the work is done: significant children
//!
//! A supervisor that exists for one job should end with it. [`Supervisor::auto_shutdown`] says at which end: of any
//! [`Significant`] child, or of the last. The end is clean; above, it counts as a clean exit of this supervisor, and so it
//! goes further up only if this one is significant there. What makes no sense does not compile: a permanent significant
//! child, a significant child without such a rule.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use forebay_flow::supervise::{AutoShutdown, Child, Significant, Strategy, Supervisor};
//! use forebay_flow::{Ctx, Stopped};
//!
//! let helper = Child::new("progress", |ctx: Ctx| async move { ctx.cancelled().await; Ok::<(), Stopped>(()) });
//! let import = Child::new("import", |_ctx: Ctx| async { Ok::<(), Stopped>(()) });
//! let job = Supervisor::new("job", Strategy::OneForAll)
//!     .auto_shutdown(AutoShutdown::AnySignificant)
//!     .child(helper)
//!     .significant(Significant::transient(import));
//! assert_eq!(job.run(Ctx::root("app")).await, Ok(())); // nobody cancelled it
//! # }
//! ```
//!
//! # While it runs: requests
//!
//! A [`Handle`] starts, terminates, restarts, deletes and removes children, and [reconfigures](Handle::reconfigure) the
//! whole. The supervisor never waits in one place: a slow start or stop of one child holds up no request about another.
//! What does wait, does so for a reason:
//!
//! | request | waits for |
//! |---|---|
//! | all | the run to begin; room in the inbox (a thousand lie there) |
//! | start | the plan to be up; under a group strategy, a group that is down or coming up; then the child itself |
//! | restart | its group, if that is down or coming up; then the child itself |
//! | terminate, remove | the child's end, at most as long as its [`Shutdown`] rule takes |
//! | delete, reconfigure | nothing |
//!
//! Nobody waits for ever: when the supervisor ends, or is dropped without a run, what was asked of it is refused.
//!
//! # Noticing what does not fail
//!
//! A restart rule needs an exit. A child that waits for what will never come makes none. It can promise a
//! [`Heartbeat`]: call [`Ctx::beat`](crate::Ctx::beat) once in a while. A promise that is broken is reported, and the
//! child is stopped and restarted if it says so.
//!
//! # Coming from Erlang
//!
//! The behaviour is that of OTP's `supervisor`, and so are the names. What differs, and why:
//!
//! - **Readiness is said, not returned.** `start_link` returns when `init` is through; a future has one return, its end.
//!   So a child says [`Ctx::ready`](crate::Ctx::ready), and may hand something to whoever started it.
//! - **Backoff besides intensity.** OTP restarts at once and gives up soon; across a network that turns a peer's short
//!   absence into a dead tree.
//! - **Nobody can be killed by force.** A task is aborted at its next await, a thread not at all. What cannot be stopped
//!   is left behind by name, and counted, instead of hanging the tree.
//! - **`simple_one_for_one` is no strategy.** Any supervisor takes dynamic children, and stops them together. They are
//!   forgotten when it is rebuilt.
//! - **Requests are served while others are slow.** OTP's supervisor waits in each `start` and `stop`.
//! - **Reconfiguration does not reorder.** OTP takes the order of the new specs; here the stop order stays the reverse of
//!   the order in which those that run were started, and new children come last, until the next build.
//! - **No links, no exit signals between siblings.** A group that must fall together is a supervisor with
//!   [`Strategy::OneForAll`].
//!
//! # How it is built
//!
//! `machine` decides: `step(now, event) -> actions`, without I/O or clock, and `sequence` is the part of it that goes
//! child by child. `engine` carries out the actions and waits for the next event. `inbox` is where children, handles and
//! the end meet, and the only part that races.

mod engine;
mod handle;
mod inbox;
mod intensity;
mod life;
mod machine;
#[cfg(all(test, shuttle))]
mod model;
mod plan;
#[cfg(test)]
mod properties;
mod report;
mod requests;
mod sequence;
mod shared;
mod slots;
mod spec;
mod sync;

pub use self::handle::{
    ChildRef, ControlError, Counts, Handle, ReconfigureError, StartError, Started,
};
pub use self::intensity::CoolDown;
pub use self::plan::{AutoShutdown, EndsItself, Stays, Strategy, Supervisor};
pub use self::report::{
    Directive, Elsewhere, ExitContext, ExitReason, ExitReport, GaveUp, GiveUpReason, StuckReport,
};
pub use self::shared::{ChildState, Node, NodeKind, tree};
pub use self::spec::{Child, Heartbeat, Missed, Restart, Shutdown, Significant};
