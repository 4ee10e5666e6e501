//! The metrics of signed session cookies.

use std::sync::Arc;

use crate::policy::session::session_verifications;
use crate::telemetry::metrics::Metrics;

/// Registers what came of session cookies.
pub(super) fn register(metrics: &Metrics) {
    for (format, result, counter) in session_verifications() {
        metrics.register_counter(
            "sidecache_session_cookies",
            "Signed session cookies of requests on routes whose fields read them, by what came of \
             them: `verified` by their signature, `remembered` from before, or why they give no \
             value",
            &[("format", format.as_str().to_owned()), ("result", result.label())],
            Arc::clone(counter),
        );
    }
}
