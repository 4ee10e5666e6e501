//! `/stats` and `/routes`: the statistics and the rules, as JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::remedies;
use super::remedies::{RouteReason, remedy};
use super::state::AdminState;
use super::uncached;
use crate::cache::encoder::CodingCounters;
use crate::coherence::CoherenceMode;
use crate::notify::{NotifyCounters, NotifyView};
use crate::outcome::{Disposition, Reason};
use crate::policy::folder::Folder;
use crate::policy::glob::Glob;
use crate::policy::plan::PolicyRules;
use crate::policy::route::{QueryRule, Route, RouteSpec};
use crate::policy::scope::Scope;
use crate::policy::share::CallerShare;
use crate::policy::signed_in::SignedIn;
use crate::policy::template::Template;
use crate::semantics::content_coding::Coding;
use crate::semantics::storability::OriginRule;
use crate::sources::SourceStatus;
use crate::telemetry::history::{MAX_HISTORY_BYTES, MAX_MARKS};
use crate::telemetry::metrics;
use crate::telemetry::metrics::{Counter, Latency, RowView};
use crate::telemetry::version::BUILD;
use crate::upstream::OriginStatus;

/// How many tags are reported.
const MAX_TAGS: usize = 20;
/// How many times rarer than the most frequent one a subject of a reason may be, to be told.
const RARITY: u64 = 50;

/// How many reasons are reported per route.
const MAX_REASONS: usize = 16;
/// The row of requests without a route.
const UNROUTED: &str = metrics::NONE;

pub(super) fn stats(state: &AdminState) -> Value {
    let proxy = &state.proxy;
    let (live, rows) = (proxy.active_config(), proxy.metrics.rows());
    let (now, status) = (proxy.clock.wall(), state.reloader.status());
    let by_name: HashMap<&str, &RowView> = rows.iter().map(|row| (&*row.name, row)).collect();
    let row = |name: &str| by_name.get(name).copied();
    let routes: Vec<Value> = live
        .rules
        .routes
        .iter()
        .map(|route| route_stats(state, Some(route), row(route.name())))
        .collect();
    let ready = state.ready();
    let tags: Vec<Value> = proxy
        .hot_tags
        .busiest(MAX_TAGS)
        .iter()
        .map(|busy| {
            let (tag, stored, hits, purged) = (&busy.tag, busy.stored, busy.hits, busy.purged);
            json!({ "tag": tag, "stored": stored, "hits": hits, "purged": purged })
        })
        .collect();
    let memory = &proxy.store.memory;
    json!({
        "version": BUILD.version,
        "commit": BUILD.commit,
        "started_ms": state.started.0,
        "now_ms": now.0,
        "uptime_s": now.since(state.started).as_secs_f64(),
        "mode": status.mode.as_str(),
        "switches": state.switches(),
        "totals": totals(&rows),
        "routes": routes,
        "unrouted": route_stats(state, None, row(UNROUTED)),
        "tags": tags,
        "memory": {
            "entries": memory.len(),
            "bytes": memory.weight(),
            "limit_bytes": memory.limit(),
            "evictions": memory.evicted.get(),
        },
        "history": history(state),
        "redis": redis(state),
        "sources": sources(state),
        "notify": notify(state),
        "app": app(state),
        "apps": apps(state),
        "jwt": jwt(state),
        "identity": identity(state),
        "ready": { "status": ready.status(), "reasons": ready.degraded },
        "config": {
            "file": status.file.map(|file| file.display().to_string()),
            "loaded_ms": status.loaded.0,
            "loads": status.loads,
            "error": status.refused.as_ref().map(|(_, why)| why),
            "failed_ms": status.refused.as_ref().map(|(at, _)| at.0),
            "restart_needed": status.restart_needed,
        },
        "shadow": state.shadow_summary(),
        "uncached": uncached::summary(state),
        "cookies": {
            "requests": live.cookie_use.requests(),
            "unseen": live.cookie_use.unseen(),
        },
        "compress": compress(state),
    })
}

