//! The canonical parts of a request. The key is made of them, and so is the request of a fill
//! ([`super::fill_request`]), which sees nothing else of what the client sent.
//!
//! Invariants:
//! - Whatever is here and reaches the origin is in the key, except: the credential in scope
//!   `shared`, what the operator passes (`pass_headers`), in scope `private` with a credential the
//!   client's `User-Agent`, and of a verified session its signature, its time and what is ignored.
//! - Each part is in the form that the key holds, so that two requests with one key are one request
//!   to the origin.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, COOKIE, FORWARDED, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, IF_UNMODIFIED_SINCE, PRAGMA, RANGE, USER_AGENT,
};
use smallvec::SmallVec;

use crate::outcome::Reason;
use crate::policy::cookie_header;
use crate::policy::credential::{Credential, CredentialRule};
use crate::policy::plan::rules::PolicyRules;
use crate::policy::route::{HeaderRole, RoleContext, Route};
use crate::policy::scope::Scope;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::content_coding::Coding;
use crate::semantics::forward;
use crate::semantics::negotiation;
use crate::semantics::negotiation::{KeyedForm, Languages};

/// The canonical parts of a request.
#[derive(Clone, Debug)]
pub struct CanonicalRequest<'a> {
    /// The authority, lower-case.
    pub host: &'a str,
    /// The path in normal form.
    pub path: &'a str,
    /// The query that is in the key.
    pub query: Option<&'a str>,
    /// The client's address as a field of the key has it, or as the operator passes it; none where
    /// neither is so.
    pub(super) address: Option<Vec<u8>>,
    pub(super) headers: CanonicalHeaders<'a>,
    pub(super) cookies: CanonicalCookies<'a>,
}

/// A header with its value in the form that the key holds.
pub(super) type KeyedLine<'a> = (&'a HeaderName, KeyedValue<'a>);

/// The value of a header in the form that the key holds.
#[derive(Clone, Debug)]
pub(super) enum KeyedValue<'a> {
    /// As the request has it.
    Sent(&'a [u8]),
    /// As it was made of what the request has.
    Made(Arc<str>),
}

impl Deref for KeyedValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sent(value) => value,
            Self::Made(text) => text.as_bytes(),
        }
    }
}

/// The headers of a request, by what becomes of them.
#[derive(Clone, Debug, Default)]
pub(super) struct CanonicalHeaders<'a> {
    /// In the key by name and value, sorted by name. Negotiated ones are in their normal form.
    pub(super) implicit: SmallVec<[KeyedLine<'a>; 4]>,
    /// In the key as the values of fields.
    pub(super) fields: SmallVec<[(&'a HeaderName, &'a HeaderValue); 2]>,
    /// What identifies the client, apart from cookies. Empty in scope `public`.
    pub(super) credentials: SmallVec<[(&'a HeaderName, &'a HeaderValue); 2]>,
    /// What the operator passes.
    pub(super) passed: SmallVec<[(&'a HeaderName, &'a HeaderValue); 1]>,
    pub(super) user_agent: FillUserAgent<'a>,
}

/// Which `User-Agent` the origin receives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum FillUserAgent<'a> {
    /// The same one for all clients, unless the key has one.
    #[default]
    Constant,
    /// The client's own: in scope `private`, of a client with a credential.
    Own(&'a HeaderValue),
}

/// The cookies of a request, by what becomes of them. Each text is a whole `Cookie` header.
#[derive(Clone, Debug, Default)]
pub(super) struct CanonicalCookies<'a> {
    /// Those that identify the client.
    pub(super) identity: Option<Cow<'a, [u8]>>,
    /// Those that are in the key.
    pub(super) keyed: Option<Cow<'a, [u8]>>,
}

/// What a key holds of the headers, apart from fields and the credential.
#[derive(Debug, Default)]
pub(super) struct KeyedHeaders<'a> {
    /// In the key by name and value, sorted by name. Negotiated ones are in their normal form.
    pub(super) implicit: SmallVec<[KeyedLine<'a>; 4]>,
    /// Those that no key has seen.
    pub(super) unknown: SmallVec<[HeaderName; 1]>,
    pub(super) has_cookie: bool,
    pub(super) has_range: bool,
    /// Why the cache takes no part: a condition that a stored response cannot answer.
    pub(super) bypass: Option<Reason>,
    /// `Cache-Control` or `Pragma`.
    pub(super) has_directives: bool,
}

