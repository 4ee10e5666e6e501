//! Notes the requests that no route matches, and all writes, for [`crate::uncached`].
//!
//! Invariant: nothing that is noted here changes a request or its response. Before the request is
//! sent, its names are copied and its key is hashed; the rest is done when its response has begun,
//! or has ended. Of many requests only samples are noted: of the others the key is hashed alone.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, ETAG, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED,
};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::outcome::{Outcome, Reason};
use crate::policy::apps::AppId;
use crate::policy::cache_groups::{CACHE_GROUP_INVALIDATION, CACHE_GROUPS};
use crate::policy::plan;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::context::RequestContext;
use crate::proxy::pass::PassedRequest;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::proxy::unrouted::forms::FormSearch;
use crate::proxy::unrouted::trail::CookieSession;
use crate::proxy::{mutation, pass, purge_request};
use crate::semantics::body::Body;
use crate::semantics::digest::{MAX_GZIP_HEADER, gzip_header, is_gzip};
use crate::shadow::digest::{BodyDigester, digesting};
use crate::uncached::fold::parameter_name;
use crate::uncached::observation::{
    MAX_HEADER, MAX_HEADERS, MAX_PARAMETER, MAX_PARAMETERS, MAX_PATH, ReadFacts, RequestFacts,
    ResponseFacts, UnroutedNote, guards_forms,
};
use crate::uncached::trail::TrailFacts;
use crate::uncached::{MAX_DIGESTED, Uncached};

mod forms;
mod trail;

/// A request whose response is noted when it comes.
struct UnroutedRequest {
    path: Box<str>,
    request: RequestFacts,
    is_get: bool,
    trail: Option<Box<TrailFacts>>,
    session: Option<CookieSession>,
}

/// Digests a body with the key of this process: nobody else can make two bodies of one digest, and
/// it costs a fraction of what shadow mode pays for a digest that decides.
struct KeyedDigester {
    hash: DefaultHasher,
    /// What looks for the token of a form in a page.
    forms: Option<FormSearch>,
    /// The start of a body in gzip: its header may hold a time, or random bytes.
    start: Option<Vec<u8>>,
}

impl BodyDigester for KeyedDigester {
    /// The digest, and whether it is known that no form in it has a token.
    type Output = (u64, bool);

    fn update(&mut self, bytes: &[u8]) {
        if let Some(forms) = &mut self.forms {
            forms.update(bytes);
        }
        let Some(start) = &mut self.start else { return self.hash.write(bytes) };
        start.extend_from_slice(bytes);
        let skipped = match gzip_header(start) {
            Some(length) => length,
            None if start.len() < MAX_GZIP_HEADER => return,
            None => 0,
        };
        self.hash.write(&start[skipped..]);
        self.start = None;
    }

    fn finish(mut self) -> (u64, bool) {
        if let Some(start) = self.start.take() {
            self.hash.write(&start);
        }
        let has_none = self.forms.is_some_and(|forms| !forms.has_found());
        (self.hash.finish(), has_none)
    }
}

/// How two responses are compared.
enum Comparison {
    /// By this hash.
    Known(u64),
    /// By this hash, which two responses may have in common.
    Rough(u64),
    /// By a digest of the body.
    Body,
    /// Not at all.
    None,
}

/// Forwards a request as it is, and notes it if it is a read of the app of `[upstream]` that no
/// route matches. What is noted has no place for the name of another app.
pub(super) async fn pass(
    resources: &Arc<Resources>,
    context: RequestContext<'_>,
    request: PassedRequest,
    outcome: Outcome,
    route: Option<usize>,
) -> ProxyResponse {
    let is_noted = outcome.reason == Some(Reason::NoRoute) && context.app() == AppId::FIRST;
    let (parts, _) = &*request;
    let noted =
        if is_noted { UnroutedRequest::read(&resources.uncached, &context, parts) } else { None };
    // Awaited in one place, so that there is one future of it in this one.
    let mut passed = pass::pass(resources, context, request, outcome, route).await;
    if let Some(noted) = noted {
        noted.note(resources, &mut passed);
    }
    passed
}

