//! What the rules say of a request, before any cache is looked at. Pure: the flow acts on it, and
//! `explain` prints it.
//!
//! Invariant: the key has seen whatever the app will see on a fill. [`FieldLookup::fill_request`]
//! forwards nothing that is not in the key, withheld, on the list of harmless headers, or let
//! through by the operator's word.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue,
    PRAGMA,
};
use http::{Method, Uri, Version};
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use crate::outcome::{Outcome, Reason};
use crate::policy::authorized_clients::AuthorizationId;
use crate::policy::credential::{Credential, CredentialRule};
use crate::policy::field;
use crate::policy::field::{BodyFields, FieldView, Unreadable};
use crate::policy::key::{Key, KeyHash, KeyPart, KeyWriter};
use crate::policy::purge_rule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::request_target;
use crate::policy::route::{Captures, HeaderRole, QueryRule, Route, RouteMode, Routes};
use crate::policy::scope::Scope;
use crate::policy::tag::{Tag, Template};
use crate::secret::Hasher;
use crate::semantics::forward;
use crate::semantics::vary;
use crate::semantics::vary::VarySpec;

pub use crate::policy::plan::mutation::Mutation;

mod mutation;
#[cfg(test)]
mod tests;

/// The rules of one `proxy.toml`.
#[derive(Debug)]
pub struct PolicyRules {
    /// What is cached.
    pub routes: Routes,
    /// What is purged.
    pub purges: Vec<PurgeRule>,
    /// What identifies a caller.
    pub credential: Arc<CredentialRule>,
    /// Hashes credentials.
    pub hasher: Hasher,
    /// The longest key, in bytes.
    pub max_key: usize,
}

