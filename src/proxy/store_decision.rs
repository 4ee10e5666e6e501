//! Whether the response of a fill may be stored, by its head: under which key, for how long, with
//! which tags.
//!
//! `semantics/storability.rs` owns the rules of HTTP; here the route, the tags and the limits join
//! them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};

use crate::cache::encoder::EncodeJob;
use crate::cache::store::memory::CachedEntry;
use crate::cache::store::{LookupKey as _, Store};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::cache_groups;
use crate::policy::graphql::is_whole_answer;
use crate::policy::key::Key;
use crate::policy::response_fields::is_plain_json;
use crate::policy::route::HeaderRole;
use crate::policy::scope::Scope;
use crate::policy::tag;
use crate::policy::tag::Tag;
use crate::proxy::fill::request::FillRequest;
use crate::semantics::body::Body;
use crate::semantics::freshness;
use crate::semantics::media_type::is_event_stream;
use crate::semantics::negotiation;
use crate::semantics::storability;
use crate::semantics::storability::{Exchange, StorePolicy, StoreRules};
use crate::upstream::CloseDelimited;

/// A response that may be stored.
pub(crate) struct StoreDecision {
    /// The key of its variant.
    pub(super) key: Key,
    pub(super) policy: StorePolicy,
    /// All tags.
    pub(super) tags: Vec<Tag>,
    /// Those that the request does not name.
    pub(super) response_tags: Vec<Tag>,
    /// Whether the body tells further tags.
    pub(super) reads_tags: bool,
    /// Whether it must be read before it is stored.
    pub(super) reads_body: bool,
    pub(super) requested: Wall,
    pub(super) received: Wall,
    /// How many seconds the origin's `Date` is ahead.
    pub(super) date_skew: i64,
    /// What was stored before, where the origin has confirmed it.
    pub(super) revalidated: Option<Arc<CachedEntry>>,
    /// What codes its body before it is stored.
    pub(super) encode: Option<EncodeJob>,
}

impl StoreDecision {
    /// Whether the response named tags that the request does not, or may do so in its body.
    pub(super) fn more_tags(&self) -> bool {
        self.reads_tags || !self.response_tags.is_empty()
    }

    /// Adds the tags that the body tells, which is whole. That of a GraphQL endpoint is stored
    /// without errors alone.
    ///
    /// # Errors
    /// Why nothing may be stored: a purge might miss it.
    pub(super) fn add_body_tags(
        &mut self,
        request: &FillRequest,
        chunks: &[Bytes],
    ) -> Result<(), Reason> {
        if !self.reads_body {
            return Ok(());
        }
        let settings = &request.config.settings;
        if chunks.iter().map(Bytes::len).sum::<usize>() as u64 > settings.tag_body {
            return Err(Reason::TagBodyTooLarge);
        }
        let body = match chunks {
            [whole] => Cow::Borrowed(&**whole),
            chunks => Cow::Owned(chunks.concat()),
        };
        if request.route.spec.graphql && !is_whole_answer(&body) {
            return Err(Reason::GraphqlAnswer);
        }
        let mut told = Vec::new();
        for template in &request.templates {
            template.entry_tags(&body, settings.max_tags, &mut told)?;
        }
        let mut seen: HashSet<Tag> = self.tags.iter().cloned().collect();
        told.retain(|tag| seen.insert(tag.clone()));
        if seen.len() > settings.max_tags {
            return Err(Reason::TooManyTags);
        }
        self.tags.extend(told.iter().cloned());
        self.response_tags.extend(told);
        Ok(())
    }
}

