//! What goes into the core and comes out of it: settings, events, commands and the lease state.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::RUNNING_STEP;
use crate::coherence::message::{Message, OperationId, PeerId, Process};
use crate::policy::tag::Tag;

/// Time since the start of the process, on a monotonic clock.
pub type MonotonicTime = Duration;

/// The durations of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseSettings {
    /// How long this sidecar's lease lasts.
    pub lease: Duration,
    /// The longest lease of any sidecar.
    pub longest_lease: Duration,
    /// How much longer peers wait for a lease to end: the drift allowed between clocks, and a
    /// little more.
    pub margin: Duration,
    /// How often the lease is renewed.
    pub heartbeat: Duration,
    /// How soon the next attempt follows while there is no lease.
    pub retry: Duration,
    /// How long after a loss records stay untrusted.
    pub grace: Duration,
    /// How late this process may wake without counting as stopped meanwhile.
    pub stall: Duration,
    /// For how long a peer that is cut off serves what it filled by itself; zero where that is as
    /// published.
    pub exposure: Duration,
    /// How long a peer that fell silent without a word is remembered, because it may be cut off.
    pub absence: Duration,
}

impl LeaseSettings {
    /// Settings derived from a lease and a grace period.
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
            stall: RUNNING_STEP,
            exposure: Duration::ZERO,
            absence: Duration::ZERO,
        }
    }

    /// When no peer serves what it had when a message was published now that it misses: under a
    /// lease, or by itself.
    pub(super) fn exposure_expiry(&self, now: MonotonicTime) -> MonotonicTime {
        self.lease_expiry(now).max(now + self.exposure + self.margin)
    }

    /// When an id that was evicted at that time is forgotten: a peer that starts may have to learn
    /// of it for as long as others remember it.
    pub(super) fn forgotten_at(&self, evicted: MonotonicTime) -> MonotonicTime {
        self.lease_expiry(evicted).max(evicted + self.absence)
    }

    /// When the leases of all peers that miss a message published now have expired.
    pub(super) fn lease_expiry(&self, now: MonotonicTime) -> MonotonicTime {
        now + self.longest_lease + self.margin
    }
}

/// The state of the relation to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No Redis can be reached.
    Lost,
    /// Redis is connected, and writes go to it. Its records are not trusted before this time, nor
    /// before the journal was replayed.
    Joining(MonotonicTime),
    /// The records in Redis are the truth.
    Joined,
}

/// The reply to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeartbeatReply {
    /// The replication id of the primary that accepted it.
    pub fence: Box<str>,
    /// How Redis knows the id under which the heartbeat was sent.
    pub registration: Registration,
    /// All registered peers.
    pub peers: Vec<RegisteredPeer>,
    /// Whether a sidecar that speaks another protocol may be there.
    pub is_mixed: bool,
}

/// An entry of the list of peers in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisteredPeer {
    /// The peer's id.
    pub peer: PeerId,
    /// Whether it was evicted.
    pub evicted: bool,
}

/// How Redis knows the id under which a heartbeat was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registration {
    /// It was registered before.
    Known,
    /// It was registered by this heartbeat.
    New,
    /// It was evicted.
    Evicted,
    /// It is not registered: the heartbeat did not ask for it, or Redis is out of memory.
    Absent,
}

/// Who could receive a message, determined in the step that published it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subscribers {
    /// All registered peers.
    pub peers: Vec<RegisteredPeer>,
    /// How many subscribers the bus had.
    pub listeners: usize,
    /// Whether a sidecar that speaks another protocol may be there.
    pub is_mixed: bool,
}

