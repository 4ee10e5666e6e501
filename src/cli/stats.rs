//! `stats`: the statistics of a running sidecar by route, and why requests miss the cache.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};

use super::api_types::{
    ApiApp, ApiFreshness, ApiLanguageRoutes, ApiMemory, ApiNotify, ApiPeers, ApiReady, ApiReason,
    ApiRedis, ApiRoute, ApiSource, ApiStats, ApiTag,
};
use super::error::CommandError;
use super::exit_codes::ready_exit_code;
use super::format::{
    clean, clean_lines, counted, millis, percent, rule_place, sample_note, seconds, size, sum,
    table,
};
use super::output;
use super::remote::{Remote, RemoteArgs};

mod all;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache stats
  sidecache stats --all          all sidecars that share this one's Redis
  sidecache stats --json | jq '.routes[] | {path, hit_ratio}'
  sidecache stats --ready        health check without curl: exits with 1 if traffic should go
                                 elsewhere";

/// How many reasons and tags are shown at most.
const MAX_ROWS: usize = 20;

/// The order in which dispositions are shown; others follow.
const DISPOSITIONS: [&str; 5] = ["HIT", "STALE", "REVALIDATED", "MISS", "BYPASS"];

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// Print one line on readiness, and exit with 0 if the sidecar takes traffic (ready or
    /// degraded), with 1 if it is unready or does not respond. Needs no token.
    #[arg(long)]
    ready: bool,
    /// Print a line for each sidecar that shares this one's Redis, with totals. The numbers of the
    /// others are at most a few seconds old.
    #[arg(long, conflicts_with = "ready")]
    all: bool,
    /// Print the sidecar's JSON response instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &StatsArgs) -> Result<ExitCode, CommandError> {
    let remote = args.remote.resolve(path)?;
    if args.ready {
        return ready(&remote, args.json);
    }
    let path = if args.all { "/peers" } else { "/stats" };
    let reply = remote.send(&Method::GET, path, None)?.error_for_status()?;
    if args.json {
        return Ok(output::print(reply.text.trim_end()));
    }
    if args.all {
        return Ok(output::print(&all::text(&reply.read()?)));
    }
    let stats: ApiStats = reply.read()?;
    let peers = if stats.redis.is_some() { peers(&remote) } else { None };
    Ok(output::print(&text(&stats, peers.as_ref())))
}

/// The other sidecars; none if this one does not know: an earlier version has no such list.
fn peers(remote: &Remote) -> Option<ApiPeers> {
    let reply = remote.send(&Method::GET, "/peers", None).ok()?;
    reply.error_for_status().ok()?.read().ok()
}

fn ready(remote: &Remote, as_json: bool) -> Result<ExitCode, CommandError> {
    let reply = remote.send(&Method::GET, "/ready", None)?;
    if !matches!(reply.status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        return Err(reply.failure());
    }
    if as_json {
        output::print(reply.text.trim_end());
    } else {
        output::print(&readiness(&reply.read()?));
    }
    Ok(ready_exit_code(reply.status).into())
}

pub(super) fn readiness(ready: &ApiReady) -> String {
    let reasons: Vec<_> = ready.reasons.iter().map(|reason| clean(reason)).collect();
    if reasons.is_empty() {
        clean(&ready.status).into_owned()
    } else {
        format!("{}: {}", clean(&ready.status), reasons.join("; "))
    }
}

fn text(stats: &ApiStats, peers: Option<&ApiPeers>) -> String {
    let mut text = overview(stats, peers);
    let mut routes: Vec<&ApiRoute> = stats.routes.iter().collect();
    if sum(&stats.unrouted.requests) > 0 {
        routes.push(&stats.unrouted);
    }
    if !routes.is_empty() {
        let _ = write!(text, "\n{}\n", route_table(&routes));
    }
    let learned: Vec<_> = routes.iter().filter(|route| !route.learned_headers.is_empty()).collect();
    for (at, route) in learned.iter().enumerate() {
        let (gap, names) = (if at == 0 { "\n" } else { "" }, route.learned_headers.join(", "));
        let _ = writeln!(text, "{gap}{}: learned from Vary: {}", clean(&route.path), clean(&names));
    }
    if let Some(reasons) = reason_table(&routes) {
        let _ = write!(text, "\n{reasons}\n");
    }
    if !stats.tags.is_empty() {
        let row = |tag: &ApiTag| {
            [tag.tag.clone(), tag.stored.to_string(), tag.hits.to_string(), tag.purged.to_string()]
        };
        let _ = write!(
            text,
            "\n{}\n",
            table(
                ["TAG", "STORED", "HITS", "PURGED"],
                &[1, 2, 3],
                stats.tags.iter().take(MAX_ROWS).map(row)
            )
        );
    }
    text.truncate(text.trim_end().len());
    text
}