/// Whether this response may be stored, and how; or why not. `times` are when the origin was asked,
/// and when its response arrived.
pub(super) fn decide_store(
    store: &Store,
    request: &FillRequest,
    response: &Response<Body>,
    (requested, received): (Wall, Wall),
    revalidated: Option<Arc<CachedEntry>>,
) -> Result<StoreDecision, Reason> {
    let dated = store.date_of(received);
    let exchange = Exchange {
        request: &request.sent,
        status: response.status(),
        response: response.headers(),
        requested,
        received,
        dated,
    };
    let stripped = request.strips(response.headers(), received);
    let rules = store_rules(request, stripped.is_ok());
    let policy = storability::store_policy(&rules, &exchange);
    let mut policy = policy.map_err(|reason| match (reason, stripped) {
        (Reason::SetCookie, Err(why)) => why,
        _ => reason,
    })?;
    policy.vary =
        request.route.variants_by(&policy.vary, &request.roles).map_err(|_| Reason::VaryStar)?;
    if request.route.spec.scope == Scope::Shared && !response.status().is_success() {
        // SECURITY: what the origin answers to a caller whom it turns away is for that caller.
        return Err(Reason::Status);
    }
    if is_event_stream(response.headers()) {
        // It has no end, and its events are for those who listen now.
        return Err(Reason::EventStream);
    }
    if !accepts_coding(request, response.headers(), revalidated.as_deref()) {
        return Err(Reason::ContentCoding);
    }
    if response.extensions().get::<CloseDelimited>().is_some() {
        // Nobody can tell whether such a body is whole.
        return Err(Reason::Unframed);
    }
    if !matches!(request.snapshot, TagSnapshot::Local(_) | TagSnapshot::Shared(..)) {
        return Err(Reason::Unverifiable);
    }
    let length = stated_length(response.headers());
    if length.is_some_and(|length| length > store.largest()) {
        store.memory.refused.inc();
        return Err(Reason::TooLarge);
    }
    // What was stored and is confirmed has its tags.
    let reads_tags = !request.templates.is_empty() && revalidated.is_none();
    let reads_body = reads_tags || (request.route.spec.graphql && revalidated.is_none());
    if reads_body {
        check_tag_body(request, response.headers(), length)?;
    }
    let response_tags = response_tags(request, response.headers(), revalidated.as_deref())?;
    let tags = tag::of_entry(&request.tags, &response_tags);
    if tags.len() > request.config.settings.max_tags {
        return Err(Reason::TooManyTags);
    }
    let key = if policy.vary.is_empty() {
        request.primary.clone()
    } else {
        request.variant(&policy.vary)
    };
    Ok(StoreDecision {
        date_skew: date_skew(store, response.headers(), (requested, received)),
        key,
        policy,
        tags,
        response_tags,
        reads_tags,
        reads_body,
        requested,
        received,
        revalidated,
        encode: None,
    })
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the coding of a response is one that the fill accepted.
fn accepts_coding(
    request: &FillRequest,
    headers: &HeaderMap,
    revalidated: Option<&CachedEntry>,
) -> bool {
    if revalidated.is_some_and(|cached| cached.entry.original().is_some()) {
        // The cache has coded it, for clients with this key.
        return true;
    }
    // What the operator passes is told apart by its very value, where the response is coded.
    let is_passed =
        request.route.headers.role(&ACCEPT_ENCODING, &request.roles) == HeaderRole::Passed;
    let accepted = request.sent.get(ACCEPT_ENCODING).map(HeaderValue::as_bytes);
    is_passed || negotiation::accepts_codings(accepted.unwrap_or_default(), headers)
}

/// Whether tags can be read from a body with this head, or why not.
fn check_tag_body(
    request: &FillRequest,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<(), Reason> {
    if !is_plain_json(headers) {
        let is_endpoint = request.route.spec.graphql;
        return Err(if is_endpoint { Reason::GraphqlAnswer } else { Reason::TagsUnread });
    }
    if length.is_some_and(|length| length > request.config.settings.tag_body) {
        return Err(Reason::TagBodyTooLarge);
    }
    Ok(())
}

/// How many seconds the `Date` of a response is ahead of this machine's clock; zero where they
/// agree.
pub(super) fn date_skew(
    store: &Store,
    response: &HeaderMap,
    (requested, received): (Wall, Wall),
) -> i64 {
    freshness::date_skew(response, received.since(requested), store.date_of(received))
}

fn store_rules(request: &FillRequest, strip_set_cookie: bool) -> StoreRules<'_> {
    let spec = &request.route.spec;
    // Entries that were stored together should not expire together.
    let jitter = spec.jitter.mul_f64(rand::random::<f64>());
    StoreRules {
        ttl: spec.ttl.ok,
        status_ttls: &spec.ttl.others,
        jitter,
        origin: spec.origin,
        strip_set_cookie,
        // By scope `shared` with a ttl the operator has said that the origin's answer to the
        // credential is enough.
        may_share_authorized: request.route.key_holds_credential()
            || (spec.scope == Scope::Shared && !spec.ttl.is_empty()),
        has_owner: request.has_owner,
        stale_while_revalidate: spec.stale_while_revalidate,
        stale_if_error: spec.stale_if_error,
        keep_stale: request.config.settings.keep_stale,
        targeted: &request.route.response_rules.targeted,
        expires_at: spec.expires_at,
    }
}

/// The tags that the response names beside those of the request. A 304 need not repeat what the
/// stored response named.
fn response_tags(
    request: &FillRequest,
    headers: &HeaderMap,
    revalidated: Option<&CachedEntry>,
) -> Result<Vec<Tag>, Reason> {
    let groups = cache_groups::groups(headers, &cache_groups::CACHE_GROUPS)
        .map_err(|_| Reason::TooManyTags)?;
    let groups = groups.iter().map(|group| cache_groups::tag(&request.host, group));
    let before = revalidated.iter().flat_map(|cached| cached.entry.response_tags.iter().cloned());
    let named = request.route.response_rules.response_tags.named_by(headers);
    let most = request.config.settings.max_tags;
    let mut seen: HashSet<Tag> = request.tags.iter().cloned().collect();
    let mut tags: Vec<Tag> = Vec::new();
    for tag in named.chain(groups).chain(before) {
        if seen.insert(tag.clone()) {
            tags.push(tag);
        }
        if seen.len() > most {
            return Err(Reason::TooManyTags);
        }
    }
    Ok(tags)
}
