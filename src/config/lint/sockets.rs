//! Lint of the Unix sockets that the file names: `sidecache check` looks at their files, and
//! connects to the one of the app.
//!
//! What may come to be before the start is a note, because build machines have neither the app nor
//! its folders. What is there and cannot work is a warning.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};
use toml::de::DeTable;

use super::super::diagnostics::DiagnosticCollector;
use super::super::diagnostics::diagnostic::{Diagnostic, DiagnosticBuilder, SourceSpan};
use super::super::diagnostics::source_text::SourceText;
use super::super::model::Config;
use crate::server::ListenAddress;

/// What is wrong with a socket, and what to do.
struct SocketFault {
    /// Whether it cannot work as it is.
    is_certain: bool,
    what: String,
    hint: &'static str,
}

/// Looks at the sockets of a file. `text` is its text, to find the lines of their keys.
pub fn inspect(config: &Config, name: &str, text: &str) -> Vec<Diagnostic> {
    let mut report = DiagnosticCollector::new(SourceText::new(name, text));
    let app = config.upstream.target.socket_path().map(app_fault);
    for app in &config.apps {
        let fault = app.upstream.target.socket_path().and_then(app_fault);
        let Some(SocketFault { what, hint, .. }) = fault else { continue };
        // Several tables have its name: it has no place of its own in the text.
        let builder = DiagnosticBuilder::note(0..0, format!("the app `{}`: {what}", app.name));
        report.push(builder.hint(hint));
    }
    let own = match &config.server.address {
        ListenAddress::Tcp(_) => None,
        ListenAddress::Unix { path, .. } => Some(own_fault(path)),
    };
    for (fault, section, key) in [(app, "upstream", "url"), (own, "listen", "address")] {
        let Some(SocketFault { is_certain, what, hint }) = fault.flatten() else { continue };
        let at = key_span(text, section, key);
        let builder = if is_certain {
            DiagnosticBuilder::warning(at, what)
        } else {
            DiagnosticBuilder::note(at, what)
        };
        report.push(builder.hint(hint));
    }
    report.finish().1
}

/// The position of a key's value.
fn key_span(text: &str, section: &str, key: &str) -> SourceSpan {
    let table = DeTable::parse(text).ok();
    let value = table.as_ref().and_then(|table| {
        table.get_ref().get(section)?.get_ref().as_table()?.get(key).map(toml::Spanned::span)
    });
    value.unwrap_or(0..0)
}

/// What keeps requests from the app's socket.
fn app_fault(path: &Path) -> Option<SocketFault> {
    match fs::metadata(path) {
        Err(error) => Some(unreachable(&error)),
        Ok(found) if !found.file_type().is_socket() => Some(SocketFault {
            is_certain: true,
            what: "the file is not a socket".to_owned(),
            hint: "write the path at which the app listens, not that of its pid file or log",
        }),
        Ok(_) => connect(path).err().map(|error| unreachable(&error)),
    }
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue must not hold up the check.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        connected => connected,
    }
}

fn unreachable(error: &io::Error) -> SocketFault {
    let (is_certain, what, hint) = match error.kind() {
        ErrorKind::NotFound => (
            false,
            "there is no such socket yet: requests get 502 until the app has made it".to_owned(),
            "start the app, or write the path at which it listens",
        ),
        ErrorKind::ConnectionRefused => (
            false,
            "nobody listens on the socket: requests get 502 until the app has started".to_owned(),
            "start the app, and let it remove the socket that it left behind",
        ),
        ErrorKind::PermissionDenied => (
            true,
            "this user may not connect to the socket".to_owned(),
            "let the app make it writable for a group of the sidecar's user (`umask = 0o007` of \
             gunicorn, `chmod-socket = 660` of uwsgi), and the folders above it enterable",
        ),
        _ => (
            true,
            format!("the socket cannot be connected to: {error}"),
            "write the path of a stream socket on which the app speaks HTTP",
        ),
    };
    SocketFault { is_certain, what, hint }
}

/// What would keep the sidecar from listening on its socket.
fn own_fault(path: &Path) -> Option<SocketFault> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    if !folder.is_dir() {
        return Some(SocketFault {
            is_certain: false,
            what: format!("the folder {} does not exist yet", folder.display()),
            hint: "make it before the start, with `RuntimeDirectory=` of systemd for example",
        });
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Some(SocketFault {
            is_certain: true,
            what: "there is something else at this path, so that the start would fail".to_owned(),
            hint: "remove it, or write another path; links are not followed",
        }),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use tempfile::TempDir;

    use super::*;
    use crate::config::Severity;

    fn found(url: &Path, address: &Path) -> Vec<(Severity, usize, String)> {
        let text = format!(
            "[listen]\naddress = \"unix:{}\"\ntrusted_proxies = [\"unix\"]\n[upstream]\nurl = \
             \"unix:{}\"\n",
            address.display(),
            url.display()
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let list = inspect(&config, "proxy.toml", &text).into_iter();
        list.map(|found| (found.severity, found.line, found.to_string())).collect()
    }

    #[test]
    fn sockets_are_looked_at() {
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let (app, own) = (path("app.sock"), path("own.sock"));
        let one = |severity: Severity, line: usize, part: &str| {
            let all = found(&app, &own);
            assert_eq!(all.len(), 1, "{part}: {all:?}");
            assert_eq!((all[0].0, all[0].1), (severity, line), "{all:?}");
            assert!(all[0].2.contains(part), "{part}: {}", all[0].2);
        };
        one(Severity::Note, 5, "no such socket yet");
        fs::write(&app, "").expect("a file");
        one(Severity::Warning, 5, "not a socket");
        fs::remove_file(&app).expect("it is there");
        let listener = UnixListener::bind(&app).expect("a socket");
        assert_eq!(found(&app, &own), []);
        std::os::unix::fs::symlink(&app, &own).expect("a link");
        one(Severity::Warning, 2, "something else");
        fs::remove_file(&own).expect("it is there");
        drop(listener);
        one(Severity::Note, 5, "nobody listens");
        fs::remove_file(&app).expect("it is there");
        let _datagram = UnixDatagram::bind(&app).expect("a socket");
        one(Severity::Warning, 5, "cannot be connected to");
        let missing = found(&app, &path("none/own.sock"));
        assert!(missing[0].2.contains("does not exist yet"), "{missing:?}");
    }

    #[test]
    fn a_socket_of_another_user_is_a_warning() {
        let fault = unreachable(&ErrorKind::PermissionDenied.into());
        assert!(fault.is_certain && fault.what.contains("may not connect"), "{}", fault.what);
    }
}
