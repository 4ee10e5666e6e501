//! `sidecache demo`: a sample legacy app, and a sidecar in front of it, in one process.
//!
//! The rules are those of the shipped `proxy.toml`, written to a folder of their own, so that they
//! can be edited while the demo runs; `--rules` names a file instead. Nothing else is written, and
//! Redis is not needed. `examples/demo` calls the same code.

use std::fs::DirBuilder;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use toml_edit::DocumentMut;

use super::error::CommandError;
use crate::app::BoundListeners;
use crate::config::Config;
use crate::telemetry::log;

mod app;
mod guide;

/// The rules of the demo.
const RULES: &str = include_str!("../../proxy.toml");

/// How the demo is started.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
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
    /// The rules, instead of a copy of the shipped proxy.toml. A change takes effect within two
    /// seconds.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Print JSON objects, one on a line, instead of the tour: the addresses and the file with the
    /// rules at the start, and what reached the app at the end.
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache demo
  sidecache demo --listen 127.0.0.1:8081 --app 127.0.0.1:8001 --admin 127.0.0.1:9091
  sidecache demo --rules proxy.toml
  sidecache demo --json | head -n 1 | jq -r .admin";

/// Runs the demo until Ctrl-C, and prints what reached the app.
///
/// # Errors
/// The rules are invalid, an address is taken, or the sidecar cannot start.
pub(super) fn run(args: &DemoArgs) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("the demo cannot start", &error))?;
    runtime.block_on(demo(args))
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("{what}: {why}"))
}

async fn demo(args: &DemoArgs) -> Result<(), CommandError> {
    let rules = match &args.rules {
        Some(file) => RulesFile { path: file.clone(), folder: None },
        None => RulesFile::create(&rules_for(args))
            .map_err(|error| failed("the rules cannot be written", &error))?,
    };
    let config = configure(args, &rules.path)?;
    let admin = config.admin.address;
    let proxy = config.server.address.tcp().ok_or_else(|| {
        CommandError::Usage("the demo needs a port: name one with --listen".to_owned())
    })?;
    require_free(proxy, "Sidecache", "--listen 127.0.0.1:8081")?;
    require_free(admin, "Sidecache's admin listener", "--admin 127.0.0.1:9091")?;
    require_free(args.app, "the sample app", "--app 127.0.0.1:8001")?;
    let listener = TcpListener::bind(args.app)
        .await
        .map_err(|error| failed(&format!("cannot listen on {}", args.app), &error))?;

    let shutdown = CancellationToken::new();
    let app_settings = app::Settings::default();
    let stats = app_settings.stats.clone();
    // The app stops last, because the sidecar's requests in flight still need it.
    let sidecar_gone = CancellationToken::new();
    let app =
        tokio::spawn(app::serve(listener, app_settings, sidecar_gone.clone().cancelled_owned()));
    print(&opening(args, &rules.path, proxy, admin));

    tokio::spawn(interrupted(shutdown.clone(), args.json));
    let result = sidecar(config, shutdown).await;
    sidecar_gone.cancel();
    let _ = app.await;
    let requests = stats.snapshot().into_iter();
    if args.json {
        let requests: Vec<Value> = requests
            .map(
                |((method, path), count)| json!({ "method": method, "path": path, "count": count }),
            )
            .collect();
        print(&format!("{}\n", json!({ "requests": requests })));
        return result;
    }
    print("\nWhat reached the app:\n");
    for ((method, path), count) in requests {
        print(&format!("{count:>6}  {method} {path}\n"));
    }
    result
}

/// What is printed at the start.
fn opening(args: &DemoArgs, rules: &Path, proxy: SocketAddr, admin: SocketAddr) -> String {
    let rules = rules.display();
    if args.json {
        let url = |address: SocketAddr| format!("http://{address}");
        let places = json!({
            "sidecache": url(proxy),
            "app": url(args.app),
            "admin": url(admin),
            "rules": rules.to_string(),
        });
        return format!("{places}\n");
    }
    let tour = guide::text(proxy, args.app, admin);
    format!("{tour}The rules are in {rules}: edit them, and see what changes.\n\n")
}

