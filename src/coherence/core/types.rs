//! What the core is told, and what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::coherence::message::{Message, OperationId, PeerId, Process};
use crate::policy::tag::Tag;

/// Time since the start of the process, on a clock that never goes back.
pub type MonotonicTime = Duration;

/// How long things take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseSettings {
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long the longest lease of all lasts.
    pub longest_lease: Duration,
    /// How much longer others wait for its end: what clocks may differ by, and a little.
    pub margin: Duration,
    /// How often it is renewed.
    pub heartbeat: Duration,
    /// How soon it is tried again while there is none.
    pub retry: Duration,
    /// How long to wait after a loss before records are trusted again.
    pub grace: Duration,
}

impl LeaseSettings {
    /// The habits that go with a lease and a grace.
    #[must_use]
    pub fn new(lease: Duration, grace: Duration) -> Self {
        let margin = lease / 50 + Duration::from_millis(5);
        Self {
            lease,
            longest_lease: lease,
            margin,
            heartbeat: lease / 4,
            retry: (lease / 40).max(Duration::from_millis(5)),
            grace,
        }
    }

    /// When nobody who has not heard of something said now can hold a lease any more.
    pub(super) fn lease_expiry(&self, now: MonotonicTime) -> MonotonicTime {
        now + self.longest_lease + self.margin
    }
}

/// How it stands with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none to speak to.
    Lost,
    /// It is there, and writes go to it; what it says is not trusted before this time, nor before
    /// the journal was replayed.
    Joining(MonotonicTime),
    /// It is the truth.
    Joined,
}

/// What a beat told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeartbeatReply {
    /// The replication id of the primary that took it.
    pub fence: Box<str>,
    /// Whether the name was registered already, or just now; none when it could not be.
    pub registration: Registration,
    /// All names.
    pub names: Vec<RegisteredPeer>,
}

/// A name in the list that Redis keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisteredPeer {
    /// The name.
    pub node: PeerId,
    /// Whether it was struck out.
    pub evicted: bool,
}

/// How Redis knows the name under which a beat was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registration {
    /// It was registered before.
    Known,
    /// It is registered as of now, beside others or as the first.
    New,
    /// It was struck out.
    Evicted,
    /// It is not registered: that was not asked for, or Redis is out of memory.
    Absent,
}

/// Who there was to be told, in the step in which something was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subscribers {
    /// All names.
    pub names: Vec<RegisteredPeer>,
    /// How many listened to the bus.
    pub listeners: usize,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoreEvent {
    /// Time has passed.
    Tick,
    /// A connection to a primary stands.
    PrimaryFound {
        /// Its replication id.
        fence: Box<str>,
        /// Whether others may have something to replay, so that the grace must pass.
        again: bool,
        /// Whether it was a replica once, so that it may know nothing of whom its predecessor knew.
        promoted: bool,
    },
    /// Redis is not to be trusted any more.
    Lost,
    /// A subscription to the bus stands.
    Listening,
    /// It does not, or something may have been missed.
    Lagged,
    /// A beat was taken by Redis; none when it was not.
    HeartbeatReply(u64, Option<HeartbeatReply>),
    /// Something was said on the bus.
    Message(Message),
    /// Something that the others have to acknowledge is in Redis, and was said in the same step.
    Published(OperationId, Subscribers),
    /// The same could not be told: this is to be purged at the rejoin.
    PublishFailed(OperationId, ReplayBatch),
    /// What the journal held was replayed, or not.
    Replayed(ReplayBatch, bool),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoreCommand {
    /// Send a beat under this name, and register it, if it may be.
    Heartbeat {
        /// Its number.
        number: u64,
        /// The name.
        node: PeerId,
        /// Whether to register it.
        register: bool,
    },
    /// Trust nothing that the table says of these tags; of any tag where there is no list.
    Invalidate(Option<Vec<Tag>>),
    /// Tell that this was done. Only after what was commanded before.
    Ack(Process, OperationId),
    /// Ask everybody to acknowledge this once more: who does has done what was said before.
    RequestAck(OperationId),
    /// Let the answer out that waits for this.
    Release(OperationId, Released),
    /// Strike out this name, and take its mutations under way as committed.
    Evict(PeerId),
    /// Take the mutations under this name as committed, and forget it.
    Forget(PeerId),
    /// Withdraw this name of ours, and say so: whoever waits for it need not.
    Withdraw(PeerId),
    /// Purge what the journal holds.
    Replay(ReplayBatch),
}

/// Why an answer may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Released {
    /// All others have acknowledged.
    Acknowledged,
    /// Some did not, and their leases are over.
    LeaseExpired,
    /// Nobody could be told, and all leases are over.
    PublishFailed,
}

/// What is to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplayBatch {
    /// These tags.
    pub tags: BTreeSet<Tag>,
    /// Everything.
    pub everything: bool,
}

/// What hits look at: published after every event, before its commands are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseState {
    /// Even: Redis is the truth. Odd: it is not.
    pub epoch: u64,
    /// The stretch of time in which nothing was missed.
    pub session: u64,
    /// Until when records may be read on the authority of the connection.
    pub contact_until: MonotonicTime,
    /// Until when the local table may be trusted.
    pub lease_until: MonotonicTime,
}

/// How it stands, for metrics and readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoherenceStatus {
    /// Other sidecars that live.
    pub peers: usize,
    /// Answers that wait for others.
    pub waits: usize,
    /// Tags that wait to be replayed.
    pub journal: usize,
}
