//! From the name of the origin to its addresses.
//!
//! The name is looked up for each new connection and never in between: `max_age` bounds for how
//! long a connection keeps an old address in use. The addresses of the last lookup are kept for the
//! time in which names cannot be looked up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::clock::Clock;

/// For how long the addresses of a lookup serve when later ones fail. Longer than most outages of
/// name servers; an address that was given up may be somebody else's after that.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// What looks names up. Tests have their own.
pub(super) trait NameLookup: Send + Sync {
    /// The addresses of a name, in the order in which they are tried.
    fn lookup<'a>(&'a self, name: &'a str, port: u16)
    -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// `getaddrinfo`: `/etc/hosts`, DNS, and whatever else the machine has. It orders the addresses
/// (RFC 6724).
pub(super) struct SystemLookup;

impl NameLookup for SystemLookup {
    fn lookup<'a>(
        &'a self,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Finds the addresses of the one origin.
pub(super) struct Resolver {
    source: Box<dyn NameLookup>,
    clock: Clock,
    /// The addresses of the last lookup, and when it was.
    known: Mutex<Option<(Vec<SocketAddr>, Instant)>>,
}

impl Resolver {
    pub(super) fn new(source: Box<dyn NameLookup>, clock: Clock) -> Self {
        Self { source, clock, known: Mutex::default() }
    }

    /// The addresses of a name or an address, never none of them. `time` is how long connecting may
    /// take in all.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
        time: Duration,
    ) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let known = self.known();
        // Half of the time is left for what is known already.
        let limit = if known.is_some() { time / 2 } else { time };
        let found = match tokio::time::timeout(limit, self.source.lookup(host, port)).await {
            Ok(Ok(found)) if found.is_empty() => Err(io::ErrorKind::NotFound.into()),
            Ok(found) => found,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the name could not be looked up in time",
            )),
        };
        match (found, known) {
            (Ok(found), _) => {
                *self.known.lock() = Some((found.clone(), self.clock.now()));
                Ok(found)
            }
            (Err(error), Some(known)) => {
                tracing::debug!(%error, "looking the origin up failed; its last addresses are \
                    tried");
                Ok(known)
            }
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), "the name has no address"))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn known(&self) -> Option<Vec<SocketAddr>> {
        let known = self.known.lock();
        let (addresses, since) = known.as_ref()?;
        let age = self.clock.now().saturating_duration_since(*since);
        (age < KNOWN_FOR).then(|| addresses.clone())
    }
}
