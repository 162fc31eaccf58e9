//! A heartbeat says what happens when it is missed.
use forebay_flow::supervise::{Child, Heartbeat};
use forebay_flow::{Ctx, Stopped};

fn main() {
    let _child = Child::new("a", |_ctx: Ctx| async { Ok::<(), Stopped>(()) })
        .heartbeat(Heartbeat { within: std::time::Duration::from_secs(1) });
}
