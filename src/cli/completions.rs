//! `sluice completions`.
//!
//! Owns: writing the script. Does not own: the arguments it completes.

use std::io::{self, Write as _};

use clap::{Args, Command};
use clap_complete::Shell;

use super::Exit;

#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell to write for
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, command: &mut Command) -> io::Result<Exit> {
    // The generator panics where it can't write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "sluice", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