/// What is coded for clients.
fn compress(state: &AdminState) -> Value {
    let counters = &state.proxy.encoder.counters;
    let sum = |of: fn(&CodingCounters) -> &Counter| -> u64 {
        Coding::ALL.into_iter().map(|coding| of(counters.of(coding)).get()).sum()
    };
    json!({
        "bodies": sum(|of| &of.bodies),
        "original_bytes": sum(|of| &of.original_bytes),
        "coded_bytes": sum(|of| &of.coded_bytes),
        "missed_bytes": counters.missed_bytes.get(),
    })
}

/// What the history takes in memory.
fn history(state: &AdminState) -> Value {
    let history = state.proxy.history.lock();
    json!({
        "bytes": history.bytes(),
        "limit_bytes": MAX_HISTORY_BYTES,
        "events": history.marks(),
        "limit_events": MAX_MARKS,
    })
}

/// Whether the origin of `[upstream]` answers.
fn app(state: &AdminState) -> Value {
    origin(&state.proxy.active_config().origins.first().health().status())
}

/// The same of each app of `[[apps]]`, with its name.
fn apps(state: &AdminState) -> Vec<Value> {
    let config = state.proxy.active_config();
    let all = config.rules.apps.iter().zip(config.origins.iter());
    all.filter_map(|(app, client)| {
        let mut shown = origin(&client.health().status());
        shown["name"] = app.name.as_deref()?.into();
        Some(shown)
    })
    .collect()
}

fn origin(status: &OriginStatus) -> Value {
    let outage = status.outage.as_ref();
    json!({
        "address": status.address,
        "answers": status.answers,
        "why": status.degraded_reason(),
        "advice": outage.map(|outage| outage.advice),
        "since_ms": outage.map(|outage| outage.since.0),
        "failures": outage.map_or(0, |outage| outage.failures),
    })
}

/// The keys of tokens; null without `[jwt]`.
fn jwt(state: &AdminState) -> Value {
    let config = state.proxy.active_config();
    let Some(tokens) = &config.rules.tokens else { return Value::Null };
    let status = tokens.keys().status(state.proxy.clock.wall());
    json!({
        "keys": status.keys,
        "keys_age_s": status.age.map(|age| age.as_secs_f64()),
        "fetch_error": status.error,
        "why": status.degraded_reason(),
        "tokens": tokens.remembered(),
    })
}

/// What the origin has said of callers; null without `[identity]`.
fn identity(state: &AdminState) -> Value {
    let config = state.proxy.active_config();
    let Some(table) = &config.rules.identities else { return Value::Null };
    json!({
        "path": &*table.settings.path,
        "callers": table.remembered(),
        "off": table.is_off(),
        "why": table.degraded_reason(),
    })
}

fn redis(state: &AdminState) -> Value {
    let coherence = &state.proxy.coherence;
    if coherence.records().is_none() {
        return Value::Null;
    }
    let statuss = coherence.status();
    json!({
        "state": if coherence.mode() == CoherenceMode::Shared { "shared" } else { "degraded" },
        "lease": coherence.has_lease(),
        "peers": statuss.peers,
        "journal": statuss.journal,
        "why": coherence.degraded_reason(),
    })
}

/// What tells of changes that no request tells.
fn sources(state: &AdminState) -> Vec<Value> {
    let one = |status: &Arc<SourceStatus>| {
        let (view, counters) = (status.view(), &status.counters);
        json!({
            "name": &*status.name,
            "kind": status.kind,
            "tags": status.tags,
            "state": view.state.as_str(),
            "since_ms": view.since.0,
            "heard_ms": view.heard.map(|heard| heard.0),
            "why": view.why,
            "events": counters.events.get(),
            "purged_tags": counters.tags.get(),
            "gaps": counters.gaps.get(),
            "bad_payloads": counters.bad_payloads.get(),
            "refused": counters.deliveries.refused(),
        })
    };
    state.proxy.sources.list().iter().map(one).collect()
}

