//! The end of the server: what is under way may finish, within a grace time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::ServerContext;
use super::service::Service;

/// How long connections that are cut have to notice it. They only drop what they hold.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long connections that have nothing under way may stay, for a request that is on its way
/// already. A proxy in front that finds a kept connection closed under a write must not send it
/// again; told by an answer, or by a refused connection, it goes elsewhere.
const IDLE_LINGER: Duration = Duration::from_millis(300);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut, because their requests took longer than the grace.
    pub connections: usize,
    /// Tasks (mutations, fills, tunnels) that were still running then. They end with the process.
    pub tasks: usize,
    /// How long it took.
    pub duration: Duration,
}

impl Drained {
    /// Whether everything came to its own end.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.connections == 0 && self.tasks == 0
    }
}

/// Lets connections and `tasks` finish, and cuts what is left after the grace.
pub(super) async fn drain<S: Service>(hub: &ServerContext<S>, tasks: &TaskTracker) -> Drained {
    let began = hub.clock.now();
    hub.leaving.store(true, Ordering::Relaxed);
    hub.connections.close();
    // Of a short grace no more than a quarter.
    let _ =
        tokio::time::timeout(IDLE_LINGER.min(hub.settings.drain / 4), hub.connections.wait()).await;
    hub.draining.store(true, Ordering::Release);
    hub.drain.cancel();
    let all = async {
        hub.connections.wait().await;
        // Only now: a request that finishes may have started one more of them.
        tasks.close();
        tasks.wait().await;
    };
    let finished = tokio::time::timeout(hub.settings.drain, all).await.is_ok();
    let (mut connections, mut left) = (0, 0);
    if !finished {
        (connections, left) = (hub.connections.len(), tasks.len());
        hub.counters.aborted.add(connections as u64);
        tracing::warn!(
            connections,
            tasks = left,
            "the grace is over; what is still under way is cut"
        );
        hub.abort.cancel();
        let _ = tokio::time::timeout(ABORT_GRACE, hub.connections.wait()).await;
    }
    Drained { connections, tasks: left, duration: hub.clock.now().saturating_duration_since(began) }
}

/// Turns signals into a shutdown: the first SIGTERM or SIGINT cancels `shutdown`, and at the second
/// one this returns, for the caller to leave at once.
pub async fn signals(shutdown: CancellationToken) {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for signals; they end the process without a drain");
            return std::future::pending().await;
        }
    };
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping: no new connections, what is under way may finish");
    shutdown.cancel();
    let name = signals.next().await;
    tracing::warn!(signal = name, "told twice: stopping at once");
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same shape as on Unix")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "ctrl-c"
    }
}
