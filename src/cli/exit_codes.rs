//! The exit codes of the commands and their meanings, for the commands and for the manual.

use http::StatusCode;

/// Exit code when the sidecar cannot start or a command fails.
pub(super) const EXIT_FAILED: u8 = 1;

/// Exit code for an invalid config or command line (`EX_USAGE` of sysexits.h).
pub(super) const EXIT_USAGE: u8 = 64;

/// The exit codes of all commands and their meanings.
pub(super) const EXIT_CODES: [(u8, &str); 3] = [
    (
        0,
        "Success. A serving sidecar has drained and stopped, because it was told to, or because \
         another process has taken over.",
    ),
    (
        EXIT_FAILED,
        "Failure: a port is taken, the running sidecar does not respond, does not hand over or \
         rejects the request, \
         `stats --ready` finds it unready, or every request of `warm` failed. A sidecar that \
         receives a second stop signal also exits with this code.",
    ),
    (
        EXIT_USAGE,
        "The command line or `proxy.toml` is invalid: `check` found an error, or the running \
         sidecar rejected the file (`reload`).",
    ),
];

/// The exit code of `stats --ready` for a status of `/ready`: 0 while traffic may come.
pub(super) fn ready_exit_code(status: StatusCode) -> u8 {
    if status == StatusCode::OK { 0 } else { EXIT_FAILED }
}
