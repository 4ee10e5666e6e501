//! What the core knows: of itself, of its peers, of its heartbeats, and of the operations that wait
//! to be acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::MAX_PEERS;
use super::types::{
    CoherenceStatus, LeaseSettings, LeaseState, MonotonicTime, Phase, Released, ReplayBatch,
};
use crate::coherence::message::{OperationId, PeerId, Process};

/// The state of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(super) settings: LeaseSettings,
    pub(super) me: PeerId,
    pub(super) phase: Phase,
    pub(super) lease_state: LeaseState,
    pub(super) fence: Option<Box<str>>,
    /// Since when messages have been received without a gap.
    pub(super) listening_since: Option<MonotonicTime>,
    pub(super) registered: bool,
    /// Until when the list of peers in Redis may lack some that hold a lease.
    pub(super) unknown_peers_until: MonotonicTime,
    /// Until when a peer may hold a lease from an earlier primary, and neither be registered nor
    /// subscribed here.
    pub(super) unregistered_until: MonotonicTime,
    pub(super) heartbeats: u64,
    pub(super) next_heartbeat: MonotonicTime,
    pub(super) in_flight: Vec<Heartbeat>,
    pub(super) peers: BTreeMap<Process, PeerState>,
    /// Peers that fell silent without a word, and until when that is remembered. They may be cut
    /// off from Redis and serve from their own memory.
    pub(super) absent: BTreeMap<Process, MonotonicTime>,
    /// When the latest heartbeat was sent that Redis accepted.
    pub(super) last_contact: Option<MonotonicTime>,
    /// When this process meant to wake.
    pub(super) planned: Option<MonotonicTime>,
    /// The registered ids of peers; for an evicted one, when the eviction was first seen.
    pub(super) registrations: BTreeMap<PeerId, Option<MonotonicTime>>,
    /// Who has told that its process ends, until it is evicted for it.
    pub(super) left: BTreeSet<Process>,
    pub(super) waits: BTreeMap<OperationId, AckWait>,
    pub(super) journal: ReplayBatch,
    pub(super) replaying: bool,
    pub(super) max_journal: usize,
    /// When the leases of all peers have expired, counted from the loss of Redis.
    pub(super) others_expired_at: MonotonicTime,
    /// Until when a sidecar that speaks another protocol counts as being there.
    pub(super) mixed_until: Option<MonotonicTime>,
}

impl Core {
    /// A core that has not reached Redis yet. With more than `max_journal` tags the journal purges
    /// everything instead.
    #[must_use]
    pub const fn new(process: Process, settings: LeaseSettings, max_journal: usize) -> Self {
        let lease_state = LeaseState {
            // Not the own table: whether Redis is lost is yet to be found out.
            epoch: 2,
            session: 0,
            contact_until: MonotonicTime::ZERO,
            lease_until: MonotonicTime::ZERO,
        };
        Self {
            settings,
            me: PeerId { process, incarnation: 0 },
            phase: Phase::Lost,
            lease_state,
            fence: None,
            listening_since: None,
            registered: false,
            unknown_peers_until: MonotonicTime::ZERO,
            unregistered_until: MonotonicTime::ZERO,
            heartbeats: 0,
            next_heartbeat: MonotonicTime::ZERO,
            in_flight: Vec::new(),
            peers: BTreeMap::new(),
            absent: BTreeMap::new(),
            last_contact: None,
            planned: None,
            registrations: BTreeMap::new(),
            left: BTreeSet::new(),
            waits: BTreeMap::new(),
            journal: ReplayBatch { tags: BTreeSet::new(), everything: false },
            replaying: false,
            max_journal,
            others_expired_at: MonotonicTime::ZERO,
            mixed_until: None,
        }
    }

    /// What hits depend on.
    #[must_use]
    pub const fn lease_state(&self) -> LeaseState {
        self.lease_state
    }

    /// The state of the relation to Redis.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The id under which this sidecar registers at present.
    #[must_use]
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// The fence that is trusted, or was trusted last.
    #[must_use]
    pub fn fence(&self) -> Option<&str> {
        self.fence.as_deref()
    }

    /// A summary for metrics and readiness.
    #[must_use]
    pub fn status(&self) -> CoherenceStatus {
        let journal = self.journal.tags.len() + usize::from(self.journal.everything);
        CoherenceStatus { peers: self.peers.len(), waits: self.waits.len(), journal }
    }

