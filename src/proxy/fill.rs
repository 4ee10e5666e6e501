//! A fill: asks the app for a whole response, shares it as it comes, and stores it once it is proven whole and current.
//!
//! The fill is a task of its own: the leader is its first reader, and may leave like any other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::admit::{self, Admission, Exchange};
use crate::body::Body;
use crate::clock::Wall;
use crate::coalesce::{Growing, Lead, Pushed, SharedHead, Writing};
use crate::coherence::Read;
use crate::entry::Entry;
use crate::forward::{self, Peer};
use crate::key::Key;
use crate::outcome::{Outcome, Reason};
use crate::plan::{Lookup, Rules};
use crate::proxy::{Answer, Proxy, conditional_response};
use crate::respond;
use crate::route::{Role, Route};
use crate::scope::{AdmissionId, Scope};
use crate::store::Draft;
use crate::tag::Tag;
use crate::upstream::{self, CloseDelimited};

/// How far a body that will not be stored may run ahead of its slowest reader.
const WINDOW: u64 = 256 * 1024;

/// How long the last chunk of a response waits until the response is stored.
const HOLD: Duration = Duration::from_millis(50);

/// How long a fill goes on that nobody reads.
const UNREAD: Duration = Duration::from_secs(30);

/// How often a fill that waits for the app looks whether anybody reads.
const GLANCE: Duration = Duration::from_secs(5);

/// What is left of a body that was moved.
struct Pumped {
    last: Option<Bytes>,
    trailers: bool,
}

/// All that a fill needs once its request is gone.
struct Order {
    rules: Arc<Rules>,
    route: Arc<Route>,
    primary: Key,
    tags: Vec<Tag>,
    read: Read,
    admission: Option<AdmissionId>,
    peer: Peer,
    /// The headers that the app sees, before they are prepared for the wire.
    sent: HeaderMap,
}

/// What the leader gets to hear.
enum Told {
    /// A head, a body, and what the store makes of it.
    Response { status: StatusCode, headers: HeaderMap, body: Body, admitted: Result<i64, Reason> },
    /// The app did not answer.
    Failed(upstream::Error),
}

impl Proxy {
    /// Fetches a response, as the leader of a fill or for this request alone.
    pub(super) async fn fill(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: Peer,
        read: Read,
        why: Reason,
        lead: Option<Lead>,
    ) -> Answer {
        let (uri, sent) = lookup.fill_request();
        let order = Order {
            rules: Arc::clone(&self.rules),
            route: Arc::clone(lookup.route),
            primary: lookup.key.clone(),
            tags: lookup.tags(),
            read,
            admission: lookup.admission,
            peer,
            sent,
        };
        let request = self.fill_upstream_request(parts, uri, order.sent.clone(), peer);
        let (tell, told) = oneshot::channel();
        let proxy = Arc::clone(self);
        self.tasks.spawn(async move { proxy.run_fill(request, order, lead, tell).await });
        let outcome = Outcome::miss(why);
        let route = Some(lookup.route.id);
        match told.await {
            Ok(Told::Response { status, mut headers, body, admitted }) => {
                let outcome = match admitted {
                    Ok(ttl) => Outcome { stored: true, ttl: Some(ttl), ..outcome },
                    Err(reason) => Outcome { reason: Some(reason), ..outcome },
                };
                let outcome = Outcome { fwd_status: Some(status.as_u16()), ..outcome };
                respond::mark(&mut headers, &outcome);
                self.debug(&mut headers, lookup);
                Answer { response: conditional_response(&parts.headers, status, headers, body), outcome, route }
            }
            Ok(Told::Failed(error)) => super::pass::failed(&error, &outcome, route),
            // The task panicked, and its panic was logged.
            Err(_) => super::pass::failed(&upstream::Error::Broken("the fill ended early".into()), &outcome, route),
        }
    }

