//! The clients' side: the listener, the limits that strangers are held to, and the drain at the
//! end.
//!
//! It turns sockets into requests and hands them to a [`Service`]. It must not know routes, caches
//! or the app: what it refuses, it refuses by framing, number, size or time alone, and asks the
//! service for the words.

mod bodies;
mod connection;
mod connection_state;
mod counters;
mod drain;
mod framing;
mod overload;
mod service;
mod settings;
mod socket;
#[cfg(test)]
mod tests;
mod timeouts;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::ServerContext;
pub use self::counters::ServerCounters;
pub use self::drain::{Drained, signals};
pub use self::service::Service;
pub use self::settings::ServerSettings;
use self::socket::ConnectionPermit;
use crate::clock::Clock;

/// Connections that the kernel may hold ready for us.
const BACKLOG: i32 = 4096;
/// Bytes that the kernel takes beyond what is on the wire. With a bound, a client that reads slowly
/// makes room often enough to be told from one that has stopped, and its response waits in our
/// memory only once.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 256 * 1024;
/// Keep-alive probes find clients that vanished without a word.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// Pauses after an accept that failed, from the first to the longest.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Refusals that may be under way at a time. Further connections are closed without a word.
const MAX_REFUSALS: usize = 64;

/// Opens the listening socket.
///
/// # Errors
/// When the address cannot be had. Needs a Tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit these, at no cost per connection.
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves clients until `shutdown`, then drains.
///
/// `tasks` are what requests leave running: mutations, fills, tunnels. They get the same grace.
pub async fn run<S: Service>(
    listener: TcpListener,
    settings: ServerSettings,
    service: Arc<S>,
    counters: ServerCounters,
    clock: Clock,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) -> Drained {
    let hub = Arc::new(ServerContext::new(settings, service, counters, clock));
    shutdown.run_until_cancelled(accept(listener, &hub)).await;
    drain::drain(&hub, &tasks).await
}

/// Takes connections, for ever. Dropping this closes the listener.
async fn accept<S: Service>(listener: TcpListener, hub: &Arc<ServerContext<S>>) {
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let mut pause = None;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if pause.take().is_some() {
                    tracing::info!("connections are accepted again");
                }
                spawn_connection(stream, address.ip().to_canonical(), hub, &refusals);
            }
            Err(error) => {
                hub.counters.accept_errors.inc();
                if is_of_one_client(&error) {
                    continue;
                }
                // Out of file descriptors or memory: trying again at once would only burn the
                // processor.
                let wait = pause
                    .map_or(ACCEPT_BACKOFF.0, |last: Duration| (last * 2).min(ACCEPT_BACKOFF.1));
                if pause.replace(wait).is_none() {
                    tracing::warn!(%error, "connections cannot be accepted; trying again with pauses");
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Whether an accept failed because the client that was to be accepted is gone already.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn spawn_connection<S: Service>(
    stream: TcpStream,
    addr: IpAddr,
    hub: &Arc<ServerContext<S>>,
    refusals: &Arc<Semaphore>,
) {
    hub.counters.accepted.inc();
    // Without it small responses wait for acknowledgements. A socket that cannot is served all the
    // same.
    let _ = stream.set_nodelay(true);
    let hub = Arc::clone(hub);
    if let Some(permit) = ConnectionPermit::take(&hub.counters.open, hub.settings.max_connections) {
        hub.connections.clone().spawn(connection::serve(hub, stream, addr, permit));
        return;
    }
    // Answered, not left waiting in the backlog: a load balancer can try elsewhere.
    hub.counters.refused_full.inc();
    if let Ok(place) = Arc::clone(refusals).try_acquire_owned() {
        tokio::spawn(async move {
            overload::reject(stream, &*hub.service).await;
            drop(place);
        });
    }
}
