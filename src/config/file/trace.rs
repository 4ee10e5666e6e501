//! `[trace]`, as people write it.

use crate::config::decode::{Count, Fraction, TomlString, table};

table! {
    /// Spans of requests, for an OpenTelemetry collector.
    TraceSection("[trace]", "[trace]") {
        /// Where a collector takes spans by OTLP over HTTP: `http://`, host and port. `/v1/traces`
        /// is added. Without it nothing is traced.
        #[schemars(extend("examples" = ["http://127.0.0.1:4318"]))]
        endpoint: TomlString,
        /// The share of requests without a `traceparent`, 0 to 1, that get a span. A request with
        /// one gets a span if its caller has (the flag `sampled`).
        #[schemars(extend("examples" = [0.01]))]
        sample: Fraction = 0.01,
        /// How many spans a second peers outside `trusted_proxies` may ask for by the flag
        /// `sampled`. Above it, `sample` counts for them.
        strangers: Count = 10,
        /// How many spans may wait for the collector. Others are dropped; requests never wait.
        #[schemars(extend("minimum" = 1))]
        queue: Count = 2048,
    }
}
