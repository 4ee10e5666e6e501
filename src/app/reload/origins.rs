//! The clients of the origins, one for each app, which a reload replaces where `[upstream]` or an
//! app of `[[apps]]` has changed.
//!
//! Invariant: what one origin has answered is never served for another. The key of an entry holds
//! the name of the app, and its origin, except for the one that the app had first in this process:
//! sidecars that share a Redis may know it by different addresses.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::config::{Config, fill_constants};
use crate::error::SetupError;
use crate::policy::apps::{AppHosts, Apps};
use crate::proxy::{AppOrigins, OriginClient};
use crate::upstream::{Upstream, UpstreamCounters, UpstreamLimits, UpstreamSettings};

/// What decides which app answers, and as whom it takes the sidecar.
type OriginIdentity = [u8; 8];

/// The name of an app; none for that of `[upstream]`.
type AppName = Option<Arc<str>>;

/// The origin of one app.
#[derive(Clone, Debug)]
struct CurrentOrigin {
    name: AppName,
    client: Arc<OriginClient>,
    settings: UpstreamSettings,
    identity: OriginIdentity,
    /// Its part of the key.
    key: Option<OriginIdentity>,
}

/// The origins in force.
#[derive(Clone, Debug)]
pub(crate) struct CurrentOrigins {
    first: CurrentOrigin,
    /// Those of `[[apps]]`, by their places.
    listed: Vec<CurrentOrigin>,
    hosts: Arc<AppHosts>,
}

/// Which hosts were of which app, by one file.
#[derive(Clone, Debug)]
struct HostDivision {
    hosts: Arc<AppHosts>,
    /// By the places of the apps.
    names: Box<[AppName]>,
}

impl HostDivision {
    /// The name of the app of a host.
    fn name_of(&self, host: &str) -> Option<&str> {
        self.names.get(self.hosts.of(host).index())?.as_deref()
    }

    /// Whether it gives every host to the app that the other one gives it to.
    fn is_as(&self, other: &Self) -> bool {
        let mut hosts = self.hosts.samples().chain(other.hosts.samples());
        hosts.all(|host| self.name_of(&host) == other.name_of(&host))
    }

    /// Whether it gives a host back to an app that had it by one of `past`, of which the last one
    /// is in force: the app may have stored something under that host, and writes may have gone to
    /// another one since.
    fn gives_back(&self, past: &[Self]) -> bool {
        let Some(current) = past.last() else { return false };
        let samples = past.iter().flat_map(|one| one.hosts.samples());
        samples.chain(self.hosts.samples()).any(|host| {
            let now = self.name_of(&host);
            now != current.name_of(&host) && past.iter().any(|one| one.name_of(&host) == now)
        })
    }
}

/// How many former divisions of hosts are known. With more, every change counts as a return.
const MAX_DIVISIONS: usize = 64;

/// Makes the clients of origins.
#[derive(Debug)]
pub(crate) struct Origins {
    limits: UpstreamLimits,
    clock: Clock,
    counters: UpstreamCounters,
    /// By what all writes wait in a queue that is made at the start.
    started: UpstreamSettings,
    state: Mutex<OriginsState>,
}

#[derive(Debug)]
struct OriginsState {
    current: CurrentOrigins,
    /// The origin that each app had first.
    first: HashMap<AppName, OriginIdentity>,
    /// The divisions of hosts that were in force, and the one that is.
    past: Vec<HostDivision>,
}

/// What a reload makes of the origins.
pub(super) struct NextOrigins {
    pub(super) origins: CurrentOrigins,
    /// The clients that are in use no more.
    pub(super) retired: Vec<Arc<OriginClient>>,
    /// Whether another app answers now where one has answered before.
    pub(super) is_another: bool,
    /// Whether an app has a host again that it had before.
    pub(super) gives_back: bool,
}

impl CurrentOrigins {
    /// The clients.
    pub(crate) fn clients(&self) -> AppOrigins {
        let listed = self.listed.iter().map(|origin| Arc::clone(&origin.client));
        AppOrigins::new(Arc::clone(&self.first.client), listed.collect())
    }

    /// The apps of a file, with what stands in their keys for their origins.
    pub(crate) fn apps(&self, config: &Config) -> Apps {
        config.app_rules_with(|name| self.named(name).and_then(|origin| origin.key))
    }

    fn named(&self, name: Option<&str>) -> Option<&CurrentOrigin> {
        self.iter().find(|origin| origin.name.as_deref() == name)
    }

    /// All of them, that of `[upstream]` first.
    fn iter(&self) -> impl Iterator<Item = &CurrentOrigin> {
        std::iter::once(&self.first).chain(&self.listed)
    }

