//! Where the code may use what not every system has.
//!
//! What is Linux's alone stands under a `cfg`, so that macOS compiles. What is of Unix stays in the
//! files that are named here: the list is what a port to Windows has to replace, and it must not
//! grow unseen.

use crate::Finding;
use crate::text::{line_of, words};

/// Items that Windows does not have.
const UNIX: [&str; 8] = [
    "std::os::unix",
    "std::os::fd",
    "libc::",
    "listenfd::",
    "rustix::",
    "signal::unix",
    "UnixListener",
    "UnixStream",
];

/// The files that may use them, by their paths under `src`.
pub const UNIX_FILES: &[&str] = &[
    "app.rs",
    "app/handover/channel.rs",
    "app/handover/folder.rs",
    "app/handover/giver.rs",
    "app/handover/taker.rs",
    "app/handover/upgrade.rs",
    "app/handover/writers.rs",
    "app/process_metrics.rs",
    "app/service_manager.rs",
    "cache/snapshot/file.rs",
    "cli/demo.rs",
    "cli/first_file.rs",
    "cli/http.rs",
    "cli/terminal.rs",
    "coherence/journal/file/open.rs",
    "coherence/journal/file/writer.rs",
    "coherence/journal_set.rs",
    "config/compile/socket_path.rs",
    "config/include.rs",
    "config/lint/memory.rs",
    "config/lint/sockets.rs",
    "descriptors.rs",
    "input_file.rs",
    "redis/probe.rs",
    "server/listener.rs",
    "server/socket_file.rs",
    "sources/file.rs",
    "sources/mysql/connection.rs",
    "upstream/connect.rs",
    "upstream/socket.rs",
];

/// Items that Linux has, and macOS has not.
const LINUX: [&str; 7] = [
    "std::os::linux",
    "CMSG_CLOEXEC",
    "SendFlags::NOSIGNAL",
    "from_abstract_name",
    "set_tcp_notsent_lowat",
    "set_tcp_quickack",
    "tcp.user_timeout",
];

/// How many lines above an item its `cfg` may stand.
const REACH: usize = 6;

/// What stands where another system has nothing of the kind.
pub fn check(path: &str, source: &str, production: &str) -> Vec<Finding> {
    let lines: Vec<&str> = source.lines().collect();
    let is_chosen = |line: usize| {
        lines[line.saturating_sub(REACH + 1)..line].iter().any(|line| line.contains("#[cfg("))
    };
    let mut findings = Vec::new();
    for word in LINUX {
        for line in words(production, word).map(|at| line_of(production, at)) {
            if !is_chosen(line) {
                let problem = format!("`{word}` is Linux's alone: put it under #[cfg(target_os)]");
                findings.push((line, problem));
            }
        }
    }
    if UNIX_FILES.contains(&path) {
        return findings;
    }
    for word in UNIX {
        for line in words(production, word).map(|at| line_of(production, at)) {
            if !is_chosen(line) {
                let problem = format!(
                    "`{word}` is of Unix: put it under #[cfg(unix)], or into a file of UNIX_FILES \
                     in tests/tidy/platform.rs"
                );
                findings.push((line, problem));
            }
        }
    }
    findings
}

/// Whether a file uses anything of Unix.
pub fn is_of_unix(production: &str) -> bool {
    UNIX.iter().any(|word| words(production, word).next().is_some())
}
