//! Commands beside `serve`: they print to stdout, and errors become one line on stderr.

mod call;
mod client;
mod dead_letters;
mod journal;
mod query;
mod send;
mod streams;

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;

pub use dead_letters::{DeadLetters, dead_letters};
pub use journal::{Journal, journal};
pub use query::{Query, query};
pub use send::{SendFiles, send};
pub use streams::{Streams, streams};

use crate::cli::Settings;
use crate::config::memory::Sum;
use crate::config::{Loaded, Sources};
use crate::queues;

/// Reads the file, the environment and the flags, and settles every setting.
pub(crate) fn load(settings: &Settings) -> anyhow::Result<Loaded> {
    let file = match &settings.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
            Some((path.display().to_string(), text))
        }
        None => match std::fs::read_to_string("forebay.toml") {
            Ok(text) => Some(("forebay.toml".to_owned(), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(anyhow!("cannot read forebay.toml: {error}")),
        },
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(Sources { file, env, flags: settings.flags() }.load()?)
}

/// `forebay check`
pub(crate) fn check(settings: &Settings) -> anyhow::Result<ExitCode> {
    let loaded = load(settings)?;
    for warning in &loaded.warnings {
        eprintln!("forebay: {warning}");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "memory\n{}\n\nqueues", Sum::of(&loaded.config))?;
    writeln!(out, "  {:<20} {:>18}  {:<31}  who waits", "queue", "bound", "when full")?;
    for queue in queues::table(&loaded.config) {
        let (bound, policy) = (queue.bound_text(), queue.policy);
        writeln!(out, "  {:<20} {bound:>18}  {policy:<31}  {}", queue.name, queue.who_waits)?;
        writeln!(
            out,
            "  {:<20} {:>18}  fails so: {}; why: {}",
            "", "", queue.failure_mode, queue.why
        )?;
    }
    writeln!(out, "\n{} streams declared; the settings hold", loaded.config.streams.len())?;
    Ok(ExitCode::SUCCESS)
}
