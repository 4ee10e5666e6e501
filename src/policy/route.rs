//! Routes: their path patterns and policies, and which route matches a request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderName};

use crate::policy::apps::RuleApp;
use crate::policy::compress_rule::CompressRule;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::folder::FolderTags;
use crate::policy::glob::Glob;
use crate::policy::graphql;
use crate::policy::jwt::TokenPlace;
use crate::policy::request_match::{RequestMatch, labelled};
use crate::policy::rule_place::RulePlace;
use crate::policy::scope::Scope;
use crate::policy::session::SessionRule;
use crate::policy::share::CallerShare;
use crate::policy::signed_in::SignedIn;
use crate::policy::tag::ResponseTags;
use crate::policy::template::Template;
use crate::policy::token_places::token_places;
use crate::semantics::browser::BrowserRule;
use crate::semantics::daily_end::DailyEnd;
use crate::semantics::storability::OriginRule;
use crate::semantics::ttl::TtlRule;

pub use crate::policy::query_rule::QueryRule;
pub use crate::policy::route::choices::{Collapse, VaryCookie};
pub use crate::policy::route::guests::GuestRule;
pub use crate::policy::route::headers::{
    HeaderRole, HeaderRules, KnownRoles, LearnOutcome, RoleContext,
};
pub use crate::policy::route::mode::{RouteMode, SwitchedMode};
pub use crate::policy::route::path_rules::{EncodedSlash, PathCase};
pub use crate::policy::route::pattern::{Captures, Neighbours, Pattern};
pub use crate::policy::route::read_methods::{BODY_METHODS, ReadMethods, WHOLE_BODY};
pub use crate::policy::route::set_cookie::StripSetCookie;
pub use crate::policy::route::table::{ChosenRoute, Routes};

mod choices;
mod fingerprint;
pub mod guests;
pub(crate) mod headers;
mod mode;
mod path_rules;
mod pattern;
mod read_methods;
mod sessions;
mod set_cookie;
mod shown_once;
mod table;

/// What to do with a request header that is not in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHeaders {
    /// Send the request to the origin without the cache.
    Bypass,
    /// Withhold the header on a fill.
    Drop,
    /// Send the header to the origin on a fill: the operator states that it does not change the
    /// response.
    Pass,
}

/// Whether the request's own `Cache-Control` is honored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// It is: a browser's reload reaches the origin.
    Respect,
    /// It is ignored.
    Ignore,
}

/// What a caller may be given once the origin has answered it, in scope `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitRule {
    /// The entry that it was given.
    Entry,
    /// Every entry of the route with the same key fields: the operator states that who may read one
    /// may read all.
    Route,
}

impl AdmitRule {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Route => "route",
        }
    }
}