/// Who is told of purges.
fn notify(state: &AdminState) -> Vec<Value> {
    let one = |(view, counters): (NotifyView, NotifyCounters)| {
        json!({
            "name": &*view.name,
            "kind": view.kind,
            "waiting": view.waiting,
            "waits_s": view.waits.as_secs_f64(),
            "sent_ms": view.sent_at.map(|at| at.0),
            "why": view.why,
            "failures": view.failures,
            "sent": counters.sent.get(),
            "tags": counters.tags.get(),
            "everything": counters.everything.get(),
        })
    };
    state.proxy.notifiers.list().into_iter().map(one).collect()
}

fn totals(rows: &[RowView]) -> Value {
    let (mut hit, mut miss, mut app) = (Latency::default(), Latency::default(), Latency::default());
    for row in rows {
        hit.add(&row.hit);
        miss.add(&row.miss);
        app.add(&row.origin);
    }
    let count = |disposition| rows.iter().map(|row| row.count(disposition)).sum();
    let mut value = request_totals(&count);
    value["app_requests"] = json!(app.count());
    value["time_saved_s"] = json!(rows.iter().map(|row| row.saved).sum::<Duration>().as_secs_f64());
    value["bytes_from_cache"] = json!(rows.iter().map(|row| row.bytes_from_cache).sum::<u64>());
    value["bytes_from_app"] = json!(rows.iter().map(|row| row.bytes_from_origin).sum::<u64>());
    value["bytes_from_sidecar"] = json!(rows.iter().map(|row| row.bytes_from_sidecar).sum::<u64>());
    value["latency"] =
        json!({ "hit": latency(&hit), "miss": latency(&miss), "app": latency(&app) });
    value
}

/// Requests by disposition, and the numbers derived from them.
fn request_totals(count: &dyn Fn(Disposition) -> u64) -> Value {
    let requests: serde_json::Map<String, Value> = Disposition::ALL
        .iter()
        .map(|disposition| (disposition.as_str().to_owned(), json!(count(*disposition))))
        .collect();
    let served = count(Disposition::Hit) + count(Disposition::Stale);
    let useful = served + count(Disposition::Revalidated);
    let cacheable = useful + count(Disposition::Miss);
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    let ratio_of = |all: u64| (all > 0).then(|| useful as f64 / all as f64);
    json!({
        "requests": requests,
        "hit_ratio": ratio_of(cacheable),
        "hit_ratio_all": ratio_of(cacheable + count(Disposition::Bypass)),
        "app_requests_saved": served,
    })
}

fn route_stats(state: &AdminState, route: Option<&Route>, row: Option<&RowView>) -> Value {
    let count = |disposition| row.map_or(0, |row| row.count(disposition));
    let mut value = request_totals(&count);
    value["path"] = json!(route.map_or(UNROUTED, Route::name));
    value["line"] = json!(route.map(|route| route.spec.place.line));
    value["file"] = json!(route.and_then(|route| route.spec.place.file.as_deref()));
    value["mode"] = json!(route.map(|route| route.spec.mode.as_str()));
    value["switch"] = json!(route.and_then(|route| state.switch_of(route)));
    value["scope"] = json!(route.map(|route| route.spec.scope.as_str()));
    value["ttl_s"] = json!(route.and_then(|route| seconds(route.spec.ttl.ok)));
    value["freshness"] = json!(route.map(|route| freshness(route, row)));
    value["learned_headers"] = json!(route.map_or_else(Vec::new, learned));
    value["time_saved_s"] = json!(row.map_or(0.0, |row| row.saved.as_secs_f64()));
    value["bytes_from_cache"] = json!(row.map_or(0, |row| row.bytes_from_cache));
    value["bytes_from_app"] = json!(row.map_or(0, |row| row.bytes_from_origin));
    value["bytes_from_sidecar"] = json!(row.map_or(0, |row| row.bytes_from_sidecar));
    let of = |read: fn(&RowView) -> &Latency| row.and_then(|row| latency(read(row)));
    value["latency"] = json!({
        "hit": of(|row| &row.hit),
        "miss": of(|row| &row.miss),
        "app": of(|row| &row.origin),
    });
    value["reasons"] = json!(row.map_or_else(Vec::new, |row| reasons(state, route, row)));
    value
}

