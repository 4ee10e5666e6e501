//! The rules of a file, for commands that need no running sidecar.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::policy::client_address::ClientAddressRule;
use crate::policy::jwt::{KeyStore, TokenCounters, TokenVerifier, WantKeys};
use crate::policy::plan::PolicyRules;
use crate::secret::Hasher;
use crate::semantics::forward::Upgrades;

/// The rules of a file, without starting any part of the sidecar.
pub(super) fn rules_from(config: Config) -> PolicyRules {
    let secret = config.redis.as_ref().and_then(|redis| redis.secret.as_ref());
    let apps = config.app_rules();
    let trusted = config.server.trusted_proxies.networks();
    let tokens = verifier(&config);
    PolicyRules {
        webhooks: config.webhook_paths(),
        apps,
        client_address: ClientAddressRule::new(&config.routes, &config.purges, &trusted),
        hasher: secret
            .map_or_else(Hasher::default, |secret| Hasher::new(secret.expose().as_bytes())),
        routes: config.routes,
        purges: config.purges,
        credential: Arc::clone(&config.credential),
        upgrades: Upgrades::new(config.upstream.upgrades),
        documents: Arc::default(),
        tokens,
        identities: None,
        purge_requests: config.purge_requests,
        max_read_body: config.limits.read_body,
        max_key: usize::try_from(config.limits.key).unwrap_or(usize::MAX),
    }
}

/// What verifies tokens by the keys that are in files. Nothing is fetched.
fn verifier(config: &Config) -> Option<Arc<TokenVerifier>> {
    let jwt = config.jwt.as_ref()?;
    let want = jwt.source.as_ref().map(|_| -> WantKeys { Box::new(|| {}) });
    let keys = Arc::new(KeyStore::new(jwt.fixed.clone(), want));
    let (rules, pointers) = (jwt.rules.clone(), config.claim_pointers());
    let (counters, clock) = (TokenCounters::default(), Clock::system());
    Some(Arc::new(TokenVerifier::new(rules, pointers, keys, counters, clock)))
}
