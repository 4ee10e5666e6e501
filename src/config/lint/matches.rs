//! Warns about routes whose `match` no request can meet, because other rules take them all.

use crate::config::context::CompileContext;
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::lint::view::{LintFile, LintRoute};
use crate::policy::request_match::any_request;

/// Warns about routes that take no request.
pub(super) fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.routes.iter().filter(|route| !route.spec.conditions.is_empty()) {
        let conditions = &route.spec.conditions;
        let is_before = |other: &&LintRoute<'_>| {
            let others = &other.spec.conditions;
            other.spec.place != route.spec.place
                && other.spec.ties_by_path(route.spec)
                && others.implies(conditions)
                && !conditions.implies(others)
        };
        let before: Vec<_> =
            whole.routes.iter().filter(is_before).map(|other| &other.spec.conditions).collect();
        let is_taken = !any_request(before.iter().copied().chain([conditions]), |sample| {
            sample.meets(conditions) && !before.iter().any(|narrower| sample.meets(narrower))
        });
        let Some(given) = route.file.r#match.given() else { continue };
        if is_taken {
            let message = "this route can never match: routes with a narrower `match` take all of \
                           its requests";
            let builder = DiagnosticBuilder::warning(given.span.clone(), message);
            context.report.push(builder.hint("remove it, or add the values that are its own"));
        }
        let swallows = whole.purges.iter().find(|purge| {
            purge.rule.is_for_reads()
                && !purge.rule.conditions.is_empty()
                && purge.rule.except.is_empty()
                && conditions.implies(&purge.rule.conditions)
                && purge.contains(route)
        });
        if let Some(purge) = swallows {
            let place = context.report.source().line_for(purge.path, &given.span);
            let message = format!(
                "every GET of this route is a write by the purge rule at {place}, so it never \
                 caches"
            );
            let builder = DiagnosticBuilder::warning(given.span.clone(), message);
            context.report.push(builder.hint("give the two rules different values in `match`"));
        }
    }
}
