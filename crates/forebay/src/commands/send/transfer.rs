//! One upload from its first request to its end: asks where it stands, sends the rest, waits, asks again.

use std::time::Duration;

use forebay_flow::Backoff;

use super::answer::{Answer, Rows, Standing};
use super::attempt::{Failure, Upload};
use super::files::{Identity, Place};
use crate::commands::client::Lost;

/// The pauses after broken connections: a restarted server is back within seconds.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(250),
    max: Duration::from_secs(10),
    jitter: 0.2,
    stable_after: Duration::ZERO,
};

/// The most that is waited for a server that asks to come back, while nothing moves.
const MOST_WAITED: Duration = Duration::from_secs(3600);

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it is taken.
    Sent {
        rows: Rows,
        /// It was there before this run.
        before: bool,
    },
    /// It was not sent, or not to its end.
    Failed {
        why: String,
        /// What is durable of it nevertheless, where that is known.
        standing: Option<Standing>,
        /// It would be the same for every other file.
        everyone: bool,
    },
}

/// What remains of the readiness to try again. Progress restores it.
#[derive(Debug)]
struct Patience {
    retries: u32,
    failures: u32,
    waited: Duration,
    furthest: u64,
}

impl Patience {
    fn new(retries: u32) -> Patience {
        Patience { retries, failures: 0, waited: Duration::ZERO, furthest: 0 }
    }

    fn reached(&mut self, offset: u64) {
        if offset > self.furthest {
            *self = Patience { furthest: offset, ..Patience::new(self.retries) };
        }
    }

    /// The pause after something broke; `None`: enough.
    fn broken(&mut self) -> Option<Duration> {
        self.failures += 1;
        (self.failures <= self.retries).then(|| BACKOFF.pause(self.failures))
    }

    /// The pause that the server asks for; `None`: enough.
    fn asked(&mut self, after: Duration) -> Option<Duration> {
        self.waited += after;
        (self.waited <= MOST_WAITED).then_some(after)
    }
}

impl Upload<'_> {
    /// Sends until the body is taken or it makes no sense to go on. Cancel safe: what is durable stays.
    ///
    /// `met`: the server has answered before, so a refused connection is one that passes.
    pub(super) async fn run(&self, retries: u32, met: impl Fn(bool) -> bool) -> Verdict {
        let mut patience = Patience::new(retries);
        let mut standing = None;
        // The offset counts what the server unpacked: of a compressed file it is no place.
        let mut splices = self.item.encoding.is_none();
        loop {
            if let Err(why) = self.unchanged() {
                return Verdict::Failed { why, standing, everyone: false };
            }
            let answer = match self.standing().await {
                Ok(Ok(found)) => {
                    met(true);
                    standing = found;
                    if let Some(done) = found.filter(|found| found.complete) {
                        return self.there_before(done);
                    }
                    patience.reached(found.map_or(0, |found| found.offset));
                    self.post(found.filter(|_| splices)).await
                }
                Ok(Err(answer)) => Ok(answer),
                Err(failure) => Err(failure),
            };
            let pause = match answer {
                Ok(Answer::Taken(rows)) => {
                    let sent = Verdict::Sent { rows, before: false };
                    return match self.unchanged() {
                        Ok(()) => sent,
                        Err(why) => Verdict::Failed { why, standing, everyone: false },
                    };
                }
                Ok(Answer::Refused { why, everyone }) => {
                    return Verdict::Failed { why, standing, everyone };
                }
                Ok(Answer::Mismatch { .. }) if splices && standing.is_some() => {
                    // Perhaps the bytes are not counted as ours: from the start, what is known is skipped.
                    splices = false;
                    continue;
                }
                Ok(Answer::Mismatch { why }) => {
                    let why = format!("{why}; give another --key to send it as a new upload");
                    return Verdict::Failed { why, standing, everyone: false };
                }
                Ok(Answer::Later { after, why }) => {
                    let pause = patience.asked(after);
                    self.line.waits(&why, "the server asks for", pause);
                    pause.ok_or(why)
                }
                Ok(Answer::Again { why }) | Err(Failure::Other(why)) => {
                    self.again(&mut patience, why)
                }
                Err(Failure::Input(why)) => {
                    let why = self.unchanged().err().unwrap_or(format!("cannot read it: {why}"));
                    return Verdict::Failed { why, standing, everyone: false };
                }
                Err(Failure::Lost(lost @ Lost::Unreachable { .. })) if !met(false) => {
                    return Verdict::Failed { why: lost.to_string(), standing, everyone: true };
                }
                Err(Failure::Lost(lost)) => self.again(&mut patience, lost.to_string()),
            };
            match pause {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(why) => {
                    let why = format!("{why}; given up");
                    return Verdict::Failed { why, standing, everyone: false };
                }
            }
        }
    }

    fn again(&self, patience: &mut Patience, why: String) -> Result<Duration, String> {
        let pause = patience.broken();
        self.line.waits(&why, "trying again in", pause);
        pause.ok_or_else(|| format!("{why}, {} times in a row", patience.failures))
    }

    fn there_before(&self, found: Standing) -> Verdict {
        let Standing { accepted, rejected, .. } = found;
        let rows = Rows { accepted, rejected, errors: Vec::new() };
        Verdict::Sent { rows, before: !self.line.has_sent() }
    }

    /// Whether the file is still the one that the upload began with.
    fn unchanged(&self) -> Result<(), String> {
        let Place::File(path, identity) = &self.item.place else { return Ok(()) };
        let changed = match std::fs::metadata(path) {
            Ok(metadata) if Identity::of(&metadata) == *identity => return Ok(()),
            Ok(metadata) => {
                format!("it had {} bytes and has {} now", identity.size, metadata.len())
            }
            Err(error) => format!("it cannot be read any more: {error}"),
        };
        Err(format!(
            "it changed while it was sent ({changed}); rows of what was sent before may be stored, \
             and a new run sends it as another file"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_so_many_breaks_in_a_row_and_progress_restores_it() {
        let mut patience = Patience::new(2);
        assert!(patience.broken().is_some() && patience.broken().is_some());
        assert_eq!(patience.broken(), None);
        patience.reached(1);
        assert!(patience.broken().is_some());
        patience.reached(1);
        assert!(patience.broken().is_some());
        assert_eq!(patience.broken(), None, "the same offset again is no progress");
    }

    #[test]
    fn a_server_that_always_asks_for_more_time_is_given_up() {
        let mut patience = Patience::new(0);
        let asked = (0..100_000).take_while(|_| patience.asked(Duration::from_secs(1)).is_some());
        assert_eq!(asked.count(), 3600);
    }
}