/// Prints to stdout, without an end of line.
fn print(text: &str) {
    // Ignore the error: the reader may have closed the pipe.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The file with the rules. Dropping it removes what the demo has written.
struct RulesFile {
    path: PathBuf,
    /// The folder of its own, if the demo made it.
    folder: Option<PathBuf>,
}

impl RulesFile {
    /// Writes rules into a new folder that only this user may enter.
    fn create(rules: &str) -> std::io::Result<Self> {
        let name = format!("sidecache-demo-{:08x}", rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("proxy.toml");
        let file = Self { path, folder: Some(folder) };
        std::fs::write(&file.path, rules)?;
        Ok(file)
    }
}

impl Drop for RulesFile {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // Ignore the errors: it is a folder for temporary files.
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The shipped rules with the addresses of the command line, so that they also hold after a reload.
fn rules_for(args: &DemoArgs) -> String {
    let Ok(mut rules) = RULES.parse::<DocumentMut>() else { return RULES.to_owned() };
    let addresses = [
        ("listen", "address", args.listen.map(|address| address.to_string())),
        ("admin", "address", args.admin.map(|address| address.to_string())),
        ("upstream", "url", Some(format!("http://{}", args.app))),
    ];
    for (section, key, address) in addresses {
        if let Some(address) = address {
            rules[section][key] = toml_edit::value(address);
        }
    }
    rules.to_string()
}

/// The rules, with the addresses of the command line.
fn configure(args: &DemoArgs, rules: &Path) -> Result<Config, CommandError> {
    let mut config = Config::load(rules).map_err(CommandError::Config)?;
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
async fn sidecar(config: Config, shutdown: CancellationToken) -> Result<(), CommandError> {
    log::init(&config.log).map_err(|error| failed("Sidecache cannot log", &error))?;
    let bound =
        BoundListeners::bind(&config).map_err(|error| failed("Sidecache cannot start", &error))?;
    crate::app::serve(config, bound, shutdown)
        .await
        .map_err(|error| failed("Sidecache stopped", &error))?;
    Ok(())
}

/// Reports an occupied port and what to do, before anything is started.
fn require_free(address: SocketAddr, who: &str, other: &str) -> Result<(), CommandError> {
    let Err(error) = std::net::TcpListener::bind(address) else { return Ok(()) };
    let why = match error.kind() {
        ErrorKind::AddrInUse => "the port is taken by another program".to_owned(),
        _ => error.to_string(),
    };
    Err(CommandError::Failed(format!(
        "{who} cannot listen on {address}: {why}.\nChoose another address: sidecache demo {other}"
    )))
}

async fn interrupted(shutdown: CancellationToken, is_json: bool) {
    if tokio::signal::ctrl_c().await.is_ok() && !is_json {
        print("\nStopping; what is under way may finish.\n");
    }
    shutdown.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_the_addresses_as_one_object() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let args = DemoArgs { listen: None, app: address(2), admin: None, rules: None, json: true };
        let text = opening(&args, Path::new("/rules \"x\".toml"), address(1), address(3));
        let line = text.strip_suffix('\n').expect("a line");
        assert!(!line.contains('\n'), "{text}");
        let places: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            places,
            json!({
                "sidecache": "http://127.0.0.1:1",
                "app": "http://127.0.0.1:2",
                "admin": "http://127.0.0.1:3",
                "rules": "/rules \"x\".toml",
            })
        );
    }

    #[test]
    fn the_rules_are_written_for_this_user_alone_and_removed() {
        use std::os::unix::fs::PermissionsExt as _;
        let rules = RulesFile::create(RULES).expect("a folder for temporary files");
        let folder = rules.folder.clone().expect("a folder of its own");
        let mode = std::fs::metadata(&folder).expect("the folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        Config::load(&rules.path).expect("the shipped rules are valid");
        drop(rules);
        assert!(!folder.exists());
    }

    #[test]
    fn the_addresses_of_the_command_line_stand_in_the_rules() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let args = DemoArgs {
            listen: Some(address(1)),
            app: address(2),
            admin: Some(address(3)),
            rules: None,
            json: false,
        };
        let config = Config::parse(&rules_for(&args), "proxy.toml", &|_| None).expect("valid");
        assert_eq!(config.server.address.tcp(), Some(address(1)));
        assert_eq!(config.admin.address, address(3));
        assert_eq!(config.upstream.target, address(2).into());
    }
}
