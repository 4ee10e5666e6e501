//! What a reload replaces: the rules, and the limits and switches of the flow.
//!
//! Invariants:
//! - A request is planned, answered and counted by one [`ActiveConfig`], even if a reload replaces
//!   it meanwhile. Only the entry of the flow holds the [`LiveConfig`]; every step gets the
//!   `ActiveConfig` of its request.
//! - A response is stored under the policy by which its request was planned. The key holds the
//!   route's fingerprint, so requests under another policy do not find it.
//! - A mutation that ends under other rules than it began under purges by both. It is the only step
//!   that gets the `LiveConfig`: see `proxy/mutation.rs`.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::known_callers::KnownCallers;
use crate::policy::plan::PolicyRules;
use crate::policy::rolling_cookies::RollingCookies;
use crate::policy::varying_keys::VaryingKeys;
use crate::proxy::cookie_use::CookieUse;
use crate::proxy::identity_probes::IdentityProbes;
use crate::proxy::origin::AppOrigins;
use crate::proxy::settings::ProxySettings;
use crate::telemetry::metrics::RouteTable;

/// The rules and settings of one `proxy.toml`.
#[derive(Debug)]
pub struct ActiveConfig {
    /// The rules.
    pub rules: Arc<PolicyRules>,
    /// The client of the origin of each app. A request goes to the origin of its own configuration,
    /// and the connections to a former one end with the last of its requests.
    pub(crate) origins: AppOrigins,
    /// Which list of trusted proxies holds: a connection that began under another one is judged
    /// anew.
    pub trust_version: u64,
    /// The limits and switches of the flow.
    pub settings: ProxySettings,
    /// Where the routes of these rules are counted, by their index. A row goes on counting under
    /// other rules that have a route of the same name.
    pub table: Arc<RouteTable>,
    /// Which cookies of `[credential]` requests have carried.
    pub cookie_use: CookieUse,
    /// Which parts of keys differ each time.
    pub varying_keys: VaryingKeys,
    /// Which cookies the origin replaces each time.
    pub rolling_cookies: RollingCookies,
    /// The callers that the origin has lately accepted; none where no write depends on it.
    pub known_callers: Option<KnownCallers>,
    /// Questions to the origin who a caller is; none where no field needs an answer.
    pub(crate) identity_probes: Option<IdentityProbes>,
}

/// The configuration in force, which a reload replaces.
#[derive(Debug)]
pub(crate) struct LiveConfig(ArcSwap<ActiveConfig>);

impl LiveConfig {
    pub(super) fn new(config: ActiveConfig) -> Self {
        Self(ArcSwap::from_pointee(config))
    }

    pub(super) fn load(&self) -> Arc<ActiveConfig> {
        self.0.load_full()
    }

    pub(super) fn replace(&self, config: ActiveConfig) {
        self.0.store(Arc::new(config));
    }
}
