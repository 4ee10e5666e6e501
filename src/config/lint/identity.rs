//! Lint of `[identity]` and of the fields that come from what the app says of a caller.

use super::super::context::CompileContext;
use super::super::decode::Located;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::super::file::FieldForm;
use super::view::LintFile;
use crate::policy::template::Template;

/// Checks them.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(section) = whole.file.identity.given() else { return };
    let forms = whole.file.fields.get().map_or(&[][..], |fields| &fields.0);
    let is_read = |form: &Located<FieldForm>| form.value.identity.given().is_some();
    if !forms.iter().any(|(_, form)| form.given().is_some_and(is_read)) {
        let message = "no field is what the app says of the caller, so [identity] has no effect";
        let builder = DiagnosticBuilder::warning(section.span.clone(), message);
        context.report.push(
            builder
                .hint("add a field such as tenant = { identity = \"/tenant/id\" }, or remove it"),
        );
    }
    stale_answers(whole, context);
}

/// Warns where nothing is served while the app is down, although the route says so.
fn stale_answers(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached() {
        let tags = route.spec.tags.iter().flat_map(Template::fields);
        let Some(field) = route.spec.key.iter().chain(tags).find(|it| it.identity().is_some())
        else {
            continue;
        };
        let Some(given) = route.file.stale_if_error.given() else { continue };
        let message = format!(
            "an app that is down does not say `{}` either: nothing stale is served once what it \
             has said of a caller has ended",
            field.name
        );
        let builder = DiagnosticBuilder::note(given.span.clone(), message);
        context.report.push(builder.hint("raise `ttl` of [identity], if that is acceptable"));
    }
}
