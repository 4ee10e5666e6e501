//! A fill: asks the app for a whole response, shares it as it comes, and stores it once it is
//! proven whole and current.
//!
//! The fill is a task of its own: the leader is its first reader, and may leave like any other.
//! Where something is stored already, the app is asked whether that still holds; what it confirms
//! is stored anew only if nothing was purged since the tags were read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::cache::entry::{Entry, EntryMetadata};
use crate::cache::fills::{BodyWriter, Leader, PushOutcome, SharedBody, SharedHead};
use crate::cache::store::PendingEntry;
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::authorized_clients::AuthorizationId;
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::{Lookup, PolicyRules};
use crate::policy::route::Route;
use crate::policy::scope::Scope;
use crate::policy::tag::Tag;
use crate::proxy::miss::{FillReason, StaleCandidate};
use crate::proxy::response;
use crate::proxy::store_decision::StoreDecision;
use crate::proxy::{Proxy, ProxyResponse};
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::semantics::revalidation;
use crate::semantics::storability::StorePolicy;
use crate::telemetry::hot_tags::TagEvent;
use crate::upstream;

/// How far a body that will not be stored may run ahead of its slowest reader.
const UNSTORED_WINDOW: u64 = 256 * 1024;

/// How long the last chunk of a response waits until the response is stored.
const LAST_CHUNK_HOLD: Duration = Duration::from_millis(50);

/// How long a fill goes on that nobody reads.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a fill that waits for the app looks whether anybody reads.
const READER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What is left of a body that was moved.
struct BodyTail {
    last: Option<Bytes>,
    trailers: bool,
}

/// All that a fill needs once its request is gone.
pub(super) struct FillRequest {
    /// For the secret of its hashes, which no reload changes; the policy is the route's.
    pub(super) rules: Arc<PolicyRules>,
    pub(super) route: Arc<Route>,
    pub(super) primary: Key,
    pub(super) tags: Vec<Tag>,
    pub(super) snapshot: TagSnapshot,
    authorization: Option<AuthorizationId>,
    pub(super) host: String,
    pub(super) peer: ClientPeer,
    /// The target that the app sees, and the version the client spoke.
    target: Uri,
    version: Version,
    /// The headers that the app sees, before they are prepared for the wire and made conditional.
    pub(super) sent: HeaderMap,
    /// What is stored already.
    pub(super) stale: Option<StaleCandidate>,
}

impl FillRequest {
    /// Under which name the caller is admitted, in scope `shared`.
    pub(super) const fn authorization(&self) -> Option<AuthorizationId> {
        self.authorization
    }

    /// The version that the client spoke.
    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// The target and headers that the app sees.
    pub(super) fn origin_request(&self) -> (Uri, HeaderMap) {
        (self.target.clone(), self.sent.clone())
    }

    /// Whether an answer of this status says anything of what is stored: an accident does not.
    pub(super) fn supersedes(&self, status: StatusCode) -> bool {
        // SECURITY: in scope `shared` what one caller is refused is no news of the entry that
        // others share.
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && self.route.spec.scope == Scope::Shared;
        !refused && !status.is_server_error()
    }
}

/// What the leader gets to hear.
pub(super) enum FillResult {
    /// A head, a body, what the store makes of it, and whether it is what was stored, confirmed.
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        admitted: Result<i64, Reason>,
        confirmed: bool,
    },
    /// The app answered with a failure, and what is stored stands in for it.
    ServedStale(StatusCode),
    /// Another sidecar has filled: what it made may be in the store.
    RetryLookup,
    /// The app did not answer.
    Failed(upstream::UpstreamError),
}

/// What the app made of a fill's request.
struct OriginResponse {
    response: Response<Body>,
    requested: Wall,
    received: Wall,
    /// What is stored, if the app has confirmed it: the response is that one, with its head brought
    /// up to date.
    revalidated: Option<Arc<CachedEntry>>,
}

impl Proxy {
    /// Fetches a response, as the leader of a fill or for this request alone.
    pub(super) async fn fill(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        errand: FillReason,
        lead: Option<Leader>,
    ) -> ProxyResponse {
        let outcome = Outcome { forwarded: true, ..Outcome::miss(errand.reason) };
        let spare = errand.stale.clone();
        let order = self.fill_request(parts, lookup, peer, errand);
        let (tell, told) = oneshot::channel();
        let proxy = Arc::clone(self);
        self.tasks.spawn(async move { proxy.run_fill(order, lead, tell).await });
        self.respond_to_leader(parts, lookup, outcome, spare, told.await.ok())
    }

