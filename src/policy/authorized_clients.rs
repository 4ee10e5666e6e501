//! The clients that the origin has lately authorized for entries of scope `shared`.
//!
//! By the rule of the route, an authorization is for one entry and one response, or for all entries
//! with the same host and fields. Nothing here knows of entries: callers name them by the hash of
//! their key, and by the digest of status, head and body.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::clock::Wall;
use crate::policy::key::KeyHash;
use crate::policy::route::AdmitRule;
use crate::semantics::digest::Digest;
use crate::telemetry::metrics::Counter;

/// Digest of a credential together with the route, the host, the key fields, and the headers that
/// no key has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthorizationId(pub u128);

impl AuthorizationId {
    /// The id as bytes, in the width of other callers' names.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

/// A client of a route of scope `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedClient {
    /// Its name.
    pub id: AuthorizationId,
    /// What the route authorizes it for.
    pub rule: AdmitRule,
}

impl SharedClient {
    /// Whether its authorization is for one entry alone.
    #[must_use]
    pub const fn by_entry(self) -> bool {
        matches!(self.rule, AdmitRule::Entry)
    }

    fn authorized_for(self, key: KeyHash) -> AuthorizedFor {
        let entry = match self.rule {
            AdmitRule::Entry => key.half(),
            AdmitRule::Route => WHOLE_ROUTE,
        };
        AuthorizedFor { client: self.id, entry }
    }
}

/// In place of half of a hash, which is not 0: all entries of the route with the client's host and
/// fields.
const WHOLE_ROUTE: u128 = 0;

/// Who is authorized, and for what: half of the hash of the whole key, its variant included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AuthorizedFor {
    client: AuthorizationId,
    entry: u128,
}

#[derive(Clone, Copy, Debug)]
struct Authorization {
    /// What the client was given. Unused where the authorization is for a route.
    digest: Digest,
    until: Wall,
}

/// Whether a client may be served a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationState {
    /// The origin has lately given it this very response, or has lately answered it on the route.
    Authorized,
    /// The origin did, but not lately. If it gave it this very response, a 304 authorizes it again.
    Lapsed,
    /// Nothing shows that it may have it.
    Unauthorized,
}

impl AuthorizationState {
    /// The words in `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Lapsed => "lapsed",
            Self::Unauthorized => "not authorized",
        }
    }
}

/// The clients whose credentials the origin has lately answered with success, on routes of scope
/// `shared`.
///
/// Bounded: when it is full, the least useful authorizations are evicted, which costs each of
/// those clients one request to the origin. One that has ended by time stays until then: it tells
/// which body the client was given.
#[derive(Debug)]
pub struct AuthorizedClients {
    known: Cache<
        AuthorizedFor,
        Authorization,
        UnitWeighter,
        DefaultHashBuilder,
        AuthorizationEvictions,
    >,
    /// Authorizations evicted to make room for others.
    pub evicted: Arc<Counter>,
}

/// Counts evictions, and not what is replaced or revoked.
#[derive(Clone, Debug)]
struct AuthorizationEvictions(Arc<Counter>);

impl Lifecycle<AuthorizedFor, Authorization> for AuthorizationEvictions {
    type RequestState = ();

    fn before_evict(&self, (): &mut (), _: &AuthorizedFor, _: &mut Authorization) {
        self.0.inc();
    }

    fn on_evict(&self, (): &mut (), _: AuthorizedFor, _: Authorization) {}
}