/// The settings of a route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Where it stands.
    pub place: RulePlace,
    /// The keys whose values come from `[defaults]`, with their lines there.
    pub defaults: Box<[(Box<str>, usize)]>,
    /// The app whose requests it is for.
    pub app: RuleApp,
    /// The paths it matches.
    pub pattern: Pattern,
    /// What a request must have besides.
    pub conditions: RequestMatch,
    /// The methods that it answers.
    pub methods: ReadMethods,
    /// Whether it is a GraphQL endpoint: the document of a request says whether it reads.
    pub graphql: bool,
    /// Whether it caches.
    pub mode: RouteMode,
    /// The callers it caches for; `None` for all of them.
    pub share: Option<CallerShare>,
    /// The share of its hits that is fetched again out of band, to detect stale hits; 0 to 1.
    pub audit: f64,
    /// The freshness lifetime of responses for which the origin gives none.
    pub ttl: TtlRule,
    /// The time of day at which everything that is stored ends.
    pub expires_at: Option<DailyEnd>,
    /// What clients are told in place of the origin's `Cache-Control`.
    pub browser: Option<BrowserRule>,
    /// Whether the origin's freshness or `ttl` takes precedence.
    pub origin: OriginRule,
    /// How long a stale entry is served while it is refreshed, unless the origin specifies a time
    /// (RFC 5861 3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale entry is served instead of an error of the origin, unless the origin
    /// specifies a time (RFC 5861 4).
    pub stale_if_error: Option<Duration>,
    /// `ttl` is shortened by a random time of up to this. Less than `ttl`; zero without a `ttl`.
    pub jitter: Duration,
    /// Whether popular entries are refreshed shortly before they expire.
    pub early_refresh: bool,
    /// Which requests share one fill per key.
    pub collapse: Collapse,
    /// Which responses that set cookies to store, without the cookies.
    pub strip_set_cookie: StripSetCookie,
    /// Who may share its entries.
    pub scope: Scope,
    /// The fields in its key.
    pub key: Box<[Arc<Field>]>,
    /// The query parameters in its key.
    pub query: QueryRule,
    /// The tags of its entries.
    pub tags: Box<[Template]>,
    /// Headers withheld from the app on a fill, as patterns of names in lower case.
    pub drop_headers: Box<[Glob]>,
    /// Headers sent to the origin although they are not in the key.
    pub pass_headers: Box<[HeaderName]>,
    /// The rule for all other headers.
    pub unknown_headers: UnknownHeaders,
    /// What a client is authorized for, in scope `shared`.
    pub admit: AdmitRule,
    /// How long a client stays authorized, in scope `shared`.
    pub admit_for: Duration,
    /// How long the origin's last word on a credential holds for the entries of its caller.
    pub revalidate_after: Option<Duration>,
    /// The languages that the origin has, to which `Accept-Language` is narrowed.
    pub languages: Option<Box<[Box<str>]>>,
    /// What a `Vary` that names cookies or credentials means, in scope `public`.
    pub vary_cookie: VaryCookie,
    /// Whether the request's own `Cache-Control` is honored.
    pub client_cache_control: ClientCacheControl,
    /// Whether the case of its path counts.
    pub case: PathCase,
    /// What to do with a path that holds an escaped slash.
    pub encoded_slash: EncodedSlash,
    /// What those callers have who are no guests. None: nobody is a guest.
    pub signed_in: Option<SignedIn>,
    /// In which codings clients get its responses. None: in those that the origin sends.
    pub compress: Option<Arc<CompressRule>>,
}

impl RouteSpec {
    /// In which codings clients get its responses, if the cache makes them.
    #[must_use]
    pub fn compress(&self) -> Option<&Arc<CompressRule>> {
        self.compress.as_ref().filter(|rule| rule.private || self.scope != Scope::Private)
    }

    /// Whether both match the same requests, and neither is more specific.
    #[must_use]
    pub fn ties(&self, other: &Self) -> bool {
        self.ties_by_path(other) && self.conditions.ties(&other.conditions)
    }

    /// Whether both match the same paths of one app, and neither is more specific.
    #[must_use]
    pub fn ties_by_path(&self, other: &Self) -> bool {
        self.app.id == other.app.id
            && match (self.case, other.case) {
                (PathCase::Exact, PathCase::Exact) => self.pattern.ties(&other.pattern),
                (one, two) => self.pattern.ties_in_any_case(&other.pattern, one == two),
            }
    }
}

/// How responses of the origin are read, on all routes alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseRules {
    /// The response headers that take precedence over `Cache-Control` (RFC 9213), in order of
    /// precedence.
    pub targeted: Box<[HeaderName]>,
    /// The response headers in which the origin names tags.
    pub response_tags: ResponseTags,
    /// The folders that entries carry as tags.
    pub folders: FolderTags,
}

/// By what requests of the paths of a route are told apart: what it asks for, and what those routes
/// ask for that are tried before it.
#[derive(Debug, Default)]
pub struct ToldApart {
    parameters: Vec<Box<str>>,
    headers: Vec<HeaderName>,
}

impl ToldApart {
    fn add(&mut self, conditions: &RequestMatch) {
        for (name, _) in &conditions.query {
            if !self.parameters.contains(name) {
                self.parameters.push(name.clone());
            }
        }
        for (name, _) in &conditions.headers {
            if !self.headers.contains(name) {
                self.headers.push(name.clone());
            }
        }
    }
}

