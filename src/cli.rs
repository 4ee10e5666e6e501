//! The command line: parses the arguments and runs one command. The commands are thin; the work is
//! done by the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio_util::sync::CancellationToken;

use self::error::CommandError;
use self::exit_codes::{EXIT_FAILED, EXIT_USAGE};
use self::output::{print, print_failure};
use self::without_file::AddressArgs;
use crate::app;
use crate::app::BoundListeners;
use crate::config::{self, Config};
use crate::policy::mode_switch::SwitchMode;
use crate::server::{self, Drained};
use crate::telemetry::log;
use crate::telemetry::version::SHOWN;

mod advise;
mod api_types;
mod demo;
mod error;
mod exit_codes;
mod explain;
mod first_file;
mod format;
mod http;
mod init;
mod ls;
mod man;
mod modes;
mod output;
mod purge;
mod reference;
mod reload;
mod remote;
mod rules;
mod sql;
mod stats;
mod tail;
mod terminal;
mod top;
mod version;
mod warm;
mod without_file;

#[derive(Debug, Parser)]
#[command(
    name = "sidecache",
    version = SHOWN,
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
    #[command(flatten)]
    without_file: AddressArgs,
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
    /// Show requests as the running sidecar answers them: what became of each, and why.
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::TailArgs),
    /// Show what the running sidecar does now, in a table that is kept up to date: requests a
    /// second by route, hit ratio, latency, the busiest tags, memory, Redis and the app.
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// List what the running sidecar holds in memory, by tag, route or path: age, freshness, size
    /// and hits of each entry. Bodies and values of queries are not shown, and Redis is not listed.
    #[command(after_help = ls::EXAMPLES)]
    Ls(ls::LsArgs),
    /// Purge stored responses by tag, by URL, or all of them.
    #[command(after_help = purge::EXAMPLES)]
    Purge(purge::PurgeArgs),
    /// Switch off caching for a time, for one route or all, in all sidecars that share the Redis.
    /// The file stays what it is.
    #[command(after_help = modes::OFF_EXAMPLES)]
    Off(modes::SwitchArgs),
    /// Switch routes to shadow mode for a time: the cache takes no part, and notes what it would
    /// have done.
    #[command(after_help = modes::SHADOW_EXAMPLES)]
    Shadow(modes::SwitchArgs),
    /// End what `off` and `shadow` have switched.
    #[command(after_help = modes::ON_EXAMPLES)]
    On(modes::OnArgs),
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
    /// Print the version, the commit that it was built from, and how it was built.
    #[command(after_help = version::EXAMPLES)]
    Version(version::VersionArgs),
    /// Write a first proxy.toml: a few lines with comments, or routes in shadow mode from an access
    /// log or an `OpenAPI` document.
    #[command(after_help = init::EXAMPLES)]
    Init(init::InitArgs),
    /// Run a sample legacy app with a sidecar in front of it, and print curl lines to try.
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
    /// Print the SQL that makes a database tell of its changes, for `[[sources]]`.
    #[command(after_help = sql::EXAMPLES)]
    Sql(sql::SqlArgs),
    /// Print the JSON Schema of proxy.toml, which editors use for completion and validation.
    Schema,
    /// Print, write or compare the reference pages of the manual.
    #[command(hide = true)]
    Reference(reference::Options),
    /// Print the manual page, or write those of all commands.
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArgs),
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
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let is_named = matches.value_source("config") != Some(ValueSource::DefaultValue);
        Ok((Cli::from_arg_matches(&matches)?, is_named))
    });
    let (cli, is_named) = match parsed {
        Ok(parsed) => parsed,
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
    if cli.serve.without_file.upstream.is_some() && !matches!(command, CliCommand::Serve(_)) {
        let why = "--upstream before a command is for `serve` alone; write it behind the command";
        return CommandError::Usage(why.to_owned()).report();
    }
    let done = match command {
        CliCommand::Serve(args) => {
            let succeeds = args.succeeds || cli.serve.succeeds;
            let without_file = args.without_file.or(cli.serve.without_file);
            serve((&path, is_named), succeeds, &without_file)
        }
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
        CliCommand::Tail(args) => tail::run(&path, &args),
        CliCommand::Top(args) => top::run(&path, &args),
        CliCommand::Ls(args) => ls::run(&path, &args),
        CliCommand::Purge(args) => purge::run(&path, &args),
        CliCommand::Off(args) => modes::set(&path, &args, SwitchMode::Off),
        CliCommand::Shadow(args) => modes::set(&path, &args, SwitchMode::Shadow),
        CliCommand::On(args) => modes::end(&path, &args),
        CliCommand::Warm(args) => warm::run(&path, &args),
        CliCommand::Advise(args) => advise::run(&path, &args),
        CliCommand::Reload(args) => reload::run(&path, &args),
        CliCommand::Version(args) => Ok(version::run(&args)),
        CliCommand::Init(args) => init::run(&path, &args),
        CliCommand::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        CliCommand::Sql(args) => sql::run(&args),
        CliCommand::Schema => Ok(print(&config::json_schema())),
        CliCommand::Reference(options) => reference::run(&options, &Cli::command()),
        CliCommand::Man(args) => man::run(&args, Cli::command()),
        CliCommand::Completions { shell } => Ok(print(&completions(shell))),
    };
    done.unwrap_or_else(|failure: CommandError| failure.report())
}

/// What `cargo run --example demo` runs.
#[must_use]
pub fn demo() -> ExitCode {
    /// A sample legacy app with Sidecache in front of it.
    #[derive(Debug, Parser)]
    struct Demo {
        #[command(flatten)]
        args: demo::DemoArgs,
    }
    match demo::run(&Demo::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Serves until a signal, with the file, or without one.
fn serve(
    (path, is_named): (&Path, bool),
    succeeds: bool,
    without_file: &AddressArgs,
) -> Result<ExitCode, CommandError> {
    let has_file = without_file.upstream.is_none();
    let mut config = if has_file {
        Config::load(path).map_err(CommandError::Config)?
    } else {
        without_file.config(path, is_named)?
    };
    if let Err(error) = log::init(&config.log) {
        return Ok(print_failure(&error));
    }
    if has_file {
        config.log_warnings();
    }
    app::descriptors::fit(&mut config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Ok(print_failure(&error)),
    };
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        // Before anybody can know of this process: an early signal is not the end of it.
        let signals = tokio::spawn(server::signals(shutdown.clone()));
        let successors = tokio::spawn(app::start_successors(shutdown.clone()));
        let acquiring = BoundListeners::acquire(&config, succeeds);
        let Some(bound) = shutdown.run_until_cancelled(acquiring).await else {
            return Ok(Some(Drained::default()));
        };
        let bound = bound?;
        if !has_file {
            without_file::announce(&config, &bound);
        }
        let served = tokio::select! {
            drained = app::serve(config, bound, shutdown) => drained.map(Some),
            // The second signal stops the sidecar at once.
            _ = signals => Ok(None),
        };
        successors.abort();
        served
    });
    runtime.shutdown_background();
    Ok(match served {
        Ok(Some(drained)) => {
            tracing::info!(?drained, "stopped");
            ExitCode::SUCCESS
        }
        Ok(None) => EXIT_FAILED.into(),
        Err(error) => print_failure(&error),
    })
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
