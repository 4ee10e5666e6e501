//! The second half of a fill: moves the body to its readers as it comes, and stores the response at
//! its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::cache::encoder::EncodeJob;
use crate::cache::entry::EntryMetadata;
use crate::cache::fills::{BodyWriter, Leader, PushOutcome, SharedBody, SharedHead};
use crate::cache::store::PendingEntry;
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::route::Route;
use crate::policy::surrogate::CarriedTags;
use crate::proxy::fill::authorization::{digest_for_sharing, record_body, record_confirmation};
use crate::proxy::fill::coding::new_entry;
use crate::proxy::fill::guest_proof::GuestProof;
use crate::proxy::fill::request::{FillRequest, FillResult};
use crate::proxy::hit::named;
use crate::proxy::identity;
use crate::proxy::resources::Resources;
use crate::proxy::shareable_head::ShareableHead;
use crate::proxy::store_decision::StoreDecision;
use crate::semantics::body::Body;
use crate::semantics::content_coding::note_choice;
use crate::semantics::forward;
use crate::semantics::revalidation;
use crate::semantics::storability::StorePolicy;
use crate::telemetry::hot_tags::TagEvent;

/// How far a body that will not be stored may run ahead of its slowest reader.
const UNSTORED_WINDOW: u64 = 256 * 1024;

/// How long the last chunk of a response waits until the response is stored.
const LAST_CHUNK_HOLD: Duration = Duration::from_millis(50);

/// How long a fill goes on without readers.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a fill that waits for the origin checks whether anybody reads.
const READER_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The end of a body, which its readers do not have yet.
struct BodyTail {
    last: Option<Bytes>,
    trailers: bool,
}

/// Sends the head to the request that began the fill, streams the body, and stores both.
pub(crate) async fn stream_and_store(
    resources: &Resources,
    request: FillRequest,
    leader: Option<Leader>,
    sender: oneshot::Sender<FillResult>,
    response: Response<Body>,
    (mut decision, proof): (StoreDecision, Option<GuestProof>),
) {
    let revalidated = decision.revalidated.is_some();
    let now = resources.clock.date();
    let call = response.extensions().get().cloned();
    let ((status, headers), mut body) = prepare_head(&request, response, revalidated, now);
    let ttl = note_freshness(resources, &request, &decision);
    let shared_body =
        SharedBody::new(resources.store.largest(), UNSTORED_WINDOW, &resources.fills.budget);
    let writer = BodyWriter(shared_body.clone());
    let shareable = ShareableHead::new(headers.clone());
    if let Some(confirmed) = &decision.revalidated {
        record_confirmation(resources, &request, confirmed, shareable.fields());
    }
    let (headers, named) = name_tags(&request, &decision, headers);
    let body_reader = shared_body.reader().map_or_else(Body::empty, Body::stream);
    let _ = sender.send(FillResult::Response {
        status,
        headers,
        body: body_reader,
        stored: Ok(ttl),
        revalidated,
        date_skew: decision.date_skew,
        vary: decision.policy.vary.clone(),
        origin: call,
    });
    let share = |leader: Leader| {
        let head = || SharedHead {
            status,
            headers: named.fields().clone(),
            ttl,
            revalidated,
            more_tags: decision.more_tags(),
            vary: decision.policy.vary.clone(),
            variant: decision.key.hash(),
            digest: digest_for_sharing(&request, &decision, shareable.fields()),
        };
        let_follow(leader, head, &shared_body, &decision)
    };
    // What is to be proven first is shared afterwards; what is confirmed at the end, once stored.
    let is_shared_later = proof.is_some() || request.identity.is_some();
    let mut leader = if is_shared_later { leader } else { leader.and_then(share) };
    let route = Arc::clone(&request.route);
    let streamed = stream_body(resources, &mut body, &shared_body, leader.as_mut()).await;
    let mut tail = match streamed {
        Ok(tail) => tail,
        Err(reason) => return resources.counters.store_aborted.count(reason, &route),
    };
    if let Some(proof) = proof {
        let head = (status, shareable.fields());
        // Boxed: only fills for guests carry it around.
        let proven = Box::pin(prove(resources, &request, proof, head, &shared_body, &mut tail));
        if let Err(reason) = proven.await {
            return resources.counters.store_aborted.count(reason, &route);
        }
        leader = leader.and_then(share);
    }
    decision.encode =
        encode_job(resources, &request, &decision, (status, &shareable), (&shared_body, &tail));
    let is_slow = decision.encode.as_ref().is_some_and(EncodeJob::takes_long);
    let hold = if is_slow { Duration::ZERO } else { LAST_CHUNK_HOLD };
    // Boxed: it is held beside the end of the body, and not only after it.
    let storing = Box::pin(store_body(
        resources,
        request,
        decision,
        (status, &shareable),
        &shared_body,
        &tail,
    ));
    let stored = end_body(storing, hold, (&shared_body, &tail), writer).await;
    end_fill(resources, leader, stored, &route);
}