impl<'a> KeyedHeaders<'a> {
    /// Sorts the headers of a request.
    #[inline]
    pub(super) fn new(route: &Route, roles: &RoleContext, headers: &'a HeaderMap) -> Self {
        let (mut keyed, mut has_forwarded) = (Self::default(), false);
        let mut negotiated: SmallVec<[(&HeaderName, &HeaderValue); 3]> = SmallVec::new();
        for (name, value) in headers {
            match route.headers.role(name, roles) {
                HeaderRole::Implicit => {
                    keyed.implicit.push((name, KeyedValue::Sent(value.as_bytes())));
                }
                // What says no more than the default is no line, alone or beside others.
                HeaderRole::Negotiated if *name == ACCEPT_ENCODING && value == "identity" => {}
                HeaderRole::Negotiated => negotiated.push((name, value)),
                HeaderRole::Substituted if roles.peer_is_trusted() && *name == FORWARDED => {
                    has_forwarded = true;
                }
                HeaderRole::Unknown => keyed.unknown.push(name.clone()),
                HeaderRole::Credential
                | HeaderRole::Passed
                | HeaderRole::Withheld
                | HeaderRole::Keyed => keyed.note(name),
                HeaderRole::Transport | HeaderRole::Substituted | HeaderRole::Harmless => {}
            }
        }
        if !negotiated.is_empty() {
            keyed.add_negotiated(route, headers, &negotiated);
        }
        if has_forwarded && let Some(original) = forward::original_request(headers) {
            keyed.implicit.push((const { &FORWARDED }, KeyedValue::Made(original.into())));
        }
        if keyed.implicit.len() > 1 {
            keyed.implicit.sort_by(|(one, _), (two, _)| one.as_str().cmp(two.as_str()));
        }
        keyed
    }

    /// Notes what the cache itself acts on, whatever else becomes of it.
    fn note(&mut self, name: &HeaderName) {
        self.has_cookie |= *name == COOKIE;
        self.has_range |= *name == RANGE;
        if *name == IF_MATCH || *name == IF_UNMODIFIED_SINCE {
            self.bypass = Some(Reason::Precondition);
        }
        self.has_directives |= *name == CACHE_CONTROL || *name == PRAGMA;
    }

    fn add_negotiated(
        &mut self,
        route: &Route,
        headers: &HeaderMap,
        lines: &[(&'a HeaderName, &'a HeaderValue)],
    ) {
        let languages = Languages { list: route.spec.languages.as_deref(), id: route.fingerprint };
        let offered = route.offers();
        // RFC 9111 5.2.1.6. The origin may code as it likes, and is asked not to.
        let stays_plain = offered.is_some()
            && self.has_directives
            && CacheControl::from_headers(headers).no_transform;
        for (at, (name, value)) in lines.iter().enumerate() {
            // A part of a response is a part of its plain form: a client that resumes a download
            // must not get pieces of two encodings.
            let plain = (self.has_range || stays_plain) && **name == ACCEPT_ENCODING;
            if plain || lines[..at].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let keyed_form = |value: &[u8]| match offered {
                Some(rule) if **name == ACCEPT_ENCODING => {
                    match negotiation::keyed_coding(value, &rule.codings) {
                        KeyedForm::Default => None,
                        KeyedForm::Text(Cow::Borrowed(text)) => {
                            Some(KeyedValue::Sent(text.as_bytes()))
                        }
                        KeyedForm::Text(Cow::Owned(text)) => Some(KeyedValue::Made(text.into())),
                    }
                }
                _ => negotiation::recent_form(name, value, languages).map(KeyedValue::Made),
            };
            let form = if lines[at + 1..].iter().any(|(later, _)| later == name) {
                let all = lines.iter().filter(|(other, _)| other == name);
                let all: Vec<&[u8]> = all.map(|(_, value)| value.as_bytes()).collect();
                keyed_form(&all.join(&b", "[..]))
            } else {
                keyed_form(value.as_bytes())
            };
            self.implicit.extend(form.map(|form| (*name, form)));
        }
    }
}

impl<'a> CanonicalHeaders<'a> {
    /// Sorts the headers of a request.
    pub(super) fn new(route: &Route, roles: &RoleContext, headers: &'a HeaderMap) -> Self {
        let implicit = KeyedHeaders::new(route, roles, headers).implicit;
        let mut sorted = Self { implicit, ..Self::default() };
        for (name, value) in headers {
            match route.headers.role(name, roles) {
                HeaderRole::Keyed => sorted.fields.push((name, value)),
                HeaderRole::Credential if route.spec.scope != Scope::Public && *name != COOKIE => {
                    sorted.credentials.push((name, value));
                }
                // SECURITY: nobody vouches for what a client says of its own address.
                HeaderRole::Passed if *name != COOKIE && !forward::is_address(name) => {
                    sorted.passed.push((name, value));
                }
                _ => {}
            }
        }
        // The key does not see the order in which the client sends them.
        for names in [&mut sorted.fields[..], &mut sorted.credentials, &mut sorted.passed] {
            names.sort_by(|(one, _), (two, _)| one.as_str().cmp(two.as_str()));
        }
        sorted
    }