    /// Whether a mark made at that time, in that epoch, certainly stands: no peer can have evicted
    /// its owner yet.
    #[must_use]
    pub fn is_mark_valid(&self, marked: MonotonicTime, epoch: u64, now: MonotonicTime) -> bool {
        // Peers heard a heartbeat that was accepted under this id, and evict it a lease later.
        let heard =
            self.last_contact.filter(|_| self.registered).map_or(marked, |at| at.max(marked));
        epoch == self.lease_state.epoch && now < heard + self.settings.lease
    }

    /// Takes over a peer's lease if it is longer than all known ones, so that purges wait for it.
    /// Returns whether it is.
    pub fn raise_longest_lease(&mut self, lease: Duration) -> bool {
        let is_longer = lease > self.settings.longest_lease;
        self.settings.longest_lease = self.settings.longest_lease.max(lease);
        is_longer
    }

    /// Until when this process may serve what it fills while Redis is lost, where peers wait for
    /// that: a little less long than they remember it. Without contact they cannot know of it.
    #[must_use]
    pub fn own_table_until(&self) -> MonotonicTime {
        if self.settings.absence.is_zero() {
            return MonotonicTime::MAX;
        }
        let slack = self.settings.longest_lease.max(self.settings.exposure);
        let lasts = self.settings.absence.saturating_sub(slack);
        self.last_contact.map_or(MonotonicTime::ZERO, |contact| contact + lasts)
    }

    /// After a stop of this process, counts what it has heard of its peers as heard that much
    /// later. Later is the safe side: a peer's lease then seems to last longer.
    pub(super) fn void_stall(&mut self, now: MonotonicTime) {
        let late = self.planned.map_or(MonotonicTime::ZERO, |planned| now.saturating_sub(planned));
        if late <= self.settings.stall {
            return;
        }
        let heard = self.peers.values_mut().map(|peer| &mut peer.last_heard);
        let evicted = self.registrations.values_mut().flatten();
        heard.chain(evicted).for_each(|at| *at = now.min(*at + late));
    }

    /// Remembers a peer that fell silent without a word. With as many as can be remembered, the
    /// last of them stands for the others: a purge waits as long as there is any.
    pub(super) fn remember_absent(&mut self, now: MonotonicTime, process: Process) {
        if self.settings.absence.is_zero() {
            return;
        }
        let until = now + self.settings.absence;
        let is_full = self.absent.len() >= MAX_PEERS;
        match self.absent.last_entry().filter(|_| is_full) {
            Some(mut last) => drop(last.insert(until)),
            None => drop(self.absent.insert(process, until)),
        }
    }

    /// Stops waiting for an operation.
    pub fn forget_wait(&mut self, id: OperationId) {
        self.waits.remove(&id);
    }
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerState {
    /// When the last message from it arrived, or when it was first seen in the list of peers.
    pub(super) last_heard: MonotonicTime,
    /// Whether it may hold a lease.
    pub(super) registered: bool,
}

/// A heartbeat in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Heartbeat {
    pub(super) number: u64,
    pub(super) sent: MonotonicTime,
    pub(super) registered: bool,
    pub(super) echoed: bool,
}

/// An operation that peers have to acknowledge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AckWait {
    /// Peers that have acknowledged, also before it is known which ones have to.
    pub(super) early_acks: BTreeSet<Process>,
    /// Peers that have to acknowledge; `None` until that is known.
    pub(super) missing_acks: Option<BTreeSet<Process>>,
    /// The exposed peers when the message came back over the bus.
    pub(super) heard_before: Option<BTreeSet<Process>>,
    /// Whether acknowledgements may have been missed before it is known who has to send them.
    pub(super) must_ask_again: bool,
    /// Those of them that were not registered, and may have subscribed too late to get the message.
    pub(super) unlisted: BTreeSet<Process>,
    /// How many subscribers must have got it, where the list of peers may be incomplete. This
    /// sidecar is one of them if the message came back.
    pub(super) min_acks: usize,
    /// Until then acknowledgements do not suffice: a peer may hold a lease from another primary.
    pub(super) not_before: MonotonicTime,
    /// Whether the message came back over the bus, so that all earlier heartbeats have arrived too.
    pub(super) echoed: bool,
    /// Whether it concerns hits under a lease alone, and not what a peer serves by itself.
    pub(super) leases_only: bool,
    /// When the wait ends in any case, and how it counts then.
    pub(super) until: Option<(MonotonicTime, Released)>,
}
