//! The commands. Each is a few lines over the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::run::{self, Bound};
use crate::{server, telemetry};

mod explain;

/// Exit code of a start that failed.
const FAILED: u8 = 1;

/// Exit code of a config that cannot be used, or of a command line that cannot be read (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

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
    Check {
        /// Warnings count as mistakes. One that is right as it is: end its line in the file with `# check: ok`.
        #[arg(long)]
        deny_warnings: bool,
        /// Do not ask the Redis of the file how it is set up.
        #[arg(long)]
        offline: bool,
        /// The file, instead of --config.
        file: Option<PathBuf>,
    },
    /// Say what the rules make of a request: its route, key, tags and scope, or why it would bypass the cache.
    Explain(explain::Question),
    /// Print the JSON Schema of proxy.toml, with which editors complete and check it.
    Schema,
}

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
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&path),
        Command::Check { deny_warnings, offline, file } => {
            check(file.as_deref().unwrap_or(&path), config::Checking { deny_warnings, offline })
        }
        Command::Explain(question) => explain::run(&path, &question),
        Command::Schema => print(&config::json_schema()),
    }
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

fn print(text: &str) -> ExitCode {
    // A reader that has gone, such as `head`, is no failure.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    ExitCode::SUCCESS
}

fn bad(problems: &config::Problems) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{problems}");
    USAGE.into()
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {error}");
    FAILED.into()
}