/// Gives the readers the end of a body, and returns what has become of storing it. The last chunk
/// is held back until the response is stored, so that a client that has the whole of it finds it
/// stored; but not for long, and not for what is coded beside.
async fn end_body(
    storing: impl Future<Output = Result<(), Reason>>,
    hold: Duration,
    (shared_body, tail): (&SharedBody, &BodyTail),
    writer: BodyWriter,
) -> Result<(), Reason> {
    tokio::pin!(storing);
    let stored = tokio::time::timeout(hold, &mut storing).await;
    if let Some(chunk) = &tail.last {
        shared_body.push(chunk.clone()).await;
    }
    shared_body.complete();
    drop(writer);
    match stored {
        Ok(stored) => stored,
        Err(_) => storing.await,
    }
}

/// The head with the names of its tags for CDNs, for the request that began the fill and for those
/// that follow. What is stored has no such names: the rules for them may change.
fn name_tags(
    request: &FillRequest,
    decision: &StoreDecision,
    mut headers: HeaderMap,
) -> (HeaderMap, ShareableHead) {
    let carried = CarriedTags { tags: &decision.tags, is_complete: !decision.reads_body };
    request.config.settings.name_tags(&request.route, &mut headers, carried);
    (headers.clone(), ShareableHead::new(headers))
}

/// Tells the others how a fill has ended.
fn end_fill(
    resources: &Resources,
    mut leader: Option<Leader>,
    stored: Result<(), Reason>,
    route: &Route,
) {
    match (stored, &mut leader) {
        // The other sidecars are notified when the leader is dropped.
        (Ok(()), Some(leader)) => leader.mark_stored(),
        (Ok(()), None) => {}
        (Err(reason), leader) => {
            if let (true, Some(leader)) = (is_habit(reason), leader) {
                leader.remember_uncacheable(resources.clock.wall());
            }
            resources.counters.store_aborted.count(reason, route);
        }
    }
}

/// Proves a response to be the same for all guests. The guest who began the fill gets the end of it
/// before, and does not wait for the others' sake.
async fn prove(
    resources: &Resources,
    request: &FillRequest,
    proof: GuestProof,
    head: (StatusCode, &HeaderMap),
    shared_body: &SharedBody,
    tail: &mut BodyTail,
) -> Result<(), Reason> {
    if let Some(chunk) = tail.last.take() {
        shared_body.push(chunk).await;
    }
    shared_body.complete();
    let proven = proof.prove(resources, request, head, shared_body.chunks()).await;
    if let (Err(Reason::GuestsDiffer), Some(stale)) = (proven, &request.stale) {
        // It is no longer what the origin sends to everybody.
        resources.store.forget(stale.key).await;
    }
    proven
}

/// Whether the next response for the same key will be dropped for the same reason.
const fn is_habit(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TooLarge | Reason::TooManyTags | Reason::TagsUnread | Reason::TagBodyTooLarge
    )
}

/// Notes how long such a response is fresh, and returns for how many seconds this one will be
/// served; negative if it is stale already.
fn note_freshness(resources: &Resources, request: &FillRequest, decision: &StoreDecision) -> i64 {
    let policy = &decision.policy;
    let (route, from) = (Some(request.route.id), policy.lifetime_from);
    request.config.table.stored(route, policy.stated_lifetime(), from);
    let ttl = policy.times.ttl_ms(decision.received);
    resources.coherence.limit_new_ttl_ms(&request.snapshot, ttl).div_euclid(1000)
}

/// Lets the followers read along, where the response is fresh.
fn let_follow(
    leader: Leader,
    head: impl FnOnce() -> SharedHead,
    body: &SharedBody,
    decision: &StoreDecision,
) -> Option<Leader> {
    if !decision.policy.times.is_fresh(decision.received) {
        // RFC 9111 4: a response that must be confirmed at each use is for the request that fetched
        // it.
        if decision.policy.leeway.while_revalidate.is_zero() {
            leader.finish_uncacheable(decision.received);
        } else {
            leader.finish_unshared();
        }
        return None;
    }
    leader.share(head(), body.clone());
    Some(leader)
}

/// Moves the body to its readers, apart from its last chunk. Where it outgrows the store, the key
/// is remembered as uncacheable.
async fn stream_body(
    resources: &Resources,
    body: &mut Body,
    shared_body: &SharedBody,
    mut leader: Option<&mut Leader>,
) -> Result<BodyTail, Reason> {
    let clock = &resources.clock;
    let mut tail = BodyTail { last: None, trailers: false };
    let mut unread_since = None;
    loop {
        let frame = tokio::time::timeout(READER_CHECK_INTERVAL, body.frame()).await;
        if shared_body.has_readers() {
            unread_since = None;
        } else if clock.now().duration_since(*unread_since.get_or_insert_with(|| clock.now()))
            >= UNREAD_TIMEOUT
        {
            // A body without an end that nobody reads would hold its connection for ever.
            return Err(Reason::ClientGone);
        }
        match frame {
            Err(_) => {}
            Ok(None) => return Ok(tail),
            Ok(Some(Err(_))) => return Err(Reason::Truncated),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(chunk) if http_body::Body::is_end_stream(body) => tail.last = Some(chunk),
                Ok(chunk) => {
                    let pushed = shared_body.push(chunk).await;
                    if let Some(leader) = leader.take_if(|_| pushed != PushOutcome::Buffered) {
                        leader.remember_uncacheable(clock.wall());
                    }
                    if pushed == PushOutcome::NoReaders {
                        // It is too large to be stored, and nobody reads on.
                        resources.store.memory.refused.inc();
                        return Err(Reason::TooLarge);
                    }
                }
                Err(_) => tail.trailers = true,
            },
        }
    }
}

