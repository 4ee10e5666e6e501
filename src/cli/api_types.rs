//! What the admin API answers, as far as the commands show it.
//!
//! Read with patience: what is missing has a default and what is unknown is passed over, so that a command and a sidecar of different
//! versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::policy::explain::Line;

/// A null counts as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        #[allow(clippy::struct_field_names, reason = "the names are the API's")]
        pub(super) struct $name { $(#[serde(deserialize_with = "or_default")] pub(super) $field: $kind,)+ }
    )+ };
}

answers! {
    /// `GET /stats`.
    Stats {
        version: String,
        now_ms: u64,
        uptime_s: f64,
        mode: String,
        totals: Totals,
        routes: Vec<Route>,
        unrouted: Route,
        tags: Vec<Tag>,
        memory: Memory,
        redis: Option<Redis>,
        ready: Ready,
        config: Config,
        shadow: Shadow,
    }
    Totals {
        requests: BTreeMap<String, u64>,
        hit_ratio: Option<f64>,
        app_requests: u64,
        app_requests_saved: u64,
        time_saved_s: f64,
        bytes_from_cache: u64,
        bytes_from_app: u64,
        latency: Latency,
    }
    Route {
        path: String,
        line: Option<u64>,
        mode: String,
        requests: BTreeMap<String, u64>,
        hit_ratio: Option<f64>,
        app_requests_saved: u64,
        bytes_from_cache: u64,
        bytes_from_app: u64,
        latency: Latency,
        reasons: Vec<Reason>,
    }
    Reason {
        disposition: String,
        reason: String,
        subject: Option<String>,
        count: u64,
        remedy: Option<String>,
        why: Option<String>,
    }
    Latency { hit: Option<Times>, app: Option<Times>, }
    Times { p50_ms: f64, }
    Tag { tag: String, stored: u64, hits: u64, purged: u64, }
    Memory { entries: u64, bytes: u64, limit_bytes: u64, evictions: u64, }
    Redis { state: String, lease: bool, peers: u64, journal: u64, why: Option<String>, }
    /// `GET /ready`.
    Ready { status: String, reasons: Vec<String>, }
    Config { file: String, loaded_ms: u64, loads: u64, error: Option<String>, restart_needed: Vec<String>, }
    Shadow { findings: u64, audited: u64, audited_stale: u64, }

    /// `POST /purge`.
    Purged { tags: Vec<String>, everything: bool, soft: bool, took_ms: f64, }

    /// `POST /explain`.
    Live { request: String, lines: Vec<Line>, stored: Option<Stored>, }
    Stored {
        tier: String,
        status: u16,
        bytes: u64,
        age_s: Option<f64>,
        ttl_s: Option<f64>,
        tags: Vec<EntryTag>,
        verdict: String,
        reason: Option<String>,
    }
    EntryTag { tag: String, current: bool, }

    /// `POST /reload` and `POST /check`.
    Reload {
        ok: bool,
        changes: Vec<Change>,
        restart_needed: Vec<String>,
        problems: Vec<Problem>,
        text: String,
    }
    Change { what: String, change: String, keys: Vec<KeyChange>, effect: Option<String>, }
    KeyChange { key: String, from: Option<String>, to: Option<String>, }
    Problem { severity: String, line: u64, column: u64, message: String, hint: Option<String>, }

    /// `GET /shadow`.
    ShadowReport { routes: Vec<ShadowRoute>, advice: Vec<Advice>, }
    ShadowRoute { route: String, mode: String, requests: u64, hit_rate: Option<f64>, stale: Finding, scope: Finding, audit: Audit, }
    Finding { count: u64, unexplained: u64, }
    Audit { asked: u64, stale: u64, }
    Advice { route: String, why: String, toml: String, line: Option<u64>, }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_understood() {
        let stats: Stats =
            serde_json::from_str(r#"{"version":"9","new":{"a":1},"totals":{"hit_ratio":null},"redis":null,"tags":null}"#).unwrap();
        assert_eq!((stats.version.as_str(), stats.totals.hit_ratio, stats.redis.is_none(), stats.tags.len()), ("9", None, true, 0));
    }
}
