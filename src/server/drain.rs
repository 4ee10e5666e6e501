//! The end of the server: requests in progress may finish within a grace time, and streams within a
//! shorter one.
//!
//! Invariant: once [`DrainSignals::settled`] is cancelled, no request begins any more. What may
//! still begin one holds a token of `ServerContext::opening`: a connection from its accept until it
//! has ended, or until hyper has been told that the request in progress is its last.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::ServerContext;
use super::listener::SpareSocket;
use super::service::Service;

/// How long aborted connections have to end. They only drop what they hold.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long idle connections stay open for a request that is already in flight. A proxy in front
/// must not repeat a write on a kept connection that was closed under it; after a response with
/// `Connection: close`, or a refused connection, it uses another server. Waited for in steps: a
/// process that did not run meanwhile has not seen what came, and counts one step for all of it.
const IDLE_LINGER: Duration = Duration::from_millis(300);
const LINGER_STEPS: u32 = 6;

/// What ends a server, and what it tells of its end.
#[derive(Clone, Debug, Default)]
pub struct DrainSignals {
    /// Begins the drain.
    pub shutdown: CancellationToken,
    /// Mutations, fills, tunnels: they outlive their requests, and get the same grace time.
    pub tasks: TaskTracker,
    /// Cancelled when streams and tunnels have to end.
    pub streams: CancellationToken,
    /// Cancelled when no request can begin any more.
    pub settled: CancellationToken,
    /// Closed with the listener, and before it.
    pub spare: SpareSocket,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections aborted because their requests took longer than the grace time.
    pub connections: usize,
    /// Tasks (mutations, fills, tunnels) that were still running. They end with the process.
    pub tasks: usize,
    /// How long it took.
    pub duration: Duration,
}

impl Drained {
    /// Whether everything finished in time.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.connections == 0 && self.tasks == 0
    }
}

/// Lets connections and tasks finish, and aborts the rest after the grace time.
pub(super) async fn drain<S: Service>(
    server: &ServerContext<S>,
    signals: &DrainSignals,
) -> Drained {
    let ending_streams = async {
        tokio::time::sleep(server.settings.stream_drain).await;
        signals.streams.cancel();
        server.streams.cancel();
        std::future::pending().await
    };
    let settling = async {
        server.opening.close();
        server.opening.wait().await;
        signals.settled.cancel();
        std::future::pending().await
    };
    let drained = tokio::select! {
        drained = finish(server, &signals.tasks) => drained,
        drained = ending_streams => drained,
        drained = settling => drained,
    };
    signals.streams.cancel();
    signals.settled.cancel();
    drained
}

async fn finish<S: Service>(server: &ServerContext<S>, tasks: &TaskTracker) -> Drained {
    let began = server.clock.now();
    server.leaving.store(true, Ordering::Relaxed);
    server.connections.close();
    // At most a quarter of a short grace time.
    let step = IDLE_LINGER.min(server.settings.drain / 4) / LINGER_STEPS;
    for _ in 0..LINGER_STEPS {
        if tokio::time::timeout(step, server.connections.wait()).await.is_ok() {
            break;
        }
    }
    server.draining.store(true, Ordering::Release);
    server.drain.cancel();
    let all = async {
        server.connections.wait().await;
        // Not earlier: a request that finishes may have started one more task.
        tasks.close();
        tasks.wait().await;
    };
    let finished = tokio::time::timeout(server.settings.drain, all).await.is_ok();
    let (mut connections, mut left) = (0, 0);
    if !finished {
        (connections, left) = (server.connections.len(), tasks.len());
        server.counters.aborted.add(connections as u64);
        tracing::warn!(
            connections,
            tasks = left,
            "the grace time is over; aborting what is still in progress"
        );
        server.abort.cancel();
        let _ = tokio::time::timeout(ABORT_GRACE, server.connections.wait()).await;
    }
    Drained {
        connections,
        tasks: left,
        duration: server.clock.now().saturating_duration_since(began),
    }
}

/// Turns signals into a shutdown: the first SIGTERM or SIGINT cancels `shutdown`. At the second one
/// this returns, and the caller exits at once. Signals are caught from the call on, not from the
/// first poll.
pub fn signals(shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    let signals = Signals::new();
    async move {
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::warn!(%error, "cannot listen for signals; they end the process without a \
                    drain");
                return std::future::pending().await;
            }
        };
        let name = signals.next().await;
        tracing::info!(
            signal = name,
            "stopping: no new connections, requests in progress may finish"
        );
        shutdown.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "second signal: stopping at once");
    }
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