/// What a receiver of purges was told.
fn receiver(one: &ApiNotify) -> String {
    let mut text = format!(
        "{} ({}): {} told in {}",
        one.name,
        one.kind,
        counted(one.tags, "tag"),
        counted(one.sent, "request")
    );
    if one.waiting > 0 {
        let _ = write!(text, ", {} not yet", counted(one.waiting, "tag"));
    }
    if let Some(why) = &one.why {
        let _ = write!(text, ": {why}");
    }
    text
}

/// What a source does, and what it has heard.
fn source(source: &ApiSource) -> String {
    let mut text = format!("{} ({}): {}", source.name, source.kind, source.state);
    if let Some(why) = &source.why {
        let _ = write!(text, ", {why}");
    }
    let _ = write!(
        text,
        "; {}, {} purged, {}",
        counted(source.events, "event"),
        counted(source.purged_tags, "tag"),
        counted(source.gaps, "gap")
    );
    if source.refused > 0 {
        let _ = write!(text, ", {} refused", source.refused);
    }
    if source.bad_payloads > 0 {
        let _ = write!(text, ", {}", counted(source.bad_payloads, "bad payload"));
    }
    text
}

fn overview(stats: &ApiStats, peers: Option<&ApiPeers>) -> String {
    let mut text = format!(
        "sidecache {}{}, up for {}, mode {}, {}\n",
        clean(&stats.version),
        commit(stats.commit.as_deref()),
        seconds(stats.uptime_s),
        clean(&stats.mode),
        readiness(&stats.ready)
    );
    let mut add = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {}", clean(value));
    };
    for switch in &stats.switches {
        let (route, left) =
            (switch.route.as_deref().unwrap_or("all routes"), seconds(switch.left_s));
        add("switched", &format!("{route}: {} for {left} more", switch.mode));
    }
    traffic(stats, &mut add);
    add("memory", &memory(&stats.memory));
    add(
        "redis",
        &stats
            .redis
            .as_ref()
            .map_or_else(|| "none: entries are in this process's memory only".to_owned(), redis),
    );
    for one in &stats.sources {
        add("source", &source(one));
    }
    for one in &stats.notify {
        add("notify", &receiver(one));
    }
    if let Some(told) = peers.and_then(all::summary) {
        add("sidecars", &told);
    }
    let config = &stats.config;
    let age =
        seconds(Duration::from_millis(stats.now_ms.saturating_sub(config.loaded_ms)).as_secs_f64());
    add("config", &format!("{}, loaded {age} ago, {}", config.file, counted(config.loads, "load")));
    if !config.restart_needed.is_empty() {
        add("restart", &format!("needed for {}", config.restart_needed.join(", ")));
    }
    let shadow = &stats.shadow;
    if shadow.findings > 0 {
        add("shadow", &format!("{}: see `sidecache advise`", counted(shadow.findings, "finding")));
    }
    let uncached = &stats.uncached;
    // Templates of writes alone are nothing that a route could answer.
    if uncached.requests > 0 {
        let (requests, time) = (counted(uncached.requests, "request"), seconds(uncached.app_s));
        let sample = sample_note(uncached.requests, uncached.observed);
        add("no route", &format!("{requests}, {time} in the app{sample}: see `sidecache advise`"));
    }
    if shadow.audited > 0 {
        add(
            "audit",
            &format!("{} of {} stale", shadow.audited_stale, counted(shadow.audited, "hit")),
        );
    }
    for text in languages(&shadow.languages) {
        add("languages", &text);
    }
    if !stats.cookies.unseen.is_empty() {
        let names = stats.cookies.unseen.join(", ");
        let requests = counted(stats.cookies.requests, "request");
        add("cookies", &format!("none of {requests} has carried {names} of [credential]"));
    }
    if let Some(text) = compress(stats) {
        add("compress", &text);
    }
    if let Some(error) = &config.error {
        let _ = writeln!(
            text,
            "\nThe file is rejected, the old rules stay in force:\n{}",
            clean_lines(error)
        );
    }
    text
}

