//! The command line: parses the arguments and runs one command. The commands are thin; the work is
//! done by the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio_util::sync::CancellationToken;

use self::error::CommandError;
use self::exit_codes::{EXIT_FAILED, EXIT_USAGE};
use self::output::{print, print_diagnostics, print_failure};
use crate::app;
use crate::app::BoundListeners;
use crate::config::{self, Config};
use crate::server::{self, Drained};
use crate::telemetry::log;

mod advise;
mod api_types;
mod error;
mod exit_codes;
mod explain;
mod format;
mod http;
mod ls;
mod output;
mod purge;
mod reference;
mod reload;
mod remote;
mod rules;
mod stats;
mod warm;

#[derive(Debug, Parser)]
#[command(
    name = "sidecache",
    version,
    about = "A caching sidecar: makes a legacy web app fast without ever making it wrong"
)]
struct Cli {
    #[command(flatten)]
    file: ConfigPath,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Args, Clone, Debug)]
struct ConfigPath {
    /// The configuration file.
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

#[derive(Args, Clone, Debug)]
struct ServeArgs {
    /// Take the listening sockets of the sidecar that serves at this address, and let it drain once
    /// this one is ready. If none serves, start as usual. Only for `serve`.
    #[arg(long = "take-over")]
    succeeds: bool,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the sidecar (the default).
    Serve(ServeArgs),
    /// Check the file for errors without starting. Exits with 64 if there are any.
    #[command(after_help = reload::CHECK_EXAMPLES)]
    Check {
        /// Treat warnings as errors. To accept one warning, end its line in the file with
        /// `# check: ok`.
        #[arg(long)]
        deny_warnings: bool,
        /// Do not connect to Redis to check how it is configured, and do not look at sockets.
        #[arg(long)]
        offline: bool,
        /// The file to check, instead of --config.
        file: Option<PathBuf>,
        // Last, because its help heading would also apply to the options that follow.
        #[command(flatten)]
        compared: reload::CompareArgs,
    },
    /// Show how the rules treat a request: its route, key, tags and scope, or why it would bypass
    /// the cache.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Show the statistics of the running sidecar: hit ratio by route, latency, and why requests
    /// miss the cache.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// List what the running sidecar holds in memory, by tag, route or path: age, freshness, size
    /// and hits of each entry. Bodies and values of queries are not shown, and Redis is not listed.
    #[command(after_help = ls::EXAMPLES)]
    Ls(ls::LsArgs),
    /// Purge stored responses by tag, by URL, or all of them.
    #[command(after_help = purge::EXAMPLES)]
    Purge(purge::PurgeArgs),
    /// Request a list of URLs, or the most frequent URLs of an access log, so that their responses
    /// are stored before clients ask for them.
    #[command(after_help = warm::EXAMPLES)]
    Warm(warm::WarmArgs),
    /// Print the findings of shadow mode and audits, with suggested lines for proxy.toml.
    #[command(after_help = advise::EXAMPLES)]
    Advise(advise::AdviseArgs),
    /// Make the running sidecar reload its file. Stored entries of unchanged routes stay.
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::ReloadArgs),
    /// Print the JSON Schema of proxy.toml, which editors use for completion and validation.
    Schema,
    /// Print, write or compare the reference pages of the manual.
    #[command(hide = true)]
    Reference(reference::Options),
    /// Print shell completions.
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

/// Parses the command line and runs the command.
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
    let command = cli.command.unwrap_or_else(|| CliCommand::Serve(cli.serve.clone()));
    if cli.serve.succeeds && !matches!(command, CliCommand::Serve(_)) {
        return CommandError::Usage("--take-over is for `serve` alone".to_owned()).report();
    }
    let done = match command {
        CliCommand::Serve(args) => Ok(serve(&path, args.succeeds || cli.serve.succeeds)),
        CliCommand::Check { deny_warnings, offline, compared, file } => {
            let file = file.as_deref().unwrap_or(&path);
            match (check(file, config::CheckOptions { deny_warnings, offline }), compared.against) {
                (ExitCode::SUCCESS, Some(reload::Against::Running)) => {
                    reload::compare(file, &path, &compared)
                }
                (code, _) => Ok(code),
            }
        }
        CliCommand::Explain(args) => explain::run(&path, &args),
        CliCommand::Stats(args) => stats::run(&path, &args),
        CliCommand::Ls(args) => ls::run(&path, &args),
        CliCommand::Purge(args) => purge::run(&path, &args),
        CliCommand::Warm(args) => warm::run(&path, &args),
        CliCommand::Advise(args) => advise::run(&path, &args),
        CliCommand::Reload(args) => reload::run(&path, &args),
        CliCommand::Schema => Ok(print(&config::json_schema())),
        CliCommand::Reference(options) => reference::run(&options, &Cli::command()),
        CliCommand::Completions { shell } => Ok(print(&completions(shell))),
    };
    done.unwrap_or_else(|failure: CommandError| failure.report())
}

fn serve(path: &Path, succeeds: bool) -> ExitCode {
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return print_diagnostics(&problems),
    };
    if let Err(error) = log::init(&config.log) {
        return print_failure(&error);
    }
    config.log_warnings();
    app::descriptors::fit(&mut config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print_failure(&error),
    };
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(server::signals(shutdown.clone()));
        let acquiring = BoundListeners::acquire(&config, succeeds);
        let Some(bound) = shutdown.run_until_cancelled(acquiring).await else {
            return Ok(Some(Drained::default()));
        };
        let bound = bound?;
        let successors = tokio::spawn(app::start_successors(shutdown.clone()));
        let served = tokio::select! {
            drained = app::serve(config, bound, shutdown) => drained.map(Some),
            // The second signal stops the sidecar at once.
            _ = signals => Ok(None),
        };
        successors.abort();
        served
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
