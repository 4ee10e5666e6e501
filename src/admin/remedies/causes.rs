//! What is known of a route's keys and cookies, as the cause of a reason: which one is at fault,
//! and the way out.

use super::evidence::KeyEvidence;
use super::proposal::Proposal;
use super::{set_cookies, varying};
use crate::outcome::Reason;
use crate::policy::route::Route;

/// What a reason is about, by what is known: `parameter _`, `cookie session`.
pub(crate) fn subjects(evidence: &KeyEvidence, reason: Reason) -> Vec<String> {
    if is_of_keys(reason) {
        evidence.varying.iter().map(varying::subject).collect()
    } else {
        Vec::new()
    }
}

/// What was seen, and the way out of it, for a reason that it explains.
pub(super) fn words(evidence: &KeyEvidence, reason: Reason, route: &Route) -> Option<String> {
    match reason {
        _ if is_of_keys(reason) => varying::words(evidence, route),
        Reason::SetCookie | Reason::WithheldHeader => set_cookies::words(evidence, route),
        _ => None,
    }
}

/// The change that may help.
pub(super) fn proposal(evidence: &KeyEvidence, reason: Reason, route: &Route) -> Option<Proposal> {
    match reason {
        _ if is_of_keys(reason) => varying::proposal(evidence, route),
        Reason::SetCookie => set_cookies::proposal(evidence, route),
        _ => None,
    }
}

/// Whether a request misses for this reason if its key differs from all others.
const fn is_of_keys(reason: Reason) -> bool {
    matches!(reason, Reason::NotStored | Reason::VaryMiss | Reason::NotAdmitted)
}
