//! Mutations: their tags are marked, the app is asked, the tags are purged, and only then does the client hear of it.
//!
//! Invariants:
//! - The first byte of a mutation's response goes out only after its tags were purged, or after the app refused it with a 4xx.
//! - No client's departure ends a mutation: it runs in a task of its own, from before the mark to after the purge.
//! - An unknown outcome (5xx, time-out, reset, a broken upload) purges; a plain 4xx purges nothing, so that nobody can flush by POST.
//! - A mutation that ends under other rules than it began under purges by both: what was filled by the new rules while the app made up its
//!   mind bears tags that the old ones may not know.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::header::{CONTENT_LOCATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::body::Body;
use crate::cache_groups;
use crate::coherence::{Pending, PurgeKind};
use crate::events::{Purged, What, cut};
use crate::field::BodyFields;
use crate::forward::{self, Peer};
use crate::insight::Deed;
use crate::outcome::{Outcome, Reason};
use crate::plan::{self, Asked, Mutation};
use crate::proxy::{Answer, Live, Posted, Proxy, asked};
use crate::respond;
use crate::rule::Guard;
use crate::tag::Tag;
use crate::target;
use crate::upstream;

/// What a mutation's client gets to hear.
enum Told {
    /// The response, what it purged, and whether it was made ready for the client already.
    Response(Response<Body>, Vec<Tag>, bool),
    Failed(upstream::Error),
    Refused,
}

/// All that a mutation needs once its client is gone.
struct Order {
    request: Request<Body>,
    mutation: Mutation,
    written: Written,
    host: String,
    base: Uri,
    posted: Option<Posted>,
    _place: OwnedSemaphorePermit,
}

/// What rules that came into force during a mutation purge beside those that it began under.
enum Late {
    Nothing,
    Tags(Vec<Tag>),
    /// They cannot tell.
    Everything,
}

/// What the rules have seen of a mutation, for those that are in force when it ends.
struct Written {
    live: Arc<Live>,
    parts: Parts,
    peer: Peer,
    has_body: bool,
    effective: Method,
    fields: Option<BodyFields>,
}

impl Written {
    fn asked(&self) -> Asked<'_> {
        Asked { has_body: self.has_body, ..asked(&self.parts, &Body::empty(), self.peer) }
    }
}

impl Proxy {
    /// Forwards a request that may change data.
    pub(crate) async fn mutate(self: &Arc<Self>, live: &Arc<Live>, parts: Parts, body: Body, peer: Peer, effective: Method) -> Answer {
        let reason = if effective == parts.method { Reason::Method } else { Reason::MethodOverride };
        let outcome = Outcome::bypass(reason);
        let Ok(place) = Arc::clone(&self.mutation_places).try_acquire_owned() else {
            self.counters.crowded.inc();
            let outcome = Outcome { reason: Some(Reason::UpstreamBusy), ..outcome };
            return Answer { response: respond::failure(Reason::UpstreamBusy, &outcome), outcome, route: None };
        };
        let (fields, body) = self.read_body(live, &parts, body, peer, &effective).await;
        let mutation = match live.rules.mutation(&asked(&parts, &body, peer), &effective, fields.as_ref()) {
            Ok(mutation) => mutation,
            Err(header) => return self.refuse_header(None, &header),
        };
        self.note(&parts, &mutation);
        let host = plan::authority(&parts.uri, &parts.headers).into_owned();
        let base = parts.uri.clone();
        let posted = self.before_post(&live.rules, &parts, peer).await;
        let has_body = !body.is_empty();
        let written = Written { live: Arc::clone(live), parts: head_of(&parts), peer, has_body, effective, fields };
        let request = self.upstream_request(parts, body, peer, None);
        let order = Order { request, mutation, written, host, base, posted, _place: place };
        let (tell, told) = oneshot::channel();
        let proxy = Arc::clone(self);
        self.tasks.spawn(async move {
            let tags = order.mutation.tags.clone();
            let run = Box::pin(Arc::clone(&proxy).run_mutation(order, tell));
            if AssertUnwindSafe(run).catch_unwind().await.is_err() {
                // The app may have committed; nobody else would ever purge, since this sidecar lives.
                proxy.coherence.purge(&tags).await;
            }
        });
        match told.await {
            Ok(Told::Response(response, purged, ready)) => self.mutated(response, &purged, ready, outcome),
            Ok(Told::Failed(error)) => {
                let outcome = Outcome { reason: Some(error.reason()), ..outcome };
                Answer { response: respond::failure(error.reason(), &outcome), outcome, route: None }
            }
            Ok(Told::Refused) => {
                let outcome = Outcome { reason: Some(Reason::WriteRefused), ..outcome };
                Answer { response: respond::failure(Reason::WriteRefused, &outcome), outcome, route: None }
            }
            // The task panicked, and its panic was logged.
            Err(_) => {
                let outcome = Outcome { reason: Some(Reason::UpstreamProtocolError), ..outcome };
                Answer { response: respond::failure(Reason::UpstreamProtocolError, &outcome), outcome, route: None }
            }
        }
    }

