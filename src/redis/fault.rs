//! Why Redis cannot be used, in an operator's words: where, what, and what to do.
//!
//! Must not know how it is found out: that is for `probe`, or for the reply to a call.

use std::fmt;

use crate::redis::error::CallError;
use crate::telemetry::log::printable;

/// The longest text of a server that is shown, in bytes.
const MAX_SHOWN: usize = 160;

/// Why Redis cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Which server: never with a user or a password.
    pub address: String,
    /// What it said, or what the system said of it; empty where the kind says all.
    pub detail: String,
}

macro_rules! faults {
    ($($name:ident: $cause:literal, $remedy:literal;)+) => {
        /// What is wrong with a Redis, or with what the file says of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        // The causes name sections of the file in brackets, which are no links.
        #[allow(rustdoc::broken_intra_doc_links)]
        pub enum FaultKind { $(#[doc = $cause] $name,)+ }

        impl FaultKind {
            /// All kinds.
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What is wrong, as a sentence without its end.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$name => $cause,)+ }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

faults! {
    Refused: "it refuses the connection: nothing listens there",
        "start Redis, or correct host and port in `url` of [redis]";
    Lookup: "its name has no address",
        "correct the host in `url` of [redis], or the DNS";
    Silent: "it does not answer",
        "see whether the address in `url` of [redis] is right, and no firewall drops packets";
    Unreachable: "it cannot be reached",
        "see whether the address in `url` of [redis] is right";
    NoSocket: "there is no such socket file",
        "start Redis with this `unixsocket`, or correct `url` of [redis]";
    Forbidden: "this process has no permission to connect",
        "let the sidecar's user write to the socket of Redis (`unixsocketperm`)";
    WantsTls: "it closes a connection without TLS",
        "write rediss:// in `url` of [redis] if this port speaks TLS";
    NoTls: "it does not speak TLS",
        "write redis:// in `url` of [redis], or name its TLS port";
    Certificate: "its certificate is not trusted",
        "name its authority with `ca_file` of [redis], and in `url` the host that the certificate \
         is for";
    Http: "it is no Redis: an HTTP server answers",
        "correct host and port in `url` of [redis]";
    NotRedis: "it is no Redis: what it answers is another protocol",
        "correct host and port in `url` of [redis]";
    WrongLogin: "it refuses the user name or the password",
        "correct the user and the password in [redis]; without a user the password is that of \
         `default`";
    NeedsLogin: "it wants a password, and [redis] has none",
        "write `password`, or redis://user:password@host in `url`";
    NoLoginWanted: "it has no password, and [redis] has one",
        "leave the password out, or set it in Redis (`requirepass`, or an ACL user)";
    NoPermission: "its ACL refuses what the sidecar needs",
        "give the user the rights in docs/src/how-to/several-sidecars.md";
    Protected: "its protected mode refuses connections from other machines",
        "give Redis a password, or a `bind` and a firewall, and then `protected-mode no`";
    Replica: "it is a replica, which takes no writes",
        "name its primary in `url` of [redis], or the sentinels \
         (redis-sentinel://HOST:26379?sentinelServiceName=NAME)";
    Loading: "it is loading its data from disk",
        "wait; a Redis that is only a cache needs none (`save \"\"`, `appendonly no`)";
    InCluster: "it is a node of a cluster, and `url` does not say so",
        "write redis-cluster://host:port in `url` of [redis]";
    NoCluster: "it is no node of a cluster",
        "write redis:// in `url` of [redis], or `cluster-enabled yes` in Redis";
    ClusterDown: "its cluster is down",
        "see CLUSTER INFO: all slots need a primary";
    WrongDatabase: "it has no such database",
        "correct the number at the end of `url` of [redis]; most have 0 to 15";
    TooManyClients: "it has too many clients",
        "raise its `maxclients`, or find out who keeps connections open";
    CannotSave: "it refuses writes, because it cannot save to disk",
        "make room on its disk, or switch saving off (`save \"\"`)";
    NoReplicas: "it refuses writes, because too few of its replicas are in reach",
        "bring them back, or lower its `min-replicas-to-write`";
    OutOfMemory: "it is out of memory, and refuses writes",
        "CONFIG SET maxmemory-policy volatile-lru, or raise its `maxmemory`";
    TooOld: "it is too old: it does not know a command that the sidecar needs",
        "use Redis 6.2 or newer";
    UnknownService: "the sentinels do not know the service",
        "correct `sentinelServiceName` in `url` of [redis]";
    Other: "it replies with an error",
        "see the log of Redis";
}

/// What the replies of a server begin with, or hold, and what they mean; the first that fits.
const REPLIES: [(&str, FaultKind); 24] = [
    ("WRONGPASS", FaultKind::WrongLogin),
    ("invalid password", FaultKind::WrongLogin),
    ("without any password configured", FaultKind::NoLoginWanted),
    ("no password is set", FaultKind::NoLoginWanted),
    ("NOAUTH", FaultKind::NeedsLogin),
    ("NOPERM", FaultKind::NoPermission),
    ("ACL failure in script", FaultKind::NoPermission),
    ("DENIED", FaultKind::Protected),
    ("protected mode", FaultKind::Protected),
    ("READONLY", FaultKind::Replica),
    ("MASTERDOWN", FaultKind::Replica),
    ("never read from a replica", FaultKind::Replica),
    ("LOADING", FaultKind::Loading),
    ("MOVED", FaultKind::InCluster),
    ("not allowed in cluster mode", FaultKind::InCluster),
    ("CLUSTERDOWN", FaultKind::ClusterDown),
    ("cluster support disabled", FaultKind::NoCluster),
    ("DB index is out of range", FaultKind::WrongDatabase),
    ("max number of clients", FaultKind::TooManyClients),
    ("MISCONF", FaultKind::CannotSave),
    ("NOREPLICAS", FaultKind::NoReplicas),
    ("OOM command not allowed", FaultKind::OutOfMemory),
    ("unknown command", FaultKind::TooOld),
    ("wrong number of arguments for 'auth'", FaultKind::TooOld),
];

impl RedisFault {
    pub(super) fn new(kind: FaultKind, address: impl fmt::Display, detail: &str) -> Self {
        let detail = printable(detail.trim_end(), MAX_SHOWN).into_owned();
        Self { kind, address: address.to_string(), detail }
    }

    /// What an error reply of a server means.
    ///
    /// SECURITY: a server that does not know a command repeats its arguments, a password among
    /// them.
    pub(super) fn from_reply(address: impl fmt::Display, reply: &str) -> Self {
        let reply = reply.split("with args").next().unwrap_or_default();
        let found = REPLIES.into_iter().find(|(words, _)| reply.contains(words));
        Self::new(found.map_or(FaultKind::Other, |(_, kind)| kind), address, reply)
    }

    /// The same after a login: what a server that does not know it has said may hold the password.
    pub(super) fn without_secrets(self) -> Self {
        match self.kind {
            FaultKind::Other | FaultKind::NotRedis | FaultKind::Http | FaultKind::TooOld => {
                Self { detail: String::new(), ..self }
            }
            _ => self,
        }
    }

    /// The same, where the file names one server: its cluster is none of the file's.
    pub(super) fn of_single_server(self) -> Self {
        match self.kind {
            FaultKind::ClusterDown => Self { kind: FaultKind::InCluster, ..self },
            _ => self,
        }
    }

    /// What a failed call says, if a server has said it.
    pub(super) fn from_call(address: impl fmt::Display, error: &CallError) -> Option<Self> {
        match error {
            CallError::Lost(reply) | CallError::Reply(reply) => {
                Some(Self::from_reply(address, reply))
            }
            CallError::OutOfMemory => Some(Self::new(FaultKind::OutOfMemory, address, "")),
            CallError::Timeout
            | CallError::Connection(_)
            | CallError::Moving
            | CallError::NodeDown(_)
            | CallError::WentBack => None,
        }
    }

    /// What is wrong, with what the server said.
    #[must_use]
    pub fn cause(&self) -> String {
        match self.detail.as_str() {
            "" => self.kind.cause().to_owned(),
            detail => format!("{} ({detail})", self.kind.cause()),
        }
    }

    /// Whether nothing has answered, so that the file may be right and the machine another.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::Refused
                | FaultKind::Lookup
                | FaultKind::Silent
                | FaultKind::Unreachable
                | FaultKind::NoSocket
        )
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}: {}", self.address, self.cause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_servers_have_a_meaning() {
        for (reply, kind) in [
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                FaultKind::WrongLogin,
            ),
            (
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
                FaultKind::NoLoginWanted,
            ),
            ("NOAUTH Authentication required.", FaultKind::NeedsLogin),
            (
                "NOAUTH HELLO must be called with the client already authenticated",
                FaultKind::NeedsLogin,
            ),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                FaultKind::NoPermission,
            ),
            ("DENIED Redis is running in protected mode because", FaultKind::Protected),
            ("READONLY You can't write against a read only replica.", FaultKind::Replica),
            (
                "ERR Error running script (call to f_f00): @user_script:9: -READONLY You can't \
                 write against a read only replica.",
                FaultKind::Replica,
            ),
            ("LOADING Redis is loading the dataset in memory", FaultKind::Loading),
            ("MOVED 3999 127.0.0.1:6381", FaultKind::InCluster),
            ("ERR SELECT is not allowed in cluster mode", FaultKind::InCluster),
            ("ERR This instance has cluster support disabled", FaultKind::NoCluster),
            ("ERR DB index is out of range", FaultKind::WrongDatabase),
            ("ERR max number of clients reached", FaultKind::TooManyClients),
            ("OOM command not allowed when used memory > 'maxmemory'.", FaultKind::OutOfMemory),
            ("ERR something new", FaultKind::Other),
        ] {
            let fault = RedisFault::from_reply("h:1", reply);
            assert_eq!(fault.kind, kind, "{reply}");
            assert!(fault.to_string().starts_with("Redis at h:1: it"), "{fault}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for reply in [
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `u`, `s3cret`, ",
            "ERR what is AUTH u s3cret",
        ] {
            let fault = RedisFault::from_reply("h:1", reply).without_secrets();
            assert!(!fault.to_string().contains("s3cret"), "{fault}");
        }
        let reply = "ERR unknown command `HELLO`, with args beginning with: `3`, `s3cret`, ";
        assert!(!RedisFault::from_reply("h:1", reply).to_string().contains("s3cret"));
    }

    #[test]
    fn every_kind_says_what_is_wrong_and_what_to_do() {
        for kind in FaultKind::ALL {
            assert!(!kind.cause().ends_with('.') && !kind.remedy().is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn what_a_server_says_is_bounded_and_escaped() {
        let fault = RedisFault::from_reply("h:1", &format!("ERR \x1b[2J{}", "x".repeat(9_000)));
        assert!(fault.cause().len() < 256 && !fault.cause().contains('\x1b'));
    }
}
