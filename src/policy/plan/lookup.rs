//! A request that the cache may answer: its key, its tags, and who may share the stored response.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::header::{HeaderMap, HeaderName, USER_AGENT};
use smallvec::SmallVec;

use crate::outcome::{Outcome, Reason};
use crate::policy::apps::AppRules;
use crate::policy::authorized_clients::AuthorizationId;
use crate::policy::compress_rule::CompressRule;
use crate::policy::credential::Credential;
use crate::policy::field::{AnsweredBody, Field, FieldSource, FieldView};
use crate::policy::graphql::KnownDocument;
use crate::policy::identity::RequestIdentity;
use crate::policy::jwt::RequestTokens;
use crate::policy::key::{HashPurpose, Key, KeyPart, KeyWriter, ProcessHasher};
use crate::policy::keyed_body::{KeyedBody, SeenBody};
use crate::policy::plan::canonical::{
    CanonicalCookies, CanonicalHeaders, CanonicalRequest, KeyedHeaders,
};
use crate::policy::plan::graphql::endpoint_tag;
use crate::policy::plan::keyed_fields::add_fields;
use crate::policy::plan::request_headers::refuse_unkeyable;
use crate::policy::plan::rules::{PolicyRules, RequestView};
use crate::policy::request_target::AmbiguousQuery;
use crate::policy::route::{Captures, QueryRule, RoleContext, Route};
use crate::policy::scope::Scope;
use crate::policy::session::{IdentityPart, RouteSessions};
use crate::policy::share::CallerDraw;
use crate::policy::tag::Tag;
use crate::policy::template::FilledTemplate;
use crate::semantics::content_coding::Coding;
use crate::semantics::request_fields::RequestFields;

/// A request that the cache may answer.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// The route that matched.
    pub route: &'a Arc<Route>,
    /// The captures of the route's pattern.
    pub captures: Captures,
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    /// The key, before `Vary` narrows it.
    pub key: Key,
    /// The client's credential.
    pub credential: Option<Credential>,
    /// What identifies this client among the authorized clients, in scope `shared`.
    pub authorization: Option<AuthorizationId>,
    /// Headers that no key has seen. The request bypasses the cache unless `Vary` is known to cover
    /// them.
    pub unknown: SmallVec<[HeaderName; 1]>,
    /// Whether the client requests a part of the response (RFC 9110 14.2: `Range` counts on GET
    /// alone).
    pub range: bool,
    /// Whether the request has `Cache-Control` or `Pragma`.
    pub has_directives: bool,
    /// What the roles of its headers depend on.
    pub roles: RoleContext,
    /// What was found of the tokens that fields read.
    pub tokens: RequestTokens,
    /// The document of GraphQL to remember, once the origin is asked.
    pub document: Option<KnownDocument>,
    /// What is known of who the caller is.
    pub identity: RequestIdentity,
    /// The body, if the method is neither GET nor HEAD.
    pub body: Option<Box<KeyedBody>>,
    pub(super) request: RequestView<'a>,
    pub(super) rules: &'a PolicyRules,
}