    /// Reads the body, up to a limit, where a rule needs a field of it. What was read is put back in front of the rest.
    async fn read_body(&self, live: &Live, parts: &Parts, mut body: Body, peer: Peer, effective: &Method) -> (Option<BodyFields>, Body) {
        if body.is_empty() || !live.rules.mutation_reads_body(&asked(parts, &body, peer), effective) {
            return (None, body);
        }
        let mut read = BytesMut::new();
        let limit = usize::try_from(live.settings.purge_body).unwrap_or(usize::MAX);
        while read.len() <= limit {
            match body.frame().await {
                None => {
                    let read = read.freeze();
                    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
                    return (BodyFields::parse(kind, &read), Body::full(read));
                }
                Some(Ok(frame)) => {
                    // What is not data is trailers: the end of a body, which is forwarded without them.
                    if let Ok(chunk) = frame.into_data() {
                        read.extend_from_slice(&chunk);
                    }
                }
                Some(Err(error)) => return (None, Body::stream(Prefixed { read: Some(read.freeze()), rest: Rest::Broken(Some(error)) })),
            }
        }
        (None, Body::stream(Prefixed { read: Some(read.freeze()), rest: Rest::Body(body) }))
    }

    fn note(&self, parts: &Parts, mutation: &Mutation) {
        self.counters.mutations.inc();
        let path = parts.uri.path();
        if !mutation.missing.is_empty() {
            self.counters.missing_fields.add(mutation.missing.len() as u64);
            let fields = mutation.missing.join(" ");
            tracing::warn!(method = %parts.method, path, fields, "a purge rule names fields that this mutation lacks; what it was to purge stays");
        }
        if mutation.uncovered_cached_path {
            self.counters.uncovered.inc();
            tracing::debug!(method = %parts.method, path, "no purge rule speaks of this mutation of a cached path; only its own URI is purged");
        }
    }