/// What codes a new response before it is stored. What stays as it is, is counted.
fn encode_job(
    resources: &Resources,
    request: &FillRequest,
    decision: &StoreDecision,
    (status, head): (StatusCode, &ShareableHead),
    (shared_body, tail): (&SharedBody, &BodyTail),
) -> Option<EncodeJob> {
    let coding = request.coding().filter(|_| decision.revalidated.is_none())?;
    let mut chunks = shared_body.chunks()?;
    chunks.extend(tail.last.clone());
    let job = coding.job((status, head.fields()), chunks);
    job.inspect_err(|reason| resources.encoder.counters.plain(*reason).inc()).ok()
}

/// Stores a response whose body has come to its end.
async fn store_body(
    resources: &Resources,
    request: FillRequest,
    mut decision: StoreDecision,
    (status, head): (StatusCode, &ShareableHead),
    shared_body: &SharedBody,
    tail: &BodyTail,
) -> Result<(), Reason> {
    match shared_body.chunks() {
        Some(_) if tail.trailers => Err(Reason::Trailers),
        Some(mut chunks) => {
            chunks.extend(tail.last.clone());
            let told = decision.add_body_tags(&request, &chunks);
            told.inspect_err(|reason| resources.counters.note_unread(*reason))?;
            let (key, is_new) = (decision.key.hash(), decision.revalidated.is_none());
            let stored =
                store_response(resources, &request, decision, status, head, &chunks).await?;
            if is_new {
                record_body(resources, &request, key, &stored.entry);
            }
            Ok(())
        }
        None => {
            resources.store.memory.refused.inc();
            Err(Reason::TooLarge)
        }
    }
}

/// Stores a response that is whole.
pub(super) async fn store_response(
    resources: &Resources,
    request: &FillRequest,
    decision: StoreDecision,
    status: StatusCode,
    head: &ShareableHead,
    chunks: &[Bytes],
) -> Result<Arc<CachedEntry>, Reason> {
    let headers = head.fields();
    if resources.overlap.passes() {
        return Err(Reason::Handover);
    }
    if let Some(check) = &request.identity {
        let asking = identity::is_same_caller(resources, &request.config, check, request.peer);
        if !Box::pin(asking).await {
            return Err(Reason::IdentityUnconfirmed);
        }
    }
    let fetch_duration = resources.clock.wall().since(decision.requested);
    let response_tags = decision.response_tags.into();
    let StoreDecision {
        key,
        policy: StorePolicy { times, leeway, vary, lifetime_from: _ },
        tags,
        received,
        revalidated,
        encode,
        ..
    } = decision;
    let facts = EntryMetadata { times, leeway, fetch_duration, response_tags };
    let entry = match revalidated {
        // A response that is confirmed at each use is not written at each use.
        Some(cached)
            if !times.is_fresh(received)
                && revalidation::is_same_head(&cached.entry.headers(), headers) =>
        {
            return Ok(cached);
        }
        Some(cached) => cached.entry.revalidated(key.canonical(), headers, facts),
        None => {
            let head = (status, headers);
            let coding = new_entry(resources, key.canonical(), head, chunks, facts, encode);
            Box::pin(coding).await
        }
    };
    if entry.body.len() as u64 > resources.store.largest() {
        return Err(Reason::TooLarge);
    }
    let fresh = times.is_fresh(received);
    resources.hot_tags.record(named(&tags), TagEvent::Stored);
    let pending =
        PendingEntry { primary: request.primary.clone(), vary, hash: key.hash(), entry, tags };
    let stored = resources.store.store(&request.snapshot, pending, received).await?;
    if fresh {
        resources.fills.mark_cacheable(key.hash());
    }
    Ok(stored)
}

/// The head and body that clients get and entries keep. A head that was stored is ready already.
/// `now` is for a head without a date.
pub(super) fn prepare_head(
    request: &FillRequest,
    response: Response<Body>,
    was_stored: bool,
    now: Wall,
) -> ((StatusCode, HeaderMap), Body) {
    let version = response.version();
    let (mut parts, body) = response.into_parts();
    if !was_stored {
        forward::prepare_response(&mut parts.headers, version);
        revalidation::ensure_date(&mut parts.headers, now);
    }
    if request.coding().is_some() {
        note_choice(parts.status, &mut parts.headers);
    }
    request.route.response_rules.response_tags.withhold(&mut parts.headers);
    ((parts.status, parts.headers), body)
}
