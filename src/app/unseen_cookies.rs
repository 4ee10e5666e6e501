//! Says once an hour which cookies of `[credential]` no request has carried.

use std::sync::Arc;
use std::time::Duration;

use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;

/// How often it is said.
const INTERVAL: Duration = Duration::from_hours(1);

/// Warns of the cookies once an hour, until the sidecar stops.
pub(super) async fn warn(proxy: Arc<Proxy>) {
    while proxy.stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let config = proxy.active_config();
        let (cookies, requests) = (config.cookie_use.unseen(), config.cookie_use.requests());
        if !cookies.is_empty() {
            tracing::warn!(
                cookies = cookies.join(", "),
                requests,
                "no request has carried these cookies of [credential]; check their names, or \
                 remove them"
            );
        }
    }
}

/// Registers how many there are.
pub(super) fn register(proxy: &Arc<Proxy>, metrics: &Metrics) {
    let proxy = Arc::downgrade(proxy);
    metrics.register_gauge(
        "sidecache_credential_cookies_unseen",
        "Cookies of `[credential]` that no request has carried, once 100 requests had cookies",
        &[],
        move || {
            let unseen =
                proxy.upgrade().map(|proxy| proxy.active_config().cookie_use.unseen().len());
            super::metrics_registrar::as_f64(unseen.unwrap_or_default())
        },
    );
}
