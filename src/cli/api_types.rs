//! The responses of the admin API, as far as the commands show them.
//!
//! Missing members have a default and unknown ones are ignored, so that a command works with a
//! sidecar of another version.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::policy::explain::ExplainLine;

/// Deserializes null as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! api_types {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        #[allow(clippy::struct_field_names, reason = "the names are the API's")]
        pub(super) struct $name {
            $(#[serde(deserialize_with = "or_default")] pub(super) $field: $kind,)+
        }
    )+ };
}

api_types! {
    /// `GET /uncached`, and its sums in `GET /stats`.
    ApiUncached {
        requests: u64,
        observed: Option<u64>,
        app_s: f64,
        paths: Vec<ApiUncachedPath>,
    }
    ApiUncachedPath {
        path: String,
        requests: u64,
        observed: Option<u64>,
        app_s: f64,
        hit_share: Option<f64>,
        saved_s: Option<f64>,
        why_not: Option<String>,
        suggestion: Option<ApiUncachedRoute>,
    }
    ApiUncachedRoute {
        toml: String,
        does: String,
        risks: String,
    }
    /// A source, in `GET /stats`.
    ApiSource {
        name: String,
        kind: String,
        state: String,
        why: Option<String>,
        events: u64,
        purged_tags: u64,
        gaps: u64,
        bad_payloads: u64,
        refused: u64,
    }
    /// A receiver of purges, in `GET /stats`.
    ApiNotify {
        name: String,
        kind: String,
        waiting: u64,
        why: Option<String>,
        sent: u64,
        tags: u64,
    }
    /// `GET /learned`.
    ApiLearned {
        routes: u64,
        settings: Option<String>,
        requests: u64,
        one_page_in: u64,
        local_proxy: bool,
        span_s: u64,
        rules: Vec<ApiLearnedRule>,
        left_out: Vec<ApiLeftOut>,
    }
    ApiLearnedRule {
        path: String,
        ttl_s: u64,
        scope: String,
        credential_headers: Vec<String>,
        key_headers: Vec<String>,
        drop_headers: Vec<String>,
        jwt_callers: bool,
        session: Option<ApiSessionCookie>,
        claim: Option<ApiClaim>,
        tag: String,
        purged_tags: Vec<String>,
        purges: Vec<String>,
        kept_out: Vec<String>,
        parameters: Vec<String>,
        without_parameters: Vec<String>,
        overrules: bool,
        requests: u64,
        hits: u64,
        stale: u64,
        unchecked: u64,
        oldest_s: u64,
        changes: u64,
        changes_by_group: u64,
        callers: u64,
        anonymous: u64,
        same_for_others: u64,
    }
    ApiClaim {
        name: String,
        algorithms: Vec<String>,
        issuers: Vec<String>,
        audiences: Vec<String>,
    }
    ApiSessionCookie { cookie: String, format: String, kept_for_s: Option<u64>, is_optional: bool, }
    ApiLeftOut { path: String, requests: u64, why: String, }
    /// `GET /stats`.
    ApiStats {
        version: String,
        commit: Option<String>,
        started_ms: u64,
        now_ms: u64,
        uptime_s: f64,
        mode: String,
        switches: Vec<ApiSwitch>,
        totals: ApiTotals,
        routes: Vec<ApiRoute>,
        unrouted: ApiRoute,
        tags: Vec<ApiTag>,
        memory: ApiMemory,
        redis: Option<ApiRedis>,
        sources: Vec<ApiSource>,
        notify: Vec<ApiNotify>,
        app: ApiApp,
        apps: Vec<ApiApp>,
        ready: ApiReady,
        config: ApiConfig,
        shadow: ApiShadow,
        uncached: ApiUncached,
        cookies: ApiCookies,
        compress: ApiCompress,
    }
    /// What `[compress]` has done, and what it could do.
    ApiCompress { bodies: u64, original_bytes: u64, coded_bytes: u64, missed_bytes: u64, }
    ApiTotals {
        requests: BTreeMap<String, u64>,
        hit_ratio: Option<f64>,
        hit_ratio_all: Option<f64>,
        app_requests: u64,
        app_requests_saved: u64,
        time_saved_s: f64,
        bytes_from_cache: u64,
        bytes_from_app: u64,
        bytes_from_sidecar: u64,
        latency: ApiLatency,
    }
    ApiRoute {
        path: String,
        line: Option<u64>,
        file: Option<String>,
        mode: String,
        ttl_s: Option<f64>,
        freshness: ApiFreshness,
        requests: BTreeMap<String, u64>,
        hit_ratio: Option<f64>,
        hit_ratio_all: Option<f64>,
        app_requests_saved: u64,
        time_saved_s: f64,
        bytes_from_cache: u64,
        bytes_from_app: u64,
        latency: ApiLatency,
        reasons: Vec<ApiReason>,
        learned_headers: Vec<String>,
    }
    ApiFreshness { last_s: Option<f64>, last_from: String, decided_by: String, }
    ApiReason {
        disposition: String,
        reason: String,
        subject: Option<String>,
        count: u64,
        remedy: Option<String>,
        why: Option<String>,
        does: Option<String>,
        risks: Option<String>,
    }
    ApiLatency { hit: Option<ApiTimes>, app: Option<ApiTimes>, }
    ApiTimes { p50_ms: f64, p95_ms: f64, }
    ApiTag { tag: String, stored: u64, hits: u64, purged: u64, }
    ApiMemory { entries: u64, bytes: u64, limit_bytes: u64, evictions: u64, }
    ApiRedis { state: String, lease: bool, peers: u64, journal: u64, why: Option<String>, }
    ApiApp {
        name: String,
        why: Option<String>,
        advice: Option<String>,
        since_ms: Option<u64>,
        failures: u64,
    }
    /// `GET /ready`.
    ApiReady { status: String, reasons: Vec<String>, }
    ApiConfig {
        file: String,
        loaded_ms: u64,
        loads: u64,
        error: Option<String>,
        restart_needed: Vec<String>,
    }
    ApiCookies { requests: u64, unseen: Vec<String>, }
    ApiShadow {
        findings: u64,
        audited: u64,
        audited_stale: u64,
        languages: ApiLanguageRoutes,
    }
    ApiLanguageRoutes { never: u64, differs: u64, }

    /// An event `request` of `GET /tail`.
    ApiTailLine {
        at_ms: u64,
        method: String,
        path: String,
        route: String,
        status: u16,
        disposition: String,
        reason: Option<String>,
        subject: Option<String>,
        tier: Option<String>,
        duration_ms: f64,
        bytes: Option<u64>,
    }
    /// An event `missed` of `GET /tail`.
    ApiTailMissed { more: u64, lost: u64, }
    /// `GET /peers`.
    ApiPeers {
        why: Option<String>,
        sidecars: Vec<ApiPeer>,
        silent: u64,
        unreadable: u64,
        notes: Vec<String>,
    }
    ApiPeer {
        name: String,
        this: bool,
        age_s: f64,
        silent: bool,
        differs: Vec<String>,
        version: String,
        uptime_s: f64,
        mode: String,
        status: String,
        reasons: Vec<String>,
        requests: BTreeMap<String, u64>,
        per_second: f64,
        hit_ratio: Option<f64>,
        latency: ApiLatency,
        bytes_from_cache: u64,
        memory: ApiMemory,
    }

    /// `POST /purge`.
    ApiPurged {
        tags: Vec<String>,
        everything: bool,
        soft: bool,
        took_ms: f64,
        pending: bool,
        unused: Vec<String>,
    }

    /// `POST /mode`.
    ApiModes { ended: u64, shared: bool, why: Option<String>, switches: Vec<ApiSwitch>, }
    ApiSwitch { route: Option<String>, mode: String, by: String, left_s: f64, }

    /// `POST /explain`.
    ApiExplanation { request: String, lines: Vec<ExplainLine>, stored: Option<ApiStored>, }
    ApiStored {
        tier: String,
        status: u16,
        bytes: u64,
        age_s: Option<f64>,
        ttl_s: Option<f64>,
        tags: Vec<ApiEntryTag>,
        authorization: Option<String>,
        verdict: String,
        reason: Option<String>,
    }
    ApiEntryTag { tag: String, current: bool, }

    /// `POST /reload` and `POST /check`.
    ApiReload {
        ok: bool,
        changes: Vec<ApiChange>,
        restart_needed: Vec<String>,
        problems: Vec<ApiDiagnostic>,
        text: String,
    }
    ApiChange { what: String, change: String, keys: Vec<ApiKeyChange>, effect: Option<String>, }
    ApiKeyChange { key: String, from: Option<String>, to: Option<String>, }
    ApiDiagnostic {
        severity: String,
        file: Option<String>,
        line: u64,
        column: u64,
        message: String,
        hint: Option<String>,
    }

    /// `GET /shadow`.
    ApiShadowReport { routes: Vec<ApiShadowRoute>, advice: Vec<ApiAdvice>, }
    ApiShadowRoute {
        route: String,
        mode: String,
        requests: u64,
        hit_rate: Option<f64>,
        stale: ApiFinding,
        scope: ApiFinding,
        audit: ApiAudit,
        languages: ApiLanguages,
        sources: Vec<ApiSourceTold>,
    }
    ApiSourceTold { source: String, in_time: u64, late: u64, }
    ApiFinding { count: u64, unexplained: u64, }
    ApiAudit { asked: u64, stale: u64, }
    ApiLanguages { finding: Option<String>, pages: u64, languages: Vec<String>, differing: u64, }
    ApiAdvice {
        route: String,
        why: String,
        toml: String,
        line: Option<u64>,
        file: Option<String>,
        diff: Option<String>,
    }
    /// `GET /memory`.
    ApiListing {
        entries: Vec<ApiEntry>,
        matched: ApiMatched,
        next: Option<String>,
        looked_at: u64,
        complete: bool,
    }
    ApiMatched {
        entries: u64,
        bytes: u64,
        states: BTreeMap<String, u64>,
    }
    ApiEntry {
        host: String,
        path: String,
        query: Vec<String>,
        scope: Option<String>,
        credential: Option<String>,
        state: String,
        age_s: f64,
        ttl_s: f64,
        bytes: u64,
        hits: u64,
        tags: Vec<String>,
        more_tags: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_understood() {
        let stats: ApiStats = serde_json::from_str(
            r#"{"version":"9","new":{"a":1},"totals":{"hit_ratio":null},"redis":null,"tags":null}"#,
        )
        .unwrap();
        assert_eq!(
            (
                stats.version.as_str(),
                stats.totals.hit_ratio,
                stats.redis.is_none(),
                stats.tags.len()
            ),
            ("9", None, true, 0)
        );
    }
}