/// A request's head, as far as the rules care.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its version.
    pub version: Version,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Whether a body comes with it.
    pub has_body: bool,
    /// Whether it comes from a trusted proxy.
    pub peer_is_trusted: bool,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Plan<'a> {
    /// Look it up in the cache.
    Lookup(Box<Lookup<'a>>),
    /// It may change the app's data: forward it, and purge.
    Mutate(Method),
    /// Forward it; the cache takes no part. With the route that matched, if any did.
    Pass(Option<&'a Arc<Route>>, Outcome),
    /// Refuse it: it cannot be read safely. With the header that is at fault.
    Refuse(Option<&'a Arc<Route>>, HeaderName),
}

/// A request that the cache may answer.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// The route that took it.
    pub route: &'a Arc<Route>,
    /// The captures of the route's pattern.
    pub captures: Captures,
    /// The authority, lower-case.
    pub host: Cow<'a, str>,
    /// The path in normal form.
    pub path: Cow<'a, str>,
    /// The query that the key has seen, and the app will see on a fill.
    pub query: Option<Cow<'a, str>>,
    /// The key, before `Vary` narrows it.
    pub key: Key,
    /// The caller's credential.
    pub credential: Option<Credential>,
    /// Under which name the caller is admitted, in scope `shared`.
    pub authorization: Option<AuthorizationId>,
    /// Headers that no key has seen: the request bypasses the cache unless `Vary` is known to cover
    /// them.
    pub unknown: SmallVec<[HeaderName; 2]>,
    /// Whether a part of the response is asked for (RFC 9110 14.2: of a GET alone).
    pub range: bool,
    request: RequestView<'a>,
    rules: &'a PolicyRules,
}

impl PolicyRules {
    /// What to do with a request.
    #[must_use]
    pub fn plan<'a>(&'a self, asked: &RequestView<'a>) -> Plan<'a> {
        if !matches!(*asked.method, Method::GET | Method::HEAD) {
            return if purge_rule::is_safe(asked.method) {
                Plan::Pass(None, Outcome::bypass(Reason::Method))
            } else {
                Plan::Mutate(asked.method.clone())
            };
        }
        if let Some(method) = overridden_methods(asked).into_iter().next() {
            // SECURITY: an app that obeys the override answers, and acts, as for the other method.
            return Plan::Mutate(method);
        }
        let raw = asked.uri.path();
        let Some(path) = request_target::normal_path(raw) else {
            // Ambiguous is only worth saying where a route is near; either way the request passes
            // untouched.
            let near = self.routes.find(&request_target::permissive_path(raw)).is_some();
            return Plan::Pass(
                None,
                Outcome::bypass(if near { Reason::AmbiguousPath } else { Reason::NoRoute }),
            );
        };
        let Some((route, captures)) = self.routes.find(&path) else {
            return Plan::Pass(None, Outcome::bypass(Reason::NoRoute));
        };
        if let Some(header) = ambiguous_header(route.headers.read(), asked.headers) {
            return Plan::Refuse(Some(route), header);
        }
        match self.lookup(route, captures, path, asked) {
            Ok(lookup) => Plan::Lookup(Box::new(lookup)),
            Err(outcome) => Plan::Pass(Some(route), outcome),
        }
    }

    /// The key of the variant that a fill with these headers answers. Agrees with
    /// [`FieldLookup::variant`] for the same request.
    #[must_use]
    pub fn variant_of(
        &self,
        route: &Route,
        peer_is_trusted: bool,
        primary: &Key,
        spec: &VarySpec,
        sent: &HeaderMap,
    ) -> Key {
        primary.variant(spec.names().map(|name| {
            let value = vary::normalise(name, sent.get_all(name));
            let secret = *name == AUTHORIZATION
                || *name == COOKIE
                || route.headers.role(name, peer_is_trusted) == HeaderRole::Credential;
            (name, if secret { value.map(|value| self.secret(&value)) } else { value })
        }))
    }

    fn secret(&self, value: &[u8]) -> Vec<u8> {
        self.hasher.digest("vary", value).to_vec()
    }

    fn lookup<'a>(
        &'a self,
        route: &'a Arc<Route>,
        captures: Captures,
        path: Cow<'a, str>,
        asked: &RequestView<'a>,
    ) -> Result<Lookup<'a>, Outcome> {
        refuse_unkeyable(route, asked)?;
        let host = authority(asked.uri, asked.headers);
        let query = chosen_query(&route.spec.query, asked.uri)?;
        let (implicit, unknown) = sort_headers(route, asked);

        let mut key = KeyWriter::default();
        key.part(KeyPart::Route, &route.fingerprint);
        key.part(KeyPart::Host, host.as_bytes());
        key.part(KeyPart::Path, path.as_bytes());
        if let Some(query) = &query {
            let kind = if matches!(route.spec.query, QueryRule::All) {
                KeyPart::Query
            } else {
                KeyPart::Parameters
            };
            key.part(kind, query.as_bytes());
        }
        let view = FieldView {
            headers: asked.headers,
            host: &host,
            query: asked.uri.query().unwrap_or_default(),
            captures: &captures,
            body: None,
            hasher: &self.hasher,
        };
        let fields_from = key.len();
        for field in &route.fields {
            let value = field.value(&view).map_err(|why| unreadable(&field.name, why))?;
            key.part(KeyPart::Field, field.name.as_bytes());
            key.part(KeyPart::Value, &value);
        }
        let (credential, admission) =
            self.identity(route, (asked.headers, &unknown), &host, &mut key, fields_from);
        for (name, value) in implicit {
            key.part(KeyPart::Header, name.as_str().as_bytes());
            key.part(KeyPart::HeaderValue, value);
        }
        if key.len() > self.max_key {
            return Err(Outcome::bypass(Reason::KeyTooLong));
        }
        let key = key.finish();
        let range = *asked.method == Method::GET && asked.headers.contains_key(http::header::RANGE);
        Ok(Lookup {
            route,
            captures,
            host,
            path,
            query,
            key,
            credential,
            authorization: admission,
            unknown,
            range,
            request: *asked,
            rules: self,
        })
    }

    /// Adds to the key what the scope asks for, and names the caller's admission.
    fn identity(
        &self,
        route: &Route,
        (headers, unknown): (&HeaderMap, &[HeaderName]),
        host: &str,
        key: &mut KeyWriter,
        fields_from: usize,
    ) -> (Option<Credential>, Option<AuthorizationId>) {
        let credential = match route.spec.scope {
            Scope::Public => return (None, None),
            Scope::Private | Scope::Shared => self.credential.credential(headers, &self.hasher),
        };
        if route.spec.scope == Scope::Shared {
            let mut digest = Sha256::new();
            digest.update(route.fingerprint);
            digest.update((host.len() as u64).to_be_bytes());
            digest.update(host);
            digest.update(key.since(fields_from));
            digest.update(credential.map_or([0; 32], |credential| credential.0));
            // SECURITY: what the app says to a request with a header that no key has seen, it says
            // to no other request.
            for (name, value) in unknown
                .iter()
                .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
            {
                for part in [name.as_str().as_bytes(), value.as_bytes()] {
                    digest.update((part.len() as u64).to_be_bytes());
                    digest.update(part);
                }
            }
            let digest: [u8; 32] = digest.finalize().into();
            let (half, _) = digest.split_at(16);
            return (
                credential,
                half.try_into().ok().map(|half| AuthorizationId(u128::from_be_bytes(half))),
            );
        }
        // SECURITY: the field that stands for the identity may be a prefix; the whole
        // `Authorization` is in the key all the same, so that two tokens with a common prefix never
        // share a private entry.
        let whole = if route.chosen_identity {
            authorization_alone(headers, &self.hasher)
        } else {
            credential
        };
        match whole {
            Some(whole) => key.part(KeyPart::Credential, &whole.0),
            None => key.part(KeyPart::Anonymous, b""),
        }
        (credential, None)
    }
}

