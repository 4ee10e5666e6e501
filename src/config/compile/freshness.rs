//! Compiles the settings of a route that decide when the origin is asked, by the cache and by
//! clients: `ttl` and its jitter, the stale windows, early refresh, collapsing, `browser`. Knows
//! nothing of keys and scopes.

use std::time::Duration;

use http::StatusCode;

use crate::config::context::CompileContext;
use crate::config::decode::{BrowserForm, Located, Period, Setting, TtlForm};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::error::Malformed;
use crate::policy::route::{Collapse, RouteMode};
use crate::semantics::browser::BrowserRule;
use crate::semantics::daily_end::DailyEnd;
use crate::semantics::ttl::{TtlRule, is_understood};
use crate::units::show_duration;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(8760);

/// When the origin is asked; the fields are those of `RouteSpec`.
pub struct FreshnessSettings {
    /// The freshness if the origin gives none.
    pub ttl: TtlRule,
    /// The time of day at which everything ends.
    pub expires_at: Option<DailyEnd>,
    /// What clients are told in place of what the origin says.
    pub browser: Option<BrowserRule>,
    /// How long a stale entry may be served while it is refreshed.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale entry may be served in place of an error.
    pub stale_if_error: Option<Duration>,
    /// How much `ttl` may be shortened by.
    pub jitter: Duration,
    /// Whether popular entries are refreshed before they expire.
    pub early_refresh: bool,
    /// Which sidecars share one fill per key.
    pub collapse: Collapse,
}

/// Compiles them. `shared` is the `collapse` of `[redis]`; none without `[redis]`.
pub fn freshness_settings(
    file: &file::RouteSection,
    shared: Option<Collapse>,
    context: &mut CompileContext,
) -> FreshnessSettings {
    let expires_at = expires_at(file, context);
    let mut ttl = ttl(&file.ttl, context);
    if expires_at.is_some() && matches!(file.ttl, Setting::Absent) {
        // The time of day shortens it.
        ttl.ok = Some(DAY);
    }
    FreshnessSettings {
        expires_at,
        browser: browser(&file.browser, context),
        stale_while_revalidate: window(
            "stale_while_revalidate",
            &file.stale_while_revalidate,
            file,
            context,
        ),
        stale_if_error: window("stale_if_error", &file.stale_if_error, file, context),
        jitter: jitter(file, &ttl, context),
        ttl,
        early_refresh: file.early_refresh.get().is_none_or(|early| *early),
        collapse: collapse(file, shared, context),
    }
}

/// `ttl`, which an invalid value makes no less there.
fn ttl(slot: &Setting<TtlForm>, context: &mut CompileContext) -> TtlRule {
    match slot {
        Setting::Absent | Setting::Default(_) => TtlRule::default(),
        Setting::Bad => TtlRule { ok: Some(Duration::ZERO), ..TtlRule::default() },
        Setting::Given(Located { span, value: TtlForm::Plain(period) }) => {
            context.in_range(span, period.0, MS, YEAR, show_duration);
            TtlRule { ok: Some(period.0), ..TtlRule::default() }
        }
        Setting::Given(Located { value: TtlForm::ByStatus(list), .. }) => by_status(list, context),
    }
}

/// The time of day at which everything ends.
fn expires_at(file: &file::RouteSection, context: &mut CompileContext) -> Option<DailyEnd> {
    let given = file.expires_at.given()?;
    DailyEnd::parse(given.value.as_str())
        .map_err(|Malformed { hint, .. }| {
            // SECURITY: a variable is shown by its name.
            let shown = given.value.shown();
            let shown_problem = DailyEnd::parse(shown).err();
            let what = shown_problem
                .map_or_else(|| format!("`{shown}` is not a time of day"), |problem| problem.what);
            let allowed = Some("\"03:00\" by UTC, or \"03:00+01:00\"");
            context.report.malformed(given, "a time of day", what, allowed, &hint);
        })
        .ok()
}

fn by_status(list: &[(Located<String>, Located<Period>)], context: &mut CompileContext) -> TtlRule {
    let (mut ok, mut others) = (None, Vec::new());
    for (name, period) in list {
        context.in_range(&period.span, period.value.0, MS, YEAR, show_duration);
        match status(name, context) {
            Some(StatusCode::OK) => ok = Some(period.value.0),
            Some(status) => others.push((status, period.value.0)),
            None => {}
        }
    }
    others.sort_unstable_by_key(|(status, _)| *status);
    TtlRule { ok, others: others.into() }
}

