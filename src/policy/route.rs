//! Routes: path patterns, the policy of each, and which of them takes a request.

use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::scope::Scope;
use crate::policy::tag::{ResponseTags, Template};
use crate::semantics::storability::OriginRule;

pub use crate::policy::route::headers::{HeaderRole, HeaderRules};
pub use crate::policy::route::pattern::{Captures, Pattern};

pub(crate) mod headers;
mod pattern;

/// Whether a route caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteMode {
    /// It does.
    On,
    /// It does not: everything goes to the app.
    Off,
    /// It does not, and tells what it would have done: what it would have served, and where that
    /// would have been wrong.
    Shadow,
}

impl RouteMode {
    /// The more careful one of two: `off` before `shadow` before `on`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Off, _) | (_, Self::Off) => Self::Off,
            (Self::Shadow, _) | (_, Self::Shadow) => Self::Shadow,
            (Self::On, Self::On) => Self::On,
        }
    }

    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Shadow => "shadow",
        }
    }
}

/// Which query parameters count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// All, in their order.
    All,
    /// None; they are withheld from the app on a fill.
    None,
    /// These; the others are withheld from the app on a fill.
    Only(Box<[Box<str>]>),
}

/// What to do with a request header that no key has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHeaders {
    /// Pass the request to the app, around the cache.
    Bypass,
    /// Withhold the header on a fill.
    Drop,
    /// Let it through: the operator's word that it changes nothing.
    Pass,
}

/// Whether the request's own `Cache-Control` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// A browser's reload reaches the app.
    Respect,
    /// It does not.
    Ignore,
}

/// Among whom one fill per key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collapse {
    /// The requests of this process.
    Process,
    /// The requests of all sidecars that share the Redis.
    Cluster,
}

/// What the operator says of a route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Where it stands in the file, from 1.
    pub line: usize,
    /// The paths it takes.
    pub pattern: Pattern,
    /// Whether it caches.
    pub mode: RouteMode,
    /// The share of its hits that is asked for again out of band, to see whether they were stale; 0
    /// to 1.
    pub audit: f64,
    /// Freshness where the app gives none.
    pub ttl: Option<Duration>,
    /// Whose word on freshness wins.
    pub origin: OriginRule,
    /// How long a stale entry is served while it is fetched anew, where the app gives no time of
    /// its own (RFC 5861 3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale entry stands in for an error of the app, where the app gives no time of its
    /// own (RFC 5861 4).
    pub stale_if_error: Option<Duration>,
    /// `ttl` is shortened by a random part of up to this; less than `ttl`, and zero without one.
    pub jitter: Duration,
    /// Whether popular entries are fetched anew shortly before they expire.
    pub early_refresh: bool,
    /// Among whom one fill per key is made.
    pub collapse: Collapse,
    /// Store responses that set cookies, without the cookies.
    pub strip_set_cookie: bool,
    /// Who may share its entries.
    pub scope: Scope,
    /// The fields in its key.
    pub key: Box<[Arc<Field>]>,
    /// The query parameters in its key.
    pub query: QueryRule,
    /// The tags of its entries.
    pub tags: Box<[Template]>,
    /// Headers withheld from the app on a fill.
    pub drop_headers: Box<[HeaderName]>,
    /// Headers let through unkeyed.
    pub pass_headers: Box<[HeaderName]>,
    /// The rule for all other headers.
    pub unknown_headers: UnknownHeaders,
    /// How long the app's word on a credential holds, in scope `shared`.
    pub admit_for: Duration,
    /// Whether the request's own `Cache-Control` counts.
    pub client_cache_control: ClientCacheControl,
}

/// How the answers of the app are read, on all routes alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseRules {
    /// The response headers whose word on freshness comes before `Cache-Control` (RFC 9213), the
    /// first one first.
    pub targeted: Box<[HeaderName]>,
    /// Where the app names tags.
    pub response_tags: ResponseTags,
}

/// A route, ready to take requests.
#[derive(Debug)]
pub struct Route {
    /// Its place among the routes: the index of its metrics.
    pub id: usize,
    /// What the operator said.
    pub spec: RouteSpec,
    /// What becomes of each request header.
    pub headers: HeaderRules,
    /// Names its policy: entries of another policy are never found under this one.
    pub fingerprint: [u8; 8],
    /// How the app's answers are read.
    pub response_rules: Arc<ResponseRules>,
    /// The fields in its key: those the operator named, and those of its tags, without which a
    /// purge could miss an entry.
    pub fields: Box<[Arc<Field>]>,
    /// The cookies that the key names; when it names any, or credentials are withheld, the others
    /// are withheld too.
    pub keyed_cookies: Box<[Box<str>]>,
    /// Whether a field of the key stands in for the automatic credential.
    pub chosen_identity: bool,
}