/// A compiled route.
#[allow(clippy::struct_excessive_bools, reason = "facts that are found once, each read by itself")]
#[derive(Debug)]
pub struct Route {
    /// Its index among the routes, and in the metrics.
    pub id: usize,
    /// Its name in metrics and logs: its pattern, and its conditions if it has some.
    name: Box<str>,
    /// Its settings.
    pub spec: RouteSpec,
    /// The role of each request header.
    pub headers: HeaderRules,
    /// Identifies its policy. It is part of the key, so that entries of another policy are never
    /// found.
    pub fingerprint: [u8; 8],
    /// How responses of the origin are read.
    pub response_rules: Arc<ResponseRules>,
    /// The fields in its key: those that the operator named, and those that its tags need, because
    /// otherwise a purge could miss an entry.
    pub fields: Box<[Arc<Field>]>,
    /// The cookies that fields read. In scope `public`, all others are withheld.
    pub keyed_cookies: Box<[Box<str>]>,
    /// The signed session cookies that fields read.
    pub session_rules: Box<[Arc<SessionRule>]>,
    /// The headers that identify the client besides those of `[credential]`.
    pub credential_headers: Box<[HeaderName]>,
    /// Whether a field of the key is the client's address.
    pub keys_address: bool,
    /// Whether tags are read from the bodies of responses.
    pub reads_response: bool,
    /// Whether the origin is asked for the plain form, although the key has a coding.
    pub asks_plain: bool,
    /// The folders that its entries carry as tags.
    pub folders: FolderTags,
    /// Where the tokens are that fields of the key read.
    pub token_places: Box<[TokenPlace]>,
    /// Whether a field of the key is what the origin says of the caller.
    pub reads_identity: bool,
    /// What a switch makes of its mode for the time being.
    pub switched: SwitchedMode,
    /// How its guests are told from others, and what they go by.
    pub guests: Option<GuestRule>,
    /// Of the policy for guests: what those have who are none.
    pub guest_of: Option<SignedIn>,
}

impl Route {
    fn new(
        id: usize,
        spec: RouteSpec,
        credential: &CredentialRule,
        known: &KnownRoles,
        response_rules: &Arc<ResponseRules>,
        told_apart: &ToldApart,
    ) -> Self {
        let policy = |spec, guest_of| {
            Self::policy(id, spec, guest_of, credential, known, response_rules, told_apart)
        };
        let guests = spec.signed_in.clone().map(|signed_in| {
            let route = policy(spec.for_guests(credential), Some(signed_in.clone()));
            GuestRule { signed_in, route: Arc::new(route) }
        });
        Self { guests, ..policy(spec, None) }
    }

