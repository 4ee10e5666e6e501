//! The commands. Each is a few lines over the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio_util::sync::CancellationToken;

use self::remote::Failure;
use crate::config::{self, Config};
use crate::run::{self, Bound};
use crate::{server, telemetry};

mod advise;
mod answers;
mod explain;
mod http;
mod purge;
mod reference;
mod reload;
mod remote;
mod show;
mod stats;
mod warm;

/// Exit code of a start that failed.
const FAILED: u8 = 1;

/// Exit code of a config that cannot be used, or of a command line that cannot be read (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// What the exit codes of all commands mean.
const EXIT_CODES: [(u8, &str); 3] = [
    (0, "Done. A sidecar that served has stopped after a drain."),
    (
        FAILED,
        "It was tried and failed: a port is taken, the running sidecar does not answer or refuses, \
         `stats --ready` finds it not ready, `warm` got no response. A sidecar that is told twice \
         to stop exits with this code.",
    ),
    (
        USAGE,
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
#[command(name = "sidecache", version, about = "A caching sidecar: makes a legacy web app fast without ever making it wrong")]
struct Cli {
    #[command(flatten)]
    file: File,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Clone, Debug)]
struct File {
    /// The rules.
    #[arg(long, short, global = true, env = "SIDECACHE_CONFIG", default_value = "proxy.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Look for mistakes in the file without starting. Exits with 64 when there are any.
    #[command(after_help = reload::CHECK_EXAMPLES)]
    Check {
        /// Warnings count as mistakes. One that is right as it is: end its line in the file with `# check: ok`.
        #[arg(long)]
        deny_warnings: bool,
        /// Do not ask the Redis of the file how it is set up.
        #[arg(long)]
        offline: bool,
        /// The file, instead of --config.
        file: Option<PathBuf>,
        // Last: its heading would be that of what follows.
        #[command(flatten)]
        compared: reload::Compared,
    },
    /// Say what the rules make of a request: its route, key, tags and scope, or why it would bypass the cache.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Asked),
    /// Show what the running sidecar has done: hit ratio by route, latency, and what keeps requests from the cache.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::Asked),
    /// Void what is stored: by tag, by URL, or everything.
    #[command(after_help = purge::EXAMPLES)]
    Purge(purge::Asked),
    /// Ask for a list of URLs, or for what an access log says is asked for most, so that it is stored before clients come.
    #[command(after_help = warm::EXAMPLES)]
    Warm(warm::Asked),
    /// Print what shadow mode and audits have found, as lines of proxy.toml to paste.
    #[command(after_help = advise::EXAMPLES)]
    Advise(advise::Asked),
    /// Have the running sidecar read its file again. Stored entries of unchanged routes stay.
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::Asked),
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
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let path = cli.file.config;
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => Ok(serve(&path)),
        Command::Check { deny_warnings, offline, compared, file } => {
            let file = file.as_deref().unwrap_or(&path);
            match (check(file, config::Checking { deny_warnings, offline }), compared.against) {
                (ExitCode::SUCCESS, Some(reload::Against::Running)) => reload::compare(file, &path, &compared),
                (code, _) => Ok(code),
            }
        }
        Command::Explain(asked) => explain::run(&path, &asked),
        Command::Stats(asked) => stats::run(&path, &asked),
        Command::Purge(asked) => purge::run(&path, &asked),
        Command::Warm(asked) => warm::run(&path, &asked),
        Command::Advise(asked) => advise::run(&path, &asked),
        Command::Reload(asked) => reload::run(&path, &asked),
        Command::Schema => Ok(print(&config::json_schema())),
        Command::Reference(options) => reference::run(&options),
        Command::Completions { shell } => Ok(print(&completions(shell))),
    };
    done.unwrap_or_else(|failure: Failure| failure.end())
}

fn serve(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return bad(&problems),
    };
    if let Err(error) = telemetry::init(&config.log) {
        return failed(&error);
    }
    for warning in &config.warnings {
        tracing::warn!(line = warning.line, "{}", warning.message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(server::signals(shutdown.clone()));
        let bound = Bound::bind(&config)?;
        tokio::select! {
            drained = run::serve(config, bound, shutdown) => drained.map(Some),
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
        Ok(None) => FAILED.into(),
        Err(error) => failed(&error),
    }
}

fn check(path: &Path, how: config::Checking) -> ExitCode {
    match config::check(path, how, &mut std::io::stdout().lock()) {
        Ok(code) => code.into(),
        Err(_) => FAILED.into(),
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

fn bad(problems: &config::Problems) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{problems}");
    USAGE.into()
}

/// A remark beside the output.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {text}");
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {error}");
    FAILED.into()
}
