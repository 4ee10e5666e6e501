//! The numbers of one frame: what two samples of `/stats` say of the time between them.

use std::cmp::Reverse;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cli::api_types::{ApiRoute, ApiStats, ApiTimes};
use crate::cli::format::sum;

/// What routes are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopSort {
    Requests,
    Misses,
    Time,
    Ratio,
}

/// One frame.
pub(super) struct Frame<'a> {
    pub(super) stats: &'a ApiStats,
    /// The time that rates are of; none for the first frame, and for the one after a restart.
    pub(super) interval: Option<Duration>,
    /// Requests a second, of all routes.
    pub(super) requests_per_s: Option<f64>,
    pub(super) routes: Vec<RouteFrame<'a>>,
    pub(super) sort: TopSort,
}

/// The numbers of a route.
pub(super) struct RouteFrame<'a> {
    pub(super) route: &'a ApiRoute,
    pub(super) requests_per_s: Option<f64>,
    pub(super) misses_per_s: Option<f64>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(now: &'a ApiStats, before: Option<&'a ApiStats>, sort: TopSort) -> Self {
        // After a restart the counts begin anew.
        let before = before.filter(|it| it.started_ms == now.started_ms && it.now_ms < now.now_ms);
        let interval = before.map(|it| Duration::from_millis(now.now_ms - it.now_ms));
        let rate = |later: u64, earlier: u64| {
            interval.map(|interval| per_second(later.saturating_sub(earlier), interval))
        };
        let all = |stats: &'a ApiStats| {
            let unrouted = Some(&stats.unrouted).filter(|it| sum(&it.requests) > 0);
            stats.routes.iter().chain(unrouted)
        };
        let mut routes: Vec<RouteFrame<'a>> = all(now)
            .map(|route| {
                let earlier = before.and_then(|it| all(it).find(|it| it.path == route.path));
                let count =
                    |count: fn(&ApiRoute) -> u64| rate(count(route), earlier.map_or(0, count));
                let (requests_per_s, misses_per_s) = (count(requests), count(misses));
                RouteFrame { route, requests_per_s, misses_per_s }
            })
            .collect();
        routes.sort_by(|one, other| sort.compare(one, other));
        let earlier = before.map_or(0, |it| sum(&it.totals.requests));
        let requests_per_s = rate(sum(&now.totals.requests), earlier);
        Self { stats: now, interval, requests_per_s, routes, sort }
    }

    /// As one object, for programs.
    pub(super) fn json(&self) -> Value {
        let stats = self.stats;
        let routes: Vec<Value> = self.routes.iter().map(RouteFrame::json).collect();
        let tags: Vec<Value> = stats
            .tags
            .iter()
            .map(|it| {
                json!({ "tag": it.tag, "stored": it.stored, "hits": it.hits,
                    "purged": it.purged })
            })
            .collect();
        let redis = stats.redis.as_ref().map(|redis| {
            json!({ "state": redis.state, "lease": redis.lease, "peers": redis.peers,
                "journal": redis.journal, "why": redis.why })
        });
        let (totals, memory) = (&stats.totals, &stats.memory);
        json!({
            "at_ms": stats.now_ms,
            "interval_s": self.interval.map(|interval| interval.as_secs_f64()),
            "uptime_s": stats.uptime_s,
            "mode": stats.mode,
            "status": stats.ready.status,
            "requests_per_s": self.requests_per_s,
            "requests": sum(&totals.requests),
            "hit_ratio": totals.hit_ratio,
            "hit_ratio_all": totals.hit_ratio_all,
            "time_saved_s": totals.time_saved_s,
            "routes": routes,
            "tags": tags,
            "memory": { "entries": memory.entries, "bytes": memory.bytes,
                "limit_bytes": memory.limit_bytes, "evictions": memory.evictions },
            "redis": redis,
            "app": { "why": stats.app.why, "failures": stats.app.failures },
        })
    }
}

impl RouteFrame<'_> {
    /// The most frequent reason, with its subject, and its share of all requests of the route.
    pub(super) fn top_reason(&self) -> Option<(String, f64)> {
        let reason = self.route.reasons.iter().max_by_key(|reason| reason.count)?;
        let words = [Some(reason.reason.as_str()), reason.subject.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        Some((words, share(reason.count, requests(self.route))))
    }

    fn json(&self) -> Value {
        let route = self.route;
        let times = |times: &Option<ApiTimes>| {
            times.as_ref().map(|it| json!({ "p50_ms": it.p50_ms, "p95_ms": it.p95_ms }))
        };
        let reason =
            self.top_reason().map(|(reason, share)| json!({ "reason": reason, "share": share }));
        json!({
            "path": route.path,
            "mode": route.mode,
            "requests_per_s": self.requests_per_s,
            "misses_per_s": self.misses_per_s,
            "requests": requests(route),
            "hit_ratio": route.hit_ratio,
            "hit_ratio_all": route.hit_ratio_all,
            "hit": times(&route.latency.hit),
            "origin": times(&route.latency.app),
            "time_saved_s": route.time_saved_s,
            "top_reason": reason,
        })
    }
}

