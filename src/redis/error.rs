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
            _ if begins_with_code(details) => Self::Reply(details.to_owned()),
            // Redis replied, but with something else than the call expects.
            ErrorKind::Parse
            | ErrorKind::NotFound
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidCommand => Self::Reply(details.to_owned()),
            // fred's own words about a client that has ended, most of them of the same kind as the
            // replies of a server.
            _ => Self::Connection(details.to_owned()),
        }
    }
}

/// Whether these are the words of a server: its error replies begin with a code in capitals, such
/// as `ERR`, and nothing that fred says itself does.
fn begins_with_code(details: &str) -> bool {
    let is_code = |word: &str| {
        word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    details.split(' ').next().is_some_and(is_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::error::{Error as Failure, ErrorKind};

    /// Every text, with its kind, that fred 10.1 makes itself for a call whose client has ended.
    #[test]
    fn what_fred_says_of_a_client_that_has_ended_is_no_reply() {
        let texts = [
            (ErrorKind::Unknown, "Client is not initialized."),
            (ErrorKind::Unknown, "Failed to send command to router."),
            (ErrorKind::Unknown, "Failed to route command."),
            (ErrorKind::Unknown, "Missing expected connection."),
            (ErrorKind::Unknown, "Missing response."),
            (ErrorKind::Unknown, "Too many failed write attempts."),
            (ErrorKind::Unknown, "Unknown or invalid error from buffered frames."),
            (ErrorKind::Unknown, "Invalid buffer response index."),
            // `RecvError` of a oneshot and of a broadcast, and `SendError`.
            (ErrorKind::Unknown, "channel closed"),
            (ErrorKind::Unknown, "send failed because receiver is gone"),
            (ErrorKind::Unknown, "Spawn Error: JoinError::Cancelled(Id(7))"),
            (ErrorKind::Protocol, "Unexpected empty frame received."),
            (ErrorKind::Canceled, "Canceled."),
            (ErrorKind::Canceled, "the connection is gone"),
            (ErrorKind::IO, "Os { code: 104, kind: ConnectionReset, message: \"...\" }"),
        ];
        for (kind, text) in texts {
            let error = CallError::from_fred(&Failure::new(kind, text));
            assert_eq!(error, CallError::Connection(text.to_owned()));
        }
        for text in ["Request timed out.", "Max in-flight commands reached."] {
            for kind in [ErrorKind::Timeout, ErrorKind::Backpressure] {
                assert_eq!(CallError::from_fred(&Failure::new(kind, text)), CallError::Timeout);
            }
        }
    }

    /// The kinds that fred gives to the replies of a server (`pretty_error`), and to a reply of
    /// another type than the call expects.
    #[test]
    fn what_a_server_says_is_a_reply_whatever_kind_fred_gives_it() {
        for (kind, text) in [
            (ErrorKind::Unknown, "ERR unknown command 'HELLO'"),
            (ErrorKind::Unknown, "NOSCRIPT No matching script. Please use EVAL."),
            (ErrorKind::Unknown, "NOPERM No permissions to access a channel"),
            (ErrorKind::Unknown, "BUSY Redis is busy running a script."),
            (ErrorKind::Unknown, "EXECABORT Transaction discarded because of previous errors."),
            (ErrorKind::Config, "ERR This instance has cluster support disabled"),
            (
                ErrorKind::InvalidArgument,
                "WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (ErrorKind::Parse, "Could not convert to string."),
            (ErrorKind::NotFound, "Cannot convert nil to number."),
        ] {
            let error = CallError::from_fred(&Failure::new(kind, text));
            assert_eq!(error, CallError::Reply(text.to_owned()));
        }
    }

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