    /// The coding in the key, where there is but one.
    pub(super) fn coding(&self) -> Option<Coding> {
        let keyed = self.implicit.iter().find(|(name, _)| **name == ACCEPT_ENCODING)?;
        Coding::named(&keyed.1)
    }

    /// Decides which `User-Agent` the origin receives.
    pub(super) fn set_user_agent(
        &mut self,
        role: HeaderRole,
        headers: &'a HeaderMap,
        is_own: bool,
    ) {
        let mut lines = headers.get_all(USER_AGENT).iter();
        let single = lines.next().filter(|_| lines.next().is_none());
        self.user_agent = match (role, single) {
            (HeaderRole::Harmless, Some(agent)) if is_own => FillUserAgent::Own(agent),
            _ => FillUserAgent::Constant,
        };
    }
}

impl<'a> CanonicalCookies<'a> {
    /// Sorts the cookies of a request.
    pub(super) fn new(
        route: &Route,
        credential: &CredentialRule,
        roles: &RoleContext,
        headers: &'a HeaderMap,
    ) -> Self {
        let role = route.headers.role(&COOKIE, roles);
        match (role, route.spec.scope, &credential.cookies) {
            (HeaderRole::Withheld, ..) => Self::default(),
            // SECURITY: the operator's word lets through what else is in the header. Whoever sends
            // it is still told apart by all of it.
            (HeaderRole::Passed, Scope::Private | Scope::Shared, _) => {
                Self { identity: kept(headers, |_| true), ..Self::default() }
            }
            (_, Scope::Public, _) => {
                Self { keyed: of_fields(&route.keyed_cookies, headers), ..Self::default() }
            }
            (_, Scope::Shared, Some(identifies)) => {
                let identifies = |name: &[u8]| {
                    identifies.iter().any(|glob| glob.matches(name)) || route.reads_session(name)
                };
                let is_ignored = |name: &[u8]| credential.ignored_cookies.ignores(name);
                Self {
                    identity: kept(headers, identifies),
                    keyed: kept(headers, |name| !identifies(name) && !is_ignored(name)),
                }
            }
            (_, Scope::Private | Scope::Shared, _) => {
                Self { identity: counting_cookies(credential, headers), ..Self::default() }
            }
        }
    }

    /// The `Cookie` header of a fill.
    pub(super) fn on_the_wire(&self) -> Option<Vec<u8>> {
        let texts = [&self.identity, &self.keyed].into_iter().flatten();
        joined(texts.map(|text| &**text))
    }
}

impl PolicyRules {
    /// What identifies the caller of a request, whatever its route: all that could.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap) -> Option<Credential> {
        let cookies = counting_cookies(&self.credential, headers);
        self.credential.credential(headers, &[], cookies.as_deref(), &self.hasher)
    }
}

/// All cookies but those that count for nothing, as one `Cookie` header.
pub(super) fn counting_cookies<'a>(
    rule: &CredentialRule,
    headers: &'a HeaderMap,
) -> Option<Cow<'a, [u8]>> {
    kept(headers, |name| !rule.ignored_cookies.ignores(name))
}

/// The cookies with these names, as one `Cookie` header in the order of the request.
fn kept(headers: &HeaderMap, keep: impl Fn(&[u8]) -> bool) -> Option<Cow<'_, [u8]>> {
    let lines = headers.get_all(COOKIE);
    let mut single = lines.iter();
    if let (Some(line), None) = (single.next(), single.next()) {
        let mut pieces = cookie_header::cookie_pieces(line.as_bytes());
        if pieces.all(|(name, _)| keep(name)) {
            let line = line.as_bytes();
            return (!line.is_empty()).then_some(Cow::Borrowed(line));
        }
    }
    let pieces = lines.iter().flat_map(|line| cookie_header::cookie_pieces(line.as_bytes()));
    joined(pieces.filter(|(name, _)| keep(name)).map(|(_, piece)| piece)).map(Cow::Owned)
}

/// The cookies that fields of the key read, in the order of the fields.
fn of_fields<'a>(names: &[Box<str>], headers: &HeaderMap) -> Option<Cow<'a, [u8]>> {
    let pieces: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|wanted| {
            cookie_header::cookies(headers).filter(move |(name, _)| *name == wanted.as_bytes())
        })
        .map(|(name, value)| [name, b"=", value].concat())
        .collect();
    joined(pieces.iter().map(Vec::as_slice)).map(Cow::Owned)
}

fn joined<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut whole: Vec<u8> = Vec::new();
    for piece in pieces {
        if !whole.is_empty() {
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(piece);
    }
    (!whole.is_empty()).then_some(whole)
}

/// All lines of a header as one.
pub(super) fn joined_lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(Cow::Borrowed(line.as_bytes())),
        (None, _) => None,
        (Some(_), Some(_)) => forward::joined(headers, name, b", ").map(Cow::Owned),
    }
}
