//! Compiles `methods` and `read_only` of a route: which requests it answers besides GET and HEAD.

use std::str::FromStr as _;
use std::sync::Arc;

use http::Method;
use http::header::CONTENT_TYPE;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::field::{Field, FieldSource};
use crate::policy::route::{AdmitRule, BODY_METHODS, ReadMethods, WHOLE_BODY};

/// The methods of a route.
///
/// SECURITY: that a POST changes nothing is the operator's word, given for one route. So `methods`
/// and `read_only` go together, and `[defaults]` gives neither to all.
pub(super) fn read_methods(file: &file::RouteSection, context: &mut CompileContext) -> ReadMethods {
    if is_graphql(file, context) {
        return ReadMethods { get: true, with_body: [Method::POST].into() };
    }
    let methods = match file.methods.given() {
        None => ReadMethods::default(),
        Some(list) => {
            let named = context.names(&list.value.0, method);
            if list.value.0.is_empty() {
                let builder = DiagnosticBuilder::error(
                    list.span.clone(),
                    "a route without methods answers nothing",
                );
                context.report.push(builder.hint("remove the key: then the route answers GET"));
            }
            let get = named.contains(&Method::GET);
            let with_body = named.into_iter().filter(|method| *method != Method::GET).collect();
            ReadMethods { get, with_body }
        }
    };
    let spans =
        [file.methods.given().map(|it| &it.span), file.read_only.given().map(|it| &it.span)];
    for span in spans.into_iter().flatten() {
        if context.report.is_default(span) {
            let message = "that requests with a body change nothing is said for one route";
            let builder = DiagnosticBuilder::error(span.clone(), message);
            context.report.push(builder.hint("write `methods` and `read_only` in its [[routes]]"));
            return methods;
        }
    }
    let is_read_only = file.read_only.get().is_some_and(|word| *word);
    match (file.methods.given(), methods.with_body.first(), file.read_only.given()) {
        (Some(list), Some(method), _) if !is_read_only => {
            let message = format!("a {method} may change data, and nothing says that it does not");
            context.report.push(DiagnosticBuilder::error(list.span.clone(), message).hint(
                "add read_only = true if the app changes nothing for these requests, whatever \
                 they say",
            ));
        }
        (list, None, Some(given))
            if is_read_only && list.is_none_or(|it| !it.value.0.is_empty()) =>
        {
            let message = "`read_only` has no effect without methods other than GET";
            context.report.push(
                DiagnosticBuilder::error(given.span.clone(), message)
                    .hint("add methods = [\"POST\"], or remove it"),
            );
        }
        _ => {}
    }
    methods
}

/// Whether a route is a GraphQL endpoint. Reports what does not go together with that.
fn is_graphql(file: &file::RouteSection, context: &mut CompileContext) -> bool {
    let Some(given) = file.graphql.given().filter(|given| given.value) else { return false };
    if context.report.is_default(&given.span) {
        let message = "that a path is a GraphQL endpoint is said for one route";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("write `graphql = true` in its [[routes]]"));
        return false;
    }
    for (key, span) in [
        ("methods", file.methods.given().map(|it| &it.span)),
        ("read_only", file.read_only.given().map(|it| &it.span)),
    ] {
        if let Some(span) = span {
            let message = format!("`{key}` has no place beside `graphql`");
            context.report.push(DiagnosticBuilder::error(span.clone(), message).hint(
                "remove it: a GraphQL endpoint answers GET and POST, and the document of a request \
                 says whether it reads",
            ));
        }
    }
    if let Some(admit) = file.admit.given().filter(|it| it.value.0 == AdmitRule::Route) {
        // SECURITY: the status of an answer says nothing of whether the caller may have it.
        let message = "a GraphQL server answers 200 to callers whom it refuses";
        context.report.push(
            DiagnosticBuilder::error(admit.span.clone(), message)
                .hint("remove `admit`: then a caller is admitted to what it was given itself"),
        );
    }
    true
}

/// The body in the key of a GraphQL endpoint, which needs no word for it.
pub(super) fn add_document(file: &file::RouteSection, key: &mut Vec<Arc<Field>>) {
    let is_there = |field: &Arc<Field>| field.source == FieldSource::Body("".into());
    if file.graphql.get().is_some_and(|is| *is) && !key.iter().any(is_there) {
        key.push(Arc::new(Field::new(WHOLE_BODY, FieldSource::Body("".into()))));
    }
}

fn method(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Method> {
    let (shown, written) = (text.value.shown(), text.value.as_str());
    let upper = written.to_ascii_uppercase();
    let is_known = upper == "GET" || BODY_METHODS.contains(&&*upper);
    let (what, hint) = match &*upper {
        _ if is_known && written == upper => return Method::from_str(&upper).ok(),
        _ if is_known => {
            (format!("methods are upper case, but `{shown}` is not"), format!("write \"{upper}\""))
        }
        "HEAD" => {
            ("`HEAD` goes with GET".to_owned(), "write \"GET\", which is for both".to_owned())
        }
        _ => (format!("`{shown}` is no method of a read"), "remove it".to_owned()),
    };
    let allowed = Some("GET, and with `read_only`: POST, QUERY, PROPFIND, REPORT, SEARCH");
    context.report.malformed(text, "a method of reads", what, allowed, &hint);
    None
}

/// Reports a route that answers requests with a body, and does not have the body in its key.
pub(super) fn requires_body(
    file: &file::RouteSection,
    (methods, key): (&ReadMethods, &[Arc<Field>]),
    context: &mut CompileContext,
) {
    if methods.with_body.is_empty() {
        return;
    }
    let passed = file.pass_headers.get().map_or(&[][..], |list| &list.0);
    let is_type = |text: &&Located<TomlString>| {
        text.value.as_str().eq_ignore_ascii_case(CONTENT_TYPE.as_str())
    };
    // SECURITY: one client's type would decide how the app reads the body for all.
    if let Some(text) = passed.iter().find(is_type) {
        let message = "the type of a body is a part of the key, and cannot pass beside it";
        context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint("remove it"));
    }
    let Some(given) = file.methods.given() else { return };
    let listed = file.key.get().map_or(0, |list| list.0.len());
    let has_body = key.iter().any(|field| matches!(field.source, FieldSource::Body(_)));
    // A field with an error of its own may be the one.
    if has_body || listed != key.len() {
        return;
    }
    let at = file.key.given().map_or(&given.span, |key| &key.span);
    let message = "the body is not in the key, so that all bodies would have one entry";
    context.report.push(
        DiagnosticBuilder::error(at.clone(), message)
            .allowed("\"body\", or fields such as { body = \"/filter/id\" }")
            .hint("write key = [\"body\"]"),
    );
}
