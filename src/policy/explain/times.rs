//! How long an entry is served, in words.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;

use crate::clock::Wall;
use crate::policy::explain::lines::{ExplainLines, FRESH_FOR};
use crate::policy::route::{Collapse, RouteSpec};
use crate::semantics::storability::OriginRule;
use crate::semantics::ttl::TtlRule;

pub(super) fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// The `ttl` of a route: `300s`, or `300s for 200, 10s for 404`.
fn of_statuses(ttl: &TtlRule) -> String {
    if let Some(plain) = ttl.plain() {
        return seconds(plain);
    }
    let each =
        |(status, ttl): (StatusCode, Duration)| format!("{} for {}", seconds(ttl), status.as_str());
    ttl.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// How long an entry is served. Settings at their default are left out.
pub(super) fn explain_times(lines: &mut ExplainLines, spec: &RouteSpec, now: Wall) {
    let freshness = if spec.ttl.is_empty() {
        "as the origin says".to_owned()
    } else {
        let less = if spec.jitter.is_zero() {
            String::new()
        } else {
            format!(", less a random time of up to {}", seconds(spec.jitter))
        };
        let ttl = format!("{}{less}", of_statuses(&spec.ttl));
        match spec.origin {
            OriginRule::Respect => format!("as the origin says, else {ttl} (origin = respect)"),
            OriginRule::Ignore => format!("{ttl}, whatever the origin says (origin = ignore)"),
        }
    };
    lines.line(FRESH_FOR, freshness);
    if let Some(end) = spec.expires_at {
        let next = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(end.next(now).0));
        let stale = if spec.stale_if_error.is_some_and(|window| !window.is_zero()) {
            "; after it, stale in place of an error alone"
        } else {
            ""
        };
        lines.line("fresh until", format!("{end} at most, next {next} (expires_at){stale}"));
    }
    if let Some(browser) = spec.browser {
        lines.line("clients are told", browser.explained());
    }
    let windows = [
        (spec.stale_while_revalidate, "while it is refreshed"),
        (spec.stale_if_error, "in place of an error of the origin"),
    ];
    for (window, purpose) in windows {
        let words = match window {
            None => continue,
            Some(Duration::ZERO) => {
                format!("never {purpose}, where the origin gives no time for it")
            }
            Some(window) => {
                format!("for {} {purpose}, where the origin gives no time for it", seconds(window))
            }
        };
        lines.line("stale", words);
    }
    if !spec.early_refresh {
        lines.line("refresh", "only after it has expired (early_refresh = false)");
    }
    if let Some(after) = spec.revalidate_after {
        let words =
            format!("the origin has confirmed it to its caller in the last {}", seconds(after));
        lines.line("served while", words);
    }
    if spec.collapse == Collapse::Cluster {
        lines.line("collapse", "cluster: one fill per key among all sidecars that share the Redis");
    }
}