    fn policy(
        id: usize,
        mut spec: RouteSpec,
        guest_of: Option<SignedIn>,
        credential: &CredentialRule,
        known: &KnownRoles,
        response_rules: &Arc<ResponseRules>,
        told_apart: &ToldApart,
    ) -> Self {
        let mut fields: Vec<Arc<Field>> = spec.key.to_vec();
        for field in spec.tags.iter().flat_map(Template::fields) {
            // The caller is in the key as its credential; what the response shows is in no request.
            let is_keyed = !matches!(field.source, FieldSource::Caller | FieldSource::Response(_));
            if is_keyed && !fields.contains(field) {
                fields.push(Arc::clone(field));
            }
        }
        // What is stored of a GraphQL endpoint has no errors in it.
        let reads_response = spec.graphql || spec.tags.iter().any(Template::reads_response);
        // The app sends what the tags are read from as it stands.
        let is_coded_here = spec.compress().is_some();
        if reads_response && !is_coded_here && !spec.pass_headers.contains(&ACCEPT_ENCODING) {
            let withheld = std::iter::once(Glob::new(ACCEPT_ENCODING.as_str()));
            spec.drop_headers = spec.drop_headers.iter().cloned().chain(withheld).collect();
        }
        let read = fields.iter().filter_map(|field| match &field.source {
            FieldSource::Query(name) => Some(name),
            _ => None,
        });
        // SECURITY: two values of a parameter that decides on the route never share an entry.
        let ours: Vec<Box<str>> = graphql::PARAMETERS.iter().map(|&name| name.into()).collect();
        let ours = ours.iter().filter(|_| spec.graphql);
        spec.query = spec.query.with_parameters(read.chain(&told_apart.parameters).chain(ours));
        let session_rules = session_rules(&fields);
        for name in session_rules.iter().filter_map(|rule| rule.signature_cookie()) {
            spec.strip_set_cookie.add_signature(name);
        }
        let keyed_cookies: Box<[Box<str>]> = fields
            .iter()
            .filter_map(|field| match &field.source {
                FieldSource::Cookie(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let keys_address =
            fields.iter().any(|field| matches!(field.source, FieldSource::Client(_)));
        let token_places = token_places(fields.iter());
        let reads_identity = fields.iter().any(|field| field.identity().is_some());
        let credential_headers = spec.methods.credential_headers();
        let headers = HeaderRules::new(&spec, &fields, credential, known, &told_apart.headers);
        // Who decides by another form of the client's word than the key's decides on the coding.
        if headers.role(&ACCEPT_ENCODING, &headers.context(false)) != HeaderRole::Negotiated {
            spec.compress = None;
        }
        let asks_plain = reads_response && spec.compress().is_some();
        let folders = response_rules.folders.of_pattern(&spec.pattern);
        let fingerprint = spec.fingerprint(guest_of.as_ref(), known, response_rules);
        Self {
            id,
            name: labelled(spec.pattern.as_str(), &spec.conditions.label).into(),
            spec,
            headers,
            fingerprint,
            response_rules: Arc::clone(response_rules),
            fields: fields.into(),
            keyed_cookies,
            session_rules,
            credential_headers,
            keys_address,
            reads_response,
            asks_plain,
            folders,
            token_places,
            reads_identity,
            switched: SwitchedMode::default(),
            guests: None,
            guest_of,
        }
    }

    /// The scope in which most callers share, of those that it has.
    #[must_use]
    pub const fn widest_scope(&self) -> Scope {
        if self.guests.is_some() { Scope::Public } else { self.spec.scope }
    }

    /// Whether the key contains the client's whole credential.
    #[must_use]
    pub fn key_holds_credential(&self) -> bool {
        match self.spec.scope {
            Scope::Private => true,
            Scope::Shared => self.has_identity_field(),
            Scope::Public => false,
        }
    }

    /// Whether a field of the key identifies the client, by choice of the operator.
    #[must_use]
    pub fn has_identity_field(&self) -> bool {
        self.spec.key.iter().any(|field| matches!(field.source, FieldSource::Auth(_)))
    }

    /// Whether it caches now: the more careful of its mode in the file and that of a switch.
    #[must_use]
    pub fn mode(&self) -> RouteMode {
        self.spec.mode.and(self.switched.get())
    }

    /// The codings that it offers now, where the cache makes them: what only observes requests
    /// compares the bytes of the origin.
    #[must_use]
    pub fn offers(&self) -> Option<&Arc<CompressRule>> {
        self.spec.compress().filter(|_| self.mode() == RouteMode::On)
    }

    /// A path that it matches, as it stands in the key and in the request of a fill: the literal
    /// segments as the route has them.
    #[must_use]
    pub fn keyed_path<'a>(&self, path: Cow<'a, str>, captures: &Captures) -> Cow<'a, str> {
        match self.spec.case {
            PathCase::Exact => path,
            PathCase::Ignore => Cow::Owned(self.spec.pattern.path_with(&path, captures)),
        }
    }

    /// The route's name in metrics and logs: its pattern, and its conditions if it has some.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The session cookies that fields read, each once.
fn session_rules(fields: &[Arc<Field>]) -> Box<[Arc<SessionRule>]> {
    let mut rules: Vec<Arc<SessionRule>> = Vec::new();
    for field in fields {
        if let FieldSource::Session(rule) = &field.source
            && !rules.iter().any(|known| Arc::ptr_eq(known, rule))
        {
            rules.push(Arc::clone(rule));
        }
    }
    rules.into()
}
