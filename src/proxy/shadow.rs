//! Routes in shadow: every GET and HEAD goes to the app as it is, and what the cache would have done is only noted.
//!
//! Invariant: nothing that is known here decides what a client or the app gets, and nothing goes into the store.

use std::sync::Arc;

use http::header::HeaderMap;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::coherence::Mode as Coherent;
use crate::coherence::Read;
use crate::coherence::local_snapshot::Glance;
use crate::outcome::{Outcome, Reason};
use crate::policy::key::KeyHash;
use crate::policy::plan::{Lookup, Plan};
use crate::policy::route::{Mode, Route};
use crate::proxy::fill::Order;
use crate::proxy::miss::Errand;
use crate::proxy::request_directives::Wish;
use crate::proxy::store_decision::Judged;
use crate::proxy::{Answer, Proxy};
use crate::semantics::body::Body;
use crate::semantics::early_refresh;
use crate::semantics::forward::Peer;
use crate::shadow::digest::{self, Ended};
use crate::shadow::findings::{RouteShadow, Would};
use crate::shadow::history::{Caller, Look, Span, Step};
use crate::shadow::{Answered, Entry, Kept, SETTLE, is_telling, unstorable};

/// A request in shadow: what would become of it.
pub(super) struct Shadowed {
    route: usize,
    /// Where it is counted; nowhere when too many routes are watched.
    seen: Option<Arc<RouteShadow>>,
    would: Would,
    /// How its answer is looked at; not at all where the cache would take no part.
    watch: Option<Watch>,
}

/// What is to be known when the answer comes.
struct Watch {
    order: Order,
    glance: Option<Glance>,
    key: KeyHash,
    caller: Caller,
    /// What would be served.
    served: Option<Arc<Entry>>,
    /// Whether the answer would be stored, if it may be.
    may_store: bool,
    /// Whether its body is looked at.
    whole: bool,
    path: Box<str>,
}

/// An answer whose head has come.
struct Begun {
    proxy: Arc<Proxy>,
    seen: Arc<RouteShadow>,
    watch: Watch,
    judged: Result<Judged, Reason>,
    sent: Step,
    telling: bool,
}

impl Shadowed {
    fn bypass(route: &Arc<Route>, proxy: &Proxy) -> Self {
        Self { route: route.id, seen: proxy.shadow.route(route.name()), would: Would::Bypass, watch: None }
    }
}

impl Proxy {
    /// What would become of a request, if it is of a route in shadow.
    pub(super) fn shadowed(&self, parts: &Parts, plan: &Plan<'_>, peer: Peer) -> Option<Shadowed> {
        let in_shadow = |route: &Route| route.spec.mode == Mode::Shadow;
        match plan {
            Plan::Lookup(lookup) if in_shadow(lookup.route) => Some(self.shadowed_lookup(parts, lookup, peer)),
            Plan::Pass(Some(route), _) | Plan::Refuse(Some(route), _) if in_shadow(route) => Some(Shadowed::bypass(route, self)),
            _ => None,
        }
    }

    fn shadowed_lookup(&self, parts: &Parts, lookup: &Lookup<'_>, peer: Peer) -> Shadowed {
        let wish = Wish::of(lookup.route, &parts.headers);
        if wish.bypass.is_some() {
            return Shadowed::bypass(lookup.route, self);
        }
        let primary = lookup.key.hash();
        let glance = self.coherence.glance(&lookup.tags());
        let (key, found) = self.shadow.find(primary, |vary| lookup.variant_hash(vary));
        let (would, served) = self.would(lookup, &wish, found);
        let get = parts.method == Method::GET;
        let unkeyed = lookup.unknown.iter().any(|name| !self.shadow.varies_by(primary, name));
        // Of a request with a header that no key has seen, the answer is stored if it turns out to vary by it.
        let may_store = get && would != Would::Bypass && served.is_none() && (!unkeyed || lookup.is_filled_as_asked());
        let would = if unkeyed { Would::Bypass } else { would };
        let read = glance.as_ref().map_or(Read::Unproven, Glance::read);
        let order = self.order(parts, lookup, peer, Errand { read, why: Reason::Shadow, spare: None });
        let caller = Caller { who: who(&order, &parts.headers), aside: aside(lookup, parts) };
        let served = served.filter(|_| would == Would::Hit);
        let path = lookup.path.as_ref().into();
        let watch = Watch { order, glance, key, caller, served, may_store, whole: get && !lookup.range && !unkeyed, path };
        Shadowed { route: lookup.route.id, seen: self.shadow.route(lookup.route.name()), would, watch: Some(watch) }
    }

