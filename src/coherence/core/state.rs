//! What the core remembers of others, of its beats, and of what is waited for.

use std::collections::BTreeSet;

use crate::coherence::core::{At, Released};
use crate::coherence::message::Process;

/// Another sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// When it was heard, or first heard of.
    pub(super) heard: At,
    /// Whether it may hold a lease.
    pub(super) registered: bool,
}

/// A beat under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Beat {
    pub(super) number: u64,
    pub(super) sent: At,
    pub(super) registered: bool,
    pub(super) heard: bool,
}

/// Something that others have to acknowledge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Wait {
    /// Who already has, before it is known who has to.
    pub(super) early: BTreeSet<Process>,
    /// Who still has to; none as long as that is not known.
    pub(super) missing: Option<BTreeSet<Process>>,
    /// How many have to at the least, where the list of names may lack some.
    pub(super) at_least: usize,
    /// Before when only time helps, because somebody may hold a lease from another primary.
    pub(super) not_before: At,
    /// Whether it came back over the bus, so that every beat from before it was heard, too.
    pub(super) came_back: bool,
    /// Until when, at the most, and what it is then.
    pub(super) until: Option<(At, Released)>,
}
