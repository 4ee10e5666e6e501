//! The key of a variant: which of the stored responses under one key a request selects, by the
//! headers that `Vary` names.
//!
//! Invariant: a response is given to a request, and stored for requests like it, only if the
//! variant that the request selects ([`Lookup::variant`], from what the client sent) is that of the
//! request that the origin received ([`PolicyRules::variant_of`]). They differ where a fill
//! withholds what the response varies on ([`Lookup::withheld_from`]).

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, USER_AGENT};

use crate::policy::field::{ClientPrefix, FieldSource};
use crate::policy::key::{Key, KeyHash};
use crate::policy::known_headers::{self, FORGERY_TOKENS};
use crate::policy::plan::canonical::{FillUserAgent, counting_cookies, joined_lines};
use crate::policy::plan::lookup::Lookup;
use crate::policy::plan::rules::PolicyRules;
use crate::policy::route::headers::WITHHELD;
use crate::policy::route::{HeaderRole, LearnOutcome, RoleContext, Route, VaryCookie};
use crate::policy::scope::Scope;
use crate::semantics::forward;
use crate::semantics::vary::{VarySpec, VaryStar};

impl PolicyRules {
    /// The key of the variant that the response to a fill with these headers is stored under.
    #[must_use]
    pub fn variant_of(
        &self,
        route: &Route,
        roles: &RoleContext,
        primary: &Key,
        spec: &VarySpec,
        sent: &HeaderMap,
    ) -> Key {
        primary.variant(spec.names().map(|name| {
            let value = joined_lines(sent, name);
            let value = value.map(|value| {
                if *name == COOKIE {
                    route.cookie_identity(value, sent, &self.hasher)
                } else {
                    value
                }
            });
            let secret = is_secret(name, route.headers.role(name, roles));
            (name, if secret { value.map(|value| self.hash_secret(&value).into()) } else { value })
        }))
    }
}

impl Route {
    /// Puts headers that the origin names in `Vary` into the keys of later requests, as far as a
    /// fill has withheld them. Returns how many there is no room for.
    #[must_use]
    pub fn learn(&self, spec: &VarySpec, withheld: &[HeaderName], roles: &RoleContext) -> u64 {
        let is_learnable = |name: &&HeaderName| {
            let role = self.headers.role(name, roles);
            withheld.contains(name) && matches!(role, HeaderRole::Harmless | HeaderRole::Unknown)
        };
        let names = spec.names().filter(is_learnable);
        names.filter(|name| self.headers.learn(name) == LearnOutcome::Full).count() as u64
    }

    /// A header that the response varies on and that a fill replaces by something that is not in
    /// the key.
    #[must_use]
    pub fn substituted_in(&self, spec: &VarySpec, roles: &RoleContext) -> Option<HeaderName> {
        let is_substituted = |name: &&HeaderName| match self.headers.role(name, roles) {
            HeaderRole::Substituted => !(self.keys_address && forward::is_client_address(name)),
            HeaderRole::Passed => forward::is_address(name),
            _ => false,
        };
        spec.names().find(is_substituted).cloned()
    }

    /// The headers that tell the variants of one key apart: what the response varies on, without
    /// what the key itself holds.
    ///
    /// # Errors
    /// The response varies on a header that a fill replaces by something that is not in the key.
    pub fn variants_by(&self, spec: &VarySpec, roles: &RoleContext) -> Result<VarySpec, VaryStar> {
        if self.substituted_in(spec, roles).is_some() {
            return Err(VaryStar);
        }
        // What was learned stays in the variants, although it is in the key as well: a process that
        // has not learned it finds these entries, too.
        let unlearned = roles.unlearned();
        let role = |name: &HeaderName| self.headers.role(name, &unlearned);
        let scope = self.spec.scope;
        Ok(spec.retain(|name| match role(name) {
            HeaderRole::Implicit
            | HeaderRole::Keyed
            | HeaderRole::Negotiated
            | HeaderRole::Transport
            | HeaderRole::Substituted => false,
            // Constants, where nobody vouches for what the client says.
            HeaderRole::Unknown | HeaderRole::Withheld if forward::is_original(name) => false,
            HeaderRole::Credential => match scope {
                Scope::Private => false,
                Scope::Shared => true,
                Scope::Public => self.spec.vary_cookie == VaryCookie::Respect,
            },
            HeaderRole::Harmless
            | HeaderRole::Withheld
            | HeaderRole::Passed
            | HeaderRole::Unknown => true,
        }))
    }
}

