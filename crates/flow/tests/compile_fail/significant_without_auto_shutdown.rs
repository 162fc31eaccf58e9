//! Without an auto-shutdown rule nothing comes of a child's being significant.
use forebay_flow::supervise::{Child, Significant, Strategy, Supervisor};
use forebay_flow::{Ctx, Stopped};

fn main() {
    let child = Child::new("a", |_ctx: Ctx| async { Ok::<(), Stopped>(()) });
    let _supervisor =
        Supervisor::new("sup", Strategy::OneForOne).significant(Significant::temporary(child));
}