/// What was compressed for clients; or what would be smaller, if that is much.
fn compress(stats: &ApiStats) -> Option<String> {
    const MUCH: u64 = 10 << 20;
    let compress = &stats.compress;
    if compress.bodies > 0 {
        let (bodies, coded) = (counted(compress.bodies, "response"), size(compress.coded_bytes));
        return Some(format!("{bodies}, {} became {coded}", size(compress.original_bytes)));
    }
    let missed = compress.missed_bytes;
    let is_much = missed > MUCH && missed > stats.totals.bytes_from_cache / 5;
    is_much.then(|| format!("off: about {} of hits would be smaller with [compress]", size(missed)))
}

/// The lines about requests and bodies.
fn traffic(stats: &ApiStats, add: &mut dyn FnMut(&str, &str)) {
    let totals = &stats.totals;
    add("requests", &requests(&totals.requests));
    let all =
        totals.hit_ratio_all.map(|ratio| format!(", {} of all requests", percent(Some(ratio))));
    let ratio = percent(totals.hit_ratio);
    add("hit ratio", &format!("{ratio} of cacheable requests{}", all.unwrap_or_default()));
    let saved = format!(
        "{} saved, and {}",
        counted(totals.app_requests_saved, "request"),
        seconds(totals.time_saved_s)
    );
    add("origin", &format!("{}, {saved} of waiting", counted(totals.app_requests, "request")));
    if let Some(why) = apps(stats) {
        add("app", &why);
    }
    let own = match totals.bytes_from_sidecar {
        0 => String::new(),
        own => format!(", {} of the sidecar's own pages", size(own)),
    };
    let (cache, origin) = (size(totals.bytes_from_cache), size(totals.bytes_from_app));
    add("bodies", &format!("{cache} from the cache, {origin} from the origin{own}"));
}

/// What shadow mode says of `Accept-Language`.
fn languages(routes: &ApiLanguageRoutes) -> Vec<String> {
    [(routes.never, "never depended"), (routes.differs, "depend")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, verb)| {
            let routes = counted(count, "route");
            format!("bodies of {routes} {verb} on Accept-Language: see `sidecache advise`")
        })
        .collect()
}

pub(super) fn memory(memory: &ApiMemory) -> String {
    let (bytes, limit) = (size(memory.bytes), size(memory.limit_bytes));
    let entries = if memory.entries == 1 {
        "1 entry".to_owned()
    } else {
        format!("{} entries", memory.entries)
    };
    format!("{entries}, {bytes} of {limit}, {}", counted(memory.evictions, "eviction"))
}

/// How the apps fail, if one does.
pub(super) fn apps(stats: &ApiStats) -> Option<String> {
    let all = std::iter::once(&stats.app).chain(&stats.apps);
    let failing: Vec<String> = all.filter_map(|one| app(one, stats.now_ms)).collect();
    (!failing.is_empty()).then(|| failing.join("; "))
}

fn app(app: &ApiApp, now_ms: u64) -> Option<String> {
    let why = app.why.as_ref()?;
    let since = app.since_ms.unwrap_or(now_ms);
    let ago = seconds(Duration::from_millis(now_ms.saturating_sub(since)).as_secs_f64());
    let failures = counted(app.failures, "request");
    let advice = app.advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default();
    // That of [upstream] has no name.
    let name = if app.name.is_empty() { String::new() } else { format!("{} ", app.name) };
    Some(format!("{name}FAILS for {ago}, {failures} failed: {why}{advice}"))
}

pub(super) fn redis(redis: &ApiRedis) -> String {
    let lease = if redis.lease { "with a lease" } else { "without a lease" };
    let mut text = format!("{}, {lease}, {}", redis.state, counted(redis.peers, "other sidecar"));
    if redis.journal > 0 {
        let _ = write!(text, ", {} in the journal", counted(redis.journal, "purge"));
    }
    if let Some(why) = &redis.why {
        let _ = write!(text, ": {why}");
    }
    text
}

