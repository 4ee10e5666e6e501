//! The clients that the origin has lately authorized for entries of scope `shared`.

use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::Wall;

/// Digest of a credential together with the route, host and key fields it was authorized for.
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

/// The clients whose credentials the origin has lately answered with success, on routes of scope
/// `shared`.
///
/// Bounded: when it is full, the least useful authorizations are evicted, which costs each of
/// those clients one request to the origin.
#[derive(Debug)]
pub struct AuthorizedClients(Cache<AuthorizationId, Wall>);

impl AuthorizedClients {
    /// Holds up to `capacity` authorizations.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// Records that the origin answered this credential with success.
    pub fn authorize(&self, id: AuthorizationId, now: Wall, admit_for: Duration) {
        self.0.insert(id, now.after(admit_for));
    }

    /// Records that the origin refused this credential.
    pub fn revoke(&self, id: AuthorizationId) {
        self.0.remove(&id);
    }

    /// Whether this client may be served the shared entry.
    #[must_use]
    pub fn is_authorized(&self, id: AuthorizationId, now: Wall) -> bool {
        self.0.get(&id).is_some_and(|until| now < until)
    }

    /// The number of authorizations held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
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

    #[test]
    fn an_authorization_ends_by_time_and_by_refusal() {
        let clients = AuthorizedClients::new(100);
        let (id, now) = (AuthorizationId(7), Wall(1_000));
        assert!(!clients.is_authorized(id, now));
        clients.authorize(id, now, Duration::from_mins(1));
        assert!(clients.is_authorized(id, Wall(60_999)));
        assert!(!clients.is_authorized(id, Wall(61_000)));
        clients.revoke(id);
        assert!(!clients.is_authorized(id, now));
    }
}
