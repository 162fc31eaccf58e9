//! Supervision: children that are started in order, restarted by a rule, and stopped in the reverse order.
//!
//! Owns the children's instances and the record of their exits. A supervisor only supervises: it does no work of its own,
//! and no child outlives it, whichever way it ends. Reading its state ([`Handle::tree`]) never waits for it.
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
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
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
//!     }).restart(Restart::Permanent).waits_for_ready(true));
//! let running = ctx.spawn("supervisor", supervisor.run(ctx.clone()));
//! ctx.cancel(Cause::Shutdown);
//! assert!(running.join().await.unwrap().is_ok());
//! # }
//! ```

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
    Directive, Elsewhere, ExitContext, ExitReason, ExitReport, GaveUp, StuckReport, Why,
};
pub use self::shared::{ChildState, Node, NodeKind, tree};
pub use self::spec::{Child, Heartbeat, Missed, Restart, Shutdown, Significant};
pub use crate::ctx::StartInfo;