    /// The answer to the request that a fill was begun for.
    pub(super) fn respond_to_leader(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        outcome: Outcome,
        spare: Option<StaleCandidate>,
        told: Option<FillResult>,
    ) -> ProxyResponse {
        let route = Some(lookup.route.id);
        match (told, spare) {
            (
                Some(FillResult::Response { status, mut headers, body, admitted, confirmed }),
                spare,
            ) => {
                let fwd_status = if confirmed { StatusCode::NOT_MODIFIED } else { status };
                let disposition =
                    if confirmed { Disposition::Revalidated } else { Disposition::Miss };
                let outcome =
                    Outcome { disposition, fwd_status: Some(fwd_status.as_u16()), ..outcome };
                let outcome = match admitted {
                    Ok(ttl) => Outcome { stored: true, ttl: Some(ttl), ..outcome },
                    Err(reason) => Outcome { reason: Some(reason), ..outcome },
                };
                response::set_cache_status(&mut headers, &outcome);
                self.add_debug_headers(&mut headers, lookup);
                let response = response::conditional(&parts.headers, status, headers, body);
                let response = match spare {
                    // The whole is at hand; of a new response a range gets the whole, as it comes
                    // (RFC 9110 14.2).
                    Some(StaleCandidate { candidate: found, .. }) if confirmed && lookup.range => {
                        response::apply_range(
                            response,
                            &parts.headers,
                            &found.cached.entry.body,
                            self.config.load().settings.max_ranges,
                        )
                    }
                    _ => response,
                };
                ProxyResponse { response, outcome, route }
            }
            (Some(FillResult::ServedStale(status)), Some(spare)) => {
                self.counters.stale_if_error.inc();
                let outcome = Outcome {
                    fwd_status: Some(status.as_u16()),
                    reason: Some(Reason::UpstreamError),
                    ..outcome
                };
                self.serve_stale(parts, lookup, &spare, outcome, self.clock.wall())
            }
            (Some(FillResult::Failed(error)), spare) => {
                let stood_in = self.serve_stale_on_error(
                    parts,
                    lookup,
                    spare.as_ref(),
                    outcome.clone(),
                    error.reason(),
                );
                stood_in.unwrap_or_else(|| super::pass::failure_response(&error, &outcome, route))
            }
            // The task panicked, and its panic was logged.
            _ => super::pass::failure_response(
                &upstream::UpstreamError::Broken("the fill ended early".into()),
                &outcome,
                route,
            ),
        }
    }

    /// What a fill for this request needs to know.
    pub(super) fn fill_request(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        errand: FillReason,
    ) -> FillRequest {
        let (target, sent) = lookup.fill_request();
        FillRequest {
            rules: Arc::clone(&self.config.load().rules),
            route: Arc::clone(lookup.route),
            primary: lookup.key.clone(),
            tags: lookup.tags(),
            snapshot: errand.snapshot,
            authorization: lookup.authorization,
            host: lookup.host.clone().into_owned(),
            peer,
            target,
            version: parts.version,
            sent,
            stale: errand.stale,
        }
    }

