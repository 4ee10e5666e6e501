//! What systemd gives and is told: sockets that it listens on (`LISTEN_FDS`), and that the sidecar
//! is ready (`NOTIFY_SOCKET`). Without systemd all of it does nothing.

use std::net::TcpListener;

use listenfd::ListenFd;

use crate::error::SetupError;

/// The names of sockets for operators and for clients (`FileDescriptorName=`).
const ADMIN: &str = "admin";
const CLIENTS: &str = "listen";

/// The listening sockets that were passed.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets {
    pub(crate) clients: Option<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
}

impl PassedSockets {
    /// Takes the sockets that the service manager has passed to this process, once. One with the
    /// name `admin` is for operators, any other one for clients.
    pub(crate) fn take() -> Result<Self, SetupError> {
        // Before the variables are removed.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut passed = Self::default();
        for (number, name) in
            (0..sockets.len()).zip(names.split(':').chain(std::iter::repeat("unknown")))
        {
            let listener = sockets
                .take_tcp_listener(number)
                .map_err(|error| failed(format!("{error}; only TCP sockets can be passed")))?;
            let place = if name == ADMIN { &mut passed.admin } else { &mut passed.clients };
            if place.is_some() {
                return Err(failed(format!(
                    "there are two for {}; name one of them `{ADMIN}` and the other one \
                     `{CLIENTS}` (FileDescriptorName=)",
                    if name == ADMIN { "operators" } else { "clients" }
                )));
            }
            *place = listener;
        }
        Ok(passed)
    }
}

fn failed(why: String) -> SetupError {
    SetupError { what: "the sockets of the service manager (LISTEN_FDS)".to_owned(), why }
}

/// Tells the service manager of a change, if there is one that listens.
pub(crate) fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, state) {
        tracing::debug!(%error, state, "the service manager was not told");
    }
}

fn send(name: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    #[cfg(target_os = "linux")]
    if let Some(hidden) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        let address = SocketAddr::from_abstract_name(hidden)?;
        return UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop);
    }
    let address = SocketAddr::from_pathname(name)?;
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_notice_is_one_datagram() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str(), "READY=1\nSTATUS=serving").expect("it is sent");
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("it came");
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=serving");
    }
}
