//! What people see of a run: a bar for each upload on a terminal, a line for each elsewhere, and a summary.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{
    DecimalBytes, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use super::super::call::clean;
use super::Outcome;
use super::answer::Rows;
use super::files::{Item, Place};
use super::transfer::Verdict;

/// How many refused rows the summary shows.
const SHOWN: usize = 10;

const BAR: &str = "{prefix} {bar:24} {decimal_bytes}/{decimal_total_bytes} \
                   {decimal_bytes_per_sec} eta {eta} {wide_msg}";
const COUNTER: &str = "{prefix} {decimal_bytes} {decimal_bytes_per_sec} {wide_msg}";

/// The terminal, or what stands for it.
#[derive(Debug)]
pub(super) struct Report {
    bars: Option<MultiProgress>,
}

impl Report {
    pub(super) fn new() -> Report {
        let bars = io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr();
            MultiProgress::with_draw_target(target)
        });
        Report { bars }
    }

    /// A line on stderr, above the bars.
    pub(super) fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that is gone has nobody to tell.
            Some(bars) => drop(bars.println(text)),
            None => drop(writeln!(io::stderr(), "{text}")),
        }
    }

    /// The place of one upload.
    pub(super) fn line(self: &Arc<Self>, item: &Item) -> Line {
        let (bar, template) = match &item.place {
            Place::File(_, identity) => (ProgressBar::new(identity.size), BAR),
            Place::Stdin => (ProgressBar::no_length(), COUNTER),
        };
        let bar = match &self.bars {
            Some(bars) => {
                let style = ProgressStyle::with_template(template);
                let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bars.add(bar.with_prefix(item.name.clone()))
            }
            None => ProgressBar::hidden(),
        };
        let report = Arc::clone(self);
        Line { name: item.name.clone(), bar, sent: Arc::default(), report }
    }
}

/// One upload's bar. Clones are the same bar.
#[derive(Debug, Clone)]
pub(super) struct Line {
    name: String,
    bar: ProgressBar,
    sent: Arc<AtomicU64>,
    report: Arc<Report>,
}

impl Line {
    /// Bytes handed to the connection, repeats counted in.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn has_sent(&self) -> bool {
        self.sent() > 0
    }

    /// `bytes` more are on their way; the input is read up to `position`.
    pub(super) fn moved(&self, position: u64, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.bar.set_message("");
        self.bar.set_position(position);
    }

    /// The upload pauses; `None` where it does not go on.
    pub(super) fn waits(&self, why: &str, asked: &str, pause: Option<Duration>) {
        let Some(pause) = pause else { return };
        let text = format!("{why}; {asked} {:.1} s", pause.as_secs_f64());
        match self.report.bars {
            Some(_) => self.bar.set_message(text),
            None => self.report.say(&format!("{}: {text}", self.name)),
        }
    }

    /// The upload is over: its bar gives way to a line.
    pub(super) fn ends(&self, outcome: &Outcome) {
        self.bar.finish_and_clear();
        self.report.say(&outcome.to_string());
    }
}

impl Outcome {
    /// All of it was sent in this run; of one that went on, the rows are older than the run.
    fn is_whole(&self) -> bool {
        match &self.item.place {
            Place::File(_, identity) => self.bytes >= identity.size,
            Place::Stdin => true,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { item, verdict, bytes, took } = self;
        write!(f, "{} -> {}: ", item.name, item.stream)?;
        match verdict {
            Some(Verdict::Sent { rows, before: true }) => write!(
                f,
                "was there already: {} rows accepted, {} rejected; a new --key sends it again",
                HumanCount(rows.accepted),
                HumanCount(rows.rejected)
            ),
            Some(Verdict::Sent { rows, .. }) => write!(
                f,
                "{} rows accepted, {} rejected, {} in {:.1} s",
                HumanCount(rows.accepted),
                HumanCount(rows.rejected),
                DecimalBytes(*bytes),
                took.as_secs_f64()
            ),
            Some(Verdict::Failed { why, standing, .. }) => {
                write!(f, "not sent: {}", clean(why))?;
                match standing {
                    Some(at) => write!(f, " ({})", resumes(item, at.offset)),
                    None => Ok(()),
                }
            }
            None => write!(f, "not tried"),
        }
    }
}

/// How an upload that was cut goes on.
fn resumes(item: &Item, offset: u64) -> String {
    let stored = format!("{} are stored", DecimalBytes(offset));
    match item.place {
        Place::File(..) => format!("{stored}; the same command goes on from there"),
        Place::Stdin => {
            format!("{stored}; send the same bytes again with --key {} to go on", item.key)
        }
    }
}

/// The last words, on stdout.
///
/// # Errors
/// Stdout is closed.
pub(super) fn summary(outcomes: &[Outcome], took: Duration) -> io::Result<()> {
    let mut total = Rows::default();
    let (mut sent, mut bytes) = (0, 0);
    let mut shown = Vec::new();
    for outcome in outcomes {
        bytes += outcome.bytes;
        let Some(Verdict::Sent { rows, .. }) = &outcome.verdict else { continue };
        sent += 1;
        total.accepted += rows.accepted;
        total.rejected += rows.rejected;
        shown.extend(rows.errors.iter().map(|error| (&outcome.item.name, error)));
    }
    let seconds = took.as_secs_f64().max(0.001);
    let per_second = |count: u64| (count as f64 / seconds) as u64;
    let rows_per_second = match outcomes.iter().all(Outcome::is_whole) {
        true => format!(", {} rows/s", HumanCount(per_second(total.accepted + total.rejected))),
        false => String::new(),
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "sent {sent} of {}: {} rows accepted, {} rejected; {} in {seconds:.1} s ({}/s{rows_per_second})",
        outcomes.len(),
        HumanCount(total.accepted),
        HumanCount(total.rejected),
        DecimalBytes(bytes),
        DecimalBytes(per_second(bytes)),
    )?;
    if total.rejected > 0 {
        writeln!(out, "rejected rows are kept, with their reasons, in `_dead_letters`")?;
    }
    for (name, error) in shown.iter().take(SHOWN) {
        let column = error.column.as_ref().map(|column| format!(", column {}", clean(column)));
        let column = column.unwrap_or_default();
        writeln!(out, "  {name} row {}{column}: {}", error.row, clean(&error.message))?;
    }
    out.flush()
}