    /// Carries out a fill. `tell` is for who asked for it, if anybody still listens.
    pub(super) async fn run_fill(
        self: Arc<Self>,
        order: FillRequest,
        lead: Option<Leader>,
        tell: oneshot::Sender<FillResult>,
    ) {
        let begun = self.clock.wall();
        let asked = match self.revalidate_or_fetch(&order).await {
            Ok(asked) => asked,
            Err(error) => {
                if let Some(lead) = lead {
                    let now = self.clock.wall();
                    lead.fail(error.reason(), now.since(begun), now);
                }
                let _ = tell.send(FillResult::Failed(error));
                return;
            }
        };
        let status = asked.response.status();
        self.record_authorization(&order, status);
        let mut lead = lead;
        if let (true, Some(spare)) = (is_failure(status), &order.stale) {
            if let Some(lead) = lead.take() {
                lead.fail(Reason::UpstreamError, asked.received.since(begun), asked.received);
            }
            if spare.may_serve_for(Reason::UpstreamError, asked.received) {
                let _ = tell.send(FillResult::ServedStale(status));
                return;
            }
        }
        if let Some(lead) = &lead {
            lead.clear_failure();
        }
        let OriginResponse { response, requested, received, revalidated: confirmed } = asked;
        match self.decide_store(&order, &response, requested, received, confirmed.clone()) {
            Ok(judged) => self.stream_and_store(order, lead, tell, response, judged).await,
            Err(reason) => {
                self.drop_stale(&order, status, confirmed.is_some(), reason).await;
                match lead {
                    // An accident, not a habit: the next one may try for all again.
                    Some(lead) if status.is_server_error() => lead.finish_unshared(),
                    Some(lead) => lead.finish_uncacheable(received),
                    None => {}
                }
                let (head, body) = self.prepare_head(&order.route, response, confirmed.is_some());
                let _ = tell.send(FillResult::Response {
                    status: head.0,
                    headers: head.1,
                    body,
                    admitted: Err(reason),
                    confirmed: confirmed.is_some(),
                });
            }
        }
    }

    /// The app has answered something else than what is stored, and it is not to be stored: what is
    /// stored is no longer what the app would say (RFC 9111 4.3.3), and must not come back as
    /// stale.
    async fn drop_stale(
        &self,
        order: &FillRequest,
        status: StatusCode,
        confirmed: bool,
        reason: Reason,
    ) {
        let Some(spare) = &order.stale else { return };
        // A confirmed response that only brings a cookie is still the same.
        let same = confirmed && matches!(reason, Reason::SetCookie | Reason::Unverifiable);
        if !same && order.supersedes(status) {
            self.store.forget(spare.key).await;
        }
    }

    /// Asks the app: whether what is stored still holds, if there is something, and else for the
    /// whole.
    async fn revalidate_or_fetch(
        &self,
        order: &FillRequest,
    ) -> Result<OriginResponse, upstream::UpstreamError> {
        // A stored error page has no validators that the app would know again.
        let spare = order
            .stale
            .as_ref()
            .map(|spare| &spare.candidate.cached)
            .filter(|resident| resident.entry.status == StatusCode::OK);
        if let Some(resident) =
            spare.filter(|resident| revalidation::has_validator(&resident.entry.headers))
        {
            let mut headers = order.sent.clone();
            revalidation::add_conditions(&resident.entry.headers, &mut headers);
            let asked = self.send_fill(order, headers).await?;
            if asked.response.status() != StatusCode::NOT_MODIFIED {
                return Ok(asked);
            }
            if revalidation::validates(&resident.entry.headers, asked.response.headers()) {
                self.counters.revalidated.inc();
                return Ok(revalidated(asked, resident));
            }
            // RFC 9111 4.3.4: it confirms something else. Nobody but us asked a condition, so
            // nobody else can use it.
        }
        self.send_fill(order, order.sent.clone()).await
    }

    async fn send_fill(
        &self,
        order: &FillRequest,
        headers: HeaderMap,
    ) -> Result<OriginResponse, upstream::UpstreamError> {
        let requested = self.clock.wall();
        let request = self.fill_upstream_request(
            Method::GET,
            order.version,
            order.target.clone(),
            headers,
            order.peer,
        );
        let response = self.send_to_origin(request, Some(order.route.id)).await?;
        Ok(OriginResponse { response, requested, received: self.clock.wall(), revalidated: None })
    }

