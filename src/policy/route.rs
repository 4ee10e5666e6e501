//! Routes: their path patterns and policies, and which route matches a request.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::fronts::Fronts;
use crate::policy::glob::Glob;
use crate::policy::jwt::TokenPlace;
use crate::policy::scope::Scope;
use crate::policy::session::SessionRule;
use crate::policy::tag::ResponseTags;
use crate::policy::template::Template;
use crate::policy::token_places::token_places;
use crate::semantics::browser::BrowserRule;
use crate::semantics::storability::OriginRule;
use crate::semantics::ttl::TtlRule;

pub use crate::policy::query_rule::QueryRule;
pub use crate::policy::route::headers::{HeaderRole, HeaderRules, LearnOutcome, RoleContext};
pub use crate::policy::route::mode::{RouteMode, SwitchedMode};
pub use crate::policy::route::path_rules::{EncodedSlash, PathCase};
pub use crate::policy::route::pattern::{Captures, Pattern};
pub use crate::policy::route::read_methods::{BODY_METHODS, ReadMethods, WHOLE_BODY};
pub use crate::policy::route::set_cookie::StripSetCookie;

pub(crate) mod headers;
mod mode;
mod path_rules;
mod pattern;
mod read_methods;
mod sessions;
mod set_cookie;

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

/// What a `Vary` that names cookies or credentials means, in scope `public`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaryCookie {
    /// The response is for requests that carry neither.
    Respect,
    /// Nothing: the operator states that the response is the same for everyone.
    Ignore,
}

/// Which requests share one fill per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collapse {
    /// The requests to this process.
    Process,
    /// The requests to all sidecars that share one Redis.
    Cluster,
}

/// The settings of a route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its number in the file, from 1.
    pub line: usize,
    /// The keys whose values come from `[defaults]`, with their lines there.
    pub defaults: Box<[(Box<str>, usize)]>,
    /// The paths it matches.
    pub pattern: Pattern,
    /// The methods that it answers.
    pub methods: ReadMethods,
    /// Whether it caches.
    pub mode: RouteMode,
    /// The share of its hits that is fetched again out of band, to detect stale hits; 0 to 1.
    pub audit: f64,
    /// The freshness lifetime of responses for which the origin gives none.
    pub ttl: TtlRule,
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
}

impl RouteSpec {
    /// Whether both match the same paths, and neither is more specific.
    #[must_use]
    pub fn ties(&self, other: &Self) -> bool {
        match (self.case, other.case) {
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
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Its index among the routes, and in the metrics.
    pub id: usize,
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
    /// Where the tokens are that fields of the key read.
    pub token_places: Box<[TokenPlace]>,
    /// What a switch makes of its mode for the time being.
    pub switched: SwitchedMode,
}

impl Route {
    fn new(
        id: usize,
        mut spec: RouteSpec,
        credential: &CredentialRule,
        fronts: Fronts,
        response_rules: &Arc<ResponseRules>,
    ) -> Self {
        let mut fields: Vec<Arc<Field>> = spec.key.to_vec();
        for field in spec.tags.iter().flat_map(Template::fields) {
            // The caller is in the key as its credential.
            if field.source != FieldSource::Caller && !fields.contains(field) {
                fields.push(Arc::clone(field));
            }
        }
        let read = fields.iter().filter_map(|field| match &field.source {
            FieldSource::Query(name) => Some(name),
            _ => None,
        });
        spec.query = spec.query.with_parameters(read);
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
        let credential_headers = spec.methods.credential_headers();
        let headers = HeaderRules::new(&spec, &fields, credential, fronts);
        let fingerprint = fingerprint(&spec, credential, fronts, response_rules);
        Self {
            id,
            spec,
            headers,
            fingerprint,
            response_rules: Arc::clone(response_rules),
            fields: fields.into(),
            keyed_cookies,
            session_rules,
            credential_headers,
            keys_address,
            token_places,
            switched: SwitchedMode::default(),
        }
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

    /// A path that it matches, as it stands in the key and in the request of a fill: the literal
    /// segments as the route has them.
    #[must_use]
    pub fn keyed_path<'a>(&self, path: Cow<'a, str>, captures: &Captures) -> Cow<'a, str> {
        match self.spec.case {
            PathCase::Exact => path,
            PathCase::Ignore => Cow::Owned(self.spec.pattern.path_with(&path, captures)),
        }
    }

    /// The route's name in metrics and logs: its pattern.
    #[must_use]
    pub fn name(&self) -> &str {
        self.spec.pattern.as_str()
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

/// Hashes every setting that decides which responses share a key, what is stored of them, under
/// which tags and for how long. So after a reload, nothing is served that other rules have stored.
/// The hash keys are fixed, so that sidecars with the same file agree.
fn fingerprint(
    spec: &RouteSpec,
    credential: &CredentialRule,
    fronts: Fronts,
    response_rules: &ResponseRules,
) -> [u8; 8] {
    #[allow(
        deprecated,
        reason = "the std SipHash with fixed keys is stable across processes, which DefaultHasher \
            does not promise"
    )]
    let mut hasher = std::hash::SipHasher::new_with_keys(0x5349_4445, 0x4341_4348);
    // Destructured exhaustively, so that a new setting cannot be forgotten here.
    let RouteSpec {
        line: _,
        defaults: _,
        pattern,
        methods,
        scope,
        key,
        query,
        strip_set_cookie,
        drop_headers,
        pass_headers,
        unknown_headers,
        tags,
        ttl,
        origin,
        stale_while_revalidate,
        stale_if_error,
        languages,
        vary_cookie,
        case,
        // These decide when the origin is contacted and who is served, not what is stored.
        jitter: _,
        mode: _,
        audit: _,
        early_refresh: _,
        collapse: _,
        admit: _,
        admit_for: _,
        revalidate_after: _,
        client_cache_control: _,
        encoded_slash: _,
        // This decides what clients are told of it.
        browser: _,
    } = spec;
    let ResponseRules { targeted, response_tags } = response_rules;
    let rules = format!(
        "{:?}",
        (
            key,
            query,
            drop_headers,
            pass_headers,
            unknown_headers,
            credential,
            targeted,
            response_tags,
            (strip_set_cookie, languages, vary_cookie, case, fronts, methods),
        )
    );
    let times = format!("{:?}", (ttl, origin, stale_while_revalidate, stale_if_error));
    (pattern.as_str(), scope, rules, times).hash(&mut hasher);
    tags.iter().for_each(|tag| tag.as_str().hash(&mut hasher));
    hasher.finish().to_be_bytes()
}

/// Two routes with patterns of the same shape, so that neither is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The index of the earlier route.
    pub first: usize,
    /// The index of the later route.
    pub second: usize,
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routes {} and {} match the same paths", self.first + 1, self.second + 1)
    }
}

