//! The side of the clients: the listener, the limits on what clients may use, and the drain at the
//! end.
//!
//! It turns sockets into requests and hands them to a [`Service`]. It must not know routes, the
//! cache or the origin: it rejects requests for their framing, number, size or time alone, and the
//! service writes the response.

mod bodies;
mod carry;
mod connection;
mod connection_end;
mod connection_state;
mod counters;
mod drain;
mod finish;
mod framing;
#[cfg(feature = "internals")]
pub use self::framing::escapes_in_pieces;
mod listener;
mod overload;
mod read_ahead;
mod service;
mod settings;
mod socket;
mod socket_file;
mod tcp;
#[cfg(test)]
mod tests;
mod timeouts;
mod unread;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use self::connection::MAX_WAITING;
use self::connection::ServerContext;
pub use self::counters::ServerCounters;
pub use self::drain::{DrainSignals, Drained, signals};
use self::listener::{ClientStream, is_of_one_client};
pub use self::listener::{ListenAddress, Listener, SpareSocket};
pub use self::service::Service;
pub use self::settings::{ServerSettings, TrustedProxies};
use self::socket::ConnectionPermit;
use self::socket_file::SocketFile;
use self::tcp::BACKLOG;
pub use self::tcp::{adopt, bind};
use crate::clock::Clock;
use crate::descriptors;
use crate::peer_address::PeerAddress;
use crate::shares::{Crowded, FairPermit};

/// Pauses after an accept that failed, from the first to the longest.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// The most rejections in progress. Further connections are closed without a response.
pub const MAX_REFUSALS: usize = 64;

/// Opens the socket on which clients are served.
///
/// # Errors
/// When the address cannot be bound. Needs a Tokio runtime.
pub fn listen(address: &ListenAddress) -> io::Result<Listener> {
    match address {
        ListenAddress::Tcp(address) => Ok(bind(*address)?.into()),
        ListenAddress::Unix { path, mode } => {
            let (listener, file) = SocketFile::bind(path, *mode, BACKLOG)?;
            Ok(Listener::Unix(listener, Some(file)))
        }
    }
}

/// Serves clients until the shutdown, then drains.
pub async fn run<S: Service>(
    listener: Listener,
    settings: ServerSettings,
    service: Arc<S>,
    counters: ServerCounters,
    clock: Clock,
    signals: DrainSignals,
) -> Drained {
    let server = Arc::new(ServerContext::new(settings, service, counters, clock));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let accepting = accept(&listener, &server, &refusals);
    signals.shutdown.run_until_cancelled(accepting).await;
    signals.spare.close();
    let (waiting, closed) = listener.close();
    for (stream, address) in waiting {
        spawn_connection(stream, address, &server, &refusals);
    }
    if let Err(error) = closed {
        server.counters.accept_errors.inc();
        tracing::warn!(%error, "cannot accept the connections that still waited");
    }
    drain::drain(&server, &signals).await
}

/// Accepts connections until it is dropped.
async fn accept<S: Service>(
    listener: &Listener,
    server: &Arc<ServerContext<S>>,
    refusals: &Arc<Semaphore>,
) {
    let mut pause = None;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if pause.take().is_some() {
                    tracing::info!("accepting connections again");
                }
                if descriptors::is_reserved(&stream) {
                    server.counters.accept_errors.inc();
                    tracing::warn!(
                        "a client was turned away, because the descriptors that are left are not \
                         for clients"
                    );
                    continue;
                }
                spawn_connection(stream, address, server, refusals);
            }
            Err(error) => {
                server.counters.accept_errors.inc();
                if is_of_one_client(&error) {
                    continue;
                }
                // File descriptors or memory have run out: retrying at once would only use up the
                // CPU.
                let wait = pause
                    .map_or(ACCEPT_BACKOFF.0, |last: Duration| (last * 2).min(ACCEPT_BACKOFF.1));
                if pause.replace(wait).is_none() {
                    tracing::warn!(%error, "cannot accept connections; retrying with pauses");
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn spawn_connection<S: Service>(
    stream: ClientStream,
    addr: PeerAddress,
    server: &Arc<ServerContext<S>>,
    refusals: &Arc<Semaphore>,
) {
    server.counters.accepted.inc();
    // Without it, small responses wait for acknowledgements. The connection is served even if
    // setting it fails.
    let _ = stream.set_nodelay();
    let server = Arc::clone(server);
    let peer = server.peer(addr);
    let opening = server.opening.token();
    if let Some(permit) = server.permits.try_acquire(peer) {
        serve(&server, stream, addr, (permit, opening));
        return;
    }
    let refusals = Arc::clone(refusals);
    tokio::spawn(async move {
        match server.permits.acquire(peer).await {
            Ok(permit) => serve(&server, stream, addr, (permit, opening)),
            Err(Crowded) => reject(stream, &server, &refusals).await,
        }
    });
}

fn serve<S: Service>(
    server: &Arc<ServerContext<S>>,
    stream: ClientStream,
    addr: PeerAddress,
    (permit, opening): (FairPermit, TaskTrackerToken),
) {
    let permit = ConnectionPermit::new(permit, &server.counters.open);
    let serving = connection::serve(Arc::clone(server), stream, addr, (permit, Some(opening)));
    server.connections.spawn(serving);
}

async fn reject<S: Service>(
    stream: ClientStream,
    server: &ServerContext<S>,
    refusals: &Arc<Semaphore>,
) {
    // The client gets a response and does not wait in the backlog, so that a load balancer can try
    // another server.
    server.counters.refused_full.inc();
    if let Ok(_permit) = Arc::clone(refusals).try_acquire_owned() {
        overload::reject(stream, &*server.service).await;
    }
}
