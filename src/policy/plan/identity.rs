//! Who the caller of a request is, where a route has that in its key: what is known of it, and the
//! request by which the origin is asked.
//!
//! Invariant: the bytes that the origin is asked with are a function of what the key of the answer
//! is made of, of the settings, and of constants; but for the `User-Agent` and an id for the
//! origin's log. So an answer never depends on what only one of two callers with one key has sent.

use std::sync::Arc;

use hmac::Mac as _;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE, USER_AGENT, VIA,
};
use http::{Request, Uri};

use crate::outcome::{Outcome, Reason};
use crate::policy::caller;
use crate::policy::cookie_header::cookies;
use crate::policy::fill_constants::FILL_ADDRESS;
use crate::policy::identity::{
    CallerSlots, IdentityAnswer, IdentityFault, IdentityField, IdentityKey, IdentityTable,
    ProbeStart, RequestIdentity,
};
use crate::policy::plan::Plan;
use crate::policy::plan::canonical::counting_cookies;
use crate::policy::plan::fill_request::X_REQUEST_ID;
use crate::policy::plan::lookup::Lookup;
use crate::policy::plan::rules::{PolicyRules, RequestView};
use crate::policy::route::Route;
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP, joined,
};

/// What a trusted proxy says of the request that the client made, in the order in which it is
/// hashed.
const STATED: [HeaderName; 3] = [X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT];

/// A question to the origin: who holds this credential.
#[derive(Clone, Debug)]
pub struct IdentityProbe {
    /// What its answer is kept by.
    pub key: IdentityKey,
    /// By which writes its answer ends.
    pub slots: CallerSlots,
    target: Uri,
    headers: HeaderMap,
}

/// What has to hold still, once a response is there, for it to be stored under a key that has
/// fields of the caller's identity.
#[derive(Clone, Debug)]
pub struct IdentityCheck {
    /// How the origin is asked again.
    pub probe: IdentityProbe,
    answer: Arc<IdentityAnswer>,
    pointers: Box<[Arc<str>]>,
    table: Arc<IdentityTable>,
    /// What the caller had written when the fill began.
    start: ProbeStart,
}

impl IdentityCheck {
    /// Whether the origin says the same of the caller by this answer, and the caller has written
    /// nothing since the fill began: whoever becomes another one and then the first again was
    /// another one meanwhile.
    #[must_use]
    pub fn is_met_by(&self, answer: &IdentityAnswer) -> bool {
        let is_same = |pointer: &Arc<str>| self.answer.value(pointer) == answer.value(pointer);
        self.pointers.iter().all(is_same) && self.table.is_current(&self.start)
    }
}

impl IdentityProbe {
    /// The request that the origin gets. `id` identifies it for the origin's log.
    #[must_use]
    pub fn to_request(&self, id: HeaderValue) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(X_REQUEST_ID, id);
        request
    }
}

impl PolicyRules {
    /// What is known of the caller of a request, as far as its route reads it. An outcome without a
    /// subject says that the origin has to be asked.
    pub(super) fn request_identity(
        &self,
        route: &Route,
        request: &RequestView<'_>,
    ) -> Result<RequestIdentity, Outcome> {
        if !route.reads_identity {
            return Ok(RequestIdentity::Unread);
        }
        // A guest is nobody, and its fill carries no credential.
        if route.is_for_guests() {
            return Ok(RequestIdentity::Nobody);
        }
        if let Some(known) = request.identity {
            return Ok(known.clone());
        }
        let Some(key) = self.identity_key(request) else { return Ok(RequestIdentity::Nobody) };
        if self.has_several_credentials(request.headers) {
            return Ok(RequestIdentity::Fault(IdentityFault::Several));
        }
        let known = self.identities.as_ref().and_then(|table| table.get(&key, request.now));
        known.ok_or_else(|| Outcome::bypass(Reason::IdentityUnknown))
    }

    /// Whether the origin may go by one credential where it is asked, and by another one where it
    /// answers.
    ///
    /// SECURITY: with one of each of two tenants, a caller could put the page of one into the entry
    /// of the other.
    fn has_several_credentials(&self, headers: &HeaderMap) -> bool {
        let rule = &self.credential;
        let lines = [&AUTHORIZATION].into_iter().chain(&rule.headers);
        let lines: usize = lines.map(|name| headers.get_all(name).iter().count()).sum();
        let has_cookie = rule.identifying_cookies(headers).next().is_some();
        let counting = cookies(headers).map(|(name, _)| name);
        let mut names: Vec<&[u8]> =
            counting.filter(|name| !rule.ignored_cookies.ignores(name)).collect();
        names.sort_unstable();
        lines + usize::from(has_cookie) > 1 || names.windows(2).any(|two| two[0] == two[1])
    }