impl PolicyRules {
    /// The lookup of a request that a route took, or the reason why the request bypasses the cache.
    pub(super) fn lookup<'a>(
        &'a self,
        route: &'a Arc<Route>,
        captures: Captures,
        path: Cow<'a, str>,
        request: &RequestView<'a>,
        body: Option<KeyedBody>,
    ) -> Result<Lookup<'a>, Outcome> {
        refuse_unkeyable(route, request, body.is_some())?;
        let sessions = self.sessions_of(route, request);
        self.refuse_outside_share(route, request, &sessions)?;
        let host = self.host_of(request);
        let query = route.spec.query.keyed(request.uri.query());
        let query = query.map_err(|AmbiguousQuery| Outcome::bypass(Reason::AmbiguousQuery))?;
        let roles = route.headers.context(request.peer_is_trusted);
        let headers = KeyedHeaders::new(route, &roles, request.headers);
        if let Some(reason) = headers.bypass {
            return Err(Outcome::bypass(reason));
        }
        let cookies = if headers.has_cookie {
            CanonicalCookies::new(route, &self.credential, &roles, request.headers)
        } else {
            CanonicalCookies::default()
        };
        let mut key = target_key(route, &host, &path, query.as_deref());
        if let Some(origin) = &self.apps.get(route.spec.app.id).origin {
            key.part(KeyPart::Origin, origin);
        }
        if body.is_some() {
            key.part(KeyPart::Method, request.method.as_str().as_bytes());
        }
        let tokens = self.tokens_in(&route.token_places, request.headers, request.is_again);
        let known = self.request_identity(route, request)?;
        let view = FieldView {
            headers: request.headers,
            host: &host,
            query: request.uri.query().unwrap_or_default(),
            captures: &captures,
            client: request.client,
            body: None,
            has_body: false,
            response: AnsweredBody::Awaited,
            now: request.now,
            sessions: &route.session_rules,
            credential: &self.credential,
            hasher: &self.hasher,
            tokens: &tokens,
            identity: &known,
        };
        let fields_start = key.len();
        add_fields(route, &sessions, &view, body.as_ref(), &mut key)?;
        let identity = self.identity(route, request.headers, &cookies, &sessions);
        let authorization = (route.spec.scope == Scope::Shared)
            .then(|| self.authorization_id(route, &host, key.since(fields_start), identity));
        self.add_caller(route.spec.scope, identity, &cookies, &mut key);
        if route.is_for_guests() {
            key.part(KeyPart::Guest, b"");
        }
        let key = self.finished(key, &headers)?;
        Ok(Lookup {
            route,
            captures,
            host,
            path,
            query,
            key,
            credential: identity,
            authorization,
            unknown: headers.unknown,
            range: headers.has_range && *request.method == Method::GET,
            has_directives: headers.has_directives,
            roles,
            tokens,
            document: None,
            identity: known,
            body: body.map(Box::new),
            request: *request,
            rules: self,
        })
    }

    /// The key, with the headers that are always in it.
    fn finished(&self, mut key: KeyWriter, headers: &KeyedHeaders<'_>) -> Result<Key, Outcome> {
        for (name, value) in &headers.implicit {
            key.part(KeyPart::Header, name.as_str().as_bytes());
            key.part(KeyPart::HeaderValue, value);
        }
        if key.len() > self.max_key {
            return Err(Outcome::bypass(Reason::KeyTooLong));
        }
        Ok(key.finish())
    }

    /// Passes the requests of callers whom `share` leaves out.
    fn refuse_outside_share(
        &self,
        route: &Route,
        request: &RequestView<'_>,
        sessions: &RouteSessions<'_>,
    ) -> Result<(), Outcome> {
        let Some(share) = route.spec.share else { return Ok(()) };
        let (rule, hasher) = (&self.credential, &self.hasher);
        let draw = CallerDraw::of(request.headers, request.client, rule, sessions, hasher);
        if share.has(draw) { Ok(()) } else { Err(Outcome::bypass(Reason::NotInShare)) }
    }

    /// Adds to the key what the scope requires of the client.
    fn add_caller(
        &self,
        scope: Scope,
        identity: Option<Credential>,
        cookies: &CanonicalCookies<'_>,
        key: &mut KeyWriter,
    ) {
        // SECURITY: the field that identifies the client may be a prefix of the token. The whole
        // credential is in the key as well, so that two tokens with a common prefix never share a
        // private entry.
        match (scope, identity, &cookies.keyed) {
            (Scope::Private, Some(whole), _) => key.part(KeyPart::Credential, &whole.0),
            (Scope::Private, None, _) => key.part(KeyPart::Anonymous, b""),
            (Scope::Shared, _, Some(keyed)) => {
                key.part(KeyPart::Cookies, &self.hasher.digest("cookies", keyed));
            }
            // In scope `public` they are in the key as the values of fields.
            (Scope::Shared | Scope::Public, ..) => {}
        }
    }

    /// The client's credential. None in scope `public`, which has none.
    fn identity(
        &self,
        route: &Route,
        headers: &HeaderMap,
        cookies: &CanonicalCookies<'_>,
        sessions: &RouteSessions<'_>,
    ) -> Option<Credential> {
        let part = match route.spec.scope {
            Scope::Public => return None,
            Scope::Private => IdentityPart::Counted,
            // SECURITY: the origin has answered this session, and not all that share a value of it.
            Scope::Shared => IdentityPart::Whole,
        };
        let cookies = cookies.identity.as_deref().map(Cow::Borrowed);
        let cookies = cookies.map(|cookies| sessions.identity(cookies, part));
        let further = &route.credential_headers;
        self.credential.credential(headers, further, cookies.as_deref(), &self.hasher)
    }

    /// What identifies a client among the authorized clients: its credential, together with the
    /// route, the host and the fields.
    fn authorization_id(
        &self,
        route: &Route,
        host: &str,
        fields: &[u8],
        credential: Option<Credential>,
    ) -> AuthorizationId {
        // SECURITY: two callers with one id would be given what the origin gave to one of them.
        // What stands before the host and behind the fields has a fixed length.
        let mut id = ProcessHasher::new(HashPurpose::Caller);
        id.write(&route.fingerprint);
        let origin = &self.apps.get(route.spec.app.id).origin;
        id.write(origin.as_ref().map_or(&[], |origin| &origin[..]));
        id.write(&(host.len() as u64).to_be_bytes());
        id.write(host.as_bytes());
        id.write(fields);
        id.write(&credential.map_or([0; 32], |credential| credential.0));
        AuthorizationId(id.finish())
    }
}

