//! Why a command fails, and with which exit code.

use std::process::ExitCode;

use super::exit_codes::EXIT_USAGE;
use super::output::{print_diagnostics, print_failure};
use crate::config::Diagnostics;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The file is invalid.
    Config(Diagnostics),
    /// The file is invalid, and nothing else gives the sidecar's address.
    NoAddress(Diagnostics),
    /// The command line is invalid.
    Usage(String),
    /// The command was tried and failed.
    Failed(String),
}

impl CommandError {
    /// The reason in a line, for a part of an output that is missing.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Config(_) | Self::NoAddress(_) => "the file is invalid",
            Self::Usage(why) | Self::Failed(why) => why,
        }
    }

    /// Prints the error and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Config(diagnostics) => print_diagnostics(diagnostics),
            Self::NoAddress(diagnostics) => {
                print_diagnostics(diagnostics);
                print_failure(
                    &"the sidecar's address is in `[admin]` of that file; set it with --admin URL \
                      or $SIDECACHE_ADMIN instead",
                );
                EXIT_USAGE.into()
            }
            Self::Usage(why) => {
                print_failure(why);
                EXIT_USAGE.into()
            }
            Self::Failed(why) => print_failure(why),
        }
    }
}
