//! Where Redis is, and how it is used: the compiled form of `[redis]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::units::Secret;

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
    pub(super) const fn tls(&self) -> bool {
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