    async fn run_mutation(self: Arc<Self>, order: Order, tell: oneshot::Sender<Told>) {
        let Order { request, mut mutation, written, host, base, posted, _place } = order;
        let mark_for = written.live.settings.mark_for;
        let guarded = mutation.guard == Guard::Bypass;
        let tags = std::mem::take(&mut mutation.tags);
        let noted = self.shadow.mutation(request.method(), request.uri().path(), &tags, self.clock.wall());
        // What cannot be marked is refused, where the operator would rather refuse a write than serve a stale read.
        let Ok(mut pending) = self.coherence.mark(tags, guarded, mark_for).await else {
            noted.refused();
            let _ = tell.send(Told::Refused);
            return;
        };
        let result = self.send_renewing(request, &mut pending, mark_for).await;
        let told = match result {
            Ok(response) if response.status().is_client_error() => {
                noted.refused();
                self.coherence.refused(pending).await;
                Told::Response(response, Vec::new(), false)
            }
            Ok(response) => {
                let mut purged = pending.tags().to_vec();
                let own = purged.len();
                let mut named = named_targets(response.headers(), &host, &base);
                named.extend(named_groups(response.headers(), &host));
                if !named.is_empty() {
                    noted.also_purged(&named);
                    self.coherence.purge(&named).await;
                    purged.extend(named);
                }
                self.purge_after(pending, &written, &mutation.repurge_after).await;
                noted.ended(self.clock.wall());
                self.tell_of_purge(&written, &purged);
                let steps = 1 + u64::from(purged.len() > own);
                self.passed_on(response, purged, posted, steps).await
            }
            Err(error) => {
                if error.may_have_reached_app() {
                    // The app may have committed before it broke off.
                    let purged = pending.tags().to_vec();
                    self.purge_after(pending, &written, &mutation.repurge_after).await;
                    noted.ended(self.clock.wall());
                    self.tell_of_purge(&written, &purged);
                } else {
                    noted.refused();
                    self.coherence.refused(pending).await;
                }
                Told::Failed(error)
            }
        };
        let _ = tell.send(told);
    }

    /// Sends the request, and moves the deadline of its mark for as long as that takes.
    async fn send_renewing(
        &self,
        request: Request<Body>,
        pending: &mut Pending,
        mark_for: Duration,
    ) -> Result<Response<Body>, upstream::Error> {
        let sending = self.ask_app(request, None);
        tokio::pin!(sending);
        let every = self.coherence.renew_every(mark_for);
        loop {
            tokio::select! {
                result = &mut sending => return result,
                () = tokio::time::sleep(every) => self.coherence.renew(pending, mark_for).await,
            }
        }
    }

    async fn purge_after(&self, pending: Pending, written: &Written, again: &[Duration]) {
        self.counters.purging.inc();
        let mut tags: Vec<Tag> = if again.is_empty() { Vec::new() } else { pending.tags().to_vec() };
        // Before it is committed: rules that come later find an app that has it.
        let late = self.tags_of_new_rules(written, pending.tags());
        self.coherence.committed(pending).await;
        match late {
            Late::Nothing => {}
            Late::Tags(late) => {
                self.coherence.purge(&late).await;
                tags.extend(late);
            }
            Late::Everything => self.coherence.purge_everything(PurgeKind::Hard).await,
        }
        for &after in again {
            let (coherence, tags) = (Arc::clone(&self.coherence), tags.clone());
            // Not tracked: a drain does not wait for it. What ends with the process is an extra; the purge itself has been made.
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                coherence.purge(&tags).await;
            });
        }
    }

    /// What operators see of a write that purged.
    fn tell_of_purge(&self, written: &Written, tags: &[Tag]) {
        let names = || tags.iter().map(Tag::as_str);
        self.counters.purges.write.inc();
        self.insight.note(names(), Deed::Purged);
        let (method, path) = (Some(cut(written.parts.method.as_str())), Some(cut(written.parts.uri.path())));
        let purged = Purged { by: "write", method, path, ..Purged::default() }.of_tags(names());
        self.events.publish(self.clock.wall(), What::Purge(purged));
    }

    /// What the rules that are in force by now purge beside these tags, if they are not those that the mutation began under.
    fn tags_of_new_rules(&self, written: &Written, tags: &[Tag]) -> Late {
        let (live, asked) = (self.live(), written.asked());
        if Arc::ptr_eq(&live, &written.live) {
            return Late::Nothing;
        }
        if written.fields.is_none() && written.has_body && live.rules.mutation_reads_body(&asked, &written.effective) {
            // The old rules did not read the body, and it is gone.
            return Late::Everything;
        }
        match live.rules.mutation(&asked, &written.effective, written.fields.as_ref()) {
            Ok(mutation) => Late::Tags(mutation.tags.into_iter().filter(|tag| !tags.contains(tag)).collect()),
            // The new rules would have refused it, for a header that they cannot read.
            Err(_) => Late::Everything,
        }
    }

    async fn passed_on(self: &Arc<Self>, response: Response<Body>, purged: Vec<Tag>, posted: Option<Posted>, steps: u64) -> Told {
        let Some(posted) = posted else { return Told::Response(response, purged, false) };
        match self.keep_posted(posted, response, steps).await {
            Ok(ready) => Told::Response(ready, purged, true),
            Err(response) => Told::Response(response, purged, false),
        }
    }

    fn mutated(&self, mut response: Response<Body>, purged: &[Tag], ready: bool, mut outcome: Outcome) -> Answer {
        outcome.fwd_status = Some(response.status().as_u16());
        outcome.stored = ready;
        if !ready {
            let version = response.version();
            forward::prepare_response(response.headers_mut(), version);
        }
        respond::mark(response.headers_mut(), &outcome);
        if self.live.load().settings.debug_headers && !purged.is_empty() {
            let names: Vec<&str> = purged.iter().map(Tag::as_str).collect();
            if let Ok(value) = HeaderValue::from_str(&names.join(" ")) {
                response.headers_mut().insert(respond::X_CACHE_PURGED, value);
            }
        }
        *response.version_mut() = http::Version::HTTP_11;
        Answer { response, outcome, route: None }
    }
}