/// A key that begins with the route and the target.
fn target_key(route: &Route, host: &str, path: &str, query: Option<&str>) -> KeyWriter {
    let mut key = KeyWriter::default();
    key.part(KeyPart::Route, &route.fingerprint);
    key.part(KeyPart::Host, host.as_bytes());
    key.part(KeyPart::Path, path.as_bytes());
    if let Some(query) = query {
        let is_whole = matches!(route.spec.query, QueryRule::All);
        key.part(if is_whole { KeyPart::Query } else { KeyPart::Parameters }, query.as_bytes());
    }
    key
}

impl Lookup<'_> {
    /// The host that the entry is stored under, lower-case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether one host stands for all.
    #[must_use]
    pub fn has_host_key(&self) -> bool {
        self.app().host_key.is_some()
    }

    /// What is known of the app that the request is for.
    #[must_use]
    pub fn app(&self) -> &AppRules {
        self.rules.app_of(&self.request)
    }

    /// The headers of the request.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        self.request.headers
    }

    /// Which fields they have, of those that decide what becomes of the request.
    #[must_use]
    pub const fn fields(&self) -> RequestFields {
        self.request.fields
    }

    /// The method of a fill: HEAD is answered from what GET gets.
    #[must_use]
    pub fn fill_method(&self) -> Method {
        if self.body.is_some() { self.request.method.clone() } else { Method::GET }
    }

    /// The body, as the rules have read it.
    #[must_use]
    pub const fn seen_body(&self) -> Option<&SeenBody> {
        self.request.seen_body
    }

    /// Remembers its document, which has nothing but queries.
    pub fn remember_document(&self) {
        if let Some(document) = self.document {
            self.rules.documents.remember(document);
        }
    }

    /// The path in normal form.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query that is in the key.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Whether the key holds the whole credential of a client that has one, and no field takes its
    /// place: what is stored is for this client alone.
    #[must_use]
    pub fn has_owner(&self) -> bool {
        self.route.spec.scope == Scope::Private
            && self.is_identified()
            && !self.route.has_identity_field()
            && !self.route.session_rules.iter().any(|rule| rule.is_partial())
    }

    /// Whether the origin sees something that the sender alone knows.
    #[must_use]
    pub fn is_identified(&self) -> bool {
        self.credential.is_some() && self.rules.credential.identifies(self.request.headers)
    }

    /// The parts that the key is made of: all that a fill sends to the origin. Made again from the
    /// request, by what made the key, so that hits do not carry them.
    #[must_use]
    pub fn canonical(&self) -> CanonicalRequest<'_> {
        let (route, headers) = (self.route, self.request.headers);
        let mut sorted = CanonicalHeaders::new(route, &self.roles, headers);
        sorted.set_user_agent(
            route.headers.role(&USER_AGENT, &self.roles),
            headers,
            // Two browsers of one user may have the same session.
            route.spec.scope == Scope::Private
                && self.is_identified()
                && route.session_rules.is_empty(),
        );
        let is_address = |field: &&Arc<Field>| matches!(field.source, FieldSource::Client(_));
        let address = match route.fields.iter().find(is_address) {
            Some(field) => field.value(&self.view()).ok().flatten().map(Cow::into_owned),
            None if route.headers.passes_address() => {
                let client = self.request.client;
                client.map(|client| client.to_canonical().to_string().into_bytes())
            }
            None => None,
        };
        CanonicalRequest {
            host: &self.host,
            path: &self.path,
            query: self.query(),
            address,
            headers: sorted,
            cookies: self.cookies(),
        }
    }

    /// The codings that the route offers, if the cache makes them, and the one for this client.
    #[must_use]
    pub fn offered_coding(&self) -> Option<(&Arc<CompressRule>, Option<Coding>)> {
        let rule = self.route.offers()?;
        let headers = CanonicalHeaders::new(self.route, &self.roles, self.request.headers);
        Some((rule, headers.coding()))
    }

    pub(super) fn cookies(&self) -> CanonicalCookies<'_> {
        let headers = self.request.headers;
        CanonicalCookies::new(self.route, &self.rules.credential, &self.roles, headers)
    }

    pub(super) fn view(&self) -> FieldView<'_> {
        FieldView {
            headers: self.request.headers,
            host: &self.host,
            query: self.request.uri.query().unwrap_or_default(),
            captures: &self.captures,
            client: self.request.client,
            body: None,
            has_body: self.body.is_some(),
            response: AnsweredBody::Awaited,
            now: self.request.now,
            sessions: &self.route.session_rules,
            credential: &self.rules.credential,
            hasher: &self.rules.hasher,
            tokens: &self.tokens,
            identity: &self.identity,
        }
    }

    /// The tags that follow from the request alone: those of the route with their families, that of
    /// the URI, and those of the caller that alone is given the response.
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        let spec = &self.route.spec;
        let keyed = self.body.as_ref();
        let body = keyed.and_then(|body| body.tag_fields(self.route, self.request.headers));
        let view = FieldView { body: body.as_ref(), ..self.view() };
        let mut tags = Vec::with_capacity(2 * spec.tags.len() + 2);
        for template in &spec.tags {
            template.entry_tags(&view, &mut tags);
        }
        if let Some(captures) = &spec.pattern.bare_captures(&self.captures) {
            // `/items/7.json` shows what is written to as `/items/7`, too.
            let bare = FieldView { captures, ..view };
            for template in &spec.tags {
                template.entry_tags(&bare, &mut tags);
            }
        }
        if spec.scope == Scope::Private && self.credential.is_some() {
            tags.extend(view.caller_names().iter().map(|name| Tag::for_caller(name)));
        }
        tags.push(Tag::for_uri(&self.host, &self.path));
        if spec.graphql {
            tags.push(endpoint_tag(&self.host, self.route));
        }
        self.route.folders.add(&self.host, &self.path, &mut tags);
        tags.sort();
        tags.dedup();
        tags
    }

    /// The templates whose tags the body of the response tells.
    #[must_use]
    pub fn response_templates(&self) -> Vec<FilledTemplate> {
        let spec = &self.route.spec;
        if !self.route.reads_response {
            return Vec::new();
        }
        let keyed = self.body.as_ref();
        let body = keyed.and_then(|body| body.tag_fields(self.route, self.request.headers));
        let view = FieldView { body: body.as_ref(), ..self.view() };
        let mut filled: Vec<FilledTemplate> =
            spec.tags.iter().filter_map(|template| template.filled(&view)).collect();
        if let Some(captures) = &spec.pattern.bare_captures(&self.captures) {
            let bare = FieldView { captures, ..view };
            filled.extend(spec.tags.iter().filter_map(|template| template.filled(&bare)));
        }
        filled
    }

    /// The fields of the key with their values, secrets redacted, for `explain`.
    #[must_use]
    pub fn shown_fields(&self) -> Vec<(Arc<str>, String)> {
        let view = self.view();
        let shown = |field: &Field| {
            if let (FieldSource::Body(pointer), Some(body)) = (&field.source, &self.body) {
                return body.shown(pointer);
            }
            match field.value(&view) {
                Ok(Some(value)) if field.is_secret() => format!(
                    "(hash {})",
                    self.rules.hasher.hex("shown", &value).get(..8).unwrap_or_default()
                ),
                Ok(Some(value)) => String::from_utf8_lossy(&value).into_owned(),
                Ok(None) => String::from("(absent)"),
                Err(_) => String::from("(missing)"),
            }
        };
        self.route.fields.iter().map(|field| (Arc::clone(&field.name), shown(field))).collect()
    }
}