/// A status that the cache may store by the operator's word alone.
fn status(name: &Located<String>, context: &mut CompileContext) -> Option<StatusCode> {
    let known = name.value.parse::<StatusCode>().ok();
    if let Some(status) = known.filter(|status| is_understood(*status)) {
        return Some(status);
    }
    let (what, hint) = match known.map(|status| status.as_u16()) {
        None => (
            format!("`{}` is not a status", name.value),
            "write three digits for each status: ttl = { 200 = \"5m\", 404 = \"10s\" }",
        ),
        Some(206 | 304) => (
            format!("a {} is a part of an exchange about another response", name.value),
            "write 200: parts of what is stored, and 304, are made of it",
        ),
        Some(401 | 403 | 407) => (
            format!("a {} is the answer to one caller", name.value),
            "remove it: such responses are never stored by the word of a route",
        ),
        Some(429 | 500..=599) => (
            format!("a {} says how the origin is now, not what the resource is", name.value),
            "remove it; `stale_if_error` serves what is stored in place of errors",
        ),
        Some(_) => (
            format!("a {} is not stored by the word of a route", name.value),
            "remove it; what the origin marks as cacheable itself is stored anyway",
        ),
    };
    let builder = DiagnosticBuilder::error(name.span.clone(), what);
    context.report.push(
        builder
            .allowed("200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 451 and 501")
            .hint(hint),
    );
    None
}

fn browser(slot: &Setting<BrowserForm>, context: &mut CompileContext) -> Option<BrowserRule> {
    let given = slot.given()?;
    let BrowserForm::For(Period(time)) = given.value else { return Some(BrowserRule::NoStore) };
    context.in_range(&given.span, time, Duration::ZERO, YEAR, show_duration);
    if time.subsec_nanos() != 0 {
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            format!("clients are told whole seconds, and this is {}", show_duration(time)),
        );
        let hint = format!("write browser = \"{}s\"", time.as_secs().max(1));
        context.report.push(builder.allowed("\"no-store\", or whole seconds").hint(hint));
    }
    Some(BrowserRule::For(time))
}

/// A window that starts when an entry becomes stale.
fn window(
    key: &str,
    slot: &Setting<Period>,
    file: &file::RouteSection,
    context: &mut CompileContext,
) -> Option<Duration> {
    let given = slot.given()?;
    let window = context.period(slot, Duration::ZERO, YEAR);
    let is_off = file.mode.get().is_some_and(|word| word.0 == RouteMode::Off);
    if is_off && !context.report.is_default(&given.span) {
        let builder = DiagnosticBuilder::warning(
            given.span.clone(),
            format!("`{key}` has no effect with mode \"off\""),
        );
        context.report.push(builder.hint("remove one of the two"));
    }
    Some(window)
}

fn jitter(file: &file::RouteSection, ttl: &TtlRule, context: &mut CompileContext) -> Duration {
    let Some(given) = file.jitter.given() else { return Duration::ZERO };
    // What `[defaults]` says may be for routes with a `ttl`.
    if matches!(file.ttl, Setting::Absent) && context.report.is_default(&given.span) {
        return Duration::ZERO;
    }
    let builder = match (&file.ttl, ttl.iter().map(|(_, ttl)| ttl).min()) {
        (Setting::Absent, _) => {
            DiagnosticBuilder::error(given.span.clone(), "`jitter` needs a `ttl` to shorten")
                .hint("add ttl = \"5m\"")
        }
        // A `ttl` out of range has been reported and cannot be compared with.
        (Setting::Given(_), Some(ttl)) if (MS..=YEAR).contains(&ttl) && given.value.0 >= ttl => {
            let builder =
                DiagnosticBuilder::error(given.span.clone(), "`jitter` must be shorter than `ttl`");
            builder
                .allowed("less than the `ttl` of this route, of each status")
                .hint("a tenth of the `ttl` is enough to spread expiry times")
        }
        _ => return given.value.0,
    };
    context.report.push(builder);
    Duration::ZERO
}

fn collapse(
    file: &file::RouteSection,
    shared: Option<Collapse>,
    context: &mut CompileContext,
) -> Collapse {
    let own = file.collapse.get().map(|word| word.0);
    if let (Some(Collapse::Cluster), None, Some(given)) = (own, shared, file.collapse.given()) {
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            "collapse = \"cluster\" needs a [redis] that the sidecars share",
        );
        context.report.push(
            builder
                .allowed("\"process\" without [redis]")
                .hint("add [redis] with a url, or remove this"),
        );
    }
    own.or(shared).unwrap_or(Collapse::Process)
}
