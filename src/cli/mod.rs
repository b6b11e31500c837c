//! The command line.
//!
//! Owns: arguments, which command runs, exit statuses. Does not own: what the commands do, settings.

use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use indicatif::{ProgressState, ProgressStyle};

use crate::config::{Environment, LoadOptions, Loaded, Problems, load};

mod cat;
mod check;
mod completions;
mod grep;
mod ls;
mod man;
mod named;
mod offsets;
mod probe;
mod reading;
mod recover;
mod restore;
pub mod rotation;
mod run;
mod status;
mod status_table;
mod verify;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The thing checked is not so; nothing matched.
    NotSo = 1,
    /// Arguments or settings are wrong.
    Usage = 2,
    /// A service could not be reached.
    Unreachable = 3,
    /// Lost data or a broken invariant was found.
    Damaged = 4,
    /// Stopped by a signal before it was done, as shells count SIGINT.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Archives application logs from Kafka into one stream of few, large files per application, each record exactly once.
#[derive(Debug, Parser)]
#[command(name = "sluice", version = crate::version::VERSION, max_term_width = 100, after_help = EXIT_HELP, subcommand_precedence_over_arg = true)]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "Exit status: 0 done, 1 the thing checked is not so, 2 usage or settings are wrong, 3 a service could \
                         not be reached, 4 lost data or a broken invariant was found.";

/// Which settings are used.
#[derive(Args, Debug)]
struct SettingsArgs {
    /// This machine's settings [default: ./configs/worker.yaml, then /etc/sluice/worker.yaml]
    #[arg(long, value_name = "FILE", global = true, display_order = 100)]
    config: Option<PathBuf>,
    /// What is archived: directories and files [default: connectors/ beside configs/, or /etc/sluice/connectors]
    #[arg(long, value_name = "DIR|FILE", num_args = 1.., global = true, display_order = 101)]
    connectors: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Archive until stopped
    Run(run::RunArgs),
    /// Check all settings and say what they lead to
    Check(check::CheckArgs),
    /// Ask the running worker for connectors, tasks, lag and errors
    Status(status::StatusArgs),
    /// List files with their times, records and offsets
    Ls(ls::LsArgs),
    /// Write an app's records to stdout
    Cat(cat::CatArgs),
    /// Search apps' records
    Grep(grep::GrepArgs),
    /// Show what is archived and decided of each partition, or change where it goes on
    Offsets(offsets::OffsetsArgs),
    /// Prove that each offset up to low is in exactly one object
    Verify(verify::VerifyArgs),
    /// Write apps' records back into a Kafka topic
    Restore(restore::RestoreArgs),
    /// Rebuild lost logs from the objects of the archive
    Recover(recover::RecoverArgs),
    /// Write completions for a shell to stdout
    Completions(completions::CompletionsArgs),
    /// Write the manual's pages
    #[command(hide = true)]
    Man(man::ManArgs),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => quiet_pipe(dispatch(cli)),
        Err(error) => {
            // Help goes to stdout with status 0, mistakes to stderr with 2.
            let printed = error.print().map(|()| if error.use_stderr() { Exit::Usage } else { Exit::Done });
            quiet_pipe(printed)
        }
    }
}

fn dispatch(cli: Cli) -> io::Result<Exit> {
    match cli.command {
        Command::Run(args) => run::run(&args, &cli.settings),
        Command::Check(args) => check::run(args, &cli.settings),
        Command::Status(args) => status::run(&args, &cli.settings),
        Command::Ls(args) => ls::run(&args, &cli.settings),
        Command::Cat(args) => cat::run(&args, &cli.settings),
        Command::Grep(args) => grep::run(&args, &cli.settings),
        Command::Offsets(args) => offsets::run(&args, &cli.settings),
        Command::Verify(args) => verify::run(&args, &cli.settings),
        Command::Restore(args) => restore::run(args, &cli.settings),
        Command::Recover(args) => recover::run(&args, &cli.settings),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn quiet_pipe(result: io::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(error) => {
            complain(&format!("writing the output failed: {error}"));
            Exit::Unreachable.into()
        }
    }
}

/// Says on stderr why the program ends, where no log is there yet to say it.
fn complain(message: &str) {
    // Nobody is left to tell where stderr is closed.
    let _ = writeln!(io::stderr().lock(), "sluice: {message}");
}

/// Colour is for terminals, and not where NO_COLOR (no-color.org) says no.
fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How a progress bar looks; `{rate}` is whole things a second.
fn bar_style(template: &str) -> Option<ProgressStyle> {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Nobody is left to tell where the terminal is closed.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    Some(ProgressStyle::with_template(template).ok()?.with_key("rate", rate))
}

/// To be called first by what speaks TLS: with two providers in the program, clients that find none installed panic.
fn install_crypto() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed before");
    }
}

impl SettingsArgs {
    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.options(false), &environment())
    }

    fn options(&self, allow_no_connector: bool) -> LoadOptions {
        LoadOptions {
            config: self.config.clone(),
            connectors: self.connectors.clone(),
            host_name: host_name(),
            allow_no_connector,
        }
    }
}

/// Variables that are not UTF-8 can't be settings.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The kernel's name of this machine, as `hostname` prints it.
fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
