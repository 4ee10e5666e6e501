//! The taker's side of a hand-over.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::{TcpListener, UnixStream};

use super::channel::{
    GO, HELLO, HandoverChannel, MAX_SOCKETS, OFFER, READY, REFUSED, SERVING, unix_listener,
};
use super::folder::{HandoverFolder, HandoverSocket};
use crate::error::SetupError;
use crate::server::{self, ListenAddress, Listener};

/// How long the process that serves may take to offer its sockets. It takes one taker at a time.
const OFFER_TIMEOUT: Duration = Duration::from_secs(90);

/// How often to ask again where the process that serves has ended meanwhile.
const ATTEMPTS: u32 = 3;

/// The sockets of the process that serves, which it still uses.
#[derive(Debug)]
pub(crate) struct SocketsOffer {
    channel: HandoverChannel,
    /// For clients.
    pub(crate) clients: Listener,
    /// For operators, and the address that the other process's file names for it.
    pub(crate) admin: (TcpListener, String),
    pid: String,
}

fn failed(why: impl Into<String>) -> SetupError {
    SetupError { what: "taking over from the running process".to_owned(), why: why.into() }
}

/// Asks the process that serves for its sockets. `None`: nobody serves.
pub(crate) async fn request(
    folder: &HandoverFolder,
    address: &ListenAddress,
) -> Result<Option<(SocketsOffer, HandoverSocket)>, SetupError> {
    for _ in 0..ATTEMPTS {
        let stream = match UnixStream::connect(folder.socket_path()).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            // It has died with this connection in its queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
            Err(error) => {
                return Err(failed(format!("{}: {error}", folder.socket_path().display())));
            }
        };
        let own = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred().map_err(|error| failed(error.to_string()))?;
        if peer.uid() != own && peer.uid() != 0 {
            return Err(failed(format!("it runs as another user ({})", peer.uid())));
        }
        let mut channel = HandoverChannel::new(stream);
        let offered = match channel.send(HELLO).await {
            Ok(()) => channel.receive_within(OFFER_TIMEOUT).await.map_err(failed)?,
            // It has ended.
            Err(_) => None,
        };
        if let Some(line) = offered {
            return SocketsOffer::parse(channel, &line, address).map(Some);
        }
    }
    Ok(None)
}

impl SocketsOffer {
    fn parse(
        mut channel: HandoverChannel,
        line: &str,
        address: &ListenAddress,
    ) -> Result<(Self, HandoverSocket), SetupError> {
        if let Some(why) = line.strip_prefix(REFUSED) {
            return Err(failed(format!("it refuses:{why}")));
        }
        let unknown = || failed(format!("it said `{line}`; stop it, and start this one"));
        let rest = line.strip_prefix(OFFER).ok_or_else(unknown)?;
        let (pid, admin_address) = rest.trim().split_once(' ').ok_or_else(unknown)?;
        let sockets = <[OwnedFd; MAX_SOCKETS]>::try_from(channel.take_sockets());
        let [clients, admin, socket] = sockets.map_err(|_| unknown())?;
        let broken = |error: io::Error| failed(error.to_string());
        let clients = Listener::from_socket(clients, address).map_err(broken)?;
        let admin = server::adopt(StdTcpListener::from(admin)).map_err(broken)?;
        let socket = unix_listener(socket).map_err(|error| failed(error.to_string()))?;
        let socket = HandoverFolder::borrow(socket);
        tracing::info!(pid, "taking over from the running process");
        let admin = (admin, admin_address.to_owned());
        let offer = Self { channel, clients, admin, pid: pid.to_owned() };
        Ok((offer, socket))
    }
}

/// A hand-over in which this process has the sockets, and accepts nothing yet.
#[derive(Debug)]
pub(crate) struct TakeOver {
    channel: HandoverChannel,
    pid: String,
}

impl SocketsOffer {
    /// The listeners, and the hand-over that goes on. Where the file names another address for
    /// operators, that is bound by the caller.
    pub(crate) fn split(self) -> (Listener, (TcpListener, String), TakeOver) {
        let Self { channel, clients, admin, pid } = self;
        (clients, admin, TakeOver { channel, pid })
    }
}

impl TakeOver {
    /// This process could serve. Returns when it may accept connections.
    ///
    /// # Errors
    /// If the other process goes on.
    pub(crate) async fn ready(&mut self) -> Result<(), SetupError> {
        let pid = &self.pid;
        // Ignore the error: the other process has died, which `receive` tells.
        let _ = self.channel.send(READY).await;
        match self.channel.receive().await.map_err(failed)? {
            Some(line) if line == GO => {
                tracing::info!(pid, "the running process hands over");
                Ok(())
            }
            Some(line) => Err(failed(line)),
            None => {
                tracing::warn!(pid, "the running process has died; serving in its place");
                Ok(())
            }
        }
    }

    /// This process accepts connections.
    pub(crate) async fn serving(self) {
        // Ignore the error: the other process has died.
        let _ = self.channel.send(SERVING).await;
    }
}
