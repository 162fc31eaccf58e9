//! A permanent child never ends for good, so its end cannot be the end of its supervisor.
use forebay_flow::supervise::{Child, Restart, Significant};
use forebay_flow::{Ctx, Stopped};

fn main() {
    let child = Child::new("a", |_ctx: Ctx| async { Ok::<(), Stopped>(()) });
    let _child = Significant::transient(child).restart(Restart::Permanent);
}
