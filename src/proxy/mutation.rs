//! Mutations: their tags are marked, the app is asked, the tags are purged, and only then does the
//! client hear of it.
//!
//! Invariants:
//! - The first byte of a mutation's response goes out only after its tags were purged, or after the
//!   app refused it with a 4xx.
//! - No client's departure ends a mutation: it runs in a task of its own, from before the mark to
//!   after the purge.
//! - An unknown outcome (5xx, time-out, reset, a broken upload) purges; a plain 4xx purges nothing,
//!   so that nobody can flush by POST.
//! - A mutation that ends under other rules than it began under purges by both: what was filled by
//!   the new rules while the app made up its mind bears tags that the old ones may not know.

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

use crate::coherence::{PendingMutation, PurgeKind};
use crate::outcome::{Outcome, Reason};
use crate::policy::cache_groups;
use crate::policy::field::BodyFields;
use crate::policy::plan;
use crate::policy::plan::{Mutation, RequestView};
use crate::policy::purge_rule::MutationGuard;
use crate::policy::request_target;
use crate::policy::tag::Tag;
use crate::proxy::response;
use crate::proxy::{ActiveConfig, PendingPost, Proxy, ProxyResponse, request_view};
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::telemetry::events::{EventKind, PurgeEvent, truncate};
use crate::telemetry::hot_tags::TagEvent;
use crate::upstream;

/// What a mutation's client gets to hear.
enum MutationResult {
    /// The response, what it purged, and whether it was made ready for the client already.
    Response(Response<Body>, Vec<Tag>, bool),
    Failed(upstream::UpstreamError),
    Refused,
}

/// All that a mutation needs once its client is gone.
struct MutationRequest {
    request: Request<Body>,
    mutation: Mutation,
    context: MutationContext,
    host: String,
    base: Uri,
    post: Option<PendingPost>,
    _permit: OwnedSemaphorePermit,
}

/// What rules that came into force during a mutation purge beside those that it began under.
enum NewRulePurges {
    Nothing,
    Tags(Vec<Tag>),
    /// They cannot tell.
    Everything,
}

/// What the rules have seen of a mutation, for those that are in force when it ends.
struct MutationContext {
    config: Arc<ActiveConfig>,
    parts: Parts,
    peer: ClientPeer,
    has_body: bool,
    effective: Method,
    fields: Option<BodyFields>,
}

impl MutationContext {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            has_body: self.has_body,
            ..request_view(&self.parts, &Body::empty(), self.peer)
        }
    }
}