    /// The plan of a request that has no key.
    pub(super) fn unplanned<'a>(
        route: &'a Arc<Route>,
        request: &RequestView<'a>,
        outcome: Outcome,
    ) -> Plan<'a> {
        let is_to_be_asked = outcome.reason == Some(Reason::IdentityUnknown)
            && outcome.subject.is_none()
            && request.identity.is_none();
        if is_to_be_asked { Plan::Identify(route) } else { Plan::Pass(Some(route), outcome) }
    }

    /// What the answer about the caller of a request is kept by; `None` without a credential.
    fn identity_key(&self, request: &RequestView<'_>) -> Option<IdentityKey> {
        let caller = self.caller(request.headers)?;
        let mut mac = self.hasher.mac("identity");
        let mut part = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        part(&caller.0);
        part(self.host_of(request).as_bytes());
        if request.peer_is_trusted {
            for name in &STATED {
                part(&joined(request.headers, name, b", ").unwrap_or_default());
            }
            part(forward::original_request(request.headers).unwrap_or_default().as_bytes());
        }
        Some(IdentityKey { app: request.app, digest: mac.finalize().into_bytes().into() })
    }

    /// The question who the caller of a request is.
    ///
    /// # Errors
    /// There is nobody to ask, or nobody to ask about.
    pub fn identity_probe(
        &self,
        request: &RequestView<'_>,
    ) -> Result<(IdentityProbe, &Arc<IdentityTable>), RequestIdentity> {
        let unasked = RequestIdentity::Fault(IdentityFault::Unasked);
        let Some(table) = &self.identities else { return Err(unasked) };
        let caller = self.caller(request.headers).ok_or(RequestIdentity::Nobody)?;
        let key = self.identity_key(request).ok_or(RequestIdentity::Nobody)?;
        let slots = table.writes.slots_of(&self.credential, &caller, request.headers);
        let Some(slots) = slots else { return Err(unasked) };
        let Ok(target) = Uri::try_from(&*table.settings.path) else { return Err(unasked) };
        Ok((IdentityProbe { key, slots, target, headers: self.probe_headers(request) }, table))
    }

    /// Ends what the origin has said of the caller of a request with these headers.
    pub fn end_identity(&self, headers: &HeaderMap) {
        if let Some(table) = &self.identities {
            let caller = self.caller(headers);
            table.writes.record(&self.credential, caller.as_ref(), headers);
        }
    }

    /// The same, where the response sets or clears a cookie that counts: a login or a logout by
    /// whatever method.
    pub fn end_identity_by(&self, request: &HeaderMap, response: &HeaderMap) {
        let table = self.identities.as_ref().filter(|_| response.contains_key(SET_COOKIE));
        if table.is_some()
            && caller::names_set_by(&self.credential, response, &self.hasher).is_some()
        {
            self.end_identity(request);
            // The origin may give a session that it has given before, to somebody else by now.
            if let Some(table) = table {
                table.writes.record_set(&self.credential, response);
            }
        }
    }

    fn probe_headers(&self, request: &RequestView<'_>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        let sent = request.headers;
        let (host, fill) = (self.host_of(request), &self.app_of(request).fill);
        let host = HeaderValue::from_str(&host).ok();
        if let Some(host) = fill.host.as_ref().or(host.as_ref()) {
            headers.insert(HOST, host.clone());
        }
        for name in [&AUTHORIZATION].into_iter().chain(&self.credential.headers) {
            for value in sent.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let sent_cookies = counting_cookies(&self.credential, sent);
        if let Some(cookies) = sent_cookies.and_then(|text| HeaderValue::from_bytes(&text).ok()) {
            headers.insert(COOKIE, cookies);
        }
        // An app may end a session that comes from another browser.
        let agent = sent.get(USER_AGENT).unwrap_or(&fill.user_agent);
        headers.insert(USER_AGENT, agent.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let stated = |name: &HeaderName| {
            let text = request.peer_is_trusted.then(|| joined(sent, name, b", ")).flatten()?;
            HeaderValue::from_bytes(&text).ok()
        };
        let [proto, original, port] = STATED.each_ref().map(stated);
        let proto = proto.or_else(|| Some(HeaderValue::from_static("http")));
        let original = original.or(host);
        let text = |value: &Option<HeaderValue>| {
            let text = value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
            text.split(',').next().unwrap_or_default().trim().to_owned()
        };
        let own = request.peer_is_trusted.then(|| forward::original_request(sent)).flatten();
        let pairs = own.unwrap_or_else(|| {
            forward::original_pairs(&text(&original), &text(&port), &text(&proto))
        });
        let forwarded = HeaderValue::from_str(&format!("for={FILL_ADDRESS};{pairs}")).ok();
        let nobody = Some(HeaderValue::from_static(FILL_ADDRESS));
        for (name, value) in [
            (X_FORWARDED_PROTO, proto),
            (X_FORWARDED_HOST, original),
            (X_FORWARDED_PORT, port),
            (X_FORWARDED_FOR, nobody.clone()),
            (X_REAL_IP, nobody),
            (FORWARDED, forwarded),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if fill.via {
            headers.insert(VIA, HeaderValue::from_static("1.1 sidecache"));
        }
        headers
    }
}

impl Lookup<'_> {
    /// What has to hold still once a response is there, for it to be stored; `None` where the key
    /// has no field of the caller's identity. Made before the fill is sent.
    ///
    /// SECURITY: whoever the caller was when the origin was asked, the origin answers a fill by who
    /// the caller is by then. Only if it is the same before and after is it the answer for the key.
    pub(crate) fn identity_check(&self) -> Option<IdentityCheck> {
        let RequestIdentity::Known(answer) = &self.identity else { return None };
        let (probe, table) = self.rules.identity_probe(&self.request).ok()?;
        let start = table.begin(probe.slots.clone(), self.request.now);
        let fields = self.route.fields.iter().filter_map(|field| field.identity());
        let pointers = fields.map(|IdentityField { pointer, .. }| Arc::clone(pointer)).collect();
        let (answer, table) = (Arc::clone(answer), Arc::clone(table));
        Some(IdentityCheck { probe, answer, pointers, table, start })
    }
}
