//! The client towards the origin: a bounded pool of kept connections, deadlines, and one retry of
//! requests that are safe to repeat.
//!
//! It sends requests and returns responses. It must not know which headers to send, what the client
//! gets when the origin fails, or whether a response may be stored.
//!
//! A connection is driven by the future that waits for it (the request, then the response's body)
//! and not by a task of its own: an exchange wakes no task but its own, and dropping a request or a
//! body closes the connection, so that the origin notices.

mod checkout;
mod connect;
mod connection;
mod counters;
mod download;
mod error;
mod exchange;
mod framing;
mod health;
mod jwks;
mod permits;
mod pinned;
mod pool;
mod resolver;
mod settings;
mod socket;
mod trailers;
mod tunnel;
mod upload;
mod url_client;

use std::sync::Arc;

use http::{HeaderValue, Request, Response};

use crate::clock::Clock;
use crate::semantics::body::Body;
use crate::shares::Requester;

use self::exchange::Exchanger;
use self::resolver::{NameLookup, Resolver, SystemLookup};

pub use self::connect::tls_for;
pub use self::counters::UpstreamCounters;
pub use self::error::{UpstreamError, UpstreamSetupError};
pub use self::exchange::{CloseDelimited, ConnectionChoice, SendOnce};
pub use self::health::{OriginHealth, OriginStatus};
pub use self::jwks::JwksClient;
pub use self::pinned::PinSlot;
pub use self::settings::{
    HostHeader, Target, UpstreamAddress, UpstreamLimits, UpstreamSettings, tunnels_of,
};
pub use self::tunnel::tunnel;
pub use self::url_client::{Fetched, UrlAnswer, UrlClient, UrlSource};

/// The client towards the origin. Clones share the pool.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Exchanger>,
    health: Arc<OriginHealth>,
}

impl Upstream {
    /// A client that has not connected yet. Needs no runtime.
    ///
    /// # Errors
    /// When the authorities cannot be loaded, or a setting is out of range.
    pub fn new(
        settings: UpstreamSettings,
        limits: UpstreamLimits,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Result<Self, UpstreamSetupError> {
        Self::with_lookup(settings, limits, clock, counters, Box::new(SystemLookup))
    }

    /// Like [`Self::new`], with another way to look names up.
    fn with_lookup(
        settings: UpstreamSettings,
        limits: UpstreamLimits,
        clock: Clock,
        counters: UpstreamCounters,
        lookup: Box<dyn NameLookup>,
    ) -> Result<Self, UpstreamSetupError> {
        if settings.max_connections == 0
            || settings.max_connections > tokio::sync::Semaphore::MAX_PERMITS
        {
            return Err(UpstreamSetupError::Limit("the upstream needs at least one connection"));
        }
        let authority = HeaderValue::from_str(&settings.target.authority);
        let authority = authority
            .map_err(|_| UpstreamSetupError::Host(settings.target.authority.to_string()))?;
        let health = Arc::new(OriginHealth::new(&settings.target.authority, clock.clone()));
        let inner = Exchanger {
            pool: Arc::new(pool::Pool::new(&settings, limits, clock.clone(), counters.clone())),
            first_byte_timeout: settings.first_byte_timeout,
            max_head_bytes: settings.max_header_bytes.saturating_add(settings.max_interim_bytes),
            reuse_after_body: settings.reuse_after_body,
            via: settings.via,
            idle_timeout: settings.idle_timeout,
            max_age: settings.max_age,
            host: match settings.host {
                HostHeader::Preserve => None,
                HostHeader::Upstream => Some(authority.clone()),
            },
            authority,
            connector: connect::Connector::new(
                settings,
                Resolver::new(lookup, clock.clone()),
                &counters,
            )?,
            clock,
            counters,
        };
        Ok(Self { inner: Arc::new(inner), health })
    }

    /// The `Host` that the origin gets in place of the client's, if any.
    #[must_use]
    pub fn host(&self) -> Option<&HeaderValue> {
        self.inner.host.as_ref()
    }

    /// Whether the origin is told in `Via` that the sidecar stands in between.
    #[must_use]
    pub fn via(&self) -> bool {
        self.inner.via
    }

    /// The authority of the origin's URL.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.inner.authority
    }

    /// Whether the origin answers.
    #[must_use]
    pub fn health(&self) -> &OriginHealth {
        &self.health
    }

    /// A place for one client connection's own connection to the origin.
    #[must_use]
    pub fn pin(&self) -> Arc<PinSlot> {
        PinSlot::new(&self.inner.pool)
    }

    /// Whether a place is for connections of this client.
    #[must_use]
    pub fn owns(&self, pin: &PinSlot) -> bool {
        pin.is_of(&self.inner.pool)
    }

    /// Closes the connections that are not in use, and each of the others after its exchange:
    /// another client has taken over.
    pub fn retire(&self) {
        self.inner.pool.retire();
    }

    /// Sends a request whose headers are ready (see `forward::prepare_request`) on such a
    /// connection, and waits for the response's head. The connection counts for the requester's
    /// share.
    ///
    /// The response has the origin's headers, unchanged. A body that breaks off ends in an error,
    /// never as if it were complete. A response that upgrades has `hyper::upgrade::OnUpgrade` in
    /// its extensions; it comes only to a request with an `Upgrade` header. Dropping the future, or
    /// the body before its end, closes the connection.
    ///
    /// # Errors
    /// When there is no response; see [`UpstreamError`].
    // Boxed: the future is large, and all that wait for it would be moved with it. Not `async`: the
    // request would be a part of both.
    pub fn send_for<'a>(
        &'a self,
        choice: &'a ConnectionChoice,
        requester: &'a Requester,
        request: Box<Request<Body>>,
    ) -> impl Future<Output = Result<Response<Body>, UpstreamError>> + Send + 'a {
        let sending = Box::pin(exchange::send(&self.inner, request, choice, requester));
        async move {
            let result = sending.await;
            match &result {
                Ok(_) => self.health.record_answer(),
                Err(error) => {
                    error.count(&self.inner.counters);
                    self.health.record_failure(error);
                }
            }
            result
        }
    }
}

#[cfg(test)]
impl Upstream {
    /// Like [`Self::send_for`], for a requester that the test does not care about.
    async fn send(
        &self,
        choice: &ConnectionChoice,
        request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        self.send_for(choice, &Requester::default(), Box::new(request)).await
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("counters", &self.inner.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