impl Lookup<'_> {
    fn view(&self) -> FieldView<'_> {
        FieldView {
            headers: self.request.headers,
            host: &self.host,
            query: self.request.uri.query().unwrap_or_default(),
            captures: &self.captures,
            body: None,
            hasher: &self.rules.hasher,
        }
    }

    /// The tags that the request itself tells: the route's, and that of the URI.
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        let view = self.view();
        // The templates' fields are in the key, so each of them has a value here.
        let mut tags: Vec<Tag> = self
            .route
            .spec
            .tags
            .iter()
            .filter_map(|template: &Template| template.render(&view).ok())
            .collect();
        tags.push(Tag::for_uri(&self.host, &self.path));
        tags.sort();
        tags.dedup();
        tags
    }

    /// The fields of the key with their values, secrets redacted, for `explain`.
    #[must_use]
    pub fn shown_fields(&self) -> Vec<(Arc<str>, String)> {
        let view = self.view();
        let shown = |field: &field::Field| match field.value(&view) {
            Ok(value) if field.is_secret() => format!(
                "(hash {})",
                self.rules.hasher.hex("shown", &value).get(..8).unwrap_or_default()
            ),
            Ok(value) => String::from_utf8_lossy(&value).into_owned(),
            Err(_) => String::from("(missing)"),
        };
        self.route.fields.iter().map(|field| (Arc::clone(&field.name), shown(field))).collect()
    }

    /// The key of the variant that this request asks for.
    #[must_use]
    pub fn variant(&self, spec: &VarySpec) -> Key {
        self.key.variant(spec.names().map(|name| (name, self.sent_value(name))))
    }

    /// The hash of the key of that variant; of the key itself where nothing varies.
    #[must_use]
    pub fn variant_hash(&self, spec: &VarySpec) -> KeyHash {
        if spec.is_empty() { self.key.hash() } else { self.variant(spec).hash() }
    }

    /// What the app sees of a header on a fill, normalised; hashed where it is a secret.
    fn sent_value(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let role = self.route.headers.role(name, self.request.peer_is_trusted);
        if *name == COOKIE {
            let mut alone = HeaderMap::with_capacity(1);
            alone.insert(COOKIE, self.sent_cookie()?);
            return vary::normalise(name, alone.get_all(name))
                .map(|value| self.rules.secret(&value));
        }
        let withheld = role == HeaderRole::Withheld
            || (role == HeaderRole::Credential && self.route.spec.scope == Scope::Public);
        let value =
            if withheld { None } else { vary::normalise(name, self.request.headers.get_all(name)) };
        let secret = *name == AUTHORIZATION || role == HeaderRole::Credential;
        if secret { value.map(|value| self.rules.secret(&value)) } else { value }
    }

    /// The `Cookie` header of a fill: what the key has seen of it.
    fn sent_cookie(&self) -> Option<HeaderValue> {
        let role = self.route.headers.role(&COOKIE, self.request.peer_is_trusted);
        let named: Vec<&str> = match (role, &self.rules.credential.cookies) {
            (HeaderRole::KeyedCookies, _) => {
                self.route.keyed_cookies.iter().map(|name| &**name).collect()
            }
            (HeaderRole::Credential, _) if self.route.spec.scope == Scope::Public => return None,
            (HeaderRole::Credential, Some(names)) => {
                names.iter().chain(&self.route.keyed_cookies).map(|name| &**name).collect()
            }
            (HeaderRole::Withheld, _) => return None,
            _ => {
                return joined(
                    self.request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes),
                    b"; ",
                );
            }
        };
        let pairs: Vec<Vec<u8>> = field::cookies(self.request.headers)
            .filter(|(name, _)| named.iter().any(|wanted| wanted.as_bytes() == *name))
            .map(|(name, value)| [name, b"=", value].concat())
            .collect();
        joined(pairs.iter().map(Vec::as_slice), b"; ")
    }

    /// The target and headers that the app gets on a fill: nothing that the key has not seen.
    #[must_use]
    pub fn fill_request(&self) -> (Uri, HeaderMap) {
        let mut headers = HeaderMap::with_capacity(self.request.headers.len() + 6);
        let public = self.route.spec.scope == Scope::Public;
        for (name, value) in self.request.headers {
            let forward = match self.route.headers.role(name, self.request.peer_is_trusted) {
                HeaderRole::Withheld | HeaderRole::KeyedCookies => false,
                // The cookies that may go are put together below.
                HeaderRole::Credential => !public && *name != COOKIE,
                HeaderRole::Harmless
                | HeaderRole::Keyed
                | HeaderRole::Implicit
                | HeaderRole::Passed
                | HeaderRole::Unknown => *name != COOKIE,
            };
            if forward {
                headers.append(name, value.clone());
            }
        }
        if let Some(cookie) = self.sent_cookie() {
            headers.insert(COOKIE, cookie);
        }
        (self.fill_target(), headers)
    }

    /// Whether a fill sends the app what the client sent, but for what is meant for caches (RFC
    /// 9111 5.2, 5.4).
    #[must_use]
    pub fn is_sent_unchanged(&self) -> bool {
        let plain = |name: &HeaderName| *name == CACHE_CONTROL || *name == PRAGMA;
        let (target, sent) = self.fill_request();
        target.path_and_query() == self.request.uri.path_and_query()
            && self.request.headers.iter().filter(|(name, _)| !plain(name)).count() == sent.len()
            && self
                .request
                .headers
                .keys()
                .filter(|name| !plain(name))
                .all(|name| self.request.headers.get_all(name).iter().eq(sent.get_all(name)))
    }

    fn fill_target(&self) -> Uri {
        let whole =
            matches!(self.route.spec.query, QueryRule::All) || self.request.uri.query().is_none();
        let path = self.request.uri.path();
        let target = match &self.query {
            _ if whole => self
                .request
                .uri
                .path_and_query()
                .map_or_else(|| path.to_owned(), ToString::to_string),
            Some(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        };
        // Made of pieces of a target that was read before.
        Uri::try_from(target).unwrap_or_else(|_| self.request.uri.clone())
    }
}

