//! Why a listener cannot be bound, and what to do about it.

use std::io;
use std::path::Path;

use crate::error::SetupError;
use crate::server::ListenAddress;

/// The error of a listener: `section` and `file` say where its address is set.
pub(super) fn cannot_listen(
    listen: &ListenAddress,
    section: &str,
    file: &Path,
    error: &io::Error,
) -> SetupError {
    let key = format!("`address` of [{section}] in {}", file.display());
    let Some(address) = listen.tcp() else {
        let why = format!("{error}; set {key} to another one, or stop the process that uses it");
        return SetupError { what: format!("listening on {listen}"), why };
    };
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens there; set another port as {key}, or stop that process \
             (`ss -ltnp 'sport = :{}'` names it)",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not listen on port {}; set a port from 1024 as {key}, or grant the \
             capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities)",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "no interface of this machine has the address {}; set one that it has as {key}, or \
             0.0.0.0 for all of them",
            address.ip()
        ),
        _ => format!("set {key} to another one"),
    };
    SetupError { what: format!("listening on {address}"), why: format!("{error}; {why}") }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn said(kind: io::ErrorKind) -> String {
        let address: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let error = io::Error::new(kind, "the system's words");
        cannot_listen(&address.into(), "admin", Path::new("/etc/sidecache/here.toml"), &error)
            .to_string()
    }

    #[test]
    fn each_cause_names_the_address_the_file_the_key_and_its_own_remedy() {
        for (kind, remedy) in [
            (io::ErrorKind::AddrInUse, "`ss -ltnp 'sport = :80'`"),
            (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (io::ErrorKind::AddrNotAvailable, "0.0.0.0"),
            (io::ErrorKind::OutOfMemory, "set `address`"),
        ] {
            let said = said(kind);
            for part in [
                "listening on 127.0.0.1:80: the system's words; ",
                "`address` of [admin] in /etc/sidecache/here.toml",
                remedy,
            ] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
}
