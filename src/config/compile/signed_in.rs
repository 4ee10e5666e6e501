//! Compiles `signed_in` of a route, and checks what else the route says of its guests.

use std::sync::Arc;

use super::credential::cookie_glob;
use super::fields::{FieldLookup, FieldTable};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, StripForm, TomlString, nearest};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::cookie_purpose::is_form_token;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::jwt::{TokenField, TokenPlace};
use crate::policy::route::RouteSpec;
use crate::policy::scope::Scope;
use crate::policy::signed_in::SignedIn;
use crate::policy::template::Template;

/// How many names of cookies a route may have: each is compared with each cookie of a request.
const MAX_COOKIES: usize = 32;

/// What fields `signed_in` may name.
const FIELDS: &str = "a field with `pointer` into a signed session, or with `jwt` and `cookie`";

/// `signed_in` of a route. The outer `None` is an error.
#[allow(clippy::option_option, reason = "an error, or a route without guests")]
pub(super) fn signed_in(
    file: &file::RouteSection,
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Option<Option<SignedIn>> {
    let Some(given) = file.signed_in.given() else {
        return matches!(file.signed_in, Setting::Absent).then_some(None);
    };
    let is_public = file.scope.get().is_some_and(|word| word.0 == Scope::Public);
    if is_public && context.report.is_default(&given.span) {
        // What `[defaults]` says is for the other routes.
        return Some(None);
    }
    let form = &given.value;
    let cookies = match form.cookie.given() {
        None => Vec::new(),
        Some(names) if names.value.0.len() > MAX_COOKIES => {
            let message =
                format!("more than {MAX_COOKIES} names: each is compared with each cookie");
            let builder = DiagnosticBuilder::error(names.span.clone(), message);
            context.report.push(builder.hint("use globs: \"wordpress_logged_in_*\""));
            return None;
        }
        Some(names) => context.names(&names.value.0, cookie_glob),
    };
    let field = match form.field.given() {
        None => None,
        Some(text) => Some(fit_field(text, fields, context)?),
    };
    if cookies.is_empty() && field.is_none() {
        if !form.unknown.0.is_empty() || matches!(form.cookie, Setting::Bad) {
            return None;
        }
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            "nothing says who is signed in, so that nobody would be",
        );
        context.report.push(
            builder
                .allowed("`cookie`, `field`, or both")
                .hint("name the cookie that the app sets at a login: { cookie = \"…\" }"),
        );
        return None;
    }
    Some(Some(SignedIn::new(cookies.into(), field)))
}

/// A field whose value is missing only where the app knows no user.
fn fit_field(
    text: &Located<TomlString>,
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Option<Arc<Field>> {
    let name = text.value.as_str();
    let field = match fields.lookup(name) {
        FieldLookup::Found(field) => field,
        // It is there, and what is wrong with it has been reported.
        FieldLookup::Lost => return None,
        FieldLookup::Unknown => {
            let known: Vec<&str> = fields.names().collect();
            let near = nearest(name, &known).filter(|_| !text.value.is_from_environment());
            let hint = near.map_or_else(
                || format!("declare it in [fields]: {FIELDS}"),
                |near| format!("did you mean \"{near}\"?"),
            );
            let what = format!("`{}` is no field", text.value.shown());
            context.report.malformed(text, "a field", &what, Some(FIELDS), &hint);
            return None;
        }
    };
    let is_fit = match &field.source {
        FieldSource::Session(rule) => rule.settings.pointer.is_some(),
        FieldSource::Jwt(TokenField { place: TokenPlace::Cookie(_), .. }) => true,
        _ => false,
    };
    if !is_fit {
        let message = match &field.source {
            FieldSource::Cookie(name) => {
                let hint = format!("write signed_in = {{ cookie = \"{name}\" }}");
                let message = format!("`{name}` is the field of a cookie");
                let builder = DiagnosticBuilder::error(text.span.clone(), message);
                context.report.push(builder.allowed(FIELDS).hint(hint));
                return None;
            }
            FieldSource::Session(_) => {
                "every guest with a session has a value here: the field has no `pointer`"
            }
            _ => "this field does not tell who is signed in",
        };
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.allowed(FIELDS).hint(
            "nobody with `Authorization` or a header of [credential] is a guest anyway; for the \
             rest, name a cookie",
        ));
        return None;
    }
    Some(field)
}

/// Reports what contradicts `signed_in`.
pub(super) fn contradictions(
    file: &file::RouteSection,
    spec: &RouteSpec,
    credential: &CredentialRule,
    context: &mut CompileContext,
) {
    let (Some(_), Some(given)) = (&spec.signed_in, file.signed_in.given()) else { return };
    if spec.scope == Scope::Public {
        let message = "in scope \"public\" everybody is a guest already";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(
            builder.hint(
                "remove `signed_in`, or write scope = \"private\" for those who are signed in",
            ),
        );
    }
    let named = given.value.cookie.given().map_or(&[][..], |names| &names.value.0);
    let is_ignored = |text: &&Located<TomlString>| {
        credential.ignored_cookies.ignores(text.value.as_str().as_bytes())
    };
    if let Some(text) = named.iter().find(is_ignored) {
        // SECURITY: it would be in no key, and reach no fill.
        let message = format!(
            "[credential] ignores the cookie `{}`, so that those who are signed in by it would \
             share the entries of strangers",
            text.value.shown()
        );
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.hint("take it out of `ignore_cookies`, as in \"!name\""));
    }
    form_tokens(file, context);
    missing_tags(file, spec, context);
}

/// SECURITY: the token in a stored form would belong to nobody's cookie.
fn form_tokens(file: &file::RouteSection, context: &mut CompileContext) {
    let Some(StripForm::Named(list)) = file.strip_set_cookie.get() else { return };
    let is_token = |text: &&Located<TomlString>| is_form_token(text.value.as_str().as_bytes());
    if let Some(text) = list.0.iter().find(is_token) {
        let message = format!(
            "`{}` looks like the cookie of a form's token: guests would share a form whose token \
             belongs to none of them",
            text.value.shown()
        );
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.hint("take it out of the list: such pages are not for all"));
    }
}

/// Warns about tags that need a field which guests do not have.
fn missing_tags(file: &file::RouteSection, spec: &RouteSpec, context: &mut CompileContext) {
    let lacks = |field: &&Arc<Field>| {
        !field.is_optional
            && matches!(
                field.source,
                FieldSource::Auth(_)
                    | FieldSource::Session(_)
                    | FieldSource::Jwt(_)
                    | FieldSource::Identity(_)
            )
    };
    let lacking = spec.tags.iter().flat_map(Template::fields).find(lacks);
    if let (Some(field), Some(given)) = (lacking, file.tags.given()) {
        let name = &field.name;
        let message = format!(
            "guests have no `{name}`, which the tags need, so that their requests are not cached"
        );
        let builder = DiagnosticBuilder::warning(given.span.clone(), message);
        context.report.push(builder.hint(format!(
            "write {{{name}?}} in the tags, or name the guests' pages by other tags, on a route of \
             their own"
        )));
    }
}