/// What happens to the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoreEvent {
    /// Time has passed.
    Tick,
    /// A primary is connected.
    PrimaryFound {
        /// Its replication id.
        fence: Box<str>,
        /// Whether this is a rejoin: peers may have a journal to replay, so the grace period
        /// applies.
        again: bool,
        /// Whether it was a replica before, so that it may not know all registered peers.
        promoted: bool,
    },
    /// Redis can no longer be trusted.
    Lost,
    /// The bus is subscribed.
    Listening,
    /// The subscription is broken, or messages may have been missed.
    Lagged,
    /// The reply to a heartbeat; `None` when it failed.
    HeartbeatReply(u64, Option<HeartbeatReply>),
    /// A message arrived over the bus.
    Message(Message),
    /// An operation that peers have to acknowledge was written to Redis and published, in one step.
    Published(OperationId, Subscribers),
    /// Such an operation could not be published: this is to be purged at the rejoin.
    PublishFailed(OperationId, ReplayBatch),
    /// The journal was replayed, or could not be.
    Replayed(ReplayBatch, bool),
}

/// How a peer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerEnd {
    /// It has told that its process ends.
    Left,
    /// It is silent for longer than its lease.
    Silent,
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoreCommand {
    /// Send a heartbeat under this id, and register it if that is allowed.
    Heartbeat {
        /// Its number.
        number: u64,
        /// The id.
        peer: PeerId,
        /// Whether to register the id.
        register: bool,
    },
    /// Purge these tags in the local table; every tag where there is no list.
    Invalidate(Option<Vec<Tag>>),
    /// Acknowledge that this was done. Only after the commands before it.
    Ack {
        /// The sender of the operation.
        to: Process,
        /// The operation.
        id: OperationId,
        /// Whether the sender has an inbox. Otherwise it listens to the bus.
        inbox: bool,
    },
    /// Publish this once more, whole: an acknowledgement may have been missed, or a peer has
    /// subscribed too late to get it.
    RequestAck(OperationId),
    /// Release the response that waits for this operation.
    Release(OperationId, Released),
    /// Evict this peer, and treat its pending mutations as committed.
    Evict(PeerId, PeerEnd),
    /// Treat the pending mutations of this peer as committed, and forget its id.
    Forget(PeerId),
    /// Withdraw this id of our own, and publish that nobody needs to wait for it.
    Withdraw(PeerId),
    /// Purge what the journal holds.
    Replay(ReplayBatch),
}

/// Why a response may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Released {
    /// All peers have acknowledged.
    Acknowledged,
    /// Some peers have not, and their leases have expired.
    LeaseExpired,
    /// Nothing could be published, and the leases of all peers have expired.
    PublishFailed,
}

/// What is to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplayBatch {
    /// Purge these tags.
    pub tags: BTreeSet<Tag>,
    /// Purge everything.
    pub everything: bool,
}

/// What hits depend on: published after every event, before its commands are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseState {
    /// Changes with every loss, return and rejoin; see [`LeaseState::truth`].
    pub epoch: u64,
    /// Changes whenever a message may have been missed.
    pub session: u64,
    /// Until when records may be read on the strength of the connection.
    pub contact_until: MonotonicTime,
    /// Until when the local table may be trusted.
    pub lease_until: MonotonicTime,
}

/// Which records are the truth, where there is a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Those in Redis.
    Records,
    /// Redis is lost: only those of this process, for what it fills itself.
    OwnTable,
    /// None: Redis is back, and others may have purges to replay.
    Nothing,
}

impl Truth {
    /// The truth in this epoch. Each step of an epoch leads to the next one of these three.
    #[must_use]
    pub const fn in_epoch(epoch: u64) -> Self {
        match epoch % 3 {
            0 => Self::Records,
            1 => Self::OwnTable,
            _ => Self::Nothing,
        }
    }
}

impl LeaseState {
    /// Which records are the truth.
    #[must_use]
    pub const fn truth(&self) -> Truth {
        Truth::in_epoch(self.epoch)
    }
}

/// A summary for metrics and readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoherenceStatus {
    /// Peers that are alive.
    pub peers: usize,
    /// Responses that wait for peers.
    pub waits: usize,
    /// Tags that wait to be replayed.
    pub journal: usize,
}
