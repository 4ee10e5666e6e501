//! Why a call to Redis failed, and which failures mean that Redis is lost.

use thiserror::Error;

/// The failure of a call to Redis.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Redis did not reply within the deadline.
    #[error("no reply within the deadline")]
    Timeout,
    /// There is no connection, or it broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// Redis is out of memory and refuses to write.
    #[error("out of memory")]
    OutOfMemory,
    /// The reply shows that Redis cannot be trusted: it is a replica, loading, cut off from its
    /// cluster or replicas, unable to save, or refuses our login. This counts as a loss of Redis.
    #[error("cannot be trusted: {0}")]
    Lost(String),
    /// The metadata's slot is moving to another primary. For now keys can only be reached one by
    /// one, and scripts cannot run.
    #[error("its slot is moving")]
    Moving,
    /// The node of this entry is down. The metadata and the other nodes are not affected.
    #[error("the entry's node is down: {0}")]
    NodeDown(String),
    /// The records are older than this process has seen them: Redis was set back to an earlier
    /// state, or somebody writes old records. Purges may be missing.
    #[error("its records have gone back")]
    WentBack,
    /// Redis replied with an error, or with something unexpected.
    #[error("{0}")]
    Reply(String),
}

/// Error codes that mean that Redis is lost.
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
    pub(super) fn from_fred(error: &fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        let details = error.details();
        // A script may put words of its own before the error code.
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
            // Our own queue is full: that says nothing of Redis.
            ErrorKind::Timeout | ErrorKind::Backpressure => Self::Timeout,
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Auth
            | ErrorKind::Tls
            | ErrorKind::Routing => Self::Connection(details.to_owned()),
            _ => Self::Reply(details.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::error::{Error as Failure, ErrorKind};

    #[test]
    fn a_reply_that_proves_redis_untrustworthy_is_a_loss() {
        let of =
            |reply: &'static str| CallError::from_fred(&Failure::new(ErrorKind::Unknown, reply));
        for reply in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: f00, on @user_script:9.",
            "ERR Error running script (call to f_f00): @user_script:9: -READONLY You can't write \
            against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to \
            persist to disk.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "MOVED 3999 127.0.0.1:6381",
        ] {
            assert_eq!(of(reply), CallError::Lost(reply.to_owned()));
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
        for reply in [
            "ERR unknown command 'READONLY'",
            "NOPERM this user has no permissions",
            "WRONGTYPE MOVED",
        ] {
            assert_eq!(of(reply), CallError::Reply(reply.to_owned()));
        }
    }
}
