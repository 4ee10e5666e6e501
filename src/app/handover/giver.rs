//! The giver's side of a hand-over: waits for takers until one has taken over, or the sidecar
//! stops.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::channel::{GO, HELLO, HandoverChannel, OFFER, READY, REFUSED, SERVING};
use super::folder::HandoverSocket;
use crate::app::service_manager;
use crate::coherence::CoherenceMode;
use crate::coherence::PurgeKind;
use crate::proxy::Proxy;
use crate::server::{Listener, SpareSocket};

/// How long the taker may take to say the first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the taker may take to build itself. The giver serves meanwhile.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// The giver's side: waits for takers until one has taken over, or the sidecar stops.
pub(crate) struct Giver {
    socket: HandoverSocket,
    /// Further descriptors of the listening sockets, and the address that the file names for the
    /// second one.
    clients: SpareSocket,
    operators: OwnedFd,
    admin: String,
    superseded: CancellationToken,
}

impl Giver {
    /// A giver of these listening sockets.
    pub(crate) fn new(
        socket: HandoverSocket,
        (listener, clients): (&Listener, SpareSocket),
        admin: &TcpListener,
        admin_address: &str,
    ) -> io::Result<Self> {
        clients.keep(listener)?;
        let operators = admin.as_fd().try_clone_to_owned()?;
        let (admin, superseded) = (admin_address.to_owned(), CancellationToken::new());
        Ok(Self { socket, clients, operators, admin, superseded })
    }

    /// The same, which cancels this when another process has taken over.
    pub(crate) fn telling(self, superseded: CancellationToken) -> Self {
        Self { superseded, ..self }
    }

    /// Waits for takers. A hand-over begins the shutdown.
    pub(super) async fn run(mut self, proxy: Arc<Proxy>, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.socket.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a process that wants to take over");
                    tokio::time::sleep(HELLO_TIMEOUT).await;
                    continue;
                }
            };
            match self.hand_over(&proxy, stream).await {
                // It only looked whether anybody serves.
                Ok(None) => {}
                Ok(Some(pid)) => {
                    tracing::info!(pid, "handed over; draining");
                    self.superseded.cancel();
                    service_manager::notify(&format!("MAINPID={pid}"));
                    self.socket.keep();
                    shutdown.cancel();
                    return;
                }
                Err(why) => {
                    proxy.counters.handovers_failed.inc();
                    tracing::warn!(why, "the process that wanted to take over has not");
                }
            }
        }
    }

    /// Hands over to the process at the other end, if it wants that, and returns its id.
    async fn hand_over(&self, proxy: &Proxy, stream: UnixStream) -> Result<Option<u32>, String> {
        let own = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred().map_err(|error| error.to_string())?;
        let mut channel = HandoverChannel::new(stream);
        if peer.uid() != own && peer.uid() != 0 {
            // SECURITY: the folder keeps others out; this holds even if somebody has opened it.
            channel.send(&format!("{REFUSED} it runs as another user")).await?;
            return Err(format!("it runs as user {}", peer.uid()));
        }
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        match channel.receive_within(HELLO_TIMEOUT).await {
            Ok(Some(line)) if line == HELLO => {}
            Ok(Some(line)) => {
                channel
                    .send(&format!("{REFUSED} the running process is of another version"))
                    .await?;
                return Err(format!("it said `{line}`, and `{HELLO}` was expected"));
            }
            Ok(None) => return Ok(None),
            Err(why) => return Err(why),
        }
        tracing::info!(pid, "a process asks to take over");
        let Some(clients) = self.clients.for_taker().map_err(|error| error.to_string())? else {
            channel.send(&format!("{REFUSED} the running process stops")).await?;
            return Err("this process stops".to_owned());
        };
        let sockets = [clients.as_fd(), self.operators.as_fd(), self.socket.listener.as_fd()];
        let offer = format!("{OFFER} {} {}", std::process::id(), self.admin);
        channel.send_with(&offer, &sockets).await?;
        // The other process has it now.
        drop(clients);
        match channel.receive_within(READY_TIMEOUT).await {
            Ok(Some(line)) if line == READY => {}
            Ok(None) => return Err("it ended before it was ready".to_owned()),
            Ok(Some(line)) => return Err(format!("it said `{line}`")),
            Err(why) => {
                channel.send(&format!("{REFUSED} it was not ready in time")).await?;
                return Err(why);
            }
        }
        tracing::info!(pid, "the process is ready; requests pass until it serves");
        proxy.overlap.hand_over();
        let serving = match channel.send(GO).await {
            // Without a limit: a process that is stopped may accept connections when it goes on.
            Ok(()) => channel.receive().await,
            Err(why) => Err(why),
        };
        match serving {
            Ok(Some(line)) if line == SERVING => return Ok(Some(pid)),
            Ok(Some(line)) => tracing::debug!(line, "an unknown line of a taker"),
            Ok(None) | Err(_) => {}
        }
        self.take_back(proxy).await;
        Err("it ended before it served".to_owned())
    }

    /// The taker has ended, and may have served a write.
    async fn take_back(&self, proxy: &Proxy) {
        if proxy.coherence.mode() == CoherenceMode::Local {
            proxy.coherence.purge_everything(PurgeKind::Hard).await;
        }
        proxy.overlap.take_back();
    }
}

/// Runs the giver. Should it panic, nobody knows what its taker was told: the process drains.
pub(crate) async fn give(giver: Giver, proxy: Arc<Proxy>, shutdown: CancellationToken) {
    let running = tokio::spawn(giver.run(Arc::clone(&proxy), shutdown.clone()));
    if let Err(error) = running.await
        && error.is_panic()
    {
        tracing::error!("the hand-over panicked, which is a bug; draining");
        proxy.overlap.drain();
        shutdown.cancel();
    }
}
