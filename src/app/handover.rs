//! Restarts without a pause: a new process takes the listening sockets of the one that serves, and
//! serves while that one drains.
//!
//! The two meet in a folder that only their user may enter ([`folder`]). The one that serves, the
//! *giver*, listens there on a Unix socket; the one that starts with `--take-over`, the *taker*,
//! connects to it. One line each, over one connection:
//!
//! ```text
//! taker: take-over 1                  it has read its file, and opened nothing yet
//! giver: offer 1 PID ADMIN-ADDRESS    with three descriptors: clients, admin, and this very socket
//! taker: ready                        it is built, and could serve
//! giver: go                           from here on the giver passes, and stores nothing
//! taker: serving                      it accepts connections
//! ```
//!
//! Either side may say `refused WHY` in place of its line. Then both end their connection.
//!
//! Invariants:
//! 1. *At each moment at least one process accepts connections.* The giver accepts until it has read
//!    `serving`. The sockets themselves are never closed: what waits in their queues is accepted by
//!    the one or by the other.
//! 2. *A taker that fails changes nothing.* Until `go` the giver serves as ever. If the taker ends
//!    after `go`, before `serving`, the giver goes on as it was; the taker may have served a write,
//!    so that the giver purges everything before it caches again.
//! 3. *The taker accepts nothing before `go`,* or before the giver has died. The giver never ends
//!    the connection before that without saying `refused`, unless it dies; so an end without it
//!    means that the taker serves alone.
//! 4. *At most one of the two caches, and none while writes may end in both* (without Redis): see
//!    [`crate::proxy::Overlap`]. Who still answers writes is seen in the folder: each process holds
//!    the lock of a file of its own there ([`writers`]), from before it accepts a connection until no
//!    write can begin or end in it any more. The kernel frees the lock of a process that dies. A
//!    process that starts, with or without `--take-over`, waits for all of them before it caches. So
//!    a chain of restarts needs no other bookkeeping, and neither does a plain start while an old
//!    process still drains.
//! 5. *The socket in the folder belongs to whoever has the listening sockets.* It is handed over with
//!    them: a further taker connects to the same socket, and waits until it is accepted. A giver that
//!    was told to stop removes it, unless it was handed over.
//! 6. *An accidental second start fails*: it finds the port taken. Only `--take-over` asks.
//!
//! A giver that is told to stop while a taker prepares itself drains, and still says `go`. A taker
//! that is told to stop before `serving` ends.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::app::service_manager;
use crate::coherence::CoherenceMode;
use crate::coherence::PurgeKind;
use crate::proxy::Proxy;

mod channel;
pub(super) mod folder;
pub(super) mod taker;
pub(super) mod upgrade;
pub(super) mod writers;

use channel::HandoverChannel;
use folder::HandoverSocket;

/// The first word and the version of what the taker says.
pub(super) const HELLO: &str = "take-over 1";
pub(super) const OFFER: &str = "offer 1";
pub(super) const READY: &str = "ready";
pub(super) const GO: &str = "go";
pub(super) const SERVING: &str = "serving";
pub(super) const REFUSED: &str = "refused";

/// How long the taker may take to say the first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the taker may take to build itself. The giver serves meanwhile.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// The giver's side: waits for takers until one has taken over, or the sidecar stops.
pub(super) struct Giver {
    socket: HandoverSocket,
    /// Further descriptors of the listening sockets, and the address that the file names for the
    /// second one.
    sockets: [OwnedFd; 2],
    admin: String,
    superseded: CancellationToken,
}

impl Giver {
    /// A giver of these listening sockets.
    pub(super) fn new(
        socket: HandoverSocket,
        clients: &TcpListener,
        admin: &TcpListener,
        admin_address: &str,
    ) -> io::Result<Self> {
        let sockets = [clients.as_fd().try_clone_to_owned()?, admin.as_fd().try_clone_to_owned()?];
        let (admin, superseded) = (admin_address.to_owned(), CancellationToken::new());
        Ok(Self { socket, sockets, admin, superseded })
    }

    /// The same, which cancels this when another process has taken over.
    pub(super) fn telling(self, superseded: CancellationToken) -> Self {
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
        let [clients, admin] = &self.sockets;
        let sockets = [clients.as_fd(), admin.as_fd(), self.socket.listener.as_fd()];
        let offer = format!("{OFFER} {} {}", std::process::id(), self.admin);
        channel.send_with(&offer, &sockets).await?;
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
pub(super) async fn give(giver: Giver, proxy: Arc<Proxy>, shutdown: CancellationToken) {
    let running = tokio::spawn(giver.run(Arc::clone(&proxy), shutdown.clone()));
    if let Err(error) = running.await
        && error.is_panic()
    {
        tracing::error!("the hand-over panicked, which is a bug; draining");
        proxy.overlap.drain();
        shutdown.cancel();
    }
}

/// A listener in this process of one that was received.
pub(super) fn unix_listener(socket: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
