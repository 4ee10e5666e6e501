//! What a reload replaces: the rules, and the bounds and habits of the flow that can change while it runs.
//!
//! Invariants:
//! - A request is planned, answered and counted by one [`Live`], whatever is put in its place meanwhile.
//! - What it stores, it stores under the policy that it was planned by: the route's fingerprint is in the key, so no other policy finds it.
//! - A mutation that ends under other rules than it began under purges by both: see `purge.rs`.

use std::sync::Arc;

use crate::policy::plan::Rules;
use crate::proxy::{Proxy, Settings};
use crate::telemetry::metrics::RouteTable;

/// The rules and settings in force.
#[derive(Debug)]
pub struct Live {
    /// The rules of `proxy.toml`.
    pub rules: Arc<Rules>,
    /// Bounds and habits.
    pub settings: Settings,
    /// Where the routes of these rules are counted. A row goes on counting under other rules that have a route of its name.
    pub table: Arc<RouteTable>,
}

impl Proxy {
    /// What is in force now. Each request asks once.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts other rules in force, at once and as a whole. Requests under way go on by those they began with.
    pub fn put_in_force(&self, live: Live) {
        self.live.store(Arc::new(live));
    }
}
