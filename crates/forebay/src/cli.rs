//! The command line. Each command's definition, help and example stand together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Flags;
use crate::{commands, serve};

/// Ingests CSV and events over HTTP, validates them, and persists them without losing a row.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, about, max_term_width = 100)]
#[command(
    after_help = "Without a command, forebay serves with its defaults.\n\nExample:\n  forebay serve --data-dir /var/lib/forebay --listen 127.0.0.1:8080"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

/// Where settings come from; environment variables (FOREBAY_LISTEN, FOREBAY_HTTP_DEADLINE, …) stand between flags and file.
#[derive(Debug, Default, Clone, Args)]
pub struct Settings {
    /// The TOML file; without it ./forebay.toml is read if it is there.
    #[arg(long, global = true, value_name = "FILE", env = "FOREBAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// The directory that holds journals and tables.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

impl Settings {
    /// The flags that override settings.
    pub fn flags(&self) -> Flags {
        Flags { data_dir: self.data_dir.clone(), listen: self.listen.clone() }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM; then drains and prints a receipt.
    #[command(after_help = "Example:\n  forebay serve --config forebay.toml")]
    Serve,
    /// Checks the settings, and prints the memory sum and the queue table.
    #[command(after_help = "Example:\n  forebay check --config forebay.toml")]
    Check,
    /// Runs SQL on a server, or on a data directory that no server uses.
    #[command(
        after_help = "Examples:\n  forebay query 'SELECT count(*) FROM flights'\n  forebay query --data-dir forebay-data --format csv 'SELECT * FROM flights LIMIT 3'"
    )]
    Query(commands::Query),
    /// Lists, shows, makes, changes and drops streams on a server.
    #[command(subcommand)]
    Streams(commands::Streams),
    /// Lists and shows refused rows, and sends them again.
    #[command(subcommand)]
    DeadLetters(commands::DeadLetters),
    /// Sends files of any size; the same command goes on where the last one was cut.
    #[command(
        after_help = "Examples:\n  forebay send flights.csv\n  forebay send --stream events --parallel 4 'logs/*.ndjson.gz'\n  zcat old.csv.gz | forebay send --stream flights --format csv --null NA -\n\nExit codes: 0 all sent, 1 something was not, 130 stopped by Ctrl-C."
    )]
    Send(commands::SendFiles),
    /// Looks at a stream's journal on disk, with no server running.
    #[command(subcommand)]
    Journal(commands::Journal),
}

/// Runs the command line to its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None | Some(Command::Serve) => return serve::run(&cli.settings),
        Some(Command::Check) => commands::check(&cli.settings),
        Some(Command::Query(query)) => commands::query(&query, &cli.settings),
        Some(Command::Streams(streams)) => commands::streams(&streams),
        Some(Command::DeadLetters(letters)) => commands::dead_letters(&letters, &cli.settings),
        Some(Command::Send(send)) => commands::send(&send),
        Some(Command::Journal(journal)) => commands::journal(&journal),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("forebay: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense_and_each_command_shows_an_example() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let commands = cli.get_subcommands().filter(|command| command.get_name() != "help");
        for command in commands {
            let leaves: Vec<_> = match command.has_subcommands() {
                true => {
                    command.get_subcommands().filter(|leaf| leaf.get_name() != "help").collect()
                }
                false => vec![command],
            };
            for leaf in leaves {
                let help = leaf.clone().render_long_help().to_string();
                assert!(help.contains("Example"), "{}", leaf.get_name());
            }
        }
    }
}
