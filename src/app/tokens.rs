//! Keeps what verifies tokens, over reloads, and fetches the keys of `[jwt]` in the background.
//!
//! Invariants:
//! - One task fetches, for the `[jwt]` in force. It ends when a reload changes where keys come
//!   from.
//! - Keys that were fetched outlive reloads that do not change where they come from, and the tokens
//!   that are remembered outlive those that change nothing of `[jwt]`.
//! - Keys that cannot be fetched again hold for `keep_keys`. After that nothing is verified by them
//!   (fail closed): requests pass, with a reason of their own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::metrics_registrar::{MetricsRegistrar, as_f64};
use crate::clock::{Clock, Wall};
use crate::config::Config;
use crate::config::JwtSettings;
use crate::policy::jwt::{
    Algorithm, KeyStore, MAX_JWKS_BYTES, TokenCounters, TokenFault, TokenVerifier, WantKeys,
    parse_jwks,
};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{JwksClient, UrlSource};

/// The least time between the beginnings of two fetches, however many tokens name unknown keys.
const FETCH_INTERVAL: Duration = Duration::from_secs(5);

/// The pause after a fetch that failed: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What verifies tokens, and what its keys come from. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TokenKeeper {
    clock: Clock,
    counters: TokenCounters,
    current: Arc<Mutex<Option<ActiveVerifier>>>,
}

#[derive(Debug)]
struct ActiveVerifier {
    origin: KeyOrigin,
    verifier: Arc<TokenVerifier>,
    /// Ends the task that fetches.
    fetching: Option<DropGuard>,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq)]
struct KeyOrigin {
    /// The names of the keys of files.
    fixed: Vec<[u8; 16]>,
    source: Option<UrlSource>,
    algorithms: Box<[Algorithm]>,
    times: (Duration, Duration),
}

impl KeyOrigin {
    fn new(settings: &JwtSettings) -> Self {
        Self {
            fixed: settings.fixed.iter().map(|key| key.print).collect(),
            source: settings.source.clone(),
            algorithms: settings.rules.algorithms.clone(),
            times: (settings.refresh, settings.keep),
        }
    }
}

impl TokenKeeper {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, counters: TokenCounters::default(), current: Arc::default() }
    }

    /// What verifies tokens by this file, if it has a `[jwt]`. Needs a tokio runtime.
    pub(super) fn verifier(&self, config: &Config) -> Option<Arc<TokenVerifier>> {
        let mut current = self.current.lock();
        let Some(settings) = &config.jwt else {
            *current = None;
            return None;
        };
        let (origin, pointers) = (KeyOrigin::new(settings), config.claim_pointers());
        let kept = current.take();
        let (keys, fetching) = match kept {
            Some(kept) if kept.origin == origin => {
                let keys = Arc::clone(kept.verifier.keys());
                if kept.verifier.is_like(&settings.rules, &pointers, &keys) {
                    let verifier = Arc::clone(&kept.verifier);
                    *current = Some(kept);
                    return Some(verifier);
                }
                (keys, kept.fetching)
            }
            _ => {
                let wanted = Arc::<Notify>::default();
                let want = settings.source.as_ref().map(|_| -> WantKeys {
                    let wanted = Arc::clone(&wanted);
                    Box::new(move || wanted.notify_one())
                });
                let keys = Arc::new(KeyStore::new(settings.fixed.clone(), want));
                let fetching = settings.source.clone().map(|source| {
                    let stop = CancellationToken::new();
                    let fetcher = Fetcher {
                        keys: Arc::clone(&keys),
                        wanted,
                        algorithms: origin.algorithms.clone(),
                        refresh: settings.refresh,
                        keep: settings.keep,
                        counters: self.counters.clone(),
                        clock: self.clock.clone(),
                    };
                    tokio::spawn(fetcher.run(source, stop.clone()));
                    stop.drop_guard()
                });
                (keys, fetching)
            }
        };
        let (counters, clock) = (self.counters.clone(), self.clock.clone());
        let rules = settings.rules.clone();
        let verifier = Arc::new(TokenVerifier::new(rules, pointers, keys, counters, clock));
        *current = Some(ActiveVerifier { origin, verifier: Arc::clone(&verifier), fetching });
        Some(verifier)
    }

    /// Registers the metrics of tokens.
    pub(super) fn register(&self, metrics: &Metrics) {
        let counters = &self.counters;
        let faults = TokenFault::ALL.iter().map(|fault| fault.label()).zip(&counters.faults);
        let verified = ("verified".to_owned(), &counters.verified);
        for (result, counter) in faults.chain([verified]) {
            metrics.register_counter(
                "sidecache_jwt_verifications",
                "Tokens (JWT) that were looked at, by what came of it; not those that are \
                 remembered",
                &[("result", result)],
                Arc::clone(counter),
            );
        }
        for (result, counter) in [("ok", &counters.fetched), ("failed", &counters.fetch_failed)] {
            metrics.register_counter(
                "sidecache_jwt_key_fetches",
                "Fetches of the keys of tokens from `jwks_url`",
                &[("result", result.to_owned())],
                Arc::clone(counter),
            );
        }
        let registrar = MetricsRegistrar(metrics);
        registrar.limit("jwt.tokens", &counters.evicted);
        registrar.limit("jwt.fetch_interval", &counters.fetch_delayed);
        self.gauge(metrics, "sidecache_jwt_keys", "Keys of tokens that hold", |kept, now| {
            as_f64(kept.keys().status(now).keys)
        });
        self.gauge(
            metrics,
            "sidecache_jwt_tokens",
            "Verified tokens that are remembered",
            |kept, _| as_f64(kept.remembered()),
        );
        self.gauge(
            metrics,
            "sidecache_jwt_keys_age_seconds",
            "How long ago the keys of tokens were fetched; 0 where none are",
            |kept, now| kept.keys().status(now).age.unwrap_or_default().as_secs_f64(),
        );
    }

    fn gauge(
        &self,
        metrics: &Metrics,
        name: &'static str,
        help: &'static str,
        read: impl Fn(&TokenVerifier, Wall) -> f64 + Send + Sync + 'static,
    ) {
        let keeper = self.clone();
        metrics.register_gauge(name, help, &[], move || {
            let current = keeper.current.lock();
            current.as_ref().map_or(0.0, |kept| read(&kept.verifier, keeper.clock.wall()))
        });
    }
}