impl Proxy {
    /// Forwards a request that may change data.
    pub(crate) async fn mutate(
        self: &Arc<Self>,
        live: &Arc<ActiveConfig>,
        parts: Parts,
        body: Body,
        peer: ClientPeer,
        effective: Method,
    ) -> ProxyResponse {
        let reason =
            if effective == parts.method { Reason::Method } else { Reason::MethodOverride };
        let outcome = Outcome::bypass(reason);
        let Ok(place) = Arc::clone(&self.mutation_permits).try_acquire_owned() else {
            self.counters.mutations_rejected.inc();
            let outcome = Outcome { reason: Some(Reason::UpstreamBusy), ..outcome };
            return ProxyResponse {
                response: response::failure(Reason::UpstreamBusy, &outcome),
                outcome,
                route: None,
            };
        };
        let (fields, body) = self.read_body(live, &parts, body, peer, &effective).await;
        let mutation = match live.rules.mutation(
            &request_view(&parts, &body, peer),
            &effective,
            fields.as_ref(),
        ) {
            Ok(mutation) => mutation,
            Err(header) => return self.refuse_header(None, &header),
        };
        self.record_mutation(&parts, &mutation);
        let host = plan::authority(&parts.uri, &parts.headers).into_owned();
        let base = parts.uri.clone();
        let posted = self.prepare_post(&live.rules, &parts, peer).await;
        let has_body = !body.is_empty();
        let written = MutationContext {
            config: Arc::clone(live),
            parts: head_of(&parts),
            peer,
            has_body,
            effective,
            fields,
        };
        let request = self.upstream_request(parts, body, peer, None);
        let order = MutationRequest {
            request,
            mutation,
            context: written,
            host,
            base,
            post: posted,
            _permit: place,
        };
        let (tell, told) = oneshot::channel();
        let proxy = Arc::clone(self);
        self.tasks.spawn(async move {
            let tags = order.mutation.tags.clone();
            let run = Box::pin(Arc::clone(&proxy).run_mutation(order, tell));
            if AssertUnwindSafe(run).catch_unwind().await.is_err() {
                // The app may have committed; nobody else would ever purge, since this sidecar
                // lives.
                proxy.coherence.purge(&tags).await;
            }
        });
        match told.await {
            Ok(MutationResult::Response(response, purged, ready)) => {
                self.mutation_response(response, &purged, ready, outcome)
            }
            Ok(MutationResult::Failed(error)) => {
                let outcome = Outcome { reason: Some(error.reason()), ..outcome };
                ProxyResponse {
                    response: response::failure(error.reason(), &outcome),
                    outcome,
                    route: None,
                }
            }
            Ok(MutationResult::Refused) => {
                let outcome = Outcome { reason: Some(Reason::WriteRefused), ..outcome };
                ProxyResponse {
                    response: response::failure(Reason::WriteRefused, &outcome),
                    outcome,
                    route: None,
                }
            }
            // The task panicked, and its panic was logged.
            Err(_) => {
                let outcome = Outcome { reason: Some(Reason::UpstreamProtocolError), ..outcome };
                ProxyResponse {
                    response: response::failure(Reason::UpstreamProtocolError, &outcome),
                    outcome,
                    route: None,
                }
            }
        }
    }

    /// Reads the body, up to a limit, where a rule needs a field of it. What was read is put back
    /// in front of the rest.
    async fn read_body(
        &self,
        live: &ActiveConfig,
        parts: &Parts,
        mut body: Body,
        peer: ClientPeer,
        effective: &Method,
    ) -> (Option<BodyFields>, Body) {
        if body.is_empty()
            || !live.rules.mutation_reads_body(&request_view(parts, &body, peer), effective)
        {
            return (None, body);
        }
        let mut read = BytesMut::new();
        let limit = usize::try_from(live.settings.purge_body).unwrap_or(usize::MAX);
        while read.len() <= limit {
            match body.frame().await {
                None => {
                    let read = read.freeze();
                    let kind = parts
                        .headers
                        .get(CONTENT_TYPE)
                        .map(HeaderValue::as_bytes)
                        .unwrap_or_default();
                    return (BodyFields::parse(kind, &read), Body::full(read));
                }
                Some(Ok(frame)) => {
                    // What is not data is trailers: the end of a body, which is forwarded without
                    // them.
                    if let Ok(chunk) = frame.into_data() {
                        read.extend_from_slice(&chunk);
                    }
                }
                Some(Err(error)) => {
                    return (
                        None,
                        Body::stream(PrefixedBody {
                            read: Some(read.freeze()),
                            rest: BodyRest::Broken(Some(error)),
                        }),
                    );
                }
            }
        }
        (None, Body::stream(PrefixedBody { read: Some(read.freeze()), rest: BodyRest::Body(body) }))
    }

