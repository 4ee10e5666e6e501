//! Why a call to Redis failed, and which failures mean that Redis is lost.

use thiserror::Error;

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
    pub(super) fn from_fred(error: &fred::error::Error) -> Self {
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
