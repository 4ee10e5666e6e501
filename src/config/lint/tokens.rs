//! Lint of `[jwt]` and of the fields that come from tokens.

use super::super::context::CompileContext;
use super::super::decode::Located;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::super::file::FieldForm;
use super::view::LintFile;
use crate::policy::field::{Field, FieldSource};
use crate::policy::glob::any_matches;
use crate::policy::jwt::TokenPlace;
use crate::policy::scope::Scope;
use crate::policy::template::Template;

/// Checks them.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    audience(whole, context);
    for route in whole.cached() {
        let tags = route.spec.tags.iter().flat_map(Template::fields);
        let mut fields = route.spec.key.iter().chain(tags);
        let Some(field) = fields.find(|field| field.token_place().is_some()) else { continue };
        let Some(scope) = route.file.scope.given() else { continue };
        let (message, hint) = match route.spec.scope {
            Scope::Public => (
                format!(
                    "scope \"public\" withholds the token from the origin, so its response cannot \
                     depend on `{}`",
                    field.name
                ),
                "write scope = \"shared\": the origin gets the token, and a caller is served what \
                 the origin has given it",
            ),
            Scope::Shared if is_whole_in_key(field, whole) => (
                format!(
                    "the cookie of `{}` is in the key as a whole, so each new token is a new entry",
                    field.name
                ),
                "name the cookie in `cookies` of [credential]",
            ),
            Scope::Shared | Scope::Private => continue,
        };
        context.report.push(DiagnosticBuilder::warning(scope.span.clone(), message).hint(hint));
    }
}

/// In scope `shared`, cookies that are not listed are part of the key, where others are listed.
fn is_whole_in_key(field: &Field, whole: &LintFile<'_>) -> bool {
    let FieldSource::Jwt(claim) = &field.source else { return false };
    match (&claim.place, &whole.credential.cookies) {
        (TokenPlace::Cookie(name), Some(listed)) => !any_matches(listed, name.as_bytes()),
        _ => false,
    }
}

/// Warns where no field uses them, and where tokens that the same issuer made for other apps count.
fn audience(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(section) = whole.file.jwt.given() else { return };
    let jwt = &section.value;
    let forms = whole.file.fields.get().map_or(&[][..], |fields| &fields.0);
    let is_read = |form: &Located<FieldForm>| form.value.jwt.given().is_some();
    if !forms.iter().any(|(_, form)| form.given().is_some_and(is_read)) {
        let message = "no field comes from a token, so [jwt] has no effect";
        let builder = DiagnosticBuilder::warning(section.span.clone(), message);
        context.report.push(
            builder.hint("add a field such as tenant = { jwt = \"/tenant_id\" }, or remove it"),
        );
        return;
    }
    if jwt.audience.given().is_none() && jwt.issuer.given().is_none() {
        let message = "[jwt] names neither `issuer` nor `audience`: every token that one of the \
                       keys has signed counts, whoever it was made for";
        let hint = "add issuer = [\"…\"] and audience = [\"…\"] with what `iss` and `aud` of your \
                    tokens hold";
        let builder = DiagnosticBuilder::warning(section.span.clone(), message);
        context.report.push(builder.hint(hint));
    }
}
