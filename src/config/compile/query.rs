//! Compiles `query` of a route.

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::{self, QueryForm, QuerySection};
use crate::policy::field::FieldSource;
use crate::policy::glob::Glob;
use crate::policy::query_rule::{MostParameters, QueryOrder, QueryRule};
use crate::policy::route::RouteSpec;
use crate::policy::template::Template;

/// What is allowed as the name of a parameter.
const NAME_FORM: &str = "names without `*`, `?`, `&`, `=`";

/// `query` of a route.
pub(super) fn query(form: &QueryForm, context: &mut CompileContext) -> QueryRule {
    match form {
        QueryForm::All => QueryRule::All,
        QueryForm::None => QueryRule::None,
        QueryForm::Only(list) => QueryRule::Only(context.names(&list.0, parameter).into()),
        QueryForm::Table(section) => table(section, context),
    }
}

fn table(section: &QuerySection, context: &mut CompileContext) -> QueryRule {
    let order = section.order.get().map_or(QueryOrder::Keep, |word| word.0);
    let except = section.except.given();
    if let Some(only) = section.only.given() {
        if let Some(except) = except {
            let message = "`only` and `except` contradict each other";
            let builder = DiagnosticBuilder::error(except.span.clone(), message);
            context.report.push(
                builder.hint("remove one of the two: `only` leaves out all that it does not name"),
            );
        }
        if let (QueryOrder::Ignore, Some(order)) = (order, section.order.given()) {
            let message = "`order` has no effect with `only`: the origin gets the parameters in \
                           the order of the list";
            let builder = DiagnosticBuilder::warning(order.span.clone(), message);
            context.report.push(builder.hint("remove it"));
        }
        return QueryRule::Only(context.names(&only.value.0, parameter).into());
    }
    let globs = except.map(|except| context.names(&except.value.0, parameter_glob));
    let except: Box<[Glob]> = globs.unwrap_or_default().into();
    if except.is_empty() && order == QueryOrder::Keep {
        return QueryRule::All;
    }
    QueryRule::Most(MostParameters { except, kept: Box::default(), order })
}

/// Reports parameters that are left out although a field of the key or tags reads them.
pub(super) fn contradictions(
    file: &file::RouteSection,
    spec: &RouteSpec,
    context: &mut CompileContext,
) {
    let Some(QueryForm::Table(section)) = file.query.get() else { return };
    let Setting::Given(except) = &section.except else { return };
    let fields = || spec.key.iter().chain(spec.tags.iter().flat_map(Template::fields));
    for text in &except.value.0 {
        let source = FieldSource::Query(text.value.as_str().into());
        if let Some(field) = fields().find(|field| field.source == source) {
            let message = format!(
                "`{}` is left out, but the field `{}` in the key or tags reads it",
                text.value.shown(),
                field.name
            );
            let hint = "parameters in the key must reach the origin: remove it from `except`, or \
                        the field from the rule";
            context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
        }
    }
}

/// The name of a query parameter. The names are compared decoded, so most text is one.
fn parameter(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let name = text.value.as_str();
    let hint = if name == "*" {
        "write query = \"all\""
    } else if name.contains('*') {
        "write each name, or leave out what matches: query = { except = [\"utm_*\"] }"
    } else if let Some(hint) = not_a_name(name) {
        hint
    } else {
        return Some(name.into());
    };
    malformed(text, NAME_FORM, hint, context);
    None
}

/// A pattern of the names of query parameters.
fn parameter_glob(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Glob> {
    let name = text.value.as_str();
    let hint = if name.bytes().all(|byte| byte == b'*') {
        "write query = \"none\""
    } else if let Some(hint) = not_a_name(name) {
        hint
    } else {
        return Some(Glob::new(name));
    };
    malformed(text, "names without `?`, `&`, `=`, where `*` stands for any text", hint, context);
    None
}

fn not_a_name(name: &str) -> Option<&'static str> {
    (name.starts_with(['?', '&']) || name.ends_with('='))
        .then_some("write only the name, as in [\"page\"]")
}

fn malformed(text: &Located<TomlString>, allowed: &str, hint: &str, context: &mut CompileContext) {
    let what = format!("`{}` is not the name of a query parameter", text.value.shown());
    context.report.malformed(text, "the name of a query parameter", what, Some(allowed), hint);
}
