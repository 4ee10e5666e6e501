//! SIGUSR2: this process starts the program anew, with `--take-over`. A service manager that
//! follows the processes of one unit needs that: the new one belongs to the unit, as this one does.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

/// The flag of a process that takes over.
pub(crate) const TAKE_OVER: &str = "--take-over";

/// Starts a successor at each SIGUSR2, until `stop`. From the call on, not from the first poll, the
/// signal does not end this process any more.
pub(crate) fn start_on_sigusr2(
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::user_defined2());
    async move {
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for SIGUSR2");
                return;
            }
        };
        while let Some(Some(())) = stop.run_until_cancelled(signals.recv()).await {
            start();
        }
    }
}

/// Starts the program under the name that this process was started by, so that it is the new one
/// where the file was replaced.
fn start() {
    let mut words = std::env::args_os();
    let Some(program) = words.next() else { return };
    let words: Vec<OsString> = words.filter(|word| word != TAKE_OVER).collect();
    let mut command = Command::new(&program);
    command.arg(TAKE_OVER).args(words).stdin(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            tracing::info!(signal = "SIGUSR2", pid = child.id(), "starting a successor");
            // Ends with the successor, or with this process.
            let waiting = std::thread::Builder::new().name("successor".to_owned());
            let _ = waiting.spawn(move || match child.wait() {
                Ok(status) if !status.success() => {
                    tracing::warn!(%status, "the successor has failed; this process goes on");
                }
                _ => {}
            });
        }
        Err(error) => {
            let program = program.display().to_string();
            tracing::warn!(program, %error, "cannot start a successor; this process goes on");
        }
    }
}
