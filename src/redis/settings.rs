//! The settings of `[redis]`: where Redis is, and how to use it.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// The longest lease that a sidecar may have.
pub const MAX_LEASE: Duration = Duration::from_mins(1);

/// How long a connection may take at least, whatever the settings say.
const MIN_CONNECT_TIME: Duration = Duration::from_secs(1);

/// How many round trips it may take to make a connection usable.
const CONNECT_ROUND_TRIPS: u32 = 10;

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
    /// A Unix socket.
    Unix(PathBuf),
    /// The primary that sentinels name.
    Sentinel(Sentinel),
    /// A cluster.
    Cluster {
        /// Hosts and ports of some members: one that replies is enough.
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

/// Sentinels, and the service that they watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// The name under which they know the primary.
    pub service: String,
    /// Their hosts and ports.
    pub nodes: Vec<(String, u16)>,
    /// Whether to use TLS, with the sentinels and with the primary.
    pub tls: bool,
    /// The ACL user for the sentinels themselves.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<Secret>,
}

/// How reads behave while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Serve from memory what this sidecar has filled itself since, each entry for at most
    /// `degraded_ttl`.
    Memory,
    /// Pass requests to the origin.
    Bypass,
}

/// How writes behave while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Forward them; their purges are replayed when Redis is back.
    Forward,
    /// Refuse them with 503, before the origin gets them.
    Refuse,
}

/// For how long the reply to a call counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWait {
    /// Within `deadline`: a request waits for it.
    Prompt,
    /// Within [`RedisSettings::patience`]: no request waits for it.
    Patient,
}

/// How bodies are compressed before they go to Redis (Zstandard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyCompression {
    /// How thoroughly, 1 to 19.
    pub level: u8,
    /// The shortest body that is compressed, in bytes.
    pub min_size: u64,
}

/// The settings of `[redis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where Redis is.
    pub address: RedisAddress,
    /// The database's number.
    pub database: u8,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// PEM root certificates in place of the system's, for `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// The prefix of all keys.
    pub namespace: String,
    /// How long a request waits for one call.
    pub deadline: Duration,
    /// For how long of the time in which this process runs Redis may leave a probe unanswered
    /// before it is lost.
    pub loss_after: Duration,
    /// How long a write waits for its mark, and for its purge to reach Redis, before Redis counts
    /// as lost.
    pub write_wait: Duration,
    /// How many connections share the calls.
    pub connections: usize,
    /// How long the local table may be trusted, counted from sending a heartbeat that came back.
    pub lease: Duration,
    /// How long to wait after Redis is back, so that peers can replay their journals.
    pub rejoin_grace: Duration,
    /// How reads behave while Redis is lost.
    pub on_redis_loss: OnLoss,
    /// The greatest age of an entry that was filled without Redis.
    pub degraded_ttl: Duration,
    /// How writes behave while Redis is lost.
    pub writes: WritePolicy,
    /// The file of the journal; without it the journal is in memory only.
    pub journal: Option<PathBuf>,
    /// How many replicas must have a purge before it counts as done.
    pub wait_replicas: u8,
    /// Authenticates entries and tag records, and keys the hashes of credentials.
    pub secret: Option<Secret>,
    /// How bodies are compressed, if they are.
    pub compress: Option<BodyCompression>,
}

impl RedisSettings {
    /// How long a call may take that keeps sidecars in step: its reply counts however late it is,
    /// and only silence means that Redis is lost.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.write_wait.max(self.lease).max(self.deadline)
    }

    /// How long a connection may take to become usable before another is made. Over a slow link
    /// that takes many round trips, each of them shorter than `loss_after`, so it has as long as
    /// calls may take; but a connection that is stuck is not kept because requests wait for hours.
    #[must_use]
    pub fn connect_time(&self) -> Duration {
        connect_time(self.patience(), self.loss_after)
    }

    /// For how long the reply to a call counts.
    #[must_use]
    pub fn within(&self, wait: ReplyWait) -> Duration {
        match wait {
            ReplyWait::Prompt => self.deadline,
            ReplyWait::Patient => self.patience(),
        }
    }
}

fn connect_time(patience: Duration, loss_after: Duration) -> Duration {
    let most = loss_after * CONNECT_ROUND_TRIPS;
    patience.clamp(loss_after * 2, most).max(MIN_CONNECT_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stuck connection was kept for as long as a request may wait, which may be an hour.
    #[test]
    fn a_connection_has_as_long_as_calls_but_not_for_ever() {
        let of = |patience, loss_after| {
            connect_time(Duration::from_millis(patience), Duration::from_millis(loss_after))
                .as_millis()
        };
        assert_eq!(of(5_000, 1_000), 5_000, "the defaults");
        assert_eq!(of(3_600_000, 1_000), 10_000, "at most ten round trips");
        assert_eq!(of(100, 1_000), 2_000, "at least two");
        assert_eq!(of(100, 50), 1_000, "and a second in any case");
    }
}
