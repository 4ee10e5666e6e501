//! Compiles the settings of a route that decide when the origin is asked: `ttl` and its jitter, the
//! stale windows, early refresh, collapsing. Knows nothing of keys and scopes.

use std::time::Duration;

use crate::config::context::CompileContext;
use crate::config::decode::{Period, Setting};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::route::{Collapse, RouteMode};

const MS: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_hours(8760);

/// When the origin is asked; the fields are those of `RouteSpec`.
pub struct FreshnessSettings {
    /// The freshness if the origin gives none.
    pub ttl: Option<Duration>,
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
    let ttl = (!matches!(file.ttl, Setting::Absent)).then(|| context.period(&file.ttl, MS, YEAR));
    FreshnessSettings {
        ttl,
        stale_while_revalidate: window(
            "stale_while_revalidate",
            &file.stale_while_revalidate,
            file,
            context,
        ),
        stale_if_error: window("stale_if_error", &file.stale_if_error, file, context),
        jitter: jitter(file, ttl, context),
        early_refresh: file.early_refresh.get().is_none_or(|early| *early),
        collapse: collapse(file, shared, context),
    }
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

fn jitter(
    file: &file::RouteSection,
    ttl: Option<Duration>,
    context: &mut CompileContext,
) -> Duration {
    let Some(given) = file.jitter.given() else { return Duration::ZERO };
    // What `[defaults]` says may be for routes with a `ttl`.
    if matches!(file.ttl, Setting::Absent) && context.report.is_default(&given.span) {
        return Duration::ZERO;
    }
    let builder = match (&file.ttl, ttl) {
        (Setting::Absent, _) => {
            DiagnosticBuilder::error(given.span.clone(), "`jitter` needs a `ttl` to shorten")
                .hint("add ttl = \"5m\"")
        }
        // A `ttl` out of range has been reported and cannot be compared with.
        (Setting::Given(_), Some(ttl)) if (MS..=YEAR).contains(&ttl) && given.value.0 >= ttl => {
            let builder =
                DiagnosticBuilder::error(given.span.clone(), "`jitter` must be shorter than `ttl`");
            builder
                .allowed("less than the `ttl` of this route")
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
