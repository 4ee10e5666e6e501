//! What the core remembers of others, of its beats, and of what is waited for.

use std::collections::BTreeSet;

use crate::coherence::core::{MonotonicTime, Released};
use crate::coherence::message::Process;

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
