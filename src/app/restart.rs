//! What a serving process does for restarts, from before its first connection to after its last.
//! [`crate::app::handover`] has the protocol.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::handover::folder::{HandoverFolder, HandoverSocket};
use crate::app::handover::giver::{Giver, give};
use crate::app::handover::taker::TakeOver;
use crate::app::handover::writers::{OtherWriters, WriterLock};
use crate::app::listeners::{BoundListeners, RestartParts};
use crate::error::SetupError;
use crate::proxy::Proxy;
use crate::server::{DrainSignals, Listener};

/// How often to look whether a predecessor has answered its last write.
const PREDECESSOR_INTERVAL: Duration = Duration::from_millis(20);

/// How long the end waits for the giver to remove its socket. It may be in a hand-over.
const GIVER_END: Duration = Duration::from_millis(200);

/// The part that a process takes in restarts.
#[derive(Debug)]
pub(super) struct RestartRole {
    proxy: Arc<Proxy>,
    parts: Option<Parts>,
    /// Another process has taken over.
    pub(super) superseded: CancellationToken,
}

#[derive(Debug)]
struct Parts {
    folder: HandoverFolder,
    socket: Option<HandoverSocket>,
    others: OtherWriters,
    writer: Option<WriterLock>,
    taking: Option<TakeOver>,
    giving: Option<JoinHandle<()>>,
    releasing: Option<JoinHandle<()>>,
}

impl RestartRole {
    /// The part of a process with these sockets.
    pub(super) fn new(proxy: &Arc<Proxy>, parts: Option<RestartParts>) -> Self {
        let parts = parts.map(|parts| {
            let RestartParts { folder, socket, writer, taking } = parts;
            let (socket, others) = (Some(socket), writer.others());
            let (giving, releasing) = (None, None);
            Parts { folder, socket, others, writer: Some(writer), taking, giving, releasing }
        });
        Self { proxy: Arc::clone(proxy), parts, superseded: CancellationToken::new() }
    }

    /// Whether another process may still answer writes. In doubt it does.
    pub(super) fn is_beside(bound: &BoundListeners) -> bool {
        bound.restart.as_ref().is_some_and(|parts| {
            parts.taking.is_some() || parts.writer.others().all().map_or(true, |count| count > 0)
        })
    }

    /// Whether this process takes over from one that serves.
    pub(super) fn takes_over(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.taking.is_some())
    }

    /// Returns when this process may accept connections: if it takes over, when the one that serves
    /// has handed over. Until all others have answered their last writes, it does not cache.
    ///
    /// # Errors
    /// If the other process goes on.
    pub(super) async fn begin(&mut self) -> Result<(), SetupError> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        if has_others(&parts.others) {
            self.proxy.overlap.await_predecessor();
        }
        match &mut parts.taking {
            Some(taking) => taking.ready().await?,
            None => return Ok(()),
        }
        if let Some(socket) = &mut parts.socket {
            parts.folder.own(socket);
        }
        Ok(())
    }

    /// This process accepts connections: the other one is told.
    pub(super) async fn serving(
        &mut self,
        bound: (&Listener, &tokio::net::TcpListener, &str),
        signals: &DrainSignals,
    ) {
        let Some(parts) = &mut self.parts else { return };
        if let Some(taking) = parts.taking.take() {
            taking.serving().await;
        }
        if self.proxy.overlap.awaits_predecessor() {
            tokio::spawn(await_predecessor(Arc::clone(&self.proxy), parts.writer.as_ref()));
        }
        if let Some(socket) = parts.socket.take() {
            // Whoever has taken over has the file of a Unix socket as well.
            bound.0.leave_file_after(&self.superseded);
            match Giver::new(socket, (bound.0, signals.spare.clone()), bound.1, bound.2) {
                Ok(giver) => {
                    let giver = giver.telling(self.superseded.clone());
                    let proxy = Arc::clone(&self.proxy);
                    let giving = give(giver, proxy, signals.shutdown.clone());
                    parts.giving = Some(tokio::spawn(giving));
                }
                Err(error) => {
                    tracing::warn!(%error, "no other process can take over from this one");
                }
            }
        }
        // Once no write can begin or end here any more, the others may cache.
        let (proxy, writer) = (Arc::clone(&self.proxy), parts.writer.take());
        let settled = signals.settled.clone();
        parts.releasing = Some(tokio::spawn(async move {
            settled.cancelled().await;
            proxy.overlap.no_writes().await;
            tracing::debug!("the last write was answered");
            drop(writer);
        }));
    }

    /// The process ends.
    pub(super) async fn end(mut self) {
        let Some(parts) = &mut self.parts else { return };
        if let Some(releasing) = parts.releasing.take() {
            releasing.abort();
            // The lock goes with the task.
            let _ = releasing.await;
        }
        if let Some(giving) = parts.giving.take() {
            let _ = tokio::time::timeout(GIVER_END, giving).await;
        }
        drop((parts.writer.take(), parts.socket.take()));
        parts.folder.remove_if_empty();
    }
}

/// Whether others may answer writes. In doubt they do.
fn has_others(others: &OtherWriters) -> bool {
    others.unseen().map_or_else(
        |error| {
            tracing::warn!(%error, "cannot tell whether another process still serves");
            true
        },
        |count| count > 0,
    )
}

/// Waits until all others have answered their last writes, then lets the cache take part.
fn await_predecessor(
    proxy: Arc<Proxy>,
    own: Option<&WriterLock>,
) -> impl Future<Output = ()> + use<> {
    let others = own.map(WriterLock::others);
    async move {
        let Some(others) = others else { return };
        let since = proxy.clock.now();
        while has_others(&others) {
            tokio::time::sleep(PREDECESSOR_INTERVAL).await;
        }
        proxy.overlap.predecessor_is_done();
        let waited = proxy.clock.now().saturating_duration_since(since);
        tracing::info!(?waited, "the earlier process has answered its last write; caching begins");
    }
}
