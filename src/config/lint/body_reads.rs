//! Lint of routes that answer requests with a body.

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::LintFile;

/// Warns where a purge rule for mutations is not for POST.
pub fn check_mutations(whole: &LintFile<'_>, context: &mut CompileContext) {
    for purge in whole.purges.iter().filter(|purge| purge.rule.mutations.is_some()) {
        let Some(given) = purge.file.methods.given() else { continue };
        if purge.rule.methods.as_deref().is_none_or(|all| all.contains(&http::Method::POST)) {
            continue;
        }
        let message = "mutations of GraphQL come by POST, for which this rule is not";
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("add \"POST\", or remove `methods`"),
        );
    }
}

/// Warns where a purge rule takes for a write what a route takes for a read.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached() {
        let given = route.file.methods.given().map(|given| &given.span);
        let Some(given) = given.or(route.file.graphql.given().map(|given| &given.span)) else {
            continue;
        };
        for method in &route.spec.methods.with_body {
            let names = |methods: &[http::Method]| methods.contains(method);
            let rule = whole.purges.iter().find(|purge| {
                purge.rule.methods.as_deref().is_some_and(names)
                    && purge.rule.mutations.is_none()
                    && purge.rule.conditions.is_empty()
                    && purge.rule.except.is_empty()
                    && purge.may_cover(route)
            });
            let Some(rule) = rule else { continue };
            let place = context.report.source().line_for(rule.path, given);
            let message = format!(
                "the purge rule at {place} names {method}, so that each {method} for which \
                 both are made is a write: it always reaches the app, and purges"
            );
            context.report.push(DiagnosticBuilder::warning(given.clone(), message).hint(
                "name the route's path in `except` of the rule, or leave `methods` out of it: a \
                 rule without the key is not for what a route says is read-only",
            ));
        }
    }
}