    fn record_mutation(&self, parts: &Parts, mutation: &Mutation) {
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

    async fn run_mutation(
        self: Arc<Self>,
        order: MutationRequest,
        tell: oneshot::Sender<MutationResult>,
    ) {
        let MutationRequest {
            request,
            mut mutation,
            context: written,
            host,
            base,
            post: posted,
            _permit: _place,
        } = order;
        let mark_for = written.config.settings.mark_for;
        let guarded = mutation.guard == MutationGuard::Bypass;
        let tags = std::mem::take(&mut mutation.tags);
        let noted = self.shadow.begin_mutation(
            request.method(),
            request.uri().path(),
            &tags,
            self.clock.wall(),
        );
        // What cannot be marked is refused, where the operator would rather refuse a write than
        // serve a stale read.
        let Ok(mut pending) = self.coherence.mark(tags, guarded, mark_for).await else {
            noted.refused();
            let _ = tell.send(MutationResult::Refused);
            return;
        };
        let result = self.send_renewing(request, &mut pending, mark_for).await;
        let told = match result {
            Ok(response) if response.status().is_client_error() => {
                noted.refused();
                self.coherence.refused(pending).await;
                MutationResult::Response(response, Vec::new(), false)
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
                self.publish_purge(&written, &purged);
                let steps = 1 + u64::from(purged.len() > own);
                self.forward_response(response, purged, posted, steps).await
            }
            Err(error) => {
                if error.may_have_reached_origin() {
                    // The app may have committed before it broke off.
                    let purged = pending.tags().to_vec();
                    self.purge_after(pending, &written, &mutation.repurge_after).await;
                    noted.ended(self.clock.wall());
                    self.publish_purge(&written, &purged);
                } else {
                    noted.refused();
                    self.coherence.refused(pending).await;
                }
                MutationResult::Failed(error)
            }
        };
        let _ = tell.send(told);
    }

    /// Sends the request, and moves the deadline of its mark for as long as that takes.
    async fn send_renewing(
        &self,
        request: Request<Body>,
        pending: &mut PendingMutation,
        mark_for: Duration,
    ) -> Result<Response<Body>, upstream::UpstreamError> {
        let sending = self.send_to_origin(request, None);
        tokio::pin!(sending);
        let every = self.coherence.renew_every(mark_for);
        loop {
            tokio::select! {
                result = &mut sending => return result,
                () = tokio::time::sleep(every) => self.coherence.renew(pending, mark_for).await,
            }
        }
    }

    async fn purge_after(
        &self,
        pending: PendingMutation,
        written: &MutationContext,
        again: &[Duration],
    ) {
        self.counters.purging.inc();
        let mut tags: Vec<Tag> =
            if again.is_empty() { Vec::new() } else { pending.tags().to_vec() };
        // Before it is committed: rules that come later find an app that has it.
        let late = self.tags_of_new_rules(written, pending.tags());
        self.coherence.committed(pending).await;
        match late {
            NewRulePurges::Nothing => {}
            NewRulePurges::Tags(late) => {
                self.coherence.purge(&late).await;
                tags.extend(late);
            }
            NewRulePurges::Everything => self.coherence.purge_everything(PurgeKind::Hard).await,
        }
        for &after in again {
            let (coherence, tags) = (Arc::clone(&self.coherence), tags.clone());
            // Not tracked: a drain does not wait for it. What ends with the process is an extra;
            // the purge itself has been made.
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                coherence.purge(&tags).await;
            });
        }
    }

    /// What operators see of a write that purged.
    fn publish_purge(&self, written: &MutationContext, tags: &[Tag]) {
        let names = || tags.iter().map(Tag::as_str);
        self.counters.purges.write.inc();
        self.hot_tags.record(names(), TagEvent::Purged);
        let (method, path) = (
            Some(truncate(written.parts.method.as_str())),
            Some(truncate(written.parts.uri.path())),
        );
        let purged =
            PurgeEvent { by: "write", method, path, ..PurgeEvent::default() }.with_tags(names());
        self.events.publish(self.clock.wall(), EventKind::Purge(purged));
    }

    /// What the rules that are in force by now purge beside these tags, if they are not those that
    /// the mutation began under.
    fn tags_of_new_rules(&self, written: &MutationContext, tags: &[Tag]) -> NewRulePurges {
        let (live, asked) = (self.active_config(), written.view());
        if Arc::ptr_eq(&live, &written.config) {
            return NewRulePurges::Nothing;
        }
        if written.fields.is_none()
            && written.has_body
            && live.rules.mutation_reads_body(&asked, &written.effective)
        {
            // The old rules did not read the body, and it is gone.
            return NewRulePurges::Everything;
        }
        match live.rules.mutation(&asked, &written.effective, written.fields.as_ref()) {
            Ok(mutation) => NewRulePurges::Tags(
                mutation.tags.into_iter().filter(|tag| !tags.contains(tag)).collect(),
            ),
            // The new rules would have refused it, for a header that they cannot read.
            Err(_) => NewRulePurges::Everything,
        }
    }

    async fn forward_response(
        self: &Arc<Self>,
        response: Response<Body>,
        purged: Vec<Tag>,
        posted: Option<PendingPost>,
        steps: u64,
    ) -> MutationResult {
        let Some(posted) = posted else { return MutationResult::Response(response, purged, false) };
        match self.store_post_response(posted, response, steps).await {
            Ok(ready) => MutationResult::Response(ready, purged, true),
            Err(response) => MutationResult::Response(response, purged, false),
        }
    }

    fn mutation_response(
        &self,
        mut response: Response<Body>,
        purged: &[Tag],
        ready: bool,
        mut outcome: Outcome,
    ) -> ProxyResponse {
        outcome.fwd_status = Some(response.status().as_u16());
        outcome.stored = ready;
        if !ready {
            let version = response.version();
            forward::prepare_response(response.headers_mut(), version);
        }
        response::set_cache_status(response.headers_mut(), &outcome);
        if self.config.load().settings.debug_headers && !purged.is_empty() {
            let names: Vec<&str> = purged.iter().map(Tag::as_str).collect();
            if let Ok(value) = HeaderValue::from_str(&names.join(" ")) {
                response.headers_mut().insert(response::X_CACHE_PURGED, value);
            }
        }
        *response.version_mut() = http::Version::HTTP_11;
        ProxyResponse { response, outcome, route: None }
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
    let lines = [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    lines
        .filter_map(|line| same_origin_path(line, host, base))
        .map(|path| Tag::for_uri(host, &path))
        .collect()
}

/// The groups that a response to an unsafe method ends (RFC 9875 3).
fn named_groups(headers: &HeaderMap, host: &str) -> impl Iterator<Item = Tag> {
    let groups = cache_groups::groups(headers, &cache_groups::CACHE_GROUP_INVALIDATION)
        .inspect_err(
            |error| tracing::warn!(%error, host, "a Cache-Group-Invalidation is not obeyed"),
        );
    groups.unwrap_or_default().into_iter().map(move |group| cache_groups::tag(host, &group))
}

fn same_origin_path(reference: &str, host: &str, base: &Uri) -> Option<String> {
    // The scheme does not matter: both of an app's origins have its data.
    let base = url::Url::parse(&format!("http://{host}{}", base.path())).ok()?;
    let target = base.join(reference).ok()?;
    (target.host_str() == base.host_str()).then(|| request_target::permissive_path(target.path()))
}

/// A body whose beginning was read already.
struct PrefixedBody {
    read: Option<Bytes>,
    rest: BodyRest,
}

enum BodyRest {
    Body(Body),
    Broken(Option<crate::semantics::body::BodyError>),
}

impl http_body::Body for PrefixedBody {
    type Data = Bytes;
    type Error = crate::semantics::body::BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(read) = this.read.take() {
            return std::task::Poll::Ready(Some(Ok(http_body::Frame::data(read))));
        }
        match &mut this.rest {
            BodyRest::Body(body) => std::pin::Pin::new(body).poll_frame(cx),
            BodyRest::Broken(error) => std::task::Poll::Ready(error.take().map(Err)),
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
        assert_eq!(
            path("https://app/api/x").as_deref(),
            Some("/api/x"),
            "ports differ behind proxies"
        );
        assert_eq!(path("http://elsewhere/api/x"), None);
        assert_eq!(path("http://["), None);
    }
}