/// The reasons why a request on a route cannot be looked up, short of its key.
fn refuse_unkeyable(route: &Route, asked: &RequestView<'_>) -> Result<(), Outcome> {
    if route.spec.mode == RouteMode::Off {
        return Err(Outcome::bypass(Reason::ModeOff));
    }
    if asked.has_body {
        // SECURITY: a GET with a body ("fat GET") may be answered by the body, which no key sees.
        return Err(Outcome::bypass(Reason::RequestBody));
    }
    let headers = asked.headers;
    if let Some(name) = removed_on_the_way(headers) {
        // SECURITY: the key, or `Vary`, would see a header that the app never gets, and what it
        // answers without would be stored under it.
        return Err(Outcome::bypass_with(Reason::UnkeyedHeader, name));
    }
    if headers.contains_key(http::header::UPGRADE)
        && forward::upgrade_wanted(headers, asked.version).is_some()
    {
        return Err(Outcome::bypass(Reason::Upgrade));
    }
    if headers.contains_key(http::header::IF_MATCH)
        || headers.contains_key(http::header::IF_UNMODIFIED_SINCE)
    {
        return Err(Outcome::bypass(Reason::Precondition));
    }
    Ok(())
}

type Implicit<'a> = SmallVec<[(&'a HeaderName, &'a [u8]); 4]>;

/// The headers that are keyed by themselves, in the order of their names, and those that no key has
/// seen.
fn sort_headers<'a>(
    route: &Route,
    asked: &RequestView<'a>,
) -> (Implicit<'a>, SmallVec<[HeaderName; 2]>) {
    let (mut implicit, mut unknown) = (Implicit::new(), SmallVec::new());
    for (name, value) in asked.headers {
        match route.headers.role(name, asked.peer_is_trusted) {
            // `*/*` is what no `Accept` means (RFC 9110 12.5.1); among others it is one more
            // choice.
            HeaderRole::Implicit
                if *name == ACCEPT
                    && value.as_bytes() == b"*/*"
                    && asked.headers.get_all(ACCEPT).iter().nth(1).is_none() => {}
            HeaderRole::Implicit => implicit.push((name, value.as_bytes())),
            HeaderRole::Unknown => unknown.push(name.clone()),
            _ => {}
        }
    }
    implicit.sort_by(|(one, _), (two, _)| one.as_str().cmp(two.as_str()));
    (implicit, unknown)
}