/// The head of a request alone.
fn head_of(parts: &Parts) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = parts.method.clone();
    head.uri = parts.uri.clone();
    head.version = parts.version;
    head.headers = parts.headers.clone();
    head
}

/// The URIs of the same origin that a response to an unsafe method names (RFC 9111 4.4).
fn named_targets(headers: &HeaderMap, host: &str, base: &Uri) -> Vec<Tag> {
    let lines = [LOCATION, CONTENT_LOCATION].into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
    lines.filter_map(|line| same_origin_path(line, host, base)).map(|path| Tag::of_uri(host, &path)).collect()
}

/// The groups that a response to an unsafe method ends (RFC 9875 3).
fn named_groups(headers: &HeaderMap, host: &str) -> impl Iterator<Item = Tag> {
    let groups = cache_groups::groups(headers, &cache_groups::CACHE_GROUP_INVALIDATION)
        .inspect_err(|error| tracing::warn!(%error, host, "a Cache-Group-Invalidation is not obeyed"));
    groups.unwrap_or_default().into_iter().map(move |group| cache_groups::tag(host, &group))
}

fn same_origin_path(reference: &str, host: &str, base: &Uri) -> Option<String> {
    // The scheme does not matter: both of an app's origins have its data.
    let base = url::Url::parse(&format!("http://{host}{}", base.path())).ok()?;
    let target = base.join(reference).ok()?;
    (target.host_str() == base.host_str()).then(|| target::permissive_path(target.path()))
}

/// A body whose beginning was read already.
struct Prefixed {
    read: Option<Bytes>,
    rest: Rest,
}

enum Rest {
    Body(Body),
    Broken(Option<crate::body::BodyError>),
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = crate::body::BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(read) = this.read.take() {
            return std::task::Poll::Ready(Some(Ok(http_body::Frame::data(read))));
        }
        match &mut this.rest {
            Rest::Body(body) => std::pin::Pin::new(body).poll_frame(cx),
            Rest::Broken(error) => std::task::Poll::Ready(error.take().map(Err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_names_other_targets_of_its_own_origin() {
        let path = |line| same_origin_path(line, "app:8080", &Uri::from_static("/api/campaigns"));
        assert_eq!(path("/api/campaigns/7").as_deref(), Some("/api/campaigns/7"));
        assert_eq!(path("campaigns/7?x=1").as_deref(), Some("/api/campaigns/7"));
        assert_eq!(path("https://app/api/x").as_deref(), Some("/api/x"), "ports differ behind proxies");
        assert_eq!(path("http://elsewhere/api/x"), None);
        assert_eq!(path("http://["), None);
    }
}
