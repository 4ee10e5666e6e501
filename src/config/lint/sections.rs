//! Lint of the sections: whom the sidecar believes, what it tells strangers, room for tags, and the
//! times of `[redis]` against each other.

use std::time::Duration;

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::super::file;
use super::{CompiledParts, LintFile, texts};
use crate::redis::{OnLoss, RedisSettings};
use crate::units::show_duration;

/// How long a sidecar that has lost Redis may take to try again: less of a grace, and its purges
/// may come too late.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(250);

/// For longer than this nobody expects to be shown what another sidecar has purged.
const LONG_WITHOUT_REDIS: Duration = Duration::from_mins(1);

/// Looks at the sections.
pub fn check(whole: &LintFile<'_>, parts: &CompiledParts<'_>, context: &mut CompileContext) {
    trust(whole, context);
    debug(whole, context);
    if let Some(limits) = parts.limits {
        tags(whole, limits.tags, context);
    }
    if let (Some(settings), Some(section)) = (parts.redis, whole.file.redis.given()) {
        redis(settings, &section.value, context);
    }
}

/// `trusted_proxies` that is everybody.
fn trust(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(listen) = whole.file.listen.given() else { return };
    for text in texts(&listen.value.trusted_proxies)
        .iter()
        .filter(|text| text.value.as_str().ends_with("/0"))
    {
        let message = "this is every address: any client can say by X-Forwarded-Host which site it asks for, and by X-Forwarded-For who it is";
        let hint = "name the proxy in front alone, as in trusted_proxies = [\"127.0.0.1\"]";
        context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
    }
}

/// Debug headers for strangers.
fn debug(whole: &LintFile<'_>, context: &mut CompileContext) {
    let address = whole.file.listen.get().and_then(|listen| listen.address.get());
    let local = address.is_none_or(|text| {
        text.as_str().parse().is_ok_and(|address: std::net::SocketAddr| address.ip().is_loopback())
    });
    let headers = whole.file.debug.get().and_then(|debug| debug.headers.given());
    if let (Some(given), false) = (headers.filter(|given| given.value), local) {
        let message =
            "responses tell keys, tags and routes, and [listen] is open beyond this machine";
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("write headers = false; `sidecache explain` tells the same"),
        );
    }
}

/// Routes that use up the room for tags.
fn tags(whole: &LintFile<'_>, most: usize, context: &mut CompileContext) {
    for route in whole.cached() {
        // The one of the url is there besides.
        let own = route.spec.tags.len() + 1;
        if let (true, Some(given)) = (own >= most, route.file.tags.given()) {
            let message = format!(
                "with that of the url these are {own} tags, and [limits] tags is {most}: a response that names one more is not stored"
            );
            context.report.push(
                DiagnosticBuilder::warning(given.span.clone(), message)
                    .hint(format!("write tags = {} in [limits]", own.saturating_mul(2).max(64))),
            );
        }
    }
}

/// The times of `[redis]`.
fn redis(settings: &RedisSettings, file: &file::RedisSection, context: &mut CompileContext) {
    let mut push =
        |at: &super::super::diagnostics::diagnostic::SourceSpan, message: String, hint: String| {
            context.report.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint));
        };
    if let Some(given) = file.degraded_ttl.given() {
        if settings.on_redis_loss == OnLoss::Bypass {
            push(
                &given.span,
                "`degraded_ttl` has no effect with on_redis_loss = \"bypass\"".into(),
                "remove one of the two".into(),
            );
        } else if settings.degraded_ttl > LONG_WITHOUT_REDIS {
            let shown = show_duration(settings.degraded_ttl);
            let message = format!(
                "without Redis this sidecar shows for {shown} what was written through another one"
            );
            push(&given.span, message, "write degraded_ttl = \"2s\"".into());
        }
    }
    // A heartbeat goes out every quarter of the lease, and must be back before the lease ends.
    let most = settings.lease * 3 / 4;
    if settings.deadline > most {
        let at = file
            .deadline
            .given()
            .map(|given| &given.span)
            .or_else(|| file.lease.given().map(|given| &given.span));
        let (deadline, lease) = (show_duration(settings.deadline), show_duration(settings.lease));
        let message = format!(
            "a Redis that takes its deadline of {deadline} cannot renew a lease of {lease} in time: hits from memory would ask it one by one"
        );
        let hint = format!(
            "write lease = \"{}\", or a shorter deadline",
            show_duration(settings.deadline * 4)
        );
        if let Some(at) = at {
            push(at, message, hint);
        }
    }
    if let Some(given) =
        file.rejoin_grace.given().filter(|_| settings.rejoin_grace < MAX_RETRY_DELAY)
    {
        let message = "the other sidecars may take longer than this to find Redis again, and to tell it what they purged meanwhile";
        push(&given.span, message.into(), "write rejoin_grace = \"1s\"".into());
    }
}
