//! Tags about GraphQL: what clients name as they like does not tell what is read or written.

use crate::config::context::CompileContext;
use crate::config::decode::{Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::field::FieldSource;
use crate::policy::template::Template;

/// Reports tags of an endpoint that read the body or the answer.
///
/// SECURITY: a document need not use a variable, and names the members of its answer by aliases.
pub(super) fn check_route(
    file: &file::RouteSection,
    tags: &[Template],
    context: &mut CompileContext,
) {
    if !file.graphql.get().is_some_and(|is| *is) {
        return;
    }
    let hint = "let the tags of this route be constant, or take their fields from a header, \
                cookie, token or path";
    report(&file.tags, tags, context, |source| match source {
        FieldSource::Body(_) => Some((
            "the body of a GraphQL request, where clients name and use variables as they like",
            hint,
        )),
        FieldSource::Response(_) => Some((ANSWER, hint)),
        _ => None,
    });
}

/// Reports tags of a rule for mutations that read the answer.
pub(super) fn check_purge(
    file: &file::PurgeSection,
    tags: &[Template],
    context: &mut CompileContext,
) {
    if file.mutations.given().is_none() {
        return;
    }
    report(&file.tags, tags, context, |source| match source {
        FieldSource::Response(_) => Some((
            ANSWER,
            "take it from an argument of the mutation, as in { body = \"/variables/input/id\" } \
             for the argument `input`, or write a tag without fields",
        )),
        _ => None,
    });
}

const ANSWER: &str = "the answer of a GraphQL server, whose members clients name by aliases";

fn report(
    slot: &Setting<TomlList<TomlString>>,
    tags: &[Template],
    context: &mut CompileContext,
    unfit: impl Fn(&FieldSource) -> Option<(&'static str, &'static str)>,
) {
    for text in slot.get().map_or(&[][..], |list| &list.0) {
        let own = tags.iter().find(|template| template.as_str() == text.value.as_str());
        for field in own.into_iter().flat_map(Template::fields) {
            let Some((place, hint)) = unfit(&field.source) else { continue };
            let shown = if text.value.is_from_environment() {
                "a field".to_owned()
            } else {
                format!("`{}`", field.name)
            };
            let at = context.report.source().within(&text.span, &field.name);
            let builder = DiagnosticBuilder::error(at, format!("{shown} comes from {place}"));
            context.report.push(builder.hint(hint));
        }
    }
}
