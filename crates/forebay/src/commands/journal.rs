//! `forebay journal verify|repair|cat`: thin, on the journal crate's own inspection.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use forebay_journal::disk::RealDisk;
use forebay_journal::{Lsn, Report};
use serde_json::json;

/// `forebay journal`
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// Reads a journal whole and says how it is; changes nothing.
    #[command(
        after_help = "Example:\n  forebay journal verify forebay-data/streams/flights/journal"
    )]
    Verify {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// Takes damaged ranges out, so that the journal opens again; copies are kept.
    #[command(
        after_help = "Example:\n  forebay journal repair forebay-data/streams/flights/journal"
    )]
    Repair {
        /// The journal's directory.
        dir: PathBuf,
        /// Where damaged bytes go; by default `quarantine` beside the journal.
        #[arg(long)]
        quarantine: Option<PathBuf>,
    },
    /// Prints the records, one JSON object a line, without their payloads.
    #[command(
        after_help = "Example:\n  forebay journal cat forebay-data/streams/flights/journal --from 4096"
    )]
    Cat {
        /// The journal's directory.
        dir: PathBuf,
        /// The first position.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

/// Runs it. The exit code is a failure when the journal is damaged.
pub fn journal(command: &Journal) -> anyhow::Result<ExitCode> {
    let disk = RealDisk::new();
    let mut out = std::io::stdout().lock();
    match command {
        Journal::Verify { dir } => {
            let report = forebay_journal::verify(&disk, dir)?;
            print(&mut out, &report)?;
            Ok(if report.corruption.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Journal::Repair { dir, quarantine } => {
            let beside = || dir.parent().unwrap_or(dir).join("quarantine");
            let quarantine = quarantine.clone().unwrap_or_else(beside);
            let lost = forebay_journal::repair(&disk, dir, &quarantine)?;
            for range in &lost {
                writeln!(out, "lost LSN {} to {}", range.from, range.to)?;
                if let Some(copy) = &range.quarantined {
                    writeln!(out, "  its bytes are in {}", copy.display())?;
                }
            }
            if lost.is_empty() {
                writeln!(out, "nothing to repair")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Journal::Cat { dir, from } => {
            forebay_journal::cat(&disk, dir, Lsn(*from), &mut |record| {
                let line = json!({
                    "start": record.start.0,
                    "end": record.end.0,
                    "kind": record.kind,
                    "received_unix_micros": record.received_unix_micros,
                    "key": record.key_hash.map(|hash| format!("{hash:032x}")),
                    "counters": record.counters,
                    "bytes": record.payload.len(),
                });
                writeln!(out, "{line}")
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    match report.uuid {
        Some(uuid) => writeln!(out, "journal {uuid}")?,
        None => writeln!(out, "no journal here")?,
    }
    for segment in &report.segments {
        let end = segment.end.map_or_else(|| "unreadable".to_owned(), |end| end.to_string());
        writeln!(
            out,
            "{}: LSN {} to {end}, {} blocks, {} records",
            segment.file, segment.base, segment.blocks, segment.records
        )?;
    }
    if let Some(checkpoint) = &report.checkpoint {
        let positions: Vec<String> = checkpoint
            .positions
            .iter()
            .map(|(lane, lsn)| format!("lane {lane} at LSN {lsn}"))
            .collect();
        writeln!(out, "checkpoint: {}", positions.join(", "))?;
    }
    if let Some(torn) = &report.torn {
        writeln!(
            out,
            "torn tail: {} bytes after LSN {} were never acknowledged; opening cuts them",
            torn.bytes, torn.at
        )?;
    }
    match &report.corruption {
        Some(corruption) => writeln!(out, "DAMAGED: {corruption}"),
        None => writeln!(out, "sound"),
    }
}
