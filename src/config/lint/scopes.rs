//! Lint of who may share an entry: routes for everyone that tell callers apart, overridden words of
//! the app, tokens that begin alike, credentials in the clear.

use std::sync::Arc;

use super::super::context::CompileContext;
use super::super::decode::Setting;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::names::{Meaning, meaning};
use super::{LintFile, LintRoute, texts};
use crate::policy::field::{Auth, Field, FieldSource};
use crate::policy::scope::Scope;
use crate::policy::tag::Template;
use crate::semantics::storability::OriginRule;

/// The fields that tell a route's entries apart.
pub fn fields<'a>(route: &LintRoute<'a>) -> impl Iterator<Item = &'a Arc<Field>> {
    route.spec.key.iter().chain(route.spec.tags.iter().flat_map(Template::fields))
}

/// Looks at each cached route, and at the fields.
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

/// A route for everyone whose key names a caller.
fn tells_apart(route: &LintRoute<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let named = |name: &str| matches!(meaning(name), Some(Meaning::Credential)) || is_person(name);
    let personal = |field: &&Arc<Field>| match &field.source {
        FieldSource::Header(name) => named(name.as_str()),
        FieldSource::Cookie(name) => {
            named(name)
                || whole.credential.cookies.as_ref().is_some_and(|names| names.contains(name))
        }
        _ => false,
    };
    let (Some(field), Some(scope)) = (fields(route).find(personal), route.file.scope.given())
    else {
        return;
    };
    let message = format!(
        "scope \"public\" asks nobody who he is, but the field `{}` tells one caller from another: whoever sends its value gets that caller's \
         entry",
        field.name
    );
    context.report.push(
        DiagnosticBuilder::warning(scope.span.clone(), message)
            .hint("write scope = \"private\", or \"shared\" if the app is to admit each caller"),
    );
}

/// A tenant is many callers; a user or an account is one.
fn is_person(name: &str) -> bool {
    meaning(name) == Some(Meaning::Caller)
        && !["tenant", "org", "organization", "organisation", "workspace", "team"]
            .iter()
            .any(|group| name.to_ascii_lowercase().contains(group))
}

/// A route for everyone beside one that is not, on the same data.
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
    let (line, word) = (context.report.source().line(other.path.start), other.spec.scope.as_str());
    let message = format!(
        "this route is for everyone, but the one in line {line} shows data of the same tag, below or beside this path, as scope \"{word}\""
    );
    context.report.push(
        DiagnosticBuilder::warning(scope.span.clone(), message)
            .hint(format!("write scope = \"{word}\", if the app asks who calls here, too")),
    );
}

/// Whether one of the paths begins with what is fixed in the other.
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

/// `origin = "ignore"` where an entry is for several callers.
fn overrides(route: &LintRoute<'_>, context: &mut CompileContext) {
    let chosen = route.spec.key.iter().any(|field| matches!(field.source, FieldSource::Auth(_)));
    let shared = match route.spec.scope {
        Scope::Public => "everyone",
        Scope::Shared if !chosen => "every admitted caller",
        Scope::Shared | Scope::Private => return,
    };
    if let (OriginRule::Ignore, Some(_), Some(origin)) =
        (route.spec.origin, route.spec.ttl, route.file.origin.given())
    {
        let message = format!(
            "the app's `Cache-Control: private` is overridden here, and one caller's answer goes to {shared}"
        );
        let hint = "write origin = \"respect\", or scope = \"private\"; if the app says `private` on everything and means nothing by it, end the \
                    line with `# check: ok`";
        context.report.push(DiagnosticBuilder::warning(origin.span.clone(), message).hint(hint));
    }
}

/// The start of a token as the identity, in entries that several callers share.
fn prefix(route: &LintRoute<'_>, context: &mut CompileContext) {
    let prefixed = |field: &&Arc<Field>| matches!(field.source, FieldSource::Auth(Auth::Prefix(_)));
    let Some(field) = route.spec.key.iter().find(prefixed) else { return };
    let Some(text) = texts(&route.file.key).iter().find(|text| *text.value.as_str() == *field.name)
    else {
        return;
    };
    let message = format!(
        "`{}` is the start of a token: callers whose tokens begin alike share an entry here",
        field.name
    );
    let hint = format!(
        "write {} = {{ auth = \"token\" }} in [fields], or remove the field: scope \"shared\" admits each caller by himself",
        field.name
    );
    context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
}

/// Headers and cookies that prove who asks, used as plain fields.
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
            (_, Setting::Given(text)) => (text, "cookies"),
            _ => continue,
        };
        if meaning(text.value.as_str()) == Some(Meaning::Credential) {
            let shown = text.value.shown();
            let message = format!(
                "`{shown}` looks like a credential: as a field it stands in keys and tags as it is, not as a hash"
            );
            let hint = format!(
                "name it in [credential], {kind} = [\"{shown}\"], and take `{}` out of the rules: scope \"private\" has the credential in the key",
                name.value
            );
            context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
        }
    }
}