/// Who decides how long responses are fresh, and what that was last.
fn freshness(route: &Route, row: Option<&RowView>) -> Value {
    let spec = &route.spec;
    let decided_by = match spec.origin {
        _ if spec.ttl.is_empty() => "origin",
        OriginRule::Ignore => "ttl",
        OriginRule::Respect => "origin_else_ttl",
    };
    let last = row.and_then(|row| row.lifetime);
    json!({
        "decided_by": decided_by,
        "last_s": last.map(|(lifetime, _)| lifetime.as_secs_f64()),
        "last_from": last.map(|(_, from)| from.as_str()),
    })
}

/// Why requests were not served from the cache, the most frequent reason first.
fn reasons(state: &AdminState, route: Option<&Route>, row: &RowView) -> Vec<Value> {
    let mut reasons: Vec<(Disposition, Reason, u64)> = row
        .requests
        .iter()
        .filter_map(|(disposition, reason, count)| Some((*disposition, (*reason)?, *count)))
        .collect();
    reasons.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let evidence = route.map(|route| state.key_evidence(route));
    let route = route.zip(evidence.as_ref());
    let one = |(disposition, reason, count): (Disposition, Reason, u64)| {
        let subjects = state.proxy.hot_tags.subjects(&row.name, reason.as_str());
        let most = subjects.first().map_or(0, |(_, count)| *count);
        // A name that hardly any request has is a stranger's, or a typing mistake.
        let usual = |(_, count): &(String, u64)| count.saturating_mul(RARITY) >= most;
        let mut subjects: Vec<(String, u64)> = subjects.into_iter().filter(usual).collect();
        if let Some((_, evidence)) = route {
            subjects.extend(remedies::subjects(evidence, reason).into_iter().map(|name| (name, 0)));
        }
        let remedy =
            remedy(&RouteReason { reason, count, subjects: &subjects }, route, &*state.reloader);
        let subjects: Vec<String> = subjects.into_iter().map(|(name, _)| name).collect();
        let change = remedy.change.as_ref();
        json!({
            "disposition": disposition.as_str(),
            "reason": reason.as_str(),
            "subject": subjects.first(),
            "subjects": subjects,
            "count": count,
            "why": remedy.why,
            "remedy": change.map(|change| &change.tried.lines),
            "diff": change.map(|change| &change.tried.diff),
            "does": change.map(|change| &change.does),
            "risks": change.map(|change| &change.risks),
        })
    };
    reasons.into_iter().take(MAX_REASONS).map(one).collect()
}

fn latency(latency: &Latency) -> Option<Value> {
    let ms = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1e3);
    (latency.count() > 0).then(|| {
        json!({
            "count": latency.count(),
            "mean_ms": ms(latency.mean()),
            "p50_ms": ms(latency.quantile(0.5)),
            "p95_ms": ms(latency.quantile(0.95)),
            "p99_ms": ms(latency.quantile(0.99)),
        })
    })
}

/// The rules in force, as in the file.
pub(super) fn rules(rules: &PolicyRules) -> Value {
    let routes: Vec<Value> = rules.routes.iter().map(|route| policy(route)).collect();
    let purges: Vec<Value> = rules
        .purges
        .iter()
        .map(|rule| {
            let names = |methods: &[Method]| methods.iter().map(Method::to_string).collect();
            let methods: Option<Vec<String>> = rule.methods.as_deref().map(names);
            json!({
                "path": rule.pattern.as_str(),
                "line": rule.place.line,
                "file": rule.place.file.as_deref(),
                "methods": methods,
                "tags": rule.tags.iter().map(Template::as_str).collect::<Vec<_>>(),
                "under": rule.under.as_ref().map(Folder::as_str),
                "guard": rule.guard.as_str(),
            })
        })
        .collect();
    json!({ "routes": routes, "purges": purges })
}

