//! Lint of who may share an entry: public routes that depend on the caller, overridden directives
//! of the origin, tokens that start alike, unhashed credentials.

use std::sync::Arc;

use super::super::context::CompileContext;
use super::super::decode::Setting;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::{LintFile, LintRoute, texts};
use crate::policy::field::{Auth, Field, FieldSource};
use crate::policy::glob::any_matches;
use crate::policy::names::{Meaning, meaning};
use crate::policy::scope::Scope;
use crate::policy::template::Template;
use crate::semantics::storability::OriginRule;

/// The fields that tell a route's entries apart.
pub fn fields<'a>(route: &LintRoute<'a>) -> impl Iterator<Item = &'a Arc<Field>> {
    route.spec.key.iter().chain(route.spec.tags.iter().flat_map(Template::fields))
}

/// Checks each cached route, and the fields.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached() {
        match route.spec.scope {
            Scope::Public => {
                tells_apart(route, whole, context);
                shows_what_others_guard(route, whole, context);
            }
            Scope::Shared => prefix(route, context),
            Scope::Private => {}
        }
        overrides(route, context);
    }
    in_the_clear(whole, context);
}

/// Warns about a public route whose key identifies a caller.
fn tells_apart(route: &LintRoute<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let named = |name: &str| matches!(meaning(name), Some(Meaning::Credential)) || is_person(name);
    let personal = |field: &&Arc<Field>| match &field.source {
        FieldSource::Header(name) => named(name.as_str()),
        FieldSource::Cookie(name) => {
            named(name)
                || whole
                    .credential
                    .cookies
                    .as_ref()
                    .is_some_and(|names| any_matches(names, name.as_bytes()))
        }
        _ => false,
    };
    let (Some(field), Some(scope)) = (fields(route).find(personal), route.file.scope.given())
    else {
        return;
    };
    let message = format!(
        "scope \"public\" does not authenticate callers, but the field `{}` tells them apart: \
         anyone who sends a caller's value gets that caller's entry",
        field.name
    );
    context.report.push(
        DiagnosticBuilder::warning(scope.span.clone(), message)
            .hint("write scope = \"private\", or \"shared\" if the origin authorizes each caller"),
    );
}

/// What names of groups of callers contain.
#[rustfmt::skip]
const GROUPS: [&str; 12] = [
    "tenant", "org", "workspace", "team", "group", "company", "project", "realm", "shop",
    "merchant", "partner", "vendor",
];

/// A tenant has many callers; a user or an account is one caller.
fn is_person(name: &str) -> bool {
    meaning(name) == Some(Meaning::Caller)
        && !GROUPS.iter().any(|group| name.to_ascii_lowercase().contains(group))
}

/// Warns about a public route that shows the same data as a route of another scope.
fn shows_what_others_guard(
    route: &LintRoute<'_>,
    whole: &LintFile<'_>,
    context: &mut CompileContext,
) {
    let guards = |other: &&LintRoute<'_>| {
        other.spec.scope != Scope::Public
            && are_siblings(route.spec.pattern.as_str(), other.spec.pattern.as_str())
            && route
                .spec
                .tags
                .iter()
                .any(|tag| other.spec.tags.iter().any(|own| own.as_str() == tag.as_str()))
    };
    let (Some(other), Some(scope)) = (whole.cached().find(guards), route.file.scope.given()) else {
        return;
    };
    let place = context.report.source().line_for(other.path, &scope.span);
    let word = other.spec.scope.as_str();
    let message = format!(
        "this route is public, but the route at {place} has the same tag and scope \
         \"{word}\", and its path is below or beside this one"
    );
    context.report.push(
        DiagnosticBuilder::warning(scope.span.clone(), message)
            .hint(format!("write scope = \"{word}\" if the app checks the caller here too")),
    );
}

/// Whether one path starts with the fixed part of the other.
fn are_siblings(one: &str, other: &str) -> bool {
    let stem = |path: &str| -> Vec<String> {
        path.split('/')
            .skip(1)
            .take_while(|part| !part.starts_with('{'))
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (one, other) = (stem(one), stem(other));
    !one.is_empty() && !other.is_empty() && one.iter().zip(&other).all(|(a, b)| a == b)
}

/// Warns about `origin = "ignore"` if several callers share an entry.
fn overrides(route: &LintRoute<'_>, context: &mut CompileContext) {
    let chosen = route.spec.key.iter().any(|field| matches!(field.source, FieldSource::Auth(_)));
    let shared = match route.spec.scope {
        Scope::Public => "everyone",
        Scope::Shared if !chosen => "every authorized caller",
        Scope::Shared | Scope::Private => return,
    };
    if let (OriginRule::Ignore, false, Some(origin)) =
        (route.spec.origin, route.spec.ttl.is_empty(), route.file.origin.given())
    {
        let message = format!(
            "this overrides the origin's `Cache-Control: private`, so the response for one caller \
             is served to {shared}"
        );
        let hint = "write origin = \"respect\", or scope = \"private\"; if the origin marks \
                    everything `private` for no reason, end the line with `# check: ok`";
        context.report.push(DiagnosticBuilder::warning(origin.span.clone(), message).hint(hint));
    }
}

/// Warns about the start of a token as identity in a shared entry.
fn prefix(route: &LintRoute<'_>, context: &mut CompileContext) {
    let prefixed = |field: &&Arc<Field>| matches!(field.source, FieldSource::Auth(Auth::Prefix(_)));
    let Some(field) = route.spec.key.iter().find(prefixed) else { return };
    let Some(text) = texts(&route.file.key).iter().find(|text| *text.value.as_str() == *field.name)
    else {
        return;
    };
    let message = format!(
        "`{}` is the start of a token: callers whose tokens start alike share an entry here",
        field.name
    );
    let hint = format!(
        "write {} = {{ auth = \"token\" }} in [fields], or remove the field: scope \"shared\" \
         authorizes each caller separately",
        field.name
    );
    context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
}

/// Warns about headers and cookies that hold credentials and are used as plain fields.
fn in_the_clear(whole: &LintFile<'_>, context: &mut CompileContext) {
    let in_rules = |name: &str| {
        let routes = whole.routes.iter().flat_map(fields);
        routes
            .chain(whole.purges.iter().flat_map(|purge| purge.rule.fields()))
            .any(|field| *field.name == *name)
    };
    for (name, form) in whole.file.fields.get().map_or(&[][..], |named| &named.0) {
        let Some(form) = form.given().filter(|_| in_rules(&name.value)) else { continue };
        let (text, kind) = match (&form.value.header, &form.value.cookie) {
            (Setting::Given(text), _) => (text, "headers"),
            (_, Setting::Given(text)) if matches!(form.value.format, Setting::Absent) => {
                (text, "cookies")
            }
            _ => continue,
        };
        if meaning(text.value.as_str()) == Some(Meaning::Credential) {
            let shown = text.value.shown();
            let message = format!(
                "`{shown}` looks like a credential, and as a field it appears in keys and tags \
                 unhashed"
            );
            let hint = format!(
                "name it in [credential], {kind} = [\"{shown}\"], and remove `{}` from the rules: \
                 scope \"private\" has the credential in the key",
                name.value
            );
            context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
        }
    }
}