impl AuthorizedClients {
    /// Holds up to `capacity` authorizations.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let evicted = Arc::<Counter>::default();
        let (hasher, counter) =
            (DefaultHashBuilder::default(), AuthorizationEvictions(Arc::clone(&evicted)));
        let known = Cache::with(capacity, capacity as u64, UnitWeighter, hasher, counter);
        Self { known, evicted }
    }

    /// Records that the origin gave this client this response under this key.
    pub fn authorize(
        &self,
        client: SharedClient,
        key: KeyHash,
        digest: Digest,
        (now, admit_for): (Wall, Duration),
    ) {
        self.known.insert(
            client.authorized_for(key),
            Authorization { digest, until: now.after(admit_for) },
        );
    }

    /// Records that the origin has confirmed to this client what it gave it before; `now_given` is
    /// the digest of that with the head that the confirmation has brought.
    ///
    /// SECURITY: never a first authorization: many validators name the record, and not what a
    /// client gets to see of it.
    pub fn renew(
        &self,
        client: SharedClient,
        key: KeyHash,
        (given, now_given): (Digest, Digest),
        (now, admit_for): (Wall, Duration),
    ) {
        if self.state(client, key, || given, now) != AuthorizationState::Unauthorized {
            self.authorize(client, key, now_given, (now, admit_for));
        }
    }

    /// Records that the origin refused this client what is under this key.
    pub fn revoke(&self, client: SharedClient, key: KeyHash) {
        self.known.remove(&client.authorized_for(key));
    }

    /// Forgets every authorization.
    pub fn clear(&self) {
        self.known.clear();
    }

    /// Whether this client may be served what is stored under this key, which has this digest. The
    /// digest is not asked for where the authorization does not depend on it.
    #[must_use]
    pub fn state(
        &self,
        client: SharedClient,
        key: KeyHash,
        digest: impl FnOnce() -> Digest,
        now: Wall,
    ) -> AuthorizationState {
        match (self.known.get(&client.authorized_for(key)), client.rule) {
            // SECURITY: another head or body than the one that the client was given may be another
            // caller's, so it ends the authorization.
            (Some(known), AdmitRule::Entry) if known.digest != digest() => {
                AuthorizationState::Unauthorized
            }
            (Some(known), _) if now < known.until => AuthorizationState::Authorized,
            (Some(_), _) => AuthorizationState::Lapsed,
            (None, _) => AuthorizationState::Unauthorized,
        }
    }

    /// The number of authorizations held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no authorization is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const NOW: Wall = Wall(1_000);
    const KEY: KeyHash = KeyHash::of_byte(1);
    const OTHER: KeyHash = KeyHash::of_byte(2);
    const BODY: Digest = [3; 16];

    const fn client(id: u128, rule: AdmitRule) -> SharedClient {
        SharedClient { id: AuthorizationId(id), rule }
    }

    fn state(
        clients: &AuthorizedClients,
        client: SharedClient,
        key: KeyHash,
        now: Wall,
    ) -> AuthorizationState {
        clients.state(client, key, || BODY, now)
    }

    #[test]
    fn an_authorization_ends_by_time_and_by_refusal() {
        for rule in [AdmitRule::Entry, AdmitRule::Route] {
            let clients = AuthorizedClients::new(100);
            let alice = client(7, rule);
            assert_eq!(state(&clients, alice, KEY, NOW), AuthorizationState::Unauthorized);
            clients.authorize(alice, KEY, BODY, (NOW, MINUTE));
            assert_eq!(state(&clients, alice, KEY, Wall(60_999)), AuthorizationState::Authorized);
            assert_eq!(state(&clients, alice, KEY, Wall(61_000)), AuthorizationState::Lapsed);
            assert_eq!(
                state(&clients, client(8, rule), KEY, NOW),
                AuthorizationState::Unauthorized
            );
            clients.revoke(alice, KEY);
            assert_eq!(state(&clients, alice, KEY, NOW), AuthorizationState::Unauthorized);
            assert_eq!(state(&clients, alice, KEY, Wall(61_000)), AuthorizationState::Unauthorized);
        }
    }

    #[test]
    fn a_304_renews_what_a_body_has_shown_and_nothing_else() {
        let clients = AuthorizedClients::new(100);
        let alice = client(7, AdmitRule::Entry);
        let later = Wall(61_000);
        clients.renew(alice, KEY, (BODY, BODY), (NOW, MINUTE));
        assert_eq!(state(&clients, alice, KEY, NOW), AuthorizationState::Unauthorized);
        clients.authorize(alice, KEY, BODY, (NOW, MINUTE));
        clients.renew(alice, KEY, ([4; 16], [4; 16]), (later, MINUTE));
        assert_eq!(state(&clients, alice, KEY, later), AuthorizationState::Lapsed);
        clients.renew(alice, KEY, (BODY, BODY), (later, MINUTE));
        assert_eq!(state(&clients, alice, KEY, later), AuthorizationState::Authorized);
    }

    #[test]
    fn there_are_no_more_than_allowed_and_evictions_are_counted() {
        let clients = AuthorizedClients::new(100);
        for id in 0..1000 {
            clients.authorize(client(id, AdmitRule::Entry), KEY, BODY, (NOW, MINUTE));
            clients.authorize(client(id, AdmitRule::Entry), KEY, BODY, (NOW, MINUTE));
        }
        assert!(clients.len() <= 100, "{}", clients.len());
        assert_eq!(clients.evicted.get() + clients.len() as u64, 1000);
    }

    #[test]
    fn an_authorization_is_for_one_key_and_one_body_unless_the_route_says_otherwise() {
        let clients = AuthorizedClients::new(100);
        let by_entry = client(7, AdmitRule::Entry);
        clients.authorize(by_entry, KEY, BODY, (NOW, MINUTE));
        assert_eq!(state(&clients, by_entry, OTHER, NOW), AuthorizationState::Unauthorized);
        let another = clients.state(by_entry, KEY, || [4; 16], NOW);
        assert_eq!(another, AuthorizationState::Unauthorized);
        clients.revoke(by_entry, OTHER);
        assert_eq!(state(&clients, by_entry, KEY, NOW), AuthorizationState::Authorized);

        let by_route = client(7, AdmitRule::Route);
        assert_eq!(state(&clients, by_route, KEY, NOW), AuthorizationState::Unauthorized);
        clients.authorize(by_route, KEY, BODY, (NOW, MINUTE));
        let all = clients.state(by_route, OTHER, || unreachable!("no digest is needed"), NOW);
        assert_eq!(all, AuthorizationState::Authorized);
    }
}
