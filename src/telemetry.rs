//! What operators see: the log, live events, the busiest tags, and metrics.

pub mod events;
pub mod hot_tags;
pub mod log;
pub mod metrics;