impl Lookup<'_> {
    /// The key of the variant that this request selects.
    #[must_use]
    pub fn variant(&self, spec: &VarySpec) -> Key {
        self.key.variant(spec.names().map(|name| (name, self.selecting_value(name))))
    }

    /// The hash of the key of that variant, or of the key itself where the response does not vary.
    #[must_use]
    pub fn variant_hash(&self, spec: &VarySpec) -> KeyHash {
        if spec.is_empty() { self.key.hash() } else { self.variant(spec).hash() }
    }

    /// A header of this request that the response varies on and that a fill withholds or replaces:
    /// the response to a fill is not for this request.
    #[must_use]
    pub fn withheld_from(&self, spec: &VarySpec) -> Option<HeaderName> {
        spec.names().find(|name| self.withholds(name)).cloned()
    }

    /// The same, once the route has learned what it can of that `Vary`: the header that is in the
    /// way still, if there is one, and not one that later requests have in their keys.
    #[must_use]
    pub fn withheld_for_good(&self, spec: &VarySpec) -> Option<HeaderName> {
        let now = self.route.headers.context(self.roles.peer_is_trusted());
        let is_learned =
            |name: &&HeaderName| self.route.headers.role(name, &now) == HeaderRole::Implicit;
        let withheld = || spec.names().filter(|name| self.withholds(name));
        withheld().find(|name| !is_learned(name)).or_else(|| withheld().next()).cloned()
    }

    /// The headers of this request that no key had seen and that the route has not learned from
    /// `Vary` meanwhile.
    #[must_use]
    pub fn unlearned(&self) -> Vec<&HeaderName> {
        let now = self.route.headers.context(self.roles.peer_is_trusted());
        let is_unknown =
            |name: &&HeaderName| self.route.headers.role(name, &now) == HeaderRole::Unknown;
        self.unknown.iter().filter(is_unknown).collect()
    }

    /// The headers of this request that a fill withholds or replaces although a response might vary
    /// on them.
    #[must_use]
    pub fn withheld_names(&self) -> Vec<HeaderName> {
        self.request.headers.keys().filter(|name| self.withholds(name)).cloned().collect()
    }

    /// Whether a fill has less of the client than its own request: its address, which a fill never
    /// has of itself, or a header.
    #[must_use]
    pub fn withholds_anything(&self) -> bool {
        let rules = &self.route.headers;
        let has_address = rules.passes_address()
            || self
                .route
                .fields
                .iter()
                .any(|field| field.source == FieldSource::Client(ClientPrefix::WHOLE));
        let is_missing = |name: &HeaderName| match rules.role(name, &self.roles) {
            HeaderRole::Substituted => !forward::is_client_address(name),
            HeaderRole::Withheld => !WITHHELD.contains(&name.as_str()),
            _ => self.withholds(name),
        };
        !has_address || self.request.headers.keys().any(is_missing)
    }

    /// Whether a fill lacks an anti-forgery token that the request has.
    #[must_use]
    pub fn withholds_forgery_token(&self) -> bool {
        known_headers::names(FORGERY_TOKENS)
            .any(|name| self.withholds(&HeaderName::from_static(name)))
    }

    /// What identifies the client and a fill withholds: in scope `public`, all that does.
    #[must_use]
    pub fn withheld_credential(&self) -> Option<HeaderName> {
        let is_public = self.route.spec.scope == Scope::Public;
        let mut names = [&COOKIE, &AUTHORIZATION].into_iter().chain(&self.rules.credential.headers);
        names.find(|name| is_public && self.withholds(name)).cloned()
    }

    fn withholds(&self, name: &HeaderName) -> bool {
        let headers = self.request.headers;
        if !headers.contains_key(name) {
            return false;
        }
        match self.route.headers.role(name, &self.roles) {
            HeaderRole::Harmless => {
                let agent = self.canonical().headers.user_agent;
                *name != USER_AGENT || !matches!(agent, FillUserAgent::Own(_))
            }
            HeaderRole::Credential if self.route.spec.scope != Scope::Public => false,
            HeaderRole::Credential if *name == COOKIE => {
                let counting = counting_cookies(&self.rules.credential, headers);
                counting.is_some() && counting != self.cookies().keyed
            }
            HeaderRole::Credential | HeaderRole::Unknown => true,
            _ => false,
        }
    }

    /// The value of a header by which this request selects, hashed if it is a secret.
    fn selecting_value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let headers = self.request.headers;
        let role = self.route.headers.role(name, &self.roles);
        let is_public = self.route.spec.scope == Scope::Public;
        let value = match role {
            HeaderRole::Withheld | HeaderRole::Transport | HeaderRole::Substituted => None,
            HeaderRole::Credential if *name == COOKIE && is_public => {
                counting_cookies(&self.rules.credential, headers)
            }
            HeaderRole::Credential | HeaderRole::Passed if *name == COOKIE => {
                let sent = self.cookies().on_the_wire();
                sent.map(|sent| {
                    let hasher = &self.rules.hasher;
                    self.route.cookie_identity(sent.into(), headers, hasher)
                })
            }
            // A fill gives a client that has none the same as all others.
            HeaderRole::Harmless | HeaderRole::Implicit
                if *name == USER_AGENT && !headers.contains_key(name) =>
            {
                Some(self.app().fill.user_agent.as_bytes().into())
            }
            _ => joined_lines(headers, name),
        };
        if is_secret(name, role) {
            value.map(|value| self.rules.hash_secret(&value).into())
        } else {
            value
        }
    }
}

fn is_secret(name: &HeaderName, role: HeaderRole) -> bool {
    *name == AUTHORIZATION || *name == COOKIE || role == HeaderRole::Credential
}