/// Fetches keys, again and again.
struct Fetcher {
    keys: Arc<KeyStore>,
    /// Told when a token names an unknown key.
    wanted: Arc<Notify>,
    algorithms: Box<[Algorithm]>,
    refresh: Duration,
    keep: Duration,
    counters: TokenCounters,
    clock: Clock,
}

impl Fetcher {
    async fn run(self, source: UrlSource, stop: CancellationToken) {
        let client = match JwksClient::new(source, MAX_JWKS_BYTES, self.clock.clone()) {
            Ok(client) => client,
            Err(error) => {
                self.failed(&error.to_string());
                return;
            }
        };
        let _ = stop.run_until_cancelled(self.fetch_for_ever(&client)).await;
    }

    async fn fetch_for_ever(&self, client: &JwksClient) {
        let mut retry = RETRY.0;
        loop {
            let pause = if self.fetch(client).await {
                retry = RETRY.0;
                // So that many sidecars do not come at once.
                self.refresh.mul_f64(rand::thread_rng().gen_range(0.9..=1.0))
            } else {
                let pause = retry.min(self.refresh);
                retry = (retry * 2).min(RETRY.1);
                pause
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted() => {}
            }
        }
    }

    /// Waits until a token names an unknown key, but not so that fetches follow each other closely.
    async fn wanted(&self) {
        let pause = tokio::time::sleep(FETCH_INTERVAL);
        tokio::pin!(pause);
        tokio::select! {
            () = &mut pause => self.wanted.notified().await,
            () = self.wanted.notified() => {
                self.counters.fetch_delayed.inc();
                pause.await;
            }
        }
    }

    /// Fetches once, and says whether that gave keys.
    async fn fetch(&self, client: &JwksClient) -> bool {
        let fetched = match client.fetch().await {
            Ok(text) => parse_jwks(&text, &self.algorithms).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match fetched {
            Ok(keys) => {
                let (count, now) = (keys.len(), self.clock.wall());
                let failed_before = self.keys.status(now).error.is_some();
                self.keys.replace(keys, now, self.keep);
                self.counters.fetched.inc();
                if failed_before {
                    tracing::info!(keys = count, "the keys of tokens can be fetched again");
                }
                true
            }
            Err(why) => {
                self.failed(&why);
                false
            }
        }
    }

    fn failed(&self, why: &str) {
        self.counters.fetch_failed.inc();
        if self.keys.record_failure(why) {
            tracing::warn!(
                why,
                "the keys of tokens cannot be fetched: those of before hold for `keep_keys`, and \
                 without keys requests with a token pass. Check `jwks_url` in [jwt]"
            );
        } else {
            tracing::debug!(why, "the keys of tokens cannot be fetched");
        }
    }
}