    /// The hosts and names of the apps.
    fn division(&self) -> HostDivision {
        let names = self.iter().map(|origin| origin.name.clone());
        HostDivision { hosts: Arc::clone(&self.hosts), names: names.collect() }
    }
}

impl Origins {
    /// The origins of the file at startup.
    pub(crate) fn new(
        config: &Config,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Result<Self, SetupError> {
        let limits = UpstreamLimits { pinned: config.limits.pinned, stall: config.limits.stall };
        let origin = |name, settings: &UpstreamSettings| -> Result<CurrentOrigin, SetupError> {
            let client = client(settings, limits, &clock, &counters)?;
            let (settings, identity) = (settings.clone(), identity(settings));
            Ok(CurrentOrigin { name, client, settings, identity, key: None })
        };
        let listed =
            config.apps.iter().map(|app| origin(Some(Arc::clone(&app.name)), &app.upstream));
        let current = CurrentOrigins {
            first: origin(None, &config.upstream)?,
            listed: listed.collect::<Result<_, _>>()?,
            hosts: Arc::clone(&config.app_hosts),
        };
        let first = current.iter().map(|origin| (origin.name.clone(), origin.identity)).collect();
        let past = vec![current.division()];
        let state = Mutex::new(OriginsState { current, first, past });
        Ok(Self { limits, clock, counters, started: config.upstream.clone(), state })
    }

    /// The origins in force.
    pub(crate) fn current(&self) -> CurrentOrigins {
        self.state.lock().current.clone()
    }

    /// The origins of a changed file. They are in force once [`Self::adopt`] has been called.
    pub(super) fn next(&self, config: &Config) -> Result<NextOrigins, SetupError> {
        let before = self.current();
        let listed = config.apps.iter().map(|app| {
            self.next_of(before.named(Some(&app.name)), Some(Arc::clone(&app.name)), &app.upstream)
        });
        let origins = CurrentOrigins {
            first: self.next_of(Some(&before.first), None, &config.upstream)?,
            listed: listed.collect::<Result<_, _>>()?,
            hosts: Arc::clone(&config.app_hosts),
        };
        let is_kept = |client: &Arc<OriginClient>| {
            origins.iter().any(|origin| Arc::ptr_eq(&origin.client, client))
        };
        let retired = before.iter().map(|origin| &origin.client);
        let retired = retired.filter(|client| !is_kept(client)).cloned().collect();
        let is_moved = |origin: &CurrentOrigin| {
            let known = before.named(origin.name.as_deref());
            known.is_some_and(|known| known.identity != origin.identity)
        };
        let is_another = origins.iter().any(is_moved);
        let division = origins.division();
        let state = self.state.lock();
        let is_forgotten = state.past.len() > MAX_DIVISIONS;
        let is_changed = state.past.last().is_none_or(|current| !division.is_as(current));
        let gives_back = is_changed && (is_forgotten || division.gives_back(&state.past));
        drop(state);
        Ok(NextOrigins { origins, retired, is_another, gives_back })
    }

    /// The origin of an app of a changed file; `known`: the one in force.
    fn next_of(
        &self,
        known: Option<&CurrentOrigin>,
        name: AppName,
        settings: &UpstreamSettings,
    ) -> Result<CurrentOrigin, SetupError> {
        let settings = UpstreamSettings {
            max_waiting: self.started.max_waiting,
            wait_timeout: self.started.wait_timeout,
            ..settings.clone()
        };
        let identity = identity(&settings);
        let client = match known.filter(|known| known.settings == settings) {
            Some(known) => Arc::clone(&known.client),
            None => client(&settings, self.limits, &self.clock, &self.counters)?,
        };
        let first = self.state.lock().first.get(&name).copied();
        let key = first.filter(|first| *first != identity).map(|_| identity);
        Ok(CurrentOrigin { name, client, settings, identity, key })
    }

    /// Puts origins in force.
    pub(super) fn adopt(&self, origins: CurrentOrigins) {
        let mut state = self.state.lock();
        for origin in origins.iter() {
            state.first.entry(origin.name.clone()).or_insert(origin.identity);
        }
        let division = origins.division();
        if state.past.last().is_none_or(|current| !division.is_as(current)) {
            if state.past.len() > MAX_DIVISIONS {
                state.past.pop();
            }
            state.past.push(division);
        }
        state.current = origins;
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
            what: format!("the client of the origin {}", settings.target),
            why: error.to_string(),
        })?;
    Ok(Arc::new(OriginClient::new(upstream, clock.clone())))
}

fn identity(settings: &UpstreamSettings) -> OriginIdentity {
    let text = format!("{:?}", (&settings.target, fill_constants(settings)));
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    std::array::from_fn(|at| digest[at])
}
