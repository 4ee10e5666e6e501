//! Nothing that may be served is stored: the app is asked, once for all who ask at the same time.
//!
//! Invariants:
//! - A stale response stands in for the app only if it is not void, its window is open, and neither
//!   the app nor the client forbids it.
//! - Of those who wait for a fill that fails, each tries for itself at most once.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};

use crate::cache::fills::{BodyReader, FillKey, FillRole, JoinOutcome, SharedHead};
use crate::cache::store::Candidate;
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::proxy::response;
use crate::proxy::{Proxy, ProxyResponse};
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;

/// A stored response that is current but not to be served as it is: the app may confirm it, or fail
/// so that it stands in.
#[derive(Clone, Debug)]
pub(super) struct StaleCandidate {
    pub(super) candidate: Candidate,
    /// What it is stored under.
    pub(super) key: KeyHash,
    /// Whether this caller may be served it when the app fails.
    pub(super) may_serve_on_error: bool,
}

impl StaleCandidate {
    /// Whether it stands in for the app, which failed for this reason.
    pub(super) fn may_serve_for(&self, reason: Reason, now: Wall) -> bool {
        let entry = &self.candidate.cached.entry;
        let window = match reason {
            Reason::UpstreamError => entry.leeway.if_error,
            Reason::UpstreamUnreachable
            | Reason::UpstreamTimeout
            | Reason::UpstreamProtocolError
            | Reason::UpstreamBusy => entry.leeway.unreachable,
            _ => return false,
        };
        // A response that is fresh, but not fresh enough for this client, does not stand in either.
        self.may_serve_on_error && self.candidate.is_within(window, now)
    }
}

/// Why the app is asked, and what is known before it is.
#[derive(Debug)]
pub(super) struct FillReason {
    /// The state of the tags, read before.
    pub(super) snapshot: TagSnapshot,
    /// Why nothing was served.
    pub(super) reason: Reason,
    /// What is stored all the same.
    pub(super) stale: Option<StaleCandidate>,
}

