//! Records of ended tasks, to be used again.
//!
//! Owns a bounded number of them: a few with each thread, and batches that pass from threads which end tasks to threads
//! which start them. A general allocator takes its locks for what one thread allocates and another frees; here that
//! happens once a batch. The scheme is that of magazines and a depot (Bonwick and Adams, "Magazines and Vmem", 2001).

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::record::{Fresh, Record};

/// So many go to the depot, or come from it, at a time; a thread keeps up to twice as many.
const BATCH: usize = 32;

/// The depot keeps so many batches: half a megabyte.
const BATCHES: usize = 64;

static DEPOT: Mutex<Vec<Vec<Arc<Record>>>> = Mutex::new(Vec::new());

thread_local! {
    static SPARES: RefCell<Vec<Arc<Record>>> = const { RefCell::new(Vec::new()) };
}

/// A record of what a task begins with, in used memory where there is some.
pub(super) fn record(fresh: Fresh) -> Arc<Record> {
    let spare = SPARES.try_with(|spares| {
        let mut spares = spares.try_borrow_mut().ok()?;
        spares.pop().or_else(|| {
            *spares = DEPOT.try_lock()?.pop()?;
            spares.pop()
        })
    });
    if let Ok(Some(mut spare)) = spare
        && let Some(record) = Arc::get_mut(&mut spare)
    {
        record.renew(fresh);
        return spare;
    }
    Arc::new(Record::new(fresh))
}

/// Takes what nobody else refers to.
pub(crate) fn give_back(mut record: Arc<Record>) {
    // A load spares the others what `get_mut` does. Two who give it back at once may both miss it: then it is freed.
    if Arc::strong_count(&record) > 1 {
        return;
    }
    let Some(unshared) = Arc::get_mut(&mut record) else { return };
    unshared.let_go();
    // At a thread's end it is freed, and so is what there is no room for.
    let _ended = SPARES.try_with(|spares| {
        let Ok(mut spares) = spares.try_borrow_mut() else { return };
        spares.push(record);
        if spares.len() < 2 * BATCH {
            return;
        }
        let batch = spares.split_off(BATCH);
        if let Some(mut depot) = DEPOT.try_lock()
            && depot.len() < BATCHES
        {
            depot.push(batch);
        }
    });
}
