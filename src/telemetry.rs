//! What operators see: the log, live events, the live tail of requests, the busiest tags, metrics,
//! their history, and spans.

pub mod events;
pub mod history;
pub mod hot_tags;
pub mod log;
pub mod metrics;
pub mod tail;
#[cfg_attr(
    not(feature = "otel"),
    allow(dead_code, reason = "without the exporter nothing begins a span")
)]
pub mod trace;
pub mod version;
