//! `sidecache --upstream URL`: serves without a `proxy.toml`, from its first second on. Everything
//! goes to the app, and nothing is cached; what was seen becomes a file later (`advise --file`).
//!
//! The settings are those of a file with the addresses alone, so that each has the default that it
//! has in a file.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use toml_edit::Value;

use super::error::CommandError;
use super::format::clean;
use super::output::print;
use crate::app::BoundListeners;
use crate::config::{Config, Diagnostic, Diagnostics};
use crate::server::ListenAddress;

/// The name of the settings where a file's name would stand.
const NAME: &str = "the command line";

/// What takes the place of a file.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct AddressArgs {
    /// Serve without a file, in front of the app at this URL: everything goes to the app, nothing
    /// is cached, and what is seen can become a file. Only for `serve`.
    #[arg(long, value_name = "URL")]
    pub(super) upstream: Option<String>,
    /// Where clients connect, with --upstream: an address and a port, or `unix:` and a path. By
    /// default 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    listen: Option<String>,
    /// Where the dashboard and the admin API are, with --upstream. By default 127.0.0.1:9090.
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    admin: Option<String>,
}

impl AddressArgs {
    /// Those that are given here, or else there.
    pub(super) fn or(self, other: Self) -> Self {
        if self.upstream.is_some() { self } else { other }
    }

    /// The settings for these addresses. `file` is the file that would be read otherwise, and
    /// `is_named` says whether somebody has named it.
    pub(super) fn config(&self, file: &Path, is_named: bool) -> Result<Config, CommandError> {
        if is_named {
            return Err(CommandError::Usage(format!(
                "--upstream serves without a file, but --config or $SIDECACHE_CONFIG names {}: \
                 leave one of the two away",
                clean(&file.display().to_string())
            )));
        }
        if file.exists() {
            return Err(CommandError::Usage(format!(
                "--upstream serves without a file, but there is a {} in this folder: run \
                 `sidecache` to serve with it, or go to another folder to serve without",
                clean(&file.display().to_string())
            )));
        }
        let text =
            settings(self.upstream.as_deref(), self.listen.as_deref(), self.admin.as_deref())?;
        Config::parse(&text, NAME, &|_| None).map_err(|problems| self.refused(&problems))
    }

    /// The errors, each with the option that it is about. SECURITY: a URL may hold a password, so
    /// that its text is not repeated.
    fn refused(&self, problems: &Diagnostics) -> CommandError {
        let given = [
            ("--upstream", self.upstream.is_some()),
            ("--listen", self.listen.is_some()),
            ("--admin", self.admin.is_some()),
        ];
        let options: Vec<&str> =
            given.iter().filter(|(_, is_given)| *is_given).map(|(option, _)| *option).collect();
        refused(problems, &options)
    }
}

/// The lines of a table of [`settings`]: its header, its key, and an empty one.
const TABLE_LINES: usize = 3;

/// The addresses as tables of a file.
pub(super) fn settings(
    upstream: Option<&str>,
    listen: Option<&str>,
    admin: Option<&str>,
) -> Result<String, CommandError> {
    let mut text = String::new();
    for (option, section, key, given) in [
        ("--upstream", "upstream", "url", upstream),
        ("--listen", "listen", "address", listen),
        ("--admin", "admin", "address", admin),
    ] {
        let Some(given) = given else { continue };
        if given.contains(char::is_control) {
            let why = format!("{option}: there is a control character in it");
            return Err(CommandError::Usage(why));
        }
        // A variable is the shell's business.
        let literal = Value::from(given.replace('$', "$$"));
        let _ = writeln!(text, "[{section}]\n{key} = {literal}\n");
    }
    Ok(text)
}

/// The errors of [`settings`], each with the option that it is about.
pub(super) fn refused(problems: &Diagnostics, options: &[&str]) -> CommandError {
    let one = |problem: &Diagnostic| {
        let table = problem.line.checked_sub(1).map(|line| line / TABLE_LINES);
        let option = table.and_then(|table| options.get(table));
        let mut text = format!("{}: {}", option.unwrap_or(&NAME), clean(&problem.message));
        for (what, said) in [("allowed", &problem.allowed), ("hint", &problem.hint)] {
            if let Some(said) = said {
                let _ = write!(text, "\n  {what}: {}", clean(said));
            }
        }
        text
    };
    let all: Vec<String> = problems.errors().map(one).collect();
    CommandError::Usage(all.join("\n"))
}

/// Prints where the sidecar is and what to do next.
pub(super) fn announce(config: &Config, bound: &BoundListeners) {
    let admin = bound.admin.local_addr().unwrap_or(config.admin.address);
    let clients = match &config.server.address {
        ListenAddress::Unix { .. } => bound.proxy.shown(),
        ListenAddress::Tcp(_) => format!("http://{}", bound.proxy.shown()),
    };
    print(&format!(
        "Sidecache is at {clients}, in front of {}.\n\
         Nothing is cached: everything goes to the app, and is watched.\n\
         Dashboard: http://{admin}/\n\n\
         Send traffic through it for a while. Then, in the folder that is to hold proxy.toml:\n  \
         sidecache advise --file --admin http://{admin} --output proxy.toml\n\
         Or begin with a file of a few lines, or with one made of an access log:\n  \
         sidecache init --upstream URL --from access.log\n\
         Then start `sidecache` again, without --upstream: it reads that proxy.toml.",
        config.upstream.target
    ));
}
