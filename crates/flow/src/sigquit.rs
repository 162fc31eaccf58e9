//! SIGQUIT (Ctrl-\, `kill -QUIT`) writes a dump of all tasks to stderr, and the program goes on: what Go does, less the
//! exit. Below the dump stand the tasks that wait for each other, if any do: see [`deadlock`].
//!
//! Owns, between the call and the guard's drop, the signal's handler, a pair of sockets and a thread of its own. The
//! handler only writes a byte; the thread reads it and takes the dump. Neither needs the runtime, its I/O driver or the
//! lock of [`std::io::stderr`], so it works when every thread of the runtime is blocked: that is what it is for. Stacks
//! are not in it, because an idle task shows its stack only when it is polled: see [`dump::Dump::add_stacks`].
//!
//! ```text
//! SIGQUIT ─► handler: one byte ─► socket ─► thread: dump::take ─► stderr, deadlock::find ─► stderr
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::SIGQUIT;
use signal_hook::low_level;

use crate::ctx::Ctx;
use crate::deadlock;
use crate::dump;
use crate::thread::{self, Thread};

/// Signals that came while one dump was being written are answered by one more, up to as many as these.
const AT_ONCE: usize = 64;

/// While it lives, SIGQUIT writes a dump. After its drop the signal does nothing: the default, which ends the process,
/// does not come back.
#[derive(Debug)]
#[must_use = "dropping the guard ends the dumps"]
pub struct OnSigquit {
    handler: SigId,
    asking: UnixStream,
    _thread: Thread<()>,
}

/// From now on SIGQUIT writes [`dump::take`] and [`deadlock::find`] to stderr and does not end the process. The thread that
/// does it is named `sigquit` and belongs to `ctx`; it ends with the guard, whatever happens to `ctx`.
///
/// Each call adds a dump of its own: one per process is enough.
///
/// ```
/// use forebay_flow::{Ctx, sigquit};
/// let _sigquit = sigquit::dump_to_stderr(&Ctx::root("app"))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// When the system has no file descriptor or no thread left.
pub fn dump_to_stderr(ctx: &Ctx) -> io::Result<OnSigquit> {
    let (asked, asking) = UnixStream::pair()?;
    // A duplicate: whoever holds the lock of the standard handle may hold it for ever.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let thread = thread::spawn(ctx, "sigquit", move |_ctx| answer(asked, stderr))?;
    let handler = low_level::pipe::register(SIGQUIT, asking.try_clone()?)?;
    Ok(OnSigquit { handler, asking, _thread: thread })
}

fn answer(mut asked: UnixStream, mut stderr: File) {
    let mut signals = [0; AT_ONCE];
    loop {
        match asked.read(&mut signals) {
            Ok(0) => return, // the guard is gone
            // A stderr that nobody can write to is no reason to stop: it may be back.
            Ok(_) => drop(write(&mut stderr)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The dump at once, and what takes a second and a third look below it: who wants the dump does not wait for those.
fn write(stderr: &mut File) -> io::Result<()> {
    stderr.write_all(format!("SIGQUIT: {}\n", dump::take()).as_bytes())?;
    let mut rest = String::new();
    for cycle in deadlock::find() {
        rest.push_str(&format!("{cycle}\n\n"));
    }
    rest.push_str("end of dump\n");
    stderr.write_all(rest.as_bytes())
}

impl Drop for OnSigquit {
    fn drop(&mut self) {
        low_level::unregister(self.handler);
        // It fails only when the other end is gone, and the thread with it.
        drop(self.asking.shutdown(Shutdown::Both));
    }
}
