//! The client of the origin, which a reload replaces where `[upstream]` has changed.
//!
//! Invariant: what one origin has answered is never served for another. The key of an entry holds
//! the origin, except for the one that the process was started with: sidecars that share a Redis
//! may know it by different addresses.

use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::config::Config;
use crate::error::SetupError;
use crate::proxy::OriginClient;
use crate::upstream::{Upstream, UpstreamCounters, UpstreamLimits, UpstreamSettings};

/// The origin in force.
#[derive(Clone, Debug)]
pub(crate) struct CurrentOrigin {
    pub(crate) client: Arc<OriginClient>,
    settings: UpstreamSettings,
    identity: OriginIdentity,
    /// Its part of the key.
    pub(super) key: Option<[u8; 8]>,
}

/// What decides which app answers, and as whom it takes the sidecar.
type OriginIdentity = [u8; 8];

/// Makes the clients of origins.
#[derive(Debug)]
pub(crate) struct Origins {
    limits: UpstreamLimits,
    clock: Clock,
    counters: UpstreamCounters,
    started: CurrentOrigin,
    current: Mutex<CurrentOrigin>,
}

/// What a reload makes of the origin.
pub(super) struct NextOrigin {
    pub(super) origin: CurrentOrigin,
    /// The client that it replaces, if it does.
    pub(super) retired: Option<Arc<OriginClient>>,
    /// Whether another app answers now.
    pub(super) is_another: bool,
}

impl Origins {
    /// The origin of the file at startup.
    pub(crate) fn new(
        config: &Config,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Result<Self, SetupError> {
        let limits = UpstreamLimits { pinned: config.limits.pinned, stall: config.limits.stall };
        let settings = config.upstream.clone();
        let client = client(&settings, limits, &clock, &counters)?;
        let started = CurrentOrigin { client, identity: identity(config), settings, key: None };
        let current = Mutex::new(started.clone());
        Ok(Self { limits, clock, counters, started, current })
    }

    /// The origin in force.
    pub(crate) fn current(&self) -> CurrentOrigin {
        self.current.lock().clone()
    }

    /// The origin of a changed file. It is in force once [`Self::adopt`] has been called.
    pub(super) fn next(&self, config: &Config) -> Result<NextOrigin, SetupError> {
        let settings = UpstreamSettings {
            // Writes wait by these as well, in a queue that is made at startup.
            max_waiting: self.started.settings.max_waiting,
            wait_timeout: self.started.settings.wait_timeout,
            ..config.upstream.clone()
        };
        let (current, identity) = (self.current(), identity(config));
        let is_another = identity != current.identity;
        let (client, retired) = if settings == current.settings {
            (current.client, None)
        } else {
            let client = client(&settings, self.limits, &self.clock, &self.counters)?;
            (client, Some(current.client))
        };
        let key = (identity != self.started.identity).then_some(identity);
        let origin = CurrentOrigin { client, settings, identity, key };
        Ok(NextOrigin { origin, retired, is_another })
    }

    /// Puts an origin in force.
    pub(super) fn adopt(&self, origin: CurrentOrigin) {
        *self.current.lock() = origin;
    }
}

fn client(
    settings: &UpstreamSettings,
    limits: UpstreamLimits,
    clock: &Clock,
    counters: &UpstreamCounters,
) -> Result<Arc<OriginClient>, SetupError> {
    let upstream = Upstream::new(settings.clone(), limits, clock.clone(), counters.clone())
        .map_err(|error| SetupError {
            what: "the client of the origin".to_owned(),
            why: error.to_string(),
        })?;
    Ok(Arc::new(OriginClient::new(upstream, clock.clone())))
}

fn identity(config: &Config) -> OriginIdentity {
    let text = format!("{:?}", (&config.upstream.target, config.fill_constants()));
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    std::array::from_fn(|at| digest[at])
}
