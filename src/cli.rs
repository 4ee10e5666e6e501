//! The commands. Each is a few lines over the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio_util::sync::CancellationToken;

use self::remote::CommandError;
use crate::app;
use crate::app::BoundListeners;
use crate::config::{self, Config};
use crate::server;
use crate::telemetry::log;

mod advise;
mod api_types;
mod explain;
mod format;
mod http;
mod purge;
mod reference;
mod reload;
mod remote;
mod stats;
mod warm;

/// Exit code of a start that failed.
const EXIT_FAILED: u8 = 1;

/// Exit code of a config that cannot be used, or of a command line that cannot be read (`EX_USAGE`
/// of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// What the exit codes of all commands mean.
const EXIT_CODES: [(u8, &str); 3] = [
    (0, "Done. A sidecar that served has stopped after a drain."),
    (
        EXIT_FAILED,
        "It was tried and failed: a port is taken, the running sidecar does not answer or refuses, \
         `stats --ready` finds it not ready, `warm` got no response. A sidecar that is told twice \
         to stop exits with this code.",
    ),
    (
        EXIT_USAGE,
        "The command line or `proxy.toml` cannot be used. `check` found a mistake, or the running \
         sidecar refused the file (`reload`).",
    ),
];

/// What a sidecar that serves does at each signal.
const SIGNALS: [(&[&str], &str); 2] = [
    (&["SIGHUP"], "The file is read again. If it has a mistake, the old rules stay."),
    (
        &["SIGTERM", "SIGINT"],
        "The sidecar drains: `/ready` says 503, it accepts no new connections, and requests in \
         progress may finish within `listen.drain`. A second signal stops it at once.",
    ),
];

#[derive(Debug, Parser)]
#[command(
    name = "sidecache",
    version,
    about = "A caching sidecar: makes a legacy web app fast without ever making it wrong"
)]
struct Cli {
    #[command(flatten)]
    file: ConfigPath,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Args, Clone, Debug)]
struct ConfigPath {
    /// The rules.
    #[arg(
        long,
        short,
        global = true,
        env = "SIDECACHE_CONFIG",
        default_value = "proxy.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Serve (the default).
    Serve,
    /// Look for mistakes in the file without starting. Exits with 64 when there are any.
    #[command(after_help = reload::CHECK_EXAMPLES)]
    Check {
        /// Warnings count as mistakes. One that is right as it is: end its line in the file with `#
        /// check: ok`.
        #[arg(long)]
        deny_warnings: bool,
        /// Do not ask the Redis of the file how it is set up.
        #[arg(long)]
        offline: bool,
        /// The file, instead of --config.
        file: Option<PathBuf>,
        // Last: its heading would be that of what follows.
        #[command(flatten)]
        compared: reload::CompareArgs,
    },
    /// Say what the rules make of a request: its route, key, tags and scope, or why it would bypass
    /// the cache.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Show what the running sidecar has done: hit ratio by route, latency, and what keeps requests
    /// from the cache.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Void what is stored: by tag, by URL, or everything.
    #[command(after_help = purge::EXAMPLES)]
    Purge(purge::PurgeArgs),
    /// Ask for a list of URLs, or for what an access log says is asked for most, so that it is
    /// stored before clients come.
    #[command(after_help = warm::EXAMPLES)]
    Warm(warm::WarmArgs),
    /// Print what shadow mode and audits have found, as lines of proxy.toml to paste.
    #[command(after_help = advise::EXAMPLES)]
    Advise(advise::AdviseArgs),
    /// Have the running sidecar read its file again. Stored entries of unchanged routes stay.
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::ReloadArgs),
    /// Print the JSON Schema of proxy.toml, with which editors complete and check it.
    Schema,
    /// Print, write or compare the reference pages of the manual.
    #[command(hide = true)]
    Reference(reference::Options),
    /// Print the completions of a shell.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const COMPLETIONS: &str = "\
Examples:
  sidecache completions bash > ~/.local/share/bash-completion/completions/sidecache
  sidecache completions zsh > ~/.zfunc/_sidecache
  sidecache completions fish > ~/.config/fish/completions/sidecache.fish";

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let path = cli.file.config;
    let done = match cli.command.unwrap_or(CliCommand::Serve) {
        CliCommand::Serve => Ok(serve(&path)),
        CliCommand::Check { deny_warnings, offline, compared, file } => {
            let file = file.as_deref().unwrap_or(&path);
            match (check(file, config::CheckOptions { deny_warnings, offline }), compared.against) {
                (ExitCode::SUCCESS, Some(reload::Against::Running)) => {
                    reload::compare(file, &path, &compared)
                }
                (code, _) => Ok(code),
            }
        }
        CliCommand::Explain(asked) => explain::run(&path, &asked),
        CliCommand::Stats(asked) => stats::run(&path, &asked),
        CliCommand::Purge(asked) => purge::run(&path, &asked),
        CliCommand::Warm(asked) => warm::run(&path, &asked),
        CliCommand::Advise(asked) => advise::run(&path, &asked),
        CliCommand::Reload(asked) => reload::run(&path, &asked),
        CliCommand::Schema => Ok(print(&config::json_schema())),
        CliCommand::Reference(options) => reference::run(&options),
        CliCommand::Completions { shell } => Ok(print(&completions(shell))),
    };
    done.unwrap_or_else(|failure: CommandError| failure.report())
}

fn serve(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return print_diagnostics(&problems),
    };
    if let Err(error) = log::init(&config.log) {
        return print_failure(&error);
    }
    for warning in &config.warnings {
        tracing::warn!(line = warning.line, "{}", warning.message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print_failure(&error),
    };
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(server::signals(shutdown.clone()));
        let bound = BoundListeners::bind(&config)?;
        tokio::select! {
            drained = app::serve(config, bound, shutdown) => drained.map(Some),
            // The second signal: at once.
            _ = signals => Ok(None),
        }
    });
    runtime.shutdown_background();
    match served {
        Ok(Some(drained)) => {
            tracing::info!(?drained, "stopped");
            ExitCode::SUCCESS
        }
        Ok(None) => EXIT_FAILED.into(),
        Err(error) => print_failure(&error),
    }
}

fn check(path: &Path, how: config::CheckOptions) -> ExitCode {
    match config::check(path, how, &mut std::io::stdout().lock()) {
        Ok(code) => code.into(),
        Err(_) => EXIT_FAILED.into(),
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sidecache", &mut script);
    String::from_utf8_lossy(&script).trim_end().to_owned()
}

fn print(text: &str) -> ExitCode {
    // A reader that has gone, such as `head`, is no failure.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    ExitCode::SUCCESS
}

fn print_diagnostics(problems: &config::Diagnostics) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{problems}");
    EXIT_USAGE.into()
}

/// A remark beside the output.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {text}");
}

fn print_failure(error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {error}");
    EXIT_FAILED.into()
}