    async fn run_fill(self: Arc<Self>, request: Request<Body>, order: Order, lead: Option<Lead>, tell: oneshot::Sender<Told>) {
        let requested = self.clock.wall();
        let response = match self.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                if let Some(lead) = lead {
                    lead.fail(error.reason());
                }
                let _ = tell.send(Told::Failed(error));
                return;
            }
        };
        self.note_admission(&order, response.status());
        let received = self.clock.wall();
        match self.judge(&order, &response, requested, received) {
            Ok(judged) => self.stream_and_store(order, lead, tell, response, judged).await,
            Err(reason) => {
                if let Some(lead) = lead {
                    lead.uncacheable(received);
                }
                let (head, body) = self.ready(response);
                let _ = tell.send(Told::Response { status: head.0, headers: head.1, body, admitted: Err(reason) });
            }
        }
    }

    /// The app's own word on whether this credential may share the route's entries.
    fn note_admission(&self, order: &Order, status: StatusCode) {
        let Some(id) = order.admission else { return };
        if status.is_success() {
            self.admissions.admit(id, self.clock.wall(), order.route.spec.admit_for);
        } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.admissions.end(id);
        }
    }

    /// Whether the response may be stored, by its head.
    fn judge(&self, order: &Order, response: &Response<Body>, requested: Wall, received: Wall) -> Result<Judged, Reason> {
        let spec = &order.route.spec;
        let rules = admit::Rules {
            ttl: spec.ttl,
            origin: spec.origin,
            strip_set_cookie: spec.strip_set_cookie,
            // In scope `shared` with a ttl the operator has said that the app's word on the credential is enough.
            may_share_authorized: order.route.key_holds_credential() || (spec.scope == Scope::Shared && spec.ttl.is_some()),
        };
        let exchange = Exchange { request: &order.sent, status: response.status(), response: response.headers(), requested, received };
        let admission = admit::admit(&rules, &exchange)?;
        if spec.scope == Scope::Shared && !response.status().is_success() {
            // SECURITY: what the app says to a caller whom it turns away is for that caller.
            return Err(Reason::Status);
        }
        if is_event_stream(response.headers()) {
            // It has no end, and its events are for those who listen now.
            return Err(Reason::EventStream);
        }
        let unseen =
            |name: &HeaderName| order.route.headers.role(name, order.peer.trusted) == Role::Unknown && !admission.vary.covers(name);
        if order.sent.keys().any(unseen) {
            // SECURITY: an earlier response varied by this header and let it through; this one does not, so no key has seen it.
            return Err(Reason::UnkeyedHeader);
        }
        if response.extensions().get::<CloseDelimited>().is_some() {
            // Nobody can tell whether such a body is whole.
            return Err(Reason::Unframed);
        }
        if !matches!(order.read, Read::Local(_) | Read::Shared(..)) {
            return Err(Reason::Unproven);
        }
        let length: Option<u64> = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| length > self.store.largest()) {
            self.store.memory.refused.inc();
            return Err(Reason::TooLarge);
        }
        let mut tags = order.tags.clone();
        let known = tags.len();
        for tag in self.settings.response_tags.of(response.headers()) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            if tags.len() > self.settings.max_tags {
                return Err(Reason::TooManyTags);
            }
        }
        let key = if admission.vary.is_empty() {
            order.primary.clone()
        } else {
            order.rules.variant_of(&order.route, order.peer.trusted, &order.primary, &admission.vary, &order.sent)
        };
        Ok(Judged { key, more_tags: tags.len() > known, tags, admission, received })
    }

    async fn stream_and_store(
        &self,
        order: Order,
        lead: Option<Lead>,
        tell: oneshot::Sender<Told>,
        response: Response<Body>,
        judged: Judged,
    ) {
        let ((status, headers), mut body) = self.ready(response);
        let ttl = judged.admission.times.ttl_ms(judged.received) / 1000;
        let growing = Growing::new(self.store.largest(), WINDOW, &self.flights.budget);
        let writing = Writing(growing.clone());
        let mut shareable = headers.clone();
        respond::strip_cookies(&mut shareable);
        let reader = growing.reader().map_or_else(Body::empty, Body::stream);
        let _ = tell.send(Told::Response { status, headers, body: reader, admitted: Ok(ttl) });
        if let Some(lead) = &lead {
            let (vary, variant) = (judged.admission.vary.clone(), judged.key.hash());
            let head = SharedHead { status, headers: shareable.clone(), ttl, more_tags: judged.more_tags, vary, variant };
            lead.open(head, growing.clone());
        }
        let route = Arc::clone(&order.route);
        let pumped = match self.pump(&mut body, &growing).await {
            Ok(pumped) => pumped,
            Err(reason) => {
                self.counters.late.note(reason, &route);
                return;
            }
        };
        let Pumped { last, trailers } = pumped;
        let keeping = async {
            match growing.chunks() {
                Some(_) if trailers => Err(Reason::Trailers),
                Some(mut chunks) => {
                    chunks.extend(last.clone());
                    self.keep(order, judged, status, &shareable, &chunks).await
                }
                None => {
                    self.store.memory.refused.inc();
                    if let Some(lead) = &lead {
                        lead.remember_uncacheable(self.clock.wall());
                    }
                    Err(Reason::TooLarge)
                }
            }
        };
        // The last chunk is held back until the response is stored, so that who has all of it finds it there; but not for long.
        tokio::pin!(keeping);
        let kept = tokio::time::timeout(HOLD, &mut keeping).await;
        if let Some(chunk) = &last {
            growing.push(chunk.clone()).await;
        }
        growing.complete();
        drop(writing);
        let kept = match kept {
            Ok(kept) => kept,
            Err(_) => keeping.await,
        };
        if let Err(reason) = kept {
            self.counters.late.note(reason, &route);
        }
    }

    /// Moves the body to those who read it, but for its last chunk.
    async fn pump(&self, body: &mut Body, growing: &Growing) -> Result<Pumped, Reason> {
        let mut pumped = Pumped { last: None, trailers: false };
        let mut unread_since = None;
        loop {
            let waited = tokio::time::timeout(GLANCE, body.frame()).await;
            if growing.is_read() {
                unread_since = None;
            } else if self.clock.now().duration_since(*unread_since.get_or_insert_with(|| self.clock.now())) >= UNREAD {
                // Nobody has wanted it for long; a body without an end would hold its connection for ever.
                return Err(Reason::Abandoned);
            }
            match waited {
                Err(_) => {}
                Ok(None) => return Ok(pumped),
                Ok(Some(Err(_))) => return Err(Reason::Truncated),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) if http_body::Body::is_end_stream(body) => pumped.last = Some(chunk),
                    Ok(chunk) => {
                        if growing.push(chunk).await == Pushed::Nobody {
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

    async fn keep(&self, order: Order, judged: Judged, status: StatusCode, headers: &HeaderMap, chunks: &[Bytes]) -> Result<(), Reason> {
        let Judged { key, admission: Admission { times, vary }, tags, received, .. } = judged;
        let entry = Entry::compact(key.canonical(), status, headers, chunks, times);
        if entry.body.len() as u64 > self.store.largest() {
            return Err(Reason::TooLarge);
        }
        let draft = Draft { primary: order.primary, vary, hash: key.hash(), entry, tags };
        self.store.store(&order.read, draft, received).await.map(drop)
    }

    /// The head and body that clients get, and entries keep.
    fn ready(&self, response: Response<Body>) -> ((StatusCode, HeaderMap), Body) {
        let version = response.version();
        let (mut parts, body) = response.into_parts();
        forward::prepare_response(&mut parts.headers, version);
        if !self.settings.response_tags.keep {
            for name in &self.settings.response_tags.headers {
                parts.headers.remove(name);
            }
        }
        ((parts.status, parts.headers), body)
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().split(|&b| b == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// A response that may be stored.
struct Judged {
    /// The key of the variant that it answers.
    key: Key,
    admission: Admission,
    tags: Vec<Tag>,
    /// Whether the response named tags that the request did not tell.
    more_tags: bool,
    received: Wall,
}
