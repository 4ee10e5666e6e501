//! The listening sockets: bound, passed by the service manager, or handed over by the process that
//! serves.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::app::handover::folder::{HandoverFolder, HandoverSocket};
use crate::app::handover::taker::{self, TakeOver};
use crate::app::handover::writers::WriterLock;
use crate::app::listen_error::cannot_listen;
use crate::app::service_manager::PassedSockets;
use crate::config::Config;
use crate::error::SetupError;
use crate::server::{self, ListenAddress, Listener};

/// How long a process that takes over waits for the ports of one that is about to be gone.
const DYING: Duration = Duration::from_secs(2);
/// How often it looks.
const DYING_INTERVAL: Duration = Duration::from_millis(20);

/// The bound listeners. They are bound before anything is served, so that a taken port fails the
/// start.
#[derive(Debug)]
pub struct BoundListeners {
    /// For clients.
    pub proxy: Listener,
    /// For operators.
    pub admin: TcpListener,
    /// What a restart needs. None where this process takes no part in any.
    pub(super) restart: Option<RestartParts>,
}

/// What a process needs to take over from another one, and to hand over to the next.
#[derive(Debug)]
pub(super) struct RestartParts {
    pub(super) folder: HandoverFolder,
    pub(super) socket: HandoverSocket,
    pub(super) writer: WriterLock,
    /// The process that serves still waits for this one.
    pub(super) taking: Option<TakeOver>,
}

impl BoundListeners {
    /// Binds the addresses of the config. Port 0 takes a free port. Another process cannot take
    /// over from such a sidecar.
    pub fn bind(config: &Config) -> Result<Self, SetupError> {
        let proxy = bind_clients(config)?;
        let admin = bind_admin(config)?;
        Ok(Self { proxy, admin, restart: None })
    }

    /// Takes the sockets that the service manager passes, binds the others, and takes part in
    /// restarts. With `succeeds` the sockets are those of the process that serves, if there is one.
    pub async fn acquire(config: &Config, succeeds: bool) -> Result<Self, SetupError> {
        let passed = PassedSockets::take()?;
        // Sidecars with port 0 have different ports, and would meet in one folder.
        let has_place =
            succeeds || !matches!(config.server.address, ListenAddress::Tcp(to) if to.port() == 0);
        let opened = has_place.then(|| HandoverFolder::open(&config.server.address.to_string()));
        let folder = match opened.transpose() {
            Ok(folder) => folder,
            Err(error) if succeeds => {
                let what = "--take-over".to_owned();
                return Err(SetupError { what, why: error.to_string() });
            }
            Err(error) => {
                tracing::info!(%error, "no other process can take over from this one");
                None
            }
        };
        let offered = match &folder {
            Some(folder) if succeeds => taker::request(folder, &config.server.address).await?,
            _ => None,
        };
        let (proxy, admin, handed) = if let Some((offer, socket)) = offered {
            let (proxy, (admin, address), taking) = offer.split();
            let admin = if address == config.admin.address.to_string() {
                admin
            } else {
                bind_admin(config)?
            };
            (proxy, admin, Some((socket, taking)))
        } else {
            if succeeds {
                tracing::info!("no process serves at this address; starting without a hand-over");
            }
            let (proxy, admin) = open(config, passed, folder.as_ref(), succeeds).await?;
            (proxy, admin, None)
        };
        let restart = match folder.map(|folder| parts(config, folder, handed)) {
            Some(Ok(parts)) => Some(parts),
            Some(Err(error)) if succeeds => {
                let what = "--take-over".to_owned();
                return Err(SetupError { what, why: error.to_string() });
            }
            Some(Err(error)) => {
                tracing::info!(%error, "no other process can take over from this one");
                None
            }
            None => None,
        };
        Ok(Self { proxy, admin, restart })
    }
}

/// Binds. The kernel closes the sockets of a process that dies one after the other: whoever takes
/// over waits a moment for its ports.
async fn bind_after<T>(
    succeeds: bool,
    folder: Option<&HandoverFolder>,
    bind: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match bind() {
            Err(error)
                if succeeds
                    && error.kind() == io::ErrorKind::AddrInUse
                    && waited < DYING
                    && !folder.is_some_and(HandoverFolder::is_served) =>
            {
                tokio::time::sleep(DYING_INTERVAL).await;
                waited += DYING_INTERVAL;
            }
            bound => return bound,
        }
    }
}

/// The sockets that were passed, and the others bound.
async fn open(
    config: &Config,
    passed: PassedSockets,
    folder: Option<&HandoverFolder>,
    succeeds: bool,
) -> Result<(Listener, TcpListener), SetupError> {
    if passed.clients.is_some() && folder.is_some_and(HandoverFolder::is_served) {
        let what = format!("serving {}", config.server.address);
        return Err(SetupError { what, why: SERVED.to_owned() });
    }
    let adopt = |listener, what: &str| {
        server::adopt(listener).map_err(|error: io::Error| SetupError {
            what: format!("the socket for {what} that the service manager passes"),
            why: error.to_string(),
        })
    };
    let proxy = if let Some(listener) = passed.clients {
        adopt(listener, "clients")?.into()
    } else {
        let address = &config.server.address;
        bind_after(succeeds, folder, || server::listen(address))
            .await
            .map_err(|error| not_bound(config, (address, "listen"), folder, &error))?
    };
    let admin = if let Some(listener) = passed.admin {
        adopt(listener, "operators")?
    } else {
        let address = config.admin.address;
        bind_after(succeeds, folder, || server::bind(address))
            .await
            .map_err(|error| not_bound(config, (&address.into(), "admin"), folder, &error))?
    };
    Ok((proxy, admin))
}

const SERVED: &str = "another sidecar serves there; stop it first, or replace it without a pause \
                      by `sidecache --take-over`";

fn bind_clients(config: &Config) -> Result<Listener, SetupError> {
    let address = &config.server.address;
    server::listen(address).map_err(|error| not_bound(config, (address, "listen"), None, &error))
}

fn bind_admin(config: &Config) -> Result<TcpListener, SetupError> {
    let address = config.admin.address;
    server::bind(address)
        .map_err(|error| not_bound(config, (&address.into(), "admin"), None, &error))
}

fn not_bound(
    config: &Config,
    (address, section): (&ListenAddress, &str),
    folder: Option<&HandoverFolder>,
    error: &io::Error,
) -> SetupError {
    if error.kind() == io::ErrorKind::AddrInUse && folder.is_some_and(HandoverFolder::is_served) {
        let what = format!("listening on {address}");
        return SetupError { what, why: format!("{error}; {SERVED}") };
    }
    let file = config.file.as_deref().unwrap_or_else(|| Path::new("proxy.toml"));
    cannot_listen(address, section, file, error)
}

fn parts(
    config: &Config,
    folder: HandoverFolder,
    handed: Option<(HandoverSocket, TakeOver)>,
) -> io::Result<RestartParts> {
    let writer = WriterLock::new(&folder, config.redis.as_ref())?;
    let (socket, taking) = match handed {
        Some((socket, taking)) => (socket, Some(taking)),
        None => (folder.listen()?, None),
    };
    Ok(RestartParts { folder, socket, writer, taking })
}