    /// The app's own word on whether this credential may share the route's entries.
    fn record_authorization(&self, order: &FillRequest, status: StatusCode) {
        let Some(id) = order.authorization else { return };
        if status.is_success() {
            self.authorized_clients.authorize(id, self.clock.wall(), order.route.spec.admit_for);
        } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.authorized_clients.revoke(id);
        }
    }

    /// A HEAD has told the head of what is stored: it is stored with that head from now on, if it
    /// may be.
    pub(super) async fn update_head(
        &self,
        order: FillRequest,
        key: KeyHash,
        resident: &Arc<CachedEntry>,
        head: Response<Body>,
        requested: Wall,
    ) {
        let asked = OriginResponse {
            response: head,
            requested,
            received: self.clock.wall(),
            revalidated: None,
        };
        let OriginResponse { response, received, .. } = revalidated(asked, resident);
        let kept = match self.decide_store(
            &order,
            &response,
            requested,
            received,
            Some(Arc::clone(resident)),
        ) {
            Ok(judged) => {
                let ((status, headers), _) = self.prepare_head(&order.route, response, true);
                self.store_response(order, judged, status, &headers, &[]).await
            }
            Err(reason) => Err(reason),
        };
        if kept.is_err() {
            self.store.forget(key).await;
        }
    }

    pub(super) async fn stream_and_store(
        &self,
        order: FillRequest,
        lead: Option<Leader>,
        tell: oneshot::Sender<FillResult>,
        response: Response<Body>,
        judged: StoreDecision,
    ) {
        let confirmed = judged.revalidated.is_some();
        let ((status, headers), mut body) = self.prepare_head(&order.route, response, confirmed);
        let ttl = judged.policy.times.ttl_ms(judged.received).div_euclid(1000);
        let growing = SharedBody::new(self.store.largest(), UNSTORED_WINDOW, &self.fills.budget);
        let writing = BodyWriter(growing.clone());
        let mut shareable = headers.clone();
        response::strip_cookies(&mut shareable);
        let reader = growing.reader().map_or_else(Body::empty, Body::stream);
        let _ = tell.send(FillResult::Response {
            status,
            headers,
            body: reader,
            admitted: Ok(ttl),
            confirmed,
        });
        let mut lead = lead.and_then(|lead| {
            if !judged.policy.times.is_fresh(judged.received) {
                // RFC 9111 4: what has to be confirmed at each use is for the one who asked.
                if judged.policy.leeway.while_revalidate.is_zero() {
                    lead.finish_uncacheable(judged.received);
                } else {
                    lead.finish_unshared();
                }
                return None;
            }
            let (vary, variant) = (judged.policy.vary.clone(), judged.key.hash());
            let (headers, more_tags) = (shareable.clone(), judged.more_tags());
            lead.share(
                SharedHead {
                    status,
                    headers,
                    ttl,
                    revalidated: confirmed,
                    more_tags,
                    vary,
                    variant,
                },
                growing.clone(),
            );
            Some(lead)
        });
        let route = Arc::clone(&order.route);
        let pumped = match self.stream_body(&mut body, &growing, lead.as_mut()).await {
            Ok(pumped) => pumped,
            Err(reason) => {
                self.counters.store_aborted.count(reason, &route);
                return;
            }
        };
        let BodyTail { last, trailers } = pumped;
        let keeping = async {
            match growing.chunks() {
                Some(_) if trailers => Err(Reason::Trailers),
                Some(mut chunks) => {
                    chunks.extend(last.clone());
                    self.store_response(order, judged, status, &shareable, &chunks).await
                }
                None => {
                    self.store.memory.refused.inc();
                    Err(Reason::TooLarge)
                }
            }
        };
        // The last chunk is held back until the response is stored, so that who has all of it finds
        // it there; but not for long.
        tokio::pin!(keeping);
        let kept = tokio::time::timeout(LAST_CHUNK_HOLD, &mut keeping).await;
        if let Some(chunk) = &last {
            growing.push(chunk.clone()).await;
        }
        growing.complete();
        drop(writing);
        let kept = match kept {
            Ok(kept) => kept,
            Err(_) => keeping.await,
        };
        match (kept, &mut lead) {
            // Other sidecars hear of it when the lead is dropped.
            (Ok(()), Some(lead)) => lead.mark_stored(),
            (Ok(()), None) => {}
            (Err(reason), lead) => {
                if let (Reason::TooLarge, Some(lead)) = (reason, lead) {
                    lead.remember_uncacheable(self.clock.wall());
                }
                self.counters.store_aborted.count(reason, &route);
            }
        }
    }

    /// Moves the body to those who read it, but for its last chunk. Outgrown, the key is remembered
    /// as uncacheable.
    async fn stream_body(
        &self,
        body: &mut Body,
        growing: &SharedBody,
        mut lead: Option<&mut Leader>,
    ) -> Result<BodyTail, Reason> {
        let mut pumped = BodyTail { last: None, trailers: false };
        let mut unread_since = None;
        loop {
            let waited = tokio::time::timeout(READER_CHECK_INTERVAL, body.frame()).await;
            if growing.has_readers() {
                unread_since = None;
            } else if self
                .clock
                .now()
                .duration_since(*unread_since.get_or_insert_with(|| self.clock.now()))
                >= UNREAD_TIMEOUT
            {
                // Nobody has wanted it for long; a body without an end would hold its connection
                // for ever.
                return Err(Reason::ClientGone);
            }
            match waited {
                Err(_) => {}
                Ok(None) => return Ok(pumped),
                Ok(Some(Err(_))) => return Err(Reason::Truncated),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) if http_body::Body::is_end_stream(body) => pumped.last = Some(chunk),
                    Ok(chunk) => {
                        let pushed = growing.push(chunk).await;
                        if let Some(lead) = lead.take_if(|_| pushed != PushOutcome::Buffered) {
                            lead.remember_uncacheable(self.clock.wall());
                        }
                        if pushed == PushOutcome::NoReaders {
                            // Too large to be stored, and nobody reads on.
                            self.store.memory.refused.inc();
                            return Err(Reason::TooLarge);
                        }
                    }
                    Err(_) => pumped.trailers = true,
                },
            }
        }
    }

    async fn store_response(
        &self,
        order: FillRequest,
        judged: StoreDecision,
        status: StatusCode,
        headers: &HeaderMap,
        chunks: &[Bytes],
    ) -> Result<(), Reason> {
        let took = self.clock.wall().since(judged.requested);
        let named = judged.response_tags.into();
        let StoreDecision {
            key,
            policy: StorePolicy { times, leeway, vary },
            tags,
            received,
            revalidated: confirmed,
            ..
        } = judged;
        let facts = EntryMetadata { times, leeway, fetch_duration: took, response_tags: named };
        let entry = match confirmed {
            // What is confirmed at each use is not written at each use.
            Some(resident)
                if !times.is_fresh(received)
                    && revalidation::is_same_head(&resident.entry.headers, headers) =>
            {
                return Ok(());
            }
            Some(resident) => resident.entry.revalidated(key.canonical(), headers, facts),
            None => Entry::compact(key.canonical(), status, headers, chunks, facts),
        };
        if entry.body.len() as u64 > self.store.largest() {
            return Err(Reason::TooLarge);
        }
        let fresh = times.is_fresh(received);
        self.hot_tags.record(tags.iter().map(Tag::as_str), TagEvent::Stored);
        let draft = PendingEntry { primary: order.primary, vary, hash: key.hash(), entry, tags };
        self.store.store(&order.snapshot, draft, received).await?;
        if fresh {
            self.fills.mark_cacheable(key.hash());
        }
        Ok(())
    }

    /// The head and body that clients get, and entries keep. A head that was stored has been made
    /// ready before.
    fn prepare_head(
        &self,
        route: &Route,
        response: Response<Body>,
        was_stored: bool,
    ) -> ((StatusCode, HeaderMap), Body) {
        let version = response.version();
        let (mut parts, body) = response.into_parts();
        if !was_stored {
            forward::prepare_response(&mut parts.headers, version);
            revalidation::ensure_date(&mut parts.headers, self.clock.wall());
        }
        let tags = &route.response_rules.response_tags;
        if !tags.keep {
            for name in &tags.headers {
                parts.headers.remove(name);
            }
        }
        ((parts.status, parts.headers), body)
    }
}

/// The failures that a stale response may stand in for (RFC 5861 4).
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The stored response, its head brought up to date by the app's 304 or by the head that a HEAD
/// got.
fn revalidated(asked: OriginResponse, resident: &Arc<CachedEntry>) -> OriginResponse {
    let (mut update, _) = asked.response.into_parts();
    forward::prepare_response(&mut update.headers, update.version);
    let entry = &resident.entry;
    let mut response = Response::new(Body::full(entry.body.clone()));
    *response.status_mut() = entry.status;
    *response.headers_mut() = revalidation::merge(&entry.headers, &update.headers, asked.received);
    OriginResponse { response, revalidated: Some(Arc::clone(resident)), ..asked }
}
