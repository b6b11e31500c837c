//! `sluice man`, which packages call.
//!
//! Owns: writing the manual's pages. Does not own: the arguments they tell of.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command};

use super::{Exit, complain};

#[derive(Args, Debug)]
pub struct ManArgs {
    /// An existing folder; gets sluice.1 and a page for each command
    dir: PathBuf,
}

pub fn run(args: &ManArgs, command: Command) -> io::Result<Exit> {
    if let Err(error) = clap_mangen::generate_to(command, &args.dir) {
        complain(&format!("the manual can't be written to {}: {error}", args.dir.display()));
        return Ok(Exit::Usage);
    }
    Ok(Exit::Done)
}
