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
    ApiApp, ApiLanguageRoutes, ApiMemory, ApiReady, ApiReason, ApiRedis, ApiRoute, ApiStats, ApiTag,
};
use super::error::CommandError;
use super::exit_codes::ready_exit_code;
use super::format::{clean, clean_lines, counted, millis, percent, seconds, size, table};
use super::output;
use super::remote::{Remote, RemoteArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache stats
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
    let reply = remote.send(&Method::GET, "/stats", None)?.error_for_status()?;
    if args.json {
        return Ok(output::print(reply.text.trim_end()));
    }
    Ok(output::print(&text(&reply.read()?)))
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

fn readiness(ready: &ApiReady) -> String {
    let reasons: Vec<_> = ready.reasons.iter().map(|reason| clean(reason)).collect();
    if reasons.is_empty() {
        clean(&ready.status).into_owned()
    } else {
        format!("{}: {}", clean(&ready.status), reasons.join("; "))
    }
}

fn text(stats: &ApiStats) -> String {
    let mut text = overview(stats);
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

fn overview(stats: &ApiStats) -> String {
    let totals = &stats.totals;
    let mut text = format!(
        "sidecache {}, up for {}, mode {}, {}\n",
        clean(&stats.version),
        seconds(stats.uptime_s),
        clean(&stats.mode),
        readiness(&stats.ready)
    );
    let mut add = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {}", clean(value));
    };
    add("requests", &requests(&totals.requests));
    add("hit ratio", &percent(totals.hit_ratio));
    let saved = format!(
        "{} saved, and {}",
        counted(totals.app_requests_saved, "request"),
        seconds(totals.time_saved_s)
    );
    add("origin", &format!("{}, {saved} of waiting", counted(totals.app_requests, "request")));
    if let Some(why) = app(&stats.app, stats.now_ms) {
        add("app", &why);
    }
    add(
        "bodies",
        &format!(
            "{} from the cache, {} from the origin",
            size(totals.bytes_from_cache),
            size(totals.bytes_from_app)
        ),
    );
    add("memory", &memory(&stats.memory));
    add(
        "redis",
        &stats
            .redis
            .as_ref()
            .map_or_else(|| "none: entries are in this process's memory only".to_owned(), redis),
    );
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
    if uncached.templates > 0 {
        let (requests, time) = (counted(uncached.requests, "request"), seconds(uncached.app_s));
        add("no route", &format!("{requests}, {time} in the app: see `sidecache advise`"));
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
    if let Some(error) = &config.error {
        let _ = writeln!(
            text,
            "\nThe file is rejected, the old rules stay in force:\n{}",
            clean_lines(error)
        );
    }
    text
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

fn memory(memory: &ApiMemory) -> String {
    let (bytes, limit) = (size(memory.bytes), size(memory.limit_bytes));
    let entries = if memory.entries == 1 {
        "1 entry".to_owned()
    } else {
        format!("{} entries", memory.entries)
    };
    format!("{entries}, {bytes} of {limit}, {}", counted(memory.evictions, "eviction"))
}

/// How the app fails, if it does.
fn app(app: &ApiApp, now_ms: u64) -> Option<String> {
    let why = app.why.as_ref()?;
    let since = app.since_ms.unwrap_or(now_ms);
    let ago = seconds(Duration::from_millis(now_ms.saturating_sub(since)).as_secs_f64());
    let failures = counted(app.failures, "request");
    let advice = app.advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default();
    Some(format!("FAILS for {ago}, {failures} failed: {why}{advice}"))
}

fn redis(redis: &ApiRedis) -> String {
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

fn sum(requests: &BTreeMap<String, u64>) -> u64 {
    requests.values().fold(0, |sum, count| sum.saturating_add(*count))
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
        "REQUESTS",
        "HIT RATIO",
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
            sum(&route.requests).to_string(),
            percent(route.hit_ratio),
            p50(&route.latency.hit),
            p50(&route.latency.app),
            route.app_requests_saved.to_string(),
            size(route.bytes_from_cache),
            size(route.bytes_from_app),
        ]
    });
    table(head, &[2, 3, 4, 5, 6, 7, 8], rows)
}

/// The lines to change, with what they do and risk; or what the reason means.
fn remedy(route: &ApiRoute, reason: &ApiReason) -> String {
    let Some(lines) = &reason.remedy else { return reason.why.clone().unwrap_or_default() };
    let place = route.line.map(|line| format!("line {line}: ")).unwrap_or_default();
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
