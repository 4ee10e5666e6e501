//! `man`: the manual pages of the command line, made from the same text as `--help`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};

use super::error::CommandError;
use super::output::print;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache man | man -l -
  sidecache man --write /usr/local/share/man/man1";

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, which has to exist, instead of printing the
    /// first one.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs, command: Command) -> Result<ExitCode, CommandError> {
    let Some(folder) = &args.write else {
        let page = page(command).map_err(|error| CommandError::Failed(error.to_string()))?;
        return Ok(print(page.trim_end()));
    };
    write(folder, command).map_err(|error| {
        CommandError::Failed(format!(
            "the pages cannot be written to {}: {error}",
            folder.display()
        ))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write(folder: &Path, command: Command) -> io::Result<()> {
    clap_mangen::generate_to(command, folder)
}
