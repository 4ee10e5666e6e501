//! The settings of a sidecar that a reload leaves as they are, and the rules in force with them.

use std::sync::Arc;
use std::time::Duration;

use super::origins::CurrentOrigins;
use crate::app::identities::IdentityKeeper;
use crate::app::tokens::TokenKeeper;
use crate::config::Config;
use crate::policy::client_address::ClientAddressRule;
use crate::policy::graphql::KnownDocuments;
use crate::policy::known_callers::KnownCallers;
use crate::policy::plan::PolicyRules;
use crate::policy::rolling_cookies::RollingCookies;
use crate::policy::varying_keys::VaryingKeys;
use crate::proxy::{self, ActiveConfig, CookieUse, IdentityProbes};
use crate::secret::Hasher;
use crate::semantics::forward::Upgrades;
use crate::server::TrustedProxies;
use crate::telemetry::metrics::Metrics;

/// How much longer than the origin's first-byte timeout a mutation stays marked.
const MARK_MARGIN: Duration = Duration::from_secs(5);

/// The settings that only a restart changes, and what the server shares with reloads.
#[derive(Clone, Debug)]
pub struct StartupSettings {
    object: u64,
    pub(super) waiters: usize,
    pub(super) wait: Duration,
    half_closed: Duration,
    hasher: Hasher,
    /// The list that new connections are judged by.
    pub(super) trusted_proxies: TrustedProxies,
    tokens: TokenKeeper,
    /// What is known of documents stays known, whatever the rules.
    documents: Arc<KnownDocuments>,
    identities: IdentityKeeper,
}

impl StartupSettings {
    /// The settings of the file at startup.
    #[must_use]
    pub(crate) fn from_config(
        config: &Config,
        hasher: Hasher,
        tokens: TokenKeeper,
        metrics: &Metrics,
    ) -> Self {
        let identities = IdentityKeeper::default();
        identities.register(metrics);
        let limits = &config.limits;
        Self {
            object: limits.object,
            waiters: limits.waiters,
            wait: limits.wait,
            half_closed: config.server.half_closed,
            hasher,
            trusted_proxies: config.server.trusted_proxies.clone(),
            tokens,
            documents: Arc::default(),
            identities,
        }
    }

    /// The rules and settings of a file, with the fixed settings. Takes the routes out of the
    /// config.
    pub(crate) fn active_config(
        &self,
        config: &mut Config,
        metrics: &Metrics,
        origins: &CurrentOrigins,
    ) -> ActiveConfig {
        let limits = &config.limits;
        let settings = proxy::ProxySettings {
            max_tags: limits.tags,
            keep_stale: limits.stale,
            max_ranges: limits.ranges,
            // A response above the object limit could not be stored.
            range_fill: limits.range_fill.min(self.object),
            range_factor: limits.range_factor,
            purge_body: limits.purge_body,
            tag_body: limits.tag_body,
            upload_time: limits.upload_time,
            gather: limits.gather,
            mark_for: config.upstream.first_byte_timeout + MARK_MARGIN,
            tunnel_timeout: config.upstream.tunnel_timeout,
            half_closed: self.half_closed,
            debug: config.debug,
            surrogates: config.notify.iter().filter_map(|one| one.header.clone()).collect(),
            access_log: config.log.access,
        };
        let tokens = self.tokens.verifier(config);
        let identities = self.identities.table(config);
        let identity_probes = identities.as_ref().map(IdentityProbes::new);
        let (routes, purges) =
            (std::mem::take(&mut config.routes), std::mem::take(&mut config.purges));
        let trusted = config.server.trusted_proxies.networks();
        let rules = PolicyRules {
            client_address: ClientAddressRule::new(&routes, &purges, &trusted),
            routes,
            purges,
            credential: Arc::clone(&config.credential),
            hasher: self.hasher.clone(),
            max_read_body: limits.read_body,
            max_key: usize::try_from(limits.key).unwrap_or(usize::MAX),
            upgrades: Upgrades::new(config.upstream.upgrades.iter().cloned()),
            apps: origins.apps(config),
            documents: Arc::clone(&self.documents),
            tokens,
            identities,
            purge_requests: config.purge_requests.clone(),
            webhooks: config.webhook_paths(),
        };
        let table = metrics.table(rules.routes.iter().map(|route| route.name().to_owned()));
        let cookie_use = CookieUse::new(&rules.credential);
        let varying_keys = VaryingKeys::new(rules.routes.len());
        let known_callers = known_callers(&rules);
        ActiveConfig {
            rules: Arc::new(rules),
            origins: origins.clients(),
            trust_version: 0,
            settings,
            table,
            cookie_use,
            varying_keys,
            rolling_cookies: RollingCookies::default(),
            known_callers,
            identity_probes,
        }
    }
}

/// The callers to remember, where the operator names logins: for the longest time that a route
/// authorizes a caller for.
fn known_callers(rules: &PolicyRules) -> Option<KnownCallers> {
    let longest = rules.routes.iter().map(|route| route.spec.admit_for).max();
    let remember_for = longest.unwrap_or(Duration::from_mins(1));
    rules.credential.names_logins.then(|| KnownCallers::new(remember_for))
}
