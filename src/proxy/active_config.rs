//! What a reload replaces: the rules, and the bounds and habits of the flow that can change while
//! it runs.
//!
//! Invariants:
//! - A request is planned, answered and counted by one [`ActiveConfig`], whatever is put in its
//!   place meanwhile.
//! - What it stores, it stores under the policy that it was planned by: the route's fingerprint is
//!   in the key, so no other policy finds it.
//! - A mutation that ends under other rules than it began under purges by both: see `purge.rs`.

use std::sync::Arc;

use crate::policy::plan::PolicyRules;
use crate::proxy::{Proxy, ProxySettings};
use crate::telemetry::metrics::RouteTable;

/// The rules and settings in force.
#[derive(Debug)]
pub struct ActiveConfig {
    /// The rules of `proxy.toml`.
    pub rules: Arc<PolicyRules>,
    /// Bounds and habits.
    pub settings: ProxySettings,
    /// Where the routes of these rules are counted. A row goes on counting under other rules that
    /// have a route of its name.
    pub table: Arc<RouteTable>,
}

impl Proxy {
    /// What is in force now. Each request asks once.
    #[must_use]
    pub fn active_config(&self) -> Arc<ActiveConfig> {
        self.config.load_full()
    }

    /// Puts other rules in force, at once and as a whole. Requests under way go on by those they
    /// began with.
    pub fn activate(&self, live: ActiveConfig) {
        self.config.store(Arc::new(live));
    }
}