impl TopSort {
    /// The one of a key.
    pub(super) const fn from_key(key: char) -> Option<Self> {
        match key {
            'r' => Some(Self::Requests),
            'm' => Some(Self::Misses),
            't' => Some(Self::Time),
            'h' => Some(Self::Ratio),
            _ => None,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Misses => "misses",
            Self::Time => "time saved",
            Self::Ratio => "lowest hit ratio",
        }
    }

    fn compare(self, one: &RouteFrame<'_>, other: &RouteFrame<'_>) -> std::cmp::Ordering {
        let most = |of: fn(&RouteFrame<'_>) -> f64| of(other).total_cmp(&of(one));
        let first = match self {
            Self::Requests => most(|it| it.requests_per_s.unwrap_or(0.0)),
            Self::Misses => most(|it| it.misses_per_s.unwrap_or(0.0))
                .then(Reverse(misses(one.route)).cmp(&Reverse(misses(other.route)))),
            Self::Time => most(|it| it.route.time_saved_s),
            // A route without a ratio comes last.
            Self::Ratio => {
                let ratio = |it: &RouteFrame<'_>| it.route.hit_ratio.unwrap_or(2.0);
                ratio(one).total_cmp(&ratio(other))
            }
        };
        first.then(Reverse(requests(one.route)).cmp(&Reverse(requests(other.route))))
    }
}

fn requests(route: &ApiRoute) -> u64 {
    sum(&route.requests)
}

fn misses(route: &ApiRoute) -> u64 {
    route.requests.get("MISS").copied().unwrap_or(0)
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, interval: Duration) -> f64 {
    count as f64 / interval.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people to read")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sample at this time, of two routes with these requests.
    pub(crate) fn sample(now_ms: u64, one: (u64, u64), other: (u64, u64)) -> ApiStats {
        let route = |path: &str, (hits, misses): (u64, u64), saved: f64, ratio: Option<f64>| {
            json!({
                "path": path, "mode": "on", "requests": { "HIT": hits, "MISS": misses },
                "hit_ratio": ratio, "time_saved_s": saved,
                "latency": { "hit": { "p50_ms": 0.05, "p95_ms": 0.2 }, "app": null },
                "reasons": [
                    { "disposition": "MISS", "reason": "not stored", "count": 1 },
                    { "disposition": "BYPASS", "reason": "missing field",
                        "subject": "te\u{1b}[2Jnant", "count": 5 },
                ],
            })
        };
        let stats = json!({
            "version": "0.1.0", "started_ms": 5, "now_ms": now_ms, "uptime_s": 64.0, "mode": "on",
            "totals": {
                "requests": { "HIT": one.0 + other.0, "MISS": one.1 + other.1 },
                "hit_ratio": 0.5,
            },
            "routes": [
                route("/one", one, 1.0, Some(0.9)),
                route("/other/{id}", other, 9.0, Some(0.1)),
            ],
            "unrouted": { "path": "none", "requests": {} },
            "tags": [{ "tag": "a\u{1b}[2J", "stored": 1, "hits": 2, "purged": 3 }],
            "ready": { "status": "ready" },
        });
        serde_json::from_value(stats).expect("statistics")
    }

    fn names<'a>(frame: &Frame<'a>) -> Vec<&'a str> {
        frame.routes.iter().map(|it| it.route.path.as_str()).collect()
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let (before, now) = (sample(1000, (10, 0), (5, 1)), sample(3000, (14, 0), (15, 3)));
        let frame = Frame::new(&now, Some(&before), TopSort::Requests);
        assert_eq!(frame.interval, Some(Duration::from_secs(2)));
        assert_eq!((frame.requests_per_s, names(&frame)), (Some(8.0), vec!["/other/{id}", "/one"]));
        let busiest = &frame.routes[0];
        assert_eq!((busiest.requests_per_s, busiest.misses_per_s), (Some(6.0), Some(1.0)));
        assert_eq!(frame.json()["routes"][0]["top_reason"]["share"], json!(5.0 / 18.0));
    }

    #[test]
    fn a_first_sample_and_a_restart_have_no_rates() {
        let (before, mut now) = (sample(1000, (10, 0), (5, 1)), sample(3000, (1, 0), (1, 3)));
        assert_eq!(Frame::new(&now, None, TopSort::Requests).requests_per_s, None);
        now.started_ms = 2000;
        let frame = Frame::new(&now, Some(&before), TopSort::Misses);
        assert_eq!((frame.interval, frame.routes[0].misses_per_s), (None, None));
        assert_eq!(frame.json()["requests_per_s"], Value::Null);
    }

    #[test]
    fn routes_are_sorted_by_what_is_wanted() {
        let (before, now) = (sample(1000, (0, 0), (0, 0)), sample(2000, (9, 1), (1, 3)));
        for (sort, first) in [
            (TopSort::Requests, "/one"),
            (TopSort::Misses, "/other/{id}"),
            (TopSort::Time, "/other/{id}"),
            (TopSort::Ratio, "/other/{id}"),
        ] {
            assert_eq!(names(&Frame::new(&now, Some(&before), sort))[0], first, "{sort:?}");
        }
    }
}