/// All routes, looked up by path.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    list: Vec<Arc<Route>>,
    /// Those whose case counts.
    tree: pattern::Tree,
    /// Those whose case does not, by their patterns in lower case.
    in_any_case: Option<pattern::Tree>,
}

impl Routes {
    /// Compiles routes. Their order does not matter.
    pub fn new(
        specs: Vec<RouteSpec>,
        credential: &CredentialRule,
        fronts: Fronts,
        response_rules: &Arc<ResponseRules>,
    ) -> Result<Self, Tie> {
        let (mut tree, mut in_any_case) = (pattern::Tree::default(), None);
        for (id, spec) in specs.iter().enumerate() {
            let tied = specs[..id].iter().position(|earlier| earlier.ties(spec));
            let tied = tied.or_else(|| match spec.case {
                PathCase::Exact => tree.insert(&spec.pattern, id),
                PathCase::Ignore => in_any_case
                    .get_or_insert_with(pattern::Tree::default)
                    .insert(&spec.pattern.in_lower_case(), id),
            });
            if let Some(first) = tied {
                return Err(Tie { first, second: id });
            }
        }
        let list = specs
            .into_iter()
            .enumerate()
            .map(|(id, spec)| Arc::new(Route::new(id, spec, credential, fronts, response_rules)))
            .collect();
        Ok(Self { list, tree, in_any_case })
    }

    /// The most specific route for a path in normal form, with its captures.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(&Arc<Route>, Captures)> {
        let exact = self.tree.find(path);
        let found = match &self.in_any_case {
            None => exact,
            Some(tree) => {
                let other = tree.find(&path.to_ascii_lowercase());
                self.more_specific(exact, other)
            }
        };
        let route = &self.list[found?];
        let captures = match route.spec.case {
            PathCase::Exact => route.spec.pattern.captures_of(path)?,
            PathCase::Ignore => route.spec.pattern.captures_in_any_case(path)?,
        };
        Some((route, captures))
    }

    /// Of two routes that match one path, the more specific; of equals, the one whose case counts.
    fn more_specific(&self, exact: Option<usize>, other: Option<usize>) -> Option<usize> {
        let (Some(one), Some(two)) = (exact, other) else { return exact.or(other) };
        let is_better = self.list[two].spec.pattern.is_more_specific(&self.list[one].spec.pattern);
        Some(if is_better { two } else { one })
    }

    /// The route with this index.
    #[must_use]
    pub fn get(&self, id: usize) -> Option<&Arc<Route>> {
        self.list.get(id)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.list.iter()
    }

    /// The number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