/// Forwards a write, and notes it if it is of the app of `[upstream]`, whatever its path. A purge
/// request is answered here.
pub(super) async fn mutate(
    resources: &Arc<Resources>,
    live: &Arc<LiveConfig>,
    context: RequestContext<'_>,
    parts: Parts,
    body: Body,
    method: Method,
) -> ProxyResponse {
    if let Some(rule) = purge_request::rule_for(&context, &parts.method) {
        return purge_request::answer(resources, context, rule, &parts).await;
    }
    if context.app() != AppId::FIRST {
        return mutation::mutate(resources, live, context, parts, body, method).await;
    }
    let mut write = UnroutedRequest::new(&parts, RequestFacts::Write(method.clone()));
    write.trail = trail::of_write(&resources.uncached, &context, &parts);
    let mut answered = mutation::mutate(resources, live, context, parts, body, method).await;
    write.note(resources, &mut answered);
    answered
}

impl UnroutedRequest {
    fn new(parts: &Parts, request: RequestFacts) -> Self {
        let path = parts.uri.path();
        let path = if path.len() <= MAX_PATH { path } else { "" };
        let is_get = parts.method == Method::GET;
        Self { path: path.into(), request, is_get, trail: None, session: None }
    }

    /// A read; `None` if there are too many, and others of a sample stand for it.
    fn read(uncached: &Uncached, context: &RequestContext<'_>, parts: &Parts) -> Option<Self> {
        let (uri, headers) = (&parts.uri, &parts.headers);
        let credential = &context.config.rules.credential;
        let query = uri.query().unwrap_or_default();
        let host = plan::authority(uri, headers);
        let key = uncached.hash(&(parts.method.as_str(), &*host, uri.path(), query));
        let sample = uncached.sample(key, context.now.0)?;
        let own = &credential.headers;
        let has_credential = headers.contains_key(AUTHORIZATION)
            || own.iter().any(|name| headers.contains_key(name));
        let has_cookies = headers.contains_key(COOKIE);
        let caller =
            if has_credential || has_cookies { uncached.hash(&identity(headers, own)) } else { 0 };
        let names = query.split('&').filter(|parameter| !parameter.is_empty());
        let names =
            names.map(|parameter| parameter.split_once('=').map_or(parameter, |(name, _)| name));
        let read = ReadFacts {
            key,
            sample,
            caller,
            has_credential,
            has_cookies,
            has_jwt: headers.get(AUTHORIZATION).is_some_and(looks_like_jwt),
            guards_forms: headers
                .get_all(COOKIE)
                .iter()
                .any(|cookies| guards_forms(cookies.as_bytes())),
            parameters: names
                .take(MAX_PARAMETERS)
                .map(|name| if name.len() <= MAX_PARAMETER { parameter_name(name) } else { "…" })
                .map(Box::from)
                .collect(),
            headers: headers
                .keys()
                .filter(|name| name.as_str().len() <= MAX_HEADER)
                .take(MAX_HEADERS)
                .cloned()
                .collect(),
        };
        // A page of which only some reads are seen tells nothing of what a rule would have served.
        let trail = sample.is_complete.then(|| trail::of_read(uncached, context, parts)).flatten();
        let session = trail.is_some().then(|| trail::session_of(uncached, context, headers));
        let session = session.flatten();
        Some(Self { trail, session, ..Self::new(parts, RequestFacts::Read(read)) })
    }

