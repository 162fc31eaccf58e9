//! Tasks that went down with their runtime though nobody had asked them to end.
//!
//! Owns, in a process that is told to look, one file for each such task. [`crate::leak`] looks at what lives; but a test
//! drops its runtime when it ends, and its leaks with it. So a whole suite runs with `FOREBAY_FLOW_ORPHANS` naming a
//! directory, and is clean when the directory stays empty. Without it this costs a load where a task is let go.
//!
//! A task was asked to end when its handle was dropped or aborted, or its context cancelled. A runtime destroys its tasks
//! in no order, owners perhaps last: a file goes again when that owner lets go.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{fs, process};

use parking_lot::Mutex;

use crate::ctx::Node;
use crate::tasks::TaskInfo;

static DIR: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("FOREBAY_FLOW_ORPHANS").map(PathBuf::from));

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Seen {
    /// Unfinished tasks that their owner let go.
    let_go: HashSet<u64>,
    orphans: HashMap<u64, (Arc<Node>, PathBuf)>,
}

/// Whether anybody wants to know.
pub(crate) fn watched() -> bool {
    DIR.is_some()
}

/// The owner of a task aborts it or drops its handle. `gone`: it is finished, or destroyed.
pub(crate) fn let_go(id: u64, gone: bool) {
    if !watched() {
        return;
    }
    let mut seen = SEEN.lock();
    if let Some((_, file)) = seen.orphans.remove(&id) {
        forget(&file);
    } else if !gone {
        seen.let_go.insert(id);
    }
}

/// A context is cancelled, and all below.
pub(crate) fn cancelled(node: &Node) {
    if !watched() {
        return;
    }
    SEEN.lock().orphans.retain(|_, (owner, file)| {
        let below = owner.descends_from(node.id());
        if below {
            forget(file);
        }
        !below
    });
}

/// An unfinished task is gone.
pub(crate) fn destroyed(owner: &Arc<Node>, task: &TaskInfo) {
    let Some(dir) = &*DIR else { return };
    let mut seen = SEEN.lock();
    if seen.let_go.remove(&task.id) || owner.is_cancelled() || std::thread::panicking() {
        return;
    }
    let file = dir.join(format!("{}-{}", process::id(), task.id));
    let program = std::env::args().collect::<Vec<_>>().join(" ");
    // Who looks for files finds none where the directory cannot be written: a run without one says so by itself.
    drop(fs::create_dir_all(dir));
    drop(fs::write(&file, format!("{task}\n  in {program}\n")));
    seen.orphans.insert(task.id, (Arc::clone(owner), file));
}

fn forget(file: &PathBuf) {
    // It is gone already only when somebody else emptied the directory.
    drop(fs::remove_file(file));
}
