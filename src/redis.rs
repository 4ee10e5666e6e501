//! The link to Redis: this file and its folder alone name fred.
//!
//! Invariants, each of which fred's defaults break (measured): no call outlives its deadline; a
//! connection that broke is told to whoever asks for [`RedisClient::broken`], and stays broken
//! until [`RedisClient::renew`], so that nobody goes on with another Redis, or the same one after a
//! restart, without knowing it; a client that is wedged is replaced by a new one, because its own
//! reconnection may hang for ever behind a full send buffer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Notify;

use crate::error::SetupError;
pub use crate::redis::inspect::RedisInfo;
use crate::redis::session::{RedisSession, Topology};
use crate::secret::Secret;
use crate::telemetry::metrics::Counter;

mod cluster;
mod commands;
mod inspect;
mod node;
mod pipeline;
mod sentinel;
mod session;
pub mod subscriber;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// A host and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
    },
    /// A socket file.
    Unix(PathBuf),
    /// The primary that sentinels name.
    Sentinel(Sentinel),
    /// A cluster.
    Cluster {
        /// Hosts and ports of some of its members: one that answers is enough.
        nodes: Vec<(String, u16)>,
        /// Whether to speak TLS.
        tls: bool,
    },
}

impl RedisAddress {
    const fn tls(&self) -> bool {
        match self {
            Self::Tcp { tls, .. } | Self::Cluster { tls, .. } => *tls,
            Self::Sentinel(sentinel) => sentinel.tls,
            Self::Unix(_) => false,
        }
    }
}

/// Sentinels and what they watch over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// The name under which they know the primary.
    pub service: String,
    /// Their hosts and ports.
    pub nodes: Vec<(String, u16)>,
    /// Whether to speak TLS, with them and with the primary.
    pub tls: bool,
    /// The ACL user of the sentinels themselves.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<Secret>,
}

/// What to do with reads while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Serve from memory what this sidecar filled itself meanwhile, each entry for at most
    /// `degraded_ttl`.
    Memory,
    /// Go to the app.
    Bypass,
}

/// What to do with writes while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Forward them; their purges are replayed when Redis is back.
    Forward,
    /// Refuse them with 503 before the app sees them.
    Refuse,
}

/// The shared tier's settings.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where Redis is.
    pub address: RedisAddress,
    /// The database's number.
    pub database: u8,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// PEM roots in place of the system's, for `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// The prefix of all keys.
    pub namespace: String,
    /// How long one call may take.
    pub deadline: Duration,
    /// How many connections calls are spread over.
    pub connections: usize,
    /// How long the local table may be trusted after the sending of a heartbeat that came back.
    pub lease: Duration,
    /// How long to wait after Redis is back, so that the others have replayed their purges.
    pub rejoin_grace: Duration,
    /// What reads do without Redis.
    pub on_redis_loss: OnLoss,
    /// How old an entry that was filled without Redis may become.
    pub degraded_ttl: Duration,
    /// What writes do without Redis.
    pub writes: WritePolicy,
    /// The file that keeps purges for the rejoin; without it memory does.
    pub journal: Option<PathBuf>,
    /// How many replicas must have a purge before it counts as done.
    pub wait_replicas: u8,
    /// Seals entries, and keys the hashes of credentials.
    pub secret: Option<Secret>,
}

/// A call to Redis that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// No answer within the deadline.
    #[error("no answer within the deadline")]
    Timeout,
    /// There is no connection, or it broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// Redis is out of memory and refuses to write.
    #[error("out of memory")]
    OutOfMemory,
    /// Redis answered that it is not what it was, or not in a state to be trusted: a replica,
    /// loading, cut off from its cluster or its replicas, unable to keep what it is told, or no
    /// longer letting us in. As good as gone.
    #[error("of no use: {0}")]
    Lost(String),
    /// The metadata's slot is on its way to another primary: for now each key can be reached by
    /// itself alone, and no script can run.
    #[error("its slot is moving")]
    Moving,
    /// The node that keeps this entry is away. The metadata is not, nor are the other nodes.
    #[error("the entry's node is away: {0}")]
    NodeDown(String),
    /// Redis answered with an error, or with what cannot be.
    #[error("{0}")]
    Reply(String),
}

/// Answers that mean that Redis is lost.
const LOSSES: [&str; 9] = [
    "READONLY",
    "LOADING",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "MISCONF",
    "NOAUTH",
    "WRONGPASS",
    "MOVED",
];

impl CallError {
    fn from_fred(error: &fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        let details = error.details();
        // A script may put words of its own before the code of what it met.
        let has = |code: &str| {
            details.split(' ').next() == Some(code) || details.contains(&format!(" -{code} "))
        };
        if has("OOM") || details.contains("OOM command not allowed") {
            return Self::OutOfMemory;
        }
        if LOSSES.into_iter().any(has) {
            return Self::Lost(details.to_owned());
        }
        if has("ASK") || has("TRYAGAIN") {
            return Self::Moving;
        }
        match error.kind() {
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Auth
            | ErrorKind::Backpressure
            | ErrorKind::Tls
            | ErrorKind::Routing => Self::Connection(details.to_owned()),
            _ => Self::Reply(details.to_owned()),
        }
    }
}