impl Proxy {
    /// Fetches a response, for all who ask for it now. None: another fill has just stored it, so
    /// look into the store again.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        mut flight: FillKey,
        errand: FillReason,
        may_look_again: bool,
    ) -> Option<ProxyResponse> {
        let FillReason { reason: why, stale: spare, .. } = &errand;
        if let Some(reason) = self.fills.failed_slowly(&flight, self.clock.wall())
            && let Some(answer) = self.serve_stale_on_error(
                parts,
                lookup,
                spare.as_ref(),
                Outcome::new(Disposition::Stale),
                reason,
            )
        {
            // Nobody waits a second time for an app that hangs; it is asked behind their backs.
            self.refresh(parts, lookup, peer, flight, errand);
            return Some(answer);
        }
        let mut may_try_again = true;
        // Once by the key that is known; once more when a fill has told what the response varies
        // by, and once when it has failed.
        for _ in 0..3 {
            let follow = match self.fills.role(flight, &errand.snapshot, self.clock.wall()) {
                FillRole::Leader(lead) => {
                    if may_look_again
                        && *why != Reason::RequestNoCache
                        && self.is_already_filled(&flight, &errand)
                    {
                        lead.retry_lookup();
                        return None;
                    }
                    return match self
                        .cluster_fill(lookup.route, &flight, &errand)
                        .filter(|_| may_look_again)
                    {
                        Some(shared) => {
                            self.fill_in_cluster(parts, lookup, peer, errand, lead, shared).await
                        }
                        None => Some(self.fill(parts, lookup, peer, errand, Some(lead)).await),
                    };
                }
                FillRole::Alone => break,
                FillRole::Follower(follow) => follow,
            };
            match follow.join(&errand.snapshot, |vary| lookup.variant_hash(vary)).await {
                JoinOutcome::Shared(head, reader) => {
                    return Some(self.respond_shared(parts, lookup, &head, reader, *why));
                }
                JoinOutcome::OtherVariant(head) => flight.hash = lookup.variant_hash(&head.vary),
                JoinOutcome::RetryLookup if may_look_again => return None,
                JoinOutcome::Alone | JoinOutcome::RetryLookup => break,
                JoinOutcome::Failed(reason) => {
                    let outcome =
                        Outcome { collapsed: true, forwarded: true, ..Outcome::miss(*why) };
                    if let Some(answer) = self.serve_stale_on_error(
                        parts,
                        lookup,
                        spare.as_ref(),
                        outcome.clone(),
                        reason,
                    ) {
                        return Some(answer);
                    }
                    let quick = matches!(
                        reason,
                        Reason::UpstreamUnreachable | Reason::UpstreamProtocolError
                    );
                    if reason == Reason::UpstreamError {
                        // The app did answer, and this request may get its answer.
                        break;
                    }
                    if !(quick && std::mem::take(&mut may_try_again)) {
                        let outcome = Outcome { reason: Some(reason), ..outcome };
                        return Some(ProxyResponse {
                            response: response::failure(reason, &outcome),
                            outcome,
                            route: Some(lookup.route.id),
                        });
                    }
                }
            }
        }
        Some(self.fill(parts, lookup, peer, errand, None).await)
    }

    /// Whether a fill that ended after this request looked into the store has brought what it is
    /// after.
    pub(super) fn is_already_filled(&self, flight: &FillKey, errand: &FillReason) -> bool {
        let known = errand.stale.as_ref().map(|spare| spare.candidate.cached.entry.times.received);
        // SECURITY: who is not admitted is not served what another caller's fill has brought.
        flight.caller.is_none()
            && self.store.has_newer(flight.hash, known, &errand.snapshot, self.clock.wall())
    }

    /// A request with a header that no key has seen. The app may answer that its response varies by
    /// this very header: then the key of the variant has seen it, and the response is stored.
    /// Otherwise the cache takes no part, as `outcome` says.
    pub(super) async fn pass_unkeyed(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        outcome: Outcome,
    ) -> ProxyResponse {
        // Where a fill would send the app anything else than the client did, the request passes
        // untouched.
        if parts.method != Method::GET || !lookup.is_sent_unchanged() {
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        }
        let read = self.store.read(&lookup.tags()).await;
        // SECURITY: what is stored, and did not vary by it, is not pushed out by a stranger's
        // header.
        if self.store.has_newer(lookup.key.hash(), None, &read, self.clock.wall()) {
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        }
        let why = if self.store.known_vary(&lookup.key).is_some() {
            Reason::VaryMiss
        } else {
            Reason::NotStored
        };
        let answer = self
            .fill(
                parts,
                lookup,
                peer,
                FillReason { snapshot: read, reason: why, stale: None },
                None,
            )
            .await;
        if answer.outcome.stored {
            return answer;
        }
        let outcome = match answer.outcome.fwd_status {
            Some(status) => Outcome { fwd_status: Some(status), ..outcome },
            // The app did not answer.
            None => Outcome { reason: answer.outcome.reason, ..Outcome::new(Disposition::Bypass) },
        };
        let mut response = answer.response;
        response::replace_cache_status(response.headers_mut(), &outcome);
        ProxyResponse { response, outcome, ..answer }
    }

    /// The stored response in place of the app's, which failed for this reason, if it may stand in.
    pub(super) fn serve_stale_on_error(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        spare: Option<&StaleCandidate>,
        outcome: Outcome,
        reason: Reason,
    ) -> Option<ProxyResponse> {
        let now = self.clock.wall();
        let spare = spare.filter(|spare| spare.may_serve_for(reason, now))?;
        self.counters.stale_if_error.inc();
        Some(self.serve_stale(
            parts,
            lookup,
            spare,
            Outcome { reason: Some(reason), ..outcome },
            now,
        ))
    }

    /// Serves a stored response although it is stale.
    pub(super) fn serve_stale(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        spare: &StaleCandidate,
        outcome: Outcome,
        now: Wall,
    ) -> ProxyResponse {
        let ttl = Some(spare.candidate.ttl_ms(now).div_euclid(1000));
        let saved = (!outcome.forwarded).then_some(spare.candidate.cached.entry.fetch_duration);
        let outcome = Outcome {
            disposition: Disposition::Stale,
            tier: Some(spare.candidate.tier),
            ttl,
            saved,
            ..outcome
        };
        self.respond_from(parts, lookup, &spare.candidate.cached, outcome, now)
    }

    fn respond_shared(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        head: &SharedHead,
        reader: BodyReader,
        why: Reason,
    ) -> ProxyResponse {
        let outcome = Outcome { collapsed: true, ttl: Some(head.ttl), ..Outcome::miss(why) };
        let outcome = if head.revalidated {
            Outcome {
                disposition: Disposition::Revalidated,
                fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()),
                ..outcome
            }
        } else {
            Outcome { fwd_status: Some(head.status.as_u16()), ..outcome }
        };
        let mut headers = head.headers.clone();
        response::set_cache_status(&mut headers, &outcome);
        self.add_debug_headers(&mut headers, lookup);
        let response =
            response::conditional(&parts.headers, head.status, headers, Body::stream(reader));
        ProxyResponse { response, outcome, route: Some(lookup.route.id) }
    }

    /// What a fill for this request is of.
    pub(super) fn fill_key(&self, lookup: &Lookup<'_>, key: &Key) -> FillKey {
        FillKey { hash: key.hash(), caller: self.unauthorized_caller(lookup) }
    }

    /// Who may not share a fill with others: a credential that the app has not admitted.
    fn unauthorized_caller(&self, lookup: &Lookup<'_>) -> Option<[u8; 32]> {
        let id = lookup.authorization?;
        if self.authorized_clients.is_authorized(id, self.clock.wall()) {
            return None;
        }
        let mut caller = [0; 32];
        caller[..16].copy_from_slice(&id.0.to_be_bytes());
        Some(caller)
    }
}
