//! Two runs of one supervisor would share one inbox.
use forebay_flow::supervise::{Strategy, Supervisor};

fn main() {
    let supervisor = Supervisor::new("sup", Strategy::OneForOne);
    let _twin = supervisor.clone();
}
