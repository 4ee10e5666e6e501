//! What the core knows: of itself, of its peers, of its heartbeats, and of the operations that wait
//! to be acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::types::{
    CoherenceStatus, LeaseSettings, LeaseState, MonotonicTime, Phase, Released, ReplayBatch,
};
use crate::coherence::message::{OperationId, PeerId, Process};

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(super) settings: LeaseSettings,
    pub(super) me: PeerId,
    pub(super) phase: Phase,
    pub(super) lease_state: LeaseState,
    pub(super) fence: Option<Box<str>>,
    /// Since when the bus is heard without a gap.
    pub(super) listening_since: Option<MonotonicTime>,
    pub(super) registered: bool,
    /// Until when the list of names in Redis may lack some that hold a lease.
    pub(super) unknown_peers_until: MonotonicTime,
    /// Until when somebody may hold a lease from a primary before this one, and neither be named
    /// nor listen here.
    pub(super) unregistered_until: MonotonicTime,
    pub(super) heartbeats: u64,
    pub(super) next_heartbeat: MonotonicTime,
    pub(super) in_flight: Vec<Heartbeat>,
    pub(super) peers: BTreeMap<Process, PeerState>,
    /// The names of others, and when those that are struck out were first seen to be.
    pub(super) names: BTreeMap<PeerId, Option<MonotonicTime>>,
    pub(super) waits: BTreeMap<OperationId, AckWait>,
    pub(super) journal: ReplayBatch,
    pub(super) replaying: bool,
    pub(super) max_journal: usize,
    /// When the others' trust is over, since Redis was lost.
    pub(super) others_expired_at: MonotonicTime,
}

impl Core {
    /// A core that has not met Redis yet. Beyond so many tags the journal becomes "everything".
    #[must_use]
    pub const fn new(process: Process, settings: LeaseSettings, most_journal: usize) -> Self {
        let gate = LeaseState {
            epoch: 1,
            session: 0,
            contact_until: MonotonicTime::ZERO,
            lease_until: MonotonicTime::ZERO,
        };
        Self {
            settings,
            me: PeerId { process, incarnation: 0 },
            phase: Phase::Lost,
            lease_state: gate,
            fence: None,
            listening_since: None,
            registered: false,
            unknown_peers_until: MonotonicTime::ZERO,
            unregistered_until: MonotonicTime::ZERO,
            heartbeats: 0,
            next_heartbeat: MonotonicTime::ZERO,
            in_flight: Vec::new(),
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            waits: BTreeMap::new(),
            journal: ReplayBatch { tags: BTreeSet::new(), everything: false },
            replaying: false,
            max_journal: most_journal,
            others_expired_at: MonotonicTime::ZERO,
        }
    }

    /// What hits look at.
    #[must_use]
    pub const fn lease_state(&self) -> LeaseState {
        self.lease_state
    }

    /// How it stands with Redis.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Its present name.
    #[must_use]
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// The fence that is trusted, or was last.
    #[must_use]
    pub fn fence(&self) -> Option<&str> {
        self.fence.as_deref()
    }

    /// How it stands otherwise.
    #[must_use]
    pub fn status(&self) -> CoherenceStatus {
        let journal = self.journal.tags.len() + usize::from(self.journal.everything);
        CoherenceStatus { peers: self.peers.len(), waits: self.waits.len(), journal }
    }

    /// Whether a mark that was made then, in that epoch, still stands for sure: nobody can have
    /// taken its owner for dead.
    #[must_use]
    pub fn is_mark_valid(&self, marked: MonotonicTime, epoch: u64, now: MonotonicTime) -> bool {
        epoch == self.lease_state.epoch && now < marked + self.settings.lease
    }

    /// Another sidecar's lease may be longer than ours: it is waited for. Says whether that is
    /// news.
    pub fn raise_longest_lease(&mut self, lease: Duration) -> bool {
        let news = lease > self.settings.longest_lease;
        self.settings.longest_lease = self.settings.longest_lease.max(lease);
        news
    }

    /// What was to be waited for is given up.
    pub fn forget_wait(&mut self, id: OperationId) {
        self.waits.remove(&id);
    }
}

/// Another sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerState {
    /// When it was heard, or first heard of.
    pub(super) last_heard: MonotonicTime,
    /// Whether it may hold a lease.
    pub(super) registered: bool,
}

/// A beat under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Heartbeat {
    pub(super) number: u64,
    pub(super) sent: MonotonicTime,
    pub(super) registered: bool,
    pub(super) echoed: bool,
}

/// Something that others have to acknowledge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AckWait {
    /// Who already has, before it is known who has to.
    pub(super) early_acks: BTreeSet<Process>,
    /// Who still has to; none as long as that is not known.
    pub(super) missing_acks: Option<BTreeSet<Process>>,
    /// How many have to at the least, where the list of names may lack some.
    pub(super) min_acks: usize,
    /// Before when only time helps, because somebody may hold a lease from another primary.
    pub(super) not_before: MonotonicTime,
    /// Whether it came back over the bus, so that every beat from before it was heard, too.
    pub(super) echoed: bool,
    /// Until when, at the most, and what it is then.
    pub(super) until: Option<(MonotonicTime, Released)>,
}
