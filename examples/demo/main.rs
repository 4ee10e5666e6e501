//! The demo: a sample legacy app, and Sidecache in front of it with the shipped `proxy.toml`.
//!
//! `cargo run --release --example demo` starts both, prints curl lines to try, and logs each
//! request.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the person who started it"
)]

#[path = "app.rs"]
mod app;
#[path = "guide.rs"]
mod guide;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sidecache::app::BoundListeners;
use sidecache::config::Config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A sample legacy app with Sidecache in front of it.
#[derive(Parser)]
struct Args {
    /// The address of Sidecache, instead of the one in the rules (127.0.0.1:8080 in the shipped
    /// ones).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address of the sample app.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    app: SocketAddr,
    /// The address of Sidecache's dashboard and metrics, instead of the one in the rules
    /// (127.0.0.1:9090 in the shipped ones).
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// The rules. Edit them, start the demo again, and see what changes.
    #[arg(
        long,
        value_name = "FILE",
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml"),
    )]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match demo(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

/// A failure: an exit code (64 for invalid rules, 1 for a failed start) and a message.
type Failure = (u8, String);

async fn demo(args: &Args) -> Result<(), Failure> {
    let config = configure(args).map_err(|problems| (64, problems))?;
    let admin = config.admin.address;
    let proxy = config.server.address.tcp();
    let proxy = proxy.ok_or((64, "the demo needs a port: name one with --listen".to_owned()))?;
    free(proxy, "Sidecache", "--listen 127.0.0.1:8081")?;
    free(admin, "Sidecache's admin listener", "--admin 127.0.0.1:9091")?;
    free(args.app, "the sample app", "--app 127.0.0.1:8001")?;
    let listener = TcpListener::bind(args.app)
        .await
        .map_err(|error| (1, format!("cannot listen on {}: {error}", args.app)))?;

    let shutdown = CancellationToken::new();
    let app_settings = app::Settings::default();
    let stats = app_settings.stats.clone();
    // The app stops last, because the sidecar's requests in flight still need it.
    let sidecar_gone = CancellationToken::new();
    let app =
        tokio::spawn(app::serve(listener, app_settings, sidecar_gone.clone().cancelled_owned()));
    print!("{}", guide::text(proxy, args.app, admin));

    tokio::spawn(interrupted(shutdown.clone()));
    let result = sidecar(config, shutdown).await;
    sidecar_gone.cancel();
    let _ = app.await;
    println!("\nWhat reached the app:");
    for ((method, path), count) in stats.snapshot() {
        println!("{count:>6}  {method} {path}");
    }
    result
}

/// The rules, with the addresses of the command line.
fn configure(args: &Args) -> Result<Config, String> {
    let mut config = Config::load(&args.config).map_err(|problems| problems.to_string())?;
    if let Some(address) = args.listen {
        config.server.address = address.into();
    }
    if let Some(address) = args.admin {
        config.admin.address = address;
    }
    config.upstream.target = args.app.into();
    Ok(config)
}

/// Runs Sidecache until `shutdown`, and lets its requests in flight finish.
async fn sidecar(config: Config, shutdown: CancellationToken) -> Result<(), Failure> {
    sidecache::app::init_log(&config.log)
        .map_err(|error| (1, format!("Sidecache cannot log: {error}")))?;
    let bound = BoundListeners::bind(&config)
        .map_err(|error| (1, format!("Sidecache cannot start: {error}")))?;
    sidecache::app::serve(config, bound, shutdown)
        .await
        .map_err(|error| (1, format!("Sidecache stopped: {error}")))?;
    Ok(())
}

/// Reports an occupied port and what to do, before anything is started.
fn free(address: SocketAddr, who: &str, other: &str) -> Result<(), Failure> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err((
            1,
            format!(
                "{who} cannot listen on {address}: the port is taken by another program.\nChoose \
                another one: cargo run --release --example demo -- {other}"
            ),
        )),
        Err(error) => Err((
            1,
            format!(
                "{who} cannot listen on {address}: {error}\nChoose another address: cargo run \
                --release --example demo -- {other}"
            ),
        )),
    }
}

async fn interrupted(shutdown: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        println!("\nStopping; what is under way may finish.");
    }
    shutdown.cancel();
}
