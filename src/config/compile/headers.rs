//! Compiles `drop_headers` and `pass_headers` of a route. What is dropped may be a pattern; what is
//! passed is named one by one, because it reaches the origin without a place in the key, and so
//! chooses what is stored for others.

use std::str::FromStr as _;
use std::sync::Arc;

use http::HeaderName;
use http::header::ACCEPT_ENCODING;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::field::Field;
use crate::policy::glob::Glob;
use crate::policy::route::RouteSpec;
use crate::policy::template::Template;

/// The least text of a pattern besides its stars: with less it would match almost everything.
const MIN_PATTERN: usize = 3;

/// A pattern of the names of headers, in lower case as they are.
pub(super) fn glob(text: &str) -> Glob {
    Glob::new(&text.to_ascii_lowercase())
}

/// `drop_headers`.
pub(super) fn dropped(
    slot: &Setting<TomlList<TomlString>>,
    context: &mut CompileContext,
) -> Box<[Glob]> {
    slot.get().map(|list| context.names(&list.0, pattern)).unwrap_or_default().into()
}

/// `pass_headers`.
pub(super) fn passed(
    slot: &Setting<TomlList<TomlString>>,
    context: &mut CompileContext,
) -> Box<[HeaderName]> {
    slot.get().map(|list| context.names(&list.0, name)).unwrap_or_default().into()
}

fn pattern(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Glob> {
    let shown = text.value.as_str();
    if !shown.contains('*') {
        return context.header(text).map(|name| Glob::new(name.as_str()));
    }
    let plain = shown.replace('*', "");
    let hint = if plain.trim_matches('-').len() < MIN_PATTERN {
        "write more of the name; unknown_headers = \"drop\" withholds all that no rule names"
    } else if HeaderName::from_str(&plain).is_err() {
        "write it as \"x-datadog-*\""
    } else {
        return Some(glob(shown));
    };
    let what = format!("`{}` is not a pattern of header names", text.value.shown());
    let allowed = Some("letters, digits and `-`, where `*` stands for any text");
    context.report.malformed(text, "a pattern of header names", what, allowed, hint);
    None
}

fn name(context: &mut CompileContext, text: &Located<TomlString>) -> Option<HeaderName> {
    if !text.value.as_str().contains('*') {
        return context.header(text);
    }
    let what = format!(
        "`{}` is a pattern, and headers that reach the origin without a place in the key are named \
         one by one: a pattern would pass names that nobody has thought of, such as one by which \
         the origin knows its callers",
        text.value.shown()
    );
    let hint = "write each name, as in [\"cf-ray\", \"cf-ipcountry\"]; or drop_headers, which may \
                have patterns";
    let allowed = Some("letters, digits and `-`");
    context.report.malformed(text, "a header name", what, allowed, hint);
    None
}

/// Reports headers with contradictory treatment.
pub(super) fn contradictions(
    file: &file::RouteSection,
    spec: &RouteSpec,
    context: &mut CompileContext,
) {
    let fields: Vec<&Arc<Field>> =
        spec.key.iter().chain(spec.tags.iter().flat_map(Template::fields)).collect();
    let reads_response = spec.tags.iter().any(Template::reads_response);
    for text in file.pass_headers.get().map_or(&[][..], |list| &list.0) {
        if reads_response && text.value.as_str().eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()) {
            let message = "tags are read from the response, and with this header the app may \
                           compress it";
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            context.report.push(builder.hint("remove it: a compressed response is not stored"));
        }
    }
    for text in file.drop_headers.get().map_or(&[][..], |list| &list.0) {
        let (glob, shown) = (glob(text.value.as_str()), text.value.shown());
        let covers = |name: &HeaderName| glob.matches(name.as_str().as_bytes());
        if let Some(name) = spec.pass_headers.iter().find(|name| covers(name)) {
            let message = if glob.is_literal() {
                format!("`{shown}` is both in drop_headers and in pass_headers")
            } else {
                format!(
                    "`{shown}` matches `{name}`, so that it is both in drop_headers and in \
                         pass_headers"
                )
            };
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            context.report.push(builder.hint("remove it from one of the two"));
        }
        let read = |field: &&&Arc<Field>| field.header().is_some_and(covers);
        if let Some(field) = fields.iter().find(read) {
            let message = format!(
                "`{shown}` is withheld from the origin, but the field `{}` in the key or tags \
                 reads it",
                field.name
            );
            let hint = "headers in the key must reach the origin: remove it from drop_headers, or \
                        the field from the rule";
            context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
        }
    }
}