impl Route {
    fn new(
        id: usize,
        mut spec: RouteSpec,
        credential: &CredentialRule,
        answers: &Arc<ResponseRules>,
    ) -> Self {
        let mut fields: Vec<Arc<Field>> = spec.key.to_vec();
        for field in spec.tags.iter().flat_map(Template::fields) {
            if !fields.contains(field) {
                fields.push(Arc::clone(field));
            }
        }
        spec.query = with_fields(spec.query, &fields);
        let keyed_cookies: Box<[Box<str>]> = fields
            .iter()
            .filter_map(|field| match &field.source {
                FieldSource::Cookie(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let chosen_identity =
            spec.key.iter().any(|field| matches!(field.source, FieldSource::Auth(_)));
        let headers = HeaderRules::new(
            &spec,
            &fields,
            credential,
            chosen_identity,
            !keyed_cookies.is_empty(),
        );
        let fingerprint = fingerprint(&spec, credential, answers);
        Self {
            id,
            spec,
            headers,
            fingerprint,
            response_rules: Arc::clone(answers),
            fields: fields.into(),
            keyed_cookies,
            chosen_identity,
        }
    }

    /// Whether the key holds the caller's credential, whole.
    #[must_use]
    pub fn key_holds_credential(&self) -> bool {
        match self.spec.scope {
            Scope::Private => true,
            Scope::Shared => self.chosen_identity,
            Scope::Public => false,
        }
    }

    /// The route's name in metrics and logs: its pattern.
    #[must_use]
    pub fn name(&self) -> &str {
        self.spec.pattern.as_str()
    }
}

/// The parameters that count, those that fields read included: what the key has seen, the app may
/// see.
fn with_fields(query: QueryRule, fields: &[Arc<Field>]) -> QueryRule {
    let mut names = match query {
        QueryRule::All => return QueryRule::All,
        QueryRule::None => Vec::new(),
        QueryRule::Only(names) => names.into_vec(),
    };
    for field in fields {
        if let FieldSource::Query(name) = &field.source
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    if names.is_empty() { QueryRule::None } else { QueryRule::Only(names.into()) }
}

/// Hashes what decides which responses may share a key, what is stored of them, under which tags,
/// and for how long: after a reload nothing is served that was stored by other rules. Fixed keys:
/// sidecars with the same file agree on it.
fn fingerprint(spec: &RouteSpec, credential: &CredentialRule, answers: &ResponseRules) -> [u8; 8] {
    #[allow(
        deprecated,
        reason = "the std SipHash with fixed keys is stable across processes, which DefaultHasher does not promise"
    )]
    let mut hasher = std::hash::SipHasher::new_with_keys(0x5349_4445, 0x4341_4348);
    // Exhaustive, so that a new setting cannot be forgotten here.
    let RouteSpec {
        line: _,
        pattern,
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
        // These change when the app is asked, and who is let in: not what is stored.
        jitter: _,
        mode: _,
        audit: _,
        early_refresh: _,
        collapse: _,
        admit_for: _,
        client_cache_control: _,
    } = spec;
    let ResponseRules { targeted, response_tags } = answers;
    let told = format!(
        "{:?}",
        (
            key,
            query,
            drop_headers,
            pass_headers,
            unknown_headers,
            credential,
            targeted,
            response_tags
        )
    );
    let times = format!("{:?}", (ttl, origin, stale_while_revalidate, stale_if_error));
    (pattern.as_str(), scope, strip_set_cookie, told, times).hash(&mut hasher);
    tags.iter().for_each(|tag| tag.as_str().hash(&mut hasher));
    hasher.finish().to_be_bytes()
}

/// Two routes that could both be the most specific one for some path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The earlier of the two.
    pub first: usize,
    /// The later.
    pub second: usize,
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routes {} and {} match the same paths", self.first + 1, self.second + 1)
    }
}

/// All routes, found by path.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Arc<Route>>,
    tree: pattern::Tree,
}

impl Routes {
    /// Compiles routes. The order of the list decides nothing.
    pub fn new(
        specs: Vec<RouteSpec>,
        credential: &CredentialRule,
        answers: &Arc<ResponseRules>,
    ) -> Result<Self, Tie> {
        let mut tree = pattern::Tree::default();
        for (id, spec) in specs.iter().enumerate() {
            if let Some(first) = tree.insert(&spec.pattern, id) {
                return Err(Tie { first, second: id });
            }
        }
        let routes = specs
            .into_iter()
            .enumerate()
            .map(|(id, spec)| Arc::new(Route::new(id, spec, credential, answers)))
            .collect();
        Ok(Self { routes, tree })
    }

    /// The most specific route for a path in normal form, with its captures.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(&Arc<Route>, Captures)> {
        let id = self.tree.find(path)?;
        let route = &self.routes[id];
        let captures = route.spec.pattern.captures_of(path)?;
        Some((route, captures))
    }

    /// The one with this place.
    #[must_use]
    pub fn get(&self, id: usize) -> Option<&Arc<Route>> {
        self.routes.get(id)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}
