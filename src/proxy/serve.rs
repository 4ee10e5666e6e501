//! May this stored response be served? One pure function for the fast hit, the lookup,
//! `explain --live` and shadow mode.

use crate::cache::entry::{Leeway, Times};
use crate::cache::store::Candidate;
use crate::clock::Wall;
use crate::outcome::Reason;
use crate::proxy::request_directives::RequestDirectives;
use crate::semantics::early_refresh;

/// How a stored response may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serve {
    /// It is fresh.
    Fresh,
    /// It is stale, and may be served while it is fetched anew (RFC 5861 3).
    WhileRevalidate,
}

/// What its tags say of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProofState {
    /// No purge has touched it.
    Current,
    /// A soft purge made it stale at this time.
    SoftPurged(Wall),
    /// It must not be used: purged, about to be purged, or unverifiable.
    Refused(Reason),
}

/// A stored response, as far as the decision reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredState<'a> {
    pub(super) times: &'a Times,
    pub(super) leeway: &'a Leeway,
    pub(super) proof: ProofState,
}

impl<'a> StoredState<'a> {
    /// A lookup gives candidates alone: what its tags refuse is none.
    pub(super) fn from_candidate(candidate: &'a Candidate) -> Self {
        let entry = &candidate.cached.entry;
        let proof = candidate.soft_purged_at.map_or(ProofState::Current, ProofState::SoftPurged);
        Self { times: &entry.times, leeway: &entry.leeway, proof }
    }

    /// What is left of its freshness, in milliseconds; negative since its end, which a soft purge
    /// brings forward and never puts off.
    fn ttl_ms(&self, now: Wall) -> i64 {
        let left = self.times.ttl_ms(now);
        match self.proof {
            ProofState::SoftPurged(at) => {
                let ago = i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
                left.min(-ago)
            }
            ProofState::Current | ProofState::Refused(_) => left,
        }
    }
}

/// Whether and how this caller may be served this stored response now, or why not.
pub(super) fn may_serve(
    stored: &StoredState<'_>,
    directives: &RequestDirectives,
    authorized: bool,
    now: Wall,
) -> Result<Serve, Reason> {
    if let Some(reason) = directives.bypass {
        return Err(reason);
    }
    if let ProofState::Refused(reason) = stored.proof {
        return Err(reason);
    }
    if !authorized {
        return Err(Reason::NotAdmitted);
    }
    if stored.proof == ProofState::Current && stored.times.is_fresh(now) {
        return if directives.accepts(stored.times, now) {
            Ok(Serve::Fresh)
        } else {
            Err(Reason::RequestNoCache)
        };
    }
    let is_open = early_refresh::is_open(stored.ttl_ms(now), stored.leeway.while_revalidate);
    if directives.allows_stale() && is_open {
        Ok(Serve::WhileRevalidate)
    } else {
        Err(Reason::Expired)
    }
}
