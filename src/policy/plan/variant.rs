//! The key of a variant: which of the stored responses under one key a request selects, by the
//! headers that `Vary` names.

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};

use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::lookup::Lookup;
use crate::policy::plan::rules::PolicyRules;
use crate::policy::route::{HeaderRole, Route};
use crate::policy::scope::Scope;
use crate::semantics::vary;
use crate::semantics::vary::VarySpec;

impl PolicyRules {
    /// The key of the variant that the response to a fill with these headers is stored under.
    /// Agrees with [`Lookup::variant`] for the same request.
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
            (name, if secret { value.map(|value| self.hash_secret(&value)) } else { value })
        }))
    }
}

impl Lookup<'_> {
    /// The key of the variant that this request selects.
    #[must_use]
    pub fn variant(&self, spec: &VarySpec) -> Key {
        self.key.variant(spec.names().map(|name| (name, self.sent_value(name))))
    }

    /// The hash of the key of that variant, or of the key itself where the response does not vary.
    #[must_use]
    pub fn variant_hash(&self, spec: &VarySpec) -> KeyHash {
        if spec.is_empty() { self.key.hash() } else { self.variant(spec).hash() }
    }

    /// The value of a header that a fill sends to the origin, normalised, and hashed if it is a
    /// secret.
    fn sent_value(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let role = self.route.headers.role(name, self.request.peer_is_trusted);
        if *name == COOKIE {
            let mut alone = HeaderMap::with_capacity(1);
            alone.insert(COOKIE, self.sent_cookie()?);
            return vary::normalise(name, alone.get_all(name))
                .map(|value| self.rules.hash_secret(&value));
        }
        let withheld = role == HeaderRole::Withheld
            || (role == HeaderRole::Credential && self.route.spec.scope == Scope::Public);
        let value =
            if withheld { None } else { vary::normalise(name, self.request.headers.get_all(name)) };
        let secret = *name == AUTHORIZATION || role == HeaderRole::Credential;
        if secret { value.map(|value| self.rules.hash_secret(&value)) } else { value }
    }
}