    /// Notes the request, when its response has ended if its body is digested.
    fn note(self, resources: &Resources, passed: &mut ProxyResponse) {
        let uncached = &resources.uncached;
        let Some(status) = passed.outcome.fwd_status.and_then(|it| StatusCode::from_u16(it).ok())
        else {
            // The app has not answered.
            return;
        };
        let headers = passed.response.headers();
        let took =
            passed.outcome.origin.as_ref().and_then(|call| call.took).unwrap_or(Duration::ZERO);
        let now = resources.clock.now();
        let comparison = if self.is_get && matches!(self.request, RequestFacts::Read(_)) {
            compare(uncached, status, headers, now)
        } else {
            Comparison::None
        };
        let mut response = ResponseFacts::new(status, headers);
        let (path, request, mut trail) = (self.path, self.request, self.trail);
        if let Some(trail) = &mut trail {
            let (is_whole, now) = (matches!(comparison, Comparison::Body), resources.clock.wall());
            trail::complete(trail, uncached, self.session, (status, headers), is_whole, now);
            response.renews_session = trail.session.as_ref().is_some_and(|it| it.is_renewed);
            trail.is_exact = !matches!(comparison, Comparison::Rough(_));
            let field = match request {
                RequestFacts::Read(_) => &CACHE_GROUPS,
                RequestFacts::Write(_) => &CACHE_GROUP_INVALIDATION,
            };
            trail.groups = trail::groups(uncached, trail.host, headers, field);
        }
        let at = uncached.millis(now);
        let mut observation =
            UnroutedNote { path, request, at, took, response, digest: None, trail };
        match comparison {
            Comparison::Body if !response.is_stream => {
                let own = Arc::clone(uncached);
                let start = is_gzip(headers).then(Vec::new);
                let is_plain = !headers.contains_key(CONTENT_ENCODING);
                let forms = (response.is_html && is_plain).then(FormSearch::default);
                let digester = KeyedDigester { hash: own.hasher(), forms, start };
                let body = std::mem::replace(passed.response.body_mut(), Body::empty());
                let listener = move |digest: Result<(u64, bool), Reason>| {
                    observation.response.has_no_form = digest.is_ok_and(|(_, none)| none);
                    observation.digest = digest.ok().map(|(digest, _)| digest);
                    if let Some(trail) = &mut observation.trail {
                        trail.ended = own.step();
                    }
                    own.note(observation);
                };
                *passed.response.body_mut() = digesting(body, digester, MAX_DIGESTED, listener);
            }
            Comparison::Known(digest) | Comparison::Rough(digest) => {
                observation.digest = Some(digest);
                uncached.note(observation);
            }
            Comparison::Body | Comparison::None => uncached.note(observation),
        }
    }
}

/// Whether a token looks like a JWT: three parts, of which the first is JSON.
fn looks_like_jwt(value: &HeaderValue) -> bool {
    let token = value.as_bytes().split(|byte| *byte == b' ').next_back().unwrap_or_default();
    token.starts_with(b"eyJ") && token.split(|byte| *byte == b'.').count() == 3
}

/// What tells callers apart.
fn identity<'a>(headers: &'a HeaderMap, own: &[HeaderName]) -> Vec<&'a [u8]> {
    let names = [&AUTHORIZATION, &COOKIE].into_iter().chain(own);
    names.flat_map(|name| headers.get_all(name)).map(HeaderValue::as_bytes).collect()
}

/// How this response is compared with others: by its `ETag`, by its length where its body is large,
/// or by its body.
fn compare(
    uncached: &Uncached,
    status: StatusCode,
    headers: &HeaderMap,
    now: Instant,
) -> Comparison {
    if !matches!(status, StatusCode::OK | StatusCode::NOT_MODIFIED) {
        return Comparison::None;
    }
    if let Some(tag) = headers.get(ETAG) {
        // A 304 says the same as the 200 with this tag, strong or weak.
        let tag = tag.as_bytes();
        return Comparison::Known(uncached.hash(&tag.strip_prefix(b"W/").unwrap_or(tag)));
    }
    if status == StatusCode::NOT_MODIFIED {
        return Comparison::None;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) if length > MAX_DIGESTED => {
            let modified = headers.get(LAST_MODIFIED).map(HeaderValue::as_bytes);
            Comparison::Rough(uncached.hash(&(length, modified)))
        }
        // A stream without a length may be as long as any that is digested.
        _ if uncached.may_digest(length.unwrap_or(MAX_DIGESTED / 8), now) => Comparison::Body,
        _ => Comparison::None,
    }
}
