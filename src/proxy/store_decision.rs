//! Whether the response of a fill may be stored, by its head: under which key, for how long, with
//! which tags.
//!
//! `admit` owns the rules of HTTP; here they meet the route, the tags and the limits.

use std::sync::Arc;

use http::Response;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};

use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::cache_groups;
use crate::policy::credential::Scope;
use crate::policy::key::Key;
use crate::policy::route::HeaderRole;
use crate::policy::tag::Tag;
use crate::proxy::Proxy;
use crate::proxy::fill::FillRequest;
use crate::semantics::body::Body;
use crate::semantics::media_type::is_event_stream;
use crate::semantics::storability;
use crate::semantics::storability::{Exchange, StorePolicy};
use crate::upstream::CloseDelimited;

/// A response that may be stored.
pub(super) struct StoreDecision {
    /// The key of the variant that it answers.
    pub(super) key: Key,
    pub(super) policy: StorePolicy,
    /// All tags.
    pub(super) tags: Vec<Tag>,
    /// Those that the request did not tell.
    pub(super) response_tags: Vec<Tag>,
    pub(super) requested: Wall,
    pub(super) received: Wall,
    /// What was stored before, and is now confirmed.
    pub(super) revalidated: Option<Arc<CachedEntry>>,
}

impl StoreDecision {
    /// Whether the response named tags that the request did not tell.
    pub(super) fn more_tags(&self) -> bool {
        !self.response_tags.is_empty()
    }
}

impl Proxy {
    pub(super) fn decide_store(
        &self,
        order: &FillRequest,
        response: &Response<Body>,
        requested: Wall,
        received: Wall,
        confirmed: Option<Arc<CachedEntry>>,
    ) -> Result<StoreDecision, Reason> {
        let spec = &order.route.spec;
        // What was stored together is not to expire together.
        let jitter = spec.jitter.mul_f64(rand::random::<f64>());
        let rules = storability::StoreRules {
            ttl: spec.ttl.map(|ttl| ttl.saturating_sub(jitter)),
            origin: spec.origin,
            strip_set_cookie: spec.strip_set_cookie,
            // In scope `shared` with a ttl the operator has said that the app's word on the
            // credential is enough.
            may_share_authorized: order.route.key_holds_credential()
                || (spec.scope == Scope::Shared && spec.ttl.is_some()),
            stale_while_revalidate: spec.stale_while_revalidate,
            stale_if_error: spec.stale_if_error,
            keep_stale: self.config.load().settings.keep_stale,
            targeted: &order.route.response_rules.targeted,
        };
        let exchange = Exchange {
            request: &order.sent,
            status: response.status(),
            response: response.headers(),
            requested,
            received,
        };
        let admission = storability::store_policy(&rules, &exchange)?;
        if spec.scope == Scope::Shared && !response.status().is_success() {
            // SECURITY: what the app says to a caller whom it turns away is for that caller.
            return Err(Reason::Status);
        }
        if is_event_stream(response.headers()) {
            // It has no end, and its events are for those who listen now.
            return Err(Reason::EventStream);
        }
        let unseen = |name: &HeaderName| {
            order.route.headers.role(name, order.peer.trusted) == HeaderRole::Unknown
                && !admission.vary.covers(name)
        };
        if order.sent.keys().any(unseen) {
            // SECURITY: an earlier response varied by this header and let it through; this one does
            // not, so no key has seen it.
            return Err(Reason::UnkeyedHeader);
        }
        if response.extensions().get::<CloseDelimited>().is_some() {
            // Nobody can tell whether such a body is whole.
            return Err(Reason::Unframed);
        }
        if !matches!(order.snapshot, TagSnapshot::Local(_) | TagSnapshot::Shared(..)) {
            return Err(Reason::Unverifiable);
        }
        let length: Option<u64> = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| length > self.store.largest()) {
            self.store.memory.refused.inc();
            return Err(Reason::TooLarge);
        }
        let named = self.response_tags(order, response.headers(), confirmed.as_deref())?;
        let tags = order.tags.iter().chain(&named).cloned().collect();
        let key = if admission.vary.is_empty() {
            order.primary.clone()
        } else {
            order.rules.variant_of(
                &order.route,
                order.peer.trusted,
                &order.primary,
                &admission.vary,
                &order.sent,
            )
        };
        Ok(StoreDecision {
            key,
            policy: admission,
            tags,
            response_tags: named,
            requested,
            received,
            revalidated: confirmed,
        })
    }

    /// The tags that the response names beside those that the request tells. A 304 need not name
    /// again what the stored response named.
    fn response_tags(
        &self,
        order: &FillRequest,
        headers: &HeaderMap,
        confirmed: Option<&CachedEntry>,
    ) -> Result<Vec<Tag>, Reason> {
        let groups = cache_groups::groups(headers, &cache_groups::CACHE_GROUPS)
            .map_err(|_| Reason::TooManyTags)?;
        let groups = groups.iter().map(|group| cache_groups::tag(&order.host, group));
        let before =
            confirmed.iter().flat_map(|resident| resident.entry.response_tags.iter().cloned());
        let most = self.config.load().settings.max_tags;
        let mut named: Vec<Tag> = Vec::new();
        for tag in order
            .route
            .response_rules
            .response_tags
            .from_headers(headers)
            .chain(groups)
            .chain(before)
        {
            if !order.tags.contains(&tag) && !named.contains(&tag) {
                named.push(tag);
            }
            if order.tags.len() + named.len() > most {
                return Err(Reason::TooManyTags);
            }
        }
        Ok(named)
    }
}