    /// What would become of a request for which this would be stored, and what would be served.
    fn would(&self, lookup: &Lookup<'_>, wish: &Wish, found: Option<Arc<Entry>>) -> (Would, Option<Arc<Entry>>) {
        let now = self.clock.wall();
        let missed = if lookup.range { Would::Bypass } else { Would::Miss };
        let Some(entry) = found else { return (missed, None) };
        match self.coherence.still_holds(&entry.held) {
            Ok(()) => {}
            Err(Reason::MutationPending) => return (Would::Bypass, None),
            Err(_) => return (missed, None),
        }
        if lookup.admission.is_some_and(|id| !self.shadow.admissions.is_admitted(id, now)) {
            return (missed, None);
        }
        if entry.times.is_fresh(now) {
            return if wish.is_met_by(&entry.times, now) { (Would::Hit, Some(entry)) } else { (missed, None) };
        }
        // It would be served, and fetched anew: it is known to be stale, so that a change is no finding.
        let open = wish.bears_stale() && early_refresh::is_within(&entry.times, entry.leeway.while_revalidate, now);
        (if open { Would::Hit } else { missed }, None)
    }

    /// Forwards a request of a route in shadow, and notes what would have become of it.
    pub(super) async fn pass_in_shadow(self: &Arc<Self>, parts: Parts, body: Body, peer: Peer, shadowed: Shadowed) -> Answer {
        let Shadowed { route, seen, would, watch } = shadowed;
        if let Some(seen) = &seen {
            seen.would(would);
        }
        let outcome = Outcome::bypass(Reason::Shadow);
        let (Some(seen), Some(watch)) = (seen, watch) else { return self.pass(parts, body, peer, outcome, Some(route)).await };
        let request = self.upstream_request(parts, body, peer, None);
        let (requested, sent) = (self.clock.wall(), self.shadow.steps.next());
        let mut response = match self.ask_app(request, Some(route)).await {
            Ok(response) => response,
            Err(error) => return super::pass::failed(&error, &outcome, Some(route)),
        };
        let received = self.clock.wall();
        let status = response.status();
        self.note_shadow_admission(&watch, status);
        // What a 304 confirms to the client would have been fetched whole, and stored.
        let unchanged = status == StatusCode::NOT_MODIFIED;
        if unchanged {
            *response.status_mut() = StatusCode::OK;
        }
        let judged = self.judge(&watch.order, &response, requested, received, None);
        *response.status_mut() = status;
        let telling = is_telling(status);
        let whole = watch.whole;
        let begun = Begun { proxy: Arc::clone(self), seen, watch, judged, sent, telling };
        let mut answer = self.passed(response, outcome, Some(route), None);
        if whole && unchanged {
            begun.ended(None);
        } else if whole {
            let (head, body) = answer.response.into_parts();
            let body = digest::digesting(body, status, self.store.largest(), move |ended| begun.ended(Some(ended)));
            answer.response = Response::from_parts(head, body);
        }
        answer
    }

    fn note_shadow_admission(&self, watch: &Watch, status: StatusCode) {
        let Some(id) = watch.order.admission() else { return };
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.shadow.admissions.admit(id, self.clock.wall(), watch.order.route.spec.admit_for);
        } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.shadow.admissions.end(id);
        }
    }
}