/// The query that counts: all of it, none, or the parameters that the route names.
fn chosen_query<'a>(rule: &QueryRule, uri: &'a Uri) -> Result<Option<Cow<'a, str>>, Outcome> {
    match (rule, uri.query()) {
        (QueryRule::All, query) => Ok(query.map(Cow::Borrowed)),
        (QueryRule::None, _) | (QueryRule::Only(_), None) => Ok(None),
        (QueryRule::Only(names), Some(query)) => match request_target::pick(query, names) {
            Ok(picked) if picked.is_empty() => Ok(None),
            Ok(picked) => Ok(Some(Cow::Owned(picked))),
            // SECURITY: parameter cloaking; the app might count a parameter that the key does not
            // see.
            Err(request_target::Ambiguous) => Err(Outcome::bypass(Reason::AmbiguousQuery)),
        },
    }
}

/// The authority that the request was sent to, lower-case.
#[must_use]
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Cow<'a, str> {
    let host = uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| headers.get(http::header::HOST)?.to_str().ok())
        .unwrap_or_default();
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// A header that must come once and end to end, and does not (RFC 9110 7.6.1: `Connection` would
/// remove it on the way).
fn ambiguous_header(read: &[HeaderName], headers: &HeaderMap) -> Option<HeaderName> {
    let doubled = read.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some());
    doubled.or_else(|| connection_names(read, headers)).cloned()
}

/// A header of the request that `Connection` takes away before the app (RFC 9110 7.6.1), besides
/// those that belong to the connection.
fn removed_on_the_way(headers: &HeaderMap) -> Option<&str> {
    const ITS_OWN: [&str; 7] =
        ["close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection"];
    let options = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    let mut others =
        options.filter(|option| !ITS_OWN.iter().any(|own| own.eq_ignore_ascii_case(option)));
    others.find(|option| headers.contains_key(*option))
}

fn connection_names<'a>(read: &'a [HeaderName], headers: &HeaderMap) -> Option<&'a HeaderName> {
    let mut lines = headers
        .get_all(CONNECTION)
        .iter()
        .filter(|line| *line != "keep-alive" && *line != "close")
        .peekable();
    lines.peek()?;
    let listed: Vec<&[u8]> = lines
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    read.iter().chain([const { &COOKIE }]).find(|name| {
        listed.iter().any(|listed| listed.eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// The unsafe methods that headers or the query ask for in place of the request's own. An app that
/// obeys acts as for them.
fn overridden_methods(asked: &RequestView<'_>) -> SmallVec<[Method; 1]> {
    static OVERRIDES: [HeaderName; 3] = [
        HeaderName::from_static("x-http-method-override"),
        HeaderName::from_static("x-method-override"),
        HeaderName::from_static("x-http-method"),
    ];
    let read = |name: &[u8]| {
        Method::from_bytes(&name.trim_ascii().to_ascii_uppercase())
            .ok()
            .filter(|method| !purge_rule::is_safe(method))
    };
    let lines = OVERRIDES.iter().flat_map(|name| asked.headers.get_all(name));
    let mut methods: SmallVec<[Method; 1]> =
        lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).filter_map(read).collect();
    if let Some(query) = asked.uri.query().filter(|query| query.contains("method")) {
        methods.extend(
            request_target::every_value(query, "_method")
                .iter()
                .filter_map(|value| read(value.as_bytes())),
        );
    }
    methods
}

fn authorization_alone(headers: &HeaderMap, hasher: &Hasher) -> Option<Credential> {
    headers
        .get(AUTHORIZATION)
        .map(|value| Credential(hasher.digest("authorization", value.as_bytes())))
}

fn unreadable(field: &Arc<str>, why: Unreadable) -> Outcome {
    match why {
        Unreadable::Missing => Outcome::bypass_with(Reason::MissingField, Arc::clone(field)),
        Unreadable::Doubled => Outcome::bypass(Reason::AmbiguousQuery),
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, separator: &[u8]) -> Option<HeaderValue> {
    let mut whole: Vec<u8> = Vec::new();
    for part in parts {
        if !whole.is_empty() {
            whole.extend_from_slice(separator);
        }
        whole.extend_from_slice(part);
    }
    if whole.is_empty() { None } else { HeaderValue::from_bytes(&whole).ok() }
}

/// The captures of a path under a purge rule, and the fields that the rule reads from them.
fn rule_view<'a>(
    asked: &'a RequestView<'a>,
    host: &'a str,
    captures: &'a Captures,
    body: Option<&'a BodyFields>,
    hasher: &'a Hasher,
) -> FieldView<'a> {
    FieldView {
        headers: asked.headers,
        host,
        query: asked.uri.query().unwrap_or_default(),
        captures,
        body,
        hasher,
    }
}
