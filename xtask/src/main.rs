//! Forebay's own chores: `cargo xtask test · ci · tidy · bench · soak · fuzz · models`.
//!
//! Owns no state beyond the target directory. It never links the product's crates: it stays light,
//! so that it starts in a second on a bare machine.

mod bench;
mod ci;
mod fuzz;
mod models;
mod shell;
mod soak;
mod suite;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Forebay's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Installs what the tests need, then runs all of them.
    Test {
        /// Handed to cargo-nextest, for example a filter.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Everything that must pass before a change lands, cheapest first.
    Ci,
    /// The rules of the house that the compiler does not know.
    Tidy {
        /// Writes the list of the toolkit's public items anew, `crates/flow/API.txt`, and checks nothing.
        #[arg(long)]
        write_api: bool,
    },
    /// Measures a release build against what this machine can do.
    Bench {
        /// Seconds of load in each scenario.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Writes the figures to this file, too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Connections of the load generator.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Which scenarios to run, or `codec` for the decoders alone, or `flow` for the toolkit's
        /// benches (all, or those named after it); all scenarios by default. An unknown name lists
        /// them.
        names: Vec<String>,
    },
    /// Sends gigabytes, cuts them on their way, and looks for every row.
    Soak {
        /// What to soak.
        what: Soak,
        /// Bytes of all bodies together, in 10^9.
        #[arg(long, default_value_t = 20)]
        gb: u64,
        /// Which legs to run, for example `send_csv_gzip`; all by default.
        legs: Vec<String>,
    },
    /// Builds the fuzz targets and runs each for some minutes.
    Fuzz {
        /// Minutes of each target.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Which targets to run; all by default.
        names: Vec<String>,
    },
    /// Model checkers (loom, shuttle) and valgrind over the toolkit: minutes, for every night.
    Models {
        /// Keeps the result in `docs/models.md`.
        #[arg(long)]
        write: bool,
        /// Which legs to run; all by default.
        names: Vec<String>,
    },
}

/// What can be soaked.
#[derive(Clone, Copy, ValueEnum)]
enum Soak {
    /// Uploads of any size, through `send` and curl.
    Input,
}

fn run(cli: Cli) -> Result<()> {
    let root = shell::workspace_root()?;
    match cli.chore {
        Chore::Test { args } => suite::run(&root, &args),
        Chore::Ci => ci::run(&root),
        Chore::Tidy { write_api: true } => tidy::write_api(&root),
        Chore::Tidy { write_api: false } => tidy::run(&root),
        Chore::Bench { seconds, json, connections, names } => {
            bench::run(&root, &bench::Plan { seconds, json, connections, names })
        }
        Chore::Soak { what: Soak::Input, gb, legs } => soak::run(&root, gb, &legs),
        Chore::Fuzz { minutes, names } => fuzz::run(&root, minutes, &names),
        Chore::Models { write, names } => models::run(&root, &names, write),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
