//! What tests of locks and deadlocks share.

use forebay_flow::Ctx;
use forebay_flow::deadlock::Cycle;
use forebay_flow::lock::Checks;

#[cfg(debug_assertions)]
pub use self::checked::{checked, run};

/// A context whose locks nobody checks: here they are meant to deadlock.
pub fn unchecked(name: &'static str) -> (Ctx, impl Sized) {
    let ctx = Ctx::root(name);
    let unchecked = Checks::off().report_to(&ctx, |_| ());
    (ctx, unchecked)
}

pub fn names(cycle: &Cycle) -> Vec<&str> {
    cycle.tasks.iter().map(|task| &*task.name).collect()
}

/// What only debug builds check.
#[cfg(debug_assertions)]
mod checked {
    use std::future::Future;
    use std::sync::Arc;

    use forebay_flow::Ctx;
    use forebay_flow::lock::{Checked, Checks, Report};
    use parking_lot::Mutex;

    /// What was reported.
    #[derive(Clone, Default)]
    pub struct Told(Arc<Mutex<Vec<Report>>>);

    impl Told {
        pub fn take(&self) -> Vec<Report> {
            std::mem::take(&mut *self.0.lock())
        }

        pub fn is_empty(&self) -> bool {
            self.0.lock().is_empty()
        }
    }

    pub fn checked(ctx: &Ctx, checks: Checks) -> (Checked, Told) {
        let told = Told::default();
        let sink = told.clone();
        (checks.report_to(ctx, move |report| sink.0.lock().push(report.clone())), told)
    }

    pub async fn run<F>(ctx: &Ctx, name: &'static str, fut: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        ctx.spawn(name, fut).join().await.unwrap();
    }
}
