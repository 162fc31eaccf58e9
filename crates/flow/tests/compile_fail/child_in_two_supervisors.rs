//! A child has one owner.
use forebay_flow::supervise::{Child, Strategy, Supervisor};
use forebay_flow::{Ctx, Stopped};

fn main() {
    let child = Child::new("a", |_ctx: Ctx| async { Ok::<(), Stopped>(()) });
    let _one = Supervisor::new("one", Strategy::OneForOne).child(child);
    let _two = Supervisor::new("two", Strategy::OneForOne).child(child);
}