fn requests(by: &BTreeMap<String, u64>) -> String {
    let known = DISPOSITIONS.iter().filter_map(|name| Some((*name, *by.get(*name)?)));
    let others = by
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .filter(|(name, _)| !DISPOSITIONS.contains(name));
    let parts: Vec<_> = known
        .chain(others)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{}: {}", sum(by), parts.join(", ")) }
}

fn route_table(routes: &[&ApiRoute]) -> String {
    let head = [
        "ROUTE",
        "MODE",
        "TTL",
        "REQUESTS",
        "HITS/CACHEABLE",
        "HITS/ALL",
        "HIT P50",
        "ORIGIN P50",
        "SAVED",
        "FROM CACHE",
        "FROM ORIGIN",
    ];
    let p50 = |times: &Option<super::api_types::ApiTimes>| {
        times.as_ref().map_or_else(|| "-".to_owned(), |times| millis(times.p50_ms))
    };
    let rows = routes.iter().map(|route| {
        [
            route.path.clone(),
            if route.line.is_some() { route.mode.clone() } else { "-".to_owned() },
            if route.line.is_some() { fresh_for(route) } else { "-".to_owned() },
            sum(&route.requests).to_string(),
            percent(route.hit_ratio),
            percent(route.hit_ratio_all),
            p50(&route.latency.hit),
            p50(&route.latency.app),
            route.app_requests_saved.to_string(),
            size(route.bytes_from_cache),
            size(route.bytes_from_app),
        ]
    });
    table(head, &[3, 4, 5, 6, 7, 8, 9, 10], rows)
}

/// How long its responses are fresh: the route's `ttl`, or what the origin has said last, which
/// outranks it.
fn fresh_for(route: &ApiRoute) -> String {
    let ApiFreshness { last_s, last_from, decided_by } = &route.freshness;
    let last = last_s.map(seconds).unwrap_or_default();
    match (route.ttl_s.map(seconds), last_from.as_str()) {
        (Some(ttl), _) if decided_by == "ttl" => ttl,
        (_, "origin") => format!("origin's, last {last}"),
        (_, "heuristic") => format!("estimated, last {last}"),
        (Some(ttl), "ttl") => ttl,
        (Some(ttl), _) => format!("{ttl} or origin's"),
        (None, _) => "origin's".to_owned(),
    }
}

/// The commit of the sidecar, as short as people write it.
fn commit(commit: Option<&str>) -> String {
    commit.map_or_else(String::new, |commit| {
        format!(" ({})", clean(commit.get(..12).unwrap_or(commit)))
    })
}

/// The lines to change, with what they do and risk; or what the reason means.
fn remedy(route: &ApiRoute, reason: &ApiReason) -> String {
    let Some(lines) = &reason.remedy else { return reason.why.clone().unwrap_or_default() };
    let place = rule_place(route.line, route.file.as_deref());
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let effects: Vec<&str> =
        [&reason.does, &reason.risks].into_iter().flatten().map(String::as_str).collect();
    format!("{place}{}. {}", lines.replace('\n', "; "), effects.join(" "))
}

fn reason_table(routes: &[&ApiRoute]) -> Option<String> {
    let mut reasons: Vec<_> = routes
        .iter()
        .flat_map(|route| route.reasons.iter().map(move |reason| (*route, reason)))
        .collect();
    if reasons.is_empty() {
        return None;
    }
    reasons.sort_by_key(|(_, reason)| Reverse(reason.count));
    let rows = reasons.iter().take(MAX_ROWS).map(|(route, reason)| {
        let words = [Some(reason.reason.as_str()), reason.subject.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        let remedy = remedy(route, reason);
        [route.path.clone(), reason.count.to_string(), reason.disposition.clone(), words, remedy]
    });
    let mut text = table(["ROUTE", "COUNT", "X-CACHE", "REASON", "REMEDY"], &[1], rows);
    if reasons.len() > MAX_ROWS {
        let _ = write!(text, "\n({} more with --json)", reasons.len() - MAX_ROWS);
    }
    Some(text)
}