/// A Lua script and its digest.
#[derive(Debug)]
pub struct Script {
    lua: String,
    sha1: String,
}

impl Script {
    /// A script made of these pieces.
    #[must_use]
    pub fn new(pieces: &[&str]) -> Self {
        let lua = pieces.concat();
        let sha1 = fred::types::scripts::Script::from_lua(lua.as_str()).sha1().to_string();
        Self { lua, sha1 }
    }
}

/// What a script returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptReply {
    /// Nothing.
    Nil,
    /// One value.
    One(Bytes),
    /// Several values.
    Many(Vec<Bytes>),
}

/// Counts of what the link does.
#[derive(Clone, Debug, Default)]
pub struct RedisCounters {
    /// Calls made.
    pub calls: Arc<Counter>,
    /// Calls that missed their deadline.
    pub timeouts: Arc<Counter>,
    /// Calls that failed otherwise.
    pub errors: Arc<Counter>,
    /// Clients replaced because they did not recover.
    pub renewals: Arc<Counter>,
}

/// The link.
pub struct RedisClient {
    topology: Arc<Topology>,
    settings: RedisSettings,
    session: Arc<ArcSwap<RedisSession>>,
    broken: Arc<Notify>,
    next: AtomicUsize,
    queues: Vec<Arc<pipeline::BatchQueue>>,
    drivers: Vec<tokio::task::JoinHandle<()>>,
    /// What it has done.
    pub counters: RedisCounters,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.settings.address).finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Starts to connect, and does not wait for it. Needs a tokio runtime.
    pub fn new(settings: RedisSettings) -> Result<Self, SetupError> {
        let tls = if settings.address.tls() {
            Some(node::tls_connector(settings.ca_file.as_deref())?)
        } else {
            None
        };
        let finder = Arc::new(Topology::new(settings.clone(), tls));
        let broken = Arc::new(Notify::new());
        let current = Arc::new(ArcSwap::from_pointee(RedisSession::new(&finder, &broken)?));
        let lines: Vec<Arc<pipeline::BatchQueue>> =
            (0..settings.connections.max(1)).map(|_| Arc::default()).collect();
        let drive = |(turn, line): (usize, &Arc<pipeline::BatchQueue>)| {
            tokio::spawn(pipeline::drive(
                Arc::clone(line),
                Arc::clone(&current),
                turn,
                settings.deadline,
            ))
        };
        let drivers = lines.iter().enumerate().map(drive).collect();
        Ok(Self {
            topology: finder,
            settings,
            session: current,
            broken,
            next: AtomicUsize::new(0),
            queues: lines,
            drivers,
            counters: RedisCounters::default(),
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Ends when the connection to the primary has broken, or when it is no longer the primary. It
    /// stays so until [`RedisClient::renew`].
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// To be called before each try to begin anew: finds the primary and connects to it, without
    /// waiting for it. What was under way is given up. A client that is just being made is left in
    /// peace.
    pub fn renew(&self) {
        if !self.session.load().is_exhausted() {
            return;
        }
        self.counters.renewals.inc();
        match RedisSession::new(&self.topology, &self.broken) {
            Ok(connected) => self.session.store(Arc::new(connected)),
            Err(error) => tracing::error!(%error, "the Redis client could not be made anew"),
        }
    }

    /// The command by which scripts publish to the others: all channels are in the metadata's slot.
    #[must_use]
    pub const fn publish_command(&self) -> &'static str {
        if self.is_sharded() { "SPUBLISH" } else { "PUBLISH" }
    }

    const fn is_sharded(&self) -> bool {
        matches!(self.settings.address, RedisAddress::Cluster { .. })
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % self.queues.len()
    }
}

impl Drop for RedisClient {
    fn drop(&mut self) {
        for driver in &self.drivers {
            driver.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::error::{Error as Failure, ErrorKind};

    #[test]
    fn an_answer_that_proves_redis_untrustworthy_is_a_loss() {
        let of =
            |answer: &'static str| CallError::from_fred(&Failure::new(ErrorKind::Unknown, answer));
        for answer in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: f00, on @user_script:9.",
            "ERR Error running script (call to f_f00): @user_script:9: -READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "MOVED 3999 127.0.0.1:6381",
        ] {
            assert_eq!(of(answer), CallError::Lost(answer.to_owned()));
        }
        assert_eq!(
            of("OOM command not allowed when used memory > 'maxmemory'."),
            CallError::OutOfMemory
        );
        assert_eq!(of("ASK 3999 127.0.0.1:6381"), CallError::Moving);
        assert_eq!(
            of("TRYAGAIN Multiple keys request during rehashing of slot"),
            CallError::Moving
        );
        for answer in [
            "ERR unknown command 'READONLY'",
            "NOPERM this user has no permissions",
            "WRONGTYPE MOVED",
        ] {
            assert_eq!(of(answer), CallError::Reply(answer.to_owned()));
        }
    }
}
