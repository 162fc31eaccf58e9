//! A significant child does not become a plain one by accident.
use forebay_flow::supervise::{AutoShutdown, Child, Significant, Strategy, Supervisor};
use forebay_flow::{Ctx, Stopped};

fn main() {
    let child = Child::new("a", |_ctx: Ctx| async { Ok::<(), Stopped>(()) });
    let _supervisor = Supervisor::new("sup", Strategy::OneForOne)
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(Significant::temporary(child));
}
