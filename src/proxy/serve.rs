//! May this stored response be served? One pure function for the fast hit, the lookup,
//! `explain --live` and shadow mode.

use std::sync::Arc;

use crate::cache::store::Candidate;
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::authorized_clients::AuthorizationState;
use crate::policy::request_directives::RequestDirectives;
use crate::semantics::early_refresh;
use crate::semantics::times::{Leeway, Times};

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
    /// Whether the origin has confirmed it to its caller within the time that the route sets.
    pub(super) is_confirmed: bool,
}

impl<'a> StoredState<'a> {
    /// A lookup gives candidates alone: what its tags refuse is none.
    pub(super) fn from_candidate(candidate: &'a Candidate, is_confirmed: bool) -> Self {
        let entry = &candidate.cached.entry;
        let proof = candidate.soft_purged_at.map_or(ProofState::Current, ProofState::SoftPurged);
        Self { times: &entry.times, leeway: &entry.leeway, proof, is_confirmed }
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
    if !stored.is_confirmed {
        // SECURITY: the credential may have been revoked since.
        return Err(Reason::CredentialUnconfirmed);
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

/// What the origin may confirm to a caller, and what is there for others.
pub(super) fn allotted(
    authorization: AuthorizationState,
    may_renew: bool,
    candidate: Option<Candidate>,
) -> (Option<Candidate>, Option<Arc<CachedEntry>>) {
    match authorization {
        AuthorizationState::Authorized => (candidate, None),
        AuthorizationState::Lapsed if may_renew => (candidate, None),
        AuthorizationState::Lapsed => (None, None),
        AuthorizationState::Unauthorized => {
            (None, candidate.filter(|found| found.fresh).map(|found| found.cached))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RECEIVED: Wall = Wall(10_000);
    const TIMES: Times = Times {
        received: RECEIVED,
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(10),
    };
    /// While it is fresh, and from the end of its freshness at 20,000 on.
    const FRESH: Wall = Wall(15_000);
    const STALE: Wall = Wall(22_000);
    const PAST_WINDOW: Wall = Wall(25_000);

    const NONE: RequestDirectives =
        RequestDirectives { bypass: None, only_if_cached: false, max_age: None, min_fresh: None };
    const NO_STORE: RequestDirectives =
        RequestDirectives { bypass: Some(Reason::RequestNoStore), ..NONE };
    const NO_CACHE: RequestDirectives =
        RequestDirectives { min_fresh: Some(Duration::MAX), ..NONE };
    const ONLY_IF_CACHED: RequestDirectives = RequestDirectives { only_if_cached: true, ..NONE };

    const fn max_age(seconds: u64) -> RequestDirectives {
        RequestDirectives { max_age: Some(Duration::from_secs(seconds)), ..NONE }
    }

    const fn min_fresh(seconds: u64) -> RequestDirectives {
        RequestDirectives { min_fresh: Some(Duration::from_secs(seconds)), ..NONE }
    }

    /// What is decided, with a window of so many seconds.
    fn decide(
        proof: ProofState,
        window: u64,
        directives: &RequestDirectives,
        authorized: bool,
        now: Wall,
    ) -> Result<Serve, Reason> {
        let while_revalidate = Duration::from_secs(window);
        let leeway = Leeway { while_revalidate, ..Leeway::default() };
        let stored = StoredState { times: &TIMES, leeway: &leeway, proof, is_confirmed: true };
        may_serve(&stored, directives, authorized, now)
    }

    #[test]
    fn an_entry_that_was_not_confirmed_lately_is_served_to_nobody() {
        let leeway = Leeway { while_revalidate: Duration::from_secs(5), ..Leeway::default() };
        let (proof, is_confirmed) = (ProofState::Current, false);
        let stored = StoredState { times: &TIMES, leeway: &leeway, proof, is_confirmed };
        for now in [FRESH, STALE] {
            let decided = may_serve(&stored, &NONE, true, now);
            assert_eq!(decided, Err(Reason::CredentialUnconfirmed));
            assert_eq!(may_serve(&stored, &NONE, false, now), Err(Reason::NotAdmitted));
        }
    }

    #[test]
    fn every_row_of_the_decision() {
        use ProofState::{Current, Refused, SoftPurged};

        const PURGED: ProofState = Refused(Reason::Purged);
        const PENDING: ProofState = Refused(Reason::MutationPending);
        /// Made stale in the middle of its freshness.
        const SOFT: ProofState = SoftPurged(Wall(14_000));
        const YES: bool = true;
        const NO: bool = false;

        let served = Ok(Serve::Fresh);
        let stale = Ok(Serve::WhileRevalidate);
        let (no_cache, expired) = (Err(Reason::RequestNoCache), Err(Reason::Expired));
        // The proof, the window in seconds, the directives, whether authorized, the time.
        let rows = [
            // A fresh response is served to whom it satisfies.
            (Current, 0, NONE, YES, FRESH, served),
            (Current, 0, ONLY_IF_CACHED, YES, FRESH, served),
            (Current, 0, max_age(5), YES, FRESH, served),
            (Current, 0, max_age(4), YES, FRESH, no_cache),
            (Current, 0, min_fresh(5), YES, FRESH, served),
            (Current, 0, min_fresh(6), YES, FRESH, no_cache),
            (Current, 5, NO_CACHE, YES, FRESH, no_cache),
            // A stale one within its window, where the client asks for nothing of its own.
            (Current, 5, NONE, YES, STALE, stale),
            (Current, 5, ONLY_IF_CACHED, YES, STALE, stale),
            (Current, 5, max_age(60), YES, STALE, expired),
            (Current, 5, min_fresh(0), YES, STALE, expired),
            (Current, 5, NO_CACHE, YES, STALE, expired),
            (Current, 0, NONE, YES, STALE, expired),
            (Current, 2, NONE, YES, STALE, expired),
            (Current, 5, NONE, YES, PAST_WINDOW, expired),
            // Freshness ends with its last millisecond.
            (Current, 5, NONE, YES, Wall(19_999), served),
            (Current, 5, NONE, YES, Wall(20_000), stale),
            (Current, 5, NONE, YES, Wall(24_999), stale),
            // A soft purge ends freshness, and the window counts from there.
            (SOFT, 5, NONE, YES, FRESH, stale),
            (SOFT, 5, NO_CACHE, YES, FRESH, expired),
            (SOFT, 5, max_age(60), YES, FRESH, expired),
            (SOFT, 0, NONE, YES, FRESH, expired),
            (SOFT, 5, NONE, YES, Wall(18_999), stale),
            (SOFT, 5, NONE, YES, Wall(19_000), expired),
            // After the end of its freshness a soft purge gives no new window.
            (SoftPurged(Wall(24_000)), 5, NONE, YES, PAST_WINDOW, expired),
            // What its tags refuse is served to nobody.
            (PURGED, 5, NONE, YES, FRESH, Err(Reason::Purged)),
            (PURGED, 5, NONE, YES, STALE, Err(Reason::Purged)),
            (PENDING, 5, NONE, YES, FRESH, Err(Reason::MutationPending)),
            // SECURITY: a caller who is not authorized is served nothing, fresh or stale.
            (Current, 5, NONE, NO, FRESH, Err(Reason::NotAdmitted)),
            (Current, 5, NONE, NO, STALE, Err(Reason::NotAdmitted)),
            (SOFT, 5, NONE, NO, FRESH, Err(Reason::NotAdmitted)),
            (Current, 5, NO_CACHE, NO, FRESH, Err(Reason::NotAdmitted)),
            // The first of several reasons: the client's, the tags', the caller's.
            (Current, 5, NO_STORE, YES, FRESH, Err(Reason::RequestNoStore)),
            (PURGED, 5, NO_STORE, NO, FRESH, Err(Reason::RequestNoStore)),
            (PURGED, 5, NO_CACHE, NO, FRESH, Err(Reason::Purged)),
        ];
        for (row, (proof, window, directives, authorized, now, expected)) in
            rows.into_iter().enumerate()
        {
            let decided = decide(proof, window, &directives, authorized, now);
            assert_eq!(
                decided, expected,
                "row {row}: {proof:?}, {window} s, {directives:?}, {authorized}, {now:?}"
            );
        }
    }
}