/// How long responses with other statuses than 200 are fresh, in seconds.
fn status_ttls(spec: &RouteSpec) -> BTreeMap<&str, f64> {
    let others = spec.ttl.others.iter();
    others.map(|(status, ttl)| (status.as_str(), ttl.as_secs_f64())).collect()
}

fn policy(route: &Route) -> Value {
    let spec = &route.spec;
    json!({
        "path": route.name(),
        "line": spec.place.line,
        "file": spec.place.file.as_deref(),
        "methods": methods(spec),
        "mode": spec.mode.as_str(),
        "ttl_s": seconds(spec.ttl.ok),
        "status_ttls_s": status_ttls(spec),
        "expires_at": spec.expires_at.map(|end| end.to_string()),
        "browser": spec.browser.map(|browser| browser.to_string()),
        "origin": spec.origin.as_str(),
        "scope": spec.scope.as_str(),
        // It says something in scope `shared` alone.
        "admit": (spec.scope == Scope::Shared).then(|| spec.admit.as_str()),
        "key": spec.key.iter().map(|field| &*field.name).collect::<Vec<_>>(),
        "query": match &spec.query {
            QueryRule::All => json!("all"),
            QueryRule::None => json!("none"),
            QueryRule::Only(names) => json!(names),
            QueryRule::Most(most) => json!({
                "except": most.except.iter().map(Glob::as_str).collect::<Vec<_>>(),
                "order": most.order.as_str(),
            }),
        },
        "compress": codings(route),
        "signed_in": spec.signed_in.as_ref().map(signed_in),
        "tags": spec.tags.iter().map(Template::as_str).collect::<Vec<_>>(),
        "folders": folders(route),
        "stale_while_revalidate_s": seconds(spec.stale_while_revalidate),
        "stale_if_error_s": seconds(spec.stale_if_error),
        "drop_headers": spec.drop_headers.iter().map(Glob::as_str).collect::<Vec<_>>(),
        "pass_headers": names(&spec.pass_headers),
        "learned_headers": learned(route),
        "audit": spec.audit,
        "share": spec.share.map(CallerShare::get),
    })
}

/// The codings in which clients get what is stored; those of the policy for guests, too.
fn codings(route: &Route) -> Option<Vec<&'static str>> {
    let of_guests = || route.guests.as_ref().and_then(|guests| guests.route.spec.compress());
    let rule = route.spec.compress().or_else(of_guests)?;
    Some(rule.codings.iter().map(|coding| coding.as_str()).collect())
}

/// What those have who are no guests.
fn signed_in(rule: &SignedIn) -> Value {
    json!({
        "cookies": rule.cookies.iter().map(Glob::as_str).collect::<Vec<_>>(),
        "field": rule.field.as_ref().map(|field| &*field.name),
    })
}

/// The folders that entries carry as tags; `*` for all of their path.
fn folders(route: &Route) -> Vec<&str> {
    let every = route.folders.every.then_some("*");
    every.into_iter().chain(route.folders.named.iter().map(Folder::as_str)).collect()
}

/// The methods that it answers.
fn methods(spec: &RouteSpec) -> Vec<&str> {
    let get = spec.methods.get.then_some("GET");
    get.into_iter().chain(spec.methods.with_body.iter().map(Method::as_str)).collect()
}

/// The headers that are in the key because the origin has named them in `Vary`.
fn learned(route: &Route) -> Vec<String> {
    let mut learned = names(&route.headers.learned());
    let guests = route.guests.iter().flat_map(|guests| names(&guests.route.headers.learned()));
    for name in guests {
        if !learned.contains(&name) {
            learned.push(name);
        }
    }
    learned
}

fn names(list: &[HeaderName]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}
