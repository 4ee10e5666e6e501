//! Lint of sources against routes: tags that no route has, and nothing to tell of.

use super::super::context::CompileContext;
use super::super::decode::{Located, TomlString, nearest};
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::template;
use super::view::{LintFile, LintRoute, LintSource, texts};
use crate::policy::template::Template;

/// Checks each source.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for source in &whole.sources {
        taken(source, context);
    }
    if whole.routes.is_empty() {
        return;
    }
    for source in &whole.sources {
        for (template, text) in source.settings.tags.iter().zip(texts(&source.file.tags)) {
            if !whole.routes.iter().any(|route| is_carried(template, route)) {
                dead(text, whole, context);
            }
        }
    }
}

/// Notes which path the origin loses to a webhook.
fn taken(source: &LintSource<'_>, context: &mut CompileContext) {
    let Some(given) = source.file.path.given().filter(|_| source.settings.webhook_path().is_some())
    else {
        return;
    };
    let path = given.value.shown();
    let message = format!("the app gets no POST to `{path}` any more: this source does");
    context.report.push(
        DiagnosticBuilder::note(given.span.clone(), message)
            .hint("choose a path that the app does not have"),
    );
}

/// Whether some source can tell of entries of this route.
pub(super) fn tells_of(route: &LintRoute<'_>, whole: &LintFile<'_>) -> bool {
    let mut tags = whole.sources.iter().flat_map(|source| source.settings.tags.iter());
    tags.any(|tag| is_carried(tag, route))
}

/// Whether entries of a route may have a tag of a source. What fills its fields is no request, so
/// that the pattern of the route says nothing of them.
fn is_carried(tag: &Template, route: &LintRoute<'_>) -> bool {
    let pattern = &route.spec.pattern;
    route.spec.tags.iter().any(|own| template::overlap((own, pattern), (tag, pattern)))
}

/// Warns about a tag that no route has.
fn dead(text: &Located<TomlString>, whole: &LintFile<'_>, context: &mut CompileContext) {
    if whole.origin_sends_tags {
        return;
    }
    let message =
        format!("no route has a tag that matches `{}`, so this purges nothing", text.value.shown());
    let builder = DiagnosticBuilder::warning(text.span.clone(), message);
    let known: Vec<&str> = whole
        .routes
        .iter()
        .flat_map(|route| texts(&route.file.tags))
        .filter(|tag| !tag.value.is_from_environment())
        .map(|tag| tag.value.as_str())
        .collect();
    // SECURITY: values of variables may be secret.
    let near = nearest(text.value.as_str(), &known).filter(|_| !text.value.is_from_environment());
    context.report.push(match near {
        Some(near) => builder.hint(format!(
            "did you mean \"{near}\"? Its fields are then members of the object that is told"
        )),
        None => builder.hint(
            "write a tag of a route, with its fields named as the source names them; if the \
             origin sends it, declare response_headers in [tags]",
        ),
    });
}