impl Begun {
    /// The answer is whole, or has broken off; nothing is known of a body that did not come.
    fn ended(self, ended: Option<Ended>) {
        let done = self.proxy.shadow.steps.next();
        let suspicious = match (ended, &self.watch.served) {
            (Some(Ok(digest)), Some(served)) => self.telling && self.proxy.shadow.differs(self.watch.key, served, digest),
            _ => false,
        };
        // Another sidecar's write may be committed and its purge on the way.
        let others = suspicious && self.proxy.coherence.mode() == Coherent::Shared && self.proxy.coherence.standings().peers > 0;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !others {
            return self.conclude(ended, done);
        }
        // No more of them than there may be refreshes: beyond that a suspicion is dropped.
        let Ok(place) = Arc::clone(&self.proxy.refresh_places).try_acquire_owned() else {
            self.proxy.counters.crowded_refreshes.inc();
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(SETTLE).await;
            self.conclude(ended, done);
            drop(place);
        });
    }

    fn conclude(self, ended: Option<Ended>, done: Step) {
        let Self { proxy, seen, watch, judged, sent, telling } = self;
        let shadow = &proxy.shadow;
        let span = Span { sent, done, purges: watch.glance.as_ref().map_or(0, Glance::purges) };
        let key = match (&watch.served, &judged) {
            (None, Ok(judged)) => judged.key.hash(),
            _ => watch.key,
        };
        if let (Some(Ok(digest)), true) = (ended, telling) {
            let tags = watch.served.as_ref().map_or(&watch.order.tags[..], |served| &served.tags);
            // What a purge has ended meanwhile, or is about to end, would not be served any more.
            // In this order: a write that is no longer under way has purged.
            let spared = !shadow.mutations.will_purge(tags);
            let hit = spared && watch.served.as_ref().is_some_and(|served| proxy.coherence.still_holds(&served.held).is_ok());
            let look = Look { caller: watch.caller, digest, span, hit };
            let (served, purges) = (watch.served.as_ref(), proxy.coherence.purges());
            shadow.answered(&Answered { route: &seen, path: &watch.path, key, look, served, purges, now: proxy.clock.wall() });
        }
        if !watch.may_store || watch.served.is_some() {
            return;
        }
        let digest = match ended {
            None => Ok(None),
            Some(Ok(digest)) => Ok(Some(digest)),
            Some(Err(reason)) => match unstorable(reason) {
                Some(reason) => Err(reason),
                None => return,
            },
        };
        match judged.and_then(|judged| Ok((judged, digest?))) {
            Ok((judged, digest)) => {
                let Judged { key, admission, tags, .. } = judged;
                let held = watch.glance.as_ref().and_then(|glance| proxy.coherence.hold(glance, &tags));
                let Some(held) = held else { return seen.would_not_store(Reason::PurgedDuringFill) };
                let entry = Entry { times: admission.times, leeway: admission.leeway, held, tags: tags.into() };
                let (primary, vary, caller) = (watch.order.primary.hash(), admission.vary, watch.caller);
                shadow.keep(Kept { primary, vary, key: key.hash(), caller, digest, span, entry });
            }
            Err(reason) => {
                seen.would_not_store(reason);
                if telling {
                    shadow.forget(key);
                }
            }
        }
    }
}

/// Names the caller's credential, in scope `public` too.
fn who(order: &Order, headers: &HeaderMap) -> u64 {
    let credential = order.rules.credential.of(headers, &order.rules.hasher);
    credential.and_then(|credential| credential.0.first_chunk().copied()).map_or(0, u64::from_be_bytes)
}

/// Names the query, where a fill would send the app another one.
fn aside(lookup: &Lookup<'_>, parts: &Parts) -> u64 {
    let query = parts.uri.query().unwrap_or_default();
    if lookup.query.as_deref().unwrap_or_default() == query {
        return 0;
    }
    let digest: [u8; 32] = Sha256::digest(query).into();
    digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
}
